//! Policies that take long, called by many: whatever needs none of them goes on as if they were not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use countersign_tests::{ADMIN_TOKEN, Ask, Call, Click, Home};
use rusqlite::Connection;
use serde_json::json;

use crate::ledger::Ledger;

/// Behaves while the policy set is checked, and for everybody but this requester.
const VICTIM: &str = "U0VICTIM";

/// How many callers there are.
const CALLERS: usize = 64;

const ACTIONS: &str = "
  slow:
    description: Takes long
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
      - use: misbehaving
        with: { at: admit, do: loop, requester: U0VICTIM }
  deploy:
    description: Deploy to staging
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
  brief:
    description: Expires soon
    timeout: 2s
    escalate: { before: 1s, channel: C0ONCALL }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn many_callers_of_a_slow_policy_hold_up_nobody_else() {
    // Its fuel lasts for some tens of milliseconds, however busy the machine is.
    let gateway = Home::new(ACTIONS).with("COUNTERSIGN_POLICY_FUEL", "100000000").start().await;
    let slow = || Ask::new("slow").requester(VICTIM);
    // From now on the gateway knows.
    assert_eq!(gateway.create(&slow()).await.expect_err("it loops").is(), (503, "policy_failure"));
    let (brief, request) = (gateway.open("brief").await, gateway.open("deploy").await);
    let mut stream = gateway.stream(&request.token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");

    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..CALLERS).map(|_| {
        let (api, ask, stop, answered) = (*gateway, slow(), Arc::clone(&stop), Arc::clone(&answered));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let refused = api.create(&ask).await.expect_err("it loops");
                assert!(matches!(refused.is(), (503, "policy_failure" | "overloaded")), "{refused:?}");
                assert!(refused.retry_after.is_some());
                answered.fetch_add(1, Ordering::Relaxed);
                if refused.is().1 == "overloaded" {
                    // It was answered at once, and is told to come back later.
                    break;
                }
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    while answered.load(Ordering::Relaxed) < CALLERS / 4 {
        tokio::task::yield_now().await;
    }

    // If these waited behind the callers, each of them would be overtaken by nearly all.
    let before = answered.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(gateway.send(&Call::get("/healthz")).await.status(), 200);
    }
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(stream.state().await.status(), "approved");
    let overtaken_by = answered.load(Ordering::Relaxed) - before;
    assert!(overtaken_by < 3 * CALLERS, "twelve calls were overtaken by {overtaken_by}");

    assert_eq!(gateway.ended(&brief.token).await["status"], "expired");
    assert!(callers.iter().any(|caller| !caller.is_finished()), "nobody was calling any more");
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("every answer is as expected");
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("expired_total", &[("action", "brief")]), 1);
    assert_eq!(metrics.count("escalations_total", &[("action", "brief")]), 1);
    assert_eq!(metrics.count("approval_requests_total", &[("action", "slow")]), 0);
}

#[tokio::test]
async fn a_stored_request_that_cannot_be_read_stops_no_expiry() {
    let home = Home::new(ACTIONS).administered();
    let database = home.path("data/countersign.db");
    let gateway = home.start().await;
    let (broken, sound) = (gateway.open("brief").await, gateway.open("brief").await);
    let writer = Connection::open(database).expect("the database can be opened");
    let tampered = writer.execute("UPDATE request SET body = '{' WHERE seq = 1", ());
    assert_eq!(tampered.expect("the database can be written to"), 1);

    assert_eq!(gateway.ended(&sound.token).await["status"], "expired");
    // Nor does it keep an admin from the others.
    let list = Call::get("/api/admin/requests?status=any").bearer(ADMIN_TOKEN);
    let listed = gateway.send(&list).await.json();
    assert_eq!(listed["unreadable"], json!([broken.id]), "{listed}");
    assert_eq!(listed["requests"][0]["requestId"], sound.id.as_str());
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("requests_quarantined", &[]), 1);
    assert_eq!(metrics.count("expired_total", &[]), 1);
    let ledger = Ledger::of(&gateway.kill());
    assert_eq!(ledger.audit_of(&broken.id), ["created", "request_quarantined"]);
    assert_eq!(ledger.audit_of(&sound.id), ["created", "escalated", "expired"]);
}
