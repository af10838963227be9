//! The page of the Slack simulator in a real browser: people click through it as through Slack.

use countersign_tests::{Api, Call, Page, Slack};
use serde_json::json;

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
    let posted = Api::new(slack.address()).send(&post).await.json();
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
    assert_eq!(page.complaints(), Vec::<String>::new());
}
