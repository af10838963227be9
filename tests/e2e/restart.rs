//! A restart loses nothing: open requests continue under the rules that they were made under, and what came due
//! meanwhile happens once.

use countersign_tests::{Click, Home, millis};
use serde_json::json;

use crate::ledger::Ledger;

#[tokio::test]
async fn open_requests_and_decisions_survive() {
    let gateway = Home::alone(
        "
  migrate:
    description: Migrate the database
    timeout: 10m
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC] } }
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
",
    )
    .start()
    .await;
    let (open, denied) = (gateway.open("migrate").await, gateway.open("migrate").await);
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &open.id)).await;
    gateway.click_ok(&Click::approve("U0ALICE", &open.id)).await;
    gateway.click_ok(&Click::deny("U0ALICE", &denied.id)).await;
    let before = (gateway.look(&open.token).await, gateway.look(&denied.token).await);
    let counters = counters(&gateway.metrics().await);

    // Once killed, once stopped properly.
    let gateway = gateway.kill().start().await;
    let gateway = gateway.stop().await.start().await;

    assert_eq!((gateway.look(&open.token).await, gateway.look(&denied.token).await), before);
    assert_eq!(self::counters(&gateway.metrics().await), counters);
    gateway.click_ok(&Click::approve("U0BOB", &open.id)).await;
    let after = gateway.ended(&open.token).await;
    assert_eq!((&after["status"], &after["approvers"]), (&json!("approved"), &json!(["U0ALICE", "U0BOB"])));
}

#[tokio::test]
async fn what_came_due_meanwhile_happens_once() {
    let actions = "
  deploy:
    description: Deploy to production
    timeout: 30s
    escalate: { before: 29s }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
  brief:
    description: Over soon
    timeout: 1s
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";
    let witness = Home::alone(actions).start().await;
    let gateway = Home::alone(actions).start().await;
    let (escalates, expires) = (gateway.open("deploy").await, gateway.open("brief").await);
    let mut home = gateway.kill();

    // Made later, elsewhere: once it has expired, the time of the other two has come as well.
    let late = witness.open("brief").await;
    assert_eq!(witness.ended(&late.token).await["status"], "expired");
    for _ in 0..2 {
        let gateway = home.start().await;
        let mut stream = gateway.stream(&escalates.token).await;
        while stream.state().await.id.as_deref() != Some("2") {}
        let after = gateway.ended(&expires.token).await;
        assert_eq!(after["status"], "expired");
        assert!(millis(&after["decidedAt"]) >= millis(&expires.body["expiresAt"]));
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.count("escalations_total", &[]), 1);
        assert_eq!(metrics.count("expired_total", &[]), 1);
        home = gateway.kill();
    }

    let ledger = Ledger::of(&home);
    assert_eq!(ledger.audit_of(&escalates.id), ["created", "escalated"]);
    assert_eq!(ledger.audit_of(&expires.id), ["created", "expired"]);
}

#[tokio::test]
async fn a_request_is_judged_by_the_rules_that_it_was_made_under() {
    let gateway = Home::alone(
        "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
",
    )
    .start()
    .await;
    let old = gateway.open("deploy").await;
    gateway.click_ok(&Click::approve("U0ALICE", &old.id)).await;

    // Other people, another number, another module; and the old module is gone from the folder.
    let home = gateway.stop().await;
    std::fs::remove_file(home.path("policies/modules/quorum.wasm")).expect("it was there");
    home.set_actions(
        "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: misbehaving
        with: { do: behave }
",
    );
    let gateway = home.start().await;
    let new = gateway.open("deploy").await;
    assert_ne!(new.body["policy"]["hash"], old.body["policy"]["hash"]);

    assert_eq!(gateway.click_refused(&Click::approve("U0CAROL", &old.id)).await, "unauthorized");
    assert_eq!(gateway.look(&old.token).await["approvers"], json!(["U0ALICE"]));
    gateway.click_ok(&Click::approve("U0BOB", &old.id)).await;
    let after = gateway.ended(&old.token).await;
    assert_eq!(after["status"], "approved");
    assert_eq!(after["policyHash"], old.body["policy"]["hash"]);
    gateway.click_ok(&Click::approve("U0CAROL", &new.id)).await;
    assert_eq!(gateway.ended(&new.token).await["status"], "approved");
}

fn counters(metrics: &countersign_tests::Metrics) -> Vec<u64> {
    [
        "approval_requests_total",
        "denies_total",
        "persona_ack_total",
        "decision_latency_seconds_count",
        "pending_requests",
    ]
    .map(|name| metrics.count(name, &[]))
    .to_vec()
}
