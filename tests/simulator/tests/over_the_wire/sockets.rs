//! Socket Mode.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use slack_simulator::{Delivered, Disconnect, Faults, Outcome, Route, Simulator};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::app::{App, ok, post, slack, within};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Opens a connection, and takes its greeting.
    async fn open(slack: &Simulator) -> Socket {
        let mut socket = Socket::raw(&url(slack).await).await.expect("the ticket is good");
        let hello = socket.receive().await.expect("a greeting");
        assert_eq!(
            (&hello["type"], &hello["connection_info"]["app_id"]),
            (&json!("hello"), &json!("A0COUNTERSIGN"))
        );
        socket
    }

    async fn raw(url: &str) -> Option<Socket> {
        let (stream, _) = within(tokio_tungstenite::connect_async(url)).await.ok()?;
        Some(Socket(stream))
    }

    /// The next message; `None` once the connection has ended.
    async fn receive(&mut self) -> Option<Value> {
        loop {
            match within(self.0.next()).await? {
                Ok(Frame::Text(text)) => return Some(serde_json::from_str(&text).expect("JSON")),
                Ok(Frame::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn acknowledge(&mut self, envelope: &Value, payload: Option<Value>) {
        let mut answer = json!({"envelope_id": envelope["envelope_id"]});
        if let Some(payload) = payload {
            answer["payload"] = payload;
        }
        self.0.send(Frame::text(answer.to_string())).await.expect("it is open");
    }
}

async fn url(slack: &Simulator) -> String {
    ok(slack, "apps.connections.open", &json!({})).await["url"].as_str().expect("a URL").to_owned()
}

#[tokio::test]
async fn a_click_comes_over_the_socket_and_its_answer_goes_back() {
    let slack = slack().await;
    let mut socket = Socket::open(&slack).await;
    let message = post(&slack, "C0APPROVALS").await;
    let alice = slack.person("U0ALICE");

    let (clicked, ()) = tokio::join!(alice.click(&message, "approve"), async {
        let envelope = socket.receive().await.expect("an envelope");
        assert_eq!((&envelope["type"], &envelope["retry_attempt"]), (&json!("interactive"), &Value::Null));
        assert_eq!(envelope["payload"]["actions"][0]["action_id"], "approve");
        socket.acknowledge(&envelope, None).await;
    });
    assert_eq!(clicked.deliveries, [Delivered::Acknowledged { payload: None, attempts: 1, in_time: true }]);

    let trigger = &clicked.payload["trigger_id"];
    let plain = |text: &str| json!({"type": "plain_text", "text": text});
    let input = json!({"type": "input", "block_id": "reason", "optional": true, "label": plain("Why?"),
        "element": {"type": "plain_text_input", "action_id": "value"}});
    let view = json!({"type": "modal", "title": plain("Deny"), "submit": plain("Deny"), "blocks": [input]});
    ok(&slack, "views.open", &json!({"trigger_id": trigger, "view": view})).await;
    let errors = json!({"response_action": "errors", "errors": {"reason": "say more"}});
    let (submitted, ()) = tokio::join!(alice.submit(&[]), async {
        let envelope = socket.receive().await.expect("an envelope");
        assert_eq!(envelope["accepts_response_payload"], true);
        socket.acknowledge(&envelope, Some(errors)).await;
    });
    assert!(matches!(submitted.outcome, Outcome::Errors(_)), "{submitted:?}");
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_over_another_socket() {
    let slack = slack().await;
    let (mut one, mut other) = (Socket::open(&slack).await, Socket::open(&slack).await);
    let message = post(&slack, "C0APPROVALS").await;
    let alice = slack.person("U0ALICE");

    // The socket that gets it first is closed; the other one gets it at once.
    let (clicked, ()) = tokio::join!(alice.click(&message, "approve"), async {
        let (first, last) = tokio::select! {
            envelope = one.receive() => { drop(one); (envelope, &mut other) }
            envelope = other.receive() => { drop(other); (envelope, &mut one) }
        };
        let again = last.receive().await.expect("it comes again");
        assert_eq!(again["envelope_id"], first.expect("an envelope")["envelope_id"]);
        assert_eq!(again["retry_attempt"], 1);
        last.acknowledge(&again, None).await;
    });
    assert_eq!(clicked.deliveries, [Delivered::Acknowledged { payload: None, attempts: 2, in_time: true }]);
    assert_eq!(clicked.warning, None);
}

#[tokio::test]
async fn a_late_acknowledgement_causes_a_warning() {
    let slack = slack().await;
    let mut socket = Socket::open(&slack).await;
    let message = post(&slack, "C0APPROVALS").await;
    let alice = slack.person("U0ALICE");

    let (clicked, ()) = tokio::join!(alice.click(&message, "approve"), async {
        socket.receive().await.expect("an envelope");
        let again = socket.receive().await.expect("it comes again after three seconds");
        socket.acknowledge(&again, None).await;
    });

    assert_eq!(clicked.deliveries, [Delivered::Acknowledged { payload: None, attempts: 2, in_time: false }]);
    assert!(clicked.warning.is_some());
}

#[tokio::test]
async fn a_ticket_is_good_once_and_ten_sockets_are_the_most() {
    let slack = slack().await;
    let first = url(&slack).await;
    let mut sockets = vec![Socket::raw(&first).await.expect("the ticket is good")];
    assert!(Socket::raw(&first).await.is_none(), "the ticket is used up");
    assert!(Socket::raw(&first.replace("ticket=", "ticket=x")).await.is_none(), "no such ticket");
    for _ in 1..10 {
        sockets.push(Socket::open(&slack).await);
    }
    let mut eleventh = Socket::raw(&url(&slack).await).await.expect("the ticket is good");
    let message = eleventh.receive().await.expect("a message");
    assert_eq!((&message["type"], &message["reason"]), (&json!("disconnect"), &json!("too_many_websockets")));
    assert_eq!(eleventh.receive().await, None);
    assert_eq!(slack.sockets(), 10);
    drop(sockets);
    within(slack.until(|slack| (slack.sockets() == 0).then_some(()))).await;
}

#[tokio::test]
async fn slack_ends_connections() {
    let slack = slack().await;
    let mut socket = Socket::open(&slack).await;
    slack.disconnect_sockets(Disconnect::Warning);
    assert_eq!(socket.receive().await.expect("a warning")["reason"], "warning");
    assert_eq!(slack.sockets(), 1);
    slack.disconnect_sockets(Disconnect::RefreshRequested);
    assert_eq!(socket.receive().await.expect("a notice")["reason"], "refresh_requested");
    assert_eq!(socket.receive().await, None);

    let mut socket = Socket::open(&slack).await;
    slack.restart();
    assert_eq!(socket.receive().await, None);

    let mut socket = Socket::open(&slack).await;
    let ticket = url(&slack).await;
    slack.set_faults(Faults::down());
    assert_eq!(socket.receive().await, None);
    assert!(Socket::raw(&ticket).await.is_none(), "nobody gets in while it is down");
}

#[tokio::test]
async fn a_click_can_come_both_ways_at_once() {
    let slack = slack().await;
    let app = App::start(slack.signing_secret()).await;
    slack.set_gateway(&app.url);
    slack.set_route(Route::Both);
    let mut socket = Socket::open(&slack).await;
    let message = post(&slack, "C0APPROVALS").await;
    let alice = slack.person("U0ALICE");

    let (clicked, envelope) = tokio::join!(alice.click(&message, "approve"), async {
        let envelope = socket.receive().await.expect("an envelope");
        socket.acknowledge(&envelope, None).await;
        envelope
    });

    assert_eq!(clicked.deliveries.len(), 2);
    assert_eq!((app.seen(), &envelope["payload"]), (vec![clicked.payload.clone()], &clicked.payload));
}
