//! What the access file lets a caller do: which actions it may ask for, and how often. HTTP and Slack hold a request to
//! the same rule. How many of a caller's requests may be open, the store checks when one is made.

use std::sync::Arc;

use countersign_access::Caller;
use countersign_core::lifecycle::{Request, UseRefusal};
use countersign_store::{MostOpen, Rate};

use crate::rate_limit::{self, Whose};
use crate::state::App;
use crate::telemetry::SecurityEvent;

/// Why a caller may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallerRefusal {
    /// Not for this action, or it is no caller any more.
    #[error("this caller may not ask for this action")]
    NotAllowed,
    /// Not so often.
    #[error("too many requests from this caller")]
    QuotaUsedUp {
        /// In how many milliseconds it may again.
        retry_after_ms: u64,
    },
}

impl CallerRefusal {
    /// The stable code.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            CallerRefusal::NotAllowed => "caller_not_allowed",
            CallerRefusal::QuotaUsedUp { .. } => "rate_limited",
        }
    }
}

/// Whether this caller made the request.
pub(crate) fn made(caller: &Caller, request: &Request) -> bool {
    request.submission.caller.as_deref() == Some(caller.name.as_str())
}

/// Checks that this caller made a request whose wait token it holds: a token that got out is not enough to use an approval
/// or to read what it was made of.
pub(crate) fn check_owner(app: &App, caller: &Caller, request: &Request) -> Result<(), UseRefusal> {
    if made(caller, request) {
        return Ok(());
    }
    reject(app, Some(&caller.name), SecurityEvent::CallerNotAllowed);
    Err(UseRefusal::NotTheCaller)
}

/// Checks that the caller may ask for this action.
pub(crate) fn check_action(app: &App, caller: &Caller, action: &str) -> Result<(), CallerRefusal> {
    if caller.may_ask_for(action) {
        return Ok(());
    }
    reject(app, Some(&caller.name), SecurityEvent::CallerNotAllowed);
    Err(CallerRefusal::NotAllowed)
}

/// Takes one request from the caller's quota.
pub(crate) async fn take_quota(app: &App, caller: &Caller) -> Result<(), CallerRefusal> {
    let Some(per_minute) = caller.per_minute else { return Ok(()) };
    let now = app.gateway.clock().monotonic();
    let rate = Rate { capacity: per_minute, per_sec: f64::from(per_minute) / 60.0 };
    let alone = || app.caller_quotas.take(&caller.name, per_minute, now);
    let taken = rate_limit::take(app, Whose::Caller(&caller.name), rate, alone).await;
    taken.map_err(|retry_after_ms| {
        app.metrics.count(SecurityEvent::RateLimited);
        CallerRefusal::QuotaUsedUp { retry_after_ms }
    })
}

/// The caller that a request counts towards if it is made again: the one that made it, which must still be in the access
/// file, and may still ask for the action. `None` if there is no access file. Its quota is taken once it is known that the
/// request can be made again: a wait token alone must not use it up.
pub(crate) fn check_rerequest(app: &App, original: &Request) -> Result<Option<Arc<Caller>>, CallerRefusal> {
    let Some(access) = &app.access else { return Ok(None) };
    let access = access.authenticator.access();
    let name = original.submission.caller.as_deref();
    let Some(caller) = name.and_then(|name| access.caller(name)) else {
        reject(app, name, SecurityEvent::CallerNotAllowed);
        return Err(CallerRefusal::NotAllowed);
    };
    check_action(app, caller, &original.submission.action)?;
    Ok(Some(Arc::clone(caller)))
}

/// How many requests of a caller may be open. Without an access file there is no caller.
pub(crate) fn most_open(app: &App, caller: Option<&Caller>) -> MostOpen {
    let of_action = caller.and_then(|caller| caller.open_per_action).unwrap_or(app.max_open_requests);
    MostOpen { in_all: caller.and_then(|caller| caller.open), of_action: Some(of_action) }
}

/// Counts what a caller was refused, and has it audited.
pub(crate) fn reject(app: &App, caller: Option<&str>, event: SecurityEvent) {
    app.metrics.count(event);
    app.rejections.caller(caller, event.as_str());
}

/// How many event streams may be open at once for the requests of a caller, if the access file says so.
pub(crate) fn streams(app: &App, caller: &str) -> Option<u32> {
    app.access.as_ref()?.authenticator.access().caller(caller)?.streams
}
