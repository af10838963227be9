//! What re-executes a decision: the rules and modules that made it, and all that they were asked about. docs/RECEIPTS.md is
//! its definition.
//!
//! A receipt commits to what was recorded, so whoever has both can tell whether the one belongs to the other. It holds what
//! the holder of the wait token may see, and what the gateway keeps: hidden values are not in it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lifecycle::{Digest, Event, Request, RequestId, State, Submission, canonical};
use crate::record::PolicyEntry;

/// The version of the format that is made, and the only one that is read.
pub const VERSION: u32 = 1;

/// What re-executes a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// [`VERSION`].
    pub version: u32,
    /// The request.
    pub request_id: RequestId,
    /// What was asked, and what the policies remembered of it.
    pub asked: RecordedSubmission,
    /// What happened, and how it ended.
    pub happened: RecordedEvents,
    /// The rules; their hash is the policy hash.
    pub entry: PolicyEntry,
    /// The modules that the rules name, each once, by digest.
    pub modules: Vec<BundledModule>,
}

/// What was asked, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedSubmission {
    /// The submission; with `[redacted]` in place of each hidden value.
    pub submission: Submission,
    /// What each policy remembered when it admitted the request (JSON text), in the order of the policies. All that is left
    /// of hidden values is in here.
    pub memos: Vec<String>,
}

/// What happened to a request, as it is stored: each event with the actor's groups as they were looked up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedEvents {
    /// The events that counted, oldest first.
    pub history: Vec<Event>,
    /// How it ended. What was done with an approval since is not in it.
    pub end: State,
}

/// A module of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundledModule {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its bytes, in base64.
    pub bytes: String,
}

/// Digests of what was recorded, as a receipt has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recorded {
    /// Of what was asked: [`RecordedSubmission::digest`].
    pub asked: Digest,
    /// Of what happened: [`RecordedEvents::digest`].
    pub happened: Digest,
}

impl RecordedSubmission {
    /// That of a request.
    #[must_use]
    pub fn of(request: &Request) -> RecordedSubmission {
        let mut submission = Submission::clone(&request.submission);
        // It decides nothing, and says which other requests agree with this one in values that may be hidden.
        submission.supersede = None;
        RecordedSubmission { submission, memos: request.memos.to_vec() }
    }

    /// SHA-256 of its canonical JSON; `None` if it has none, which is equal to nothing. Nobody finds out by trying what is
    /// in it: the hash of the wait token is, too.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        Some(Digest::of_json(&serde_json::to_value(self).ok()?))
    }
}

impl RecordedEvents {
    /// Those of a request that has ended; `None` of one that is open.
    #[must_use]
    pub fn of(request: &Request) -> Option<RecordedEvents> {
        let mut end = request.state.clone();
        match &mut end {
            State::Open(_) => return None,
            State::Approved { consumed, .. } => *consumed = None,
            State::Denied(_) | State::Expired { .. } | State::Cancelled { .. } => {}
        }
        Some(RecordedEvents { history: request.history.clone(), end })
    }

    /// SHA-256 of the canonical JSON of these and of the hash of the wait token, without which what somebody did could be
    /// found out by trying; `None` if they have none, which is equal to nothing.
    #[must_use]
    pub fn digest(&self, token_hash: Digest) -> Option<Digest> {
        let mut value = serde_json::to_value(self).ok()?;
        value.as_object_mut()?.insert("tokenHash".to_owned(), Value::String(token_hash.to_string()));
        Some(Digest::of_json(&value))
    }
}

impl Recorded {
    /// Of a request that has ended; `None` of one that is open.
    #[must_use]
    pub fn of(request: &Request) -> Option<Recorded> {
        let happened = RecordedEvents::of(request)?.digest(request.submission.token_hash)?;
        Some(Recorded { asked: RecordedSubmission::of(request).digest()?, happened })
    }
}

impl Bundle {
    /// As it is handed out: canonical JSON (RFC 8785), so that a byte that was changed anywhere shows.
    ///
    /// # Errors
    /// If it has no JSON.
    pub fn canonical(&self) -> Result<String, serde_json::Error> {
        Ok(canonical(&serde_json::to_value(self)?))
    }
}
