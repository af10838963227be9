//! Presses that are delivered twice, that the store may or may not have stored, and that cannot be read.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use countersign_slack::fake::{FakeSlack, Fate};
use countersign_slack::{Handler as _, parse_payload};
use countersign_store::faulty::Fault;
use serde_json::Map;

use super::delivery::with_slack;
use super::*;
use crate::interactions::{SocketMode, apply_recorded};

/// A gateway and its Slack, and a request.
struct Setup {
    server: TestServer,
    slack: FakeSlack,
    id: String,
    token: String,
}

impl Setup {
    async fn new(action: &str) -> Setup {
        let (server, slack) = with_slack(&[]).await;
        let (id, token) = server.open(action).await;
        Setup { server, slack, id, token }
    }

    fn press(&self, user: &str, action_id: &str) -> Value {
        let mut press = press(user, action_id, &self.id);
        press["channel"] = json!({"id": "C0X"});
        press
    }

    /// Delivers it over HTTP, signed anew each time.
    async fn deliver(&self, payload: &Value) -> Value {
        self.server.clock.advance(1000);
        let answer = self.server.send(self.server.signed(payload)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// Delivers it over Socket Mode; `None` if it is not acknowledged.
    async fn deliver_by_socket(&self, payload: &Value) -> Option<Map<String, Value>> {
        let interaction = parse_payload(payload.to_string().as_bytes());
        SocketMode(Arc::clone(&self.server.app)).handle(interaction).await
    }

    async fn ephemerals(&self) -> Vec<(String, String)> {
        delivery::ephemerals(&self.server, &self.slack).await
    }

    /// Delivers it while the store takes nothing, so that it is kept.
    async fn keep(&self, payload: &Value) {
        self.server.faults.set(Fault::NotStored);
        assert_eq!(self.deliver(payload).await["recorded"], true);
        self.server.faults.set(Fault::None);
    }

    /// Applies what is kept, until so many presses are left.
    async fn apply(&self, left: usize) {
        let applying = tokio::spawn(apply_recorded(Arc::clone(&self.server.app)));
        let applied = async {
            while self.server.app.spool.as_ref().is_none_or(|spool| spool.waiting() > left) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), applied).await.expect("they are applied");
        applying.abort();
    }

    /// The acts that were refused, and why.
    async fn refused(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let entries = self.server.audited("refused").await;
        entries.iter().map(|entry| (text(&entry["act"]), text(&entry["code"]))).collect()
    }

    async fn approvers(&self) -> Value {
        self.server.look(&self.token).await["approvers"].clone()
    }
}

#[tokio::test]
async fn a_press_that_counted_is_answered_alike_each_time() {
    let setup = Setup::new("deploy").await;
    let approve = setup.press("U1", "approve");
    let first = setup.deliver(&approve).await;
    assert_eq!((&first["ok"], &first["approvers"]), (&json!(true), &json!(["U1"])));
    assert_eq!(setup.deliver(&approve).await, first);
    assert_eq!(Value::Object(setup.deliver_by_socket(&approve).await.expect("it is acknowledged")), first);
    // It ends the request: of a later press that would be refused.
    let last = setup.press("U2", "approve");
    let ended = setup.deliver(&last).await;
    assert_eq!(ended["status"], "approved");
    for again in [&last, &approve] {
        assert_eq!(setup.deliver(again).await, ended);
    }
    // A dialog closes each time, and the parameters that it changed are no reason against it.
    let (id, _) = setup.server.open("deploy").await;
    let mut edit = modal("U1", &id, &[("replicas", "5")]);
    edit["trigger_id"] = json!("edit");
    let edited = setup.deliver(&edit).await;
    assert_eq!((&edited["ok"], &edited["response_action"]), (&json!(true), &json!("clear")));
    assert_eq!(setup.deliver(&edit).await, edited);
    assert_eq!(setup.server.audited("approval_recorded").await.len(), 3);
    assert!(setup.ephemerals().await.is_empty(), "nobody is refused anything");
    assert!(setup.server.metric(r#"security_events_total{type="replay"} 0"#).await);
}

#[tokio::test]
async fn a_press_that_was_refused_is_audited_and_told_once_and_does_not_count_later() {
    let setup = Setup::new("guarded").await;
    let early = setup.press("U1", "approve");
    let first = setup.deliver(&early).await;
    assert_eq!(first["error"], "refused");
    assert_eq!(setup.deliver(&early).await, first);
    setup.deliver_by_socket(&early).await.expect("it is acknowledged");
    assert_eq!(setup.server.audited("refused").await.len(), 1);
    assert_eq!(setup.ephemerals().await.len(), 1);

    setup.deliver(&setup.press("U7", "persona_ack:security")).await;
    let late = setup.deliver(&early).await;
    assert_eq!((&late["ok"], &late["error"]), (&json!(false), &json!("duplicate_delivery")));
    let [_, (user, text)] = setup.ephemerals().await.try_into().expect("two messages");
    assert_eq!(user, "U1");
    assert!(text.contains("delivered this again after it was refused"), "{text}");
    assert_eq!(setup.approvers().await, json!([]));
    assert_eq!(setup.deliver(&setup.press("U1", "approve")).await["status"], "approved");
}

#[tokio::test]
async fn a_request_is_made_again_once() {
    let setup = Setup::new("deploy").await;
    setup.deliver(&setup.press("U1", "deny")).await;
    let mut deny =
        json!({"type": "view_submission", "user": {"id": "U1", "team_id": TEAM}, "trigger_id": "deny"});
    let about = json!({"request_id": setup.id}).to_string();
    deny["view"] = json!({"callback_id": "deny_submit", "private_metadata": about});
    assert_eq!(setup.deliver(&deny).await["status"], "denied");
    setup.server.clock.advance(5 * 60_000);
    let again = setup.press("U1", "re_request");
    let made = setup.deliver(&again).await;
    assert_eq!(made["ok"], true, "{made}");
    assert_ne!(made["requestId"], setup.id.as_str());
    assert_eq!(setup.deliver(&again).await, made);
    assert_eq!(setup.deliver(&deny).await["status"], "denied");
    let ephemerals = setup.ephemerals().await;
    assert_eq!(ephemerals.len(), 1, "{ephemerals:?}");
    assert!(ephemerals[0].1.contains("You asked for"), "{ephemerals:?}");
}

/// Slack opens one dialog for a press. What is delivered again neither opens another one nor denies without asking why.
#[tokio::test]
async fn a_press_on_deny_that_is_delivered_again_denies_nothing() {
    let setup = Setup::new("deploy").await;
    for refusal in ["exchanged_trigger_id", "expired_trigger_id"] {
        let deny = setup.press("U1", "deny");
        assert_eq!(setup.deliver(&deny).await["ok"], true);
        setup.slack.decide(move |method, _| match method {
            "views.open" => Fate::Refused(refusal),
            _ => Fate::Done,
        });
        let opened = refusal == "exchanged_trigger_id";
        assert_eq!(setup.deliver(&deny).await["ok"], opened, "{refusal}");
        assert_eq!(setup.server.look(&setup.token).await["status"], "ready_for_approval", "{refusal}");
        assert_eq!(setup.ephemerals().await.len(), usize::from(!opened), "{refusal}");
        setup.slack.decide(|_, _| Fate::Done);
    }
}

/// The store answers with an error. If the write happened all the same, its nonce says so, and the press is answered as one
/// that counted; else it is kept, and the person reads that. If it cannot be kept either, the person reads that it is not
/// known what was stored. The next delivery is carried out, once.
#[tokio::test]
async fn a_press_that_the_store_answers_with_an_error_counts_once() {
    let rows = [
        (Fault::Stored, true, None),
        (Fault::NotStored, true, Some("is recorded")),
        (Fault::NotStored, false, Some("not known whether this was stored")),
    ];
    for (fault, can_be_kept, told) in rows {
        let setup = Setup::new("deploy").await;
        if !can_be_kept {
            setup.server.lose_spool();
        }
        let approve = setup.press("U1", "approve");
        setup.server.faults.set(fault);
        for _ in 0..2 {
            let answer = setup.deliver(&approve).await;
            assert_eq!(answer["ok"], fault == Fault::Stored || can_be_kept, "{fault:?}: {answer}");
            assert_eq!(
                answer["recorded"] == true,
                fault == Fault::NotStored && can_be_kept,
                "{fault:?}: {answer}"
            );
            assert!(answer["ok"] == true || answer["error"] == "store_unavailable", "{fault:?}: {answer}");
        }
        let ephemerals = setup.ephemerals().await;
        assert_eq!(ephemerals.len(), usize::from(told.is_some()), "{fault:?}: {ephemerals:?}");
        let says =
            |(user, text): &(String, String)| user == "U1" && told.is_some_and(|words| text.contains(words));
        assert!(ephemerals.iter().all(says), "{fault:?}: {ephemerals:?}");
        setup.server.faults.set(Fault::None);
        let counted = setup.deliver(&approve).await;
        assert_eq!((&counted["ok"], &counted["approvers"]), (&json!(true), &json!(["U1"])), "{fault:?}");
        assert_eq!(setup.server.audited("approval_recorded").await.len(), 1, "{fault:?}");
        assert_eq!(setup.ephemerals().await.len(), usize::from(told.is_some()), "{fault:?}");
    }
}

#[tokio::test]
async fn over_socket_mode_nothing_is_acknowledged_before_it_is_durable() {
    let setup = Setup::new("deploy").await;
    let kept = setup.press("U2", "approve");
    setup.server.faults.set(Fault::NotStored);
    let answer = setup.deliver_by_socket(&kept).await.expect("it is on disk, and acknowledged");
    assert_eq!(answer["recorded"], true, "{answer:?}");
    setup.server.lose_spool();
    let approve = setup.press("U1", "approve");
    assert_eq!(setup.deliver_by_socket(&approve).await, None, "Slack delivers it again");
    assert_eq!(setup.approvers().await, json!([]));
    setup.server.faults.set(Fault::None);
    let counted = setup.deliver_by_socket(&approve).await.expect("it is acknowledged");
    assert_eq!((&counted["ok"], &counted["approvers"]), (&json!(true), &json!(["U1"])));

    // A write that takes long.
    setup.server.faults.set(Fault::Held);
    let last = setup.press("U3", "approve");
    let mut delivery = pin!(setup.deliver_by_socket(&last));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(delivery.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(delivery.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    tokio::time::resume();
    setup.server.faults.set(Fault::None);
    let counted = delivery.await.expect("it is acknowledged");
    assert_eq!(counted["status"], "approved");
}

fn refusals(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(act, code)| ((*act).to_owned(), (*code).to_owned())).collect()
}

/// The store is there again, and the first press is not applied yet.
#[tokio::test]
async fn what_a_person_does_is_kept_behind_what_is_kept_of_them() {
    let setup = Setup::new("deploy").await;
    setup.keep(&setup.press("U1", "approve")).await;
    for action in ["withdraw", "approve"] {
        assert_eq!(setup.deliver(&setup.press("U1", action)).await["recorded"], true, "{action}");
    }
    let other = setup.deliver(&setup.press("U2", "approve")).await;
    assert_eq!(other["approvers"], json!(["U2"]), "nobody waits for another person");
    setup.apply(0).await;
    // What was taken back does not count for a moment; what was pressed last does.
    assert_eq!(
        setup.refused().await,
        refusals(&[("approve", "taken_back"), ("withdraw", "nothing_to_withdraw")])
    );
    let ended = setup.server.look(&setup.token).await;
    assert_eq!((&ended["status"], &ended["approvers"]), (&json!("approved"), &json!(["U2", "U1"])));
    let told = setup.ephemerals().await;
    let says = |words: &str| told.iter().filter(|(user, text)| user == "U1" && text.contains(words)).count();
    assert_eq!((says("is recorded"), says("after you had pressed"), told.len()), (3, 1, 5), "{told:?}");
}

/// A denial ends the request, so it need not wait.
#[tokio::test]
async fn a_denial_does_not_wait_for_what_is_kept() {
    let setup = Setup::new("deploy").await;
    setup.keep(&setup.press("U1", "approve")).await;
    let mut deny = setup.press("U1", "deny");
    deny["state"] = json!({"values": {"reason": {"value": {"value": "wrong day"}}}});
    assert_eq!(setup.deliver(&deny).await["status"], "denied");
    setup.apply(0).await;
    assert_eq!(setup.approvers().await, json!([]));
}

/// Another gateway over the same store finds nothing to take back, since the approval is kept in this one.
#[tokio::test]
async fn what_is_kept_does_not_count_if_it_was_taken_back_elsewhere() {
    use countersign_core::lifecycle::Intent;
    let setup = Setup::new("deploy").await;
    let id = setup.id.parse().expect("an id");
    setup.keep(&setup.press("U1", "approve")).await;
    setup.keep(&setup.press("U2", "approve")).await;
    setup.server.clock.advance(1000);
    let gateway = &setup.server.app.gateway;
    let nothing = gateway.act(id, "U1", &Intent::Withdraw).await.expect_err("nothing counts yet");
    assert_eq!(nothing.code(), "nothing_to_withdraw");
    setup.keep(&setup.press("U3", "withdraw")).await;
    setup.apply(0).await;
    assert_eq!(setup.approvers().await, json!(["U2"]));
    let refused = setup.refused().await;
    assert!(refused.contains(&("approve".into(), "taken_back".into())), "{refused:?}");

    // What they press after that counts, also if it is kept.
    setup.keep(&setup.press("U1", "approve")).await;
    setup.apply(0).await;
    assert_eq!(setup.server.look(&setup.token).await["status"], "approved");
}

/// The disk does not give back one press.
#[tokio::test]
async fn a_press_that_cannot_be_read_keeps_no_other_from_being_applied() {
    let setup = Setup::new("deploy").await;
    setup.keep(&setup.press("U1", "approve")).await;
    let folder = setup.server.folder.path().join("store.db.spool");
    let file =
        std::fs::read_dir(folder).expect("it is there").next().expect("one press").expect("readable").path();
    std::fs::remove_file(&file).expect("it is there");
    std::os::unix::fs::symlink(&file, &file).expect("it is gone");
    setup.keep(&setup.press("U2", "approve")).await;
    setup.apply(1).await;
    assert_eq!(setup.approvers().await, json!(["U2"]));
    let ready = setup.server.get("/readyz").await.json();
    assert_eq!(ready["degraded"], json!(["presses_spooled"]));
    // Nor does it keep that person from acting.
    assert_eq!(setup.deliver(&setup.press("U1", "approve")).await["status"], "approved");
}

/// The write of the first takes long; the second does not overtake it.
#[tokio::test]
async fn presses_of_a_person_are_handled_in_turn() {
    let setup = Setup::new("deploy").await;
    setup.server.faults.set(Fault::Held);
    let [approve, withdraw] = ["approve", "withdraw"].map(|action| setup.press("U1", action));
    let handled = async {
        let release = async {
            setup.server.get("/healthz").await;
            setup.server.faults.set(Fault::None);
        };
        tokio::join!(setup.deliver_by_socket(&approve), setup.deliver_by_socket(&withdraw), release)
    };
    let (approved, withdrawn, ()) = handled.await;
    assert_eq!(approved.expect("it is acknowledged")["approvers"], json!(["U1"]));
    assert_eq!(withdrawn.expect("it is acknowledged")["approvers"], json!([]));
}

#[tokio::test]
async fn over_http_a_press_is_acknowledged_while_its_write_takes_long_and_counts_afterwards() {
    let setup = Setup::new("deploy").await;
    setup.server.faults.set(Fault::Held);
    let approve = setup.press("U1", "approve");
    tokio::time::pause();
    assert_eq!(setup.deliver(&approve).await, json!({}));
    tokio::time::resume();
    setup.server.faults.set(Fault::None);
    setup.server.app.background.close();
    setup.server.app.background.wait().await;
    assert_eq!(setup.approvers().await, json!(["U1"]));
}

/// Whoever presses what cannot be read is told, in words of ours alone.
#[tokio::test]
async fn who_presses_what_cannot_be_read_is_told() {
    let setup = Setup::new("deploy").await;
    let changed = |pointer: &str, value: Value| {
        let mut press = setup.press("U1", "approve");
        *press.pointer_mut(pointer).expect("it is there") = value;
        press
    };
    let hostile = "<!channel> *x* `y` <https://evil.example|here>";
    let rows = [
        (changed("/actions/0/action_id", json!(hostile)), "does not know this button", "unknown_interaction"),
        (changed("/type", json!(hostile)), "does not know this button", "unknown_interaction"),
        (changed("/actions", json!([])), "does not know this button", "unknown_interaction"),
        (changed("/actions/0/value", json!(hostile)), "There is no such request", "not_found"),
        (changed("/actions/0/value", json!(null)), "There is no such request", "not_found"),
        (
            changed("/actions/0/value", json!("req_00000000000000000000000000")),
            "There is no such request",
            "not_found",
        ),
        (
            changed("/actions/0", json!({"action_id": "approve", "value": setup.id, "block_id": "decide:7"})),
            "does not say which parameters",
            "invalid_hash",
        ),
        (changed("/actions", json!(hostile)), "the payload cannot be read", "invalid_payload"),
    ];
    for (number, (payload, words, code)) in rows.iter().enumerate() {
        let answer = setup.deliver(payload).await;
        assert_eq!((&answer["ok"], &answer["error"]), (&json!(false), &json!(code)), "{payload}");
        let ephemerals = setup.ephemerals().await;
        assert_eq!(ephemerals.len(), number + 1, "{payload}");
        let (user, text) = &ephemerals[number];
        assert!(user == "U1" && text.contains(words), "{payload}: {text}");
        assert!(!text.contains("evil") && !text.contains("channel"), "{text}");
    }
    for (code, count) in
        [("unknown_interaction", 3), ("not_found", 3), ("invalid_hash", 1), ("invalid_payload", 1)]
    {
        let line = format!("slack_unreadable_interactions_total{{code=\"{code}\"}} {count}");
        assert!(setup.server.metric(&line).await, "{line}");
    }
    assert_eq!(setup.approvers().await, json!([]));
}

/// A dialog has no channel; one of no known request shows in itself what is wrong.
#[tokio::test]
async fn who_submits_a_dialog_that_cannot_be_read_reads_so_in_it() {
    let setup = Setup::new("deploy").await;
    let submit = |callback: &str, about: Value| {
        let view = json!({"id": "V1", "callback_id": callback, "private_metadata": about.to_string()});
        json!({"type": "view_submission", "user": {"id": "U1", "team_id": TEAM}, "trigger_id": callback, "view": view})
    };
    let unknown = "req_00000000000000000000000000";
    let page = json!({"request_id": unknown, "payload_hash": Digest::of(b"x"), "page": 1, "pages": 2});
    for (payload, words) in [
        (submit("other", json!({})), "does not know this button or dialog"),
        (submit("override_submit", json!({"request_id": "<!here>"})), "There is no such request"),
        (submit("review_page", page.clone()), "There is no such request"),
        (submit("reading_page", page), "There is no such request"),
    ] {
        let answer = setup.deliver(&payload).await;
        assert_eq!(
            (&answer["ok"], &answer["response_action"]),
            (&json!(false), &json!("update")),
            "{payload}"
        );
        let shown = answer["view"]["blocks"].to_string();
        assert!(shown.contains(words) && !shown.contains("here>"), "{shown}");
    }
    // A button in such a dialog: its answer shows nothing, so the dialog is replaced.
    let mut press = press("U1", "persona_ack:security", "no id");
    press["view"] = json!({"id": "V7", "callback_id": "review_page", "private_metadata": "{}"});
    setup.deliver(&press).await;
    let [call] = setup.slack.calls().try_into().expect("one call");
    assert_eq!((call.method.as_str(), &call.body["view_id"]), ("views.update", &json!("V7")));
    assert!(call.body["view"]["blocks"].to_string().contains("There is no such request"), "{:?}", call.body);
}
