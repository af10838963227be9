//! The page of the Slack simulator in a real browser: people use it as they use Slack.

use countersign_tests::{Ask, Call, Gateway, Home, Page, Slack, keep_screenshot};
use serde_json::{Value, json};

const ACTIONS: &str = "
  deploy_prod:
    description: Deploy to production
    timeout: 20m
    redact: { show: [ref, replicas, service, command] }
    rerequest: { cooldown: 1s, limit: 5, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, \"@release-managers\"], approvals: 2, requester_may_approve: false }
      - use: override-guard
        with: { keys: [ref, replicas], max_keys: 2, max_chars: 40 }
  restart_prod:
    description: Restart production
    timeout: 20m
    redact: { show: [service] }
    escalate: { before: 1199s, channel: C0ONCALL, mention: U0LEAD }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
";

fn home() -> Home {
    let schema = json!({
        "type": "object",
        "properties": {
            "ref": {
                "description": "What to deploy", "type": "string", "pattern": "^v[0-9]+[.][0-9]+[.][0-9]+$",
                "errorMessage": "ref must be a release, such as v1.2.3",
            },
            "replicas": {"description": "How many to run", "type": "integer", "minimum": 1, "maximum": 20},
        },
    });
    Home::new(ACTIONS).with_schema("deploy_prod", &schema)
}

/// A request in a gateway, and the page in a browser with its message on it, as Alice sees it.
struct Scene {
    gateway: Gateway,
    token: String,
    page: Page,
    _slack: Slack,
}

impl Scene {
    async fn set() -> Scene {
        Scene::of(json!({"service": "web", "ref": "v1.2.3", "replicas": 3, "token": "s3cret"})).await
    }

    async fn of(params: Value) -> Scene {
        Scene::asked(&Ask::new("deploy_prod").params(params)).await
    }

    async fn asked(ask: &Ask) -> Scene {
        let slack = Slack::start().await;
        let gateway = slack.gateway(home()).await;
        let request = gateway.create(&ask.clone().requester("U0DANA")).await.expect("it is admitted");
        let page = Page::open(&format!("{}/#U0ALICE/C0PRIVATE", slack.url()), 1100, 800).await;
        let mut scene = Scene { gateway, token: request.token, page, _slack: slack };
        // The message is posted with people's ids; soon after it an update names them.
        scene.shows("waiting for @Alice").await;
        scene
    }

    /// Takes a screenshot for the documents.
    async fn picture(&mut self, name: &str) {
        let png = self.page.screenshot().await;
        keep_screenshot(name, &png);
    }

    /// Continues as another person.
    async fn become_person(&mut self, user: &str) {
        self.page.choose("#me", user).await;
        self.page.wait_for(&format!("document.body.dataset.user === '{user}'")).await;
    }

    /// Clicks on a button of the message.
    async fn press(&mut self, action: &str) {
        self.page.click(&format!("#messages article [data-action-id='{action}']")).await;
    }

    /// Submits the modal, and waits until it shows what this script looks for. Returns false if it closes in place of that,
    /// as it does if the gateway answers later than Slack waits.
    async fn submit_for(&mut self, script: &str) -> bool {
        self.page.click("#modal [type=submit]").await;
        self.page.wait_for(&format!("!document.querySelector('#modal').open || ({script})")).await;
        self.page.evaluate("document.querySelector('#modal').open").await == true
    }

    /// Presses this button, and turns to the second page of two. Takes a screenshot of the first one.
    async fn turn_to_the_last_page(&mut self, action: &str, picture: &str) {
        let modal = "document.querySelector('#modal')";
        let is = |words: &str| format!("{modal}.open && {modal}.innerText.includes('{words}')");
        loop {
            self.press(action).await;
            self.page.wait_for(&is("Page 1 of 2")).await;
            self.picture(picture).await;
            if self.submit_for(&is("Page 2 of 2")).await {
                return;
            }
        }
    }

    /// Waits until the message contains `text`.
    async fn shows(&mut self, text: &str) {
        let text = json!(text);
        let shown = format!("document.querySelector('#messages article')?.innerText.includes({text})");
        self.page.wait_for(&shown).await;
    }

    /// Waits until the request has ended, and the message has no button but Re-request.
    async fn ended(&mut self) -> Value {
        let state = self.gateway.ended(&self.token).await;
        let gone = "!document.querySelector('#messages article [data-action-id=approve]')";
        self.page.wait_for(gone).await;
        state
    }

    fn finish(&self) {
        assert_eq!(self.page.errors(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn two_people_approve() {
    let mut scene = Scene::set().await;
    scene.shows("Waiting for 2 approvals").await;
    scene.shows("v1.2.3").await;
    scene.picture("slack-request.png").await;

    scene.press("approve").await;
    scene.shows("Waiting for 1 more approval").await;
    scene.become_person("U0BOB").await;
    scene.press("approve").await;

    let state = scene.ended().await;
    assert_eq!((&state["status"], &state["approvers"]), (&json!("approved"), &json!(["U0ALICE", "U0BOB"])));
    scene.shows("Approved").await;
    scene.picture("slack-approved.png").await;
    scene.finish();
}

#[tokio::test]
async fn one_approves_with_edits_after_a_mistake() {
    let mut scene = Scene::set().await;
    scene.press("approve_edit").await;
    let (replicas, release) =
        ("#modal [data-block-id=ov_replicas] input", "#modal [data-block-id=ov_ref] input");
    scene.page.wait_for(&format!("document.querySelector('{replicas}')?.value === '3'")).await;
    scene.picture("slack-edit.png").await;

    // Slack refuses values that are not numbers between the limits; the gateway checks the action's schema.
    let error = |of: &str| format!("document.querySelector('#modal [data-block-id={of}] .error')?.innerText");
    scene.page.fill(replicas, "50").await;
    scene.page.fill(release, "main").await;
    scene.page.click("#modal [type=submit]").await;
    let shown = scene.page.wait_for(&error("ov_replicas")).await;
    assert_eq!(shown, "Please enter a number that is at most 20.");
    scene.page.fill(replicas, "5").await;
    while !scene.submit_for(&error("ov_ref")).await {
        scene.press("approve_edit").await;
        scene.page.wait_for(&format!("document.querySelector('{replicas}')?.value === '3'")).await;
        scene.page.fill(replicas, "5").await;
        scene.page.fill(release, "main").await;
    }
    let shown = scene.page.evaluate(&error("ov_ref")).await;
    assert_eq!(shown, "ref must be a release, such as v1.2.3");
    scene.picture("slack-edit-error.png").await;

    scene.page.fill(release, "v1.2.4").await;
    scene.page.click("#modal [type=submit]").await;
    scene.page.wait_for("!document.querySelector('#modal').open").await;
    // The next approval is of the edited parameters.
    scene.shows("Edits so far").await;
    scene.become_person("U0BOB").await;
    scene.press("approve").await;

    let state = scene.ended().await;
    assert_eq!(
        (&state["status"], &state["overrides"]),
        (&json!("approved"), &json!({"ref": "v1.2.4", "replicas": 5}))
    );
    scene.shows("Approved with edits").await;
    scene.picture("slack-approved-with-edits.png").await;
    scene.finish();
}

#[tokio::test]
async fn whose_approval_is_replaced_reads_what_was_changed() {
    let mut scene = Scene::set().await;
    scene.press("approve").await;
    scene.shows("Waiting for 1 more approval").await;
    scene.become_person("U0BOB").await;
    scene.press("approve_edit").await;
    let replicas = "#modal [data-block-id=ov_replicas] input";
    scene.page.wait_for(&format!("document.querySelector('{replicas}')?.value === '3'")).await;
    scene.page.fill(replicas, "12").await;
    scene.page.click("#modal [type=submit]").await;
    scene.shows("Edits so far").await;

    scene.become_person("U0ALICE").await;
    let reply = "#messages article .replies";
    scene.page.wait_for(&format!("!!document.querySelector('{reply}')")).await;
    scene.page.click(reply).await;
    let notice = "[...document.querySelectorAll('#replies article')].at(-1)";
    scene.page.wait_for(&format!("{notice}?.innerText.includes('Your approval no longer counts')")).await;
    scene.page.evaluate(&format!("{notice}.scrollIntoView()")).await;
    scene.picture("slack-replaced.png").await;

    scene.press("approve").await;
    let state = scene.ended().await;
    assert_eq!(
        (&state["approvers"], &state["overrides"]),
        (&json!(["U0BOB", "U0ALICE"]), &json!({"replicas": 12}))
    );
    scene.page.wait_for(&format!("{notice}?.innerText.includes('has ended since')")).await;
    scene.finish();
}

#[tokio::test]
async fn the_notice_of_an_escalation_says_how_it_ended() {
    let ask = Ask::new("restart_prod").params(json!({"service": "web"}));
    let mut scene = Scene::asked(&ask).await;
    scene.shows("Escalated").await;
    let go = |channel: &str| format!("location.hash = '#U0ALICE/{channel}'");
    scene.page.evaluate(&go("C0ONCALL")).await;
    scene.shows("needs a decision").await;
    scene.page.evaluate(&go("C0PRIVATE")).await;
    scene.shows("Requested by").await;
    scene.press("approve").await;
    scene.gateway.ended(&scene.token).await;
    scene.page.evaluate(&go("C0ONCALL")).await;
    scene.shows("was escalated, and has ended since: Approved").await;
    scene.shows("Open the request").await;
    scene.picture("slack-escalation-closed.png").await;
    scene.finish();
}

#[tokio::test]
async fn what_does_not_fit_is_read_page_by_page_and_then_approved() {
    let migrate =
        |n: usize| format!("psql shop -c 'UPDATE orders SET total = total * 100 WHERE shard = {n}'");
    let command = (1..=300).map(migrate).chain(["rm -rf /data".to_owned()]).collect::<Vec<_>>().join(" && ");
    let mut scene = Scene::of(json!({"service": "web", "ref": "v1.2.3", "command": command})).await;
    scene.shows("Not all of this request is shown here").await;
    scene.picture("slack-not-whole.png").await;
    let end = "document.querySelector('#modal')?.innerText.includes('rm -rf /data')";
    for user in ["U0ALICE", "U0BOB"] {
        scene.become_person(user).await;
        scene.turn_to_the_last_page("review", "slack-review.png").await;
        scene.page.wait_for(end).await;
        let to_the_end =
            "document.querySelectorAll('#modal *').forEach((one) => one.scrollTop = one.scrollHeight)";
        scene.page.evaluate(to_the_end).await;
        scene.picture("slack-review-last.png").await;
        scene.page.click("#modal [type=submit]").await;
        scene.page.wait_for("!document.querySelector('#modal').open").await;
        if user == "U0ALICE" {
            scene.shows("Waiting for 1 more approval").await;
        }
    }
    let state = scene.ended().await;
    assert_eq!((&state["status"], &state["approvers"]), (&json!("approved"), &json!(["U0ALICE", "U0BOB"])));

    // The message is short, and all of it is behind a button.
    scene.shows("This is shortened").await;
    let whole = "document.querySelector('#messages article').innerText.includes('rm -rf /data')";
    assert_eq!(scene.page.evaluate(whole).await, false, "the message has all of the command");
    scene.picture("slack-ended.png").await;
    scene.become_person("U0MALLORY").await;
    scene.turn_to_the_last_page("show_all", "slack-show-all.png").await;
    scene.page.wait_for(end).await;
    assert_eq!(scene.page.evaluate("!document.querySelector('#modal [type=submit]')").await, true);
    scene.finish();
}

#[tokio::test]
async fn one_denies_and_a_stranger_reads_why_not() {
    let mut scene = Scene::set().await;
    scene.become_person("U0MALLORY").await;
    scene.press("approve").await;
    scene
        .page
        .wait_for("document.querySelector('article.ephemeral')?.innerText.includes('Only visible to you')")
        .await;
    scene.picture("slack-refusal.png").await;

    scene.become_person("U0ALICE").await;
    let ephemerals = scene.page.evaluate("document.querySelectorAll('article.ephemeral').length").await;
    assert_eq!(ephemerals, 0, "only they see it");
    scene.press("deny").await;
    let input = "#modal [data-block-id='reason'] textarea, #modal [data-block-id='reason'] input";
    scene.page.fill(input, "Not on a Friday").await;
    scene.picture("slack-deny.png").await;
    scene.page.click("#modal [type=submit]").await;

    let state = scene.ended().await;
    assert_eq!((&state["status"], &state["reason"]), (&json!("denied"), &json!("Not on a Friday")));
    scene.shows("Not on a Friday").await;
    scene.picture("slack-denied.png").await;
    scene.finish();
}

#[tokio::test]
async fn what_an_app_sends_is_shown_and_never_run() {
    let slack = Slack::start().await;
    let hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    let escaped = hostile.replace('<', "&lt;").replace('>', "&gt;");
    let mrkdwn = format!(
        "*bold <@U0BOB>* _it_ ~no~ `co*de*` {escaped}\n&gt; quoted\n<https://example.org|a link> <javascript:alert(3)|bad> \
         <!subteam^S0RELEASE> <!channel> <!date^1700000000^{{date_num}} {{time}}|then> snake_case_name 2*3*4"
    );
    let blocks = json!([
        {"type": "header", "text": {"type": "plain_text", "text": hostile}},
        {"type": "section", "block_id": "mrkdwn", "text": {"type": "mrkdwn", "text": mrkdwn}},
        {"type": "rich_text", "block_id": "rich", "elements": [
            {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": format!("{hostile} <!channel> *x*")}]},
            {"type": "rich_text_quote", "elements": [{"type": "text", "text": hostile, "style": {"bold": true}}]},
        ]},
        {"type": "actions", "elements": [
            {"type": "button", "action_id": "approve", "style": "primary", "text": {"type": "plain_text", "text": hostile}}]},
    ]);
    let post = Call::post(
        "/api/chat.postMessage",
        &json!({"channel": "C0APPROVALS", "text": "x", "blocks": blocks}),
    )
    .header("authorization", &format!("Bearer {}", slack.bot_token()));
    let posted = countersign_tests::Api::new(slack.address()).send(&post).await.json();
    assert_eq!(posted["ok"], true, "{posted}");

    let mut page = Page::open(&format!("{}/#U0BOB/C0APPROVALS", slack.url()), 1000, 800).await;
    page.wait_for("document.querySelector('#messages article [data-action-id=approve]')").await;

    let of = |selector: &str| {
        format!("[...document.querySelectorAll('article {selector}')].map((one) => one.textContent)")
    };
    let rows = [
        ("script, article img", json!([])),
        (".block-header", json!([hostile])),
        ("[data-action-id=approve]", json!([hostile])),
        ("[data-block-id=mrkdwn] strong", json!(["bold @Bob Brandt"])),
        ("[data-block-id=mrkdwn] em", json!(["it"])),
        ("[data-block-id=mrkdwn] s", json!(["no"])),
        ("[data-block-id=mrkdwn] code", json!(["co*de*"])),
        ("[data-block-id=mrkdwn] blockquote", json!(["quoted"])),
        ("[data-block-id=mrkdwn] a", json!(["a link"])),
        ("[data-block-id=mrkdwn] time", json!(["2023-11-14 22:13"])),
        ("[data-block-id=mrkdwn] .mention", json!(["@Bob Brandt", "@release-managers", "@channel"])),
        ("[data-block-id=rich] pre", json!([format!("{hostile} <!channel> *x*")])),
        ("[data-block-id=rich] .mention", json!([])),
        ("[data-block-id=rich] blockquote strong", json!([hostile])),
    ];
    for (selector, texts) in rows {
        assert_eq!(page.evaluate(&of(selector)).await, texts, "{selector}");
    }
    let shown = page.evaluate("document.querySelector('[data-block-id=mrkdwn]').textContent").await;
    let shown = shown.as_str().unwrap_or_default();
    assert!(shown.contains(hostile) && shown.contains("snake_case_name 2*3*4"), "{shown}");
    page.screenshot().await;
    assert_eq!(page.errors(), Vec::<String>::new());
}
