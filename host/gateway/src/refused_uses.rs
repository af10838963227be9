//! Refused uses of approvals, so that whoever holds a token cannot fill the audit log with them: the first of a kind is
//! audited at once, and how many more there were, once a minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use countersign_core::lifecycle::{
    AuditEntry, AuditEvent, Count, Digest, Request, RequestId, Timestamp, UseAct, UseRefusal,
};
use serde_json::{Map, Value, json};

/// How many kinds are told apart within a minute; the rest is one number.
const MOST: usize = 1_000;

/// How many of them may be of one request because other keys differ: who sends the parameters chooses their keys.
const MOST_OF_KEYS: usize = 10;

/// What was refused since it was last audited.
#[derive(Debug, Default)]
pub(super) struct RefusedUses(Mutex<Refused>);

#[derive(Debug, Default)]
struct Refused {
    /// How often each was refused without an entry of its own, and by what metrics count it.
    again: BTreeMap<Kind, (u64, Count)>,
    others: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    request: RequestId,
    act: &'static str,
    code: &'static str,
    caller: Option<String>,
    /// Of the keys that differ, as canonical JSON; there can be many.
    keys: Option<Digest>,
}

impl Kind {
    fn of(request: &Request, act: UseAct, refusal: &UseRefusal, by: Option<&str>) -> Kind {
        let differing = refusal.differing();
        Kind {
            request: request.id,
            act: act.as_str(),
            code: refusal.code(),
            caller: by.map(str::to_owned),
            keys: (!differing.is_empty()).then(|| Digest::of_json(&json!(differing))),
        }
    }
}

impl Refused {
    /// The kind under which this one is counted.
    fn kind(&self, kind: Kind) -> Kind {
        let is_alike = |known: &&Kind| known.request == kind.request && known.keys.is_some();
        let is_new = kind.keys.is_some() && !self.again.contains_key(&kind);
        if is_new && self.again.keys().filter(is_alike).count() >= MOST_OF_KEYS {
            return Kind { keys: None, ..kind };
        }
        kind
    }
}

impl RefusedUses {
    /// Whether this is the first of its kind, and so to be audited now.
    pub(super) fn is_first(
        &self,
        request: &Request,
        act: UseAct,
        refusal: &UseRefusal,
        by: Option<&str>,
    ) -> bool {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = refused.kind(Kind::of(request, act, refusal, by));
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

    /// The first of its kind could not be audited: it is told with the others, and not tried again with each of them.
    pub(super) fn not_audited(&self, request: &Request, act: UseAct, refusal: &UseRefusal, by: Option<&str>) {
        // Meanwhile it may have been taken; then it is the first once more, and is told next time.
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = refused.kind(Kind::of(request, act, refusal, by));
        refused.again.entry(kind).or_insert_with(|| (0, refusal.count(request))).0 += 1;
    }

    /// What is to be audited and counted, and forgets it.
    pub(super) fn take(&self, now: Timestamp) -> (Vec<AuditEntry>, Vec<Count>) {
        let Refused { again, others } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut told, mut counts) = (Vec::new(), Vec::new());
        for (Kind { request, act, code, caller, keys }, (again, count)) in again {
            if again > 0 {
                let mut kind =
                    json!({"requestId": request, "act": act, "code": code, "caller": caller, "count": again});
                if let (Some(keys), Value::Object(kind)) = (keys, &mut kind) {
                    kind.insert("differingHash".to_owned(), json!(keys));
                }
                told.push(kind);
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
        (vec![AuditEntry::of_admin(now, AuditEvent::UseRefusedAgain, None, detail)], counts)
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

    #[test]
    fn other_keys_are_another_kind_up_to_a_bound() {
        let refused = RefusedUses::default();
        let request = fixtures::request(1);
        let mismatch = |keys: &[&str]| {
            let refusal = UseRefusal::PayloadMismatch(keys.iter().map(|key| (*key).to_owned()).collect());
            refused.is_first(&request, UseAct::Consume, &refusal, None)
        };
        assert!(mismatch(&["ref"]) && mismatch(&["ref", "env"]) && !mismatch(&["ref"]));
        let (audit, _) = refused.take(fixtures::at(1));
        let told = &audit[0].detail["refusals"];
        assert_eq!(told[0]["differingHash"], json!(Digest::of_json(&json!(["ref"]))), "{told}");
        assert_eq!((told[0]["count"].as_u64(), told.get(1)), (Some(1), None));

        let names: Vec<String> = (0..100).map(|number| format!("key{number}")).collect();
        let first = names.iter().filter(|name| mismatch(&[name.as_str()])).count();
        assert_eq!(first, MOST_OF_KEYS + 1, "one of them is all others");
        let (audit, counts) = refused.take(fixtures::at(2));
        let told = audit[0].detail["refusals"].as_array().expect("a list");
        assert_eq!((told.len(), &told[0]["count"], counts[0].by), (1, &json!(89), 89));
    }

    #[test]
    fn what_could_not_be_audited_is_told_with_the_others() {
        let refused = RefusedUses::default();
        let request = fixtures::request(1);
        let (act, refusal) = (UseAct::Consume, UseRefusal::AlreadyConsumed);
        assert!(refused.is_first(&request, act, &refusal, None));
        refused.not_audited(&request, act, &refusal, None);
        assert!(!refused.is_first(&request, act, &refusal, None), "it is not tried again and again");
        assert_eq!(refused.take(fixtures::at(1)).0[0].detail["refusals"][0]["count"], 2);
    }
}
