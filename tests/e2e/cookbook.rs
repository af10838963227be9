//! Every entry of the cookbook does what the document says, and the document shows the files that are tested.

use std::fs;
use std::path::Path;

use countersign_tests::{Ask, Click, Gateway, Home, Receipt, millis, project, unix_seconds};
use serde_json::{Value, json};

const ENTRIES: &str = "policies/examples";

#[test]
fn the_document_shows_the_files_that_are_tested() {
    let document = fs::read_to_string(project("docs/COOKBOOK.md")).expect("there is a cookbook");
    let mut sets = 0;
    for entry in fs::read_dir(project(ENTRIES)).expect("there are entries") {
        let entry = entry.expect("the folder can be read").path();
        let shows = |file: &Path, language: &str| {
            let text = fs::read_to_string(file).expect("the file can be read");
            let shown = document.contains(&format!("```{language}\n{text}```"));
            assert!(shown, "docs/COOKBOOK.md does not show `{}` as it is", file.display());
        };
        shows(&entry.join("policy-set.yaml"), "yaml");
        sets += 1;
        for schema in fs::read_dir(entry.join("schemas")).into_iter().flatten() {
            shows(&schema.expect("the folder can be read").path(), "json");
        }
    }
    assert_eq!(
        document.matches("```yaml\nversion: 1\n").count(),
        sets,
        "the document shows other policy sets too"
    );
}

#[tokio::test]
async fn every_entry_is_complete_and_runs_as_it_is() {
    for (entry, action, params) in [
        ("single-approver", "deploy_staging", json!({"service": "web", "ref": "v1"})),
        ("two-of-three", "rotate_secret", json!({"name": "db", "secret": "hunter2"})),
        ("personas-with-escalation", "deploy_prod", json!({"service": "web", "ref": "v1", "replicas": 2})),
        ("four-eyes", "migrate_database", json!({"migration": "0042"})),
        ("business-hours", "deploy_prod", json!({"service": "web", "ref": "v1"})),
        ("threshold", "refund", json!({"order": "A1", "amount": 500, "currency": "EUR"})),
        ("freeze-calendar", "deploy_prod", json!({"service": "web", "ref": "v1"})),
    ] {
        let gateway = Home::cookbook(entry).start().await;
        let request = gateway.create(&Ask::new(action).params(params)).await;
        let status = request.unwrap_or_else(|problem| panic!("{entry}: {problem:?}")).body["status"].clone();
        // Some of them depend on the calendar, and this test runs on any day.
        assert!(
            ["pending", "awaiting_personas", "ready_for_approval"].iter().any(|open| status == *open),
            "{entry}"
        );
    }
}

#[tokio::test]
async fn a_single_approver_decides() {
    let gateway = Home::cookbook("single-approver").start().await;
    let ask = Ask::new("deploy_staging").params(json!({"service": "web", "ref": "v1", "token": "hunter2"}));
    let request = gateway.create(&ask.clone().requester("U0ALICE")).await.expect("it is admitted");
    assert_eq!(request.body["status"], "ready_for_approval");

    assert_eq!(gateway.click_refused(&Click::approve("U0MALLORY", &request.id)).await, "unauthorized");
    assert_refused(&gateway, &Click::approve("U0ALICE", &request.id), "requester_may_not_approve").await;
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;

    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["approvers"]), (&json!("approved"), &json!(["U0BOB"])));
    assert_eq!(after["decisionParams"], json!({"service": "web", "ref": "v1", "token": "[redacted]"}));

    let denied = gateway.create(&ask).await.expect("it is admitted");
    gateway.click_ok(&Click::deny_because("U0ALICE", &denied.id, "the build is red")).await;
    let after = gateway.ended(&denied.token).await;
    assert_eq!((&after["status"], &after["reason"]), (&json!("denied"), &json!("the build is red")));
}

#[tokio::test]
async fn two_of_three_agree() {
    let gateway = Home::cookbook("two-of-three").change("cooldown: 5m", "cooldown: 1s").start().await;
    let ask = Ask::new("rotate_secret").params(json!({"name": "db", "secret": "hunter2"}));
    let request = gateway.create(&ask).await.expect("it is admitted");

    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(gateway.click_refused(&Click::approve("U0ALICE", &request.id)).await, "duplicate_approval");
    let halfway = gateway.status(&request.id).await;
    assert_eq!((&halfway["approvalsCount"], &halfway["minApprovals"]), (&json!(1), &json!(2)));
    gateway.click_ok(&Click::deny("U0BOB", &request.id)).await;
    assert_eq!(gateway.ended(&request.token).await["status"], "denied");

    let again = gateway.rerequest_patiently(&request, "U0REQ").await;
    gateway.click_ok(&Click::approve("U0CAROL", &again.id)).await;
    gateway.click_ok(&Click::approve("U0ADMIN", &again.id)).await;
    let after = gateway.ended(&again.token).await;
    assert_eq!((&after["status"], &after["approvers"]), (&json!("approved"), &json!(["U0CAROL", "U0ADMIN"])));
    assert_eq!(after["decisionParams"], json!({"name": "db", "secret": "[redacted]"}));
}

/// The entry, with shorter times: it escalates after ten seconds.
fn fast_deployments() -> Home {
    Home::cookbook("personas-with-escalation")
        .change("timeout: 20m", "timeout: 60s")
        .change("before: 5m", "before: 50s")
}

#[tokio::test]
async fn personas_see_it_first_and_an_escalation_asks_for_more() {
    let gateway = fast_deployments().start().await;
    let params = json!({"service": "web", "ref": "v1", "replicas": 2});
    let request = gateway.create(&Ask::new("deploy_prod").params(params)).await.expect("it is admitted");
    let mut stream = gateway.stream(&request.token).await;
    assert_eq!(stream.state().await.status(), "awaiting_personas");

    assert_refused(&gateway, &Click::approve("U0ALICE", &request.id), "personas_pending").await;
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    gateway.click_ok(&Click::acknowledge("release", "U0RM2", &request.id)).await;
    assert_eq!(gateway.status(&request.id).await["minApprovals"], 1);

    while gateway.metrics().await.count("escalations_total", &[("action", "deploy_prod")]) == 0 {
        stream.state().await;
    }
    assert_eq!(gateway.status(&request.id).await["minApprovals"], 2);
    let too_many = gateway.click(&Click::edit("U0ALICE", &request.id, &[("replicas", "50")])).await;
    assert!(too_many.to_string().contains("replicas must be a whole number from 1 to 20"), "{too_many}");
    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &[("replicas", "4")])).await;
    let edited = gateway.look(&request.token).await;
    assert_eq!(edited["status"], "ready_for_approval");
    gateway.click_ok(&Click::approve("U0CAROL", &request.id).beside(&edited["payloadHash"])).await;

    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["overrides"]), (&json!("approved"), &json!({"replicas": 4})));
}

#[tokio::test]
async fn before_the_escalation_one_approver_is_enough() {
    let gateway = Home::cookbook("personas-with-escalation").start().await;
    let params = json!({"service": "web", "ref": "v1", "replicas": 2});
    let request = gateway.create(&Ask::new("deploy_prod").params(params)).await.expect("it is admitted");
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    gateway.click_ok(&Click::acknowledge("release", "U0RM1", &request.id)).await;
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;
    assert_eq!(gateway.ended(&request.token).await["status"], "approved");
}

#[tokio::test]
async fn four_eyes_are_two_people_of_two_groups() {
    let gateway = Home::cookbook("four-eyes").start().await;
    for (people, approved) in [
        (&["U0DEV1", "U0OPS1"][..], true),
        // Two of one group are not enough, whoever joins later.
        (&["U0DEV1", "U0DEV2"], false),
        (&["U0OPS2", "U0OPS1", "U0DEV2"], true),
        // Somebody who is in both groups counts in both, and is one person.
        (&["U0BOTH"], false),
        (&["U0BOTH", "U0OPS1"], true),
        (&["U0BOTH", "U0DEV1"], true),
        // So does a super approver.
        (&["U0ADMIN"], false),
        (&["U0ADMIN", "U0DEV1"], true),
    ] {
        let ask = Ask::new("migrate_database").params(json!({"migration": "0042"}));
        let request = gateway.create(&ask).await.expect("it is admitted");
        assert_eq!(gateway.status(&request.id).await["minApprovals"], 2);
        for person in people {
            gateway.click_ok(&Click::approve(person, &request.id)).await;
        }
        let after = gateway.look(&request.token).await;
        let expected = if approved { "approved" } else { "ready_for_approval" };
        assert_eq!(after["status"], expected, "{people:?}: {after}");
    }
}

/// The entry with business hours that begin at this time, on every day, for half an hour.
fn hours_that_begin_at(opening: u64) -> Home {
    // It is about noon now, so that no midnight is near.
    let now = unix_seconds();
    let offset = 12 - i64::try_from(now / 3600 % 24).expect("a day has 24 hours");
    let opening = now % 3600 + (opening - now);
    let clock = |second: u64| format!("{:02}:{:02}:{:02}", 12 + second / 3600, second / 60 % 60, second % 60);
    let hours = format!(
        "hours: [{{ days: [mon, tue, wed, thu, fri, sat, sun], from: \"{}\", until: \"{}\" }}]\n          \
         utc_offset: \"{}{:02}:00\"\n      ",
        clock(opening),
        clock(opening + 1800),
        if offset < 0 { '-' } else { '+' },
        offset.abs()
    );
    let home = Home::cookbook("business-hours");
    let set = home.policy_set();
    let (before, rest) = set.split_once("hours:\n").expect("the entry has hours");
    let (_, after) = rest.split_once("- use: quorum").expect("the entry has a quorum");
    home.set_policy_set(&format!("{before}{hours}- use: quorum{after}"));
    home
}

#[tokio::test]
async fn what_is_approved_out_of_hours_takes_effect_when_they_begin() {
    let opening = unix_seconds() + 8;
    let gateway = hours_that_begin_at(opening).start().await;
    let request = gateway.open("deploy_prod").await;
    assert_eq!(request.body["status"], "pending");

    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;

    assert_eq!(gateway.look(&request.token).await["status"], "pending");
    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["approvers"]), (&json!("approved"), &json!(["U0ALICE"])));
    let late =
        millis(&after["decidedAt"]) - i64::try_from(opening * 1000).expect("it is not far in the future");
    assert!((0..2000).contains(&late), "it was approved {late} ms after the hours began");
}

#[tokio::test]
async fn a_denial_counts_out_of_hours() {
    let gateway = hours_that_begin_at(unix_seconds() + 600).start().await;
    let request = gateway.open("deploy_prod").await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    gateway.click_ok(&Click::deny("U0BOB", &request.id)).await;
    assert_eq!(gateway.ended(&request.token).await["status"], "denied");
}

#[tokio::test]
async fn a_request_that_would_expire_before_business_hours_is_refused_at_once() {
    let gateway =
        hours_that_begin_at(unix_seconds() + 3000).change("timeout: 3d", "timeout: 30m").start().await;
    let refused = gateway.create(&Ask::new("deploy_prod")).await.expect_err("it could only expire");
    assert_eq!(refused.is(), (403, "policy_denied"));
    assert!(refused.body["reasons"].to_string().contains("closed_until_expiry"), "{:?}", refused.body);
}

#[tokio::test]
async fn the_largest_configurations_are_within_the_sandbox_s_limits() {
    let all = "[mon, tue, wed, thu, fri, sat, sun]";
    let hours: Vec<String> = (0..6)
        .map(|n| {
            format!("{{ days: {all}, from: \"{:02}:00:01\", until: \"{:02}:59:59\" }}", n * 4, n * 4 + 3)
        })
        .collect();
    let now = i64::try_from(unix_seconds()).expect("it is not far in the future");
    // One change an hour, from now on.
    let changes: Vec<String> = (0..40)
        .map(|n| {
            let offset = if n % 2 == 0 { "+14:00" } else { "-12:00" };
            format!("{{ at: \"{}\", utc_offset: \"{offset}\" }}", rfc3339(now + n * 3600))
        })
        .collect();
    let office = hours_that_begin_at(unix_seconds() + 60).change("timeout: 3d", "timeout: 30d");
    let set = office.policy_set();
    let (before, rest) = set.split_once("hours: [").expect("the entry has hours");
    let (_, after) = rest.split_once("- use: quorum").expect("the entry has a quorum");
    let largest =
        format!("hours: [{}]\n          offset_changes: [{}]\n      ", hours.join(", "), changes.join(", "));
    office.set_policy_set(&format!("{before}{largest}- use: quorum{after}"));
    office.start().await.open("deploy_prod").await;

    // The longest chain: each freeze overlaps the next one.
    let freezes: Vec<String> =
        (0..100).rev().map(|n| freeze(now - 60 + n * 3600, now + 3600 + n * 3600)).collect();
    let gateway = calendar(&freezes).start().await;
    assert_eq!(gateway.open("deploy_prod").await.body["status"], "pending");
}

#[tokio::test]
async fn small_amounts_need_nobody_and_large_ones_do() {
    let gateway = Home::cookbook("threshold").start().await;
    let refund = |amount: Value| {
        let params = json!({"order": "A1", "amount": amount, "currency": "EUR"});
        let ask = Ask::new("refund").params(params);
        let gateway = &gateway;
        async move { gateway.create(&ask).await.expect("it is admitted") }
    };
    let small = refund(json!(99.5)).await;
    assert_eq!(small.body["status"], "approved");
    let after = gateway.look(&small.token).await;
    assert_eq!((&after["approvers"], &after["decisionParams"]["amount"]), (&json!([]), &json!(99.5)));
    assert_eq!(gateway.metrics().await.count("approvals_total", &[("action", "refund")]), 1);

    for amount in [json!(100), json!("5"), json!(-5), json!(null)] {
        assert_eq!(refund(amount).await.body["status"], "ready_for_approval");
    }
    // The schema, which asks for an order and for euros, is about edits only.
    let foreign = Ask::new("refund").params(json!({"amount": 99.5, "currency": "USD"}));
    let foreign = gateway.create(&foreign).await.expect("it is admitted");
    assert_eq!(foreign.body["status"], "approved");

    let large = refund(json!(1000)).await;
    assert_eq!(gateway.click_refused(&Click::approve("U0MALLORY", &large.id)).await, "unauthorized");
    gateway.click_ok(&Click::approve("U0LEAD2", &large.id)).await;
    assert_eq!(gateway.ended(&large.token).await["approvers"], json!(["U0LEAD2"]));
}

#[tokio::test]
async fn what_needs_nobody_is_refused_unless_the_action_says_so() {
    let home = Home::cookbook("threshold").change("    unattended: true\n", "");
    let refused = home.fail_to_start().await;
    assert!(refused.stderr.contains("unattended: true"), "{}", refused.stderr);
}

fn rfc3339(second: i64) -> String {
    jiff::Timestamp::from_second(second).expect("it is not far in the future").to_string()
}

fn freeze(from: i64, until: i64) -> String {
    format!("{{ name: A freeze, from: \"{}\", until: \"{}\" }}", rfc3339(from), rfc3339(until))
}

/// The entry with another calendar.
fn calendar(freezes: &[String]) -> Home {
    let home = Home::cookbook("freeze-calendar");
    let set = home.policy_set();
    let (before, rest) = set.split_once("freezes:\n").expect("the entry has freezes");
    let (_, after) = rest.split_once("exempt:").expect("the entry exempts somebody");
    home.set_policy_set(&format!("{before}freezes: [{}]\n          exempt:{after}", freezes.join(", ")));
    home
}

#[tokio::test]
async fn a_freeze_refuses_approvals_until_it_is_over_or_lifted() {
    let now = i64::try_from(unix_seconds()).expect("it is not far in the future");
    let end = now + 8;
    let gateway = calendar(&[freeze(now - 60, end)]).start().await;
    let (waits, urgent) = (gateway.open("deploy_prod").await, gateway.open("deploy_prod").await);
    let mut stream = gateway.stream(&waits.token).await;
    assert_eq!(stream.state().await.status(), "pending");

    for Receipt { id, .. } in [&waits, &urgent] {
        assert_refused(&gateway, &Click::approve("U0ALICE", id), "frozen").await;
    }
    gateway.click_ok(&Click::approve("U0IC2", &urgent.id)).await;
    assert_eq!(gateway.ended(&urgent.token).await["approvers"], json!(["U0IC2"]));

    // A refused approval does not come back when the freeze is over.
    assert_eq!(stream.state().await.status(), "ready_for_approval");
    let after = gateway.look(&waits.token).await;
    assert_eq!(after["approvers"], json!([]));
    assert!(i64::try_from(unix_seconds()).expect("it is not far in the future") >= end, "it was over early");
    gateway.click_ok(&Click::approve("U0ALICE", &waits.id)).await;
    assert_eq!(gateway.ended(&waits.token).await["status"], "approved");
}

#[tokio::test]
async fn a_freeze_that_nobody_may_lift_refuses_the_request() {
    let now = i64::try_from(unix_seconds()).expect("it is not far in the future");
    let home =
        calendar(&[freeze(now - 60, now + 30 * 86_400)]).change("exempt: [\"@incident-commanders\"]\n", "\n");
    let refused =
        home.start().await.create(&Ask::new("deploy_prod")).await.expect_err("it could only expire");
    assert_eq!(refused.is(), (403, "policy_denied"));
    assert!(refused.body["reasons"].to_string().contains("frozen"), "{:?}", refused.body);
}

/// A click that must not count, for this reason.
async fn assert_refused(gateway: &Gateway, click: &Click, code: &str) {
    let answer = gateway.click(click).await;
    assert_eq!(answer["ok"], false, "{click:?}: {answer}");
    assert!(answer["reasons"].to_string().contains(code), "{click:?}: {answer}");
}
