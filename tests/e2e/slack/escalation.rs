//! Nobody decides: one notice in the thread, one in the escalation channel, each mentioning whom the policy names.

use countersign_tests::within;

use super::{Office, main_messages};

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 1h
    escalate: { before: 3599s, channel: C0ONCALL, mention: U0LEAD }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn the_notice_is_in_the_thread_and_in_the_escalation_channel_once() {
    let office = Office::open(ACTIONS).await;
    let request = office.open("deploy").await;
    let message = office.says(&request, "Escalated").await;

    let notice =
        within("the notice", office.slack.until(|slack| slack.replies(&message).into_iter().next())).await;
    assert_eq!(notice.mark("slot"), Some("escalation_thread"));
    assert!(notice.pings().contains(&"U0LEAD".to_owned()), "{notice:?}");
    let called = office.slack.until(|slack| slack.messages_in("C0ONCALL").into_iter().next());
    let called = within("the notice", called).await;
    assert_eq!((called.mark("slot"), called.thread.as_deref()), (Some("escalation_channel"), None));
    assert!(called.pings().contains(&"U0LEAD".to_owned()), "{called:?}");
    assert!(called.shown().contains("acme/shop"), "{}", called.shown());

    let message = main_messages(&office.slack, &request.id).remove(0);
    office.slack.person("U0ALICE").click(&message, "approve").await;
    let message = office.says(&request, "Approved").await;
    assert_eq!(office.slack.replies(&message).len(), 1);
    assert_eq!(office.slack.messages_in("C0ONCALL").len(), 1);
    assert_eq!(office.metrics().await.count("escalations_total", &[("action", "deploy")]), 1);
}
