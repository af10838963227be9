//! The invariants of the core, held over random histories.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

const KEYS: [&str; 4] = ["replicas", "ref", "secret", "flag"];
const PEOPLE: [&str; 4] = ["U1", "U2", "U3", "U4"];
const PERSONAS: [&str; 2] = ["security", "release"];

fn any_standing() -> impl Strategy<Value = Standing> {
    let kind = prop_oneof![
        Just(RequirementKind::Approval),
        Just(RequirementKind::Acknowledgement),
        Just(RequirementKind::Time),
    ];
    prop_oneof![
        4 => Just(Standing::Satisfied),
        4 => vec(kind, 0..3).prop_map(|kinds| Standing::Waiting(kinds.into_iter().map(|kind| requirement(kind, "r")).collect())),
        1 => Just(Standing::Denied(Reason { code: "no".into(), message: "no".into(), path: None })),
    ]
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let ruling = (
        prop::bool::weighted(0.8),
        any_standing(),
        btree_set(0usize..KEYS.len(), 0..4),
        prop::option::of(0u64..700_000),
    );
    prop_oneof![
        10 => ruling.prop_map(|(grants, standing, keys, wake)| Verdict::Ruled(Ruling {
            grants,
            standing,
            editable: keys.into_iter().map(|key| KEYS[key].to_owned()).collect(),
            wake_at: wake.map(|wait| START.plus(wait)),
        })),
        1 => Just(refused("no")),
        1 => Just(failed()),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    let value = prop_oneof![3 => (0u32..9).prop_map(Value::from), 1 => Just(Value::Null), 1 => any::<f64>().prop_map(Value::from)];
    let edit = (0usize..KEYS.len(), prop::option::of(value), prop::bool::weighted(0.1));
    let edits = vec(edit, 0..3).prop_map(|edits| {
        let edits = edits.into_iter().map(|(key, after, is_wrong)| {
            let violations = if is_wrong { vec!["it does not fit".to_owned()] } else { Vec::new() };
            (KEYS[key], Edit { violations, ..super::edit(KEYS[key], after) })
        });
        let by_key: BTreeMap<&str, Edit> = edits.collect();
        by_key.into_values().collect()
    });
    prop_oneof![
        6 => edits.prop_map(|edits| Act::Approve { edits }),
        3 => (0usize..PERSONAS.len()).prop_map(|n| Act::Acknowledge { persona: PERSONAS[n].into() }),
        1 => Just(Act::Deny { reason: None }),
        2 => Just(Act::Withdraw),
        2 => Just(Act::Escalated),
        2 => Just(Act::Tick),
        1 => Just(Act::Submitted),
    ]
}

#[derive(Clone, Debug)]
enum Attempt {
    Act { after: u64, by: Option<usize>, act: Act, verdicts: Vec<Verdict> },
    Expire { after: u64 },
    Cancel { after: u64 },
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    prop_oneof![
        12 => (0u64..90_000, prop::option::weighted(0.8, 0usize..PEOPLE.len()), any_act(), vec(any_verdict(), 0..4))
            .prop_map(|(after, by, act, verdicts)| Attempt::Act { after, by, act, verdicts }),
        1 => (0u64..90_000).prop_map(|after| Attempt::Expire { after }),
        1 => (0u64..90_000).prop_map(|after| Attempt::Cancel { after }),
    ]
}

/// What a step may and may not do to the request it was given.
///
/// `judged` is whether somebody acted, and the verdicts on that; `None` if no policy was asked.
fn check_step(before: &Request, judged: Option<(bool, &[Verdict])>, step: &Step) {
    let after = &step.request;
    assert!(!before.status().is_terminal(), "a terminal request changed");
    assert_eq!(after.version, before.version + 1);
    assert_eq!(after.submission, before.submission);
    assert!(after.history.starts_with(&before.history), "history was rewritten");
    assert!(after.history.len() <= before.history.len() + 1);
    assert_eq!(after.due_at().is_none(), after.status().is_terminal());

    let approvers = after.approvers();
    assert_eq!(approvers.iter().collect::<BTreeSet<_>>().len(), approvers.len(), "somebody counts twice");

    let decisions = step.audit.iter().filter(|entry| entry.detail.contains_key("decision")).count();
    assert_eq!(
        decisions,
        usize::from(after.status().is_terminal()),
        "a decision is audited once, when it is made"
    );
    let decision = step.audit.iter().find(|entry| entry.detail.contains_key("decision"));
    assert_eq!(after.decision_entry().as_ref(), decision, "the entry is made again as it was stored");
    assert!(after.history.iter().filter(|event| event.act == Act::Escalated).count() <= 1);

    if after.status() == Status::Approved {
        let Some((acted, verdicts)) = judged else { panic!("approved without a judgement") };
        let satisfied = |verdict: &Verdict| matches!(verdict, Verdict::Ruled(ruling) if ruling.standing == Standing::Satisfied);
        assert!(
            !verdicts.is_empty() && verdicts.iter().all(satisfied),
            "approved while a policy is not satisfied"
        );
        assert!(
            after.submission.unattended || after.history.iter().any(|event| event.by.is_some()),
            "nobody acted"
        );
        if acted {
            let grants = |verdict: &Verdict| matches!(verdict, Verdict::Ruled(ruling) if ruling.grants);
            assert!(verdicts.iter().any(grants), "approved by an act that nobody granted");
        }
    }

    let text = serde_json::to_string(after).expect("serialises");
    assert_eq!(&serde_json::from_str::<Request>(&text).expect("reads"), after, "storing it changed it");

    for event in &after.history {
        let Act::Approve { edits } = &event.act else { continue };
        assert!(edits.iter().all(|edit| edit.violations.is_empty()), "an edit does not fit the schema");
    }

    // Only what was editable can have changed, and never what is hidden.
    let State::Open(open) = &before.state else { return };
    let (old, new) = (before.params(), after.params());
    for key in old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)) {
        assert!(open.editable.contains(key) && redaction().shows(key), "`{key}` was edited");
    }
    assert_eq!(after.payload_hash(), hash_as_the_caller_would(after));
}

/// The caller has every value, merges the edits, and hashes what it is about to run.
fn hash_as_the_caller_would(request: &Request) -> Digest {
    let mut merged = params();
    for (key, after) in request.edits() {
        match after {
            Some(value) => merged.insert(key.to_owned(), value.clone()),
            None => merged.remove(key),
        };
    }
    match request.submission.payload_hash_version {
        PayloadHashVersion::One => payload_hash(&parameter_digests(&merged)),
        PayloadHashVersion::Two => {
            payload_hash(&merged.iter().map(|(key, value)| (key.clone(), salt().commit(value))).collect())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 8))]

    #[test]
    fn invariants_hold_over_random_histories(
        unattended: bool,
        has_salt: bool,
        first in vec(any_verdict(), 0..4),
        attempts in vec(any_attempt(), 0..24),
    ) {
        let submission = submission(unattended);
        let submission = if has_salt { salted(submission) } else { submission };
        let Ok(created) = submit(submission, Vec::new(), &first) else { return Ok(()) };
        let mut request = created.request;
        let mut now = START;
        let mut decisions = usize::from(request.status().is_terminal());
        for attempt in attempts {
            let (judged, moved, again) = match attempt {
                Attempt::Expire { after } => {
                    now = now.plus(after);
                    (None, request.expire(now), request.expire(now))
                }
                Attempt::Cancel { after } => {
                    now = now.plus(after);
                    (None, request.cancel(now, None), request.cancel(now, None))
                }
                Attempt::Act { after, by, act, verdicts } => {
                    now = now.plus(after);
                    let by = by.and_then(|n| actor(PEOPLE[n]));
                    let acted = by.is_some();
                    let act = if has_salt { committed(act) } else { act };
                    let go = || request.propose(now, by.clone(), act.clone(), None)?.judged(&verdicts, &redaction());
                    let (moved, again) = (go(), go());
                    (Some((acted, verdicts)), moved, again)
                }
            };
            prop_assert_eq!(&moved, &again, "the same step twice gives the same");
            if let Ok(moved) = moved {
                let judged = judged.as_ref().map(|(acted, verdicts)| (*acted, verdicts.as_slice()));
                check_step(&request, judged, &moved);
                decisions += usize::from(moved.request.status().is_terminal());
                request = moved.request;
            }
        }
        prop_assert!(decisions <= 1, "decided more than once");
    }
}
