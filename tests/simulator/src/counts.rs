//! How often each method was called, and the outcomes.

use std::collections::BTreeMap;

/// The calls so far, by method and outcome.
///
/// An outcome is `ok`, Slack's error code, or one of `http_500`, `http_503`, `timeout`, `reset` and `down`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    calls: BTreeMap<(String, String), u64>,
    unanswered_but_done: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, method: &str, outcome: &str) {
        *self.calls.entry((method.to_owned(), outcome.to_owned())).or_default() += 1;
    }

    pub(crate) fn add_unanswered_but_done(&mut self) {
        self.unanswered_but_done += 1;
    }

    /// The calls of a method, with any outcome.
    #[must_use]
    pub fn of(&self, method: &str) -> u64 {
        self.calls.iter().filter(|((called, _), _)| called == method).map(|(_, count)| count).sum()
    }

    /// The calls of a method that had this outcome.
    #[must_use]
    pub fn with(&self, method: &str, outcome: &str) -> u64 {
        self.calls.get(&(method.to_owned(), outcome.to_owned())).copied().unwrap_or_default()
    }

    /// The calls of any method that had this outcome.
    #[must_use]
    pub fn outcome(&self, outcome: &str) -> u64 {
        self.calls.iter().filter(|((_, of), _)| of == outcome).map(|(_, count)| count).sum()
    }

    /// The calls that were carried out, but whose caller did not learn that from the answer.
    #[must_use]
    pub fn unanswered_but_done(&self) -> u64 {
        self.unanswered_but_done
    }

    /// Method, outcome and count of all calls.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.calls.iter().map(|((method, outcome), count)| (method.as_str(), outcome.as_str(), *count))
    }
}
