//! Requests, policy entries and words of every kind.

use countersign_core::lifecycle::{
    Consumption, Decided, Escalation, Event, Needs, Open, RunReport, RunResult, State,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::super::*;

/// Short and long text, plain and hostile.
pub(super) fn any_words() -> BoxedStrategy<String> {
    let piece = prop_oneof![
        4 => Just(HOSTILE.to_owned()),
        2 => any::<String>(),
        2 => "[a-z_-]{1,12}",
        1 => Just("<".to_owned()),
        1 => Just("`".to_owned()),
        1 => Just("&".to_owned()),
        1 => Just("\n".to_owned()),
        1 => Just("\"\\".to_owned()),
        1 => Just("\u{200b}\u{202e}".to_owned()),
        1 => Just("🎉".to_owned()),
        1 => Just("ש".to_owned()),
        1 => Just("h\u{43e}st и gro\u{308}ße".to_owned()),
        1 => Just("\\u{\\".to_owned()),
        1 => Just("a  \t:  ".to_owned()),
    ];
    let times = prop_oneof![20 => Just(1usize), 6 => 2usize..60, 1 => 200usize..4000];
    prop_oneof![
        1 => Just(String::new()),
        6 => (vec(piece, 1..4), times).prop_map(|(pieces, times)| {
            let text = pieces.concat().repeat(times);
            // Some of these do not fit in a review; longer ones only take longer.
            text.chars().take(30_000).collect()
        }),
    ]
    .boxed()
}

pub(super) fn any_value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_words().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

fn any_id() -> BoxedStrategy<String> {
    prop_oneof![3 => "[UW][A-Z0-9]{2,10}", 1 => any_words(), 1 => "S[A-Z0-9]{4}"].boxed()
}

fn any_party() -> BoxedStrategy<Party> {
    let source = prop_oneof![Just("slack".to_owned()), any_words()];
    (any_id(), source, prop::option::of(any_words()))
        .prop_map(|(id, source, display)| Party { id, source, display })
        .boxed()
}

fn any_params() -> BoxedStrategy<Map<String, Value>> {
    let few = btree_map(any_words(), any_value(), 0..8);
    let many = btree_map("[a-z]{1,20}", any_value(), 0..150);
    let params = prop_oneof![3 => few, 1 => many];
    params.prop_map(|params| params.into_iter().collect()).boxed()
}

fn any_submission() -> BoxedStrategy<Submission> {
    let origin = (any_words(), prop::option::of(any_words()), prop::option::of(any_value()))
        .prop_map(|(repo, branch, pr)| Origin { repo, branch, run_id: pr.clone(), pr });
    let url = prop_oneof![
        Just("https://ci.example/".to_owned()),
        any_words().prop_map(|words| format!("https://x.example/{words}")),
        any_words(),
    ];
    let links = vec((any_words(), url).prop_map(|(label, url)| Link { label, url }), 0..21);
    let requester = (
        any_party(),
        prop::option::of(any_words()),
        prop_oneof![4 => Just(BTreeSet::new()), 1 => btree_set(any_words(), 0..12)],
    );
    let words = (any_words(), any_words(), 0u32..4, prop::option::of(any_party()), requester);
    (words, origin, links, any_params(), any::<prop::sample::Index>())
        .prop_map(
            |((action, justification, depth, rerequested_by, requester), origin, links, params, hidden)| {
                let redacted = params.keys().take(hidden.index(params.len() + 1)).cloned().collect();
                let (requester, caller, owners) = requester;
                Submission {
                    caller,
                    owners,
                    action,
                    justification,
                    depth,
                    rerequester_is: rerequested_by.as_ref().map(|party| known_person(&party.id)),
                    rerequested_by,
                    requester,
                    origin,
                    links,
                    params,
                    redacted,
                    ..submission()
                }
            },
        )
        .boxed()
}

fn any_requirement() -> BoxedStrategy<Requirement> {
    let kind = prop_oneof![
        Just(RequirementKind::Approval),
        Just(RequirementKind::Acknowledgement),
        Just(RequirementKind::Time),
    ];
    let eligible =
        prop_oneof![any_id(), any_words().prop_map(|words| format!("@{words}")), Just("@channel".into())];
    let many = prop_oneof![4 => vec(eligible.clone(), 0..4), 1 => vec(eligible, 0..40)];
    (kind, any_words(), 0u32..9, any::<u32>(), many)
        .prop_map(|(kind, label, have, need, eligible)| {
            let excluded = eligible.iter().take(1).cloned().collect();
            Requirement { kind, label, have, need, eligible, excluded }
        })
        .boxed()
}

fn any_act(keys: Vec<String>) -> BoxedStrategy<Act> {
    let key = prop_oneof![prop::sample::select(keys), any_words()];
    let edit = (key, prop::option::of(any_value())).prop_map(|(key, after)| Edit {
        key,
        before: None,
        after,
        commitment: None,
        violations: Vec::new(),
    });
    prop_oneof![
        3 => vec(edit, 0..12).prop_map(|edits| Act::Approve { edits }),
        2 => any_words().prop_map(|persona| Act::Acknowledge { persona }),
        1 => Just(Act::Withdraw),
    ]
    .boxed()
}

fn any_state() -> BoxedStrategy<State> {
    let requirements = prop_oneof![4 => vec(any_requirement(), 0..6), 1 => vec(any_requirement(), 0..120)];
    let open = (requirements, btree_set(any_words(), 0..4), any::<bool>(), any::<u64>()).prop_map(
        |(requirements, editable, escalated, at)| {
            let at = Timestamp::from_millis(at);
            let escalation = if escalated { Escalation::Done(at) } else { Escalation::At(at) };
            State::Open(Open { requirements, editable, escalation, wake_at: Some(at), superseding: false })
        },
    );
    prop_oneof![
        4 => open,
        1 => (any_decided(), prop::option::of(any_consumption()))
            .prop_map(|(decided, consumed)| State::Approved { decided, consumed }),
        1 => any_decided().prop_map(State::Denied),
        1 => (any::<u64>(), prop::option::of(any_words()), prop::option::of(any_words())).prop_map(
            |(at, by, reason)| State::Expired { at: Timestamp::from_millis(at), by, reason }
        ),
        1 => (prop::option::of(any_words()), prop::option::of(any_words())).prop_map(
            |(by, reason)| State::Cancelled { at: START, reason, successor: None, by }
        ),
    ]
    .boxed()
}

fn any_consumption() -> BoxedStrategy<Consumption> {
    let report =
        (any::<u64>(), any::<bool>(), prop::option::of(any_words())).prop_map(|(at, good, detail)| {
            RunReport {
                at: Timestamp::from_millis(at),
                result: if good { RunResult::Succeeded } else { RunResult::Failed },
                detail,
            }
        });
    (any::<u64>(), prop::option::of(report))
        .prop_map(|(at, report)| Consumption {
            at: Timestamp::from_millis(at),
            by: None,
            repeat: None,
            report,
        })
        .boxed()
}

fn any_decided() -> BoxedStrategy<Decided> {
    (prop::option::of(any_id()), prop::option::of(any_words()), any::<u64>())
        .prop_map(|(by, reason, at)| Decided { at: Timestamp::from_millis(at), by, reason })
        .boxed()
}

pub(super) fn any_request() -> BoxedStrategy<Request> {
    let personas = prop_oneof![4 => vec(any_words(), 0..4), 1 => vec(any_words(), 0..60)];
    (any_submission(), any_state(), personas, any::<u32>())
        .prop_flat_map(|(submission, state, personas, need)| {
            let mut keys: Vec<String> = submission.params.keys().cloned().collect();
            keys.push("replicas".into());
            let acts = vec((any_act(keys.clone()), any_id(), btree_set(any_words(), 0..2)), 0..6);
            acts.prop_map(move |acts| {
                let event = |(n, (act, id, groups)): (usize, (Act, String, BTreeSet<String>))| Event {
                    seq: u32::try_from(n).expect("few"),
                    at: START,
                    by: Some(Actor { id, groups, groups_as_of: None, ..Actor::default() }),
                    act,
                };
                let mut request = open_with(submission.clone(), vec![approvals(0, 1)]);
                request.history.extend(acts.into_iter().enumerate().map(event));
                request.needs = Needs { approvals: vec![need, 2], personas: personas.clone() };
                request.state = state.clone();
                if let State::Open(open) = &mut request.state {
                    open.editable.extend(keys.iter().cloned());
                }
                request
            })
        })
        .boxed()
}

pub(super) fn any_entry() -> BoxedStrategy<PolicyEntry> {
    let property = (any_words(), any_words(), any_value(), any_value(), any::<f64>(), any::<u64>(), 0usize..9)
        .prop_map(|(title, description, one, other, bound, most, kind)| {
            let kinds = ["string", "integer", "number", "boolean", "array", "null", "odd"];
            let mut property = json!({"title": title, "description": description, "minimum": bound, "maximum": 5, "maxLength": most});
            match kinds.get(kind) {
                Some(kind) => property["type"] = json!(kind),
                None if most % 2 == 0 => property["enum"] = json!([one, other]),
                None => property["enum"] = json!(["true", true, 1, "1", null, "plain", "{}"]),
            }
            property
        });
    let schema = btree_map(any_words(), property, 0..4).prop_map(|mut properties| {
        let replicas = json!({"type": "integer"});
        properties.entry("replicas".into()).or_insert(replicas);
        json!({"properties": properties})
    });
    let mention = prop_oneof![any_id(), any_words(), Just("@all".to_owned())];
    let groups = btree_map(any_words(), btree_set(any_id(), 0..4), 0..4);
    let all = btree_set(any_id(), 0..40);
    (any_words(), prop::option::of(schema), prop::option::of(mention), groups, all, any::<bool>())
        .prop_map(|(description, schema, mention, mut groups, all, again)| {
            groups.insert("all".into(), all);
            let mut entry = PolicyEntry { description, schema, groups, ..entry() };
            entry.escalate = Some(Escalate { before_ms: 1, channel: None, mention });
            entry.rerequest = entry.rerequest.filter(|_| again);
            entry
        })
        .boxed()
}

pub(super) fn any_time() -> BoxedStrategy<Timestamp> {
    prop_oneof![Just(minutes(3)), any::<u64>().prop_map(Timestamp::from_millis)].boxed()
}

/// Parameters of up to 100,000 characters, and now and then far more.
pub(super) fn any_large_params() -> BoxedStrategy<Map<String, Value>> {
    let large = (any_value(), any_words(), 0usize..300).prop_map(|(value, words, times)| {
        object(json!({"value": value, "long": words.repeat(times).chars().take(120_000).collect::<String>()}))
    });
    prop_oneof![3 => any_params(), 1 => large].boxed()
}
