//! The references in `docs/` that are made from the code: of every setting, of every route, and of every event of the audit
//! log.
//!
//! A test compares each with what the code says. `COUNTERSIGN_DOCS=write cargo test -p countersign --lib reference` writes
//! them anew.

mod api;
mod audit_events;
mod settings;

use std::path::Path;

/// Compares a page of `docs/` with what it should say, or writes it if that is asked for.
#[expect(clippy::disallowed_methods, reason = "it is the tests' configuration, not the gateway's")]
fn compare(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    if std::env::var("COUNTERSIGN_DOCS").is_ok_and(|asked| asked == "write") {
        std::fs::write(&path, expected).expect("docs/ can be written to");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(expected.lines()).find(|(written, expected)| written != expected);
    assert!(
        written == expected,
        "docs/{page} is not what the code says, first at {differs:?}: write it anew with `COUNTERSIGN_DOCS=write cargo test \
         -p countersign --lib reference`"
    );
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
