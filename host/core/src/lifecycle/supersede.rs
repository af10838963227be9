//! Superseding: of the requests of one action and caller that agree in some parameters, only the newest open one stands.
//! So it is with those of a CI system's gate that its report cannot tell apart ([`Gate::subject`]).
//!
//! Two writes, since the two requests may be in different places of the store. The newer request is stored first, with
//! the note that others may have to give way; then these are cancelled; then the note is taken off. Whoever finds the note,
//! after a crash too, does the rest again: it is due a moment after the request was made.

use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::audit_event::AuditEvent;
use super::digest::Digest;
use super::effect::{Count, Effect};
use super::id::RequestId;
use super::refusal::Refusal;
use super::request::{Request, State};
use super::step::{Step, entry};
use super::submission::Submission;
use super::timestamp::Timestamp;

/// How long after a request was made those that it supersedes are looked for, if whoever made it has not done so, in
/// milliseconds. Longer than that takes, so that nobody else does the same at the same time.
pub(super) const SUPERSEDE_MS: u64 = 2_000;

/// What the requests that supersede each other have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupersedeKey {
    /// The names of the parameters whose values they have in common.
    pub by: Vec<String>,
    /// Stands for the action, the caller, and these names and values, hidden ones included: a MAC under a key that is not
    /// in the store, so that nobody finds a value by trying.
    pub key: Digest,
    /// The same as it was made before, under an earlier key or for an earlier request of the lineage; requests that have
    /// it are superseded, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Digest>,
}

impl SupersedeKey {
    /// Every key under which requests can be stored that this one supersedes: older keys first.
    pub fn keys(&self) -> impl Iterator<Item = &Digest> {
        self.earlier.iter().chain([&self.key])
    }
}

impl Submission {
    /// What it contests the place of others for: a key that stands for it, with those that stood for the same before.
    pub fn contests(&self) -> impl Iterator<Item = (Digest, &[Digest])> {
        let supersede = self.supersede.as_ref().map(|it| (it.key, it.earlier.as_slice()));
        let gate = self.gate.as_ref().map(|gate| (gate.subject(), &[][..]));
        supersede.into_iter().chain(gate)
    }
}

impl Request {
    /// Whether those that it supersedes have still to be looked for.
    #[must_use]
    pub fn is_superseding(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.superseding)
    }

    /// The newer request that superseded it, if one has.
    #[must_use]
    pub fn superseded_by(&self) -> Option<RequestId> {
        match self.state {
            State::Cancelled { successor, .. } => successor,
            _ => None,
        }
    }

    /// Whether `newer` takes the place of this request, if it was stored later. Nobody's request gives way to another
    /// caller's, whatever an index says, unless a CI system has asked for both, whose word it is what it waits for.
    #[must_use]
    pub fn gives_way_to(&self, newer: &Request) -> bool {
        let (older, newer) = (&self.submission, &newer.submission);
        if let (Some(before), Some(after)) = (&older.gate, &newer.gate)
            && before.subject() == after.subject()
        {
            return true;
        }
        let (Some(before), Some(after)) = (&older.supersede, &newer.supersede) else { return false };
        older.action == newer.action
            && older.caller == newer.caller
            && before.by == after.by
            && before.keys().any(|key| after.keys().any(|other| key == other))
    }

    /// The newer request `successor` takes its place.
    ///
    /// # Errors
    /// If the request has ended or expired already.
    pub fn supersede(&self, at: Timestamp, successor: RequestId) -> Result<Step, Refusal> {
        if self.status().is_terminal() {
            return Err(Refusal::Ended(self.status()));
        }
        if at >= self.submission.expires_at {
            return Err(Refusal::TooLate);
        }
        let reason = Some(format!("superseded by the newer request {successor}"));
        let mut step =
            self.ended(at, |at| State::Cancelled { at, reason, successor: Some(successor), by: None });
        step.counts.push(Count::one("superseded_total", &[("action", &self.submission.rules)]));
        Ok(step)
    }

    /// Those that it supersedes are cancelled: these. `None` if that was noted before, or it has ended.
    #[must_use]
    pub fn has_superseded(&self, at: Timestamp, superseded: Vec<RequestId>) -> Option<Step> {
        let State::Open(open) = &self.state else { return None };
        if !open.superseding {
            return None;
        }
        let mut open = open.clone();
        open.superseding = false;
        let request =
            Request { version: self.version + 1, superseded, state: State::Open(open), ..self.clone() };
        let (mut audit, mut effects) = (Vec::new(), Vec::new());
        if !request.superseded.is_empty() {
            let detail = Map::from_iter([("superseded".to_owned(), json!(request.superseded))]);
            let caller = request.submission.caller.clone();
            audit.push(entry(&request, self.time_of_next(at), AuditEvent::Supersedes, caller, detail));
            // Its message is what those of the others lead to.
            effects.push(Effect::ShowRequest);
        }
        Some(Step { request, audit, effects, counts: Vec::new() })
    }
}
