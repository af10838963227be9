//! Signed notes, in the form of C2SP `signed-note`: a text, an empty line, and a line for each signature.
//!
//! Signatures are Ed25519. They are made and checked elsewhere; here is their form.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The kind of a signature with Ed25519.
const ED25519: u8 = 1;

/// What a line of a signature begins with.
const DASH: &str = "\u{2014} ";

/// A text with signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What is signed: lines that each end with a line feed.
    pub text: String,
    /// The signatures.
    pub signatures: Vec<NoteSignature>,
}

/// A signature of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The first bytes of the key's hash.
    pub hash: [u8; 4],
    /// The signature.
    pub signature: Vec<u8>,
}

/// A public key with a name: `NAME+HASH+KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    /// The name.
    pub name: String,
    /// The key, for Ed25519.
    pub public: [u8; 32],
}

/// A text that is no note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no signed note: {0}")]
pub struct BadNote(&'static str);

/// A text that is no key of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no key of the form `NAME+HASH+KEY`, as `countersign audit key` prints it")]
pub struct BadNoteKey;

impl NoteKey {
    /// The first bytes of its hash, by which a signature names it.
    #[must_use]
    pub fn hash(&self) -> [u8; 4] {
        let hash = Sha256::new_with_prefix(self.name.as_bytes()).chain_update(b"\n");
        let hash: [u8; 32] = hash.chain_update([ED25519]).chain_update(self.public).finalize().into();
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519];
        key.extend(self.public);
        write!(f, "{}+{}+{}", self.name, hex::encode(self.hash()), STANDARD.encode(key))
    }
}

impl FromStr for NoteKey {
    type Err = BadNoteKey;

    fn from_str(text: &str) -> Result<NoteKey, BadNoteKey> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BadNoteKey);
        };
        let key = STANDARD.decode(key).map_err(|_| BadNoteKey)?;
        let Some((&ED25519, public)) = key.split_first() else { return Err(BadNoteKey) };
        let public = public.try_into().map_err(|_| BadNoteKey)?;
        let key = NoteKey { name: name.to_owned(), public };
        if is_name(name) && hash == hex::encode(key.hash()) { Ok(key) } else { Err(BadNoteKey) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for NoteSignature { name, hash, signature } in &self.signatures {
            writeln!(f, "{DASH}{name} {}", STANDARD.encode([hash, signature.as_slice()].concat()))?;
        }
        Ok(())
    }
}

impl FromStr for Note {
    type Err = BadNote;

    fn from_str(note: &str) -> Result<Note, BadNote> {
        if note.chars().any(|letter| letter.is_control() && letter != '\n') {
            return Err(BadNote("it has control characters"));
        }
        // The text may have empty lines; the last one ends it.
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(BadNote("no empty line ends its text"))?;
        let signatures =
            signatures.strip_suffix('\n').ok_or(BadNote("its last line does not end with a line feed"))?;
        let signatures =
            signatures.lines().map(|line| signature(line).ok_or(BadNote("a signature is malformed")));
        Ok(Note { text: format!("{text}\n"), signatures: signatures.collect::<Result<_, _>>()? })
    }
}

fn signature(line: &str) -> Option<NoteSignature> {
    let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = STANDARD.decode(signature).ok()?;
    let (hash, signature) = bytes.split_first_chunk::<4>()?;
    let signature = NoteSignature { name: name.to_owned(), hash: *hash, signature: signature.to_vec() };
    is_name(name).then_some(signature)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace() || letter == '+')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of Go's `golang.org/x/mod/sumdb/note`.
    #[test]
    fn notes_and_keys_of_others_are_read() {
        let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\
                    \n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let read: NoteKey = key.parse().unwrap();
        assert_eq!(read.to_string(), key);
        let parsed: Note = note.parse().unwrap();
        assert_eq!(parsed.to_string(), note);
        assert_eq!(parsed.signatures[0].hash, read.hash());
        for (broken, _) in key.char_indices().filter(|(_, letter)| letter.is_ascii_alphanumeric()) {
            let mut changed = key.to_owned();
            changed.replace_range(broken..=broken, "Z");
            assert!(changed == key || changed.parse::<NoteKey>().is_err(), "{changed}");
        }
        for broken in [
            note.trim_end().to_owned(),
            note.replace("\n\n", "\n"),
            note.replace('\u{2014}', "-"),
            note.replace("PeterNeumann", "Peter+Neumann"),
            note.replace("x08go", "*"),
            note.replace("the answer", "the\ranswer"),
        ] {
            assert!(broken.parse::<Note>().is_err(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(\u{2014} [a-z] [A-Za-z=]{0,12}\n|[a\n+ ]){0,8}") {
            if let Ok(note) = text.parse::<Note>() {
                prop_assert_eq!(note.to_string().parse::<Note>(), Ok(note));
            }
            let _ = text.parse::<NoteKey>();
        }
    }
}
