//! A request: what has happened to what was asked, and where it stands.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::digest::{Digest, payload_hash};
use super::event::{Act, Actor, Edit, Event, Requirement, RequirementKind};
use super::id::RequestId;
use super::submission::Submission;
use super::supersede::SUPERSEDE_MS;
use super::timestamp::Timestamp;
use super::usage::Consumption;
use crate::people::name_of;
use crate::trace::TraceContext;

/// One request, whole. Immutable but for `step`, which returns a new one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Grows by one with every accepted change; guards the store's commits, and is the SSE event id.
    pub version: u64,
    /// What was asked; never changes.
    pub submission: Arc<Submission>,
    /// What each policy wanted to remember of the submission (JSON text), in the order of the action's policies.
    pub memos: Arc<[String]>,
    /// The accepted events, oldest first.
    pub history: Vec<Event>,
    /// What the policies asked for; kept so that progress can still be told once they ask for nothing.
    pub needs: Needs,
    /// The requests that it superseded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<RequestId>,
    /// The span that made it, if it was traced. Nothing that is decided or proven depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// Where it stands.
    pub state: State,
}

/// What the policies asked for when they last asked for anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// How many approvals each policy wants, in the order of the action's policies.
    pub approvals: Vec<u32>,
    /// The personas to acknowledge.
    pub personas: Vec<String>,
}

/// Where a request stands; each variant holds what only it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// Waiting for people or for time.
    Open(Open),
    /// The caller may act.
    Approved {
        /// When and by whom.
        #[serde(flatten)]
        decided: Decided,
        /// That the approval was used: the one thing that changes once a request has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        consumed: Option<Consumption>,
    },
    /// The caller must not act.
    Denied(Decided),
    /// Nobody decided in time, or an admin did not let it wait any longer.
    Expired {
        /// When.
        at: Timestamp,
        /// The admin who ended it; `None` if its time was over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// Why, in the admin's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The caller took it back, or asked for something newer in its place; or an admin cancelled it.
    Cancelled {
        /// When.
        at: Timestamp,
        /// Why: in the words of the caller or the admin, unless it was superseded.
        reason: Option<String>,
        /// The newer request that superseded it; `None` if somebody cancelled it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        successor: Option<RequestId>,
        /// The admin who cancelled it; `None` if that was the caller.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

/// What an open request waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// What is missing, over all policies.
    pub requirements: Vec<Requirement>,
    /// The parameters that an approver may edit.
    pub editable: BTreeSet<String>,
    /// Whether the escalation is still to come, or was.
    pub escalation: Escalation,
    /// When a policy wants to judge again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    /// The requests that it supersedes may still be open. Until they have been looked for, nothing else happens to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superseding: bool,
}

/// Whether a request is escalated, which happens at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Escalation {
    /// Its action does not escalate.
    #[default]
    Never,
    /// It will be, should it still be open then.
    At(Timestamp),
    /// It was.
    Done(Timestamp),
}

/// A decision that people or policies made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// When.
    pub at: Timestamp,
    /// The id of the actor whose act settled it; `None` if time did.
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A state's name, as callers know it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for something other than people: a time window, say.
    Pending,
    /// Lacks an acknowledgement.
    AwaitingPersonas,
    /// Lacks only approvals.
    ReadyForApproval,
    /// The caller may act.
    Approved,
    /// The caller must not act.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// The caller or an admin took it back.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 7] = [
        Status::Pending,
        Status::AwaitingPersonas,
        Status::ReadyForApproval,
        Status::Approved,
        Status::Denied,
        Status::Expired,
        Status::Cancelled,
    ];

    /// As callers know it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::AwaitingPersonas => "awaiting_personas",
            Status::ReadyForApproval => "ready_for_approval",
            Status::Approved => "approved",
            Status::Denied => "denied",
            Status::Expired => "expired",
            Status::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can change any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Status::Approved | Status::Denied | Status::Expired | Status::Cancelled)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Request {
    /// The state's name.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.state {
            State::Open(open) => open.status(),
            State::Approved { .. } => Status::Approved,
            State::Denied(_) => Status::Denied,
            State::Expired { .. } => Status::Expired,
            State::Cancelled { .. } => Status::Cancelled,
        }
    }

    /// Whether it ended as it was made, so that there was never anything to decide.
    #[must_use]
    pub fn ended_as_made(&self) -> bool {
        self.version.saturating_sub(self.versions_since_end()) <= 1 && self.status().is_terminal()
    }

    /// The admin who ended it, if one did.
    #[must_use]
    pub fn ended_by_admin(&self) -> Option<&str> {
        match &self.state {
            State::Expired { by, .. } | State::Cancelled { by, .. } => by.as_deref(),
            State::Open(_) | State::Approved { .. } | State::Denied(_) => None,
        }
    }

    /// Why it ended, if that was said.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Approved { decided, .. } | State::Denied(decided) => decided.reason.as_deref(),
            State::Expired { reason, .. } | State::Cancelled { reason, .. } => reason.as_deref(),
            State::Open(_) => None,
        }
    }

    /// The id of the trace that it was made in, if it was traced.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        self.trace.as_ref().map(|trace| trace.parent.trace_id())
    }

    /// When it was decided, expired or cancelled.
    #[must_use]
    pub fn decided_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Open(_) => None,
            State::Approved { decided, .. } | State::Denied(decided) => Some(decided.at),
            State::Expired { at, .. } | State::Cancelled { at, .. } => Some(*at),
        }
    }

    /// The time of what happens to the request when the clock says `now`: not before what has happened to it already,
    /// though the clock be set back.
    #[must_use]
    pub fn time_of_next(&self, now: Timestamp) -> Timestamp {
        now.max(self.changed_at())
    }

    /// When its newest version came about.
    #[must_use]
    pub fn changed_at(&self) -> Timestamp {
        let last = self.history.last().map_or(self.submission.submitted_at, |last| last.at);
        let ended = self.decided_at().unwrap_or(last);
        let used =
            self.consumption().map_or(ended, |used| used.report.as_ref().map_or(used.at, |report| report.at));
        last.max(ended).max(used)
    }

    /// When something happens by itself next: a wake-up, the escalation or the expiry, or that the requests which it
    /// supersedes are looked for once more. `None` once terminal.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let State::Open(open) = &self.state else { return None };
        let escalate_at = match open.escalation {
            Escalation::At(at) => Some(at),
            Escalation::Never | Escalation::Done(_) => None,
        };
        let supersedes_at = open.superseding.then(|| self.submission.submitted_at.plus(SUPERSEDE_MS));
        [Some(self.submission.expires_at), escalate_at, open.wake_at, supersedes_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The ids that people have on this request, and the names that they came under: the requester first, then its
    /// owners, then whoever acted.
    pub fn identities(&self) -> impl Iterator<Item = (&str, Option<Cow<'_, str>>)> {
        let Submission { requester, owners, .. } = &*self.submission;
        let asked_as = name_of(&requester.source, &requester.id).ok().map(Cow::Owned);
        let acted = self.history.iter().filter_map(|event| event.by.as_ref());
        std::iter::once((self.submission.requester_id(), asked_as))
            .chain(owners.iter().map(|owner| (owner.as_str(), None)))
            .chain(acted.map(|actor| (actor.id.as_str(), actor.alias.as_deref().map(Cow::Borrowed))))
    }

    /// Ids of those whose approval stands, in the order of their approvals.
    ///
    /// An approval with edits takes the place of all before it: those agreed to other parameters.
    #[must_use]
    pub fn approvers(&self) -> Vec<&str> {
        self.approvals(|_| {}).into_iter().map(|actor| actor.id.as_str()).collect()
    }

    /// The approvals with edits that took the place of somebody else's approval, oldest first.
    #[must_use]
    pub fn replacements(&self) -> Vec<Replacement<'_>> {
        let mut replacements = Vec::new();
        self.approvals(|replacement| replacements.push(replacement));
        replacements
    }

    /// Whose approval stands, in the order of their approvals; `replaced` hears of those that stand no more for an edit.
    fn approvals<'a>(&'a self, mut replaced: impl FnMut(Replacement<'a>)) -> Vec<&'a Actor> {
        let mut standing: Vec<&Actor> = Vec::new();
        for event in &self.history {
            let Some(actor) = &event.by else { continue };
            match &event.act {
                Act::Approve { edits } => {
                    standing.retain(|other| other.id != actor.id);
                    if !edits.is_empty() && !standing.is_empty() {
                        let replaced_actors = std::mem::take(&mut standing);
                        replaced(Replacement { seq: event.seq, by: actor, edits, replaced: replaced_actors });
                    }
                    standing.push(actor);
                }
                Act::Withdraw => standing.retain(|other| other.id != actor.id),
                Act::Submitted | Act::Acknowledge { .. } | Act::Deny { .. } | Act::Escalated | Act::Tick => {}
            }
        }
        standing
    }

    /// Who acknowledged which persona, by persona.
    #[must_use]
    pub fn acknowledgements(&self) -> BTreeMap<&str, &str> {
        let mut standing: BTreeMap<&str, &str> = BTreeMap::new();
        for event in &self.history {
            let Some(actor) = &event.by else { continue };
            match &event.act {
                Act::Acknowledge { persona } => {
                    standing.insert(persona, &actor.id);
                }
                Act::Withdraw => standing.retain(|_, id| *id != actor.id),
                Act::Submitted | Act::Approve { .. } | Act::Deny { .. } | Act::Escalated | Act::Tick => {}
            }
        }
        standing
    }

    /// What approvers changed, the newest value of each parameter; `None` if it was removed.
    #[must_use]
    pub fn edits(&self) -> BTreeMap<&str, Option<&Value>> {
        self.every_edit().map(|edit| (edit.key.as_str(), edit.after.as_ref())).collect()
    }

    /// What approvers changed, oldest first.
    fn every_edit(&self) -> impl Iterator<Item = &Edit> {
        let approvals = self.history.iter().filter_map(|event| match &event.act {
            Act::Approve { edits } => Some(edits),
            _ => None,
        });
        approvals.flatten()
    }

    /// The id of who changed each edited parameter last.
    #[must_use]
    pub fn editors(&self) -> BTreeMap<&str, &str> {
        let edits = self.history.iter().filter_map(|event| match (&event.by, &event.act) {
            (Some(by), Act::Approve { edits }) => {
                Some(edits.iter().map(|edit| (edit.key.as_str(), by.id.as_str())))
            }
            _ => None,
        });
        edits.flatten().collect()
    }

    /// The parameters as they stand, edits included, redacted values still redacted.
    #[must_use]
    pub fn params(&self) -> Map<String, Value> {
        let mut params = self.submission.params.clone();
        for (key, after) in self.edits() {
            match after {
                Some(value) => params.insert(key.to_owned(), value.clone()),
                None => params.remove(key),
            };
        }
        params
    }

    /// What stands for each parameter as it stands, edits included.
    #[must_use]
    pub fn commitments(&self) -> BTreeMap<String, Digest> {
        let mut digests = self.submission.digests.clone();
        for Edit { key, after, commitment, .. } in self.every_edit() {
            match after {
                // INVARIANT: in version 2 every new value has a commitment, or it was not accepted.
                Some(value) => {
                    digests.insert(key.clone(), commitment.unwrap_or_else(|| Digest::of_json(value)))
                }
                None => digests.remove(key),
            };
        }
        digests
    }

    /// The hash of the payload as it stands, edits included. See [`payload_hash`].
    #[must_use]
    pub fn payload_hash(&self) -> Digest {
        if self.every_edit().next().is_none() {
            return payload_hash(&self.submission.digests);
        }
        payload_hash(&self.commitments())
    }
}

/// An approval with edits that took the place of others' approvals: those agreed to other parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement<'a> {
    /// Its place in the request's history.
    pub seq: u32,
    /// Who approved with edits.
    pub by: &'a Actor,
    /// What they changed.
    pub edits: &'a [Edit],
    /// Whose approvals stood before, and do not any more; never `by`.
    pub replaced: Vec<&'a Actor>,
}

impl Open {
    /// The name of the state that these requirements make.
    #[must_use]
    pub fn status(&self) -> Status {
        let lacks = |kind| self.requirements.iter().any(|requirement| requirement.kind == kind);
        if lacks(RequirementKind::Acknowledgement) {
            Status::AwaitingPersonas
        } else if lacks(RequirementKind::Approval) && !lacks(RequirementKind::Time) {
            Status::ReadyForApproval
        } else {
            Status::Pending
        }
    }
}
