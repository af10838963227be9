//! An approval is used once, whenever the gateway is killed.

use countersign_tests::{Ask, Call, Click, Home, within};
use serde_json::json;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    consume: required
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn the_same_answer_after_kill_9() {
    let mut gateway = Home::new(ACTIONS).start().await;
    for reads_the_answer in [true, false, true, false] {
        let made = gateway.create(&Ask::new("deploy")).await.expect("it is admitted");
        gateway.click_ok(&Click::approve("U0ALICE", &made.id)).await;
        let body = json!({"token": made.token, "params": Ask::new("deploy").body()["params"]});
        let consume = |key: &str| Call::post("/api/guard/consume", &body).header("idempotency-key", key);
        let mut connection = gateway.connect().await;
        connection.write(&consume("run-1").bytes()).await.expect("it is sent");
        let first = match reads_the_answer {
            true => Some(within("an answer", connection.answer()).await.expect("an answer").json()),
            // Whether it was stored nobody knows.
            false => None,
        };
        gateway = gateway.kill().start().await;
        let again = gateway.send(&consume("run-1")).await;
        assert_eq!((again.status(), &again.json()["use"]), (200, &json!("consumed")), "{}", again.text());
        if let Some(mut first) = first {
            first["replayed"] = true.into();
            assert_eq!(again.json(), first);
        }
        assert_eq!(gateway.send(&consume("run-2")).await.json()["error"], "already_consumed");
        let done = Call::post("/api/guard/outcome", &json!({"token": made.token, "status": "succeeded"}));
        assert_eq!(gateway.send(&done).await.json()["use"], "succeeded");
        gateway = gateway.kill().start().await;
        assert_eq!(gateway.look(&made.token).await["use"], "succeeded");
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("approvals_consumed_total", &[("action", "deploy")]), 4);
}
