//! Modals: opened with the trigger of a click, filled in, and answered.

use serde_json::{Value, json};
use slack_simulator::{Entry, Outcome, Simulator, View};

use crate::app::{App, call, ok, post, slack, within};

fn view(title: &str) -> Value {
    let plain = |text: &str| json!({"type": "plain_text", "text": text});
    json!({
        "type": "modal",
        "callback_id": "override_submit",
        "private_metadata": "{\"request_id\":\"req_1\"}",
        "title": plain(title),
        "submit": plain("Approve"),
        "blocks": [{
            "type": "input",
            "block_id": "ov_replicas",
            "label": plain("replicas"),
            "element": {"type": "number_input", "action_id": "value", "is_decimal_allowed": false, "initial_value": "2"},
        }],
    })
}

/// Clicks, and opens a modal with the click's trigger.
async fn open(slack: &Simulator) -> View {
    let message = post(slack, "C0APPROVALS").await;
    let clicked = slack.person("U0ALICE").click(&message, "approve").await;
    let trigger = &clicked.payload["trigger_id"];
    ok(slack, "views.open", &json!({"trigger_id": trigger, "view": view("Edit")})).await;
    let again = call(slack, "views.open", &json!({"trigger_id": trigger, "view": view("Edit")})).await;
    assert_eq!(again.expect("an answer").json()["error"], "exchanged_trigger_id");
    slack.person("U0ALICE").view().expect("it is open")
}

#[tokio::test]
async fn what_is_filled_in_reaches_the_app() {
    let slack = slack().await;
    let app = App::start(slack.signing_secret()).await;
    slack.set_gateway(&app.url);
    let opened = open(&slack).await;
    let alice = slack.person("U0ALICE");

    let wrong = alice.submit(&[("ov_replicas", "two".into())]).await;
    assert!(
        matches!(&wrong.outcome, Outcome::Incomplete(errors) if errors.contains_key("ov_replicas")),
        "{wrong:?}"
    );
    assert_eq!(app.seen().len(), 1, "nothing but the click was sent");

    let right = alice.submit(&[("ov_replicas", "5".into())]).await;
    assert_eq!(right.outcome, Outcome::Closed);
    assert_eq!(alice.views(), []);
    let payload = &app.seen()[1];
    assert_eq!(payload["type"], "view_submission");
    let view = &payload["view"];
    assert_eq!((&view["id"], &view["hash"]), (&json!(opened.id), &json!(opened.hash)));
    assert_eq!(view["callback_id"], "override_submit");
    assert_eq!(view["private_metadata"], "{\"request_id\":\"req_1\"}");
    assert_eq!(
        view["state"]["values"],
        json!({"ov_replicas": {"value": {"type": "number_input", "value": "5"}}})
    );
}

#[tokio::test]
async fn the_answer_decides_what_is_shown_then() {
    let errors = |block: &str| json!({"response_action": "errors", "errors": {block: "no"}}).to_string();
    let with_view = |action: &str| json!({"response_action": action, "view": view("Next")}).to_string();
    let rows = [
        (200, String::new(), "closed", vec![]),
        (200, "{}".into(), "closed", vec![]),
        (200, json!({"response_action": "clear"}).to_string(), "cleared", vec![]),
        (200, errors("ov_replicas"), "errors", vec!["Edit"]),
        (200, errors("ov_other"), "trouble", vec!["Edit"]),
        (200, "not JSON".into(), "trouble", vec!["Edit"]),
        (500, String::new(), "trouble", vec!["Edit"]),
        (200, with_view("update"), "updated", vec!["Next"]),
        (200, with_view("push"), "pushed", vec!["Edit", "Next"]),
    ];
    for (status, body, wanted, titles) in rows {
        let slack = slack().await;
        let app = App::start(slack.signing_secret()).await;
        slack.set_gateway(&app.url);
        open(&slack).await;
        let alice = slack.person("U0ALICE");
        app.answers(status, &body);

        let submitted = alice.submit(&[]).await;

        let outcome = match submitted.outcome {
            Outcome::Closed => "closed",
            Outcome::Cleared => "cleared",
            Outcome::Incomplete(_) => "incomplete",
            Outcome::Errors(_) => "errors",
            Outcome::Updated(_) => "updated",
            Outcome::Pushed(_) => "pushed",
            Outcome::Trouble(_) => "trouble",
        };
        assert_eq!(outcome, wanted, "{status} {body}");
        let views = alice.views();
        assert_eq!(views.iter().map(View::title).collect::<Vec<_>>(), titles, "{status} {body}");
        let troubled = views.iter().any(|view| view.trouble.is_some());
        assert_eq!(troubled, wanted == "trouble", "{status} {body}");
    }
}

#[tokio::test]
async fn an_answer_after_three_seconds_is_none() {
    let slack = slack().await;
    let app = App::start(slack.signing_secret()).await;
    slack.set_gateway(&app.url);
    open(&slack).await;
    app.never_answers();
    let alice = slack.person("U0ALICE");

    let submitted = within(alice.submit(&[("ov_replicas", Entry::from("3"))])).await;

    assert!(matches!(submitted.outcome, Outcome::Trouble(_)), "{submitted:?}");
    let view = alice.view().expect("it stays open");
    assert_eq!(view.trouble.as_deref(), Some("We had some trouble connecting. Try again?"));
    assert_eq!(view.entries["ov_replicas"], Entry::from("3"), "what was filled in stays");
}
