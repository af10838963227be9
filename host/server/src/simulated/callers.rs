//! Callers: they make requests, again if they got no answer, listen for the decision, and take requests back.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use countersign_core::lifecycle::{RequestId, Status};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::expected::{ACTIONS, PEOPLE, TROUBLE};
use super::gateway::Process;
use super::world::{World, lock};

/// How long a caller waits before it opens a stream again, in milliseconds.
const RECONNECT_MS: u64 = 2_000;

/// What callers want, and what they know.
#[derive(Default)]
pub(super) struct Callers {
    pub(super) wanted: Vec<Wanted>,
    pub(super) streams: Vec<Stream>,
}

/// A request that a caller wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    body: Value,
    /// The idempotency key, if the caller has one.
    key: Option<String>,
    /// How often it was asked for.
    pub(super) attempts: usize,
    under_way: usize,
    pub(super) receipt: Option<Receipt>,
    /// The gateway will never make it.
    is_refused: bool,
}

/// A request that was made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Receipt {
    pub(super) id: RequestId,
    token: String,
}

/// Somebody listens.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    receipt: Receipt,
    /// The version that was seen last.
    pub(super) seen: u64,
    pub(super) status: Option<Status>,
    is_open: bool,
}

impl Wanted {
    /// What nothing else wants.
    pub(super) fn justification(&self) -> &str {
        self.body["meta"]["justification"].as_str().unwrap_or_default()
    }

    /// Whether one request at most may come of it, however often it is asked for.
    pub(super) fn is_once(&self) -> bool {
        self.key.is_some()
    }
}

/// A caller wants something new.
pub(super) fn ask(world: &Arc<World>, process: &Process) {
    let number = lock(&world.callers).wanted.len();
    let action = world.pick(&ACTIONS).map_or("", |action| action.name);
    let requester = if world.percent(40) { TROUBLE } else { world.pick(&PEOPLE).unwrap_or(&TROUBLE) };
    let mut params = json!({"ref": "v1", "replicas": 1 + world.below(5)});
    if world.percent(8) {
        // Too much for one message, so that it takes a review.
        params["note"] = "a long note ".repeat(1_200).into();
    }
    let body = json!({
        "action": action,
        "params": params,
        "meta": {
            "origin": {"repo": "acme/web"},
            "requester": {"id": requester, "source": "slack"},
            "justification": format!("wanted {number}"),
        },
    });
    let key = world.percent(70).then(|| format!("key-{number}"));
    let wanted = Wanted { body, key, attempts: 0, under_way: 0, receipt: None, is_refused: false };
    world.say(|| format!("{number}: {action} is wanted by {requester}, key {:?}", wanted.key));
    lock(&world.callers).wanted.push(wanted);
    attempt(world, process, number);
    if world.percent(12) {
        attempt(world, process, number);
    }
}

/// A caller that has no answer yet asks again.
pub(super) fn ask_again(world: &Arc<World>, process: &Process) {
    let is_due = |wanted: &Wanted| {
        let is_idle = wanted.under_way == 0 && !wanted.is_refused;
        // With its key even one that has an answer can be asked for again.
        let is_due = wanted.receipt.is_none() || (wanted.is_once() && world.percent(10));
        is_idle && is_due && world.percent(60)
    };
    let due: Vec<usize> = {
        let callers = lock(&world.callers);
        let wanted = callers.wanted.iter().enumerate();
        wanted.filter(|(_, wanted)| is_due(wanted)).map(|(number, _)| number).collect()
    };
    for number in due {
        attempt(world, process, number);
    }
}

fn attempt(world: &Arc<World>, process: &Process, number: usize) {
    let (body, key) = {
        let mut callers = lock(&world.callers);
        let Some(wanted) = callers.wanted.get_mut(number) else { return };
        (wanted.attempts, wanted.under_way) = (wanted.attempts + 1, wanted.under_way + 1);
        (wanted.body.to_string(), wanted.key.clone())
    };
    let (world, process) = (Arc::clone(world), process.clone());
    tokio::spawn(async move {
        let mut request = Request::post("/api/guard/request").header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (status, answer) = call(&process, request.body(Body::from(body)).expect("a request")).await;
        if world.is_dead() {
            return;
        }
        world.say(|| format!("{number}: {status} {}", brief(&answer)));
        world.must(asked(&world, number, status, &answer));
    });
}

/// What is acknowledged exists; and one key stands for one request.
fn asked(world: &Arc<World>, number: usize, status: StatusCode, answer: &Value) -> Result<(), String> {
    let mut callers = lock(&world.callers);
    let Some(wanted) = callers.wanted.get_mut(number) else { return Ok(()) };
    wanted.under_way -= 1;
    match status.as_u16() {
        200 => {}
        503 => return Ok(()),
        403 => {
            wanted.is_refused = true;
            return Ok(());
        }
        _ => return Err(format!("a create is answered with {status}: {answer}")),
    }
    let id =
        answer["requestId"].as_str().and_then(|id| id.parse().ok()).ok_or("an answer names no request")?;
    let receipt = Receipt { id, token: answer["token"].as_str().unwrap_or_default().to_owned() };
    if lock(&world.ledger).newest(id).is_none() {
        return Err(format!("{id} is acknowledged, and is not stored"));
    }
    if let (Some(known), true) = (&wanted.receipt, wanted.is_once())
        && *known != receipt
    {
        return Err(format!("one key stands for {known:?} and for {receipt:?}"));
    }
    if wanted.receipt.is_none() {
        wanted.receipt = Some(receipt.clone());
        if world.percent(60) {
            callers.streams.push(Stream { receipt, seen: 0, status: None, is_open: false });
        }
    }
    Ok(())
}

/// A caller takes a request back.
pub(super) fn cancel(world: &Arc<World>, process: &Process) {
    let receipts: Vec<Receipt> =
        lock(&world.callers).wanted.iter().filter_map(|wanted| wanted.receipt.clone()).collect();
    let Some(Receipt { id, token }) = world.pick(&receipts).cloned() else { return };
    let (world, process) = (Arc::clone(world), process.clone());
    tokio::spawn(async move {
        world.say(|| format!("{id} is taken back"));
        let body = json!({"token": token, "reason": "not needed"});
        let (status, answer) = call(&process, post("/api/guard/cancel", &body)).await;
        if world.is_dead() {
            return;
        }
        world.say(|| format!("{id}: {status} {}", brief(&answer)));
        let stands = lock(&world.ledger).newest(id).map(countersign_core::lifecycle::Request::status);
        let is_true = match status.as_u16() {
            200 => stands == Some(Status::Cancelled),
            409 | 503 => true,
            _ => false,
        };
        let wrong =
            || Err(format!("taking back {id}, which is {stands:?}, is answered with {status}: {answer}"));
        world.must(if is_true { Ok(()) } else { wrong() });
    });
}

/// A caller asks how a request stands.
pub(super) fn look(world: &Arc<World>, process: &Process) {
    let receipts: Vec<Receipt> =
        lock(&world.callers).wanted.iter().filter_map(|wanted| wanted.receipt.clone()).collect();
    let Some(Receipt { id, token }) = world.pick(&receipts).cloned() else { return };
    let (world, process) = (Arc::clone(world), process.clone());
    tokio::spawn(async move {
        let least = lock(&world.ledger).newest(id).map_or(0, |request| request.version);
        let (status, answer) = call(&process, post("/api/guard/wait", &json!({"token": token}))).await;
        if world.is_dead() || status.as_u16() == 503 {
            return;
        }
        let told = answer["status"].as_str().unwrap_or_default();
        let ledger = lock(&world.ledger);
        let mut known = ledger.requests.get(&id).into_iter().flatten();
        let is_true = known.any(|request| request.version >= least && request.status().as_str() == told);
        drop(ledger);
        let wrong = || Err(format!("a caller is told that {id} is {told}: {status} {answer}"));
        world.must(if is_true { Ok(()) } else { wrong() });
    });
}

/// Opens every stream that is closed and has not seen the end.
pub(super) fn listen(world: &Arc<World>, process: &Process) {
    let closed: Vec<usize> = {
        let mut callers = lock(&world.callers);
        let streams = callers.streams.iter_mut().enumerate();
        let mut closed = Vec::new();
        for (number, stream) in streams.filter(|(_, stream)| !stream.is_open && !stream.has_ended()) {
            stream.is_open = true;
            closed.push(number);
        }
        closed
    };
    for number in closed {
        let (world, process) = (Arc::clone(world), process.clone());
        tokio::spawn(async move {
            follow(&world, &process, number).await;
            // The client of a stream waits before it comes again.
            world.pass(RECONNECT_MS).await;
            if let Some(stream) = lock(&world.callers).streams.get_mut(number) {
                stream.is_open = false;
            }
        });
    }
}

/// The process has ended, and with it every call.
pub(super) fn process_ended(world: &World) {
    let mut callers = lock(&world.callers);
    callers.streams.iter_mut().for_each(|stream| stream.is_open = false);
    callers.wanted.iter_mut().for_each(|wanted| wanted.under_way = 0);
}

impl Stream {
    pub(super) fn id(&self) -> RequestId {
        self.receipt.id
    }

    pub(super) fn has_ended(&self) -> bool {
        self.status.is_some_and(Status::is_terminal)
    }
}

async fn follow(world: &Arc<World>, process: &Process, number: usize) {
    let Some(stream) = lock(&world.callers).streams.get(number).cloned() else { return };
    let request = Request::get("/api/guard/wait-sse")
        .header("authorization", format!("Bearer {}", stream.receipt.token))
        .header("last-event-id", stream.seen.to_string())
        .body(Body::empty())
        .expect("a request");
    let Ok(response) = process.router.clone().oneshot(request).await;
    world.say(|| format!("stream {number} of {}: {}", stream.id(), response.status()));
    match response.status().as_u16() {
        200 => {}
        // It had seen the last version.
        204 | 503 => return,
        status => return world.must(Err(format!("stream {number} is answered with {status}"))),
    }
    let mut body = response.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if world.is_dead() {
            return;
        }
        let Ok(bytes) = frame.into_data() else { continue };
        world.must(heard(world, number, &String::from_utf8_lossy(&bytes)));
    }
}

/// Nobody hears of a version that is not stored, and each hears of versions in their order.
fn heard(world: &World, number: usize, text: &str) -> Result<(), String> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let (Some(version), Some(data)) = (field("id: ").and_then(|id| id.parse::<u64>().ok()), field("data: "))
    else {
        return Ok(());
    };
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    let told = data["status"].as_str().unwrap_or_default();
    let mut callers = lock(&world.callers);
    let Some(stream) = callers.streams.get_mut(number) else { return Ok(()) };
    let id = stream.id();
    world.say(|| format!("stream {number} of {id} hears of v{version}: {told}"));
    let ledger = lock(&world.ledger);
    let Some(stored) = ledger.version(id, version) else {
        return Err(format!("stream {number} hears of v{version} of {id}, which is not stored"));
    };
    if stored.status().as_str() != told {
        return Err(format!(
            "stream {number} hears that v{version} of {id} is {told}: it is {}",
            stored.status()
        ));
    }
    if version <= stream.seen {
        return Err(format!("stream {number} of {id} hears of v{version} after v{}", stream.seen));
    }
    (stream.seen, stream.status) = (version, Some(stored.status()));
    Ok(())
}

fn post(path: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from(body.to_string())).expect("a request")
}

async fn call(process: &Process, request: Request<Body>) -> (StatusCode, Value) {
    let Ok(response) = process.router.clone().oneshot(request).await;
    let status = response.status();
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn brief(answer: &Value) -> String {
    let members = ["requestId", "status", "replayed", "code", "detail"];
    let shown = members.iter().filter_map(|name| Some(format!("{name} {}", answer.get(*name)?)));
    shown.collect::<Vec<_>>().join(", ")
}
