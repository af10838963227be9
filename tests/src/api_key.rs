//! API keys of callers, made as an operator makes them.

use crate::command::countersign;

/// A caller's API key, and the line of the access file that recognises it.
#[derive(Debug)]
pub struct ApiKey {
    /// What the caller shows.
    pub secret: String,
    /// `- { sha256: … }`.
    pub line: String,
}

impl ApiKey {
    /// A new key for this caller.
    ///
    /// # Panics
    /// If the program makes none.
    #[must_use]
    pub fn new(caller: &str) -> ApiKey {
        let output = countersign(["access", "key", caller]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let found = |prefix: &str| {
            let line = text.lines().map(str::trim).find(|line| line.starts_with(prefix));
            line.unwrap_or_else(|| panic!("no `{prefix}` in {text}")).to_owned()
        };
        ApiKey { secret: found("cs_"), line: found("- { sha256:") }
    }
}
