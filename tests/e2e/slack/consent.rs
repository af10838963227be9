//! Nobody approves what they could not read: a message that does not show everything leads through a review, and the
//! server says whether an approval counts.

use countersign_tests::{Ask, Call, Click, Home, Receipt, Slack, within};
use serde_json::{Value, json};
use slack_simulator::{Entry, Faults, Message, Outcome, View};

use super::{Setup, is_late};
use crate::ledger::Ledger;

const ACTIONS: &str = "
  run:
    description: Run a command
    timeout: 10m
    redact: { show: [command, note] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
      - use: override-guard
        with: { keys: [note], max_keys: 1, max_chars: 3000 }
  run_on_trust:
    description: Run a command
    timeout: 10m
    consent: summary
    redact: { show: [command] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
  run_unseen:
    description: Run a command
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
";

const GATED: &str = "
  gated:
    description: Run a command
    timeout: 10m
    redact: { show: [command] }
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC] } }
      - use: quorum
        with: { approvers: [U0SEC] }
";

const END: &str = "rm -rf /data";
const NOT_COUNTED: &str = "This did not count";

/// A command of 8,000 characters; what it does is at its end.
fn long_command() -> String {
    let harmless = "echo all is well; ".repeat(400);
    let command = format!("{harmless}{:width$}{END}", "", width = 8_000 - harmless.len() - END.len());
    assert_eq!(command.len(), 8_000);
    command
}

async fn ask(setup: &Setup, action: &str, params: Value) -> Receipt {
    setup.create(&Ask::new(action).params(params)).await.expect("it is admitted")
}

/// Presses Review, and reads page after page up to the last one, which stays open. Returns what the pages show.
pub(crate) async fn read(setup: &Setup, user: &str, message: &Message) -> Vec<String> {
    pages(setup, user, message, "review").await
}

/// Presses this button, and turns page after page up to the last one, which stays open. Returns what the pages show.
async fn pages(setup: &Setup, user: &str, message: &Message, button: &str) -> Vec<String> {
    let person = setup.slack.person(user);
    'from_the_first: loop {
        person.click(message, button).await;
        let mut view = setup.slack.asked(user).await;
        let mut pages = vec![view.shown()];
        while submit_label(&view) == Some("Next page") {
            let submitted = person.submit(&[]).await;
            if is_late(&submitted) {
                continue 'from_the_first;
            }
            let Outcome::Updated(next) = submitted.outcome else { panic!("{submitted:?}") };
            pages.push(next.shown());
            view = next;
        }
        return pages;
    }
}

/// Submits the modal on top, as it is, for it to close with all below it.
async fn submit_and_close(setup: &Setup, user: &str) {
    let submitted = setup.slack.person(user).submit(&[]).await;
    assert!(submitted.outcome == Outcome::Cleared || is_late(&submitted), "{submitted:?}");
}

fn submit_label(view: &View) -> Option<&str> {
    view.view["submit"]["text"].as_str()
}

/// A press of Approve in a block with this id, and where the person would read that it did not count.
fn approve_in(user: &str, block_id: Option<&str>, request: &str) -> Click {
    let mut action = json!({"action_id": "approve", "value": request});
    if let Some(block_id) = block_id {
        action["block_id"] = block_id.into();
    }
    let who = json!({"id": user, "team_id": "T0ACME"});
    let channel = json!({"id": "C0PRIVATE"});
    Click::raw(json!({"type": "block_actions", "user": who, "channel": channel, "actions": [action]}))
}

/// A submission of a review's page that says this of itself.
fn page_of(user: &str, about: &Value) -> Click {
    let view = json!({"callback_id": "review_page", "private_metadata": about.to_string()});
    let who = json!({"id": user, "team_id": "T0ACME"});
    Click::raw(json!({"type": "view_submission", "user": who, "view": view}))
}

/// Waits until these have approved.
async fn approved_by(setup: &Setup, request: &Receipt, people: Value) {
    let counted = async {
        while approvers(setup, request).await != people {
            tokio::task::yield_now().await;
        }
    };
    within(&format!("{people} to have approved"), counted).await;
}

async fn approvers(setup: &Setup, request: &Receipt) -> Value {
    setup.look(&request.token).await["approvers"].clone()
}

#[tokio::test]
async fn a_command_that_does_not_fit_is_approved_by_reading_it_alone() {
    let setup = Setup::open(ACTIONS).await;
    let request = ask(&setup, "run", json!({"command": long_command()})).await;
    let message = setup.shows(&request, "Not all of this request is shown here").await;
    assert!(!message.shown().contains(END), "the message has room for all of it");
    assert_eq!(message.actions(), ["review", "deny"]);

    // Whatever is pressed or submitted elsewhere does not count, and whoever did it is told.
    let payload = setup.look(&request.token).await["payloadHash"].as_str().expect("a hash").to_owned();
    let decide = format!("decide:{payload}");
    for block_id in [None, Some("approval_actions"), Some(&*decide), Some("YPk3")] {
        let press = approve_in("U0ALICE", block_id, &request.id);
        assert_eq!(setup.click_refused(&press).await, "not_reviewed", "{block_id:?}");
        setup.ephemeral("U0ALICE", NOT_COUNTED).await;
        setup.slack.person("U0ALICE").dismiss_ephemerals();
    }
    let edit = Click::edit("U0ALICE", &request.id, &[("note", "fine")]);
    assert_eq!(setup.click_refused(&edit).await, "not_reviewed");
    assert_eq!(
        setup.click_refused(&Click::button("approve_edit", "U0ALICE", &request.id)).await,
        "not_reviewed"
    );
    assert_eq!(approvers(&setup, &request).await, json!([]));

    let pages = read(&setup, "U0ALICE", &message).await;
    assert!(pages.concat().contains(END), "{pages:?}");
    assert_eq!(approvers(&setup, &request).await, json!([]), "reading alone approves nothing");
    assert_eq!(submit_label(&setup.slack.asked("U0ALICE").await), Some("Approve"));
    submit_and_close(&setup, "U0ALICE").await;
    approved_by(&setup, &request, json!(["U0ALICE"])).await;

    let message = setup.shows(&request, "Waiting for 1 more approval").await;
    read(&setup, "U0BOB", &message).await;
    setup.slack.person("U0BOB").submit(&[]).await;
    setup.shows(&request, "Approved").await;
    assert_eq!(setup.look(&request.token).await["payloadHash"], payload.as_str());
}

#[tokio::test]
async fn pages_lead_on_to_each_other_and_only_the_last_one_approves() {
    let setup = Setup::open(ACTIONS).await;
    let command = format!("{}{END}", "x".repeat(100_000));
    let request = ask(&setup, "run", json!({"command": command})).await;
    let message = setup.shows(&request, "Press *Review*").await;
    let pages = read(&setup, "U0ALICE", &message).await;
    assert!(pages.len() > 4 && pages.len() <= 12, "{} pages", pages.len());
    for (n, page) in pages.iter().enumerate() {
        assert!(page.contains(&format!("Page {} of {}", n + 1, pages.len())), "{page}");
        assert_eq!(page.contains(END), n + 1 == pages.len(), "page {}", n + 1);
    }
    setup.slack.person("U0ALICE").close().await;

    // Pages that nobody was led to.
    let payload = setup.look(&request.token).await["payloadHash"].clone();
    let about = |page: usize, of: usize| json!({"request_id": request.id, "payload_hash": payload, "page": page, "pages": of});
    for (about, code) in [
        (about(1, 1), "not_reviewed"),
        (about(pages.len() + 1, pages.len() + 1), "not_reviewed"),
        (about(1, 2), "parameters_changed"),
        (about(3, 2), "unknown_interaction"),
    ] {
        assert_eq!(setup.click_refused(&page_of("U0ALICE", &about)).await, code, "{about}");
    }
    assert_eq!(approvers(&setup, &request).await, json!([]));
    // Whoever may not approve can read, and is told at the end.
    read(&setup, "U0MALLORY", &message).await;
    setup.slack.person("U0MALLORY").submit(&[]).await;
    setup.ephemeral("U0MALLORY", "not entitled").await;
    assert_eq!(approvers(&setup, &request).await, json!([]));
}

#[tokio::test]
async fn what_slack_refuses_to_show_is_not_approved_unseen() {
    let setup = Setup::open(ACTIONS).await;
    setup.slack.set_faults(Faults { invalid_blocks_with: Some(END.to_owned()), ..Faults::none() });
    let request = ask(&setup, "run", json!({"command": END})).await;
    let message = setup.shows(&request, "Slack did not take the whole of this request").await;
    assert!(!message.shown().contains(END));
    assert_eq!(message.actions(), ["review", "deny"]);
    for block_id in [None, Some("approval_actions")] {
        let press = approve_in("U0ALICE", block_id, &request.id);
        assert_eq!(setup.click_refused(&press).await, "not_reviewed", "{block_id:?}");
        setup.ephemeral("U0ALICE", NOT_COUNTED).await;
        setup.slack.person("U0ALICE").dismiss_ephemerals();
    }
    let edit = Click::edit("U0ALICE", &request.id, &[("note", "fine")]);
    assert_eq!(setup.click_refused(&edit).await, "not_reviewed");
    assert_eq!(approvers(&setup, &request).await, json!([]));

    let pages = read(&setup, "U0ALICE", &message).await;
    assert!(pages.concat().contains(END), "{pages:?}");
    setup.slack.person("U0ALICE").submit(&[]).await;
    approved_by(&setup, &request, json!(["U0ALICE"])).await;
}

#[tokio::test]
async fn a_button_that_is_still_on_a_screen_does_not_count_once_slack_refused_the_message() {
    let setup = Setup::open(ACTIONS).await;
    let request = ask(&setup, "run", json!({"command": END})).await;
    let old = setup.shows(&request, "Waiting for 2 approvals").await;
    assert_eq!(old.actions(), ["approve", "approve_edit", "deny"]);
    setup.slack.set_faults(Faults { invalid_blocks_with: Some(END.to_owned()), ..Faults::none() });
    setup.slack.person("U0ALICE").click(&old, "approve").await;
    setup.shows(&request, "Slack did not take the whole of this request").await;

    let bob = setup.slack.person("U0BOB");
    for button in ["approve", "approve_edit"] {
        bob.click(&old, button).await;
        setup.ephemeral("U0BOB", NOT_COUNTED).await;
        bob.dismiss_ephemerals();
    }
    assert!(bob.view().is_none(), "a dialog opened");
    approved_by(&setup, &request, json!(["U0ALICE"])).await;

    // Slack takes the next version whole, and then its button counts again.
    setup.slack.set_faults(Faults::none());
    setup.click_ok(&Click::withdraw("U0ALICE", &request.id)).await;
    let message = setup.shows(&request, END).await;
    setup.delivered().await;
    for user in ["U0ALICE", "U0BOB"] {
        setup.slack.person(user).click(&message, "approve").await;
    }
    setup.shows(&request, "Approved").await;
}

#[tokio::test]
async fn buttons_of_other_blocks_do_not_count_and_those_of_the_contract_do() {
    let setup = Setup::open(ACTIONS).await;
    let request = ask(&setup, "run", json!({"command": "ls"})).await;
    let other = ask(&setup, "run", json!({"command": "df"})).await;
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    let foreign = setup.shows(&other, "Waiting for 2 approvals").await;
    let block_of = |message: &Message| message.button("approve").expect("a button").block_id;

    // In a block that is none of ours, and in that of another request's message.
    for (block_id, words) in [("YPk3", NOT_COUNTED), (&*block_of(&foreign), "changed since you looked")] {
        let mut pressed = message.clone();
        for block in &mut pressed.blocks {
            if block["block_id"] == block_of(&message) {
                block["block_id"] = block_id.into();
            }
        }
        setup.slack.person("U0ALICE").click(&pressed, "approve").await;
        setup.ephemeral("U0ALICE", words).await;
    }
    assert_eq!(approvers(&setup, &request).await, json!([]));

    setup.click_ok(&approve_in("U0ALICE", Some("approval_actions"), &request.id)).await;
    setup.click_ok(&approve_in("U0BOB", None, &request.id)).await;
    assert_eq!(setup.look(&request.token).await["status"], "approved");
}

#[tokio::test]
async fn a_review_of_parameters_that_were_changed_approves_nothing() {
    let setup = Setup::open(ACTIONS).await;
    let params = json!({"command": "x".repeat(2_000), "note": "as usual"});
    let request = ask(&setup, "run", params).await;
    let old = setup.shows(&request, "Waiting for 2 approvals").await;
    assert!(old.actions().contains(&"approve_edit".to_owned()), "{:?}", old.actions());
    // The only page of the review before the edit.
    let payload = setup.look(&request.token).await["payloadHash"].clone();
    let page = json!({"request_id": request.id, "payload_hash": payload, "page": 1, "pages": 1});

    let bob = setup.slack.person("U0BOB");
    bob.click(&old, "approve_edit").await;
    bob.submit(&[("ov_note", Entry::from("y".repeat(2_900).as_str()))]).await;
    let message = setup.shows(&request, "Waiting for 1 more approval").await;
    assert_eq!(setup.click_refused(&page_of("U0ALICE", &page)).await, "parameters_changed");
    assert_eq!(approvers(&setup, &request).await, json!(["U0BOB"]));
    setup.ephemeral("U0ALICE", "changed since you looked").await;
    setup.slack.person("U0ALICE").dismiss_ephemerals();

    // The edit is in the review, with who made it.
    let pages = match message.button("review") {
        Some(_) => read(&setup, "U0ALICE", &message).await.concat(),
        None => panic!("the edit fits into the message: {}", message.shown()),
    };
    for words in ["*Edited* by <@U0BOB>", "as usual", &"y".repeat(2_000)] {
        assert!(pages.contains(words), "no `{words}`: {pages}");
    }
    let alice = setup.slack.person("U0ALICE");
    // An approval that is taken back changes no parameter: the review is still of what is asked.
    setup.click_ok(&Click::withdraw("U0BOB", &request.id)).await;
    let message = setup.shows(&request, "Waiting for 2 approvals").await;
    read(&setup, "U0BOB", &message).await;
    bob.submit(&[]).await;
    approved_by(&setup, &request, json!(["U0BOB"])).await;
    alice.submit(&[]).await;
    let after = setup.ended(&request.token).await;
    assert_eq!((&after["status"], &after["approvers"]), (&json!("approved"), &json!(["U0BOB", "U0ALICE"])));
}

#[tokio::test]
async fn a_review_leads_to_an_approval_with_edits() {
    let setup = Setup::open(ACTIONS).await;
    let params = json!({"command": long_command(), "note": "as usual"});
    let request = ask(&setup, "run", params).await;
    let message = setup.shows(&request, "Press *Review*").await;
    read(&setup, "U0ALICE", &message).await;
    let alice = setup.slack.person("U0ALICE");
    alice.press("approve_edit").await;
    let view = setup.slack.asked_when("U0ALICE", |view| view.callback_id() == "override_submit").await;
    assert!(view.input("ov_note").is_some(), "{view:?}");
    let submitted = alice.submit(&[("ov_note", "with care".into())]).await;
    assert!(matches!(submitted.outcome, Outcome::Closed | Outcome::Cleared), "{submitted:?}");
    approved_by(&setup, &request, json!(["U0ALICE"])).await;
    let message = setup.shows(&request, "with care").await;
    assert!(message.shown().contains("Edits so far"), "{}", message.shown());
}

#[tokio::test]
async fn whoever_acknowledges_has_read_it_too() {
    let setup = Setup::open(GATED).await;
    let request = ask(&setup, "gated", json!({"command": long_command()})).await;
    let message = setup.shows(&request, "Press *Review*").await;
    assert_eq!(message.actions(), ["review", "deny"]);
    let press = Click::acknowledge("security", "U0SEC", &request.id);
    assert_eq!(setup.click_refused(&press).await, "not_reviewed");

    assert!(read(&setup, "U0SEC", &message).await.concat().contains(END));
    let security = setup.slack.person("U0SEC");
    assert_eq!(submit_label(&setup.slack.asked("U0SEC").await), None);
    let pressed = security.press("persona_ack:security").await;
    assert_eq!(pressed.warning, None);
    setup.shows(&request, "Waiting for 1 approval").await;
    // The page is still open, and can approve by now.
    setup.slack.asked_when("U0SEC", |view| submit_label(view) == Some("Approve")).await;
    submit_and_close(&setup, "U0SEC").await;
    setup.shows(&request, "Approved").await;
}

#[tokio::test]
async fn a_review_that_does_not_open_is_told() {
    let setup = Setup::open(ACTIONS).await;
    let request = ask(&setup, "run", json!({"command": long_command()})).await;
    let message = setup.shows(&request, "Press *Review*").await;
    let methods = vec!["views.open".to_owned()];
    setup.slack.set_faults(Faults { internal_error: 1.0, methods, ..Faults::none() });
    setup.slack.person("U0ALICE").click(&message, "review").await;
    setup.ephemeral("U0ALICE", "Slack did not open the review").await;
    assert_eq!(approvers(&setup, &request).await, json!([]));
    setup.click_ok(&Click::deny_because("U0ALICE", &request.id, "I cannot read it")).await;
    assert_eq!(setup.look(&request.token).await["status"], "denied");
}

#[tokio::test]
async fn what_nobody_could_read_is_not_asked_unless_the_policy_set_says_so() {
    let setup = Setup::open(ACTIONS).await;
    // 100 KB of a character that is shown by its escape.
    let params = json!({"command": format!("{}{END}", "\u{200b}".repeat(40_000))});
    let refused = setup.create(&Ask::new("run").params(params.clone())).await.expect_err("it is too large");
    assert_eq!(refused.is(), (422, "too_large_to_review"));

    let request = ask(&setup, "run_on_trust", params).await;
    let message = setup.shows(&request, "People approve a summary").await;
    assert_eq!(message.actions(), ["approve", "deny"]);
    setup.slack.person("U0ALICE").click(&message, "approve").await;
    setup.shows(&request, "Approved").await;

    let ledger = Ledger::of(&setup.gateway.kill());
    let entries = ledger.audit_entries(&request.id, "approval_recorded");
    assert_eq!(entries[0]["consent"], "summary", "{entries:?}");
}

#[tokio::test]
async fn hidden_parameters_are_named_in_the_message_and_in_the_audit_log() {
    let setup = Setup::open(ACTIONS).await;
    let hidden = json!({"command": "ls", "password": "hunter2", "token": "hunter3"});
    let request = ask(&setup, "run", hidden.clone()).await;
    let message = setup.shows(&request, "not shown to anybody").await;
    assert!(message.shown().contains("password, token"), "{}", message.shown());
    setup.slack.person("U0ALICE").click(&message, "approve").await;

    let unseen = ask(&setup, "run_unseen", hidden).await;
    let message = setup.shows(&unseen, "No parameters are shown to approvers").await;
    assert!(message.shown().contains("command, password, token"), "{}", message.shown());
    setup.slack.person("U0ALICE").click(&message, "approve").await;
    setup.shows(&unseen, "Approved").await;

    let ledger = Ledger::of(&setup.gateway.kill());
    for (request, expected) in
        [(&request, json!(["password", "token"])), (&unseen, json!(["command", "password", "token"]))]
    {
        let entries = ledger.audit_entries(&request.id, "approval_recorded");
        assert_eq!(entries[0]["unseen"], expected, "{entries:?}");
        assert_eq!(entries[0]["consent"], Value::Null);
    }
}

#[tokio::test]
async fn a_review_goes_on_over_a_socket() {
    let slack = Slack::start().await;
    let home = Home::new(ACTIONS).with_slack(&slack).with_socket_mode(&slack).without("SLACK_SIGNING_SECRET");
    let gateway = home.start().await;
    let setup = Setup { slack, gateway };
    within("sockets", setup.slack.until(|slack| (slack.sockets() == 2).then_some(()))).await;
    let request = ask(&setup, "run", json!({"command": "x".repeat(50_000)})).await;
    let message = setup.shows(&request, "Press *Review*").await;
    assert!(read(&setup, "U0ALICE", &message).await.len() > 2);
    submit_and_close(&setup, "U0ALICE").await;
    approved_by(&setup, &request, json!(["U0ALICE"])).await;
}

#[tokio::test]
async fn links_show_where_they_lead_to_and_one_long_value_leaves_room_for_others() {
    let setup = Setup::open(ACTIONS).await;
    let params = json!({"command": "x".repeat(50_000), "note": format!("{} the end", "n".repeat(900))});
    let mut body = Ask::new("run").params(params).body();
    body["meta"]["links"] = json!([{"label": "The run", "url": "https://\u{430}cme.example/run"}]);
    let call = Call::post("/api/guard/request", &body);
    let request = Receipt::read(setup.send(&call).await).expect("it is admitted");
    let message = setup.shows(&request, "Press *Review*").await;
    let shown = message.shown();
    for words in ["https://xn--cme-5cd.example/run", "the end", "Ship the fix", "of 50,000 characters"] {
        assert!(shown.contains(words), "no `{words}`: {shown}");
    }
    let pages = read(&setup, "U0ALICE", &message).await.concat();
    assert!(pages.contains("https://xn--cme-5cd.example/run") && pages.contains("The run"), "{pages}");
}

#[tokio::test]
async fn a_finished_message_is_short_and_everybody_can_read_all_of_it() {
    let setup = Setup::open(ACTIONS).await;
    let request = ask(&setup, "run", json!({"command": format!("{}{END}", "x".repeat(50_000))})).await;
    let message = setup.shows(&request, "Press *Review*").await;
    let before = message.shown().len();
    setup.click_ok(&Click::deny_because("U0ALICE", &request.id, "Not on a Friday")).await;
    let message = setup.shows(&request, "Denied").await;
    let shown = message.shown();
    assert!(shown.len() < 1_500 && shown.len() * 5 < before, "{} of {before} characters", shown.len());
    for words in
        ["Run a command", "`run`", "by <@U0ALICE>", "Not on a Friday", "<@U0REQ>", "This is shortened"]
    {
        assert!(shown.contains(words), "no `{words}`: {shown}");
    }
    assert_eq!(message.actions(), ["show_all"]);

    // Also after the gateway was stopped and started, and by people who may not act.
    let Setup { slack, gateway } = setup;
    let gateway = gateway.kill().start().await;
    slack.set_gateway(&format!("http://{}", gateway.address()));
    let setup = Setup { slack, gateway };
    let mallory = setup.slack.person("U0MALLORY");
    let pages = pages(&setup, "U0MALLORY", &message, "show_all").await;
    assert_eq!(submit_label(&setup.slack.asked("U0MALLORY").await), None, "it only shows");
    assert!(pages.len() > 2 && pages.len() <= 12, "{} pages", pages.len());
    let (first, last) = (&pages[0], &pages[pages.len() - 1]);
    for words in ["*Denied* by <@U0ALICE>", "Not on a Friday", "Ship the fix"] {
        assert!(first.contains(words), "no `{words}`: {first}");
    }
    assert!(last.contains(END), "{last}");
    mallory.close().await;

    // The last page leads nowhere, whatever a client sends; and a page is none of a review.
    let about = json!({"request_id": request.id, "page": pages.len(), "pages": pages.len()});
    for callback in ["reading_page", "review_page"] {
        let view = json!({"callback_id": callback, "private_metadata": about.to_string()});
        let who = json!({"id": "U0ALICE", "team_id": "T0ACME"});
        let submitted = Click::raw(json!({"type": "view_submission", "user": who, "view": view}));
        let code = setup.click_refused(&submitted).await;
        assert!(["unknown_interaction", "invalid_hash"].contains(&&*code), "{callback}: {code}");
    }
    assert_eq!(approvers(&setup, &request).await, json!([]));
}

#[tokio::test]
async fn the_pages_that_show_all_of_an_open_request_approve_nothing() {
    let setup = Setup::open(ACTIONS).await;
    let request = ask(&setup, "run", json!({"command": "x".repeat(50_000)})).await;
    let message = setup.shows(&request, "Press *Review*").await;
    // No message of an open request has this button.
    assert!(message.button("show_all").is_none());
    let of = read(&setup, "U0BOB", &message).await.len();
    let about = |page: usize| json!({"request_id": request.id, "page": page, "pages": of});
    for page in 1..=of {
        let view = json!({"callback_id": "reading_page", "private_metadata": about(page).to_string()});
        let who = json!({"id": "U0ALICE", "team_id": "T0ACME"});
        let submitted = Click::raw(json!({"type": "view_submission", "user": who, "view": view}));
        if page < of {
            let answer = setup.click(&submitted).await;
            assert_eq!(answer["response_action"], "update", "{answer}");
            assert_eq!(answer["view"]["submit"]["text"] == "Next page", page + 1 < of, "{answer}");
        } else {
            assert_eq!(setup.click_refused(&submitted).await, "unknown_interaction");
        }
    }
    assert_eq!(approvers(&setup, &request).await, json!([]));
}

#[tokio::test]
async fn who_wants_to_read_a_request_that_is_not_stored_is_told() {
    let setup = Setup::open(ACTIONS).await;
    let who = json!({"id": "U0ALICE", "team_id": "T0ACME"});
    let action = json!({"action_id": "show_all", "block_id": "b", "value": "req_01jd8xkm0n0000000000000000"});
    let press = json!({"type": "block_actions", "user": who, "channel": {"id": "C0PRIVATE"},
        "trigger_id": "1.2.3", "actions": [action]});
    assert_eq!(setup.click_refused(&Click::raw(press)).await, "not_found");
    setup.ephemeral("U0ALICE", "There is no such request any more").await;
}
