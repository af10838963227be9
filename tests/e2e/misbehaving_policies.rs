//! A policy that loops, eats memory, overflows its stack, traps or gives a malformed answer: nothing is approved by it,
//! nothing changes, and the gateway keeps running.

use countersign_tests::{Ask, Click, Gateway, Home, within};

use crate::ledger::Ledger;

/// What a policy does, and the kind under which its failure is counted.
const DEEDS: [(&str, &str); 5] = [
    ("loop", "fuel"),
    ("eat_memory", "memory"),
    ("overflow_stack", "trap"),
    ("trap", "trap"),
    ("huge_output", "malformed"),
];

/// Behaves while the policy set is checked, and for everybody but this requester.
const VICTIM: &str = "U0VICTIM";

fn actions(at: &str, behaviours: &[&str]) -> String {
    let actions = behaviours.iter().map(|behaviour| {
        format!(
            "
  {behaviour}:
    description: Goes wrong
    timeout: 10m
    policies:
      - use: quorum
        with: {{ approvers: [U0ALICE] }}
      - use: misbehaving
        with: {{ at: {at}, do: {behaviour}, requester: {VICTIM} }}
"
        )
    });
    actions.collect()
}

#[tokio::test]
async fn a_failure_at_admission_is_a_503() {
    let mut behaviours = DEEDS.to_vec();
    behaviours.push(("malformed_memo", "malformed"));
    check_creates("admit", &behaviours).await;
}

#[tokio::test]
async fn a_failure_at_the_first_judgement_is_a_503() {
    check_creates("judge", &DEEDS).await;
}

async fn check_creates(at: &str, behaviours: &[(&str, &str)]) {
    let names: Vec<&str> = behaviours.iter().map(|(behaviour, _)| *behaviour).collect();
    let gateway = Home::new(&actions(at, &names)).start().await;
    for (behaviour, kind) in behaviours {
        let before = failures(&gateway, kind).await;

        let refused =
            gateway.create(&Ask::new(behaviour).requester(VICTIM)).await.expect_err("it goes wrong");

        assert_eq!(refused.is(), (503, "policy_failure"), "{behaviour}");
        assert!(refused.retry_after.is_some(), "{behaviour}");
        count_to(&gateway, kind, before + 1).await;
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.count("approval_requests_total", &[("action", behaviour)]), 0, "{behaviour}");
        // The same modules serve others as before.
        let request = gateway.open(behaviour).await;
        gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
        assert_eq!(gateway.ended(&request.token).await["status"], "approved", "{behaviour}");
    }
    assert_eq!(Ledger::of(&gateway.kill()).count_of("policy_failure"), behaviours.len());
}

#[tokio::test]
async fn a_failure_at_a_vote_leaves_the_request_as_it_was() {
    let names: Vec<&str> = DEEDS.iter().map(|(behaviour, _)| *behaviour).collect();
    let gateway = Home::new(&actions("vote", &names)).administered().start().await;
    for (behaviour, kind) in DEEDS {
        let request = gateway.create(&Ask::new(behaviour).requester(VICTIM)).await.expect("it is admitted");
        let before = (gateway.look(&request.token).await, audited(&gateway, kind).await);
        for click in [Click::approve("U0ALICE", &request.id), Click::deny("U0ALICE", &request.id)] {
            assert_eq!(gateway.click_refused(&click).await, "policy_failure", "{behaviour}");
        }
        assert_eq!(gateway.look(&request.token).await, before.0, "{behaviour} changed something");
        // A vote whose answer takes longer than Slack waits is delivered again, and fails again.
        let failed = audited(&gateway, kind).await;
        assert!(failed >= before.1 + 2, "{behaviour}: {failed} after {}", before.1);
        count_to(&gateway, kind, failed).await;
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("approvals_total", &[]) + metrics.count("denies_total", &[]), 0);
    assert_eq!(metrics.count("pending_requests", &[]), 5);
}

#[tokio::test]
async fn many_failures_at_once_hold_up_nobody_for_long() {
    let gateway = Home::new(&actions("admit", &["loop", "eat_memory"])).start().await;
    let api = *gateway;
    let storm = (0..40).map(|n| {
        let ask = Ask::new(if n % 2 == 0 { "loop" } else { "eat_memory" }).requester(VICTIM);
        async move { api.create(&ask).await }
    });
    let storm = tokio::spawn(futures_util::future::join_all(storm));
    for _ in 0..10 {
        let request = gateway.open("loop").await;
        gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    }
    for answer in storm.await.expect("every one is answered") {
        assert_eq!(answer.expect_err("it goes wrong").is(), (503, "policy_failure"));
    }
}

#[tokio::test]
async fn a_policy_that_fails_on_any_request_is_refused_at_start() {
    let rows =
        DEEDS.iter().flat_map(|(behaviour, _)| ["check-config", "admit", "judge"].map(|at| (at, *behaviour)));
    for (at, behaviour) in rows {
        let home = Home::new(&actions(at, &[behaviour]).replace(&format!(", requester: {VICTIM}"), ""));
        let failure = home.fail_to_start().await;
        assert!(failure.code.is_some_and(|code| code != 0), "{behaviour} at {at}: {failure:?}");
        for part in ["policy-set.yaml:", "misbehaving"] {
            assert!(failure.stderr.contains(part), "{behaviour} at {at}: {}", failure.stderr);
        }
    }
}

/// Waits until so many failures are counted: metrics that are asked for often are up to a second old.
async fn count_to(gateway: &Gateway, kind: &str, number: u64) {
    let counted = async {
        while failures(gateway, kind).await != number {
            tokio::task::yield_now().await;
        }
    };
    within(&format!("{number} failures to be counted as {kind}"), counted).await;
}

/// How many failures of acts the audit log has.
async fn audited(gateway: &Gateway, kind: &str) -> u64 {
    let log = gateway.seen("audit?event=policy_failure").await;
    let entries = log["entries"].as_array().expect("entries");
    let failures = entries.iter().flat_map(|it| it["entry"]["failures"].as_array().expect("of an act"));
    failures.filter(|failure| failure["kind"] == kind).count() as u64
}

async fn failures(gateway: &Gateway, kind: &str) -> u64 {
    gateway.metrics().await.count("policy_failures_total", &[("policy", "misbehaving"), ("kind", kind)])
}
