//! How the access file in force came to be: the attempts to put one in force, in one document of the store.
//!
//! Each attempt is audited first, and for good; the document has the newest ones alone. What the store does not take is
//! recorded once it does. A crash in between leaves an attempt out, and the next start notes which file it found.

use countersign_core::lifecycle::{AuditEntry, AuditEvent, Count, Counter, Digest, Timestamp};
use countersign_core::record::ChangeFault;
use countersign_policy::LoadErrors;
use countersign_store::{Nonce, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

/// The key of the document.
const KEY: &str = "access:history";

/// How many attempts are kept.
pub(super) const MOST: usize = 100;

/// How long an attempt that may have been audited is known as such, in milliseconds: longer than a store is away.
const REMEMBER_MS: u64 = 24 * 60 * 60 * 1000;

/// How many errors of an attempt are kept, and the most characters of each.
const MOST_ERRORS: usize = 10;
const ERROR_CHARS: usize = 500;

/// The attempts, and the file that the last good one put in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct History {
    /// Apart from the attempts, since those that changed nothing may have pushed out the one that did. `None` if the
    /// gateway last started without a file.
    in_force: Option<InForce>,
    /// The newest first.
    pub(crate) attempts: Vec<Attempt>,
}

/// The file in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InForce {
    hash: Digest,
    since: Timestamp,
}

/// One attempt to put an access file in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// When.
    pub(crate) at: Timestamp,
    /// What set it off.
    pub(crate) source: Source,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// SHA-256 of the file that was tried; `None` if there was none, or it could not be read.
    pub(crate) hash: Option<Digest>,
    /// SHA-256 of the file that was in force.
    pub(crate) previous: Option<Digest>,
    /// What was wrong; only the first few.
    pub(crate) errors: Vec<ChangeFault>,
}

/// What set off an attempt; the values of the metric label `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The gateway started, and found another file than the last one, or none.
    Start,
    /// SIGHUP.
    Sighup,
    /// The file changed.
    File,
    /// Another instance has put the same file in force.
    Instance,
}

/// What came of an attempt; the values of the metric label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Another file is in force.
    Ok,
    /// The same file was in force already.
    Unchanged,
    /// Nothing has changed: the file may be half-written, and nobody asked for it.
    HeldBack,
    /// Nothing has changed.
    Failed,
}

impl Source {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Source::Start => "start",
            Source::Sighup => "sighup",
            Source::File => "file",
            Source::Instance => "instance",
        }
    }
}

impl Outcome {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Unchanged => "unchanged",
            Outcome::HeldBack => "held_back",
            Outcome::Failed => "failed",
        }
    }
}

impl Attempt {
    fn audit(&self) -> AuditEntry {
        let event = match self.outcome {
            Outcome::Ok | Outcome::Unchanged => AuditEvent::AccessReloaded,
            Outcome::HeldBack => AuditEvent::AccessReloadHeldBack,
            Outcome::Failed => AuditEvent::AccessReloadFailed,
        };
        let mut detail = Map::from_iter([
            ("source".to_owned(), json!(self.source)),
            ("outcome".to_owned(), json!(self.outcome)),
            ("hash".to_owned(), json!(self.hash)),
            ("previousHash".to_owned(), json!(self.previous)),
        ]);
        if !self.errors.is_empty() {
            detail.insert("errors".to_owned(), json!(self.errors));
        }
        AuditEntry::of_admin(self.at, event, None, detail)
    }

    /// A start counts nothing: what it loads is no reload.
    fn counts(&self) -> Vec<Count> {
        match self.source {
            Source::Start => Vec::new(),
            source => vec![Count { counter: counter(source, self.outcome), by: 1 }],
        }
    }
}

/// An attempt that is not recorded yet, or not known to be.
#[derive(Clone, Debug)]
pub(super) struct Unrecorded {
    attempt: Attempt,
    /// Tells it from those of other instances at the same time.
    identity: Digest,
}

impl Unrecorded {
    pub(super) fn new(attempt: Attempt) -> Unrecorded {
        Unrecorded { attempt, identity: Digest::of(&fastrand::u128(..).to_be_bytes()) }
    }

    fn nonce(&self, now: Timestamp) -> Nonce {
        let until = self.attempt.at.plus(REMEMBER_MS);
        // Nothing excludes it but itself.
        Nonce { shard: 0, digest: self.identity, excluded_by: self.identity, at: now, until }
    }
}

impl History {
    /// Since when the file with this hash is in force, if it is noted as such.
    pub(crate) fn since(&self, hash: Option<Digest>) -> Option<Timestamp> {
        self.in_force.filter(|noted| Some(noted.hash) == hash).map(|noted| noted.since)
    }

    fn add(&mut self, attempt: Attempt) {
        if attempt.outcome == Outcome::Ok {
            self.in_force = attempt.hash.map(|hash| InForce { hash, since: attempt.at });
        }
        self.attempts.insert(0, attempt);
        self.attempts.truncate(MOST);
    }
}

/// The errors of a file, as far as they are kept.
pub(super) fn faults(errors: &LoadErrors) -> Vec<ChangeFault> {
    let faults = errors.0.iter().take(MOST_ERRORS).map(|error| {
        let place = error.place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        fault(format!("{}{place}", error.file), &error.message)
    });
    faults.collect()
}

/// An error, as far as it is kept.
pub(super) fn fault(path: String, message: &str) -> ChangeFault {
    ChangeFault { path, message: message.chars().take(ERROR_CHARS).collect() }
}

/// The counter of reloads that were set off so and came to this.
fn counter(source: Source, outcome: Outcome) -> Counter {
    let labels = [("source", source.as_str()), ("outcome", outcome.as_str())];
    Count::one("access_reloads_total", &labels).counter
}

/// The counters of every kind of reload.
pub(crate) fn counters() -> impl Iterator<Item = Counter> {
    [Source::Sighup, Source::File, Source::Instance].into_iter().flat_map(|source| {
        [Outcome::Ok, Outcome::Unchanged, Outcome::HeldBack, Outcome::Failed]
            .map(|outcome| counter(source, outcome))
    })
}

/// The history as it is stored.
///
/// # Errors
/// If the store is unavailable, or the document cannot be read.
pub(crate) async fn load(store: &dyn Store) -> Result<History, StoreError> {
    read(store.recall(KEY).await?.as_deref())
}

fn read(stored: Option<&[u8]>) -> Result<History, StoreError> {
    let Some(stored) = stored else { return Ok(History::default()) };
    serde_json::from_slice(stored).map_err(|error| StoreError::Corrupt {
        table: "kept",
        column: "value",
        key: KEY.to_owned(),
        detail: error.to_string(),
    })
}

/// Notes which file a start found, if it is another one than the last.
///
/// # Errors
/// If it cannot be stored.
pub(crate) async fn at_start(
    store: &dyn Store,
    now: Timestamp,
    found: Option<Digest>,
) -> Result<(), StoreError> {
    let previous = begun(store.recall(KEY).await?.as_deref()).in_force.map(|noted| noted.hash);
    if previous == found {
        return Ok(());
    }
    let (source, outcome) = (Source::Start, Outcome::Ok);
    let attempt = Attempt { at: now, source, outcome, hash: found, previous, errors: Vec::new() };
    record(store, Unrecorded::new(attempt), now).await
}

/// Audits and counts an attempt, and adds it to the history. It can be done again after an error, and is recorded once.
///
/// # Errors
/// If it cannot be stored, or it is not known whether it was.
pub(super) async fn record(
    store: &dyn Store,
    unrecorded: Unrecorded,
    now: Timestamp,
) -> Result<(), StoreError> {
    let nonce = unrecorded.nonce(now);
    let attempt = unrecorded.attempt;
    store.append_once(vec![attempt.audit()], attempt.counts(), nonce).await?;
    loop {
        let stored = store.recall(KEY).await?;
        let mut history = begun(stored.as_deref());
        if history.attempts.contains(&attempt) {
            return Ok(());
        }
        history.add(attempt.clone());
        let document = serde_json::to_vec(&history).unwrap_or_default();
        // Another instance may have recorded an attempt meanwhile.
        if store.replace(KEY, stored, document).await? {
            return Ok(());
        }
    }
}

/// A history that cannot be read is begun anew: the audit log has all of it.
fn begun(stored: Option<&[u8]>) -> History {
    read(stored).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read the history of the access file; it begins anew");
        History::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(at: u64, outcome: Outcome, hash: &str) -> Attempt {
        let hash = Some(Digest::of(hash.as_bytes()));
        let at = Timestamp::from_millis(at);
        Attempt { at, source: Source::Sighup, outcome, hash, previous: None, errors: Vec::new() }
    }

    #[test]
    fn the_file_in_force_is_known_whatever_was_tried_since() {
        let hash = Some(Digest::of(b"one"));
        let mut history = History::default();
        assert_eq!(history.since(None), None);
        history.add(attempt(1, Outcome::Ok, "one"));
        for at in 2..300 {
            history.add(attempt(at, Outcome::Unchanged, "one"));
            history.add(attempt(at, Outcome::Failed, "two"));
        }
        assert_eq!(history.attempts.len(), MOST);
        assert_eq!(history.attempts.first().map(|newest| newest.at), Some(Timestamp::from_millis(299)));
        assert_eq!(history.since(hash), Some(Timestamp::from_millis(1)));
        assert_eq!(history.since(Some(Digest::of(b"two"))), None);
        history.add(Attempt { hash: None, ..attempt(300, Outcome::Ok, "") });
        assert_eq!((history.since(hash), history.since(None)), (None, None));
    }
}
