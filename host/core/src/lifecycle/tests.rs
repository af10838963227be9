//! What a step does to a request.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::*;
use crate::record::Redaction;

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);
const TIMEOUT_MS: u64 = 600_000;

mod histories;
mod operate;
mod supersede;
mod usage;

fn params() -> Map<String, Value> {
    json!({"replicas": 3, "ref": "v1", "secret": "hunter2"}).as_object().cloned().unwrap_or_default()
}

fn salt() -> Salt {
    Salt::new([7; 32])
}

/// A submission whose payload hash has the salt above. The store keeps it, which is not looked at here.
fn salted(submission: Submission) -> Submission {
    let digests = params().iter().map(|(key, value)| (key.clone(), salt().commit(value))).collect();
    Submission { digests, payload_hash_version: PayloadHashVersion::Two, ..submission }
}

/// The act, with the commitments that the salt makes.
fn committed(act: Act) -> Act {
    let Act::Approve { mut edits } = act else { return act };
    for edit in &mut edits {
        edit.commitment = edit.after.as_ref().map(|after| salt().commit(after));
    }
    Act::Approve { edits }
}

/// Hides two parameters; the caller sends only one of them.
fn redaction() -> Redaction {
    Redaction::Hide(["secret".to_owned(), "flag".to_owned()].into())
}

fn submission(unattended: bool) -> Submission {
    let mut shown = params();
    shown.insert("secret".into(), REDACTED.into());
    let id = request_id();
    Submission {
        action: "deploy".into(),
        rules: "deploy".into(),
        lineage: id,
        depth: 0,
        rerequested_by: None,
        caller: None,
        requester_is: None,
        owners: Default::default(),
        rerequester_is: None,
        requester: Party { id: "U9".into(), source: "slack".into(), display: None },
        requester_groups: Default::default(),
        origin: Origin { repo: "acme/web".into(), branch: None, pr: None, run_id: None },
        justification: "release".into(),
        links: Vec::new(),
        policy_hints: None,
        params: shown,
        redacted: BTreeSet::from(["secret".to_owned()]),
        digests: parameter_digests(&params()),
        payload_hash_version: PayloadHashVersion::One,
        salt: None,
        policy_hash: Digest::of(b"rules"),
        token_hash: Digest::of(b"token"),
        submitted_at: START,
        expires_at: START.plus(TIMEOUT_MS),
        escalate_at: Some(START.plus(TIMEOUT_MS / 2)),
        unattended,
        consent: Consent::Whole,
        terms: Default::default(),
        supersede: Default::default(),
        gate: None,
    }
}

fn request_id() -> RequestId {
    RequestId::new(START, 7, 1)
}

/// The published vectors were computed without this code, by docs/payload_hash.py, which the end-to-end tests run.
#[test]
fn payload_hashes_are_the_published_ones() {
    #[derive(serde::Deserialize)]
    struct Vector {
        name: String,
        version: PayloadHashVersion,
        salt: Option<Digest>,
        params: Map<String, Value>,
        #[serde(default)]
        overrides: Map<String, Value>,
        #[serde(default)]
        removed: Vec<String>,
        commitments: BTreeMap<String, Digest>,
        payload_hash: Digest,
    }
    let published = include_str!("../../../../docs/payload-hash-vectors.json");
    let vectors: Vec<Vector> = serde_json::from_str(published).expect("the vectors can be read");
    let of = |version| vectors.iter().filter(|vector| vector.version == version).count();
    assert!(of(PayloadHashVersion::One) >= 6 && of(PayloadHashVersion::Two) >= 10);
    assert!(vectors.iter().any(|vector| !vector.overrides.is_empty()));
    for vector in vectors {
        let salt = vector.salt.map(|salt| Salt::new(*salt.as_bytes()));
        let made = match &salt {
            Some(salt) => {
                let wrapped = WrappedSalt { key: "any".into(), sealed: Vec::new() };
                Commitments::salted(&vector.params, salt, wrapped)
            }
            None => Commitments::unsalted(&vector.params),
        };
        assert_eq!(made.version, vector.version, "{}", vector.name);
        let changed = vector.overrides.into_iter().map(|(key, value)| (key, Some(value)));
        let removed = vector.removed.into_iter().map(|key| (key, None));
        let edits = changed.chain(removed).map(|(key, after)| {
            let commitment = salt.as_ref().and_then(|salt| Some(salt.commit(after.as_ref()?)));
            Edit { key, before: None, after, commitment, violations: Vec::new() }
        });
        let edits: Vec<Edit> = edits.collect();
        if edits.is_empty() {
            assert_eq!(made.digests, vector.commitments, "{}", vector.name);
        }
        let Commitments { version, digests, salt } = made;
        let submission = Submission { digests, payload_hash_version: version, salt, ..submission(false) };
        let mut request = draft(request_id(), submission, Vec::new());
        request.history.push(Event { seq: 0, at: START, by: actor("U1"), act: Act::Approve { edits } });
        assert_eq!(request.payload_hash(), vector.payload_hash, "{}", vector.name);
        assert_eq!(payload_hash(&vector.commitments), vector.payload_hash, "{}", vector.name);
    }
}

fn requirement(kind: RequirementKind, label: &str) -> Requirement {
    Requirement {
        kind,
        label: label.into(),
        have: 0,
        need: 1,
        eligible: vec!["U1".into()],
        excluded: Vec::new(),
    }
}

fn waiting(kind: RequirementKind) -> Verdict {
    ruled(true, Standing::Waiting(vec![requirement(kind, "something")]))
}

fn ruled(grants: bool, standing: Standing) -> Verdict {
    Verdict::Ruled(Ruling { grants, standing, editable: vec!["replicas".into()], wake_at: None })
}

fn failed() -> Verdict {
    Verdict::Failed(PolicyFailure { policy: "p".into(), kind: FailureKind::Trap, detail: "trap".into() })
}

fn refused(code: &str) -> Verdict {
    Verdict::Refused(vec![Reason { code: code.into(), message: code.into(), path: None }])
}

/// Makes a request, judged by `verdicts`.
fn submit(submission: Submission, memos: Vec<String>, verdicts: &[Verdict]) -> Result<Step, Refusal> {
    let at = submission.submitted_at;
    draft(request_id(), submission, memos)
        .propose(at, None, Act::Submitted, None)?
        .judged(verdicts, &redaction())
}

/// An open request that waits for approvals.
fn open() -> Request {
    let verdicts =
        vec![ruled(false, Standing::Waiting(vec![requirement(RequirementKind::Approval, "0 of 2")]))];
    submit(submission(false), vec!["null".into()], &verdicts).expect("the request is admitted").request
}

fn actor(id: &str) -> Option<Actor> {
    Some(Actor { id: id.into(), groups: BTreeSet::new(), groups_as_of: None, ..Actor::default() })
}

fn approve() -> Act {
    Act::Approve { edits: Vec::new() }
}

fn edit(key: &str, after: Option<Value>) -> Edit {
    Edit { key: key.into(), before: None, after, commitment: None, violations: Vec::new() }
}

/// Does `act` a minute after the start, judged by `verdicts`.
fn act(request: &Request, by: Option<Actor>, act: Act, verdicts: Vec<Verdict>) -> Result<Step, Refusal> {
    act_at(request, START.plus(60_000), by, act, verdicts)
}

fn act_at(
    request: &Request,
    at: Timestamp,
    by: Option<Actor>,
    act: Act,
    verdicts: Vec<Verdict>,
) -> Result<Step, Refusal> {
    request.propose(at, by, act, None)?.judged(&verdicts, &redaction())
}

mod one_step {
    use super::*;

    #[test]
    fn approves_where_every_policy_is_satisfied_and_one_grants() {
        let step = act(
            &open(),
            actor("U1"),
            approve(),
            vec![ruled(true, Standing::Satisfied), ruled(false, Standing::Satisfied)],
        )
        .expect("the vote counts");
        assert_eq!(step.request.status(), Status::Approved);
        assert_eq!(step.request.approvers(), ["U1"]);
        let decision =
            step.audit.iter().find(|entry| entry.event == "approved").expect("the decision is audited");
        assert_eq!(decision.detail.get("approvers"), Some(&json!(["U1"])));
        assert_eq!(decision.detail.get("decision"), Some(&json!("approved")));
        assert_eq!(decision.policy_hash, Some(Digest::of(b"rules")));
        assert_eq!(decision.payload_hash, Some(payload_hash(&parameter_digests(&params()))));
    }

    #[test]
    fn silence_is_not_permission() {
        let verdicts = vec![ruled(false, Standing::Satisfied)];
        assert_eq!(act(&open(), actor("U1"), approve(), verdicts), Err(Refusal::Unauthorized(Vec::new())));
    }

    #[test]
    fn a_refusal_outweighs_a_grant_and_names_every_reason() {
        let verdicts = vec![refused("a"), ruled(true, Standing::Satisfied), refused("b")];
        let Err(Refusal::Objected(reasons)) = act(&open(), actor("U1"), approve(), verdicts) else {
            panic!("the vote must be refused")
        };
        assert_eq!(reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_failure_is_never_consent() {
        for verdicts in
            [vec![ruled(true, Standing::Satisfied), failed()], vec![failed(), refused("a")], vec![]]
        {
            assert!(matches!(act(&open(), actor("U1"), approve(), verdicts), Err(Refusal::PolicyFailed(_))));
        }
    }

    #[test]
    fn an_act_against_the_request_never_approves_it() {
        let voted = act(&open(), actor("U1"), approve(), vec![waiting(RequirementKind::Approval)])
            .expect("counts")
            .request;
        for against in [Act::Deny { reason: None }, Act::Withdraw] {
            let result = act(&voted, actor("U1"), against, vec![ruled(true, Standing::Satisfied)]);
            assert!(matches!(result, Err(Refusal::PolicyFailed(_))), "{result:?}");
        }
    }

    #[test]
    fn nobody_acted_means_nobody_approved_unless_the_action_says_unattended() {
        let satisfied = || vec![ruled(false, Standing::Satisfied)];
        let attended = submit(submission(false), Vec::new(), &satisfied());
        assert!(matches!(attended, Err(Refusal::PolicyFailed(_))));
        let unattended = submit(submission(true), Vec::new(), &satisfied()).expect("it is approved");
        assert_eq!(unattended.request.status(), Status::Approved);
    }

    #[test]
    fn a_denial_carries_the_words_of_who_denied() {
        let denied = || {
            vec![ruled(
                true,
                Standing::Denied(Reason { code: "x".into(), message: "policy words".into(), path: None }),
            )]
        };
        for (said, expected) in [(Some("too risky"), "too risky"), (None, "policy words")] {
            let deny = Act::Deny { reason: said.map(Into::into) };
            let step = act(&open(), actor("U2"), deny, denied()).expect("counts");
            let State::Denied(decided) = &step.request.state else { panic!("it must be denied") };
            assert_eq!((decided.by.as_deref(), decided.reason.as_deref()), (Some("U2"), Some(expected)));
        }
    }

    #[test]
    fn a_vote_at_the_expiry_is_too_late() {
        let late = act_at(
            &open(),
            START.plus(TIMEOUT_MS),
            actor("U1"),
            approve(),
            vec![ruled(true, Standing::Satisfied)],
        );
        assert_eq!(late, Err(Refusal::TooLate));
        let in_time = act_at(
            &open(),
            START.plus(TIMEOUT_MS - 1),
            actor("U1"),
            approve(),
            vec![ruled(true, Standing::Satisfied)],
        );
        assert!(in_time.is_ok());
    }

    #[test]
    fn what_ends_a_request_is_not_before_what_has_happened_to_it() {
        for jump in [0, 20_000, 3_600_000] {
            let request = open();
            let last = request.history.last().expect("it was made").at;
            let cancelled = request.cancel(last.minus(jump), None).expect("it is open");
            assert_eq!(cancelled.request.decided_at(), Some(last), "{jump}");
            assert!(cancelled.audit.iter().all(|entry| entry.at == last), "{jump}");
            assert_eq!(cancelled.request.time_of_next(last.minus(jump)), last, "{jump}");
            assert_eq!(cancelled.request.time_of_next(last.plus(jump)), last.plus(jump), "{jump}");

            let due = START.plus(TIMEOUT_MS);
            let mut late = open();
            late.history.last_mut().expect("it was made").at = due.plus(jump);
            let expired = late.expire(due).expect("it is due").request;
            assert_eq!(expired.decided_at(), Some(due.plus(jump)), "{jump}");
        }
    }

    #[test]
    fn expires_once_and_not_before_its_time() {
        assert_eq!(open().expire(START.plus(TIMEOUT_MS - 1)), Err(Refusal::NotDue));
        let expired = open().expire(START.plus(TIMEOUT_MS)).expect("it is due").request;
        assert_eq!(expired.status(), Status::Expired);
        assert_eq!(expired.due_at(), None);
        assert_eq!(expired.expire(START.plus(TIMEOUT_MS)), Err(Refusal::Ended(Status::Expired)));
    }

    #[test]
    fn escalates_once_with_a_notice() {
        let verdicts = || vec![waiting(RequirementKind::Approval)];
        assert_eq!(act(&open(), None, Act::Escalated, verdicts()), Err(Refusal::NotDue));
        let at = START.plus(TIMEOUT_MS / 2);
        let escalated = act_at(&open(), at, None, Act::Escalated, verdicts()).expect("it is due");
        assert_eq!(escalated.effects, [Effect::NotifyEscalation, Effect::ShowRequest]);
        assert_eq!(act_at(&escalated.request, at, None, Act::Escalated, verdicts()), Err(Refusal::NotDue));
        assert_eq!(escalated.request.due_at(), Some(START.plus(TIMEOUT_MS)));
    }

    #[test]
    fn wakes_no_sooner_than_a_second_and_never_after_the_expiry() {
        let wake = |at: Timestamp| {
            let Verdict::Ruled(mut ruling) = waiting(RequirementKind::Time) else { panic!("a ruling") };
            ruling.wake_at = Some(at);
            let step = act(&open(), actor("U1"), approve(), vec![Verdict::Ruled(ruling)]).expect("counts");
            let State::Open(open) = step.request.state else { panic!("still open") };
            open.wake_at
        };
        assert_eq!(wake(START), Some(START.plus(61_000)));
        assert_eq!(wake(START.plus(90_000)), Some(START.plus(90_000)));
        assert_eq!(wake(START.plus(TIMEOUT_MS)), None);
    }

    #[test]
    fn a_tick_that_changes_nothing_makes_no_message_stale() {
        let Verdict::Ruled(mut ruling) = waiting(RequirementKind::Time) else { panic!("a ruling") };
        ruling.wake_at = Some(START.plus(90_000));
        let verdicts = vec![Verdict::Ruled(ruling)];
        let woken = act(&open(), actor("U1"), approve(), verdicts.clone()).expect("counts").request;
        let ticked = act_at(&woken, START.plus(90_000), None, Act::Tick, verdicts).expect("it is due");
        assert_eq!(ticked.effects, []);
    }

    #[test]
    fn an_edit_takes_the_place_of_earlier_approvals() {
        let verdicts = || vec![waiting(RequirementKind::Approval)];
        let first = act(&open(), actor("U1"), approve(), verdicts()).expect("counts").request;
        let edits = Act::Approve { edits: vec![edit("replicas", Some(json!(5)))] };
        let second = act(&first, actor("U2"), edits, verdicts()).expect("counts").request;
        assert_eq!(second.approvers(), ["U2"]);
        assert_eq!(second.editors(), [("replicas", "U2")].into());
        let third = act(&second, actor("U1"), approve(), verdicts())
            .expect("may agree to the new parameters")
            .request;
        assert_eq!(third.approvers(), ["U2", "U1"]);
        assert_eq!(third.params().get("replicas"), Some(&json!(5)));
    }

    #[test]
    fn whose_approval_is_replaced_hears_of_it() {
        let verdicts = || vec![waiting(RequirementKind::Approval)];
        let edits = |value: u32| Act::Approve { edits: vec![edit("replicas", Some(json!(value)))] };
        // Who acts, with which edit, and whose approvals that replaces.
        let rows: [(&str, Act, &[&str]); 7] = [
            ("U1", edits(1), &[]),
            ("U2", edits(2), &["U1"]),
            ("U3", approve(), &[]),
            ("U4", approve(), &[]),
            ("U3", Act::Withdraw, &[]),
            ("U5", edits(3), &["U2", "U4"]),
            ("U1", edits(4), &["U5"]),
        ];
        let mut request = open();
        let mut expected = Vec::new();
        for (by, acted, replaced) in rows {
            let seq = request.history.len();
            let step = act(&request, actor(by), acted, verdicts()).expect("counts");
            request = step.request;
            assert_eq!(step.effects.contains(&Effect::NotifyReplaced), !replaced.is_empty(), "{by} {seq}");
            let audited = step.audit.first().and_then(|entry| entry.detail.get("approvalsReplaced"));
            assert_eq!(audited, (!replaced.is_empty()).then(|| json!(replaced)).as_ref(), "{by} {seq}");
            if !replaced.is_empty() {
                expected.push((u32::try_from(seq).expect("few"), by, replaced));
            }
        }
        let replacements = request.replacements();
        let found: Vec<_> = replacements
            .iter()
            .map(|it| {
                (
                    it.seq,
                    it.by.id.as_str(),
                    it.replaced.iter().map(|actor| actor.id.as_str()).collect::<Vec<_>>(),
                )
            })
            .collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(seq, by, replaced)| (seq, by, replaced.to_vec())).collect();
        assert_eq!(found, expected);
        assert_eq!(request.approvers(), ["U1"]);
    }

    #[test]
    fn notices_are_closed_with_their_request_and_no_others() {
        use Effect::{NotifyEscalation, NotifyReplaced, ShowRequest};
        let verdicts = || vec![waiting(RequirementKind::Approval)];
        let satisfied = || vec![ruled(true, Standing::Satisfied)];
        let plain = || act(&open(), actor("U1"), approve(), verdicts()).expect("counts").request;
        let escalate = |request: &Request| {
            act_at(request, START.plus(TIMEOUT_MS / 2), None, Act::Escalated, verdicts())
                .expect("it is due")
                .request
        };
        let edits = || Act::Approve { edits: vec![edit("replicas", Some(json!(5)))] };
        let replaced = act(&plain(), actor("U2"), edits(), verdicts()).expect("counts").request;
        let rows: [(Request, &[Effect]); 4] = [
            (plain(), &[]),
            (escalate(&plain()), &[NotifyEscalation]),
            (replaced.clone(), &[NotifyReplaced]),
            (escalate(&replaced), &[NotifyEscalation, NotifyReplaced]),
        ];
        let at = START.plus(TIMEOUT_MS - 1);
        for (request, notices) in rows {
            let expected = [&[ShowRequest], notices].concat();
            assert_eq!(request.expire(START.plus(TIMEOUT_MS)).expect("it is due").effects, expected);
            assert_eq!(request.cancel(at, None).expect("it is open").effects, expected);
            let approved = act_at(&request, at, actor("U3"), approve(), satisfied()).expect("counts");
            assert_eq!(approved.effects, expected);
        }
        // Both at once: one edit replaces an approval and ends the request.
        let both = act(&plain(), actor("U2"), edits(), satisfied()).expect("counts");
        assert_eq!(both.effects, [NotifyReplaced, ShowRequest]);
    }

    #[test]
    fn a_hidden_parameter_is_never_editable() {
        let Verdict::Ruled(mut ruling) = waiting(RequirementKind::Approval) else { panic!("a ruling") };
        ruling.editable = vec!["secret".into(), "flag".into(), "replicas".into()];
        let mut request =
            submit(submission(false), Vec::new(), &[Verdict::Ruled(ruling)]).expect("admitted").request;
        let State::Open(open) = &mut request.state else { panic!("it is open") };
        assert_eq!(open.editable, BTreeSet::from(["replicas".to_owned()]));
        // As it was stored before the rules were asked: the caller did not send `flag`.
        open.editable.extend(["secret".to_owned(), "flag".to_owned()]);
        for key in ["secret", "flag"] {
            let edits = Act::Approve { edits: vec![edit(key, Some(json!("x")))] };
            let result = act(&request, actor("U1"), edits, vec![ruled(true, Standing::Satisfied)]);
            assert_eq!(result, Err(Refusal::NotEditable(vec![key.into()])));
        }
    }

    #[test]
    fn an_edit_that_does_not_fit_the_schema_never_counts() {
        let mut wrong = edit("replicas", Some(json!("many")));
        wrong.violations = vec!["it is not a number".into()];
        let edits = || Act::Approve { edits: vec![wrong.clone()] };
        // The policy says nothing about it.
        let result = act(&open(), actor("U1"), edits(), vec![ruled(true, Standing::Satisfied)]);
        let reason = Reason {
            code: "schema_validation".into(),
            message: "it is not a number".into(),
            path: Some("replicas".into()),
        };
        assert_eq!(result, Err(Refusal::Objected(vec![reason])));
        let result = act(&open(), actor("U1"), edits(), vec![ruled(false, Standing::Satisfied)]);
        assert_eq!(result, Err(Refusal::Unauthorized(Vec::new())));
    }

    /// Requests that were made before there were salts keep version 1, through edits too.
    #[test]
    fn an_edit_keeps_the_version_of_the_payload_hash() {
        let verdicts = || vec![waiting(RequirementKind::Approval)];
        let edits = || Act::Approve { edits: vec![edit("replicas", Some(json!(5))), edit("ref", None)] };
        let mut merged = params();
        merged.insert("replicas".into(), json!(5));
        merged.remove("ref");
        let open_as = |submission| submit(submission, Vec::new(), &verdicts()).expect("admitted").request;
        let as_is = Verdict::Ruled(Ruling {
            grants: true,
            standing: Standing::Satisfied,
            editable: Vec::new(),
            wake_at: None,
        });
        let editable = |mut request: Request| {
            if let State::Open(open) = &mut request.state {
                open.editable = ["replicas".to_owned(), "ref".to_owned()].into();
            }
            request
        };
        let first = editable(open_as(submission(false)));
        assert_eq!(first.payload_hash(), payload_hash(&parameter_digests(&params())));
        let edited = act(&first, actor("U1"), edits(), vec![as_is.clone()]).expect("counts").request;
        assert_eq!(edited.payload_hash(), payload_hash(&parameter_digests(&merged)));

        let second = editable(open_as(salted(submission(false))));
        let commit = |params: &Map<String, Value>| {
            payload_hash(&params.iter().map(|(key, value)| (key.clone(), salt().commit(value))).collect())
        };
        assert_eq!(second.payload_hash(), commit(&params()));
        assert_ne!(second.payload_hash(), first.payload_hash());
        let edited = act(&second, actor("U1"), committed(edits()), vec![as_is]).expect("counts").request;
        assert_eq!(edited.payload_hash(), commit(&merged));
    }

    /// If the salt is lost, new values cannot be committed to. What is there can still be approved.
    #[test]
    fn an_edit_without_its_commitment_is_refused() {
        let verdicts = || vec![waiting(RequirementKind::Approval)];
        let request = submit(salted(submission(false)), Vec::new(), &verdicts()).expect("admitted").request;
        let change = Act::Approve { edits: vec![edit("replicas", Some(json!(5)))] };
        assert_eq!(act(&request, actor("U1"), change, verdicts()), Err(Refusal::SaltLost));
        act(&request, actor("U1"), approve(), verdicts()).expect("it counts as it is");
        let removal = Act::Approve { edits: vec![edit("replicas", None)] };
        act(&request, actor("U1"), removal, verdicts()).expect("what goes needs no commitment");
    }

    #[test]
    fn statuses_follow_from_what_is_missing() {
        use RequirementKind::{Acknowledgement, Approval, Time};
        let rows: [(&[RequirementKind], Status); 6] = [
            (&[], Status::Pending),
            (&[Approval], Status::ReadyForApproval),
            (&[Acknowledgement], Status::AwaitingPersonas),
            (&[Approval, Acknowledgement], Status::AwaitingPersonas),
            (&[Time], Status::Pending),
            (&[Approval, Time], Status::Pending),
        ];
        for (kinds, expected) in rows {
            let requirements = kinds.iter().map(|kind| requirement(*kind, "x")).collect();
            assert_eq!(Open { requirements, ..Open::default() }.status(), expected, "{kinds:?}");
        }
    }

    #[test]
    fn a_full_history_still_escalates_and_expires() {
        let mut request = open();
        let verdicts = || vec![waiting(RequirementKind::Approval)];
        while request.history.len() < MAX_HISTORY {
            let next = if request.approvers().is_empty() { approve() } else { Act::Withdraw };
            request = act(&request, actor("U1"), next, verdicts()).expect("there is room").request;
        }
        assert_eq!(act(&request, actor("U2"), approve(), verdicts()), Err(Refusal::HistoryFull));
        let escalated = act_at(&request, START.plus(TIMEOUT_MS / 2), None, Act::Escalated, verdicts())
            .expect("it is due");
        assert!(escalated.request.expire(START.plus(TIMEOUT_MS)).is_ok());
    }

    #[test]
    fn a_refusal_tells_no_value_of_an_edit() {
        let edits = Act::Approve { edits: vec![edit("ref", Some(json!("s3cret")))] };
        let request = open();
        let refusal = act(&request, actor("U1"), edits.clone(), vec![ruled(true, Standing::Satisfied)])
            .expect_err("not editable");
        let entry = refusal.audit(&request, START, actor("U1").as_ref(), &edits);
        assert_eq!(
            (entry.event.as_str(), entry.detail.get("keys")),
            ("override_rejected", Some(&json!(["ref"])))
        );
        assert!(!serde_json::to_string(&entry).expect("serialises").contains("s3cret"));
        let counts = refusal.counts(&request, &edits);
        assert!(counts.contains(&Count::one(
            "override_rejections_total",
            &[("action", "deploy"), ("reason", "key_not_allowed")]
        )));
    }

    #[test]
    fn survives_being_written_and_read() {
        let edits = Act::Approve { edits: vec![edit("replicas", Some(json!(5)))] };
        let request = act(&open(), actor("U1"), edits, vec![waiting(RequirementKind::Approval)])
            .expect("counts")
            .request;
        let text = serde_json::to_string(&request).expect("serialises");
        assert_eq!(serde_json::from_str::<Request>(&text).expect("reads"), request);
        assert!(!text.contains("hunter2"));
    }
}
