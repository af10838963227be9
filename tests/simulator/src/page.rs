//! The page in the browser, and its calls.
//!
//! Anybody on this machine may click as anybody; a page of another site must not. So calls are accepted only with a loopback
//! name as their host, and changes only as JSON, which a page of another site cannot send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::clock;
use crate::faults::Faults;
use crate::interaction::{self, Outcome};
use crate::message::{Author, Message};
use crate::shared::Shared;
use crate::view::Entry;
use crate::workspace::{BOT_NAME, BOT_USER};
use crate::world::World;

/// How long a page waits for a change before it asks again.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many messages of a channel a page gets.
const MESSAGES: usize = 200;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(|| file("text/html", include_str!("page/page.html"))))
        .route("/page.css", get(|| file("text/css", include_str!("page/page.css"))))
        .route("/page.js", get(|| file("text/javascript", include_str!("page/page.js"))))
        .route("/_sim/state", get(state))
        .route("/_sim/counts", get(counts))
        .route("/_sim/faults", get(faults).post(act))
        .route("/_sim/{what}", post(act))
        .layer(middleware::from_fn(guard))
}

async fn file(kind: &str, content: &'static str) -> Response {
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy.to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, content).into_response()
}

async fn guard(request: Request, next: Next) -> Response {
    if is_local(request.headers()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this answers to loopback names only").into_response()
    }
}

/// Whether the host is a loopback name: another name could point here by somebody else's DNS.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    matches!(name, "127.0.0.1" | "localhost" | "[::1]")
}

/// What a person sees; if `after` is the version that they know, once there is a newer one.
async fn state(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let of = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let user = of("user").unwrap_or_default();
    let known = of("after").and_then(|after| after.parse::<u64>().ok());
    let mut versions = shared.watch();
    if known.is_some() {
        // No change within that time is an answer too.
        let _ = tokio::time::timeout(PATIENCE, versions.wait_for(|version| Some(*version) != known)).await;
    }
    let version = *versions.borrow();
    let sockets = shared.sockets.count();
    json_response(StatusCode::OK, &shared.look(|world| seen(world, &user, version, sockets)))
}

fn seen(world: &World, user: &str, version: u64, sockets: usize) -> Value {
    let channels = world.channels.values().filter(|channel| {
        let members = channel.profile.members.as_ref();
        members.is_none_or(|members| members.iter().any(|member| member == user))
    });
    let channels: Vec<Value> = channels
        .map(|channel| {
            let skipped = channel.messages.len().saturating_sub(MESSAGES);
            json!({
                "id": channel.profile.id,
                "name": channel.profile.name,
                "topic": channel.profile.topic,
                "private": channel.profile.private,
                "archived": channel.profile.archived,
                "messages": channel.messages.values().skip(skipped).map(message).collect::<Vec<_>>(),
            })
        })
        .collect();
    let views: Vec<Value> = world
        .views_of(user)
        .map(|view| {
            let mut json = view.json(&world.workspace.team);
            json["errors"] = json!(view.errors);
            json["trouble"] = json!(view.trouble);
            json
        })
        .collect();
    let ephemerals = world.ephemerals.iter().filter(|ephemeral| ephemeral.user == user).map(|ephemeral| {
        json!({
            "channel": ephemeral.channel,
            "ts": ephemeral.ts,
            "thread_ts": ephemeral.thread,
            "text": ephemeral.text,
            "blocks": ephemeral.blocks,
            "author": BOT_USER,
            "ephemeral": true,
        })
    });
    let warnings = world.warnings.iter().filter(|warning| warning.user == user);
    let warnings =
        warnings.map(|warning| json!({"channel": warning.channel, "ts": warning.ts, "text": warning.text}));
    json!({
        "version": version,
        "now": clock::micros() / 1_000_000,
        "team": world.workspace.team,
        "bot": {"id": BOT_USER, "name": BOT_NAME},
        "people": world.workspace.people,
        "groups": world.workspace.groups,
        "channels": channels,
        "ephemerals": ephemerals.collect::<Vec<_>>(),
        "views": views,
        "warnings": warnings.collect::<Vec<_>>(),
        "sockets": sockets,
    })
}

fn message(message: &Message) -> Value {
    json!({
        "channel": message.channel,
        "ts": message.ts,
        "thread_ts": message.thread,
        "broadcast": message.broadcast,
        "text": message.text,
        "blocks": message.blocks,
        "updates": message.updates,
        "author": match &message.author {
            Author::App => BOT_USER,
            Author::Person(id) => id,
        },
    })
}

async fn counts(State(shared): State<Arc<Shared>>) -> Response {
    let counts = shared.look(|world| world.counts.clone());
    let calls: Vec<Value> = counts
        .iter()
        .map(|(method, outcome, count)| json!({"method": method, "outcome": outcome, "count": count}))
        .collect();
    let done = counts.unanswered_but_done();
    json_response(StatusCode::OK, &json!({"calls": calls, "unanswered_but_done": done}))
}

async fn faults(State(shared): State<Arc<Shared>>) -> Response {
    json_response(StatusCode::OK, &json!(shared.look(|world| world.chance.faults().clone())))
}

/// Carries out a call of the page. Answers `{}` or the result, and 4xx with `error` if it cannot.
async fn act(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let what = request.uri().path().trim_start_matches("/_sim/").to_owned();
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "changes are asked for in JSON");
    }
    let body = to_bytes(request.into_body(), 1 << 20).await;
    let body = body.ok().and_then(|body| serde_json::from_slice::<Value>(&body).ok());
    let Some(body) = body else { return refused(StatusCode::BAD_REQUEST, "the body is no JSON") };
    match what.as_str() {
        "click" => click(&shared, &body).await,
        "submit" => submit(&shared, &body).await,
        "close" => {
            interaction::close(&shared, text(&body, "user"), text(&body, "view")).await;
            json_response(StatusCode::OK, &json!({}))
        }
        "dismiss" => {
            let (user, ts) = (text(&body, "user"), text(&body, "ts"));
            shared.change(|world| {
                world.ephemerals.retain(|ephemeral| ephemeral.user != user || ephemeral.ts != ts);
                world.warnings.retain(|warning| warning.user != user || warning.ts != ts);
            });
            json_response(StatusCode::OK, &json!({}))
        }
        "say" => say(&shared, &body),
        "faults" => set_faults(&shared, body),
        "restart" => {
            shared.restart();
            json_response(StatusCode::OK, &json!({}))
        }
        _ => refused(StatusCode::NOT_FOUND, "there is no such thing to do"),
    }
}

async fn click(shared: &Shared, body: &Value) -> Response {
    let (user, action) = (text(body, "user"), text(body, "action_id"));
    let message = shared.look(|world| {
        world.workspace.person(user)?;
        world.message(text(body, "channel"), text(body, "ts")).cloned()
    });
    let Some(message) = message else {
        return refused(StatusCode::NOT_FOUND, "there is no such person or message");
    };
    match interaction::click(shared, user, &message, action, &entries(body)).await {
        Some(clicked) => json_response(StatusCode::OK, &json!({"warning": clicked.warning})),
        None => refused(StatusCode::CONFLICT, "the button is gone"),
    }
}

async fn submit(shared: &Shared, body: &Value) -> Response {
    let (user, view) = (text(body, "user"), text(body, "view"));
    let Some(submitted) = interaction::submit(shared, user, view, entries(body)).await else {
        return refused(StatusCode::CONFLICT, "the modal is not open any more");
    };
    let (outcome, errors) = match submitted.outcome {
        Outcome::Closed => ("closed", BTreeMap::new()),
        Outcome::Cleared => ("cleared", BTreeMap::new()),
        Outcome::Incomplete(errors) => ("incomplete", errors),
        Outcome::Errors(errors) => ("errors", errors),
        Outcome::Updated(_) => ("updated", BTreeMap::new()),
        Outcome::Pushed(_) => ("pushed", BTreeMap::new()),
        Outcome::Trouble(why) => {
            // For developers; the person is only asked to try again.
            eprintln!("the app did not answer a modal properly: {why}");
            ("trouble", BTreeMap::new())
        }
    };
    json_response(StatusCode::OK, &json!({"outcome": outcome, "errors": errors}))
}

fn say(shared: &Shared, body: &Value) -> Response {
    let (user, channel, said) = (text(body, "user"), text(body, "channel"), text(body, "text"));
    let thread = body["thread_ts"].as_str();
    let done = shared.change(|world| {
        world.workspace.person(user)?;
        world.channels.get(channel)?;
        if said.trim().is_empty() {
            return None;
        }
        // Typed text is literal: Slack's control characters are escaped.
        let escaped = said.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        Some(world.say(user, channel, thread, &escaped))
    });
    match done {
        Some(message) => json_response(StatusCode::OK, &json!({"ts": message.ts})),
        None => refused(StatusCode::NOT_FOUND, "there is no such person or channel, or nothing is said"),
    }
}

fn set_faults(shared: &Shared, body: Value) -> Response {
    let faults: Faults = match serde_json::from_value(body) {
        Ok(faults) => faults,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if let Some(mistake) = faults.mistake() {
        return refused(StatusCode::BAD_REQUEST, &mistake);
    }
    shared.set_faults(faults);
    json_response(StatusCode::OK, &json!({}))
}

fn entries(body: &Value) -> BTreeMap<String, Entry> {
    let entries = body["entries"].as_object().into_iter().flatten();
    entries.map(|(block, value)| (block.clone(), Entry::from_json(value))).collect()
}

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body[key].as_str().unwrap_or_default()
}

fn refused(status: StatusCode, error: &str) -> Response {
    json_response(status, &json!({"error": error}))
}

fn json_response(status: StatusCode, json: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], json.to_string()).into_response()
}
