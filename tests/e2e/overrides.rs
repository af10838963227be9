//! An approver edits parameters: the caller gets them merged, and can check by the hash that it runs what was approved.

use countersign_tests::{Ask, Call, Click, Home, payload_hash};
use serde_json::json;

use crate::ledger::Ledger;

const ACTIONS: &str = "
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 1 }
      - use: override-guard
        with: { keys: [replicas, zone, note], max_keys: 2, max_chars: 20 }
  retune:
    description: Change the settings of a service
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas, zone, note], max_keys: 1, max_chars: 40 }
  release:
    description: Release a service
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
      - use: misbehaving
        with: { do: editable, keys: [env, replicas, ticket] }
  fixed:
    description: Take it or leave it
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

fn home() -> Home {
    Home::new(ACTIONS).with_schema(
        "scale",
        &json!({
            "type": "object",
            "properties": {
                "replicas": {"type": "integer", "minimum": 1, "maximum": 9, "errorMessage": "one to nine, please"},
                "zone": {"type": "string"},
                "note": {"type": "string"},
                "service": {"type": "string"},
                "password": {"type": "string"},
            },
        }),
    )
    .with_schema(
        "release",
        &json!({
            "type": "object",
            "required": ["env", "password"],
            "additionalProperties": false,
            "properties": {
                "env": {"enum": ["staging", "prod"]},
                "replicas": {"type": "integer"},
                "ticket": {"type": "string"},
                "password": {"minLength": 100},
            },
            "if": {"properties": {"env": {"const": "prod"}}},
            "then": {"properties": {"replicas": {"minimum": 3}}, "required": ["ticket"]},
        }),
    )
}

#[tokio::test]
async fn the_caller_gets_what_was_approved() {
    let gateway = home().start().await;
    let sent = json!({"service": "shop", "replicas": 2, "zone": "a", "password": "hunter2hunter2"});
    let request = gateway.create(&Ask::new("scale").params(sent.clone())).await.expect("it is admitted");
    let before = gateway.look(&request.token).await;
    assert_eq!(before["payloadHash"], payload_hash(&before, &sent).as_str());

    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &[("replicas", "5"), ("zone", "b")])).await;

    let after = gateway.ended(&request.token).await;
    assert_eq!(after["status"], "approved");
    assert_eq!(after["approvers"], json!(["U0ALICE"]));
    assert_eq!(
        after["decisionParams"],
        json!({"service": "shop", "replicas": 5, "zone": "b", "password": "[redacted]"})
    );
    assert_eq!(after["overrides"], json!({"replicas": 5, "zone": "b"}));
    // A caller checks what it may run: it merges the overrides into what it sent, and hashes the result.
    let mut merged = sent;
    for (key, value) in after["overrides"].as_object().expect("overrides are an object") {
        merged[key] = value.clone();
    }
    assert_eq!(after["payloadHash"], payload_hash(&after, &merged).as_str());
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("param_overrides_total", &[("action", "scale"), ("outcome", "applied")]), 1);
    assert_eq!(metrics.count("param_overrides_total", &[("outcome", "rejected")]), 0);
}

#[tokio::test]
async fn inputs_that_were_left_as_they_are_change_nothing() {
    let gateway = home().start().await;
    let request = gateway.create(&Ask::new("scale").params(json!({"replicas": 2, "zone": "a"}))).await;
    let request = request.expect("it is admitted");
    let before = gateway.look(&request.token).await;

    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &[("replicas", "2"), ("zone", "a")])).await;

    let after = gateway.ended(&request.token).await;
    assert_eq!(after["status"], "approved");
    assert_eq!(after["payloadHash"], before["payloadHash"]);
    assert_eq!(gateway.metrics().await.count("param_overrides_total", &[]), 0);
}

#[tokio::test]
async fn four_refusals_for_four_reasons() {
    let gateway = home().start().await;
    let ask = Ask::new("scale").params(json!({"service": "shop", "replicas": 2, "zone": "a", "note": ""}));
    let request = gateway.create(&ask).await.expect("it is admitted");
    let before = gateway.look(&request.token).await;

    let rows: [(&str, &[(&str, &str)]); 4] = [
        ("key_not_allowed", &[("service", "other")]),
        ("schema_validation", &[("replicas", "12")]),
        ("limit_exceeded", &[("replicas", "3"), ("zone", "b"), ("note", "x")]),
        ("diff_size_exceeded", &[("zone", "a-zone-with-a-very-long-name")]),
    ];
    for (n, (reason, inputs)) in rows.into_iter().enumerate() {
        let refused = gateway.click(&Click::edit("U0ALICE", &request.id, inputs)).await;

        assert!(refused.to_string().contains(reason), "{reason}: {refused}");
        assert_eq!(gateway.look(&request.token).await, before, "{reason}: it changed something");
        let metrics = gateway.metrics().await;
        let labels = [("action", "scale"), ("reason", reason)];
        assert_eq!(metrics.count("override_rejections_total", &labels), 1, "{reason}");
        let rejected =
            metrics.count("param_overrides_total", &[("action", "scale"), ("outcome", "rejected")]);
        assert_eq!(rejected, n as u64 + 1, "{reason}");
    }
    let refused = gateway.click(&Click::edit("U0ALICE", &request.id, &[("replicas", "12")])).await;
    assert!(refused.to_string().contains("one to nine, please"), "{refused}");

    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let after = gateway.ended(&request.token).await;
    assert_eq!(after["payloadHash"], before["payloadHash"]);
}

/// No rule across parameters is dropped, and no policy needs to ask for that: the one that lets people edit does not.
#[tokio::test]
async fn an_edit_is_held_to_the_whole_schema() {
    let gateway = home().start().await;
    let params = json!({"env": "staging", "replicas": 1, "password": "hunter2hunter2"});
    let request = gateway.create(&Ask::new("release").params(params.clone())).await.expect("it is admitted");
    let before = gateway.look(&request.token).await;

    for (inputs, block, words) in [
        (&[("env", "prod")][..], "ov_env", "`ticket`, which is not edited: it is required"),
        (
            &[("env", "prod"), ("ticket", "OPS-1")],
            "ov_env",
            "`replicas`, which is not edited: it is less than",
        ),
        (&[("env", "prod"), ("ticket", "OPS-1"), ("replicas", "2")], "ov_replicas", "minimum of 3"),
        (&[("replicas", "9007199254740991.4")], "ov_replicas", "another number"),
    ] {
        let refused = gateway.click(&Click::edit("U0ALICE", &request.id, inputs)).await;
        let error = refused["errors"][block].as_str().unwrap_or_default();
        assert!(error.contains(words), "{inputs:?}: {refused}");
        assert_eq!(gateway.look(&request.token).await, before, "{inputs:?}: it changed something");
    }
    let labels = [("action", "release"), ("reason", "schema_validation")];
    assert_eq!(gateway.metrics().await.count("override_rejections_total", &labels), 3);

    let inputs = [("env", "prod"), ("ticket", "OPS-1"), ("replicas", "3")];
    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &inputs)).await;
    let after = gateway.ended(&request.token).await;
    assert_eq!(after["overrides"], json!({"env": "prod", "ticket": "OPS-1", "replicas": 3}));

    // What the caller sent is not held to the schema; what an approver edits is, with all that the caller sent.
    let params = json!({"env": "test", "replicas": 1, "colour": "blue"});
    let request = gateway.create(&Ask::new("release").params(params)).await.expect("it is admitted");
    let refused = gateway.click(&Click::edit("U0ALICE", &request.id, &[("replicas", "2")])).await;
    let error = refused["errors"]["ov_replicas"].as_str().unwrap_or_default();
    for words in
        ["`env`, which is not edited", "`colour`, which is not edited", "`password`, which is not edited"]
    {
        assert!(error.contains(words), "no {words}: {refused}");
    }
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
}

#[tokio::test]
async fn a_redacted_parameter_cannot_be_edited() {
    let gateway = home().start().await;
    let ask = Ask::new("scale").params(json!({"replicas": 2, "password": "hunter2hunter2"}));
    let request = gateway.create(&ask).await.expect("it is admitted");

    let refused = gateway.click(&Click::edit("U0ALICE", &request.id, &[("password", "letmein")])).await;

    assert!(refused.to_string().contains("key_not_allowed"), "{refused}");
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");
}

#[tokio::test]
async fn a_stranger_cannot_edit() {
    let gateway = home().start().await;
    let request = gateway.open("scale").await;

    let refused = gateway.click(&Click::edit("U0MALLORY", &request.id, &[("replicas", "3")])).await;

    assert_eq!(refused["error"], "unauthorized", "{refused}");
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");
}

#[tokio::test]
async fn each_action_has_limits_of_its_own_over_all_its_approvals() {
    let gateway = home().start().await;
    let params = json!({"replicas": 2, "zone": "a", "note": ""});
    let long = [("note", "a note of thirty letters or so")];

    // What is too long for one action is short enough for the other, which takes one parameter only.
    let scale = gateway.create(&Ask::new("scale").params(params.clone())).await.expect("it is admitted");
    let refused = gateway.click(&Click::edit("U0ALICE", &scale.id, &long)).await;
    assert!(refused["reasons"].to_string().contains("diff_size_exceeded"), "{refused}");
    let retune = gateway.create(&Ask::new("retune").params(params)).await.expect("it is admitted");
    gateway.click_ok(&Click::edit("U0ALICE", &retune.id, &long)).await;

    // The first approver's edit counts for the second one, too.
    let now = async || gateway.look(&retune.token).await["payloadHash"].clone();
    let zone = || Click::edit("U0BOB", &retune.id, &[("zone", "b")]);
    assert_eq!(gateway.click_refused(&zone()).await, "parameters_changed");
    let refused = gateway.click(&zone().beside(&now().await)).await;
    assert!(refused["reasons"].to_string().contains("limit_exceeded"), "{refused}");
    let note = Click::edit("U0BOB", &retune.id, &[("note", "another note")]);
    gateway.click_ok(&note.beside(&now().await)).await;
    assert_eq!(gateway.click_refused(&Click::approve("U0ALICE", &retune.id)).await, "parameters_changed");
    gateway.click_ok(&Click::approve("U0ALICE", &retune.id).beside(&now().await)).await;
    assert_eq!(gateway.ended(&retune.token).await["overrides"], json!({"note": "another note"}));

    let metrics = gateway.metrics().await;
    let rejected = |action, reason| {
        metrics.count("override_rejections_total", &[("action", action), ("reason", reason)])
    };
    assert_eq!((rejected("scale", "diff_size_exceeded"), rejected("retune", "limit_exceeded")), (1, 1));
    assert_eq!(metrics.count("override_rejections_total", &[]), 2);
    assert_eq!(metrics.count("param_overrides_total", &[("action", "retune"), ("outcome", "applied")]), 2);
}

#[tokio::test]
async fn without_an_editable_key_nothing_can_be_edited() {
    let gateway = home().start().await;
    let request = gateway.open("fixed").await;
    let refused = gateway.click(&Click::edit("U0ALICE", &request.id, &[("replicas", "3")])).await;
    assert_eq!(refused["error"], "key_not_allowed", "{refused}");
    let metrics = gateway.metrics().await;
    let labels = [("action", "fixed"), ("reason", "key_not_allowed")];
    assert_eq!(metrics.count("override_rejections_total", &labels), 1);
}

#[tokio::test]
async fn a_rejection_is_audited_with_its_reason_and_shown_on_its_input() {
    let gateway = home().start().await;
    let params = json!({"replicas": 2, "zone": "a", "note": ""});
    let request = gateway.create(&Ask::new("scale").params(params)).await.expect("it is admitted");

    let inputs = [("replicas", "12"), ("zone", "b"), ("note", "much too long a note")];
    let refused = gateway.click(&Click::edit("U0ALICE", &request.id, &inputs)).await;

    assert_eq!(refused["response_action"], "errors", "{refused}");
    assert_eq!(refused["errors"]["ov_replicas"], "one to nine, please", "{refused}");
    let ledger = Ledger::of(&gateway.kill());
    let audited = ledger.audit_entries(&request.id, "override_rejected");
    let [entry] = audited.as_slice() else { panic!("{audited:?}") };
    let reasons = entry["reasons"].as_array().unwrap_or_else(|| panic!("no reasons: {entry}"));
    let mut codes: Vec<&str> = reasons.iter().filter_map(|reason| reason["code"].as_str()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["diff_size_exceeded", "limit_exceeded", "schema_validation"]);
    assert_eq!(entry["actor"], "U0ALICE");
    assert!(entry["policy_hash"].is_string() && entry["payload_hash"].is_string(), "{entry}");
    // Rejected values are stored nowhere.
    assert!(!entry.to_string().contains("much too long a note"), "{entry}");
}

#[tokio::test]
async fn callers_can_look_up_what_an_edit_must_look_like() {
    let gateway = home().start().await;
    let schema = gateway.send(&Call::get("/api/schemas/scale")).await;
    assert_eq!(schema.status(), 200);
    let shown = schema.json();
    assert_eq!(shown["properties"]["replicas"], json!({"type": "integer", "minimum": 1, "maximum": 9}));
    assert!(shown["properties"]["password"].is_null(), "{shown}");
    for action in ["fixed", "nothing"] {
        let reply = gateway.send(&Call::get(&format!("/api/schemas/{action}"))).await;
        assert_eq!((reply.status(), &reply.json()["error"]), (404, &json!("not_found")));
    }
}

#[tokio::test]
async fn an_invalid_error_message_in_a_schema_stops_the_start() {
    for (schema, said) in [
        (
            json!({"properties": {"replicas": {"type": "integer", "errorMessage": {"minimum": "more"}}}}),
            "errorMessage",
        ),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "2020-12"),
        (json!({"properties": {"zone": {}}, "additionalProperties": false}), "`replicas` can be edited"),
    ] {
        let failure = Home::new(ACTIONS).with_schema("scale", &schema).fail_to_start().await;
        assert!(failure.stderr.contains(said), "{schema}: {}", failure.stderr);
    }
}
