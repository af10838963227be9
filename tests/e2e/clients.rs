//! The clients of docs/CLIENTS.md, as they stand there: they run nothing that was not approved.

use std::fs;

use countersign_tests::{ApiKey, Click, Fault, Home, Relay, Running, project};

const ACTIONS: &str = "
  deploy_staging:
    description: Deploy to staging
    redact: { show: [service, ref] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
";

#[tokio::test]
async fn curl() {
    check("sh", "client.sh", "sh").await;
}

#[tokio::test]
async fn python() {
    check("python", "client.py", "python3").await;
}

#[tokio::test]
async fn node() {
    check("js", "client.mjs", "node").await;
}

async fn check(language: &str, file: &str, program: &str) {
    let page = fs::read_to_string(project("docs/CLIENTS.md")).expect("there is a page on clients");
    let start = format!("\n```{language}\n");
    let blocks: Vec<&str> =
        page.split(&start).skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    let [client] = blocks[..] else { panic!("the page has {} clients in {language}", blocks.len()) };
    let key = ApiKey::new("web-deploys");
    let access = format!(
        "version: 1\ncallers:\n  web-deploys:\n    keys: [{}]\n    requester: asserted\n    actions: [deploy_staging]\n",
        key.line.trim_start_matches("- ")
    );
    let gateway = Home::new(ACTIONS).with_access(&access).start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(file), client).expect("it can be written");
    let url = format!("http://{}", gateway.address());
    for (run, click, expected) in [
        ("run-1", Click::approve as fn(&str, &str) -> Click, (Some(0), "run it")),
        ("run-2", Click::deny, (Some(1), "decided: denied")),
    ] {
        let variables =
            [("COUNTERSIGN_URL", url.as_str()), ("COUNTERSIGN_API_KEY", &key.secret), ("RUN_ID", run)];
        let client = Running::other(program, folder.path(), &[file], &variables);
        let asked = client.printed("asked: ").await;
        let request = asked.trim_start_matches("asked: ");
        gateway.click_ok(&click("U0ALICE", request)).await;
        let ended = client.ended().await;
        assert_eq!(ended.code, expected.0, "{ended:?}");
        assert_eq!(ended.stdout.lines().last(), Some(expected.1), "{ended:?}");
    }

    // A stream that is refused is not asked for again and again.
    let relay = Relay::start(Some(gateway.address())).await;
    let problem = r#"{"error":"not_found","detail":"no such request"}"#;
    relay.fault("/api/guard/wait-sse", Fault::answer("404 Not Found", "application/problem+json", problem));
    let url = relay.url();
    let variables =
        [("COUNTERSIGN_URL", url.as_str()), ("COUNTERSIGN_API_KEY", &key.secret), ("RUN_ID", "run-3")];
    let ended = Running::other(program, folder.path(), &[file], &variables).ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the stream is refused: 404"), "{ended:?}");
}
