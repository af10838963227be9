//! A request that needs more people than can act on it is not made, unless its action allows that.

use countersign_tests::{ApiKey, Ask, Call, Click, Gateway, Home, Problem, Receipt, Slack, within};
use serde_json::Value;

use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    rerequest: { cooldown: 0s, limit: 5, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB] }
  release:
    description: Release
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [\"@release-managers\", U0BOB], approvals: 3 }
  nobodys:
    description: Only people who are not there yet may decide
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [\"@nobody\"] }
  waits:
    description: The same, and it waits for them
    timeout: 10m
    unsatisfiable: allow
    policies:
      - use: quorum
        with: { approvers: [\"@nobody\"] }
  unknown:
    description: Slack has to say who may decide
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [\"@elsewhere\"], approvals: 9 }
";

/// A home whose policy set has a group without members, and one whose members only a Slack knows that is not asked.
fn home() -> Home {
    Home::new(ACTIONS)
        .change("  super-approvers:", "  nobody: []\n  elsewhere: [S0ELSEWHERE]\n  super-approvers:")
}

fn asked_by(action: &str, id: &str) -> Ask {
    Ask::new(action).requester(id)
}

async fn refused(gateway: &Gateway, ask: &Ask) -> Vec<String> {
    reasons(&gateway.create(ask).await.expect_err("nobody can approve it"))
}

fn reasons(problem: &Problem) -> Vec<String> {
    assert_eq!(problem.is(), (422, "unsatisfiable"), "{problem:?}");
    let reasons = problem.body["reasons"].as_array().expect("reasons");
    let message = |reason: &Value| {
        assert_eq!(reason["code"], "too_few_people", "{reason}");
        reason["message"].as_str().expect("a message").to_owned()
    };
    reasons.iter().map(message).collect()
}

/// Waits until what Slack says about Bob has arrived: one more request is refused then.
async fn knows_who_has_left(gateway: &Gateway) {
    let known = async {
        while let Ok(made) = gateway.create(&asked_by("deploy", "U0ALICE")).await {
            gateway.cancel(&made.token, None).await.expect("it is open");
        }
    };
    within("users to be asked about", known).await;
}

#[tokio::test]
async fn what_nobody_could_ever_approve_is_not_made() {
    let slack = Slack::start().await;
    slack.deactivate("U0BOB");
    let gateway = slack.gateway(home()).await;
    knows_who_has_left(&gateway).await;

    let rows = [
        (
            asked_by("deploy", "U0ALICE"),
            "an approval is needed that nobody can give; may not act on this request: U0ALICE; has left Slack: U0BOB",
        ),
        (
            asked_by("release", "U0REQ"),
            "3 approvals are needed, which only 2 people can give: U0RM1, U0RM2; has left Slack: U0BOB",
        ),
        (
            asked_by("release", "U0RM1"),
            "3 approvals are needed, which only one person can give: U0RM2; may not act on this request: U0RM1; \
             has left Slack: U0BOB",
        ),
        (
            asked_by("nobodys", "U0REQ"),
            "an approval is needed that nobody can give; is a group without members: nobody",
        ),
    ];
    for (ask, reason) in &rows {
        assert_eq!(refused(&gateway, ask).await, [*reason]);
    }
    // With the same key it is asked anew: nothing was made.
    let keyed = asked_by("deploy", "U0ALICE").idempotency_key("run-1");
    refused(&gateway, &keyed).await;
    refused(&gateway, &keyed).await;

    gateway.open("deploy").await;
    let waits = gateway.open("waits").await;
    assert_eq!(gateway.look(&waits.token).await["status"], "ready_for_approval");
    // Who is in the group is not known, which is no reason against a request.
    gateway.open("unknown").await;

    assert_eq!(gateway.metrics().await.count("pending_requests", &[]), 3);
    gateway.logged("\"outcome\":\"unsatisfiable\"", rows.len() + 3).await;
    let home = gateway.kill();
    assert_eq!(Ledger::of(&home).count_of("unsatisfiable"), rows.len() + 3);
}

#[tokio::test]
async fn what_is_made_again_is_counted_too() {
    let slack = Slack::start().await;
    slack.deactivate("U0BOB");
    let gateway = slack.gateway(home()).await;
    knows_who_has_left(&gateway).await;
    let request = gateway.open("deploy").await;
    // What has ended before it is posted is not posted.
    slack.shown(&request.id).await;
    gateway.click_ok(&Click::deny("U0ALICE", &request.id)).await;
    let message = slack.shown_when(&request.id, "to be denied", |message| message.shown().contains("Denied"));
    let message = message.await;

    let stricter =
        ACTIONS.replace("approvers: [U0ALICE, U0BOB] }", "approvers: [U0ALICE, U0BOB], approvals: 2 }");
    let before = gateway.policy().await;
    let set = gateway.home().policy_set();
    gateway.home().set_policy_set(&set.replace(ACTIONS, &stricter));
    gateway.hang_up();
    let changed = async {
        while gateway.policy().await == before {
            tokio::task::yield_now().await;
        }
    };
    within("the stricter rules", changed).await;

    let problem = gateway.rerequest(&request, "U0REQ").await.expect_err("one of the two has left");
    let reason = "2 approvals are needed, which only one person can give: U0ALICE; has left Slack: U0BOB";
    assert_eq!(reasons(&problem), [reason]);
    slack.person("U0REQ").click(&message, "re_request").await;
    let told = slack.ephemeral("U0REQ", 1).await.shown();
    assert!(told.contains("nobody could ever approve it"), "{told}");
}

#[tokio::test]
async fn whoever_a_program_asks_for_is_not_counted() {
    let key = ApiKey::new("nightly");
    let file = |owners: &str| {
        format!(
            "version: 1\ncallers:\n  nightly:\n    keys:\n      {}\n    requester: machine\n    owners: [{owners}]\n    \
             actions: [\"*\"]\npeople:\n  dana: {{ slack: [U0ALICE, W0ALICE] }}\n  robin: {{ slack: U0ROBIN }}\n",
            key.line
        )
    };
    let mut body = Ask::new("deploy").body();
    body["meta"].as_object_mut().expect("an object").remove("requester");
    let call = Call::post("/api/guard/request", &body).bearer(&key.secret);

    let gateway = home().with_access(&file("dana")).start().await;
    Receipt::read(gateway.send(&call).await).expect("Bob can approve");
    let home = gateway.stop().await;
    let home = home.change("approvers: [U0ALICE, U0BOB]", "approvers: [W0ALICE, U0ALICE]");
    let gateway = home.start().await;
    let problem = Receipt::read(gateway.send(&call).await).expect_err("Dana is the owner, under both names");
    let reason = "an approval is needed that nobody can give; may not act on this request: W0ALICE";
    assert!([reason, &reason.replace("W0", "U0")].contains(&reasons(&problem)[0].as_str()), "{problem:?}");
    let home = gateway.stop().await.with_access(&file("robin"));
    let gateway = home.start().await;
    Receipt::read(gateway.send(&call).await).expect("Robin is the owner");
}

#[test]
fn a_set_says_it_for_all_its_actions() {
    let home = home();
    let hashes = |home: &Home| {
        let checked = home.policy_done(&["check", "./policies", "--format", "json"]);
        serde_json::from_str::<Value>(&checked).expect("JSON")["actions"].clone()
    };
    let before = hashes(&home);
    let home = home.change("unknown_action: deny", "unsatisfiable: refuse, unknown_action: deny");
    assert_eq!(hashes(&home), before, "it is what a set that says nothing means");
    let home = home.change("unsatisfiable: refuse,", "unsatisfiable: allow,");
    assert_ne!(hashes(&home), before);
    let wrong = home.change("unsatisfiable: allow,", "unsatisfiable: maybe,");
    let output = wrong.policy(&["check", "./policies"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && said.contains("`unsatisfiable` must be `refuse` or `allow`, not `maybe`"),
        "{said}"
    );
}
