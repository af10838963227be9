//! Two of three: each counts once, and nobody else counts at all.

use countersign_tests::{Ask, Click, Home, within};
use serde_json::json;

use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, \"@release-managers\"], approvals: 2 }
";

#[tokio::test]
async fn two_of_three_with_a_duplicate_and_an_unauthorised_click() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    assert_eq!(request.body["policy"]["minApprovals"], 2);
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    let after_one = gateway.status(&request.id).await;
    assert_eq!(after_one["status"], "ready_for_approval");
    assert_eq!(after_one["approvers"], json!(["U0ALICE"]));

    assert_eq!(gateway.click_refused(&Click::approve("U0ALICE", &request.id)).await, "duplicate_approval");
    assert_eq!(gateway.status(&request.id).await, after_one, "a duplicate changed something");

    for stranger in [Click::approve("U0MALLORY", &request.id), Click::deny("U0MALLORY", &request.id)] {
        let unauthorized =
            gateway.metrics().await.count("security_events_total", &[("type", "unauthorized")]);
        assert_eq!(gateway.click_refused(&stranger).await, "unauthorized");
        assert_eq!(gateway.status(&request.id).await, after_one, "a stranger changed something");
        let counted = async {
            while gateway.metrics().await.count("security_events_total", &[("type", "unauthorized")])
                != unauthorized + 1
            {
                tokio::task::yield_now().await;
            }
        };
        within("it to be counted, once", counted).await;
    }

    gateway.click_ok(&Click::approve("U0RM2", &request.id)).await;
    let after = gateway.ended(&request.token).await;
    assert_eq!(after["status"], "approved");
    assert_eq!(after["approvers"], json!(["U0ALICE", "U0RM2"]));
    let late = gateway.click_refused(&Click::approve("U0BOB", &request.id)).await;
    assert_eq!(late, "already_decided");
    assert_eq!(gateway.look(&request.token).await, after);

    let ledger = Ledger::of(&gateway.kill());
    assert_eq!(
        ledger.audit_of(&request.id),
        [
            "created",
            "approval_recorded",
            "refused",
            "unauthorized_attempt",
            "unauthorized_attempt",
            "approval_recorded",
            "approved",
            "refused",
        ]
    );
}

#[tokio::test]
async fn a_requester_may_not_approve_but_a_super_approver_may() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.create(&Ask::new("deploy").requester("U0ALICE")).await.expect("it is admitted");

    let refused = gateway.click(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(refused["ok"], false);
    assert!(refused["reasons"].to_string().contains("requester_may_not_approve"), "{refused}");
    gateway.click_ok(&Click::approve("U0ADMIN", &request.id)).await;
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;

    assert_eq!(gateway.ended(&request.token).await["approvers"], json!(["U0ADMIN", "U0BOB"]));
}
