//! How many requests a second are made, each durable before it is answered, and what it costs to know who asks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_tests::{ApiKey, Ask, Call, Connection, Gateway, Issuer, SigningKey, Stopwatch};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::report::{Report, cost, rate};
use crate::sample::Sample;
use crate::{machine, setup};

pub(crate) const CONNECTIONS: usize = 32;

pub(crate) async fn measure(report: &mut Report, quick: bool, beside: Option<SocketAddr>) -> Result<()> {
    let mut run = alone("simple", quick).await?;
    let kept = run.cpu <= Duration::from_micros(70) && run.sample.percentile(99) <= Duration::from_millis(15);
    let what = format!("create, durable in SQLite, {CONNECTIONS} connections, one policy");
    report.judged(&what, "≤ 70 µs of CPU, p99 ≤ 15 ms", &run.text(), kept);
    run.figures("create", report);
    let mut run = alone("full", quick).await?;
    report.compared("the same, three policies", &run.text());
    run.figures("create, three policies", report);
    if let Some(other) = beside {
        self::beside(report, quick, other).await?;
    }
    authenticated(report, quick).await?;
    secured(report, quick).await
}

/// Creates of one gateway.
struct Run {
    /// How many a second.
    rate: f64,
    /// How long each took.
    sample: Sample,
    /// The CPU time of the gateway for each.
    cpu: Duration,
}

impl Run {
    fn text(&mut self) -> String {
        let cpu = micros(self.cpu);
        format!("{:.0} a second, {}, {cpu:.0} µs of CPU each", self.rate, self.sample.percentiles())
    }

    fn figures(&mut self, name: &str, report: &mut Report) {
        report.figure(&format!("{name}, a second"), rate(self.rate, ""));
        report.figure(&format!("{name}, CPU"), cost(micros(self.cpu), "µs"));
        report.latency(name, &mut self.sample);
    }
}

async fn alone(action: &str, quick: bool) -> Result<Run> {
    let gateway = setup::gateway().await;
    let (warm_up, length) = if quick { (0.2, 1.0) } else { (2.0, 10.0) };
    let call = Ask::new(action).call();
    create(&gateway, &call, warm_up, 0.0).await?;
    let before = machine::cpu_time(gateway.pid())?;
    let (rate, sample) = create(&gateway, &call, 0.0, length).await?;
    let all = machine::cpu_time(gateway.pid())?.saturating_sub(before);
    let cpu = all / u32::try_from(sample.count())?.max(1);
    Ok(Run { rate, sample, cpu })
}

/// Creates of the gateway and of another service, with the same call and in turns.
async fn beside(report: &mut Report, quick: bool, other: SocketAddr) -> Result<()> {
    let gateway = setup::gateway().await;
    // The legacy service accepts `run_id` only as a string.
    let mut body = Ask::new("simple").body();
    body["meta"]["origin"]["run_id"] = "4711".into();
    let call = Ask::of(body).call();
    let (rounds, warm_up, length) = if quick { (1, 0.2, 1.0) } else { (5, 1.0, 5.0) };
    let (mut ours, mut theirs) = (Rounds::default(), Rounds::default());
    for _ in 0..rounds {
        ours.add(create(&gateway, &call, warm_up, length).await?);
        let connect = async || Connection::open(other).await;
        theirs.add(create_through(connect, &call, warm_up, length).await?);
    }
    let ((our_rate, our_p99), (their_rate, their_p99)) = (ours.medians(), theirs.medians());
    let (faster, shorter) = (our_rate / their_rate, our_p99 / their_p99);
    report.judged(
        &format!("create, compared with the service at {other}"),
        "≥ 2 × its rate, p99 ≤ 1/10 of its",
        &format!(
            "{our_rate:.0} a second against {their_rate:.0}: {faster:.2} ×; p99 {our_p99:.2} ms against \
             {their_p99:.2} ms: {shorter:.2} ×"
        ),
        faster >= 2.0 && shorter <= 0.1,
    );
    report.figure("create, compared with another service", rate(faster, "×"));
    Ok(())
}

/// The rates and the p99 of several rounds.
#[derive(Default)]
struct Rounds(Vec<f64>, Vec<f64>);

impl Rounds {
    fn add(&mut self, (rate, mut sample): (f64, Sample)) {
        self.0.push(rate);
        self.1.push(sample.percentile(99).as_secs_f64() * 1e3);
    }

    fn medians(self) -> (f64, f64) {
        (median(self.0), median(self.1))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Creates without credentials, with an API key and with a token, in turns, so that whatever else the machine does
/// slows all of them alike.
async fn authenticated(report: &mut Report, quick: bool) -> Result<()> {
    let signing_key = SigningKey::rs256("rsa");
    let issuer = Issuer::start(&[&signing_key]).await;
    let key = ApiKey::new("pipeline");
    let token = signing_key.token(&claims(&issuer));
    let file = format!(
        "version: 1\nissuers:\n  github: {{ issuer: \"{}\", audience: countersign }}\ncallers:\n  pipeline:\n    \
         keys:\n      {}\n    oidc: {{ issuer: github, claims: {{ repository_id: \"4711\" }} }}\n    \
         requester: asserted\n    actions: \"*\"\n",
        issuer.url(),
        key.line
    );
    let with_access = async || setup::home().with_access(&file).start().await;
    let call = Ask::new("simple").call();
    // Each has a gateway of its own, so that all of them have as much in their stores.
    let ways = [
        (setup::gateway().await, call.clone()),
        (with_access().await, call.clone().bearer(&key.secret)),
        (with_access().await, call.bearer(&token)),
    ];
    let [without, with_key, with_token] = in_turns(&ways, quick).await?;
    ensure!(issuer.fetches() == 1, "its keys were fetched {} times", issuer.fetches());
    for (what, rate) in [("an API key", with_key), ("an RS256 token", with_token)] {
        compare(report, &format!("create with {what}, compared with none"), 10, rate, without);
    }
    Ok(())
}

/// Creates over TLS with client certificates, on connections that are kept; and how many handshakes a second there are.
async fn secured(report: &mut Report, quick: bool) -> Result<()> {
    let call = Ask::new("simple").call();
    let ways = [(setup::gateway().await, call.clone()), (setup::secured().await, call)];
    let [plain, secured] = in_turns(&ways, quick).await?;
    compare(report, "create over TLS, kept connections, compared with plain HTTP", 25, secured, plain);
    let [_, (gateway, _)] = &ways;
    let length = Duration::from_secs_f64(if quick { 0.5 } else { 5.0 });
    let (watch, before) = (Stopwatch::start(), machine::cpu_time(gateway.pid())?);
    let work = (0..CONNECTIONS).map(async |_| {
        let mut handshakes = 0_u32;
        while watch.elapsed() < length {
            // The client's certificate was verified once there is an answer.
            let reply = gateway.try_connect().await?.send(&Call::get("/api/schemas/none")).await?;
            ensure!(reply.status() == 404, "{}: {}", reply.status(), reply.text());
            handshakes += 1;
        }
        Ok(handshakes)
    });
    let handshakes: u32 = try_join_all(work).await?.into_iter().sum();
    let cpu = machine::cpu_time(gateway.pid())?.saturating_sub(before) / handshakes.max(1);
    let handshakes = f64::from(handshakes) / watch.elapsed().as_secs_f64();
    report.figure("TLS connection, a second", rate(handshakes, ""));
    report.figure("TLS connection, CPU", cost(micros(cpu), "µs"));
    let measured = format!("{handshakes:.0} a second, {:.0} µs of CPU each in the gateway", micros(cpu));
    report.compared("TLS connections with a client certificate (ECDSA P-256), one call on each", &measured);
    Ok(())
}

/// The median rates of several ways, measured in turns.
async fn in_turns<const N: usize>(ways: &[(Gateway, Call); N], quick: bool) -> Result<[f64; N]> {
    let (rounds, warm_up, length) = if quick { (3, 0.1, 0.3) } else { (9, 0.5, 3.0) };
    let mut rates = [(); N].map(|()| Vec::with_capacity(rounds));
    for round in 0..rounds {
        // Whoever begins may have it easier or harder, so each begins as often.
        for turn in 0..N {
            let way = (round + turn) % N;
            let (gateway, call) = ways.get(way).context("it is one of them")?;
            let (rate, _) = create(gateway, call, warm_up, length).await?;
            rates.get_mut(way).context("it is one of them")?.push(rate);
        }
    }
    Ok(rates.map(median))
}

fn compare(report: &mut Report, what: &str, percent: u32, rate: f64, other: f64) {
    report.judged(
        what,
        &format!("≤ {percent} % fewer a second"),
        &format!(
            "{rate:.0} a second against {other:.0}: {:.1} % {}",
            (1.0 - rate / other).abs() * 100.0,
            if rate < other { "fewer" } else { "more" }
        ),
        rate >= (1.0 - f64::from(percent) / 100.0) * other,
    );
}

/// Makes requests on all connections at once; returns how many a second, and how long each took.
pub(crate) async fn create(
    gateway: &Gateway,
    call: &Call,
    warm_up: f64,
    length: f64,
) -> Result<(f64, Sample)> {
    create_through(async || gateway.try_connect().await, call, warm_up, length).await
}

pub(crate) async fn create_through(
    connect: impl AsyncFn() -> Result<Connection>,
    call: &Call,
    warm_up: f64,
    length: f64,
) -> Result<(f64, Sample)> {
    let (warm_up, length) = (Duration::from_secs_f64(warm_up), Duration::from_secs_f64(length));
    let create = call.bytes();
    let watch = Stopwatch::start();
    let work = (0..CONNECTIONS).map(async |_| {
        let mut connection = connect().await?;
        let mut sample = Sample::default();
        while watch.elapsed() < warm_up + length {
            let began = watch.elapsed();
            let reply = connection.send_bytes(&create).await?;
            ensure!(reply.status() == 200, "{}: {}", reply.status(), reply.text());
            if began >= warm_up {
                sample.add(watch.elapsed() - began);
            }
        }
        Ok(sample)
    });
    let mut all = Sample::default();
    for sample in try_join_all(work).await? {
        all.add_all(sample);
    }
    let rate = f64::from(u32::try_from(all.count())?) / (watch.elapsed() - warm_up).as_secs_f64();
    Ok((rate, all))
}

/// The claims of a job of GitHub Actions, which are many: a longer token takes longer to find.
fn claims(issuer: &Issuer) -> Value {
    let mut claims = issuer.claims();
    // The measurement must not outlast the token.
    claims["exp"] = json!(claims["exp"].as_u64().unwrap_or_default() + 3600);
    for (claim, value) in [
        ("jti", "f5a0f0a2-7c1d-4a0e-9d3e-8a1c6b1f7e52"),
        ("sub", "repo:acme/shop:environment:production"),
        ("ref", "refs/heads/main"),
        ("sha", "1f0c9d1be6d5d5c7a0b9e4b1a7e3c2d4f5a6b7c8"),
        ("repository", "acme/shop"),
        ("repository_id", "4711"),
        ("repository_owner", "acme"),
        ("repository_owner_id", "42"),
        ("repository_visibility", "private"),
        ("run_id", "9876543210"),
        ("run_number", "128"),
        ("run_attempt", "1"),
        ("actor", "dana-d"),
        ("actor_id", "583231"),
        ("workflow", "deploy"),
        ("head_ref", ""),
        ("base_ref", ""),
        ("event_name", "push"),
        ("ref_type", "branch"),
        ("ref_protected", "true"),
        ("environment", "production"),
        ("workflow_ref", "acme/shop/.github/workflows/deploy.yaml@refs/heads/main"),
        ("workflow_sha", "1f0c9d1be6d5d5c7a0b9e4b1a7e3c2d4f5a6b7c8"),
        ("job_workflow_ref", "acme/shop/.github/workflows/deploy.yaml@refs/heads/main"),
        ("job_workflow_sha", "1f0c9d1be6d5d5c7a0b9e4b1a7e3c2d4f5a6b7c8"),
        ("runner_environment", "github-hosted"),
    ] {
        claims[claim] = value.into();
    }
    claims
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
