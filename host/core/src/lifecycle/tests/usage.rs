//! An approval is used once, for what was agreed to.

use serde_json::json;

use super::*;
use crate::lifecycle::{
    Consumption, Presented, PresentedParameters, Repeat, RunReport, RunResult, Usage, UseAct, UseRefusal,
    UseTerms,
};

const APPROVED: u64 = 5_000;
const VALID_MS: u64 = 60_000;

/// Approved, with an edit of `ref`, by U1.
fn approved(valid_for_ms: Option<u64>) -> Request {
    let terms = UseTerms { valid_for_ms, required: false };
    let verdicts = [Verdict::Ruled(Ruling {
        grants: true,
        standing: Standing::Waiting(vec![requirement(RequirementKind::Approval, "one")]),
        editable: vec!["ref".into()],
        wake_at: None,
    })];
    let open =
        submit(Submission { terms, ..salted(submission(false)) }, vec!["{}".into()], &verdicts).unwrap();
    let approval = committed(Act::Approve { edits: vec![edit("ref", Some(json!("v2")))] });
    let by = actor("U1");
    let step =
        act_at(&open.request, START.plus(APPROVED), by, approval, vec![ruled(true, Standing::Satisfied)]);
    step.unwrap().request
}

fn commitments(params: &Map<String, Value>) -> Presented {
    let commitments = params.iter().map(|(key, value)| (key.clone(), salt().commit(value)));
    Presented { action: None, parameters: PresentedParameters::Commitments(commitments.collect()) }
}

fn hashed(hash: Digest) -> Presented {
    Presented { action: None, parameters: PresentedParameters::PayloadHash(hash) }
}

/// What was agreed to.
fn agreed() -> Presented {
    let mut params = params();
    params.insert("ref".into(), json!("v2"));
    commitments(&params)
}

fn by(caller: &str) -> Consumption {
    let repeat = Some(Repeat { key: Digest::of(b"key"), fingerprint: Digest::of(b"body") });
    Consumption { at: Timestamp::EPOCH, by: Some(caller.into()), repeat, report: None }
}

fn failed_run() -> RunReport {
    RunReport { at: Timestamp::EPOCH, result: RunResult::Failed, detail: Some("exit code 1".into()) }
}

#[test]
fn an_approval_is_consumed_once_and_its_outcome_reported_once() {
    let approved = approved(None);
    let now = START.plus(APPROVED + 10);
    assert_eq!(approved.usage(now), Some(Usage::Unused));
    assert_eq!(approved.report(now, None, failed_run()), Err(UseRefusal::NotConsumed));

    let Step { request, audit, effects, counts } = approved.consume(now, by("web"), &agreed()).unwrap();
    assert_eq!((request.version, request.status()), (approved.version + 1, Status::Approved));
    assert_eq!((&request.history, request.decided_at()), (&approved.history, approved.decided_at()));
    assert_eq!(request.consumption(), Some(&Consumption { at: now, ..by("web") }));
    assert_eq!(request.usage(now), Some(Usage::Consumed));
    assert_eq!(effects, [Effect::ShowRequest]);
    assert_eq!(counts, [Count::one("approvals_consumed_total", &[("action", "deploy")])]);
    let [entry] = audit.try_into().unwrap();
    assert_eq!((entry.event.as_str(), entry.at, entry.status), ("consumed", now, Some(Status::Approved)));
    assert_eq!(Value::from(entry.detail), json!({"caller": "web"}));
    assert_eq!(entry.payload_hash, Some(approved.payload_hash()));
    assert_eq!(request.consume(now, by("web"), &agreed()), Err(UseRefusal::AlreadyConsumed));

    let later = now.plus(10);
    let Step { request, audit, effects, counts } = request.report(later, Some("web"), failed_run()).unwrap();
    assert_eq!((request.version, request.usage(later)), (approved.version + 2, Some(Usage::Failed)));
    assert_eq!(effects, [Effect::ShowRequest]);
    let labels = [("action", "deploy"), ("outcome", "failed")];
    assert_eq!(counts, [Count::one("approval_outcomes_total", &labels)]);
    let [entry] = audit.try_into().unwrap();
    assert_eq!((entry.event.as_str(), entry.at), ("outcome_reported", later));
    let detail = json!({"caller": "web", "outcome": "failed", "detail": "exit code 1"});
    assert_eq!(Value::from(entry.detail), detail);
    assert_eq!(request.consume(later, by("web"), &agreed()), Err(UseRefusal::AlreadyConsumed));
    let again = RunReport { result: RunResult::Succeeded, ..failed_run() };
    assert_eq!(request.report(later, None, again), Err(UseRefusal::AlreadyReported(RunResult::Failed)));
    assert_eq!(request.changed_at(), later);
    let written = serde_json::to_string(&request).unwrap();
    let Submission { salt, .. } = &*request.submission;
    assert_eq!((serde_json::from_str::<Request>(&written).unwrap(), salt), (request.clone(), &None));
}

#[test]
fn only_what_was_agreed_to_can_be_used() {
    let approved = approved(None);
    let consume = |presented: &Presented| approved.consume(START.plus(APPROVED), by("web"), presented);
    assert!(consume(&hashed(approved.payload_hash())).is_ok());
    let asked = payload_hash(&approved.submission.digests);
    assert_eq!(consume(&hashed(asked)), Err(UseRefusal::PayloadMismatch(vec![])));

    let with = |changes: &[(&str, Option<Value>)]| {
        let mut params = params();
        params.insert("ref".into(), json!("v2"));
        for (key, value) in changes {
            match value {
                Some(value) => params.insert((*key).into(), value.clone()),
                None => params.remove(*key),
            };
        }
        commitments(&params)
    };
    type Change = (&'static str, Option<Value>);
    let rows: [(&[Change], &[&str]); 6] = [
        (&[("ref", Some(json!("v1")))], &["ref"]),
        (&[("secret", Some(json!("guessed")))], &["secret"]),
        (&[("secret", None)], &["secret"]),
        (&[("extra", Some(json!(null)))], &["extra"]),
        (&[("extra", Some(json!(1))), ("ref", None)], &["ref", "extra"]),
        (&[("ref", Some(json!("v2 ")))], &["ref"]),
    ];
    for (changes, differing) in rows {
        let differing = differing.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(consume(&with(changes)), Err(UseRefusal::PayloadMismatch(differing)), "{changes:?}");
    }
    assert!(consume(&with(&[])).is_ok());

    // Another action may have the same parameters.
    let to_run =
        |action: &str, parameters: Presented| Presented { action: Some(action.into()), ..parameters };
    assert!(consume(&to_run("deploy", agreed())).is_ok());
    assert!(consume(&to_run("deploy", hashed(approved.payload_hash()))).is_ok());
    for parameters in [agreed(), hashed(approved.payload_hash()), hashed(asked)] {
        assert_eq!(consume(&to_run("Deploy", parameters)), Err(UseRefusal::ActionMismatch));
    }
}

#[test]
fn an_approval_lapses_when_its_time_is_over() {
    let approved = approved(Some(VALID_MS));
    let until = START.plus(APPROVED + VALID_MS);
    assert_eq!(approved.valid_until(), Some(until));
    assert_eq!(approved.usage(until.minus(1)), Some(Usage::Unused));
    assert_eq!(approved.usage(until), Some(Usage::Lapsed));
    let consume = |now| approved.consume(now, by("web"), &agreed());
    assert_eq!(consume(until), Err(UseRefusal::ApprovalExpired(until)));
    let used = consume(until.minus(1)).unwrap().request;
    assert_eq!(used.usage(until), Some(Usage::Consumed), "what was consumed in time stays so");
    assert!(used.report(until.plus(1), None, failed_run()).is_ok());
}

#[test]
fn only_an_approval_is_used() {
    let open = open();
    let denied = act(
        &open,
        actor("U1"),
        Act::Deny { reason: None },
        vec![ruled(
            true,
            Standing::Denied(Reason { code: "denied".into(), message: "no".into(), path: None }),
        )],
    );
    let cancelled = open.cancel(START, None).unwrap().request;
    let expired = open.expire(START.plus(TIMEOUT_MS)).unwrap().request;
    for request in [open, denied.unwrap().request, cancelled, expired] {
        let not_approved = UseRefusal::NotApproved(request.status());
        assert_eq!(request.usage(START), None);
        assert_eq!(request.valid_until(), None);
        assert_eq!(request.consume(START, by("web"), &agreed()), Err(not_approved.clone()));
        assert_eq!(request.report(START, None, failed_run()), Err(not_approved));
    }
}

/// The clock may be set back, and a request may end as it is made.
#[test]
fn what_is_done_with_an_approval_comes_after_it() {
    let approved = approved(None);
    let used = approved.consume(START, by("web"), &agreed()).unwrap().request;
    assert_eq!(used.consumption().unwrap().at, START.plus(APPROVED));
    assert_eq!(used.time_of_next(START), START.plus(APPROVED));
    assert!(!used.ended_as_made());
    let made = submit(submission(true), vec![], &[ruled(false, Standing::Satisfied)]).unwrap().request;
    assert!(made.ended_as_made());
    let used = made.consume(START, by("web"), &hashed(made.payload_hash())).unwrap().request;
    let reported = used.report(START, None, failed_run()).unwrap().request;
    assert!(used.ended_as_made() && reported.ended_as_made());
}

#[test]
fn a_refusal_names_keys_and_no_values() {
    let approved = approved(None);
    let refusal = UseRefusal::PayloadMismatch(vec!["ref".into()]);
    let entry = refusal.audit(&approved, START, UseAct::Consume, Some("web"));
    let expected =
        json!({"act": "consume", "code": "payload_mismatch", "caller": "web", "differing": ["ref"]});
    assert_eq!((entry.event.as_str(), Value::from(entry.detail)), ("use_refused", expected));
    let labels = [("action", "deploy"), ("reason", "payload_mismatch")];
    assert_eq!(refusal.count(&approved), Count::one("approval_use_refusals_total", &labels));
}
