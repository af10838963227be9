//! Approve with edits: a dialog with typed inputs, a decision that differs from what was requested, and four refusals.

use std::collections::BTreeMap;

use countersign_tests::{Ask, Home, payload_hash, within};
use serde_json::{Value, json};
use slack_simulator::{Entry, Message, Outcome, Simulator};

use super::{Setup, is_late};
use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    redact: { show: [ref, replicas, canary, size, note] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas, canary, size, note], max_keys: 2, max_chars: 20 }
";

fn home() -> Home {
    Home::new(ACTIONS).with_schema(
        "deploy",
        &json!({
            "type": "object",
            "properties": {
                "ref": {"type": "string"},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 9, "title": "Replicas",
                             "description": "How many", "errorMessage": "one to nine, please"},
                "canary": {"type": "boolean"},
                "size": {"enum": ["small", "large"]},
                "note": {"type": "string", "maxLength": 200, "pattern": "^[a-z ]*$",
                         "errorMessage": "lower case only"},
                "password": {"type": "string"},
            },
        }),
    )
}

fn params() -> Value {
    json!({"ref": "v1", "replicas": 3, "canary": false, "size": "small", "note": "as usual", "password": "hunter2"})
}

#[tokio::test]
async fn an_edit_changes_the_decision_that_the_caller_sees() {
    let setup = Setup::at(home()).await;
    let request = setup.create(&Ask::new("deploy").params(params())).await.expect("it is admitted");
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    let alice = setup.slack.person("U0ALICE");
    alice.click(&message, "approve_edit").await;

    let view = setup.slack.asked("U0ALICE").await;
    assert_eq!(view.callback_id(), "override_submit");
    let kind = |key: &str| view.input(&format!("ov_{key}")).map(|input| input["element"]["type"].clone());
    let kinds = ["replicas", "canary", "size", "note", "ref", "password"].map(kind);
    assert_eq!(
        kinds,
        [
            Some(json!("number_input")),
            Some(json!("static_select")),
            Some(json!("static_select")),
            Some(json!("plain_text_input")),
            None,
            None
        ]
    );
    let submitted = alice.submit(&[("ov_replicas", "5".into()), ("ov_canary", "true".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Closed | Outcome::Cleared), "{submitted:?}");

    let message = setup.shows(&request, "Waiting for 1 more approval").await;
    for words in ["Edits so far", "replicas", "3", "5", "canary", "true"] {
        assert!(message.shown().contains(words), "no `{words}`: {}", message.shown());
    }
    setup.slack.person("U0BOB").click(&message, "approve").await;
    let message = setup.shows(&request, "Approved with edits").await;
    assert!(message.shown().contains("→"), "{}", message.shown());

    let after = setup.look(&request.token).await;
    assert_eq!(after["overrides"], json!({"replicas": 5, "canary": true}));
    let mut agreed = params();
    (agreed["replicas"], agreed["canary"]) = (json!(5), json!(true));
    assert_eq!(after["payloadHash"], payload_hash(&after, &agreed).as_str());
    let metrics = setup.metrics().await;
    assert_eq!(metrics.count("param_overrides_total", &[("action", "deploy"), ("outcome", "applied")]), 1);
}

/// What is wrong with what a person submits, by input. Slack closes the dialog if the answer takes longer than it waits; then
/// it is opened and submitted again.
async fn faults(
    setup: &Setup,
    user: &str,
    message: &Message,
    entries: &[(&str, Entry)],
) -> BTreeMap<String, String> {
    let person = setup.slack.person(user);
    let told = async {
        loop {
            match person.submit(entries).await.outcome {
                Outcome::Errors(errors) => return errors,
                Outcome::Closed | Outcome::Cleared => {
                    person.click(message, "approve_edit").await;
                    setup.slack.asked(user).await;
                }
                other => panic!("{entries:?}: {other:?}"),
            }
        }
    };
    within("what is wrong to be said", told).await
}

#[tokio::test]
async fn four_reasons_to_refuse_each_on_its_input() {
    let setup = Setup::at(home()).await;
    let request = setup.create(&Ask::new("deploy").params(params())).await.expect("it is admitted");
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    let alice = setup.slack.person("U0ALICE");
    alice.click(&message, "approve_edit").await;

    let rows = [
        (&[("ov_note", "SHOUTING")][..], "ov_note", "lower case only"),
        (&[("ov_replicas", "4"), ("ov_canary", "true"), ("ov_note", "x")], "ov_canary", "at most 2"),
        (&[("ov_note", "far longer than anybody allows it to be")], "ov_note", "at most 20"),
    ];
    for (inputs, block, words) in rows {
        let defaults = [("ov_replicas", "3"), ("ov_canary", "false"), ("ov_note", "as usual")];
        let entries: BTreeMap<&str, Entry> =
            defaults.iter().chain(inputs).map(|(block, text)| (*block, Entry::from(*text))).collect();
        let entries: Vec<(&str, Entry)> = entries.into_iter().collect();
        let errors = faults(&setup, "U0ALICE", &message, &entries).await;
        let text = errors.values().cloned().collect::<Vec<_>>().join("; ");
        assert!(text.contains(words), "{inputs:?}: {errors:?}");
        assert!(errors.contains_key(block) || errors.len() == 1, "{inputs:?}: {errors:?}");
    }
    // The fourth: an input that the dialog does not have, in a forged submission.
    let forged = countersign_tests::Click::edit("U0ALICE", &request.id, &[("ref", "v2")]);
    let answer = setup.gateway.click(&forged).await;
    assert_eq!(answer["ok"], false, "{answer}");

    assert_eq!(setup.look(&request.token).await["approvers"], json!([]));
    let metrics = setup.metrics().await;
    // A dialog whose answer takes longer than Slack waits is sent again, and refused again.
    let refused = Ledger::of(&setup.gateway.kill()).entries("override_rejected");
    for reason in ["schema_validation", "limit_exceeded", "diff_size_exceeded", "key_not_allowed"] {
        let labels = [("action", "deploy"), ("reason", reason)];
        let says_so = |entry: &&Value| {
            let mut reasons = entry["reasons"].as_array().into_iter().flatten();
            entry["code"] == reason || reasons.any(|it| it["code"] == reason)
        };
        let times = refused.iter().filter(says_so).count() as u64;
        assert!(times >= 1, "{reason}: {refused:?}");
        assert_eq!(metrics.count("override_rejections_total", &labels), times, "{reason}");
    }
}

/// A field that is cleared removes its parameter, which the dialog says; what the schema requires does not go. A removed
/// parameter is told apart from one that is set to `null`.
#[tokio::test]
async fn a_cleared_field_removes_its_parameter() {
    let actions = ACTIONS
        .replace("approvals: 2", "approvals: 1")
        .replace(
            "keys: [replicas, canary, size, note], max_keys: 2",
            "keys: [replicas, size, note, label], max_keys: 3",
        )
        .replace("size, note] }\n    policies", "size, note, label] }\n    policies");
    let home = Home::new(&actions).with_schema(
        "deploy",
        &json!({
            "type": "object",
            "required": ["replicas"],
            "properties": {
                "replicas": {"type": "integer"},
                "size": {"enum": ["small", "large"]},
                "note": {"type": "string"},
                "label": {"type": ["object", "null"]},
            },
            "if": {"properties": {"size": {"const": "large"}}, "required": ["size"]},
            "then": {"required": ["note"]},
        }),
    );
    let setup = Setup::at(home).await;
    let mut sent = json!({"ref": "v1", "replicas": 3, "size": "small", "note": "x", "label": {"a": 1}, "password": "hunter2"});
    let request = setup.create(&Ask::new("deploy").params(sent.clone())).await.expect("it is admitted");
    let message = setup.shows(&request, "Waiting for 1 approval").await;
    let alice = setup.slack.person("U0ALICE");
    alice.click(&message, "approve_edit").await;
    let view = setup.slack.asked("U0ALICE").await;
    let says_so = |key: &str| {
        let hint = view.input(&format!("ov_{key}")).map(|input| input["hint"]["text"].clone());
        hint.and_then(|hint| hint.as_str().map(|hint| hint.contains("the parameter is removed")))
            .unwrap_or_default()
    };
    assert_eq!(["replicas", "size", "note", "label"].map(says_so), [false, true, true, true]);

    let before = setup.look(&request.token).await;
    for (inputs, block, words) in [
        (&[("ov_replicas", "")][..], "ov_replicas", "it is required"),
        (&[("ov_note", ""), ("ov_size", "large")], "ov_note", "it is required"),
    ] {
        let entries: Vec<(&str, Entry)> =
            inputs.iter().map(|(block, text)| (*block, Entry::from(*text))).collect();
        let errors = faults(&setup, "U0ALICE", &message, &entries).await;
        assert!(errors.get(block).is_some_and(|text| text.contains(words)), "{inputs:?}: {errors:?}");
        assert_eq!(setup.look(&request.token).await, before);
    }
    let inputs = [
        ("ov_replicas", Entry::from("3")),
        ("ov_size", Entry::from("small")),
        ("ov_note", Entry::Empty),
        ("ov_label", Entry::from("null")),
    ];
    let submitted = alice.submit(&inputs).await;
    assert!(matches!(submitted.outcome, Outcome::Closed | Outcome::Cleared), "{submitted:?}");
    let message = setup.shows(&request, "Approved with edits").await;
    for words in ["removed", "null"] {
        assert!(message.shown().contains(words), "no `{words}`: {}", message.shown());
    }

    let after = setup.look(&request.token).await;
    assert_eq!((&after["overrides"], &after["removed"]), (&json!({"label": null}), &json!(["note"])));
    assert_eq!(
        after["decisionParams"],
        json!({"ref": "v1", "replicas": 3, "size": "small", "label": null, "password": "[redacted]"})
    );
    // The caller sets what is in `overrides`, takes away what is in `removed`, and hashes what it is about to run.
    sent["label"] = json!(null);
    sent.as_object_mut().expect("parameters are an object").remove("note");
    assert_eq!(after["payloadHash"], payload_hash(&after, &sent).as_str());
}

/// In a dialog that was opened before an empty field meant anything, it goes on to mean nothing.
#[tokio::test]
async fn an_empty_field_that_was_not_announced_changes_nothing() {
    let setup = Setup::at(home()).await;
    let request = setup.create(&Ask::new("deploy").params(params())).await.expect("it is admitted");
    let press = countersign_tests::Click::edit("U0ALICE", &request.id, &[("note", ""), ("replicas", "5")]);
    setup.gateway.click_ok(&press).await;
    // Nor does an approval that was made without the edit before it.
    let bob = countersign_tests::Click::approve("U0BOB", &request.id);
    assert_eq!(setup.gateway.click_refused(&bob).await, "parameters_changed");
    let message = setup.shows(&request, "Waiting for 1 more approval").await;
    setup.slack.person("U0BOB").click(&message, "approve").await;
    let after = setup.ended(&request.token).await;
    assert_eq!((&after["overrides"], &after["removed"]), (&json!({"replicas": 5}), &json!([])));
}

#[tokio::test]
async fn a_dialog_that_was_open_too_long_changes_nothing() {
    let setup = Setup::at(home()).await;
    let request = setup.create(&Ask::new("deploy").params(params())).await.expect("it is admitted");
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    let (alice, bob) = (setup.slack.person("U0ALICE"), setup.slack.person("U0BOB"));
    alice.click(&message, "approve_edit").await;
    bob.click(&message, "approve_edit").await;
    setup.slack.asked("U0ALICE").await;
    bob.submit(&[("ov_replicas", "9".into())]).await;
    let edited = setup.shows(&request, "Waiting for 1 more approval").await;

    // Alice's dialog still shows 3 replicas; and so did the message that she saw.
    let submitted = alice.submit(&[("ov_note", "slowly".into())]).await;
    if is_late(&submitted) {
        setup.ephemeral("U0ALICE", "changed").await;
        alice.dismiss_ephemerals();
    } else {
        let Outcome::Errors(errors) = &submitted.outcome else { panic!("{submitted:?}") };
        assert!(errors.values().any(|text| text.contains("changed")), "{errors:?}");
        alice.close().await;
    }
    alice.click(&message, "approve").await;
    setup.ephemeral("U0ALICE", "changed since you looked").await;
    assert_eq!(setup.look(&request.token).await["approvers"], json!(["U0BOB"]));

    let message = edited;
    alice.click(&message, "approve").await;
    setup.shows(&request, "Approved with edits").await;
    assert_eq!(setup.look(&request.token).await["decisionParams"]["replicas"], 9);
}

/// The notices in the thread of a message to those whose approvals an edit replaced, oldest first.
fn notices(slack: &Simulator, message: &Message) -> Vec<Message> {
    let is_notice = |reply: &Message| reply.mark("slot").is_some_and(|slot| slot.starts_with("replaced_"));
    slack.replies(message).into_iter().filter(is_notice).collect()
}

#[tokio::test]
async fn whose_approval_an_edit_replaced_is_told_and_approves_again() {
    let setup = Setup::at(home()).await;
    let request = setup.create(&Ask::new("deploy").params(params())).await.expect("it is admitted");
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    let (alice, bob) = (setup.slack.person("U0ALICE"), setup.slack.person("U0BOB"));
    alice.click(&message, "approve").await;
    let message = setup.shows(&request, "Waiting for 1 more approval").await;
    bob.click(&message, "approve_edit").await;
    bob.submit(&[("ov_replicas", "5".into()), ("ov_note", "with <!channel> care".into())]).await;
    // A refused edit replaces nothing.
    bob.submit(&[("ov_replicas", "5".into()), ("ov_note", "with care".into())]).await;
    let message = setup.shows(&request, "Edits so far").await;
    let told = setup.slack.until(|slack| notices(slack, &message).into_iter().next());
    let told = within("the notice", told).await;
    assert_eq!(told.pings(), ["U0ALICE"], "{told:?}");
    let shown = told.shown();
    for words in ["no longer counts", "U0BOB", "replicas", "3", "5", "as usual", "with care", "approve again"]
    {
        assert!(shown.contains(words), "no `{words}`: {shown}");
    }
    for hidden in ["password", "hunter2", "canary"] {
        assert!(!shown.contains(hidden), "{hidden}: {shown}");
    }
    assert!(shown.contains(&format!("/archives/{}/p", message.channel)), "no link to the message: {shown}");
    assert!(message.shown().contains("by <@U0BOB>"), "{}", message.shown());
    assert_eq!(setup.look(&request.token).await["approvers"], json!(["U0BOB"]));

    // Alice answers with an edit of her own, and so does Bob: each hears of it.
    alice.click(&message, "approve_edit").await;
    alice.submit(&[("ov_replicas", "6".into())]).await;
    let message = setup.shows(&request, "→ 6").await;
    bob.click(&message, "approve_edit").await;
    bob.submit(&[("ov_replicas", "7".into())]).await;
    let message = setup.shows(&request, "→ 7").await;
    let all = setup.slack.until(|slack| Some(notices(slack, &message)).filter(|told| told.len() == 3));
    let all = within("three notices", all).await;
    let pings: Vec<_> = all.iter().map(Message::pings).collect();
    assert_eq!(pings, [["U0ALICE"], ["U0BOB"], ["U0ALICE"]]);

    alice.click(&message, "approve").await;
    let message = setup.shows(&request, "Approved with edits").await;
    let closed = setup.slack.until(|slack| {
        let told = notices(slack, &message);
        told.iter().all(|notice| notice.shown().contains("has ended since")).then_some(told)
    });
    let closed = within("the notices to be closed", closed).await;
    assert_eq!(closed.len(), 3);
    for notice in &closed {
        assert_eq!(notice.pings(), Vec::<String>::new(), "{notice:?}");
        assert!(notice.shown().contains("Approved with edits"), "{}", notice.shown());
    }
    assert_eq!(setup.look(&request.token).await["decisionParams"]["replicas"], 7);

    let ledger = Ledger::of(&setup.gateway.kill());
    let entries = ledger.audit_entries(&request.id, "approval_recorded");
    let replaced: Vec<_> = entries.iter().filter_map(|entry| entry.get("approvalsReplaced")).collect();
    assert_eq!(replaced, [&json!(["U0ALICE"]), &json!(["U0BOB"]), &json!(["U0ALICE"])]);
    let edited = entries.iter().find(|entry| entry["actor"] == "U0BOB").expect("an entry");
    let keys: Vec<_> = edited["edits"].as_array().expect("edits").iter().map(|edit| &edit["key"]).collect();
    assert_eq!(keys, ["note", "replicas"]);
}
