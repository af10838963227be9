//! One approver is enough: a caller makes a request, somebody approves, the waiting caller may act.

use countersign_tests::{Ask, Click, Home, PATIENCE, Stopwatch, millis, payload_hash, within};
use serde_json::json;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
";

#[tokio::test]
async fn the_waiting_caller_gets_the_approval() {
    let gateway = Home::new(ACTIONS).start().await;
    let params = json!({"ref": "v1.2.3", "replicas": 2, "nested": {"b": [1, "zwei", null], "a": true}});
    let request = gateway.create(&Ask::new("deploy").params(params.clone())).await.expect("it is admitted");
    assert_eq!(request.body["status"], "ready_for_approval");
    assert_eq!(request.body["policy"]["minApprovals"], 1);
    assert_eq!(request.body["policy"]["requiredPersonas"], json!([]));
    assert_eq!(request.body["policy"]["timeoutSec"], 600);
    let before = gateway.look(&request.token).await;
    assert_eq!(before["status"], "ready_for_approval");
    assert_eq!(before["approvers"], json!([]));
    assert_eq!(before["decidedAt"], json!(null));

    let since = Stopwatch::start();
    let approve = Click::approve("U0ALICE", &request.id);
    let (after, _) = within(
        "the decision",
        futures_util::future::join(gateway.wait(&request.token, 15), gateway.click_ok(&approve)),
    )
    .await;

    assert!(since.elapsed() < PATIENCE / 4, "the long-poll was not woken but ran out");
    assert_eq!(after["status"], "approved");
    assert_eq!(after["approvers"], json!(["U0ALICE"]));
    assert_eq!(after["decisionParams"], params);
    assert_eq!(after["payloadHash"], payload_hash(&after, &params).as_str());
    assert_eq!(after["policyHash"], request.body["policy"]["hash"]);
    assert!(millis(&after["decidedAt"]) < millis(&request.body["expiresAt"]));
    let status = gateway.status(&request.id).await;
    assert_eq!(status["status"], "approved");
    assert_eq!(status["action"], "deploy");
    assert_eq!((&status["approvalsCount"], &status["minApprovals"]), (&json!(1), &json!(1)));
    assert_eq!(status["decidedAt"], after["decidedAt"]);
    assert_eq!(status["payloadHash"], after["payloadHash"]);
    assert_eq!(status["lineageId"], request.id.as_str());
    assert!(!status.to_string().contains(&request.token), "the status shows the token");
}

#[tokio::test]
async fn a_long_poll_answers_when_its_time_is_over() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;

    let since = Stopwatch::start();
    let state = gateway.wait(&request.token, 1).await;

    assert_eq!(state["status"], "ready_for_approval");
    assert!(since.elapsed().as_millis() >= 900, "it answered after {:?}", since.elapsed());
}

#[tokio::test]
async fn the_token_may_come_as_a_bearer_token() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;

    let call = countersign_tests::Call::get("/api/guard/wait?timeoutSec=0")
        .header("authorization", &format!("Bearer {}", request.token));
    let reply = gateway.send(&call).await;

    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(reply.json()["status"], "ready_for_approval");
}
