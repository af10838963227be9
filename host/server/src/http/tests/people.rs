//! What people do in Slack.

use countersign_core::lifecycle::Digest;
use insta::assert_snapshot;

use super::*;

#[tokio::test]
async fn people_acknowledge_approve_and_withdraw() {
    let server = TestServer::new().await;
    let (id, token) = server.open("guarded").await;
    let mut shown = String::new();
    for (user, action_id) in [
        ("U1", "approve"),
        ("U0", "persona_ack:security"),
        ("U7", "persona_ack:nothing"),
        ("U7", "persona_ack:security"),
        ("U7", "persona_ack:security"),
        ("U7", "withdraw"),
        ("U7", "withdraw"),
        ("U7", "persona_ack:security"),
        ("U1", "approve_edit"),
        ("U1", "explode"),
        ("U1", "approve"),
        ("U1", "deny"),
        ("U1", "re_request"),
    ] {
        let answer = server.press(user, action_id, &id).await;
        let said = ["status", "error"].iter().find_map(|key| answer[*key].as_str()).unwrap();
        shown += &format!("{user} {action_id}: {} {said}\n", answer["ok"]);
    }
    assert_snapshot!(shown, @r#"
    U1 approve: false refused
    U0 persona_ack:security: false unauthorized
    U7 persona_ack:nothing: false unauthorized
    U7 persona_ack:security: true ready_for_approval
    U7 persona_ack:security: false duplicate_acknowledgement
    U7 withdraw: true awaiting_personas
    U7 withdraw: false nothing_to_withdraw
    U7 persona_ack:security: true ready_for_approval
    U1 approve_edit: false no_modal
    U1 explode: false unknown_interaction
    U1 approve: true approved
    U1 deny: false already_decided
    U1 re_request: false not_allowed
    "#);
    assert_eq!(server.look(&token).await["status"], "approved");
    assert!(server.metric(r#"security_events_total{type="unauthorized"} 2"#).await);
}

#[tokio::test]
async fn a_refusal_says_why() {
    let server = TestServer::new().await;
    let (id, _) = server.open("guarded").await;
    let refused = server.press("U1", "approve", &id).await;
    assert_snapshot!(serde_json::to_string_pretty(&refused).unwrap(), @r#"
    {
      "error": "refused",
      "message": "a policy objects: waiting for the acknowledgement of security",
      "ok": false,
      "reasons": [
        {
          "code": "personas_pending",
          "message": "waiting for the acknowledgement of security"
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn the_reason_of_a_denial_reaches_the_caller() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let payload = json!({
        "type": "view_submission",
        "user": {"id": "U1"},
        "view": {
            "callback_id": "deny_submit",
            "private_metadata": json!({"request_id": id}).to_string(),
            "state": {"values": {"reason": {"value": {"value": "not on a Friday"}}}},
        },
    });
    let answer = server.send(server.signed(&payload)).await.json();
    assert_eq!((&answer["ok"], &answer["response_action"]), (&json!(true), &json!("clear")));
    let after = server.look(&token).await;
    assert_eq!((&after["status"], &after["reason"]), (&json!("denied"), &json!("not on a Friday")));
}

#[tokio::test]
async fn edits_are_applied_or_refused_on_their_block() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let mut shown = String::new();
    for inputs in [
        &[("replicas", "99")][..],
        &[("replicas", "many")],
        &[("password", "letmein")],
        &[("replicas", "5"), ("ref", "v2")],
        &[("ref", "a-very-long-reference")],
        &[],
    ] {
        let payload = modal("U1", &id, inputs);
        let answer = server.send(server.signed(&payload)).await.json();
        shown += &format!("{inputs:?}: {} {} {}\n", answer["ok"], answer["error"], answer["errors"]);
    }
    assert_snapshot!(shown, @r#"
    [("replicas", "99")]: false "refused" {"ov_replicas":"one to nine, please"}
    [("replicas", "many")]: false "refused" {"ov_replicas":"one to nine, please"}
    [("password", "letmein")]: false "refused" {"ov_password":"`password` may not be edited"}
    [("replicas", "5"), ("ref", "v2")]: false "refused" {"ov_ref":"2 parameters would be edited, and at most 1 may be"}
    [("ref", "a-very-long-reference")]: false "refused" {"ov_ref":"the new values have 23 characters, and at most 10 are allowed"}
    []: true null null
    "#);

    let (id, token_of_edited) = server.open("deploy").await;
    let answer =
        server.send(server.signed(&modal("U1", &id, &[("replicas", "5"), ("ref", "v1.2.3")]))).await.json();
    assert_eq!((&answer["ok"], &answer["response_action"]), (&json!(true), &json!("clear")), "{answer}");
    assert_eq!(server.press("U2", "approve", &id).await["error"], "parameters_changed");
    let edited = (id, token_of_edited);
    server.approve_as_it_stands("U2", &edited).await;
    let after = server.look(&edited.1).await;
    assert_eq!(after["decisionParams"], json!({"ref": "v1.2.3", "replicas": 5, "password": "[redacted]"}));
    assert_eq!(after["overrides"], json!({"replicas": 5}));
    assert_eq!(server.look(&token).await["overrides"], Value::Null);
}

/// An empty input removes its parameter if the dialog showed its value. If that cannot be told any more, it is refused.
#[tokio::test]
async fn a_cleared_input_is_not_guessed() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let before = server.look(&token).await;
    let submit = async |shown: &[&str], inputs: &[(&str, &str)]| {
        let mut payload = modal("U1", &id, inputs);
        let clearable = Digest::of_json(&json!(shown));
        let metadata = json!({"request_id": id, "clearable": clearable});
        payload["view"]["private_metadata"] = metadata.to_string().into();
        server.send(server.signed(&payload)).await.json()
    };
    let answer = submit(&["ref"], &[("ref", "v2"), ("replicas", "")]).await;
    assert_eq!(answer["error"], "parameters_changed", "{answer}");
    assert_eq!(server.look(&token).await, before);
    let answer = submit(&["ref", "replicas"], &[("ref", "v1.2.3"), ("replicas", ""), ("password", "")]).await;
    assert_eq!(answer["ok"], true, "{answer}");
    server.approve_as_it_stands("U2", &(id.clone(), token.clone())).await;
    let after = server.look(&token).await;
    assert_eq!((&after["overrides"], &after["removed"]), (&json!({}), &json!(["replicas"])));
    assert_eq!(after["decisionParams"], json!({"ref": "v1.2.3", "password": "[redacted]"}));
    let audited = server.audited("approval_recorded").await;
    assert_eq!(audited[0]["edits"], json!([{"key": "replicas", "before": 3}]));
    // Once it has ended, that is what the person reads.
    let answer = submit(&["ref"], &[("replicas", "")]).await;
    assert_eq!(answer["error"], "already_decided", "{answer}");
}

#[tokio::test]
async fn only_slack_may_speak_for_people() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let before = server.look(&token).await;
    let payload = press("U1", "approve", &id);

    let mut unsigned = server.signed(&payload);
    unsigned.headers_mut().remove("x-slack-signature");
    assert_snapshot!(server.send(unsigned).await.shown(), @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "detail": "the request is not signed by Slack",
      "error": "bad_signature",
      "status": 400,
      "title": "Bad Request",
      "type": "urn:countersign:problem:bad_signature"
    }
    "#);
    let mut forged = server.signed(&payload);
    forged.headers_mut().insert("x-slack-signature", format!("v0={}", "0".repeat(64)).parse().unwrap());
    assert_eq!(server.send(forged).await.json()["error"], "bad_signature");
    for seconds in [server.seconds() - 301, server.seconds() + 301] {
        assert_eq!(server.send(signed(&payload, seconds)).await.json()["error"], "stale_signature");
    }
    assert_eq!(server.look(&token).await, before);
    assert!(server.metric(r#"security_events_total{type="bad_signature"} 2"#).await);
    assert!(server.metric(r#"security_events_total{type="stale_signature"} 2"#).await);
}

#[tokio::test]
async fn a_click_counts_once_however_often_it_comes() {
    let server = TestServer::new().await;
    let (id, _) = server.open("deploy").await;
    let payload = press("U1", "approve", &id);
    // As far in the future as is accepted, so that a replay has ten minutes.
    let seconds = server.seconds() + 300;
    assert_eq!(server.send(signed(&payload, seconds)).await.json()["ok"], true);
    for _ in 0..10 {
        let again = server.send(signed(&payload, seconds)).await;
        assert_eq!((again.status.as_u16(), &again.json()["error"]), (400, &json!("replay_detected")));
        server.clock.advance(59_000);
    }
    server.clock.advance(60_000);
    assert_eq!(server.send(signed(&payload, seconds)).await.json()["error"], "stale_signature");
    assert!(server.metric(r#"security_events_total{type="replay"} 10"#).await);
}

#[tokio::test]
async fn a_second_delivery_by_slack_does_not_count() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let payload = press("U1", "approve", &id);
    assert_eq!(server.send(server.signed(&payload)).await.json()["ok"], true);
    // Signed again, as Slack does: not a replay, but the same click.
    server.clock.advance(1000);
    let again = server.send(server.signed(&payload)).await;
    assert_eq!((again.status.as_u16(), &again.json()["ok"]), (200, &json!(true)));
    assert_eq!(again.json()["approvers"], json!(["U1"]));
    assert_eq!(server.press("U1", "approve", &id).await["error"], "duplicate_approval");
    assert_eq!(server.look(&token).await["approvers"], json!(["U1"]));
    assert!(server.metric(r#"security_events_total{type="replay"} 0"#).await);
}

#[tokio::test]
async fn an_approval_of_outdated_parameters_is_refused() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let seen = server.look(&token).await["payloadHash"].as_str().unwrap().to_owned();
    let approve = |user: &str, hash: &str| {
        let mut payload = press(user, "approve", &id);
        payload["actions"][0]["block_id"] = format!("decide:{hash}").into();
        server.signed(&payload)
    };
    let edit = |user: &str, hash: &str, replicas: &str| {
        let mut payload = modal(user, &id, &[("replicas", replicas)]);
        let about = json!({"request_id": id, "payload_hash": hash});
        payload["view"]["private_metadata"] = about.to_string().into();
        server.signed(&payload)
    };
    assert_eq!(server.send(edit("U1", &seen, "5")).await.json()["ok"], true);
    let now = server.look(&token).await["payloadHash"].as_str().unwrap().to_owned();
    assert_ne!(now, seen);

    // A click on the outdated message, and a modal that was opened before the change.
    assert_eq!(server.send(approve("U2", &seen)).await.json()["error"], "parameters_changed");
    let late = server.send(edit("U2", &seen, "4")).await.json();
    assert_eq!((&late["error"], &late["response_action"]), (&json!("parameters_changed"), &json!("errors")));
    assert_eq!(late["errors"], json!({"ov_replicas": "the parameters were changed since you looked"}));
    let after = server.look(&token).await;
    assert_eq!((&after["approvers"], &after["payloadHash"]), (&json!(["U1"]), &json!(now)));

    assert_eq!(server.send(approve("U2", &now)).await.json()["status"], "approved");
    assert_eq!(server.look(&token).await["decisionParams"]["replicas"], 5);
}

#[tokio::test]
async fn without_a_signing_secret_there_is_no_such_route() {
    let server = TestServer::with(&[("SLACK_SIGNING_SECRET", "")]).await;
    let answer = server.send(server.signed(&press("U1", "approve", "x"))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn every_signed_interaction_is_acknowledged() {
    let server = TestServer::new().await;
    let payloads = [
        json!({}),
        json!({"type": "shortcut", "user": {"id": "U1"}}),
        press("U1", "approve", "no id"),
        press("U1", "approve", "req_00000000000000000000000000"),
        modal("U1", "req_00000000000000000000000000", &[("ref", "x")]),
        json!({"type": "view_submission", "user": {"id": "U1"}, "view": {"callback_id": "other"}}),
    ];
    let mut shown = String::new();
    for payload in &payloads {
        let answer = server.send(server.signed(payload)).await;
        assert_eq!(answer.status, 200);
        shown += &format!("{}\n", answer.json());
    }
    assert_snapshot!(shown, @r#"
    {"error":"invalid_payload","message":"the payload cannot be read","ok":false,"reasons":[]}
    {"error":"unknown_interaction","message":"this interaction is not known here","ok":false,"reasons":[]}
    {"error":"not_found","message":"the interaction names no request","ok":false,"reasons":[]}
    {"error":"not_found","message":"no such request","ok":false,"reasons":[]}
    {"error":"not_found","errors":{"ov_ref":"no such request"},"message":"no such request","ok":false,"reasons":[],"response_action":"errors"}
    {"error":"unknown_interaction","message":"this interaction is not known here","ok":false,"reasons":[],"response_action":"update","view":{"blocks":[{"text":{"text":":no_entry_sign: This gateway does not know this button or dialog, so nothing was changed.","type":"mrkdwn","verbatim":true},"type":"section"}],"close":{"emoji":false,"text":"Close","type":"plain_text"},"title":{"emoji":false,"text":"Not done","type":"plain_text"},"type":"modal"}}
    "#);
}
