//! Which entries are asked for, by the command and over HTTP alike.

use countersign_core::lifecycle::{AuditEntry, AuditEvent, RequestId, Status, Timestamp};
use countersign_policy::yaml::error::did_you_mean;
use countersign_store::AuditRange;

/// Which entries are asked for; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFilter {
    /// From this time on.
    pub(crate) since: Option<Timestamp>,
    /// Before this time.
    pub(crate) until: Option<Timestamp>,
    pub(crate) action: Option<String>,
    pub(crate) event: Option<AuditEvent>,
    pub(crate) status: Option<Status>,
    pub(crate) request: Option<RequestId>,
    pub(crate) actor: Option<String>,
}

impl AuditFilter {
    /// An event by its name: with a typing error in it, a filter would find nothing and say nothing.
    pub(crate) fn event(name: &str) -> Result<AuditEvent, String> {
        AuditEvent::named(name).ok_or_else(|| {
            let hint = did_you_mean(name, AuditEvent::ALL.iter().map(|event| event.as_str()));
            format!("must be an event of the audit log, such as `approved`{hint}")
        })
    }

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
            && self.event.is_none_or(|event| event.as_str() == entry.event)
            && is(self.status.as_ref(), entry.status.as_ref())
            && is(self.request.as_ref(), entry.request.as_ref())
            && is(self.actor.as_ref(), entry.actor.as_ref())
            && self.range(true).has(entry.at)
    }

    /// Whether every entry is asked for.
    pub(crate) fn takes_all(&self) -> bool {
        let AuditFilter { since, until, action, event, status, request, actor } = self;
        let texts = [action, actor].into_iter().all(Option::is_none);
        texts
            && event.is_none()
            && since.is_none()
            && until.is_none()
            && status.is_none()
            && request.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_never_is_written_is_refused() {
        for event in AuditEvent::ALL {
            assert_eq!(AuditFilter::event(event.as_str()), Ok(*event));
        }
        let said = "must be an event of the audit log, such as `approved`";
        for (name, hint) in [
            ("nosuch", ""),
            ("", ""),
            ("Approved", "; did you mean `approved`?"),
            ("conusmed", "; did you mean `consumed`?"),
        ] {
            assert_eq!(AuditFilter::event(name), Err(format!("{said}{hint}")), "{name}");
        }
    }
}
