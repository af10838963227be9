//! What spans say of what the gateway does. Codes and ids, and no word of anybody.

use std::sync::Arc;

use countersign_core::lifecycle::{AdminEnd, Ending, Intent, Request};
use countersign_store::{Committed, Created, StoreError};
use countersign_trace::{Key, Name, Span};

use crate::policy_sets::{ChangeError, Changed};
use crate::usage::Used;
use crate::{GatewayError, Made};

/// The name of the span of what is intended.
pub(crate) fn name_of(intent: &Intent) -> Name {
    match intent {
        Intent::Acknowledge { .. } => Name::Acknowledge,
        Intent::Approve { .. } => Name::Approve,
        Intent::Deny { .. } => Name::Deny,
        Intent::Withdraw => Name::Withdraw,
        Intent::Escalate => Name::Escalate,
        Intent::Wake => Name::Wake,
        Intent::Expire | Intent::End(AdminEnd { ending: Ending::Expired, .. }) => Name::Expire,
        Intent::Cancel { .. } | Intent::End(AdminEnd { ending: Ending::Cancelled, .. }) => Name::Cancel,
    }
}

/// Says which request it is about, and links it to the span that made that.
pub(crate) fn about(span: &Span, request: &Request) {
    say_which(span, request);
    span.link(request.trace.as_ref());
}

fn say_which(span: &Span, request: &Request) {
    span.set(Key::Request, || request.id.to_string())
        .set(Key::Action, || request.submission.action.clone())
        .set(Key::RulesHash, || request.submission.policy_hash.to_string());
}

pub(crate) fn say_made(span: &Span, made: &Result<Made, GatewayError>) {
    // One that is not made has no id.
    match made {
        Ok(made) => {
            say_which(span, &made.request);
            span.set_word(Key::Status, made.request.status().as_str());
            span.set_word(Key::Outcome, if made.replayed { "replayed" } else { "created" });
            if made.replayed {
                span.link(made.request.trace.as_ref());
            }
        }
        Err(error) => say_error(span, error),
    }
}

pub(crate) fn say_changed(span: &Span, changed: &Result<Arc<Request>, GatewayError>) {
    match changed {
        Ok(request) => {
            span.set_word(Key::Status, request.status().as_str());
            span.set_word(Key::Outcome, "counted");
        }
        Err(error) => say_error(span, error),
    }
}

pub(crate) fn say_used(span: &Span, used: &Result<Used, GatewayError>) {
    match used {
        Ok(used) => {
            span.set_word(Key::Status, used.request.status().as_str());
            span.set_word(Key::Outcome, if used.replayed { "replayed" } else { "counted" });
        }
        Err(error) => say_error(span, error),
    }
}

pub(crate) fn say_error(span: &Span, error: &GatewayError) {
    span.set_word(Key::Outcome, error.code());
    if error.is_failure() {
        span.fail(error.code());
    }
}

/// The span of storing a version of a request.
pub(crate) fn committing(request: &Request) -> Span {
    let span = Span::child(Name::StoreCommit);
    span.set(Key::Request, || request.id.to_string());
    span.set_word(Key::Status, request.status().as_str());
    span
}

pub(crate) fn say_created(span: &Span, created: &Result<Created, StoreError>) {
    say_stored(
        span,
        created.as_ref().map(|created| match created {
            Created::New => "stored",
            Created::Known(..) => "known",
            Created::LineageConflict => "conflict",
            Created::TooManyOpen => "too_many_open",
            Created::Repeated => "repeated",
        }),
    );
}

pub(crate) fn say_committed(span: &Span, committed: &Result<Committed, StoreError>) {
    say_stored(
        span,
        committed.as_ref().map(|committed| match committed {
            Committed::Done => "stored",
            Committed::Conflict => "conflict",
            Committed::Repeated => "repeated",
        }),
    );
}

fn say_stored(span: &Span, stored: Result<&'static str, &StoreError>) {
    match stored {
        Ok(word) => {
            span.set_word(Key::Outcome, word);
        }
        Err(error) => {
            let code = crate::error::store_code(error);
            span.set_word(Key::Outcome, code);
            span.fail(code);
        }
    }
}

/// Says what came of an attempt to change the policy set in force.
pub(crate) fn say_reloaded(span: &Span, changed: &Result<Changed, ChangeError>) {
    match changed {
        Ok(changed) => {
            span.set(Key::SetHash, || changed.hash.to_string());
            span.set_word(Key::Outcome, changed.outcome.as_str());
        }
        Err(error) => say_not_reloaded(span, error),
    }
}

pub(crate) fn say_not_reloaded(span: &Span, error: &ChangeError) {
    span.set_word(Key::Outcome, error.code());
    span.fail(error.code());
}
