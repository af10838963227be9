//! Values from callers can neither mention anybody, nor imitate the gateway's words, nor break the message.

use countersign_tests::Ask;
use serde_json::json;

use super::Setup;
use super::consent::read;

const ACTIONS: &str = "
  deploy:
    description: Deploy
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn a_hostile_request_is_shown_and_harms_nobody() {
    let setup = Setup::open(ACTIONS).await;
    let params = json!({
        "everyone": "<!channel> <!here> <@U0BOB> <!subteam^S0RELEASE>",
        "markup": "*Approved* by <@U0ALICE>\n`x` ```code``` &amp; & <https://evil.example|click>",
        "direction": "abc\u{202e}fed\u{200b}",
        "long": "x".repeat(100_000),
        "emoji": ":white_check_mark: *Approved with edits* by everybody",
    });
    let mut body = Ask::new("deploy").params(params).body();
    body["meta"]["justification"] = json!("please\n:white_check_mark: *Approved* by <@U0ALICE>\n<!everyone>");
    body["meta"]["origin"]["branch"] = json!("main` <!channel> `");
    let call = countersign_tests::Call::post("/api/guard/request", &body);
    let request = countersign_tests::Receipt::read(setup.send(&call).await).expect("it is admitted");

    let message = setup.shows(&request, "Waiting for 1 approval").await;
    let pings = message.pings();
    assert!(pings.iter().all(|ping| ["U0ALICE", "U0REQ"].contains(&ping.as_str())), "it pings {pings:?}");
    assert_eq!(message.actions(), ["review", "deny"]);
    let pages = read(&setup, "U0ALICE", &message).await.concat();
    assert!(pages.contains("abc\\u{202e}fed\\u{200b}"), "what is invisible is not escaped: {pages}");
    setup.slack.person("U0ALICE").submit(&[]).await;
    setup.shows(&request, "Approved").await;
}

#[tokio::test]
async fn what_looks_like_something_else_is_told_from_it() {
    let setup = Setup::open(ACTIONS).await;
    let params = json!({
        "note": format!("nightly run{}dry_run: true", " ".repeat(95)),
        "path": "C:\\prod\temp",
        "target": "{\"target\":\"a\tb\"}",
        "command": "rm -rf /srv/א/1",
        "host": "a",
        "h\u{43e}st": "b",
        "accent": "e\u{301}",
    });
    let mut body = Ask::new("deploy").params(params).body();
    body["meta"]["origin"]["branch"] = json!(format!("main{}x", " ".repeat(3)));
    let call = countersign_tests::Call::post("/api/guard/request", &body);
    let request = countersign_tests::Receipt::read(setup.send(&call).await).expect("it is admitted");

    let message = setup.shows(&request, "Waiting for 1 approval").await;
    assert_eq!(message.actions(), ["approve", "deny"]);
    let shown = message.shown();
    for words in [
        // In a box of its own.
        &format!("note\nnightly run{}dry_run: true", " ".repeat(95)),
        r#""C:\\prod\temp""#,
        r#""{\"target\":\"a\tb\"}""#,
        "rm -rf /srv/\u{2068}א\u{2069}/1",
        r#""h\u{43e}st": "#,
        r"e\u{301}",
        r"`main \u{20}\u{20}x`",
    ] {
        assert!(shown.contains(words), "no {words:?}: {shown}");
    }
    setup.slack.person("U0ALICE").click(&message, "approve").await;
    // Once it has ended, all have a line.
    let ended = setup.shows(&request, "Approved").await.shown();
    assert!(!ended.contains("run  ") && ended.contains(r"nightly run \u{20}\u{20}"), "{ended}");
}
