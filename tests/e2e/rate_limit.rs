//! A caller that makes too many requests, or has too many open, gets 429; callers that wait and people who act do not.

use countersign_tests::{Ask, Click, Home};

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

    let refused = gateway.create(&Ask::new("deploy")).await.expect_err("five is the limit");

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

#[tokio::test]
async fn open_requests_are_limited_for_each_action() {
    let actions = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    rerequest: { cooldown: 1ms, limit: 9, window: 1h }
    policies: [{ use: quorum, with: { approvers: [U0ALICE] } }]
  scale:
    description: Scale a service
    timeout: 10m
    policies: [{ use: quorum, with: { approvers: [U0ALICE] } }]
";
    let gateway = Home::new(actions).with("COUNTERSIGN_MAX_OPEN_REQUESTS", "3").start().await;
    let first = gateway.open("deploy").await;
    let kept = Ask::new("deploy").idempotency_key("run-1");
    let same = gateway.create(&kept).await.expect("it is the second one");
    gateway.open("deploy").await;

    let refused = gateway.create(&Ask::new("deploy")).await.expect_err("three are open");
    assert_eq!((refused.is(), refused.retry_after), ((429, "too_many_open"), Some(10)));
    assert_eq!(gateway.create(&kept).await.expect("it is there already").id, same.id);
    gateway.open("scale").await;

    // One that has ended counts no more, and one that is made again does.
    gateway.click_ok(&Click::deny("U0ALICE", &first.id)).await;
    let again = gateway.rerequest_patiently(&first, "U0REQ").await;
    let refused = gateway.create(&Ask::new("deploy")).await.expect_err("three are open again");
    assert_eq!(refused.is(), (429, "too_many_open"));
    gateway.click_ok(&Click::deny("U0ALICE", &again.id)).await;
    gateway.open("deploy").await;
    let refused = loop {
        match gateway.rerequest(&again, "U0REQ").await {
            Err(early) if early.is() == (429, "cooldown") => {}
            other => break other.expect_err("three are open again"),
        }
    };
    assert_eq!(refused.is(), (429, "too_many_open"));
}
