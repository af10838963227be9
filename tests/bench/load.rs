//! How the gateway holds with many requests open and many streams at once, each decided after a random time: `cargo xtask
//! load`.
//!
//! Every request of a run must end as it was decided, once: what is lost, doubled or mixed up fails the run.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_tests::{Ask, Call, Click, Gateway, Random, Receipt, Stopwatch, variable};
use futures_util::future::{try_join, try_join_all};

use crate::report::Report;
use crate::sample::Sample;
use crate::setup;

/// How many requests are open at once.
const PENDING: usize = 200;
/// How many of their callers have an event stream; the others poll.
const STREAMS: usize = 50;
/// The longest time that somebody takes to decide, in milliseconds.
const SLOWEST_MS: u64 = 1_000;

/// What one caller has seen.
#[derive(Default)]
struct Seen {
    creation: Sample,
    decision: Sample,
    delivery: Sample,
    ids: Vec<String>,
    approved: u64,
    /// Presses that were kept in the spool, and applied later.
    later: usize,
}

pub(crate) async fn measure(report: &mut Report, seed: u64, rounds: usize) -> Result<()> {
    let store = variable("COUNTERSIGN_TEST_STORE").unwrap_or_else(|| "sqlite".to_owned());
    eprintln!("store {store}, seed {seed}");
    let gateway = setup::gateway().await;
    let watch = Stopwatch::start();
    let callers = (0..PENDING).map(|number| call(&gateway, number, seed, rounds));
    let seen = try_join_all(callers).await?;
    let took = watch.elapsed();

    let mut all = Seen::default();
    for one in seen {
        all.creation.add_all(one.creation);
        all.decision.add_all(one.decision);
        all.delivery.add_all(one.delivery);
        all.ids.extend(one.ids);
        all.approved += one.approved;
        all.later += one.later;
    }
    let count = all.ids.len();
    let ids: BTreeSet<String> = all.ids.into_iter().collect();
    ensure!(ids.len() == count && count == PENDING * rounds, "{count} requests have {} ids", ids.len());
    let metrics = gateway.metrics().await;
    let counted = |name: &str| metrics.count(name, &[("action", "simple")]);
    let (approved, denied) = (counted("approvals_total"), counted("denies_total"));
    let expected = u64::try_from(count)? - all.approved;
    ensure!(
        (approved, denied) == (all.approved, expected),
        "{approved} approvals and {denied} denials were counted, and {} and {expected} made",
        all.approved
    );
    ensure!(metrics.count("pending_requests", &[("action", "simple")]) == 0, "requests are open still");

    for (what, name, sample) in [
        ("creation: asked → stored and answered", "creation", &mut all.creation),
        ("decision: signed press → durable and answered", "decision", &mut all.decision),
        ("delivery: signed press → the caller knows", "delivery", &mut all.delivery),
    ] {
        let what = format!("{store}: {what}");
        report.compared(&what, &sample.percentiles().to_string());
        report.percentiles(&format!("{store}, {name}"), sample);
    }
    let what = format!(
        "{store}: {count} requests, {PENDING} open at once, {STREAMS} with a stream, decided after up to {SLOWEST_MS} ms"
    );
    let later = all.later;
    let measured =
        format!("{:.1} s; none lost or doubled, {later} presses applied later", took.as_secs_f64());
    report.compared(&what, &measured);
    Ok(())
}

/// One caller: asks, waits until somebody has decided, and asks again.
async fn call(gateway: &Gateway, number: usize, seed: u64, rounds: usize) -> Result<Seen> {
    // Callers do not depend on each other's order.
    let mut random = Random::new(seed ^ (u64::try_from(number)? << 32));
    let mut seen = Seen::default();
    let mut caller = gateway.try_connect().await?;
    let mut approver = gateway.try_connect().await?;
    let create = Ask::new("simple").call().bytes();
    for _ in 0..rounds {
        let watch = Stopwatch::start();
        let reply = caller.send_bytes(&create).await?;
        seen.creation.add(watch.elapsed());
        let request = Receipt::read(reply).map_err(|problem| anyhow::anyhow!("{problem:?}"))?;
        seen.ids.push(request.id.clone());
        let mut stream = match number < STREAMS {
            true => {
                let mut stream = gateway.stream(&request.token).await;
                stream.state().await;
                Some(stream)
            }
            false => None,
        };

        // How long people take is part of the load, not of the measurement.
        tokio::time::sleep(Duration::from_millis(random.below(SLOWEST_MS))).await;
        let approve = random.below(4) > 0;
        let click = match approve {
            true => Click::approve("U0ALICE", &request.id),
            false => Click::deny("U0ALICE", &request.id),
        };
        let expected = if approve { "approved" } else { "denied" };
        let (click, watch) = (click.signed().call().bytes(), Stopwatch::start());
        let decided = async {
            let reply = approver.send_bytes(&click).await?;
            // A store that is too slow for Slack's patience gets the press later, and the caller hears of it then.
            let later = reply.status() == 200 && reply.text().trim() == "{}";
            ensure!(later || reply.json()["ok"] == true, "{}", reply.text());
            anyhow::Ok((!later).then(|| watch.elapsed()))
        };
        let poll = Call::get(&format!("/api/guard/wait?token={}&timeoutSec=30", request.token)).bytes();
        let heard = async {
            let status = match &mut stream {
                Some(stream) => stream.receive().await?.context("the stream has ended early")?.status(),
                None => caller.send_bytes(&poll).await?.json()["status"].as_str().unwrap_or("-").to_owned(),
            };
            ensure!(status == expected, "{} is {status}, and was {expected}", request.id);
            Ok(watch.elapsed())
        };
        let (decided, heard) = try_join(decided, heard).await?;
        match decided {
            Some(took) => seen.decision.add(took),
            None => seen.later += 1,
        }
        seen.delivery.add(heard);
        seen.approved += u64::from(approve);
    }
    Ok(seen)
}
