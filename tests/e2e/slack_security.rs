//! Only Slack can act, only now, and only once.

use countersign_tests::{Api, Call, Click, Gateway, Home, Problem, Signed, unix_seconds};
use serde_json::json;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
";

#[tokio::test]
async fn what_slack_did_not_sign_does_not_count() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let click = Click::approve("U0ALICE", &request.id);
    let rows = [
        ("another secret", click.forged().call()),
        ("no signature", click.signed().call_without_signature()),
        ("another time than was signed", click.signed().restamped(unix_seconds() - 5).call()),
        ("another body than was signed", tampered(&click)),
    ];
    for (n, (what, call)) in rows.into_iter().enumerate() {
        check_refused(&gateway, what, &call, "bad_signature").await;
        let counted = gateway.metrics().await.count("security_events_total", &[("type", "bad_signature")]);
        assert_eq!(counted, n as u64 + 1, "{what}");
    }
    assert_untouched(&gateway, &request.id).await;
}

#[tokio::test]
async fn what_slack_signed_too_long_ago_does_not_count() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let click = Click::approve("U0ALICE", &request.id);
    for seconds in [310, 86_400, -310] {
        let call = click.signed_ago(seconds).call();
        check_refused(&gateway, &format!("{seconds} s ago"), &call, "stale_signature").await;
    }
    assert_eq!(gateway.metrics().await.count("security_events_total", &[("type", "stale_signature")]), 3);
    // Stale and forged counts as forged: somebody who cannot sign must not learn more.
    let forged = Signed::new("{}", unix_seconds() - 86_400, "somebody else's secret");
    check_refused(&gateway, "stale and forged", &forged.call(), "bad_signature").await;
    assert_untouched(&gateway, &request.id).await;

    let recent = gateway.send(&click.signed_ago(280).call()).await;
    assert_eq!(recent.json()["ok"], true, "{}", recent.text());
}

#[tokio::test]
async fn the_same_click_counts_once() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let signed = Click::approve("U0ALICE", &request.id).signed();
    let first = gateway.send(&signed.call()).await;
    assert_eq!(first.status(), 200, "{}", first.text());
    // It has counted: else there would be nothing to withdraw.
    gateway.click_ok(&Click::withdraw("U0ALICE", &request.id)).await;

    check_refused(&gateway, "a replay", &signed.call(), "replay_detected").await;

    assert_eq!(gateway.metrics().await.count("security_events_total", &[("type", "replay")]), 1);
    assert_untouched(&gateway, &request.id).await;

    let gateway = gateway.kill().start().await;
    check_refused(&gateway, "a replay after a restart", &signed.call(), "replay_detected").await;
    assert_untouched(&gateway, &request.id).await;
}

#[tokio::test]
async fn what_slack_would_never_send_changes_nothing() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let rows = [
        ("an unknown button", Click::button("explode", "U0ALICE", &request.id)),
        ("no such request", Click::approve("U0ALICE", "req_01jd8xkm0n0000000000000000")),
        ("no request id at all", Click::approve("U0ALICE", "x' OR 1=1")),
        ("an empty payload", Click::raw(json!({}))),
        ("another kind of payload", Click::raw(json!({"type": "shortcut", "user": {"id": "U0ALICE"}}))),
        ("wrong types", Click::raw(json!({"type": "block_actions", "user": "U0ALICE", "actions": 1}))),
        ("nobody", Click::approve("", &request.id)),
        ("a button with half a payload hash", seen_in(&request.id, &format!("decide:{}", "0".repeat(32)))),
        ("a button with an empty payload hash", seen_in(&request.id, "decide:")),
        ("a dialog with half a payload hash", sent_with(&request.id, &"0".repeat(32))),
    ];
    for (what, click) in rows {
        // Slack shows an error to the person for anything but 200.
        let answer = gateway.click(&click).await;
        assert_eq!(answer["ok"], false, "{what}: {answer}");
    }
    assert_untouched(&gateway, &request.id).await;
}

#[tokio::test]
async fn without_a_signing_secret_nobody_can_act() {
    let gateway = Home::new(ACTIONS).without("SLACK_SIGNING_SECRET").start().await;
    let request = gateway.open("deploy").await;

    for call in [Click::approve("U0ALICE", &request.id).signed().call(), unsigned_secret(&request.id)] {
        let reply = gateway.send(&call).await;
        assert_eq!(reply.status(), 404, "{}", reply.text());
    }

    assert_untouched(&gateway, &request.id).await;
}

/// A press in a block with this id, which contains the payload hash of the parameters that were shown.
fn seen_in(id: &str, block_id: &str) -> Click {
    let pressed = json!({"action_id": "approve", "block_id": block_id, "value": id});
    Click::raw(json!({"type": "block_actions", "user": {"id": "U0ALICE"}, "actions": [pressed]}))
}

/// A dialog that was opened on parameters with this payload hash.
fn sent_with(id: &str, payload_hash: &str) -> Click {
    let about = json!({"request_id": id, "payload_hash": payload_hash}).to_string();
    let view = json!({"callback_id": "override_submit", "private_metadata": about, "state": {"values": {}}});
    Click::raw(json!({"type": "view_submission", "user": {"id": "U0ALICE"}, "view": view}))
}

/// Signed with the empty secret, which a careless comparison would accept.
fn unsigned_secret(id: &str) -> Call {
    let payload = json!({"type": "block_actions", "user": {"id": "U0ALICE"}, "actions": [{"action_id": "approve", "value": id}]});
    Signed::new(&payload.to_string(), unix_seconds(), "").call()
}

fn tampered(click: &Click) -> Call {
    click.signed().with_body_suffix("+").call()
}

async fn check_refused(gateway: &Api, what: &str, call: &Call, code: &str) {
    let reply = gateway.send(call).await;
    assert_eq!(Problem::read(&reply).is(), (400, code), "{what}");
}

async fn assert_untouched(gateway: &Gateway, id: &str) {
    let status = gateway.status(id).await;
    assert_eq!((&status["status"], &status["approvers"]), (&json!("ready_for_approval"), &json!([])));
}
