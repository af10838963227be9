//! An ended request is made again: after a cooldown, up to a limit, in one lineage.

use countersign_tests::{Ask, Click, Home, payload_hash};
use serde_json::{Value, json};

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    redact: { hide: [password] }
    rerequest: { cooldown: 1s, limit: 3, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
  once:
    description: Deploy, but only once
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn the_chain_has_a_cooldown_and_a_limit() {
    let gateway = Home::new(ACTIONS).start().await;
    let first = gateway.open("deploy").await;
    let open = gateway.rerequest(&first, "U0REQ").await.expect_err("it is still open");
    assert_eq!(open.is(), (403, "not_allowed"));
    gateway.click_ok(&Click::deny("U0ALICE", &first.id)).await;

    let early = gateway.rerequest(&first, "U0REQ").await.expect_err("it has just been denied");
    assert_eq!(early.is(), (429, "cooldown"));
    assert_eq!(early.retry_after, Some(1));

    let second = gateway.rerequest_patiently(&first, "U0REQ").await;
    assert_ne!((&second.id, &second.token), (&first.id, &first.token));
    assert_eq!(second.body["lineageId"], first.id.as_str());
    assert_eq!(second.body["status"], "ready_for_approval");
    let (again, before) = (gateway.look(&second.token).await, gateway.look(&first.token).await);
    // The same parameters, each time with a salt of their own.
    let params = &Ask::new("deploy").body()["params"];
    for view in [&again, &before] {
        assert_eq!(view["payloadHash"], payload_hash(view, params).as_str());
    }
    assert_eq!(again["payloadSalt"], second.body["payloadSalt"]);
    assert_ne!(again["payloadSalt"], before["payloadSalt"]);
    gateway.click_ok(&Click::deny("U0BOB", &second.id)).await;

    // Any request of the chain names the chain.
    let third = gateway.rerequest_patiently(&first, "U0OTHER").await;
    assert_eq!(third.body["lineageId"], first.id.as_str());
    gateway.click_ok(&Click::deny("U0BOB", &third.id)).await;
    let limited = loop {
        let refused = gateway.rerequest(&third, "U0REQ").await.expect_err("three is the limit");
        if refused.code != "cooldown" {
            break refused;
        }
        gateway.wait(&gateway.open("once").await.token, refused.retry_after.expect("it says when")).await;
    };
    assert_eq!(limited.is(), (429, "rate_limited"));
    assert!(limited.retry_after.is_some_and(|seconds| seconds > 23 * 3600), "{limited:?}");

    let chain = gateway.lineage(&second.id).await;
    let ids: Vec<&Value> = requests(&chain).iter().map(|request| &request["requestId"]).collect();
    assert_eq!(ids, [&json!(first.id), &json!(second.id), &json!(third.id)]);
    assert!(requests(&chain).iter().all(|request| request["status"] == "denied"), "{chain}");
    assert_eq!(gateway.lineage(&first.id).await, chain);
    assert_eq!(gateway.metrics().await.count("approval_requests_total", &[("action", "deploy")]), 3);
}

#[tokio::test]
async fn an_approved_request_cannot_be_made_again_nor_an_action_that_does_not_allow_it() {
    let gateway = Home::new(ACTIONS).start().await;
    let approved = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &approved.id)).await;
    let once = gateway.open("once").await;
    gateway.click_ok(&Click::deny("U0ALICE", &once.id)).await;

    for ended in [&approved, &once] {
        let refused = gateway.rerequest(ended, "U0REQ").await.expect_err("it is not allowed");
        assert_eq!(refused.is(), (403, "not_allowed"));
    }
}

#[tokio::test]
async fn whoever_presses_the_button_the_requester_still_may_not_approve() {
    let gateway = Home::new(ACTIONS).start().await;
    let ask = countersign_tests::Ask::new("deploy").requester("U0ALICE");
    let first = gateway.create(&ask).await.expect("it is admitted");
    gateway.click_ok(&Click::deny("U0BOB", &first.id)).await;

    let second = gateway.rerequest_patiently(&first, "U0BOB").await;

    assert_eq!(gateway.click(&Click::approve("U0ALICE", &second.id)).await["ok"], false);
    gateway.click_ok(&Click::approve("U0BOB", &second.id)).await;
}

fn requests(chain: &Value) -> &Vec<Value> {
    chain["requests"].as_array().unwrap_or_else(|| panic!("no `requests`: {chain}"))
}
