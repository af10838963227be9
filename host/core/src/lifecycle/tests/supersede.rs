//! A newer request takes the place of an older one.

use serde_json::json;

use super::*;
use crate::lifecycle::{Deployment, Gate, SupersedeKey};

fn key(text: &str) -> SupersedeKey {
    SupersedeKey { by: vec!["ref".into()], key: Digest::of(text.as_bytes()), earlier: Vec::new() }
}

/// An open request that supersedes others with the same key.
fn superseding(supersede: Option<SupersedeKey>, caller: Option<&str>) -> Request {
    let caller = caller.map(str::to_owned);
    let submission = Submission { supersede, caller, ..submission(false) };
    let verdicts = [waiting(RequirementKind::Approval)];
    submit(submission, vec!["{}".into()], &verdicts).unwrap().request
}

fn other() -> RequestId {
    RequestId::new(START, 9, 2)
}

#[test]
fn what_a_request_supersedes_is_looked_for_before_anything_else_happens_by_itself() {
    let plain = superseding(None, None);
    assert!(!plain.is_superseding());
    assert_eq!(plain.has_superseded(START, Vec::new()), None);
    let request = superseding(Some(key("a")), None);
    assert!(request.is_superseding());
    assert_eq!(request.due_at(), Some(START.plus(2_000)), "whoever finds it then does it");
    // The note stays whatever happens, until it is taken off.
    let acted = act_at(&request, START.plus(5), actor("U1"), Act::Approve { edits: Vec::new() }, {
        vec![waiting(RequirementKind::Approval)]
    });
    assert!(acted.unwrap().request.is_superseding());

    let none = request.has_superseded(START.plus(10), Vec::new()).unwrap();
    assert_eq!((none.request.version, none.request.is_superseding()), (2, false));
    assert_eq!((none.audit.len(), none.effects.len(), none.counts.len()), (0, 0, 0));
    assert_eq!(none.request.due_at(), plain.due_at());
    let one = request.has_superseded(START.plus(10), vec![other()]).unwrap();
    assert_eq!(one.request.superseded, [other()]);
    let [entry] = one.audit.as_slice() else { panic!("{:?}", one.audit) };
    assert_eq!((entry.event.as_str(), &entry.detail["superseded"]), ("supersedes", &json!([other()])));
    assert_eq!(one.effects, [Effect::ShowRequest]);
    assert_eq!(one.request.has_superseded(START.plus(10), Vec::new()), None, "it is noted once");
    assert_eq!(one.request.history, request.history, "policies do not see it");
}

#[test]
fn a_superseded_request_is_cancelled_and_names_its_successor() {
    let request = superseding(Some(key("a")), Some("web"));
    let Step { request: ended, audit, effects, counts } = request.supersede(START.plus(10), other()).unwrap();
    assert_eq!((ended.status(), ended.superseded_by()), (Status::Cancelled, Some(other())));
    assert_eq!((ended.is_superseding(), ended.due_at()), (false, None));
    let [entry] = audit.as_slice() else { panic!("{audit:?}") };
    let told = ["decision", "successor", "reason"].map(|name| entry.detail[name].clone());
    let reason = format!("superseded by the newer request {}", other());
    assert_eq!(told, [json!("cancelled"), json!(other()), json!(reason)]);
    assert_eq!(ended.decision_entry().as_ref(), Some(entry));
    assert_eq!(effects, [Effect::ShowRequest]);
    assert!(counts.contains(&Count::one("superseded_total", &[("action", "deploy")])), "{counts:?}");
    assert_eq!(ended.supersede(START.plus(11), other()), Err(Refusal::Ended(Status::Cancelled)));
    assert_eq!(request.supersede(START.plus(TIMEOUT_MS), other()), Err(Refusal::TooLate));
    let cancelled = request.cancel(START.plus(10), None).unwrap().request;
    assert_eq!(cancelled.superseded_by(), None, "its caller took it back");
}

#[test]
fn nobody_gives_way_to_another_caller() {
    let web = superseding(Some(key("a")), Some("web"));
    let gives_way = |other: &Request| (web.gives_way_to(other), other.gives_way_to(&web));
    assert_eq!(gives_way(&superseding(Some(key("a")), Some("web"))), (true, true));
    let rotated = SupersedeKey { earlier: vec![Digest::of(b"a")], ..key("b") };
    assert_eq!(gives_way(&superseding(Some(rotated), Some("web"))), (true, true));
    let other_names = SupersedeKey { by: vec!["replicas".into()], ..key("a") };
    for (supersede, caller) in [
        (Some(key("b")), Some("web")),
        (Some(key("a")), Some("nightly")),
        (Some(key("a")), None),
        (Some(other_names), Some("web")),
        (None, Some("web")),
    ] {
        let other = superseding(supersede, caller);
        assert_eq!(gives_way(&other), (false, false), "{other:?}");
    }
}

#[test]
fn of_what_a_gate_cannot_tell_apart_the_newest_stands_whoever_asked() {
    let gated = |caller: &str, action: &str, deployment: u64, environment: &str| {
        let gate = Gate::Github(Deployment {
            installation: 1,
            repository: 2,
            name: "acme/web".into(),
            run: 3,
            environment: environment.into(),
            deployment,
        });
        let (caller, action) = (Some(caller.to_owned()), action.to_owned());
        let submission = Submission { gate: Some(gate), caller, action, ..submission(false) };
        submit(submission, vec!["{}".into()], &[waiting(RequirementKind::Approval)]).unwrap().request
    };
    let older = gated("web", "deploy", 1, "production");
    let newer = gated("web-production", "deploy_prod", 2, "production");
    assert!(newer.is_superseding() && older.gives_way_to(&newer));
    assert_eq!(newer.submission.contests().count(), 1);
    assert!(!older.gives_way_to(&gated("web", "deploy", 2, "staging")));
    assert!(!older.gives_way_to(&superseding(Some(key("a")), Some("web"))));
    let subject = |request: &Request| request.submission.gate.as_ref().map(Gate::subject);
    let identity = |request: &Request| request.submission.gate.as_ref().map(Gate::identity);
    assert_eq!(subject(&older), subject(&newer));
    assert_ne!(identity(&older), identity(&newer));
}

/// What is stored of requests that supersede nothing is what it was.
#[test]
fn it_is_stored_only_if_it_is_said() {
    let text = serde_json::to_string(&superseding(None, None)).unwrap();
    assert!(!text.contains("supersed"), "{text}");
    let request = superseding(Some(key("a")), None).supersede(START, other()).unwrap().request;
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
}
