//! An event that may happen to a request: what policies are asked about.

use super::commitment::PayloadHashVersion;
use super::digest::Digest;
use super::event::{Act, Actor, Edit, Event, Verdict};
use super::refusal::Refusal;
use super::request::{Escalation, Request, State};
use super::step::{MAX_HISTORY, Step, judged};
use super::timestamp::Timestamp;
use crate::record::Redaction;

/// An event that nothing but the policies can object to.
///
/// INVARIANT: an event counts at most once. A proposal is made by [`Request::propose`] alone, borrows the request that it
/// is about, and is used up by its judgement; that nobody stored another version meanwhile is the store's to guard.
#[derive(Debug)]
pub struct Proposal<'a> {
    request: &'a Request,
    event: Event,
}

impl Proposal<'_> {
    /// The request before the event.
    #[must_use]
    pub fn request(&self) -> &Request {
        self.request
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The step that the event leads to, with one verdict for each policy, in the order of the action's policies.
    /// `redaction` is the action's: what it hides cannot be edited, whether or not the caller sent it.
    ///
    /// # Errors
    /// If it does not count; then nothing may be stored but the refusal's audit entry.
    pub fn judged(self, verdicts: &[Verdict], redaction: &Redaction) -> Result<Step, Refusal> {
        judged(self.request.clone(), self.event, verdicts, redaction)
    }
}

impl Request {
    /// Proposes an event: what the core itself has to object to is refused before any policy is asked.
    ///
    /// `seen` is the payload hash of the parameters that the actor saw, if that is known.
    ///
    /// # Errors
    /// If the request has ended, the act would count twice or is not due, or the actor saw other parameters.
    pub fn propose(
        &self,
        at: Timestamp,
        by: Option<Actor>,
        act: Act,
        seen: Option<Digest>,
    ) -> Result<Proposal<'_>, Refusal> {
        let State::Open(open) = &self.state else { return Err(Refusal::Ended(self.status())) };
        let at = self.time_of_next(at);
        if by.is_some() && at >= self.submission.expires_at {
            return Err(Refusal::TooLate);
        }
        if self.history.len() >= MAX_HISTORY && act != Act::Escalated {
            return Err(Refusal::HistoryFull);
        }
        let is_due = |due: Option<Timestamp>| due.is_some_and(|due| due <= at);
        match (&act, &by) {
            (Act::Submitted, None) if self.history.is_empty() => {}
            (Act::Escalated, None) if matches!(open.escalation, Escalation::At(due) if is_due(Some(due))) => {
            }
            (Act::Tick, None) if is_due(open.wake_at) => {}
            (Act::Approve { edits }, Some(actor)) => {
                if self.approvers().contains(&actor.id.as_str()) {
                    return Err(Refusal::DuplicateApproval);
                }
                if edits.iter().any(|edit| self.lacks_commitment(edit)) {
                    return Err(Refusal::SaltLost);
                }
            }
            (Act::Acknowledge { persona }, Some(_)) => {
                if self.acknowledgements().contains_key(persona.as_str()) {
                    return Err(Refusal::DuplicateAcknowledgement(persona.clone()));
                }
            }
            (Act::Withdraw, Some(actor)) => {
                let acknowledged = self.acknowledgements().values().any(|id| *id == actor.id);
                if !acknowledged && !self.approvers().contains(&actor.id.as_str()) {
                    return Err(Refusal::NothingToWithdraw);
                }
            }
            (Act::Deny { .. }, Some(_)) => {}
            // What remains is an act of a person without one, or an automatic act with one.
            _ => return Err(Refusal::NotDue),
        }
        let seq = u32::try_from(self.history.len()).map_err(|_| Refusal::HistoryFull)?;
        if seen.is_some_and(|seen| seen != self.payload_hash()) {
            return Err(Refusal::ParametersChanged);
        }
        Ok(Proposal { request: self, event: Event { seq, at, by, act } })
    }

    /// Whether the payload hash could not be made with an edit in it.
    fn lacks_commitment(&self, edit: &Edit) -> bool {
        let salted = self.submission.payload_hash_version == PayloadHashVersion::Two;
        salted && edit.after.is_some() && edit.commitment.is_none()
    }
}
