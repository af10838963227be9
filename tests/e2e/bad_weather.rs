//! A storm: many requests that change often, while Slack answers badly, restarts, and the gateway is killed.
//!
//! In the end every message shows its final state, none was posted twice, and far fewer updates were sent than changes
//! were made. The figures are printed; `COUNTERSIGN_STORM_REQUESTS=500` is the size of those in docs/PERFORMANCE.md.
//!
//! It waits for most of its time. Tests are begun in the order of their names, and other ones run meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_tests::{Api, Click, Home, Receipt, Slack, Stopwatch, variable};
use futures_util::future::join_all;
use slack_simulator::{ChannelProfile, Faults, Simulator};

const REQUESTS: usize = 120;
const CHANNELS: usize = 10;
const AT_ONCE: usize = 8;

/// How long the test may take. Calls that are left unanswered take ten seconds each.
const PATIENCE: Duration = Duration::from_secs(600);

/// Five changes: an acknowledgement and four approvals.
const STEPS: [(&str, Option<&str>); 5] =
    [("U0SEC", Some("security")), ("U0ALICE", None), ("U0BOB", None), ("U0CAROL", None), ("U0LEAD", None)];

fn actions() -> String {
    let action = |channel| {
        format!(
            "
  deploy{channel}:
    description: Deploy to production
    timeout: 1h
    channel: C0STORM{channel}
    policies:
      - use: persona-gate
        with: {{ personas: {{ security: [U0SEC] }} }}
      - use: quorum
        with: {{ approvers: [U0ALICE, U0BOB, U0CAROL, U0LEAD], approvals: 4 }}"
        )
    };
    (0..CHANNELS).map(action).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_or_doubled_and_all_are_up_to_date_in_the_end() {
    let count = variable("COUNTERSIGN_STORM_REQUESTS").and_then(|text| text.parse().ok()).unwrap_or(REQUESTS);
    let watch = Stopwatch::start();
    let slack = Slack::start().await;
    for channel in 0..CHANNELS {
        slack.set_channel(ChannelProfile::new(&format!("C0STORM{channel}"), &format!("storm-{channel}")));
    }
    let weather = Faults {
        rate_limited: 0.3,
        retry_after: 1,
        server_error: 0.1,
        timeout: 0.05,
        methods: vec!["chat.postMessage".into(), "chat.update".into()],
        ..Faults::none()
    };
    slack.set_faults(weather);
    let gateway = Home::new(&actions()).with_slack(&slack).start().await;

    // Half-way through, the gateway is killed.
    let requests = join_all((0..AT_ONCE).map(|part| open(*gateway, part, count))).await;
    let requests: Vec<Receipt> = requests.into_iter().flatten().collect();
    run(*gateway, &requests, &STEPS[..2]).await;
    let gateway = gateway.kill().start().await;
    run(*gateway, &requests, &STEPS[2..3]).await;
    slack.restart();
    // A request that ended before it was posted would have no message.
    let posted = slack.until(|slack| {
        let posted: BTreeSet<String> = slack
            .messages()
            .iter()
            .filter_map(|message| message.mark("request_id").map(str::to_owned))
            .collect();
        (posted.len() == requests.len()).then_some(())
    });
    tokio::time::timeout(PATIENCE, posted).await.expect("everything is posted");
    run(*gateway, &requests, &STEPS[3..]).await;
    let acted = watch.elapsed();

    let settled = async {
        while gateway.metrics().await.count("outbox_depth", &[]) > 0 {
            // The gateway is asked again whenever something happens in Slack, and not in between.
            let calls = slack.counts();
            slack.until(|slack| (slack.counts() != calls).then_some(())).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("everything is delivered in the end");

    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in slack.messages() {
        let request = message.mark("request_id").expect("every message is of a request").to_owned();
        shown.entry(request).or_default().push(message.shown());
    }
    assert_eq!(shown.len(), requests.len(), "requests without a message");
    for request in &requests {
        let messages = &shown[&request.id];
        assert_eq!(messages.len(), 1, "{} was posted {} times", request.id, messages.len());
        assert!(messages[0].contains("Approved"), "{}: {}", request.id, messages[0]);
        assert_eq!(gateway.look(&request.token).await["status"], "approved");
    }
    let changes = requests.len() * STEPS.len();
    let updates = slack.counts().with("chat.update", "ok");
    println!("{}", figures(&slack, changes, acted, watch.elapsed()));
    assert!(updates * 2 < changes as u64, "{updates} updates were sent for {changes} changes");
}

async fn open(gateway: Api, part: usize, count: usize) -> Vec<Receipt> {
    let mut requests = Vec::new();
    for number in (part..count).step_by(AT_ONCE) {
        requests.push(gateway.open(&format!("deploy{}", number % CHANNELS)).await);
    }
    requests
}

/// The steps that people take on each request.
async fn run(gateway: Api, requests: &[Receipt], steps: &[(&str, Option<&str>)]) {
    for (user, persona) in steps {
        let act = |part: usize| async move {
            for request in requests.iter().skip(part).step_by(AT_ONCE) {
                let click = match persona {
                    Some(persona) => Click::acknowledge(persona, user, &request.id),
                    None => Click::approve(user, &request.id),
                };
                gateway.click_ok(&click).await;
            }
        };
        join_all((0..AT_ONCE).map(act)).await;
    }
}

fn figures(slack: &Simulator, changes: usize, acted: Duration, all: Duration) -> String {
    let counts = slack.counts();
    let mut text = format!("{changes} changes in {acted:.1?}, all shown after {all:.1?}\n");
    for (method, outcome, times) in counts.iter() {
        text.push_str(&format!("  {method} {outcome}: {times}\n"));
    }
    text
}
