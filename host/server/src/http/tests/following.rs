//! Callers can follow: what took the place of their request, and where people see it.

use countersign_access::ApiKey;
use countersign_slack::fake::Fate;

use super::delivery::{until, with_slack};
use super::*;

const MINUTE: u64 = 60_000;

/// A request that was denied, and made again by somebody in Slack: the ids and the token of the first.
async fn made_again(server: &TestServer) -> (String, String, String) {
    let (id, token) = server.open("deploy").await;
    server.press("U1", "deny", &id).await;
    assert_eq!(server.look(&token).await["successor"], Value::Null);
    server.clock.advance(5 * MINUTE);
    server.press("U2", "re_request", &id).await;
    let lineage = server.get(&format!("/api/guard/lineage?requestId={id}")).await.json();
    let second = lineage["requests"][1]["requestId"].as_str().expect("it was made again").to_owned();
    (id, token, second)
}

#[tokio::test]
async fn a_request_that_was_made_again_leads_to_the_next_one() {
    let server = TestServer::new().await;
    let (id, token, second) = made_again(&server).await;
    let seen = server.look(&token).await;
    assert_eq!((&seen["status"], &seen["successor"]["requestId"]), (&json!("denied"), &json!(second)));
    let next = seen["successor"]["token"].as_str().expect("the holder of the old token gets the new one");
    assert_eq!(server.look(next).await["status"], "ready_for_approval");

    let stream = server.get(&format!("/api/guard/wait-sse?token={token}")).await.text;
    assert!(
        stream.contains(&format!(r#""successor":{{"requestId":"{second}","token":"{next}"}}"#)),
        "{stream}"
    );
    let status = async |token: Option<&str>| {
        let mut request = Request::get(format!("/api/guard/status?requestId={id}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        server.send(request.body(Body::empty()).expect("a request")).await.json()
    };
    assert_eq!(status(Some(&token)).await["successor"], seen["successor"]);
    // Whoever has the id alone learns no token.
    assert_eq!(status(None).await["successor"], json!({"requestId": second}));
    // The newest one, and one that was approved, has none.
    assert_eq!(server.look(next).await["successor"], Value::Null);
    server.press("U1", "approve", &second).await;
    server.press("U3", "approve", &second).await;
    let seen = server.look(next).await;
    assert_eq!((&seen["status"], &seen["successor"]), (&json!("approved"), &Value::Null));
}

/// A caller that asks by the id of its request is told the next id, which it may ask about in turn.
#[tokio::test]
async fn a_caller_without_the_token_is_told_no_other_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ApiKey::generate().expect("randomness");
    let path = folder.path().join("access.yaml");
    let file = format!(
        "version: 1\ncallers:\n  web:\n    keys: [{{ sha256: {} }}]\n    requester: asserted\n    actions: [deploy]\n",
        key.digest()
    );
    std::fs::write(&path, file).expect("written");
    let server = TestServer::with(&[("COUNTERSIGN_ACCESS", &path.display().to_string())]).await;
    let bearer = format!("Bearer {}", key.reveal());
    let send = async |request: axum::http::request::Builder, body: String| {
        let request = request.header("authorization", &bearer).header("content-type", "application/json");
        server.send(request.body(Body::from(body)).expect("a request")).await.json()
    };
    let made = send(Request::post("/api/guard/request"), ask("deploy").to_string()).await;
    let id = made["requestId"].as_str().expect("an id");
    server.press("U1", "deny", id).await;
    server.clock.advance(5 * MINUTE);
    server.press("U2", "re_request", id).await;
    let wait = async |id: &str| {
        send(Request::get(format!("/api/guard/wait?requestId={id}&timeoutSec=0")), String::new()).await
    };
    let seen = wait(id).await;
    let successor = seen["successor"].as_object().expect("a successor");
    assert_eq!(successor.keys().collect::<Vec<_>>(), ["requestId"]);
    let next = successor["requestId"].as_str().expect("an id");
    assert_eq!(wait(next).await["status"], "ready_for_approval");
}

#[tokio::test]
async fn where_people_see_a_request_is_told() {
    // Without Slack nobody sees anything.
    let server = TestServer::new().await;
    let made = server.post("/api/guard/request", &ask("deploy")).await.json();
    assert_eq!((&made["where"], &made["undeliverable"]), (&json!([]), &json!("slack_not_configured")));

    let (server, slack) = with_slack(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let serving = server.run(listener);
    let made = server.post("/api/guard/request", &ask("deploy")).await.json();
    assert_eq!((&made["where"], &made["undeliverable"]), (&json!([{"channel": "C0X"}]), &Value::Null));
    let status = async |made: &Value| {
        let id = made["requestId"].as_str().expect("an id");
        server.get(&format!("/api/guard/status?requestId={id}")).await.json()
    };
    until(&server, || !slack.messages().is_empty()).await;
    until_told(&server, async || status(&made).await["where"][0]["permalink"].is_string()).await;
    let told = status(&made).await;
    let link = told["where"][0]["permalink"].as_str().expect("a link");
    assert!(link.starts_with("https://slack.test/C0X/"), "{told}");

    // Slack refuses the channel: the request says so, and from then on each new one.
    slack.decide(|_, _| Fate::Refused("not_in_channel"));
    let refused = server.post("/api/guard/request", &ask("guarded")).await.json();
    until_told(&server, async || status(&refused).await["undeliverable"] == "not_in_channel").await;
    assert_eq!(status(&refused).await["where"], json!([]));
    // The store knows of the refusal a little before the channel is known to refuse.
    until(&server, || {
        server.app.outgoing.as_ref().is_some_and(|slack| slack.health.refusal_of("C0X").is_some())
    })
    .await;
    let next = server.post("/api/guard/request", &ask("guarded")).await.json();
    assert_eq!((&next["where"], &next["undeliverable"]), (&json!([]), &json!("not_in_channel")));
    server.app.shutdown.cancel();
    serving.await.expect("it ends").expect("well");
}

/// Advances the clock until an answer is so.
async fn until_told(server: &TestServer, is_so: impl AsyncFn() -> bool) {
    let passing = async {
        while !is_so().await {
            server.clock.advance(1);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), passing).await.expect("it comes to pass");
}

#[tokio::test]
async fn an_action_without_a_channel_says_so() {
    const ADMIN: &str = "correct-horse-battery-staple";
    let server = TestServer::with(&[("ADMIN_TOKEN", ADMIN)]).await;
    assert_eq!(server.get("/readyz").await.json()["withoutChannel"], Value::Null);
    let path = server.config.policies.directory.join("policy-set.yaml");
    let text = std::fs::read_to_string(&path).expect("a policy set");
    std::fs::write(&path, text.replace("channel: C0X, ", "")).expect("written");
    let reload = Request::post("/api/admin/reload-policy").header("x-admin-token", ADMIN);
    let reloaded = server.send(reload.body(Body::empty()).expect("a request")).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text);
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (200, &json!("ready")));
    assert_eq!(ready.json()["withoutChannel"], json!(["deploy", "guarded", "once"]));
    let made = server.post("/api/guard/request", &ask("deploy")).await.json();
    assert_eq!((&made["where"], &made["undeliverable"]), (&json!([]), &json!("no_channel")));
    let id = made["requestId"].as_str().expect("an id");
    let status = server.get(&format!("/api/guard/status?requestId={id}")).await.json();
    assert_eq!(status["undeliverable"], "no_channel");
}
