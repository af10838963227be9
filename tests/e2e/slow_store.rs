//! Slack waits for three seconds: an interaction is acknowledged by then, and carried out when the store can.

use std::time::Duration;

use countersign_tests::{Click, Home, Stopwatch};
use rusqlite::Connection;
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
async fn a_click_is_acknowledged_while_the_store_is_slow_and_done_afterwards() {
    let home = Home::new(ACTIONS);
    let database = home.path("data/countersign.db");
    let gateway = home.start().await;
    let request = gateway.open("deploy").await;

    // Another process, such as a backup, holds the database for a long time.
    let holder = Connection::open(database).expect("the database can be opened");
    holder.execute_batch("BEGIN IMMEDIATE").expect("the database can be held");
    let since = Stopwatch::start();
    let answer = gateway.click_once(&Click::approve("U0ALICE", &request.id)).await;
    assert!(since.elapsed() < Duration::from_secs(3), "Slack has given up after {:?}", since.elapsed());
    assert_eq!(answer, json!({}), "nothing is promised of what is not stored");
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");

    holder.execute_batch("ROLLBACK").expect("the database is given back");
    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["approvers"]), (&json!("approved"), &json!(["U0ALICE"])));
}
