//! A caller that makes too many requests gets 429; callers that wait and people who act do not.

use countersign_tests::{Click, Home};

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn creates_have_a_bucket() {
    let home = Home::new(ACTIONS).with("RATE_LIMIT_CAPACITY", "5").with("RATE_LIMIT_REFILL_PER_SEC", "0.01");
    let gateway = home.start().await;
    let mut requests = Vec::new();
    for _ in 0..5 {
        requests.push(gateway.open("deploy").await);
    }

    let refused =
        gateway.create(&countersign_tests::Ask::new("deploy")).await.expect_err("five is the limit");

    assert_eq!(refused.is(), (429, "rate_limited"));
    assert!(refused.retry_after.is_some_and(|seconds| (60..=100).contains(&seconds)), "{refused:?}");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("security_events_total", &[("type", "rate_limited")]), 1);
    assert_eq!(metrics.count("approval_requests_total", &[]), 5);
    for request in &requests {
        gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
        assert_eq!(gateway.look(&request.token).await["status"], "approved");
    }
}
