//! The page in the browser, and the calls that it may make.

use serde_json::{Value, json};
use slack_simulator::Simulator;

use crate::app::{App, Reply, ok, post, send, slack, within};

async fn get(slack: &Simulator, path: &str) -> Reply {
    let address = slack.address().to_string();
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}");
    within(send(&address, &head, "")).await.expect("an answer")
}

async fn act(slack: &Simulator, what: &str, body: &Value) -> Reply {
    let address = slack.address().to_string();
    let head = format!("POST /_sim/{what} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json");
    within(send(&address, &head, &body.to_string())).await.expect("an answer")
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let slack = slack().await;
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let reply = get(&slack, path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            reply.header("content-type").is_some_and(|found| found.starts_with(kind)),
            "{path}: {reply:?}"
        );
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        // The name of a language is no address that anything is fetched from.
        let body = reply.body.replace("http://www.w3.org/2000/svg", "");
        for elsewhere in ["http://", "https://", "innerHTML", "eval(", "document.write"] {
            assert!(!body.contains(elsewhere), "{path} has `{elsewhere}`");
        }
    }
}

#[tokio::test]
async fn other_sites_can_neither_look_nor_act() {
    let slack = slack().await;
    let address = slack.address().to_string();
    let port = slack.address().port();
    let rows = [
        (format!("GET /_sim/state HTTP/1.1\r\nhost: evil.example:{port}"), "", 403),
        (format!("GET /_sim/state HTTP/1.1\r\nhost: localhost:{port}"), "", 200),
        (format!("POST /_sim/restart HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/plain"), "{}", 415),
        (format!("POST /_sim/restart HTTP/1.1\r\nhost: {address}"), "{}", 415),
        (
            "POST /_sim/faults HTTP/1.1\r\nhost: evil.example\r\ncontent-type: application/json".to_owned(),
            "{}",
            403,
        ),
    ];
    for (head, body, status) in rows {
        let reply = within(send(&address, &head, body)).await.expect("an answer");
        assert_eq!(reply.status, status, "{head}");
    }
}

#[tokio::test]
async fn everybody_sees_their_own() {
    let slack = slack().await;
    let app = App::start(slack.signing_secret()).await;
    slack.set_gateway(&app.url);
    let message = post(&slack, "C0APPROVALS").await;
    ok(&slack, "chat.postEphemeral", &json!({"channel": "C0APPROVALS", "user": "U0BOB", "text": "only you"}))
        .await;

    let bob = get(&slack, "/_sim/state?user=U0BOB").await.json();
    let alice = get(&slack, "/_sim/state?user=U0ALICE").await.json();
    assert_eq!(bob["ephemerals"][0]["text"], "only you");
    assert_eq!(alice["ephemerals"], json!([]));
    assert_eq!(alice["channels"][0]["messages"][0]["blocks"], json!(message.blocks));

    let of = |ts: &str, action: &str| json!({"user": "U0ALICE", "channel": "C0APPROVALS", "ts": ts, "action_id": action});
    let rows = [
        (of(&message.ts, "approve"), 200),
        (of(&message.ts, "vanished"), 409),
        (of("1.000001", "approve"), 404),
        (
            json!({"user": "U0NOBODY", "channel": "C0APPROVALS", "ts": message.ts, "action_id": "approve"}),
            404,
        ),
    ];
    for (body, status) in rows {
        assert_eq!(act(&slack, "click", &body).await.status, status, "{body}");
    }
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn a_page_waits_for_what_is_new() {
    let slack = slack().await;
    let version = get(&slack, "/_sim/state?user=U0BOB").await.json()["version"].clone();
    let path = format!("/_sim/state?user=U0BOB&after={version}");
    let (state, _) = tokio::join!(get(&slack, &path), async {
        slack.person("U0BOB").say("C0APPROVALS", None, "hello");
    });
    assert_ne!(state.json()["version"], version);
    assert_eq!(state.json()["channels"][0]["messages"][0]["text"], "hello");
    // A page with another version, from an earlier run for instance, is answered at once.
    assert_eq!(get(&slack, "/_sim/state?user=U0BOB&after=999999").await.status, 200);
}

#[tokio::test]
async fn faults_are_set_and_counted() {
    let slack = slack().await;
    assert_eq!(act(&slack, "faults", &json!({"rate_limited": 1.5})).await.status, 400);
    assert_eq!(act(&slack, "faults", &json!({"rate_limitedd": 1})).await.status, 400);
    assert_eq!(act(&slack, "faults", &json!({"down": true})).await.status, 200);
    assert_eq!(get(&slack, "/_sim/faults").await.json()["down"], true);
    assert_eq!(act(&slack, "faults", &json!({})).await.status, 200);
    post(&slack, "C0APPROVALS").await;
    let counts = get(&slack, "/_sim/counts").await.json();
    assert_eq!(counts["calls"], json!([{"method": "chat.postMessage", "outcome": "ok", "count": 1}]));
    let said = json!({"user": "U0BOB", "channel": "C0APPROVALS", "text": "<!channel>"});
    assert_eq!(act(&slack, "say", &said).await.status, 200);
    assert_eq!(slack.messages().pop().expect("it was posted").text, "&lt;!channel&gt;");
    assert_eq!(act(&slack, "explode", &json!({})).await.status, 404);
}
