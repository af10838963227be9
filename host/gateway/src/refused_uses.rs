//! Refused uses of approvals, so that whoever holds a token cannot fill the audit log with them: the first of a kind is
//! audited at once, and how many more there were, once a minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use countersign_core::lifecycle::{AuditEntry, Count, Request, RequestId, Timestamp, UseAct, UseRefusal};
use serde_json::{Map, Value, json};

/// How many kinds are told apart within a minute; the rest is one number.
const MOST: usize = 1_000;

/// What was refused since it was last audited.
#[derive(Debug, Default)]
pub(super) struct RefusedUses(Mutex<Refused>);

#[derive(Debug, Default)]
struct Refused {
    /// How often each was refused again, and by what metrics count it.
    again: BTreeMap<Kind, (u64, Count)>,
    others: u64,
}

/// The request, what was tried, the code of the refusal, and the caller.
type Kind = (RequestId, &'static str, &'static str, Option<String>);

impl RefusedUses {
    /// Whether this is the first of its kind, and so to be audited now.
    pub(super) fn is_first(
        &self,
        request: &Request,
        act: UseAct,
        refusal: &UseRefusal,
        by: Option<&str>,
    ) -> bool {
        let kind = (request.id, act.as_str(), refusal.code(), by.map(str::to_owned));
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((again, _)) = refused.again.get_mut(&kind) {
            *again += 1;
            return false;
        }
        if refused.again.len() >= MOST {
            refused.others += 1;
            return false;
        }
        refused.again.insert(kind, (0, refusal.count(request)));
        true
    }

    /// What is to be audited and counted, and forgets it.
    pub(super) fn take(&self, now: Timestamp) -> (Vec<AuditEntry>, Vec<Count>) {
        let Refused { again, others } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut told, mut counts) = (Vec::new(), Vec::new());
        for ((request, act, code, caller), (again, count)) in again {
            if again > 0 {
                told.push(
                    json!({"requestId": request, "act": act, "code": code, "caller": caller, "count": again}),
                );
                counts.push(Count { by: again, ..count });
            }
        }
        if told.is_empty() && others == 0 {
            return (Vec::new(), Vec::new());
        }
        let mut detail = Map::from_iter([("refusals".to_owned(), Value::Array(told))]);
        if others > 0 {
            detail.insert("others".to_owned(), json!(others));
        }
        (vec![AuditEntry::of_admin(now, "use_refused_again", None, detail)], counts)
    }
}

#[cfg(test)]
mod tests {
    use countersign_store::fixtures;

    use super::*;

    #[test]
    fn the_first_of_a_kind_is_told_at_once_and_the_others_once_a_minute() {
        let refused = RefusedUses::default();
        let request = fixtures::request(1);
        let consumed = |by| refused.is_first(&request, UseAct::Consume, &UseRefusal::AlreadyConsumed, by);
        assert_eq!(refused.take(fixtures::at(0)), (Vec::new(), Vec::new()));
        assert!(consumed(None) && !consumed(None) && !consumed(None));
        assert!(consumed(Some("web")));
        let other = UseRefusal::PayloadMismatch(vec!["ref".to_owned()]);
        assert!(refused.is_first(&request, UseAct::Consume, &other, None));
        let (audit, counts) = refused.take(fixtures::at(1));
        let [entry] = audit.as_slice() else { panic!("{audit:?}") };
        assert_eq!(entry.event, "use_refused_again");
        let told = json!([{
            "requestId": request.id, "act": "consume", "code": "already_consumed", "caller": null, "count": 2
        }]);
        assert_eq!((&entry.detail["refusals"], entry.detail.get("others")), (&told, None));
        assert_eq!(counts, [Count { by: 2, ..UseRefusal::AlreadyConsumed.count(&request) }]);
        assert_eq!(refused.take(fixtures::at(2)), (Vec::new(), Vec::new()), "they are told once");
        assert!(consumed(None), "in the next minute it is the first again");
    }

    #[test]
    fn a_flood_over_many_requests_is_bounded() {
        let refused = RefusedUses::default();
        let first = (0..1_500_u64).filter(|number| {
            let request = fixtures::request(*number);
            refused.is_first(&request, UseAct::Consume, &UseRefusal::AlreadyConsumed, None)
        });
        assert_eq!(first.count(), MOST);
        let (audit, _) = refused.take(fixtures::at(1));
        assert_eq!(audit[0].detail["others"], 500);
    }
}
