//! What swapping the policy set costs those who make requests at the same time: nothing fails, every request is under a set
//! that was in force when it was made, and few wait for longer.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use countersign_tests::{Ask, Gateway, Home, Stopwatch};
use futures_util::future::try_join_all;
use rusqlite::OpenFlags;

use crate::report::Report;
use crate::sample::{Sample, millis};

const CONNECTIONS: u32 = 32;
const RATE: u32 = 5_000;
const SWAPS: u32 = 50;

/// One in so many requests is decided as it is made.
const DECIDED: usize = 10;

pub(crate) async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    let length = Duration::from_secs(if quick { 2 } else { 20 });
    let gateway = Home::new(&actions(1)).with("COUNTERSIGN_LOG", "warn").administered().start().await;
    let first = gateway.policy().await;
    let second = gateway.store_set(&Home::new(&actions(2)).policy_set()).await;
    let watch = Stopwatch::start();
    create(&gateway, watch, length / 10).await?;

    let began = watch.elapsed();
    let mut alone = create(&gateway, watch, length).await?;
    let alone_rate = rate(&alone, watch.elapsed() - began);
    let began = watch.elapsed();
    let (swapped, swaps) = tokio::try_join!(
        create(&gateway, watch, length),
        swap(&gateway, watch, length, [first.clone(), second.clone()])
    )?;
    let mut swapped = swapped;
    let swapped_rate = rate(&swapped, watch.elapsed() - began);
    let of_set = policies(&gateway).await?;
    let decided = check(gateway, &swapped, &swaps, &of_set).await?;

    let (p99, p99_alone) = (swapped.sample.percentile(99), alone.sample.percentile(99));
    let ratio = p99.as_secs_f64() / p99_alone.as_secs_f64();
    let mut took: Sample = swaps.iter().map(|swap| swap.answered - swap.sent).collect();
    report.judged(
        &format!("create while the set is swapped {SWAPS} times, paced at {RATE} a second"),
        "no failed request, p99 ≤ 1.2 × that without swaps",
        &format!(
            "{} creates and {decided} decisions, none failed, each under a set that was in force; {swapped_rate:.0} a second, \
             p99 {} against {} at {alone_rate:.0} a second: {ratio:.2} ×",
            swapped.made.len(),
            millis(p99),
            millis(p99_alone),
        ),
        ratio <= 1.2,
    );
    report.compared("one swap, from the call to its answer", &took.percentiles().to_string());
    Ok(())
}

fn actions(approvals: u32) -> String {
    format!(
        "
  simple:
    description: Approvers
    timeout: 24h
    redact: {{ hide: [password] }}
    policies:
      - use: quorum
        with: {{ approvers: [U0ALICE, U0BOB, U0CAROL], approvals: {approvals} }}
  unattended:
    description: Decided as it is made, {approvals}
    unattended: true
    redact: {{ hide: [password] }}
    policies:
      - use: override-guard
        with: {{ keys: [replicas] }}
"
    )
}

/// Requests that were made.
struct Made {
    sample: Sample,
    made: Vec<Request>,
}

/// When a request was sent and answered, and its answer.
struct Request {
    id: String,
    policy: String,
    sent: Duration,
    answered: Duration,
}

/// When a swap was sent and answered, and to which set.
struct Swap {
    to: String,
    sent: Duration,
    answered: Duration,
}

/// Makes requests at the rate, or as fast as the machine lets it.
async fn create(gateway: &Gateway, watch: Stopwatch, length: Duration) -> Result<Made> {
    let begin = watch.elapsed();
    let calls = [Ask::new("simple").call().bytes(), Ask::new("unattended").call().bytes()];
    let period = Duration::from_secs(1) * CONNECTIONS / RATE;
    let work = (0..CONNECTIONS).map(async |number| {
        let mut connection = gateway.try_connect().await?;
        let mut made = Made { sample: Sample::default(), made: Vec::new() };
        let mut next = begin + period * number / CONNECTIONS;
        while next < begin + length {
            tokio::time::sleep(next.saturating_sub(watch.elapsed())).await;
            let decided = made.made.len() % DECIDED == DECIDED - 1;
            let sent = watch.elapsed();
            let reply = connection.send_bytes(&calls[usize::from(decided)]).await?;
            let answered = watch.elapsed();
            ensure!(reply.status() == 200, "{}: {}", reply.status(), reply.text());
            let body = reply.json();
            let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("no text");
            let (id, policy) = (text(&body["requestId"])?, text(&body["policy"]["hash"])?);
            made.sample.add(answered - sent);
            made.made.push(Request { id, policy, sent, answered });
            next += period;
        }
        anyhow::Ok(made)
    });
    let mut all = Made { sample: Sample::default(), made: Vec::new() };
    for Made { sample, made } in try_join_all(work).await? {
        all.sample.add_all(sample);
        all.made.extend(made);
    }
    Ok(all)
}

/// Swaps back and forth, evenly over the time.
async fn swap(gateway: &Gateway, watch: Stopwatch, length: Duration, sets: [String; 2]) -> Result<Vec<Swap>> {
    let begin = watch.elapsed();
    let [mut active, mut other] = sets;
    let mut swaps = Vec::new();
    for number in 1..=SWAPS {
        let at = begin + length * number / (SWAPS + 1);
        tokio::time::sleep(at.saturating_sub(watch.elapsed())).await;
        let sent = watch.elapsed();
        let swapped = gateway.activate(&other, &active).await;
        swapped.map_err(|problem| anyhow::anyhow!("{problem:?}"))?;
        swaps.push(Swap { to: other.clone(), sent, answered: watch.elapsed() });
        std::mem::swap(&mut active, &mut other);
    }
    Ok(swaps)
}

/// Which set each policy hash is of.
async fn policies(gateway: &Gateway) -> Result<HashMap<String, String>> {
    let sets = gateway.seen("policy-sets").await;
    let mut of_set = HashMap::new();
    for set in sets["sets"].as_array().context("no sets")? {
        let hash = set["hash"].as_str().context("no hash")?;
        for policy in set["actions"].as_object().context("no actions")?.values() {
            of_set.insert(policy.as_str().context("no hash")?.to_owned(), hash.to_owned());
        }
    }
    Ok(of_set)
}

/// That the audit log has every request and decision, each with a policy hash of a set that was in force when it was made.
/// Returns how many decisions it has.
async fn check(
    gateway: Gateway,
    made: &Made,
    swaps: &[Swap],
    of_set: &HashMap<String, String>,
) -> Result<usize> {
    let home = gateway.stop().await;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(home.path("data/countersign.db"), flags)?;
    let mut audited: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let mut select = database.prepare(
        "SELECT body ->> '$.requestId', body ->> '$.event', body ->> '$.policy_hash' FROM audit \
         WHERE body ->> '$.event' IN ('created', 'approved')",
    )?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        audited.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
    }
    let first = swaps.first().context("no swaps")?;
    let start = of_set.values().find(|set| **set != first.to).context("one set only")?;
    let mut decided = 0;
    for request in &made.made {
        let entries = audited.get(&request.id).with_context(|| format!("no entry of {}", request.id))?;
        ensure!(entries.iter().any(|(event, _)| event == "created"), "{}: {entries:?}", request.id);
        for (event, policy) in entries {
            ensure!(*policy == request.policy, "{}: the answer names another policy", request.id);
            let set = of_set.get(policy).with_context(|| format!("{policy} is of no set"))?;
            ensure!(
                was_in_force(set, request, swaps, start),
                "{}: {event} under a set out of force",
                request.id
            );
            decided += usize::from(event == "approved");
        }
    }
    if decided == 0 {
        bail!("nothing was decided");
    }
    Ok(decided)
}

/// Whether the set can have been in force at some time while the request was being made.
fn was_in_force(set: &str, request: &Request, swaps: &[Swap], start: &str) -> bool {
    // From when the swap to it was sent until the next one was answered.
    let from = swaps.iter().map(|swap| (swap.to.as_str(), swap.sent));
    let from = [(start, Duration::ZERO)].into_iter().chain(from);
    let until = swaps.iter().map(|swap| swap.answered).chain([Duration::MAX]);
    from.zip(until).any(|((of, from), until)| of == set && from <= request.answered && request.sent <= until)
}

#[expect(clippy::cast_precision_loss, reason = "the report has four digits")]
fn rate(made: &Made, took: Duration) -> f64 {
    made.made.len() as f64 / took.as_secs_f64()
}
