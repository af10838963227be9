//! A hundred clicks at the same instant: no vote is lost, none counts twice, and there is one decision.

use countersign_tests::{Click, Gateway, Home, within};
use futures_util::future::join_all;
use serde_json::Value;

use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0CAROL], approvals: 2 }
";

#[tokio::test]
async fn a_hundred_approvals_are_two_votes_and_one_decision() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let mut stream = gateway.stream(&request.token).await;
    stream.state().await;
    let people = ["U0ALICE", "U0BOB", "U0CAROL"].into_iter().cycle().take(100);

    let answers = all_at_once(&gateway, people.map(|who| Click::approve(who, &request.id)).collect()).await;

    let counted = answers.iter().filter(|answer| answer["ok"] == true).count();
    assert_eq!(counted, 2, "{answers:?}");
    for refused in answers.iter().filter(|answer| answer["ok"] == false) {
        let code = refused["error"].as_str().unwrap_or_default();
        assert!(["duplicate_approval", "already_decided"].contains(&code), "{refused}");
    }
    let after = gateway.ended(&request.token).await;
    assert_eq!(after["status"], "approved");
    let approvers = after["approvers"].as_array().expect("approvers are a list").clone();
    assert_eq!(approvers.len(), 2, "{approvers:?}");
    assert_ne!(approvers[0], approvers[1]);
    assert_eq!(stream.state().await.json()["approvers"].as_array().map(Vec::len), Some(1));
    assert_eq!(stream.state().await.json(), after);
    assert!(stream.rest().await.is_empty());
    assert_eq!(gateway.metrics().await.count("approvals_total", &[]), 1);
    let ledger = Ledger::of(&gateway.kill());
    let mut audit = ledger.audit_of(&request.id);
    audit.retain(|event| event != "refused");
    assert_eq!(audit, ["created", "approval_recorded", "approval_recorded", "approved"]);
    let votes = ledger.audit_entries(&request.id, "approval_recorded");
    assert_ne!(votes[0]["actor"], votes[1]["actor"], "somebody voted twice");
}

#[tokio::test]
async fn approvals_and_denials_at_once_give_one_decision() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let clicks = (0..40).map(|n| match n % 4 {
        0 => Click::deny("U0CAROL", &request.id),
        1 => Click::withdraw("U0BOB", &request.id),
        2 => Click::approve("U0ALICE", &request.id),
        _ => Click::approve("U0BOB", &request.id),
    });

    all_at_once(&gateway, clicks.collect()).await;

    let after = gateway.ended(&request.token).await;
    let metrics = gateway.metrics().await;
    let decisions = metrics.count("approvals_total", &[]) + metrics.count("denies_total", &[]);
    assert_eq!(decisions, 1, "{after}");
    let ledger = Ledger::of(&gateway.kill());
    assert_eq!(ledger.audited(&["approved", "denied"]), [request.id]);
}

/// Sends each click on a connection of its own, once all of them are open.
async fn all_at_once(gateway: &Gateway, clicks: Vec<Click>) -> Vec<Value> {
    let connections = join_all(clicks.iter().map(|_| gateway.connect())).await;
    let calls = connections.into_iter().zip(&clicks).map(async |(mut connection, click)| {
        connection.click_until_known(click).await.expect("every click is answered")
    });
    within("the answers", join_all(calls)).await
}
