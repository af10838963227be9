//! What is indexed of a request, whatever the backend: the fields that queries filter, sort and count by.
//!
//! A backend stores the request itself as JSON, and these beside it.

use std::collections::BTreeSet;

use countersign_core::lifecycle::{
    Digest, Effect, Gate, Request, RequestId, RequirementKind, State, Status, Timestamp,
};

use crate::Urgency;

/// The indexed fields of a request.
#[derive(Debug)]
pub(crate) struct Projection<'a> {
    pub(crate) id: RequestId,
    /// Guards commits.
    pub(crate) version: u64,
    pub(crate) action: &'a str,
    /// The caller that made it; its open requests are counted by it.
    pub(crate) caller: Option<&'a str>,
    pub(crate) status: Status,
    pub(crate) submitted_at: Timestamp,
    /// The next wake-up, escalation or expiry.
    // INVARIANT: `None` exactly if the request is terminal. Backends find open requests by it.
    pub(crate) due_at: Option<Timestamp>,
    /// Unique together with `depth`.
    pub(crate) lineage: RequestId,
    pub(crate) depth: u32,
    /// The personas whose acknowledgement is missing.
    pub(crate) waits_for: BTreeSet<&'a str>,
    pub(crate) policy_hash: Digest,
    /// What requests that supersede each other are found by.
    pub(crate) supersede: Option<&'a Digest>,
    /// The same of those that a report to a gate cannot tell apart.
    pub(crate) subject: Option<Digest>,
    /// When this version came about; an outbox entry that it enqueues waits since then.
    pub(crate) changed_at: Timestamp,
}

impl Projection<'_> {
    /// Every key that it is found by among those that supersede each other.
    pub(crate) fn contests(&self) -> impl Iterator<Item = Digest> {
        self.supersede.copied().into_iter().chain(self.subject)
    }

    pub(crate) fn of(request: &Request) -> Projection<'_> {
        let submission = &request.submission;
        Projection {
            id: request.id,
            version: request.version,
            action: &submission.action,
            caller: submission.caller.as_deref(),
            status: request.status(),
            submitted_at: submission.submitted_at,
            due_at: request.due_at(),
            lineage: submission.lineage,
            depth: submission.depth,
            waits_for: missing_personas(request),
            policy_hash: submission.policy_hash,
            supersede: submission.supersede.as_ref().map(|supersede| &supersede.key),
            subject: submission.gate.as_ref().map(Gate::subject),
            changed_at: request.changed_at(),
        }
    }
}

fn missing_personas(request: &Request) -> BTreeSet<&str> {
    let State::Open(open) = &request.state else { return BTreeSet::new() };
    let missing = open.requirements.iter().filter(|it| it.kind == RequirementKind::Acknowledgement);
    missing.map(|requirement| requirement.label.as_str()).collect()
}

impl Urgency {
    /// How urgent it is to deliver an effect of the request in its current state.
    ///
    /// An undelivered entry that is enqueued again keeps its urgency if that was higher. A backend stores
    /// [`Urgency::Unseen`] instead of [`Urgency::Ended`] if the request has no main message, and its entry is not claimed:
    /// whoever claims it may be about to post.
    #[must_use]
    pub fn of(request: &Request, effect: Effect) -> Urgency {
        match effect {
            Effect::NotifyEscalation | Effect::NotifyReplaced if !request.status().is_terminal() => {
                Urgency::First
            }
            // That a notice is out of date hurts nobody.
            Effect::NotifyEscalation | Effect::NotifyReplaced => Urgency::Changed,
            // No message offers a decision, and the one that is posted is the only word of it.
            Effect::ShowRequest if request.ended_as_made() => Urgency::Changed,
            Effect::ShowRequest if request.status().is_terminal() => Urgency::Ended,
            Effect::ShowRequest if request.version <= 1 => Urgency::First,
            Effect::ShowRequest => Urgency::Changed,
        }
    }

    /// The rank by which a backend sorts: the most urgent is the least.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Urgency::Ended => 0,
            Urgency::First => 1,
            Urgency::Changed => 2,
            Urgency::Unseen => 3,
        }
    }
}
