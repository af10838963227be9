//! docs/AUDIT-EVENTS.md, from the list of the events that the writers of the audit log use.

use std::fmt::Write as _;
use std::path::Path;

use countersign_core::lifecycle::{AuditEvent, AuditSubject};

use super::{cell, compare};

const INTRODUCTION: &str = "\
# Events of the audit log
Every event that the gateway writes to its [audit log](AUDIT.md), when, and the fields that its entry has beside [those of every entry](AUDIT.md#entries).
This page is made from the list that the code takes the names from, and a test fails if it is not what that says.

A field with a question mark is left out if there is nothing to say.
No entry has the value of a hidden parameter, a token or a key.
An act of an admin has `authentication` (how the admin authenticated), `address`, and `claimedActor` if the call names somebody else.
";

const SUBJECTS: [(AuditSubject, &str); 5] = [
    (
        AuditSubject::Request,
        "## A request\nThe entry has the request's id, action, status, policy hash and, unless it says otherwise below or is \
         about Slack, payload hash.\nA refused act changes nothing of the request.\n",
    ),
    (
        AuditSubject::Unmade,
        "## A request that was not made\nThe entry has the action, and who asked as its actor.\nReasons are codes, since a \
         message may quote a parameter.\n",
    ),
    (
        AuditSubject::InForce,
        "## What is in force\nThe entry has no action.\nAn admin's name is its actor; the hashes are those of the set or file \
         that was tried, and of the one before.\n",
    ),
    (
        AuditSubject::Rejections,
        "## Refusals, counted\nAn entry has those of about a minute, and is written when the gateway stops, too.\nKinds are in \
         [SECURITY.md](SECURITY.md#in-the-audit-log); `others` is how many there was no room to keep apart.\n",
    ),
    (AuditSubject::Store, "## The log and the store\n"),
];

#[test]
fn audit_events() {
    let mut page = INTRODUCTION.to_owned();
    for (subject, about) in SUBJECTS {
        write!(page, "\n{about}\n| event | when | fields |\n|---|---|---|\n").expect("a string");
        for event in AuditEvent::ALL.iter().filter(|event| event.subject() == subject) {
            let (name, when, fields) = (event.as_str(), cell(event.when()), cell(&event.fields().join(", ")));
            let fields = if fields.is_empty() { "–".to_owned() } else { fields };
            writeln!(page, "| `{name}` | {when} | {fields} |").expect("a string");
        }
    }
    compare("AUDIT-EVENTS.md", &page);
}

/// An entry's name is a text, since logs of other versions are read, too; so this is what keeps others from being written.
#[test]
fn no_writer_has_a_name_of_its_own() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut written = Vec::new();
    for krate in std::fs::read_dir(host).expect("the crates") {
        let sources = krate.expect("a crate").path().join("src");
        if sources.is_dir() {
            entries_below(&sources, &mut written);
        }
    }
    assert!(written.len() > 5, "entries are written somewhere: {written:?}");
    let is_listed = |event: &str| event == "event: AuditEvent," || event.ends_with(".as_str().to_owned(),");
    let others: Vec<_> = written.iter().filter(|(_, event)| !is_listed(event)).collect();
    assert!(others.is_empty(), "an entry whose event is not from the list: {others:?}");
}

/// What each `AuditEntry { … }` of the program says of its event, and in which file.
fn entries_below(folder: &Path, written: &mut Vec<(String, String)>) {
    for file in std::fs::read_dir(folder).expect("a folder") {
        let path = file.expect("a file").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Those of tests are not written by the gateway.
        if ["tests", "tests.rs", "contract", "fixtures.rs", "reference"].contains(&&*name) {
            continue;
        }
        if path.is_dir() {
            entries_below(&path, written);
        } else if name.ends_with(".rs") {
            let source = std::fs::read_to_string(&path).expect("a source");
            let program = source.split("#[cfg(test)]").next().unwrap_or_default();
            for literal in program.split("AuditEntry {\n").skip(1) {
                let event = literal
                    .lines()
                    .map(str::trim)
                    .find(|line| line.starts_with("event:") || line.starts_with("event,"));
                written.extend(event.map(|event| (path.display().to_string(), event.to_owned())));
            }
        }
    }
}
