//! The keys of `policy-set.yaml`, by where they stand. docs/POLICY-SET.md has each of them, which a test checks.

pub(super) const SET: [&str; 5] = ["version", "modules", "groups", "defaults", "actions"];

pub(super) const DEFAULTS: [&str; 4] = ["timeout", "channel", "unsatisfiable", "unknown_action"];

pub(super) const ACTION: [&str; 14] = [
    "description",
    "timeout",
    "channel",
    "escalate",
    "redact",
    "rerequest",
    "unattended",
    "consent",
    "notify",
    "consume",
    "valid_for",
    "supersede",
    "unsatisfiable",
    "policies",
];

pub(super) const ESCALATE: [&str; 3] = ["before", "channel", "mention"];

pub(super) const REDACT: [&str; 2] = ["show", "hide"];

pub(super) const REREQUEST: [&str; 4] = ["cooldown", "limit", "window", "by"];

pub(super) const POLICY: [&str; 2] = ["use", "with"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_where_it_stands() {
        let page = include_str!("../../../../docs/POLICY-SET.md");
        let sections = [
            ("The set", &SET[..]),
            ("Defaults", &DEFAULTS),
            ("An action", &ACTION),
            ("Escalation", &ESCALATE),
            ("Redaction", &REDACT),
            ("Requests that are made again", &REREQUEST),
            ("A policy", &POLICY),
        ];
        for (title, keys) in sections {
            let (_, section) = page.split_once(&format!("\n## {title}\n")).expect(title);
            let section = section.split("\n## ").next().expect("text");
            let documented: Vec<&str> =
                section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
            assert_eq!(documented, keys, "{title}");
        }
    }
}
