//! SIGKILL at random moments while people press buttons over Socket Mode: Slack delivers again what was not acknowledged,
//! and each press that was acknowledged, the first time or a later one, counts once, or its person reads why not.
//!
//! `COUNTERSIGN_CRASH_SEED` repeats a run's choices, `COUNTERSIGN_CRASH_ROUNDS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};

use countersign_tests::{Home, Random, Receipt, Slack, unix_seconds, variable, within};
use futures_util::StreamExt as _;
use futures_util::future::join;
use futures_util::stream::FuturesUnordered;
use slack_simulator::{Delivered, Message, Route};
use tokio::sync::Semaphore;

use crate::ledger::Ledger;

const ROUNDS: u64 = 12;

/// How many requests each person presses on in a round.
const REQUESTS: usize = 6;

/// Those who may approve, and somebody who may not. More approvals are needed than there are people, so nothing ends.
const APPROVERS: [&str; 5] = ["U0ALICE", "U0BOB", "U0CAROL", "U0LEAD", "U0SEC"];
const STRANGER: &str = "U0MALLORY";

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 1h
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB, U0CAROL, U0LEAD, U0SEC, U0DANA], approvals: 6 }
";

#[tokio::test]
async fn a_press_over_socket_mode_survives_sigkill() {
    let number = |name| variable(name).and_then(|text| text.parse().ok());
    let seed = number("COUNTERSIGN_CRASH_SEED").unwrap_or_else(unix_seconds);
    let rounds = number("COUNTERSIGN_CRASH_ROUNDS").unwrap_or(ROUNDS);
    // Shown if the test fails.
    println!("COUNTERSIGN_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let slack = Slack::start().await;
    slack.set_route(Route::Socket);
    let mut home = Home::new(ACTIONS).with_slack(&slack).with_socket_mode(&slack);
    let mut acknowledged: BTreeSet<(String, String)> = BTreeSet::new();
    let mut redelivered = 0;
    for _ in 0..rounds {
        let gateway = home.start().await;
        within("sockets", slack.until(|slack| (slack.sockets() == 2).then_some(()))).await;
        let mut requests: Vec<(Receipt, Message)> = Vec::new();
        for _ in 0..REQUESTS {
            let request = gateway.open("deploy").await;
            let message = slack.shown(&request.id).await;
            requests.push((request, message));
        }
        slack.person(STRANGER).dismiss_ephemerals();

        // Everybody presses on one request after the other, so at the kill each press is somewhere else on its way.
        let progress = Semaphore::new(0);
        let people = APPROVERS.into_iter().chain([STRANGER]);
        let pressing: FuturesUnordered<_> =
            people.map(|user| press(&slack, user, &requests, &progress)).collect();
        let most = (APPROVERS.len() + 1) * REQUESTS - APPROVERS.len();
        let target = random.below(u64::try_from(most).expect("it is small"));
        let killing = async {
            let target = u32::try_from(target).expect("it is small");
            within("acknowledgements", progress.acquire_many(target))
                .await
                .expect("it is never closed")
                .forget();
            gateway.kill().start().await
        };
        let (gateway, pressed) = join(killing, pressing.collect::<Vec<_>>()).await;

        let mut untold = 0;
        for Pressed { user, request, delivered } in pressed.into_iter().flatten() {
            // What Slack gave up, it says so to the person; that takes a machine that is busy for many seconds.
            let Delivered::Acknowledged { attempts, .. } = delivered else { continue };
            redelivered += u32::from(attempts > 1);
            if user != STRANGER {
                acknowledged.insert((request, user));
            } else if attempts > 1 {
                untold += 1;
            }
        }
        let told = slack.until(|slack| (slack.person(STRANGER).ephemerals().len() >= untold).then_some(()));
        within("the stranger to be told of each press that was delivered again", told).await;
        home = gateway.kill();
        check(&home, &acknowledged);
    }
    println!("{} presses acknowledged, {redelivered} of them delivered again", acknowledged.len());
    assert!(!acknowledged.is_empty() && redelivered > 0, "the kills hit nothing");
}

/// A press, and what became of its delivery.
struct Pressed {
    user: String,
    request: String,
    delivered: Delivered,
}

/// Presses Approve on each request; adds a permit to `progress` for each acknowledgement.
async fn press(
    slack: &Slack,
    user: &str,
    requests: &[(Receipt, Message)],
    progress: &Semaphore,
) -> Vec<Pressed> {
    let mut pressed = Vec::new();
    for (request, message) in requests {
        let clicked = slack.person(user).click(message, "approve").await;
        progress.add_permits(1);
        let delivered =
            clicked.deliveries.into_iter().next().expect("it is delivered once, however often it is tried");
        pressed.push(Pressed { user: user.to_owned(), request: request.id.clone(), delivered });
    }
    pressed
}

/// Checks that the killed gateway stored each acknowledged press, and stored it once.
fn check(home: &Home, acknowledged: &BTreeSet<(String, String)>) {
    let ledger = Ledger::of(home);
    assert!(ledger.is_sound(), "the database is damaged");
    let mut counted: BTreeMap<(String, String), usize> = BTreeMap::new();
    for entry in ledger.entries("approval_recorded") {
        let text = |key: &str| entry[key].as_str().expect(key).to_owned();
        *counted.entry((text("requestId"), text("actor"))).or_default() += 1;
    }
    let lost: Vec<_> = acknowledged.iter().filter(|press| !counted.contains_key(*press)).collect();
    assert!(lost.is_empty(), "{} acknowledged presses are lost: {lost:?}", lost.len());
    let twice: Vec<_> = counted.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "presses counted more than once: {twice:?}");
}
