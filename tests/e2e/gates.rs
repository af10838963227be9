//! Gates of CI systems: GitHub's deployment protection rule and GitLab's external status check, against doubles that refuse
//! what those would.

use countersign_tests::{Call, Click, Gateway, Github, Gitlab, Home};
use serde_json::{Value, json};

const ACTIONS: &str = "
  deploy_prod:
    description: Deploy to production
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, dana] }
      - use: override-guard
        with: { keys: [ref], max_keys: 1, max_chars: 60 }
  hurry:
    description: Deploy at once
    timeout: 1s
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
  apply:
    description: Apply infrastructure
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, dana, rita] }
  try_out:
    description: Try infrastructure out
    timeout: 10m
    redact: { hide: [] }
    rerequest: { cooldown: 1s, limit: 3, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0BOB] }
";

const ACCESS: &str = r#"
version: 1
callers:
  web-production:
    gate:
      system: github
      claims: { repository_id: "4711", environment: production }
      action: deploy_prod
  web-preview:
    gate:
      system: github
      claims: { repository_id: "4711", environment: preview }
      action: hurry
      params: { service: web, ref: "{ref}" }
  infra:
    gate:
      system: gitlab
      claims: { project_id: "815", target_branch: main }
      action: apply
  infra-develop:
    gate:
      system: gitlab
      claims: { project_id: "815", target_branch: develop }
      action: try_out
people:
  dana: { slack: U0DANA, github: "583231", gitlab: "1042" }
  rita: { slack: U0RITA, github: "5551", gitlab: "1043" }
"#;

const OLD: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";
const NEW: &str = "1f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c";

fn home() -> Home {
    Home::new(ACTIONS).with_access(ACCESS).administered()
}

/// Delivers, and returns the id of the request that was made.
async fn asked(gateway: &Gateway, delivery: &Call) -> String {
    let answer = gateway.send(delivery).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["requestId"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
}

async fn shown(gateway: &Gateway, id: &str) -> Value {
    gateway.seen(&format!("requests/{id}")).await
}

async fn count(gateway: &Gateway, metric: &str, labels: &[(&str, &str)]) -> u64 {
    gateway.metrics().await.count(metric, labels)
}

#[tokio::test]
async fn a_deployment_goes_on_once_it_is_approved() {
    let github = Github::start().await;
    let gateway = github.configure(home()).start().await;
    let delivery = Github::delivery(&github.waits(77, "production"));

    let id = asked(&gateway, &delivery).await;
    github.commented(77, "asks for a decision").await;
    // Whoever pushed it is an approver, but may not approve it.
    gateway.click_refused(&Click::approve("U0DANA", &id)).await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;

    let review = github.reviewed(77).await;
    assert_eq!(review.state.as_deref(), Some("approved"));
    assert!(review.comment.contains(&id) && review.comment.contains("`U0ALICE`"), "{review:?}");
    // The report is the use of the approval.
    let request = shown(&gateway, &id).await;
    assert_eq!((&request["status"], &request["use"]), (&json!("approved"), &json!("consumed")), "{request}");
    assert_eq!(request["caller"], "web-production");
    assert_eq!(request["params"]["ref"], "refs/heads/main");

    // The same delivery again is about the same request, and is told the same.
    assert_eq!(asked(&gateway, &delivery).await, id);
    gateway.stop().await;
    assert_eq!(github.reviews(77).len(), 2, "{:?}", github.reviews(77));
}

#[tokio::test]
async fn what_is_not_approved_as_it_is_does_not_go_on() {
    let github = Github::start().await;
    let gateway = github.configure(home()).start().await;
    let denied = asked(&gateway, &Github::delivery(&github.waits(1, "production"))).await;
    let edited = asked(&gateway, &Github::delivery(&github.waits(2, "production"))).await;
    asked(&gateway, &Github::delivery(&github.waits(3, "preview"))).await;

    gateway.click_ok(&Click::deny("U0ALICE", &denied)).await;
    gateway.click_ok(&Click::edit("U0ALICE", &edited, &[("ref", "refs/heads/other")])).await;

    for (run, why) in [(1, "denied"), (2, "changed parameters"), (3, "expired")] {
        let review = github.reviewed(run).await;
        assert_eq!(review.state.as_deref(), Some("rejected"), "{review:?}");
        assert!(review.comment.contains(why), "{review:?}");
    }
    assert_eq!(github.refused(), Vec::<String>::new());
}

#[tokio::test]
async fn what_no_gate_asks_for_is_rejected_at_once() {
    let github = Github::start().await;
    let gateway = github.configure(home()).start().await;

    let answer = gateway.send(&Github::delivery(&github.waits(5, "staging"))).await;

    assert_eq!((answer.status(), &answer.json()["error"]), (403, &json!("caller_not_allowed")));
    let review = github.reviewed(5).await;
    assert_eq!(review.state.as_deref(), Some("rejected"));
    assert!(review.comment.contains("`caller_not_allowed`"), "{review:?}");
}

#[tokio::test]
async fn a_wrong_signature_is_refused_and_counted() {
    let (github, gitlab) = (Github::start().await, Gitlab::start(OLD).await);
    let gateway = gitlab.configure(github.configure(home())).start().await;
    let waits = github.waits(9, "production");
    let other = Github::delivery(&json!({ "action": "requested" }));
    let other = String::from_utf8(other.bytes()).expect("it is text");
    let of_another =
        other.lines().find_map(|line| line.strip_prefix("X-Hub-Signature-256: ")).expect("signed");
    let deliveries = [
        Github::unsigned(&waits),
        Github::unsigned(&waits).header("X-Hub-Signature-256", "sha256="),
        Github::unsigned(&waits).header("X-Hub-Signature-256", of_another),
        Github::unsigned(&waits).header("X-Hub-Signature", "sha1=0123456789012345678901234567890123456789"),
        Github::delivery(&waits).header("X-Hub-Signature-256", of_another),
        Gitlab::unsigned(&Gitlab::merge_request(OLD, "opened")),
        Gitlab::unsigned(&Gitlab::merge_request(OLD, "opened"))
            .header("X-Gitlab-Token", "a-shared-secret-of-the-check"),
    ];

    for delivery in &deliveries {
        let answer = gateway.send(delivery).await;
        assert_eq!(
            (answer.status(), &answer.json()["error"]),
            (401, &json!("bad_signature")),
            "{delivery:?}"
        );
    }

    let counted = count(&gateway, "security_events_total", &[("type", "bad_signature")]).await;
    assert_eq!(counted, u64::try_from(deliveries.len()).expect("there are few"));
    let listed = gateway.seen("requests").await;
    assert_eq!(listed["requests"], json!([]), "{listed}");
    assert!(github.reviews(9).is_empty() && gitlab.calls().is_empty());
}

#[tokio::test]
async fn a_report_goes_nowhere_but_to_the_configured_api() {
    let github = Github::start().await;
    let gateway = github.configure(home()).start().await;
    let elsewhere = Github::start().await;
    let mut payload = github.waits(4, "production");
    payload["deployment_callback_url"] =
        json!(format!("{}/repos/acme/web/actions/runs/4/deployment_protection_rule", elsewhere.url()));

    let answer = gateway.send(&Github::delivery(&payload)).await;

    assert_eq!(
        (answer.status(), &answer.json()["errors"][0]["path"]),
        (400, &json!("deployment_callback_url"))
    );
    // Where nothing is configured there is no such path.
    let unknown = Gitlab::delivery(&Gitlab::merge_request(OLD, "opened"));
    assert_eq!(gateway.send(&unknown).await.status(), 404);
    gateway.stop().await;
    assert!(github.reviews(4).is_empty() && elsewhere.refused().is_empty());
}

#[tokio::test]
async fn a_gateway_that_is_killed_before_the_report_reports_once_after_the_restart() {
    let github = Github::start().await;
    let gateway = github.configure(home()).start().await;
    let id = asked(&gateway, &Github::delivery(&github.waits(8, "production"))).await;
    github.commented(8, "asks for a decision").await;
    github.set_down(Some(503));

    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    github.turned_away().await;
    let home = gateway.kill();
    github.set_down(None);
    let gateway = home.start().await;

    let review = github.reviewed(8).await;
    assert_eq!(review.state.as_deref(), Some("approved"));
    let request = shown(&gateway, &id).await;
    assert_eq!(request["use"], "consumed", "{request}");
    gateway.stop().await;
    let decided = github.reviews(8).into_iter().filter(|review| review.state.is_some()).count();
    assert_eq!((decided, github.refused()), (1, Vec::new()));
}

#[tokio::test]
async fn a_merge_request_passes_once_it_is_approved() {
    let gitlab = Gitlab::start(OLD).await;
    let gateway = gitlab.configure(home()).start().await;

    let id = asked(&gateway, &Gitlab::delivery(&Gitlab::merge_request(OLD, "opened"))).await;
    gitlab.told(OLD, "pending").await;
    // Neither whoever changed it nor its author may approve it, although both are approvers.
    gateway.click_refused(&Click::approve("U0DANA", &id)).await;
    gateway.click_refused(&Click::approve("U0RITA", &id)).await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;

    gitlab.told(OLD, "passed").await;
    let request = shown(&gateway, &id).await;
    assert_eq!((&request["status"], &request["use"]), (&json!("approved"), &json!("consumed")), "{request}");
    assert_eq!(gitlab.refused(), Vec::<String>::new());
}

#[tokio::test]
async fn a_commit_that_is_not_the_newest_one_is_asked_about_no_more() {
    let gitlab = Gitlab::start(NEW).await;
    let gateway = gitlab.configure(home()).start().await;

    // Pushed over between the delivery and the answer.
    let id = asked(&gateway, &Gitlab::delivery(&Gitlab::merge_request(OLD, "opened"))).await;
    gitlab.has_refused().await;
    let newer = asked(&gateway, &Gitlab::delivery(&Gitlab::merge_request(NEW, "opened"))).await;
    gitlab.told(NEW, "pending").await;
    assert_ne!(newer, id);
    let cancelled = countersign_tests::within("the request of the older commit", async {
        loop {
            let request = shown(&gateway, &id).await;
            if request["status"] == "cancelled" {
                break request;
            }
            tokio::task::yield_now().await;
        }
    });
    // By the answer of GitLab, or by the newer request: whichever came first.
    let reason = cancelled.await["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("newer commit") || reason.contains(&newer)));

    // Merged by other means: nothing of it is to be decided any more.
    let over = gateway.send(&Gitlab::delivery(&Gitlab::merge_request(NEW, "merged"))).await;
    assert_eq!((over.status(), &over.json()["status"]), (200, &json!("cancelled")), "{}", over.text());
    gitlab.told(NEW, "failed").await;
}

/// A merge request of this commit into this branch, as GitLab delivers it.
fn into(branch: &str) -> Call {
    let mut payload = Gitlab::merge_request(OLD, "opened");
    payload["object_attributes"]["target_branch"] = json!(branch);
    Gitlab::delivery(&payload)
}

/// Somebody asks in Slack for what was denied, once the cooldown is over; returns what a delivery is about then.
async fn asked_again(gateway: &Gateway, denied: &str, delivery: &Call) -> String {
    countersign_tests::within("the request that is made again", async {
        loop {
            gateway.click(&Click::button("re_request", "U0BOB", denied)).await;
            let found = asked(gateway, delivery).await;
            if found != denied {
                return found;
            }
        }
    })
    .await
}

async fn status(gateway: &Gateway, id: &str) -> Value {
    shown(gateway, id).await["status"].clone()
}

#[tokio::test]
async fn what_was_approved_for_one_branch_does_not_pass_for_another() {
    let gitlab = Gitlab::start(OLD).await;
    gitlab.retarget("develop");
    let gateway = gitlab.configure(home()).start().await;
    let develop = asked(&gateway, &into("develop")).await;
    gateway.click_ok(&Click::approve("U0BOB", &develop)).await;
    gitlab.told(OLD, "passed").await;

    gitlab.retarget("main");
    let main = asked(&gateway, &into("main")).await;
    assert_ne!(main, develop);
    assert_eq!(shown(&gateway, &main).await["caller"], "infra");
    gateway.click_refused(&Click::approve("U0BOB", &main)).await;

    // Back again: the approval for it is there, but people were asked about another branch since, and are asked anew.
    gitlab.retarget("develop");
    let again = asked(&gateway, &into("develop")).await;
    assert!(again != develop && again != main);
    assert_eq!(status(&gateway, &main).await, "cancelled");
    assert_eq!(asked(&gateway, &into("develop")).await, again);
    gateway.click_ok(&Click::deny("U0BOB", &again)).await;
    gitlab.told(OLD, "failed").await;

    // The newest decision about it is what is told again.
    assert_eq!(asked(&gateway, &into("develop")).await, again);
    gateway.stop().await;
    let calls: Vec<String> = gitlab.calls().into_iter().map(|call| call.status).collect();
    assert_eq!(calls.iter().filter(|status| *status == "passed").count(), 1, "{calls:?}");
    assert_eq!(calls.last().map(String::as_str), Some("failed"), "{calls:?}");
}

#[tokio::test]
async fn an_approval_for_a_branch_that_is_not_the_target_any_more_is_not_reported() {
    let gitlab = Gitlab::start(OLD).await;
    gitlab.retarget("develop");
    let gateway = gitlab.configure(home()).start().await;
    let develop = asked(&gateway, &into("develop")).await;
    gitlab.told(OLD, "pending").await;

    // The delivery of the new target is still to come.
    gitlab.retarget("main");
    gateway.click_ok(&Click::approve("U0BOB", &develop)).await;
    gateway.stop().await;

    let passed = gitlab.calls().into_iter().any(|call| call.status == "passed");
    assert!(!passed, "{:?}", gitlab.calls());
}

#[tokio::test]
async fn what_was_closed_and_opened_again_or_asked_for_again_is_what_counts() {
    let gitlab = Gitlab::start(OLD).await;
    gitlab.retarget("develop");
    let gateway = gitlab.configure(home()).start().await;
    let first = asked(&gateway, &into("develop")).await;
    let mut closed = Gitlab::merge_request(OLD, "closed");
    closed["object_attributes"]["target_branch"] = json!("develop");
    let over = gateway.send(&Gitlab::delivery(&closed)).await;
    assert_eq!((over.status(), &over.json()["status"]), (200, &json!("cancelled")), "{}", over.text());

    let second = asked(&gateway, &into("develop")).await;
    assert_ne!(second, first);
    assert_eq!(status(&gateway, &second).await, "ready_for_approval");
    assert_eq!(asked(&gateway, &into("develop")).await, second);

    // Denied, and asked for again by people: the delivery is about that one now.
    gateway.click_ok(&Click::deny("U0BOB", &second)).await;
    gitlab.told(OLD, "failed").await;
    let third = asked_again(&gateway, &second, &into("develop")).await;
    assert_eq!(status(&gateway, &third).await, "ready_for_approval");
    let over = gateway.send(&Gitlab::delivery(&closed)).await;
    assert_eq!(over.json()["requestId"], json!(third), "{}", over.text());
    assert_eq!(status(&gateway, &third).await, "cancelled");
}

#[tokio::test]
async fn an_approval_of_an_older_attempt_does_not_stand_for_one_that_is_refused() {
    let github = Github::start().await;
    let gateway = github.configure(home()).start().await;
    let first = asked(&gateway, &Github::delivery(&github.waits(77, "production"))).await;
    github.commented(77, &first).await;

    // Started again by somebody whom the policy does not know.
    let mut again = github.waits(77, "production");
    again["deployment"]["id"] = json!(9_999);
    again["sender"] = json!({ "id": 666, "login": "mallory", "type": "User" });
    assert_eq!(gateway.send(&Github::delivery(&again)).await.status(), 403);
    assert_eq!(status(&gateway, &first).await, "cancelled");
    gateway.click_refused(&Click::approve("U0ALICE", &first)).await;

    assert_eq!(github.reviewed(77).await.state.as_deref(), Some("rejected"));
    gateway.stop().await;
    let approved = github.reviews(77).into_iter().any(|review| review.state.as_deref() == Some("approved"));
    assert!(!approved, "{:?}", github.reviews(77));
}

#[tokio::test]
async fn a_run_that_is_started_again_is_decided_by_its_newest_attempt_alone() {
    let github = Github::start().await;
    let gateway = github.configure(home()).start().await;
    let payload = github.waits(77, "production");
    let first = asked(&gateway, &Github::delivery(&payload)).await;
    github.commented(77, &first).await;

    let mut again = github.waits(77, "production");
    again["deployment"]["id"] = json!(9_999);
    again["sender"] = json!({ "id": 5_551, "login": "rita", "type": "User" });
    let second = asked(&gateway, &Github::delivery(&again)).await;
    github.commented(77, &second).await;
    assert_ne!(second, first);
    assert_eq!(status(&gateway, &first).await, "cancelled");
    gateway.click_refused(&Click::approve("U0ALICE", &first)).await;

    // Delivered once more, it is not asked about again.
    let outdated = gateway.send(&Github::delivery(&payload)).await;
    assert_eq!(
        (outdated.status(), &outdated.json()["requestId"]),
        (200, &Value::Null),
        "{}",
        outdated.text()
    );
    assert!(outdated.json()["ignored"].as_str().is_some_and(|why| why.contains("newer attempt")));

    gateway.click_ok(&Click::approve("U0ALICE", &second)).await;
    let review = github.reviewed(77).await;
    assert_eq!(review.state.as_deref(), Some("approved"));
    assert!(review.comment.contains(&second), "{review:?}");
    gateway.stop().await;
    let decided = github.reviews(77).into_iter().filter(|review| review.state.is_some()).count();
    assert_eq!((decided, github.refused()), (1, Vec::new()));
}
