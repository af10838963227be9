//! What admins do to an open request: they end it before its time, or have its messages delivered again. No policy is asked,
//! so that it can be done even if the rules of the request cannot be loaded.

use serde_json::{Map, Value, json};

use super::audit_event::AuditEvent;
use super::effect::Effect;
use super::refusal::Refusal;
use super::request::{Escalation, Request, State};
use super::step::{Step, entry};
use super::timestamp::Timestamp;

/// An admin ends a request.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminEnd {
    /// How it ends.
    pub ending: Ending,
    /// Who acts.
    pub by: AdminActor,
    /// Why.
    pub reason: Option<String>,
}

/// How an admin ends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As if its caller had taken it back.
    Cancelled,
    /// As if its time were over.
    Expired,
}

/// An admin who acts on a request.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminActor {
    /// The admin's name.
    pub name: String,
    /// How the admin called, as the audit log tells it.
    pub call: Map<String, Value>,
}

impl AdminEnd {
    /// That of a request that an admin has ended, for whoever has it end again; `None` if no admin has.
    #[must_use]
    pub fn recorded(state: &State) -> Option<AdminEnd> {
        let (ending, by, reason) = match state {
            State::Expired { by, reason, .. } => (Ending::Expired, by, reason),
            State::Cancelled { by, reason, .. } => (Ending::Cancelled, by, reason),
            State::Open(_) | State::Approved { .. } | State::Denied(_) => return None,
        };
        let by = AdminActor { name: by.clone()?, call: Map::new() };
        Some(AdminEnd { ending, by, reason: reason.clone() })
    }
}

impl Request {
    /// An admin ends the request, whether or not its time is over.
    ///
    /// # Errors
    /// If the request has ended already.
    pub fn end_by_admin(&self, at: Timestamp, end: &AdminEnd) -> Result<Step, Refusal> {
        if self.status().is_terminal() {
            return Err(Refusal::Ended(self.status()));
        }
        let AdminEnd { ending, by: AdminActor { name, call }, reason } = end;
        let (by, reason) = (Some(name.clone()), reason.clone());
        let mut step = self.ended(at, |at| match ending {
            Ending::Cancelled => State::Cancelled { at, reason, successor: None, by },
            Ending::Expired => State::Expired { at, by, reason },
        });
        let event = match ending {
            Ending::Cancelled => AuditEvent::CancelledByAdmin,
            Ending::Expired => AuditEvent::ExpiredByAdmin,
        };
        // The decision says who and why, as its receipt does; this one says how that is known.
        let at = step.request.changed_at();
        step.audit.insert(0, entry(&step.request, at, event, Some(name.clone()), call.clone()));
        Ok(step)
    }

    /// An admin has the messages of the request delivered again. Nothing of the request changes but its version.
    ///
    /// # Errors
    /// If the request has ended.
    pub fn show_again(&self, at: Timestamp, by: &AdminActor) -> Result<Step, Refusal> {
        let State::Open(open) = &self.state else { return Err(Refusal::Ended(self.status())) };
        let mut effects = vec![Effect::ShowRequest];
        if matches!(open.escalation, Escalation::Done(_)) {
            effects.push(Effect::NotifyEscalation);
        }
        if !self.replacements().is_empty() {
            effects.push(Effect::NotifyReplaced);
        }
        let request = Request { version: self.version + 1, ..self.clone() };
        let mut detail = by.call.clone();
        detail.insert("version".to_owned(), json!(request.version));
        let at = self.time_of_next(at);
        let audit = vec![entry(&request, at, AuditEvent::MessageResent, Some(by.name.clone()), detail)];
        Ok(Step { request, audit, effects, counts: Vec::new() })
    }
}
