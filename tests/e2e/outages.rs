//! Redis is away, hangs, is paused, slow or full while people ask and decide: what was acknowledged is there afterwards,
//! what was recorded is applied once, and nothing else has happened.
//!
//! The outages are short. `COUNTERSIGN_OUTAGE_SEC=30` has each of them last for so long.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_tests::{
    Ask, Call, Click, Gateway, Home, Receipt, Redis, Slack, Stopwatch, deploy, variable, within,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How many requests are decided during an outage.
const REQUESTS: usize = 40;

/// How long Redis pauses: longer than a call may take.
const PAUSE: Duration = Duration::from_secs(6);

/// How many callers ask on and on.
const CALLERS: usize = 4;

/// What Redis does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// It is killed, and started again.
    Away,
    /// It is stopped with SIGSTOP: connections are made, and nothing is answered.
    Hangs,
    /// `CLIENT PAUSE`: it answers nothing for a while, and then everything.
    Paused,
    /// It answers late.
    Slow,
    /// `maxmemory`: it refuses every write.
    Full,
}

impl Outage {
    /// Whether nothing can be stored meanwhile.
    fn is_total(self) -> bool {
        self != Outage::Slow
    }
}

/// How much each caller asks for, at the most.
const MOST: usize = 50;

/// What callers and the outage know of each other.
#[derive(Default)]
struct Load {
    over: CancellationToken,
    refusals: AtomicUsize,
}

/// What came of a caller's attempts: those that were acknowledged, by their keys, and those that were not.
#[derive(Default)]
struct Asked {
    acknowledged: Vec<(Ask, Receipt)>,
    refused: Vec<Ask>,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_redis_is_away() {
    nothing_is_lost(Outage::Away).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_redis_hangs() {
    nothing_is_lost(Outage::Hangs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_redis_is_paused() {
    nothing_is_lost(Outage::Paused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_redis_is_slow() {
    nothing_is_lost(Outage::Slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_redis_is_full() {
    nothing_is_lost(Outage::Full).await;
}

async fn nothing_is_lost(outage: Outage) {
    let mut redis = Redis::start_with(&["--enable-debug-command", "local"]).await;
    let slack = Slack::start().await;
    let gateway = slack.gateway(Home::new(&deploy(1)).with_redis(&redis)).await;
    let requests = join_all((0..REQUESTS).map(|_| gateway.open("deploy"))).await;
    for request in &requests {
        // One that ended before it was posted would have no message.
        slack.shown(&request.id).await;
    }
    let mut stream = gateway.stream(&requests[0].token).await;
    assert_eq!(stream.state().await.status(), "ready_for_approval");

    let load = Load::default();
    let watch = Stopwatch::start();
    let asking = join_all((0..CALLERS).map(|caller| ask(&gateway, caller, outage, &load)));
    let troubled = async {
        begin(outage, &mut redis).await;
        let answers = join_all(requests.iter().map(|request| press(&gateway, &request.id))).await;
        keep_up(outage, &redis, &watch).await;
        if outage.is_total() {
            let refused = async {
                while load.refusals.load(Ordering::Relaxed) == 0 {
                    tokio::task::yield_now().await;
                }
            };
            within("a caller to be refused", refused).await;
        }
        end(outage, &mut redis).await;
        load.over.cancel();
        answers
    };
    let (asked, answers) = tokio::join!(asking, troubled);
    assert_eq!(answers.len(), REQUESTS);
    recovered(&gateway, &requests[0].token).await;

    for request in &requests {
        let ended = gateway.ended(&request.token).await;
        assert_eq!(
            (&ended["status"], &ended["approvers"]),
            (&json!("approved"), &json!(["U0ALICE"])),
            "{outage:?}"
        );
    }
    let events = within("the end of the stream", stream.rest()).await;
    let states: Vec<_> =
        events.iter().filter(|event| event.name == "state").map(|event| event.status()).collect();
    assert_eq!(states, ["approved"], "it said nothing else meanwhile: {events:?}");
    let mut made = REQUESTS;
    for Asked { acknowledged, refused } in &asked {
        for (ask, receipt) in acknowledged {
            assert_eq!(gateway.look(&receipt.token).await["status"], "ready_for_approval");
            let again = gateway.create(ask).await.expect("its key is known");
            assert_eq!((&again.id, &again.token), (&receipt.id, &receipt.token));
        }
        for ask in refused {
            // It may have been stored all the same; now it is, once.
            let (one, other) = (gateway.create(ask).await, gateway.create(ask).await);
            assert_eq!(one.expect("it is taken").id, other.expect("it is known").id);
        }
        made += acknowledged.len() + refused.len();
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("approvals_total", &[]), REQUESTS as u64, "one decision each");
    assert_eq!(metrics.count("approval_requests_total", &[]), made as u64);
    let emptied = async {
        while std::fs::read_dir(gateway.home().path("spool")).expect("there is a spool").count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the spool to be empty", emptied).await;
    for request in &requests {
        slack.shown_when(&request.id, "to say so", |message| message.shown().contains("Approved")).await;
        assert_eq!(slack.posted(&request.id).len(), 1);
    }
}

/// Asks on and on, each time with another key, until the outage is over or enough was seen of it.
async fn ask(gateway: &Gateway, caller: usize, outage: Outage, load: &Load) -> Asked {
    let mut asked = Asked::default();
    for number in 0.. {
        if load.over.is_cancelled() || asked.acknowledged.len() >= MOST {
            break;
        }
        let ask = Ask::new("deploy").idempotency_key(&format!("caller-{caller}-{number}"));
        match gateway.create(&ask).await {
            Ok(receipt) => asked.acknowledged.push((ask, receipt)),
            Err(problem) => {
                assert_eq!(problem.code == "store_full", outage == Outage::Full, "{problem:?}");
                assert!(problem.status == 503 && problem.retry_after.is_some(), "{problem:?}");
                asked.refused.push(ask);
                load.refusals.fetch_add(1, Ordering::Relaxed);
                if asked.refused.len() >= MOST {
                    load.over.cancelled().await;
                }
            }
        }
    }
    asked
}

/// Approves, and is told that it counts, or will: at once, or in the message later.
async fn press(gateway: &Gateway, request: &str) -> Value {
    let answer = gateway.click_once(&Click::approve("U0ALICE", request)).await;
    assert!(answer == json!({}) || answer["ok"] == true, "{answer}");
    answer
}

async fn begin(outage: Outage, redis: &mut Redis) {
    match outage {
        Outage::Away => redis.kill(),
        Outage::Hangs => redis.freeze(),
        Outage::Paused => {
            let millis = lasts().unwrap_or(PAUSE).as_millis().to_string();
            redis.command(&["CLIENT", "PAUSE", &millis, "ALL"]).await;
        }
        Outage::Slow => {}
        Outage::Full => {
            redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
        }
    }
}

/// How long each outage is to last, if it is not to be short.
fn lasts() -> Option<Duration> {
    variable("COUNTERSIGN_OUTAGE_SEC").map(|seconds| Duration::from_secs(seconds.parse().expect("seconds")))
}

/// Goes on with it for as long as it is to last.
async fn keep_up(outage: Outage, redis: &Redis, watch: &Stopwatch) {
    let lasts = lasts().unwrap_or_default();
    let mut slept = 0;
    while watch.elapsed() < lasts || (outage == Outage::Slow && slept < 10) {
        match outage {
            // Each call that comes meanwhile waits.
            Outage::Slow => {
                redis.command(&["DEBUG", "SLEEP", "0.2"]).await;
                slept += 1;
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Waits until the gateway answers again.
async fn recovered(gateway: &Gateway, token: &str) {
    let look = Call::post("/api/guard/wait", &json!({"token": token}));
    let answered = async {
        while gateway.send(&look).await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    within("the gateway to go on", answered).await;
}

async fn end(outage: Outage, redis: &mut Redis) {
    match outage {
        Outage::Away => redis.resume().await,
        Outage::Hangs => redis.thaw(),
        // It ends by itself.
        Outage::Paused | Outage::Slow => {}
        Outage::Full => {
            redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
        }
    }
}
