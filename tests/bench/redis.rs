//! What one gateway, and three, reach over one Redis: beside the rate at which `redis-benchmark` has the same scripts carried
//! out, with what each write takes of Redis and of the gateways; and how long a press on one of them takes to reach a stream
//! on another.

use std::cell::Cell;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use countersign_tests::{Ask, Click, Gateway, Receipt, Redis, Stopwatch};
use futures_util::future::try_join_all;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::creates::{CONNECTIONS, create_through};
use crate::report::{Report, cost, rate};
use crate::sample::Sample;
use crate::{clicks, machine, setup};

pub(crate) async fn measure(report: &mut Report, quick: bool) -> Result<()> {
    for instances in [1, 3] {
        throughput(report, quick, instances).await?;
    }
    across(report, quick).await
}

async fn gateways(redis: &Redis, count: usize) -> Vec<Gateway> {
    let mut gateways = Vec::with_capacity(count);
    for _ in 0..count {
        gateways.push(setup::home().with_redis(redis).start().await);
    }
    gateways
}

/// Creates and decisions through these gateways, each beside its script alone.
async fn throughput(report: &mut Report, quick: bool, instances: usize) -> Result<()> {
    let (warm_up, length, decisions, raw) =
        if quick { (0.2, 1.0, 640, 5_000) } else { (2.0, 10.0, 12_800, 50_000) };
    let redis = Redis::start().await;
    let gateways = gateways(&redis, instances).await;
    let of = if instances == 1 { "one gateway".to_owned() } else { format!("{instances} gateways") };

    let call = Ask::new("simple").call();
    let turn = Cell::new(0);
    let connect = async || next(&gateways, &turn)?.try_connect().await;
    create_through(connect, &call, warm_up, 0.0).await?;
    let before = Used::by(&redis, &gateways).await?;
    let (created, mut sample) = create_through(connect, &call, 0.0, length).await?;
    let each = Used::by(&redis, &gateways).await?.since(&before, sample.count());
    let creates = Phase { what: "create", rate: created, sample: &mut sample, each };

    let watched = Monitor::start(&redis).await?;
    setup::open(next(&gateways, &turn)?, "simple", 1).await?;
    let script = watched.script().await?;
    let stored_before = stored(&redis, "ids").await?;
    let raw_create = script.benchmark(&redis, raw, None)?;
    let stored_by_it = stored(&redis, "ids").await? - stored_before;
    ensure!(
        stored_by_it * 10 >= raw * 9,
        "only {stored_by_it} of {raw} calls of the script have stored anything"
    );
    creates.report(report, &of, raw_create);

    let mut open = Vec::new();
    for gateway in &gateways {
        open.push(setup::open(gateway, "simple", decisions / instances).await?);
    }
    let [last] = &*setup::open(next(&gateways, &turn)?, "simple", 1).await? else { bail!("one was made") };
    let watched = Monitor::start(&redis).await?;
    let mut connection = next(&gateways, &turn)?.try_connect().await?;
    connection.send_bytes(&press(last)).await?;
    let commit = watched.script().await?;
    drop(connection);
    let presses: Vec<Vec<u8>> = open.iter().flatten().map(press).collect();
    let before = Used::by(&redis, &gateways).await?;
    let (decided, mut sample) = decide(&gateways, &presses).await?;
    let each = Used::by(&redis, &gateways).await?.since(&before, sample.count());
    let decisions = Phase { what: "decision", rate: decided, sample: &mut sample, each };
    // Most of what the script finds must be there to be decided: it is created first, over and over.
    let ids = raw.min(20_000);
    script.benchmark(&redis, ids * 4, Some(ids))?;
    let ended_before = stored(&redis, "ended").await?;
    let raw_commit = commit.benchmark(&redis, ids / 4, Some(ids))?;
    let ended = stored(&redis, "ended").await? - ended_before;
    ensure!(
        ended * 10 >= ids / 4 * 7,
        "only {ended} of {} calls of the script have stored anything",
        ids / 4
    );
    decisions.report(report, &of, raw_commit);
    Ok(())
}

/// How many requests this index of the partition has that scripts are tried in.
async fn stored(redis: &Redis, index: &str) -> Result<usize> {
    let answer = redis.command(&["ZCARD", &format!("{ONE_PARTITION}:{index}")]).await;
    answer.trim().parse().with_context(|| format!("`{answer}` is no number"))
}

fn next<'a>(gateways: &'a [Gateway], turn: &Cell<usize>) -> Result<&'a Gateway> {
    turn.set(turn.get() + 1);
    gateways.get(turn.get() % gateways.len()).context("there is a gateway")
}

fn press(request: &Receipt) -> Vec<u8> {
    Click::approve("U0ALICE", &request.id).signed().call().bytes()
}

/// Sends all presses on as many connections as creates have, spread over the gateways.
async fn decide(gateways: &[Gateway], presses: &[Vec<u8>]) -> Result<(f64, Sample)> {
    let turn = Cell::new(0);
    let watch = Stopwatch::start();
    let work = presses.chunks(presses.len().div_ceil(CONNECTIONS)).map(async |share| {
        let mut connection = next(gateways, &turn)?.try_connect().await?;
        let mut sample = Sample::default();
        for press in share {
            let began = watch.elapsed();
            let reply = connection.send_bytes(press).await?;
            ensure!(reply.json()["ok"] == true, "{}", reply.text());
            sample.add(watch.elapsed() - began);
        }
        anyhow::Ok(sample)
    });
    let mut all = Sample::default();
    for sample in try_join_all(work).await? {
        all.add_all(sample);
    }
    Ok((f64::from(u32::try_from(all.count())?) / watch.elapsed().as_secs_f64(), all))
}

/// Presses on one gateway, with the streams on another.
async fn across(report: &mut Report, quick: bool) -> Result<()> {
    let redis = Redis::start().await;
    let gateways = gateways(&redis, 2).await;
    let [pressed, streamed] = &*gateways else { bail!("two were started") };
    let (mut alone, mut together) =
        clicks::alone_and_together(pressed, streamed, if quick { 4 } else { 40 }).await?;
    let kept = alone.percentile(99) <= Duration::from_millis(5);
    let what = "Redis: signed click on one gateway → SSE event on another, 200 pending, 50 streams";
    report.judged(what, "p99 ≤ 5 ms", &alone.percentiles().to_string(), kept);
    report.latency("Redis, click to event on another gateway", &mut alone);
    report.compared("Redis: the same, all 50 clicks at once", &together.percentiles().to_string());
    Ok(())
}

/// What was measured of one kind of write.
struct Phase<'a> {
    what: &'static str,
    rate: f64,
    sample: &'a mut Sample,
    each: Each,
}

impl Phase<'_> {
    fn report(self, report: &mut Report, of: &str, raw: f64) {
        let Phase { what, rate: measured, sample, each } = self;
        let ratio = measured / raw;
        let title = format!("Redis: {what}, {of}, {CONNECTIONS} connections, beside its script alone");
        let text = format!(
            "{measured:.0} a second against {raw:.0}: {ratio:.2} ×; {}; {}",
            sample.percentiles(),
            each.text()
        );
        report.judged(&title, "≥ 0.5 ×", &text, ratio >= 0.5);
        let name = format!("Redis, {what}, {of}");
        report.figure(&format!("{name}, beside its script alone"), rate(ratio, "×"));
        report.figure(&format!("{name}, a second"), rate(measured, ""));
        report.figure(&format!("{name}, CPU of Redis"), cost(each.redis, "µs"));
        report.figure(&format!("{name}, CPU of gateways"), cost(each.gateways, "µs"));
        report.latency(&name, sample);
    }
}

/// What a Redis and its gateways have used.
struct Used {
    redis: f64,
    gateways: Duration,
    commands: f64,
    received: f64,
    sent: f64,
}

/// What each write has used.
struct Each {
    /// CPU of Redis, in microseconds.
    redis: f64,
    /// CPU of the gateways, in microseconds.
    gateways: f64,
    /// Commands, those of scripts included.
    commands: f64,
    /// Bytes that Redis has received.
    received: f64,
    /// Bytes that Redis has sent.
    sent: f64,
}

impl Used {
    async fn by(redis: &Redis, gateways: &[Gateway]) -> Result<Used> {
        let info = redis.command(&["INFO", "everything"]).await;
        let lines = || info.lines().filter_map(|line| line.trim().split_once(':'));
        let number = |name: &str| -> Result<f64> {
            let found = lines().find(|(field, _)| *field == name);
            let (_, value) = found.with_context(|| format!("Redis does not say `{name}`"))?;
            Ok(value.parse()?)
        };
        let calls = lines().filter_map(|(field, value)| {
            field.strip_prefix("cmdstat_")?;
            value.strip_prefix("calls=")?.split(',').next()?.parse::<f64>().ok()
        });
        let mut ran = Duration::ZERO;
        for gateway in gateways {
            ran += machine::cpu_time(gateway.pid())?;
        }
        Ok(Used {
            redis: number("used_cpu_user")? + number("used_cpu_sys")?,
            gateways: ran,
            commands: calls.sum(),
            received: number("total_net_input_bytes")?,
            sent: number("total_net_output_bytes")?,
        })
    }

    fn since(&self, before: &Used, count: usize) -> Each {
        let share =
            |after: f64, before: f64| (after - before) / f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        Each {
            redis: share(self.redis, before.redis) * 1e6,
            gateways: share(self.gateways.as_secs_f64(), before.gateways.as_secs_f64()) * 1e6,
            commands: share(self.commands, before.commands),
            received: share(self.received, before.received),
            sent: share(self.sent, before.sent),
        }
    }
}

impl Each {
    fn text(&self) -> String {
        let Each { redis, gateways, commands, received, sent } = self;
        format!(
            "each {gateways:.0} µs of CPU in the gateways, and of Redis {redis:.0} µs, {commands:.0} commands, \
             {received:.0} bytes in, {sent:.0} out"
        )
    }
}

/// Sees what a Redis is asked.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    async fn start(redis: &Redis) -> Result<Monitor> {
        let socket = redis.url();
        let socket = socket.strip_prefix("redis+unix://").context("it listens on a socket")?;
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"MONITOR\r\n").await?;
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line).await?;
        ensure!(line.starts_with(b"+OK"), "Redis cannot be watched");
        Ok(Monitor(lines))
    }

    /// The next script that stores a request.
    async fn script(mut self) -> Result<Script> {
        loop {
            let mut line = Vec::new();
            ensure!(self.0.read_until(b'\n', &mut line).await? > 0, "Redis has ended");
            let words = words(&line);
            if words.first().is_some_and(|name| name.eq_ignore_ascii_case(b"EVALSHA"))
                && words.iter().any(|word| contains(word, b"\"justification\""))
            {
                return Ok(Script(words));
            }
        }
    }
}

/// A script that stores a request, with its arguments, and in place of what must differ from call to call what
/// `redis-benchmark` puts a random number for.
struct Script(Vec<Vec<u8>>);

const ONE_PARTITION: &str = "{cs:0}";
const RANDOM: &[u8; 12] = b"__rand_int__";
/// The places of the partition, a key of it, the operation id, the request's id, and two digests of nonces.
const PARTITION: usize = 3;
const KEY: usize = 4;
const OPERATION: usize = 5;
const ID: usize = 7;
const NONCES: [usize; 2] = [9, 10];

impl Script {
    /// With at most `ids` different requests, if that is said: the same ones for each script.
    fn arguments(&self, ids: Option<usize>) -> Vec<Vec<u8>> {
        let mut words = self.0.clone();
        // Several random numbers, so that nothing is the same operation twice however few requests there are.
        for place in [&[OPERATION][..], &NONCES].concat() {
            if let Some(word) = words.get_mut(place).filter(|word| word.len() >= 24) {
                *word = RANDOM.repeat(word.len() / RANDOM.len());
            }
        }
        // All scripts find what others have stored.
        if let Some(partition) = words.get_mut(PARTITION) {
            *partition = ONE_PARTITION.into();
        }
        if let Some(key) = words.get_mut(KEY) {
            *key = format!("{ONE_PARTITION}:none").into();
        }
        if let Some(id) = words.get_mut(ID) {
            let prefix: &[u8] = if ids.is_some() { b"req_0fewrequests" } else { b"req_manyrequests" };
            *id = [prefix, RANDOM].concat();
        }
        // What the arguments of a process cannot have; as long as before.
        for byte in words.iter_mut().flatten().filter(|byte| **byte == 0) {
            *byte = b'0';
        }
        words
    }

    /// How many of these are carried out a second.
    fn benchmark(&self, redis: &Redis, calls: usize, ids: Option<usize>) -> Result<f64> {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;
        let socket = redis.url();
        let socket = socket.strip_prefix("redis+unix://").context("it listens on a socket")?;
        // `redis-benchmark` reads it as an `int`.
        let range = ids.unwrap_or(2_000_000_000).to_string();
        let mut command = Command::new("redis-benchmark");
        command.args(["-s", socket, "-c", &CONNECTIONS.to_string(), "-n", &calls.to_string()]);
        command.args(["-r", &range, "--csv"]);
        command.args(self.arguments(ids).iter().map(|word| OsStr::from_bytes(word)));
        let output = command.output().context("cannot start `redis-benchmark` (Debian: redis-tools)")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "redis-benchmark: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // Its last seven fields are numbers, of which the first is calls a second.
        let line = text.trim().lines().last().context("redis-benchmark says nothing")?;
        let field = line.rsplit(',').nth(6).context("a line of redis-benchmark has seven numbers")?;
        field.trim_matches('"').parse().with_context(|| format!("`{field}` is no rate"))
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The words of a command as `MONITOR` writes them: quoted, with escapes.
fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.iter().copied();
    while bytes.by_ref().any(|byte| byte == b'"') {
        let mut word = Vec::new();
        while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
            if byte != b'\\' {
                word.push(byte);
                continue;
            }
            match bytes.next() {
                Some(b'n') => word.push(b'\n'),
                Some(b'r') => word.push(b'\r'),
                Some(b't') => word.push(b'\t'),
                Some(b'a') => word.push(7),
                Some(b'b') => word.push(8),
                Some(b'x') => {
                    let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                    let digits = std::str::from_utf8(&digits).unwrap_or_default();
                    word.push(u8::from_str_radix(digits, 16).unwrap_or_default());
                }
                Some(other) => word.push(other),
                None => {}
            }
        }
        words.push(word);
    }
    words
}
