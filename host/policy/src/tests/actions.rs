//! Admission and judgement by real modules; every failure is typed and tells no parameter.

use serde_json::json;

use super::*;
use crate::NotAdmitted;
use countersign_core::lifecycle::{Edit, FailureKind, PolicyFailure, RequirementKind, Standing, Verdict};

fn quorum(engine: &Engine) -> ActionPolicy {
    let config = json!({ "approvers": ["U1", "U2", "U3"], "approvals": 2 });
    action(engine, &[("quorum", config)])
}

#[test]
fn two_of_three() {
    let policy = quorum(&engine());
    let request = request(&policy, vec![submitted(), approve(1, "U1")]);
    let [Verdict::Ruled(first)] = &policy.judge(&request, &approve(2, "U2"))[..] else { panic!() };
    assert!(first.grants);
    assert_eq!(first.standing, Standing::Satisfied);
    // Quorum has nothing against a stranger's vote, but does not grant it either.
    let [Verdict::Ruled(strange)] = &policy.judge(&request, &approve(2, "U0STRANGER"))[..] else { panic!() };
    assert!(!strange.grants);
}

#[test]
fn waiting_says_for_what() {
    let policy = quorum(&engine());
    let request = request(&policy, Vec::new());
    let [Verdict::Ruled(ruling)] = &policy.judge(&request, &submitted())[..] else { panic!() };
    let Standing::Waiting(requirements) = &ruling.standing else { panic!("{ruling:?}") };
    assert_eq!(requirements[0].kind, RequirementKind::Approval);
    assert_eq!((requirements[0].have, requirements[0].need), (0, 2));
}

#[test]
fn the_same_question_has_the_same_answer() {
    let engine = engine();
    let policy = quorum(&engine);
    let request = request(&policy, vec![submitted(), approve(1, "U1")]);
    let first = policy.judge(&request, &approve(2, "U3"));
    for _ in 0..20 {
        assert_eq!(policy.judge(&request, &approve(2, "U3")), first);
    }
    // Another engine, another compilation.
    assert_eq!(quorum(&fresh_engine()).judge(&request, &approve(2, "U3")), first);
}

#[test]
fn every_policy_is_asked_in_order() {
    let engine = engine();
    let policy = action(
        &engine,
        &[
            ("persona-gate", json!({ "personas": { "security": ["U0SEC"] } })),
            ("quorum", json!({ "approvers": ["U1"] })),
        ],
    );
    let request = request(&policy, vec![submitted()]);
    let verdicts = policy.judge(&request, &approve(1, "U0STRANGER"));
    assert!(matches!(verdicts[..], [Verdict::Refused(_), Verdict::Ruled(_)]), "{verdicts:?}");
}

fn misbehaves(at: &str, fault: &str) -> ActionPolicy {
    action(&engine(), &[("misbehaving", json!({ "at": at, "do": fault }))])
}

const FAULTS: [(&str, FailureKind); 5] = [
    ("loop", FailureKind::Fuel),
    ("eat_memory", FailureKind::Memory),
    ("overflow_stack", FailureKind::Trap),
    ("trap", FailureKind::Trap),
    ("huge_output", FailureKind::Malformed),
];

/// What a module can do wrong at an admission alone. The code that is not listed is the value of a hidden parameter.
const UNADMITTED: [(&str, FailureKind); 2] =
    [("malformed_memo", FailureKind::Malformed), ("unlisted_code", FailureKind::Malformed)];

#[track_caller]
fn is(failure: &PolicyFailure, fault: &str, kind: FailureKind) {
    assert_eq!(failure.kind, kind, "{fault}: {failure}");
    assert_eq!(failure.policy, "misbehaving");
    assert!(!failure.to_string().contains("swordfish"), "{failure}");
    assert!(failure.detail.len() < 300, "{failure}");
}

#[test]
fn a_module_that_misbehaves_admits_nothing() {
    for (fault, kind) in FAULTS.into_iter().chain(UNADMITTED) {
        let policy = misbehaves("admit", fault);
        let Err(NotAdmitted::Failed(failure)) = policy.admit(id(), &submission(&policy), &params(), |_| None)
        else {
            panic!("{fault}");
        };
        is(&failure, fault, kind);
    }
}

#[test]
fn a_module_that_misbehaves_consents_to_nothing() {
    for (fault, kind) in FAULTS {
        let policy = misbehaves("judge", fault);
        let request = request(&policy, vec![submitted()]);
        let [Verdict::Failed(failure)] = &policy.judge(&request, &approve(1, "U1"))[..] else {
            panic!("{fault}")
        };
        is(failure, fault, kind);
    }
}

#[test]
fn a_ruling_must_make_sense() {
    let engine = engine();
    let wake = action(&engine, &[("misbehaving", json!({ "do": "wake", "wake_after_ms": 0 }))]);
    let asleep = request(&wake, Vec::new());
    let [Verdict::Failed(failure)] = &wake.judge(&asleep, &submitted())[..] else { panic!() };
    assert!(failure.detail.contains("not after the event"), "{failure}");
    let edits = action(&engine, &[("misbehaving", json!({ "do": "editable", "keys": ["a", ""] }))]);
    let edited = request(&edits, Vec::new());
    let [Verdict::Failed(failure)] = &edits.judge(&edited, &submitted())[..] else { panic!() };
    assert!(failure.detail.contains("editable"), "{failure}");
}

#[test]
fn a_request_without_a_memo_is_not_judged() {
    let policy = quorum(&engine());
    let mut request = request(&policy, vec![submitted()]);
    request.memos = Vec::new().into();
    let [Verdict::Failed(failure)] = &policy.judge(&request, &approve(1, "U1"))[..] else { panic!() };
    assert_eq!(failure.kind, FailureKind::Malformed);
}

#[test]
fn edits_and_violations_reach_the_policy() {
    let engine = engine();
    let guard = json!({ "keys": ["replicas"], "max_keys": 1, "max_chars": 40 });
    let policy = action(&engine, &[("override-guard", guard)]);
    let request = request(&policy, vec![submitted()]);
    let edit = |key: &str, violations: &[&str]| {
        let violations = violations.iter().map(|text| (*text).to_owned()).collect();
        let (before, after) = (Some(json!(3)), Some(json!(5)));
        let edit = Edit { key: key.to_owned(), before, after, commitment: None, violations };
        policy.judge(&request, &act(1, "U1", Act::Approve { edits: vec![edit] }))
    };
    assert!(matches!(edit("replicas", &[])[..], [Verdict::Ruled(_)]));
    assert!(matches!(edit("ref", &[])[..], [Verdict::Refused(_)]));
    let [Verdict::Refused(reasons)] = &edit("replicas", &["at most 4"])[..] else { panic!() };
    assert_eq!(reasons[0].code, "schema_validation");
}

#[test]
fn calls_and_failures_are_counted() {
    let engine = fresh_engine();
    let registry = prometheus::Registry::new();
    engine.register(&registry).unwrap();
    let policy = action(&engine, &[("misbehaving", json!({ "at": "judge", "do": "trap" }))]);
    let request = request(&policy, vec![submitted()]);
    let _ = policy.judge(&request, &approve(1, "U1"));
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        r#"policy_evaluation_seconds_count{call="admit",policy="misbehaving"} 1"#,
        r#"policy_evaluation_seconds_count{call="judge",policy="misbehaving"} 1"#,
        r#"policy_failures_total{kind="trap",policy="misbehaving"} 1"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn an_action_is_slow_after_a_slow_judgement() {
    let engine = fresh_engine();
    let loops = action(&engine, &[("misbehaving", json!({"at": "judge", "do": "loop"}))]);
    let request = request(&loops, Vec::new());
    let verdicts = loops.judge(&request, &submitted());
    assert!(matches!(verdicts.as_slice(), [Verdict::Failed(_)]), "{verdicts:?}");
    assert!(loops.slow().is_some(), "its fuel lasts for more than a millisecond");
}
