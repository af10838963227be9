//! The log of decisions: one line for each request that ends, and one for each that is not made.
//!
//! A line has ids, counts and times. It never has a parameter, a reason in somebody's words, or a person's name.

use countersign_core::lifecycle::{AuditEvent, Request, State};

/// Why a request for an action that is in no policy set was not made.
const UNKNOWN_ACTION: &str = AuditEvent::UnknownAction.as_str();

/// Logs how a request ended, if the version that was just stored is the one that ended it.
///
/// To be called once that version is stored. An instance that dies in between, or that is not told by the store that it was
/// stored, leaves no line: the audit log is the record.
pub(crate) fn log_decision(stored: &Request) {
    // What happens to a request after its end is that its approval is used.
    let Some(decided_at) = stored.decided_at().filter(|_| stored.consumption().is_none()) else { return };
    let submission = &stored.submission;
    let ms = decided_at.since(submission.submitted_at);
    tracing::info!(
        request = %stored.id,
        trace = stored.trace_id(),
        action = submission.action,
        outcome = stored.status().as_str(),
        by = cause(stored),
        approvers = stored.approvers().len(),
        ms,
        "request decided"
    );
}

/// Logs that a request was not made, once that is audited.
pub(crate) fn log_not_made(action: &str, outcome: &str) {
    // The name of an action that nobody knows is the caller's own text, and may be anything.
    let action = (outcome != UNKNOWN_ACTION).then_some(action);
    tracing::info!(action, outcome, "request not made");
}

/// What ended a request.
fn cause(request: &Request) -> &'static str {
    match &request.state {
        State::Open(_) => "nobody",
        State::Approved { decided, .. } | State::Denied(decided) if decided.by.is_some() => "person",
        State::Approved { .. } | State::Denied(_) => "policy",
        State::Expired { by: Some(_), .. } | State::Cancelled { by: Some(_), .. } => "admin",
        State::Expired { .. } => "time",
        State::Cancelled { successor: Some(_), .. } => "successor",
        State::Cancelled { .. } => "caller",
    }
}
