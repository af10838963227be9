//! An approver edits parameters: the caller gets them merged, and can check by the hash that it runs what was approved.

use countersign_tests::{Ask, Click, Home, payload_hash};
use serde_json::json;

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
}

#[tokio::test]
async fn the_caller_gets_what_was_approved() {
    let gateway = home().start().await;
    let sent = json!({"service": "shop", "replicas": 2, "zone": "a", "password": "hunter2hunter2"});
    let request = gateway.create(&Ask::new("scale").params(sent.clone())).await.expect("it is admitted");
    assert_eq!(gateway.look(&request.token).await["payloadHash"], payload_hash(&sent).as_str());

    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &[("replicas", "5"), ("zone", "b")])).await;

    let after = gateway.ended(&request.token).await;
    assert_eq!(after["status"], "approved");
    assert_eq!(after["approvers"], json!(["U0ALICE"]));
    assert_eq!(
        after["decisionParams"],
        json!({"service": "shop", "replicas": 5, "zone": "b", "password": "[redacted]"})
    );
    assert_eq!(after["overrides"], json!({"replicas": 5, "zone": "b"}));
    // What a caller does that wants to run exactly what was approved: merge into what it sent, and hash.
    let mut merged = sent;
    for (key, value) in after["overrides"].as_object().expect("overrides are an object") {
        merged[key] = value.clone();
    }
    assert_eq!(after["payloadHash"], payload_hash(&merged).as_str());
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
