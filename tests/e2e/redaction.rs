//! A redacted value is written nowhere and shown to nobody.

use countersign_tests::{Ask, Call, Click, Home, holds, payload_hash};
use serde_json::json;

const SECRET: &str = "xyzzy-correct-horse-battery-staple";

const ACTIONS: &str = "
  rotate:
    description: Rotate a secret
    timeout: 10m
    redact: { show: [name] }
    rerequest: { cooldown: 1s, limit: 5, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
      - use: override-guard
        with: { keys: [name] }
";

#[tokio::test]
async fn a_redacted_value_is_in_no_file_and_no_answer() {
    let home = Home::new(ACTIONS).with("COUNTERSIGN_LOG", "trace");
    let gateway = home.start().await;
    let mut heard = String::new();
    let params = json!({"name": "db", "secret": SECRET, "deep": {"er": [SECRET]}, "n": 2});
    let ask = Ask::new("rotate").params(params.clone()).idempotency_key("once");
    let request = gateway.create(&ask).await.expect("it is admitted");
    heard += &request.body.to_string();
    heard += &gateway.create(&ask).await.expect("it is the same").body.to_string();
    let mut stream = gateway.stream(&request.token).await;
    heard += &stream.state().await.data;

    heard += &gateway.click(&Click::edit("U0ALICE", &request.id, &[("secret", "x")])).await.to_string();
    heard += &gateway.click_ok(&Click::deny("U0ALICE", &request.id)).await.to_string();
    heard += &stream.state().await.data;
    let again = gateway.rerequest_patiently(&request, "U0REQ").await;
    heard += &again.body.to_string();
    gateway.click_ok(&Click::approve("U0ALICE", &again.id)).await;
    let after = gateway.ended(&again.token).await;
    for path in
        [format!("/api/guard/status?requestId={}", again.id), "/metrics".into(), "/api/schemas/rotate".into()]
    {
        heard += &gateway.send(&Call::get(&path)).await.text();
    }
    heard += &gateway.lineage(&again.id).await.to_string();
    heard += &after.to_string();
    // With a fault elsewhere: the error must name the fault without the values that were sent.
    let mut broken = ask.body();
    broken["meta"]["justification"] = json!("");
    heard += &gateway.send(&Call::post("/api/guard/request", &broken)).await.text();

    assert_eq!(after["status"], "approved");
    let shown = json!({"name": "db", "secret": "[redacted]", "deep": "[redacted]", "n": "[redacted]"});
    assert_eq!(after["decisionParams"], shown);
    assert_eq!(
        after["payloadHash"],
        payload_hash(&after, &params).as_str(),
        "the hash is of the real values"
    );
    assert!(!heard.contains(SECRET), "it was answered: {heard}");
    assert!(!gateway.output().contains(SECRET), "it was logged");
    let home = gateway.kill();
    let files = home.files();
    let is_database = |name: &str| name.ends_with("countersign.db") || name.ends_with(".aof");
    assert!(
        files.iter().any(|(path, _)| path.to_str().is_some_and(is_database)),
        "there is no database to look at"
    );
    let found = files.iter().any(|(_, bytes)| holds(bytes, request.id.as_bytes()));
    assert!(found, "the search finds nothing");
    let found: Vec<_> =
        files.iter().filter(|(_, bytes)| holds(bytes, SECRET.as_bytes())).map(|(path, _)| path).collect();
    assert!(found.is_empty(), "it is in {found:?}");
}
