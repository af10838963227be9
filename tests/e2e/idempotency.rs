//! A caller that is not sure whether its create arrived sends it again, and gets the same request.

use countersign_tests::{Ask, Click, Home};
use futures_util::future::join_all;
use serde_json::json;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn the_same_key_and_body_give_the_same_request() {
    let gateway = Home::new(ACTIONS).start().await;
    let ask = Ask::new("deploy").idempotency_key("run-4711");

    let first = gateway.create(&ask).await.expect("it is admitted");
    let again = gateway.create(&ask).await.expect("it is the same again");

    assert_eq!((&again.id, &again.token), (&first.id, &first.token));
    let other = gateway.create(&ask.clone().idempotency_key("run-4712")).await.expect("it is another one");
    assert_ne!(other.id, first.id);
    assert_eq!(gateway.metrics().await.count("approval_requests_total", &[]), 2);
    gateway.click_ok(&Click::approve("U0ALICE", &first.id)).await;
    let late = gateway.create(&ask).await.expect("it is the same still");
    assert_eq!((late.id, &late.body["status"]), (first.id, &json!("approved")));
}

#[tokio::test]
async fn twenty_at_once_give_one_request() {
    let gateway = Home::new(ACTIONS).start().await;
    let ask = Ask::new("deploy").idempotency_key("run-4711");

    let receipts = join_all((0..20).map(|_| gateway.create(&ask))).await;

    let mut ids: Vec<_> = receipts
        .into_iter()
        .map(|receipt| receipt.map(|it| (it.id, it.token)).expect("it is admitted"))
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(gateway.metrics().await.count("approval_requests_total", &[]), 1);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let gateway = Home::new(ACTIONS).start().await;
    let ask = Ask::new("deploy").idempotency_key("run-4711");
    gateway.create(&ask).await.expect("it is admitted");

    let refused = gateway.create(&ask.params(json!({"ref": "v9"}))).await.expect_err("the body is another");

    assert_eq!(refused.is(), (422, "idempotency_key_reused"));
    assert_eq!(gateway.metrics().await.count("approval_requests_total", &[]), 1);
}

#[tokio::test]
async fn the_key_is_remembered_over_a_restart() {
    let gateway = Home::new(ACTIONS).start().await;
    let ask = Ask::new("deploy").idempotency_key("run-4711");
    let first = gateway.create(&ask).await.expect("it is admitted");

    let gateway = gateway.kill().start().await;

    let again = gateway.create(&ask).await.expect("it is the same again");
    assert_eq!((again.id, again.token), (first.id, first.token));
}
