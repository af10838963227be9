use std::sync::Arc;

use countersign_core::clock::ManualClock;
use countersign_core::lifecycle::RequestId;
use countersign_core::record::Slot;
use serde_json::Value;

use super::*;
use crate::CallOutcome;
use crate::fake::{FakeSlack, Fate, TOKEN};

const START: Timestamp = Timestamp::from_millis(1_780_000_000_007);

async fn slack() -> FakeSlack {
    FakeSlack::start(Arc::new(ManualClock::at(START))).await
}

fn mark(slot: Slot) -> Mark {
    Mark { request: RequestId::new(START, 0, 1), slot }
}

fn message(text: &str) -> Message {
    Message { text: text.to_owned(), blocks: Vec::new() }
}

fn view() -> SlackModalView {
    serde_json::from_value(json!({"title": {"type": "plain_text", "text": "Edit"}, "blocks": []})).unwrap()
}

#[tokio::test]
async fn bodies_of_calls() {
    let slack = slack().await;
    let client = slack.client();
    let posted = client.post_message("C1", None, &message("one"), &mark(Slot::Main)).await.unwrap();
    let (reply, replies) = (message("two"), mark(Slot::EscalationThread));
    client.post_message("C1", Some(&posted.ts), &reply, &replies).await.unwrap();
    client.update("C1", &posted.ts, &message("three"), &mark(Slot::Main)).await.unwrap();
    client.post_ephemeral("C1", "U1", Some("1.2"), "only you").await.unwrap();
    client.open_view("trigger", &view()).await.unwrap();
    client.update_view("V1", Some("hash"), &view()).await.unwrap();
    let calls = slack.calls();
    assert!(calls.iter().all(|call| call.token == format!("Bearer {TOKEN}")));
    let sent: Vec<Value> = calls.into_iter().map(|call| json!({ call.method: call.body })).collect();
    insta::assert_snapshot!(serde_json::to_string_pretty(&sent).unwrap());
}

#[tokio::test]
async fn answers_are_parsed() {
    let slack = slack().await;
    let client = slack.client();
    slack.say("usergroups.users.list", json!({"users": ["U1", "U2"], "more": {"to": "come"}}));
    slack.say("apps.connections.open", json!({"url": "wss://slack.test/link?ticket=1"}));
    assert_eq!(client.usergroup_members("S1").await.unwrap(), ["U1", "U2"]);
    let socket = client.open_socket(&Secret::new("xapp-1")).await.unwrap();
    assert_eq!(socket, "wss://slack.test/link?ticket=1");
    assert_eq!(client.permalink("C1", "1.2").await.unwrap(), "https://slack.test/C1/1.2");
    assert_eq!(client.identity(), None);
    let identity = client.auth_test().await.unwrap();
    assert_eq!((identity.team_id.as_deref(), identity.user_id.as_str()), (Some("T1"), "UBOT"));
    assert_eq!(identity.enterprise_id, None);
    assert_eq!(client.identity(), Some(identity));
    slack.say("auth.test", json!({"team_id": null, "enterprise_id": "E1", "user_id": "UBOT"}));
    let identity = client.auth_test().await.unwrap();
    assert_eq!((identity.team_id.as_deref(), identity.enterprise_id.as_deref()), (None, Some("E1")));
    assert_eq!(client.identity(), Some(identity), "the newest answer");
    slack.say("users.info", json!({"user": {"id": "U1", "deleted": true, "profile": {}}}));
    assert!(client.is_gone("U1").await.unwrap());
    slack.say("users.info", json!({"user": {"id": "U1"}}));
    assert!(!client.is_gone("U1").await.unwrap());
    let tokens: Vec<String> = slack.calls().into_iter().map(|call| call.token).collect();
    assert_eq!(tokens[1], "Bearer xapp-1", "the socket has a token of its own");
    assert_eq!(tokens[0], format!("Bearer {TOKEN}"));
}

#[tokio::test]
async fn errors_say_whether_the_call_may_have_been_carried_out() {
    let slack = slack().await;
    let client = slack.client();
    let limited = |seconds| CallError::RateLimited { retry_after: Duration::from_secs(seconds) };
    let rejected = |code: &str| CallError::Rejected { code: code.to_owned() };
    let unanswered = |detail: &str| CallError::Unanswered { detail: detail.to_owned() };
    for (fate, expected) in [
        (Fate::Limited(7), limited(7)),
        (Fate::Refused("ratelimited"), limited(5)),
        (Fate::Refused("channel_not_found"), rejected("channel_not_found")),
        (Fate::Refused("<script>"), rejected("unreadable_code")),
        (Fate::Refused("internal_error"), unanswered("internal_error")),
        (Fate::Refused("fatal_error"), unanswered("fatal_error")),
        (Fate::Failed(502), unanswered("HTTP 502")),
        (Fate::Failed(404), unanswered("HTTP 404")),
        (Fate::DoneAndGarbled, unanswered("the answer is none of Slack's")),
    ] {
        slack.decide(move |_, _| fate);
        let error = client.post_message("C1", None, &message("one"), &mark(Slot::Main)).await.unwrap_err();
        assert_eq!(error, expected, "{fate:?}");
    }
    for fate in [Fate::Cut, Fate::DoneAndCut] {
        slack.decide(move |_, _| fate);
        let error = client.post_message("C1", None, &message("one"), &mark(Slot::Main)).await.unwrap_err();
        assert!(matches!(error, CallError::Unanswered { .. }), "{fate:?}: {error}");
    }
    // `DoneAndGarbled` and `DoneAndCut` posted a message.
    assert_eq!(slack.messages().len(), 2);
    let gone = SlackClient::new(&Secret::new(TOKEN), Some("http://127.0.0.1:9/api"), client.calls.clone());
    let error = gone.unwrap().auth_test().await.unwrap_err().to_string();
    assert!(error.starts_with("Slack does not answer: ") && error.contains("refused"), "{error}");
    assert!(!error.contains(TOKEN), "{error}");
    let calls = |outcome| client.calls.counted("chat.postMessage", outcome);
    assert_eq!(
        (calls(CallOutcome::Ok), calls(CallOutcome::RateLimited), calls(CallOutcome::Error)),
        (0, 2, 9)
    );
}

#[tokio::test]
async fn calls_time_out() {
    let slack = slack().await;
    // Connect before the pause: paused time advances by itself when every task waits.
    let (modals, others) = (slack.client(), slack.client());
    for client in [&modals, &others] {
        client.auth_test().await.unwrap();
    }
    slack.decide(|_, _| Fate::Hangs);
    tokio::time::pause();
    let error = modals.open_view("trigger", &view()).await.unwrap_err();
    assert_eq!(error, CallError::Unanswered { detail: "no answer within 2500 ms".to_owned() });
    let error = others.auth_test().await.unwrap_err();
    assert_eq!(error, CallError::Unanswered { detail: "no answer within 10000 ms".to_owned() });
}

#[tokio::test]
async fn a_message_is_found_by_its_mark() {
    let slack = slack().await;
    let client = slack.client();
    let other = Mark { request: RequestId::new(START, 0, 2), slot: Slot::Main };
    let main = client.post_message("C1", None, &message("ours"), &mark(Slot::Main)).await.unwrap();
    let (reply, replies) = (message("reply"), mark(Slot::EscalationThread));
    let thread = client.post_message("C1", Some(&main.ts), &reply, &replies).await.unwrap();
    for text in ["later", "and later", "and latest"] {
        client.post_message("C1", None, &message(text), &other).await.unwrap();
    }
    let within = (START.minus(1000), START.plus(1000));
    let find = async |thread: Option<&str>, mark: &Mark, (from, to): (Timestamp, Timestamp)| {
        let mut cursor: Option<String> = None;
        for pages in 1.. {
            let search = Search { channel: "C1", thread, from, to, mark, cursor: cursor.as_deref() };
            match client.find(search).await.unwrap() {
                SearchResult::Found(ts) => return (Some(ts), pages),
                SearchResult::NotFound => return (None, pages),
                SearchResult::NextPage(next) => cursor = Some(next),
            }
        }
        (None, 0)
    };
    assert_eq!(find(None, &mark(Slot::Main), within).await, (Some(main.ts.clone()), 2));
    assert_eq!(find(None, &mark(Slot::EscalationThread), within).await, (None, 2));
    let found = find(Some(&main.ts), &mark(Slot::EscalationThread), within).await;
    assert_eq!(found, (Some(thread.ts), 1));
    let later = (START.plus(5000), START.plus(9000));
    assert_eq!(find(None, &mark(Slot::Main), later).await, (None, 1));
}
