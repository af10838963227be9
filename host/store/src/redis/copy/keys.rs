//! Every key of a store, and what a copy does with it.

use crate::redis::call::Tag;

/// What a copy does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A request.
    Request,
    /// The open requests with a supersede key.
    Superseding,
    /// An idempotency key.
    Idempotency,
    /// A nonce.
    Nonce,
    /// An outbox entry.
    Outbox,
    /// A dispatch.
    Dispatch,
    /// The delivery state of a message.
    Message,
    /// A policy entry.
    Entry,
    /// A module.
    Module,
    /// Signatures.
    Signatures,
    /// A document.
    Document,
    /// It is read by its name, once: a log, a list or a hash.
    Whole,
    /// An index or a gauge, which the destination makes anew.
    Derived,
    /// It says nothing that is to last.
    Passing,
}

/// The keys of partitions of requests. A name that ends in a colon is followed by what the key is about.
const OF_PARTITIONS: [(&str, Use); 35] = [
    ("r:", Use::Request),
    ("idem:", Use::Idempotency),
    ("once:", Use::Nonce),
    ("ob:", Use::Outbox),
    ("disp:", Use::Dispatch),
    ("post:", Use::Message),
    ("audit", Use::Whole),
    ("audit:n", Use::Whole),
    ("audit:from", Use::Derived),
    ("audit:to", Use::Derived),
    ("audit:of:", Use::Derived),
    ("cnt", Use::Whole),
    ("lin:", Use::Derived),
    ("ids", Use::Derived),
    ("due", Use::Derived),
    ("ended", Use::Derived),
    ("archiving", Use::Passing),
    ("expiring", Use::Derived),
    ("ready:", Use::Derived),
    ("readych:", Use::Derived),
    ("waiting", Use::Derived),
    ("dispready:", Use::Derived),
    ("dispwait:", Use::Derived),
    ("dispdead:", Use::Derived),
    ("disptargets", Use::Derived),
    ("refresh:", Use::Derived),
    ("refreshch", Use::Derived),
    ("open", Use::Derived),
    ("oldest:", Use::Derived),
    ("quota:", Use::Derived),
    ("quotan:", Use::Derived),
    ("sup:", Use::Superseding),
    ("rate:", Use::Passing),
    ("op:", Use::Passing),
    ("mark", Use::Passing),
];

/// The keys of what concerns no request.
const OF_META: [(&str, Use); 20] = [
    ("entry:", Use::Entry),
    ("module:", Use::Module),
    ("sig:", Use::Signatures),
    ("doc:", Use::Document),
    ("set:", Use::Whole),
    ("sets", Use::Whole),
    ("sets:n", Use::Derived),
    ("changes", Use::Whole),
    ("force", Use::Derived),
    ("modules", Use::Derived),
    ("audit", Use::Whole),
    ("audit:n", Use::Whole),
    ("audit:from", Use::Derived),
    ("audit:to", Use::Derived),
    ("audit:checkpoint", Use::Whole),
    ("audit:files", Use::Passing),
    ("cnt", Use::Whole),
    ("lease:", Use::Passing),
    ("instances", Use::Passing),
    ("op:", Use::Passing),
];

/// The keys that either kind of partition can have.
const OF_ALL: [(&str, Use); 4] = [
    ("ping", Use::Passing),
    ("mark", Use::Passing),
    // What the store is: the destination says its own.
    ("format", Use::Passing),
    ("partitions", Use::Passing),
];

/// A key of a store, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) tag: Tag,
    /// The partition of requests; `None` for what concerns no request.
    pub(super) partition: Option<u16>,
    pub(super) used: Use,
    /// What the key is about: the part after the name.
    pub(super) about: String,
}

impl Key {
    /// `None` if the key is none of a store with this namespace and so many partitions, or one that a copy does not know.
    pub(super) fn parse(key: &str, namespace: &str, partitions: u16) -> Option<Key> {
        let (part, name) =
            key.strip_prefix('{')?.strip_prefix(namespace)?.strip_prefix(':')?.split_once("}:")?;
        let (tag, partition, known) = match part {
            "meta" => (Tag::of_meta(namespace), None, OF_META.as_slice()),
            part => {
                let partition = part.parse().ok().filter(|partition| *partition < partitions)?;
                (Tag::of_partition(namespace, partition), Some(partition), OF_PARTITIONS.as_slice())
            }
        };
        let mut known = known.iter().chain(&OF_ALL);
        let is_named = |(known, _): &&(&str, Use)| {
            if known.ends_with(':') { name.starts_with(known) } else { name == *known }
        };
        // `audit:n` is not about an `n` of `audit:`, since no name is the beginning of another one up to a colon.
        let (known, used) = known.find(is_named)?;
        let about = name.get(known.len()..)?.to_owned();
        Some(Key { tag, partition, used: *used, about })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::redis::script::SOURCES;

    #[test]
    fn a_key_is_taken_apart() {
        let parse = |key: &str| Key::parse(key, "cs", 16);
        let key = parse("{cs:3}:ready:0:C1").unwrap();
        assert_eq!((key.partition, key.used, key.about.as_str()), (Some(3), Use::Derived, "0:C1"));
        let key = parse("{cs:meta}:doc:usergroup:S1").unwrap();
        assert_eq!((key.partition, key.used, key.about.as_str()), (None, Use::Document, "usergroup:S1"));
        for unknown in ["{cs:16}:ids", "{cs:3}:idsx", "{cs:3}:doc:x", "{other:3}:ids", "{cs:3}ids", "x"] {
            assert_eq!(parse(unknown), None, "{unknown}");
        }
    }

    /// Whoever adds a key to a script, or to the documentation, has to say what a copy does with it.
    #[test]
    fn every_key_is_accounted_for() {
        let mut names = BTreeSet::new();
        for source in SOURCES {
            for (_, rest) in
                source.match_indices("P .. '").map(|(at, begin)| (at, &source[at + begin.len()..]))
            {
                names.insert(rest.split('\'').next().unwrap());
            }
        }
        assert!(names.contains("r:") && names.contains("audit") && names.len() > 30, "{names:?}");
        let known: BTreeSet<&str> =
            OF_PARTITIONS.iter().chain(&OF_META).chain(&OF_ALL).map(|(name, _)| *name).collect();
        let unknown: Vec<_> = names.difference(&known).collect();
        assert!(unknown.is_empty(), "a copy does not know {unknown:?}");

        let documentation = include_str!("../../../../../docs/REDIS.md");
        let mut documented = 0;
        for key in documentation.split('`').filter(|code| code.starts_with("{cs:") && code.contains("}:")) {
            documented += 1;
            assert!(Key::parse(key, "cs", 16).is_some() || key.ends_with("}:"), "{key}");
        }
        assert!(documented > 30);
    }
}
