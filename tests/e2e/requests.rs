//! What admins do with requests, by the routes and by the commands.

use std::process::Output;

use countersign_tests::{ADMIN_TOKEN, Ask, Call, Click, Gateway, Home, Problem, Running, countersign_with};
use serde_json::{Value, json};

use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0REQ], approvals: 2, requester_may_approve: false }
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

const PASSWORD: &str = "hunter2-and-more";

fn ask(action: &str) -> Ask {
    Ask::new(action).params(json!({"ref": "v1.2.3", "password": PASSWORD}))
}

async fn admin(gateway: &Gateway, call: Call) -> Result<Value, Problem> {
    let reply = gateway.send(&call.bearer(ADMIN_TOKEN)).await;
    if reply.status() == 200 { Ok(reply.json()) } else { Err(Problem::read(&reply)) }
}

async fn read(gateway: &Gateway, path: &str) -> Value {
    admin(gateway, Call::get(path)).await.unwrap_or_else(|problem| panic!("{path}: {problem:?}"))
}

fn ids(list: &Value) -> Vec<&str> {
    let requests = list["requests"].as_array().expect("a list");
    requests.iter().map(|request| request["requestId"].as_str().expect("an id")).collect()
}

/// Runs `countersign requests`, as an admin.
fn requests(gateway: &Gateway, words: &[&str]) -> Output {
    let url = format!("http://{}", gateway.address());
    let variables = [("COUNTERSIGN_URL", url.into()), ("ADMIN_TOKEN", ADMIN_TOKEN.into())];
    let words: Vec<&str> = std::iter::once("requests").chain(words.iter().copied()).collect();
    countersign_with(variables, words)
}

fn printed(gateway: &Gateway, words: &[&str]) -> String {
    let output = requests(gateway, words);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{words:?}: {error}");
    assert!(!out.contains(PASSWORD) && !error.contains(PASSWORD), "{out}{error}");
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn requests_are_listed_page_by_page_and_filtered() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    let mut made = Vec::new();
    for action in ["deploy", "scale", "deploy", "scale", "deploy"] {
        made.push(gateway.create(&ask(action)).await.expect("it is admitted").id);
    }
    gateway.click_ok(&Click::approve("U0ALICE", &made[1])).await;

    for (query, expected) in [
        ("", vec![0, 2, 3, 4]),
        ("status=any", vec![4, 3, 2, 1, 0]),
        ("status=ended", vec![1]),
        ("status=approved&action=scale", vec![1]),
        ("action=scale", vec![3]),
        ("status=ready_for_approval&requester=U0REQ&action=deploy", vec![0, 2, 4]),
        ("requester=U0ALICE", vec![]),
        ("olderThan=3600", vec![]),
        ("caller=nobody", vec![]),
    ] {
        let mut expected: Vec<&str> = expected.iter().map(|at: &usize| made[*at].as_str()).collect();
        for limit in [1, 2, 100] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let list =
                    read(&gateway, &format!("/api/admin/requests?{query}&limit={limit}{cursor}")).await;
                assert!(ids(&list).len() <= limit, "{list}");
                seen.extend(ids(&list).into_iter().map(str::to_owned));
                let Some(next) = list["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            // Requests that are due within the same millisecond are in the order of their ids, which is random.
            if !query.contains("any") {
                seen.sort_unstable();
                expected.sort_unstable();
            }
            assert_eq!(seen, expected, "{query} by {limit}");
        }
    }
    for query in ["status=lost", "olderThan=old", "limit=few", "cursor=x", "status=any&cursor=1.2"] {
        let problem = admin(&gateway, Call::get(&format!("/api/admin/requests?{query}"))).await;
        assert_eq!(problem.expect_err("it is no question").is(), (400, "invalid_payload"), "{query}");
    }

    let table = printed(&gateway, &["list"]);
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(table.lines().next().is_some_and(|line| line.starts_with("ID ")), "{table}");
    let approved = printed(&gateway, &["list", "--status", "approved", "--format", "json"]);
    let approved: Value = serde_json::from_str(&approved).expect("JSON");
    assert_eq!(approved[0]["requestId"], *made[1]);
}

#[tokio::test]
async fn a_request_is_shown_with_who_can_still_act_and_why_others_cannot() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    let open = gateway.create(&ask("deploy")).await.expect("it is admitted");
    gateway.click_ok(&Click::approve("U0ALICE", &open.id)).await;

    let shown = read(&gateway, &format!("/api/admin/requests/{}", open.id)).await;

    assert!(!shown.to_string().contains(PASSWORD), "{shown}");
    assert_eq!(shown["params"], json!({"ref": "v1.2.3", "password": "[redacted]"}));
    assert_eq!(shown["hidden"], json!(["password"]));
    assert_eq!(shown["history"][1]["by"], "U0ALICE");
    let tried = shown["people"]["tried"].as_array().expect("a list");
    let of = |id: &str| {
        let person = tried.iter().find(|person| person["id"] == id);
        person.unwrap_or_else(|| panic!("{id} was not tried: {shown}"))["acts"][0].clone()
    };
    assert_eq!((&of("U0BOB")["counts"], &of("U0BOB")["leadsTo"]), (&json!(true), &json!("approved")));
    assert_eq!(
        (&of("U0ALICE")["counts"], &of("U0ALICE")["code"]),
        (&json!(false), &json!("duplicate_approval"))
    );
    // The policy's own reason.
    assert_eq!(of("U0REQ")["counts"], false);
    let why = of("U0REQ")["reasons"][0]["message"].as_str().expect("a reason").to_owned();
    // To look is not to act.
    assert_eq!(read(&gateway, &format!("/api/admin/requests/{}", open.id)).await["approvalsCount"], 1);
    assert_eq!(gateway.look(&open.token).await["status"], "ready_for_approval");

    let shown = printed(&gateway, &["show", &open.id]);
    for part in ["U0BOB can approve: approved", "U0REQ cannot approve: ", &why, "password = [redacted]"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for (id, code) in
        [("req_00000000000000000000000000", (404, "not_found")), ("x", (400, "invalid_payload"))]
    {
        let problem = admin(&gateway, Call::get(&format!("/api/admin/requests/{id}"))).await;
        assert_eq!(problem.expect_err("there is none").is(), code);
    }
}

#[tokio::test]
async fn an_admin_ends_requests_and_everybody_learns_who_and_why() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    let [by_route, by_command, expired] = [ask("deploy"), ask("deploy"), ask("scale")];
    let by_route = gateway.create(&by_route).await.expect("it is admitted");
    let by_command = gateway.create(&by_command).await.expect("it is admitted");
    let expired = gateway.create(&expired).await.expect("it is admitted");
    let path = |id: &str, act: &str| format!("/api/admin/requests/{id}/{act}");
    for body in [json!({}), json!({"reason": "x"}), json!({"reason": "stuck", "more": 1})] {
        let problem = admin(&gateway, Call::post(&path(&by_route.id, "cancel"), &body)).await;
        assert_eq!(problem.expect_err("it says no reason").is(), (400, "invalid_payload"), "{body}");
    }

    let body = json!({"reason": "the runner is gone", "actor": "dana"});
    let shown = admin(&gateway, Call::post(&path(&by_route.id, "cancel"), &body)).await.expect("it is open");
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("cancelled"), &body["reason"]));
    printed(&gateway, &["cancel", &by_command.id, "--reason", "a wrong branch"]);
    let shown = printed(&gateway, &["expire", &expired.id, "--reason", "nobody is there"]);
    assert!(shown.contains("nobody is there") && shown.contains("expired"), "{shown}");

    for (request, status, reason) in [
        (&by_route, "cancelled", "the runner is gone"),
        (&by_command, "cancelled", "a wrong branch"),
        (&expired, "expired", "nobody is there"),
    ] {
        let told = gateway.look(&request.token).await;
        assert_eq!((&told["status"], &told["reason"]), (&json!(status), &json!(reason)));
        for act in ["cancel", "expire"] {
            let call = Call::post(&path(&request.id, act), &json!({"reason": "once more"}));
            let problem = admin(&gateway, call).await.expect_err("it has ended");
            assert_eq!(problem.is(), (409, "already_decided"));
        }
        let again = requests(&gateway, &["cancel", &request.id, "--reason", "once more"]);
        assert_eq!(again.status.code(), Some(6), "{again:?}");
        // What is recorded leads to the same end again.
        let bundle = gateway.send(&Call::get("/api/guard/bundle").bearer(&request.token)).await;
        assert_eq!(bundle.status(), 200, "{}", bundle.text());
        let shown = read(&gateway, &format!("/api/admin/requests/{}", request.id)).await;
        assert!(shown["endedByAdmin"].is_string() && shown["receipt"].is_string(), "{shown}");
        assert!(shown.get("people").is_none(), "{shown}");
    }
    let unknown = path("req_00000000000000000000000000", "cancel");
    let problem = admin(&gateway, Call::post(&unknown, &json!({"reason": "stuck"}))).await;
    assert_eq!(problem.expect_err("there is none").is(), (404, "not_found"));

    let ledger = Ledger::of(&gateway.stop().await);
    let how = ledger.entries("cancelled_by_admin");
    assert_eq!(how.len(), 2);
    let how = how.iter().find(|entry| entry["requestId"] == *by_route.id).expect("it was cancelled");
    assert_eq!(
        ["authentication", "claimedActor"].map(|key| how[key].clone()),
        [json!("admin_token"), json!("dana")]
    );
    assert_eq!(ledger.entries("expired_by_admin").len(), 1);
    for (event, reason) in [("cancelled", "the runner is gone"), ("expired", "nobody is there")] {
        let entries = ledger.entries(event);
        let entry = entries.iter().find(|entry| entry["reason"] == reason).expect("the decision");
        assert_eq!(entry["actor"], how["actor"]);
    }
}

#[tokio::test]
async fn whoever_watches_sees_each_change() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    let first = gateway.create(&ask("deploy")).await.expect("it is admitted");
    let url = format!("http://{}", gateway.address());
    let variables = [("COUNTERSIGN_URL", url.as_str()), ("ADMIN_TOKEN", ADMIN_TOKEN)];
    let words = ["requests", "watch", "--every", "10ms"];
    let folder = gateway.home().path(".");
    let watching = Running::start(&folder, &words, &variables, "");
    let line = watching.printed(&first.id).await;
    assert!(line.contains("(0 of 2)"), "{line}");
    gateway.click_ok(&Click::approve("U0ALICE", &first.id)).await;
    watching.printed("(1 of 2)").await;
    let second = gateway.create(&ask("scale")).await.expect("it is admitted");
    watching.printed(&second.id).await;
    gateway.click_ok(&Click::approve("U0BOB", &first.id)).await;
    let line = watching.printed("approved").await;
    assert!(line.contains(&first.id), "{line}");
}

#[tokio::test]
async fn what_nobody_is_shown_is_not_sent_again() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    let open = gateway.create(&ask("scale")).await.expect("it is admitted");
    let path = format!("/api/admin/requests/{}/resend", open.id);
    let problem = admin(&gateway, Call::post(&path, &json!({}))).await.expect_err("there is no channel");
    assert_eq!(problem.is(), (409, "not_deliverable"));
    let output = requests(&gateway, &["resend", &open.id]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert!(text(&output.stderr).contains("not_deliverable"), "{output:?}");
}

#[tokio::test]
async fn the_gateway_says_how_it_stands() {
    let gateway = Home::new(ACTIONS).administered().start().await;
    gateway.create(&ask("deploy")).await.expect("it is admitted");
    let state = read(&gateway, "/api/admin/state").await;
    assert_eq!(state["policy"], *gateway.policy().await);
    assert_eq!(state["version"].as_str().map(|version| version.split('.').count()), Some(3), "{state}");
    let open = &state["open"][0];
    assert_eq!((&open["action"], &open["count"]), (&json!("deploy"), &json!(1)), "{state}");
    match state["store"]["backend"].as_str() {
        Some("redis") => {
            assert_eq!(state["instances"], json!([state["instance"]]), "{state}");
            assert!(state["leases"]["slack_delivery"].is_null(), "{state}");
        }
        _ => assert!(state.get("instances").is_none() && state.get("leases").is_none(), "{state}"),
    }
}
