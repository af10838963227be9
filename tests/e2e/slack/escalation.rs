//! Nobody decides: one notice in the thread, one in the escalation channel, each mentioning the person or group of the policy set.

use countersign_tests::within;

use super::{Setup, main_messages};

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
    let setup = Setup::open(ACTIONS).await;
    let request = setup.open("deploy").await;
    let message = setup.shows(&request, "Escalated").await;

    let notice =
        within("the notice", setup.slack.until(|slack| slack.replies(&message).into_iter().next())).await;
    assert_eq!(notice.mark("slot"), Some("escalation_thread"));
    assert!(notice.pings().contains(&"U0LEAD".to_owned()), "{notice:?}");
    let called = setup.slack.until(|slack| slack.messages_in("C0ONCALL").into_iter().next());
    let called = within("the notice", called).await;
    assert_eq!((called.mark("slot"), called.thread.as_deref()), (Some("escalation_channel"), None));
    assert!(called.pings().contains(&"U0LEAD".to_owned()), "{called:?}");
    assert!(called.shown().contains("acme/shop"), "{}", called.shown());

    let message = main_messages(&setup.slack, &request.id).remove(0);
    setup.slack.person("U0ALICE").click(&message, "approve").await;
    let message = setup.shows(&request, "Approved").await;
    // Both notices say how it ended, and lead to the request's message without calling anybody again.
    for place in ["thread", "channel"] {
        let closed = setup.slack.until(|slack| {
            let notices =
                if place == "thread" { slack.replies(&message) } else { slack.messages_in("C0ONCALL") };
            let [notice] = <[_; 1]>::try_from(notices).ok()?;
            notice.shown().contains("has ended since: *Approved*").then_some(notice)
        });
        let closed = within("the notice to be closed", closed).await;
        assert_eq!(closed.pings(), Vec::<String>::new(), "{place}: {closed:?}");
        let digits = message.ts.replace('.', "");
        let link = format!("/archives/{}/p{digits}|Open the request", message.channel);
        assert!(closed.shown().contains(&link), "{place}: {}", closed.shown());
    }
    assert_eq!(setup.metrics().await.count("escalations_total", &[("action", "deploy")]), 1);
}
