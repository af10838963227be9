//! The wall clock of the gateway's machine is set while it runs.

use countersign_tests::{Call, Click, Home, Receipt, millis};

use super::{Setup, main_messages};

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
";

const HOUR: i64 = 3_600;

async fn setup() -> Setup {
    Setup::at(Home::new(ACTIONS).with_settable_clock()).await
}

/// Approves, as Slack would if its clock were the gateway's, which is so many seconds ahead.
async fn approve(setup: &Setup, user: &str, request: &Receipt, ahead: i64) {
    setup.click_ok(&Click::approve(user, &request.id).ahead(ahead)).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_stops_neither_posts_nor_updates() {
    for ahead in [-20, -HOUR] {
        let setup = setup().await;
        let request = setup.open("deploy").await;
        let message = setup.shows(&request, "Waiting for 2 approvals").await;
        assert!(message.actions().iter().any(|action| action == "approve"), "{message:?}");
        approve(&setup, "U0ALICE", &request, 0).await;

        setup.set_clock(ahead);
        approve(&setup, "U0BOB", &request, ahead).await;
        let ended = setup.shows(&request, "Approved").await;
        assert!(ended.actions().iter().all(|action| action != "approve"), "{ended:?}");
        let new = setup.open("deploy").await;
        setup.shows(&new, "Waiting for 2 approvals").await;
        assert_eq!(main_messages(&setup.slack, &request.id).len(), 1);

        // The request ended no earlier than its events before that.
        let status = setup.status(&request.id).await;
        let [made, decided] = ["createdAt", "decidedAt"].map(|name| millis(&status[name]));
        assert!(made <= decided, "{ahead}: {status}");
        assert_eq!(setup.send(&Call::get("/readyz")).await.json()["slack"]["state"], "ok");
        let calls: u64 = setup.slack.counts().iter().map(|(_, _, count)| count).sum();
        assert!(calls < 100, "{ahead}: nothing is repeated without end");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_ahead_ends_what_is_past_its_time_and_nothing_else() {
    let setup = setup().await;
    let request = setup.open("deploy").await;
    setup.shows(&request, "Waiting for 2 approvals").await;
    setup.set_clock(HOUR);
    assert_eq!(setup.ended(&request.token).await["status"], "expired");
    setup.shows(&request, "Expired").await;
    let new = setup.open("deploy").await;
    setup.shows(&new, "Waiting for 2 approvals").await;
    for user in ["U0ALICE", "U0BOB"] {
        approve(&setup, user, &new, HOUR).await;
    }
    setup.shows(&new, "Approved").await;
    // And back again.
    setup.set_clock(0);
    let last = setup.open("deploy").await;
    setup.shows(&last, "Waiting for 2 approvals").await;
}
