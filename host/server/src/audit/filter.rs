//! Which entries are asked for, by the command and over HTTP alike.

use countersign_core::lifecycle::{AuditEntry, RequestId, Status, Timestamp};
use countersign_store::AuditRange;

/// Which entries are asked for; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFilter {
    /// From this time on.
    pub(crate) since: Option<Timestamp>,
    /// Before this time.
    pub(crate) until: Option<Timestamp>,
    pub(crate) action: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) status: Option<Status>,
    pub(crate) request: Option<RequestId>,
    pub(crate) actor: Option<String>,
}

impl AuditFilter {
    /// What the store finds without reading all of the log. `by_time` asks for entries by their time in any case.
    pub(crate) fn range(&self, by_time: bool) -> AuditRange {
        let is_limited = by_time || self.since.is_some() || self.until.is_some();
        let (since, until) = (Timestamp::EPOCH, Timestamp::from_millis(u64::MAX));
        let period = (self.since.unwrap_or(since), self.until.unwrap_or(until));
        AuditRange { request: self.request, period: is_limited.then_some(period) }
    }

    /// Whether an entry of that range is asked for.
    pub(crate) fn takes(&self, entry: &AuditEntry) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        is(self.action.as_ref(), Some(&entry.action))
            && is(self.event.as_ref(), Some(&entry.event))
            && is(self.status.as_ref(), entry.status.as_ref())
            && is(self.request.as_ref(), entry.request.as_ref())
            && is(self.actor.as_ref(), entry.actor.as_ref())
            && self.range(true).has(entry.at)
    }

    /// Whether every entry is asked for.
    pub(crate) fn takes_all(&self) -> bool {
        let AuditFilter { since, until, action, event, status, request, actor } = self;
        let texts = [action, event, actor].into_iter().all(Option::is_none);
        texts && since.is_none() && until.is_none() && status.is_none() && request.is_none()
    }
}
