//! Slack: it keeps messages and dialogs, and answers a call late, twice, wrongly or not at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use countersign_core::lifecycle::{RequestId, Status};
use countersign_slack::fake::InProcessAnswer as Answer;
use serde_json::{Value, json};

use super::clock::START;
use super::profile::LATEST_UPDATE_MS;
use super::world::{World, lock};

/// The workspace.
pub(super) const TEAM: &str = "T1";

/// How many messages are on a page of a channel's history.
const PAGE: usize = 3;

/// How long a trigger opens a dialog, in milliseconds.
const TRIGGER_MS: u64 = 3_000;

/// How long the gateway waits for an answer, in milliseconds.
const CALL_TIMEOUT_MS: u64 = 10_000;

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) channel: String,
    pub(super) ts: String,
    pub(super) thread: Option<String>,
    pub(super) content: Value,
}

/// A button that somebody can press.
#[derive(Clone, Debug)]
pub(super) struct Button {
    pub(super) channel: String,
    pub(super) ts: String,
    pub(super) block_id: String,
    pub(super) action_id: String,
    pub(super) value: String,
}

/// A dialog that somebody has open.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) view: Value,
}

/// A call that Slack carries out at some time.
struct Pending {
    at_ms: u64,
    number: u64,
    method: &'static str,
    body: Value,
}

/// What Slack keeps.
#[derive(Default)]
pub(super) struct Slack {
    pub(super) messages: Vec<Shown>,
    /// Every button that was ever shown, for people with old messages before them.
    pub(super) ever_shown: Vec<Button>,
    pub(super) dialogs: Vec<Dialog>,
    /// Who may open a dialog with which trigger, and when they were given it.
    triggers: BTreeMap<String, (String, u64)>,
    pending: Vec<Pending>,
    results: BTreeMap<u64, Value>,
    calls: u64,
    posted: u64,
    pub(super) away_until_ms: u64,
    /// When the gateway hears of a link, or that there is none: it may then make the call that needs it, for which it had
    /// leave before.
    links_heard_ms: BTreeSet<u64>,
    /// When each method was called by this process, and until when Slack takes no more.
    rates: BTreeMap<String, (VecDeque<u64>, u64)>,
}

/// How a call goes.
enum Fate {
    Done,
    DoneAndCut,
    /// Carried out after so many milliseconds, and never answered.
    Late(u64),
    Hangs,
    Answered(Answer),
}

/// Answers a call.
pub(super) async fn answer(world: Arc<World>, method: &'static str, body: Value) -> Answer {
    world.point().await;
    world.must(check_rate(&world, method, &body));
    world.must(check_claim(&world, &body));
    let about = mark(&body).map_or(method.to_owned(), |(id, slot)| format!("{method} of {id} {slot}"));
    let fate = fate(&world, method);
    let latency_ms = 5 + world.below(if world.percent(10) { 1_500 } else { 200 });
    let now = world.elapsed_ms();
    if method == "chat.getPermalink" {
        let is_answered = matches!(fate, Fate::Done | Fate::DoneAndCut | Fate::Answered(_));
        let heard_in = if is_answered { latency_ms } else { CALL_TIMEOUT_MS };
        lock(&world.slack).links_heard_ms.insert(now + heard_in);
    }
    let accept = |at_ms: u64, body: Value| {
        let mut slack = lock(&world.slack);
        slack.calls += 1;
        let number = slack.calls;
        slack.pending.push(Pending { at_ms, number, method, body });
        number
    };
    match fate {
        Fate::Done => {
            let number = accept(now + latency_ms, body);
            world.pass(latency_ms).await;
            let answer = lock(&world.slack).result(number, world.elapsed_ms());
            world.say(|| format!("slack: {about} is answered"));
            Answer::Json(answer)
        }
        Fate::DoneAndCut => {
            accept(now + latency_ms, body);
            world.pass(latency_ms).await;
            world.say(|| format!("slack: {about} is carried out, and cut off"));
            Answer::Cut
        }
        Fate::Late(late_ms) => {
            world.say(|| format!("slack: {about} is carried out in {late_ms} ms, and not answered"));
            accept(now + late_ms, body);
            std::future::pending().await
        }
        Fate::Hangs => {
            world.say(|| format!("slack: {about} hangs"));
            std::future::pending().await
        }
        Fate::Answered(answer) => {
            world.pass(latency_ms).await;
            world.say(|| format!("slack: {about} fails: {answer:?}"));
            if let Answer::Limited(seconds) = answer {
                let until = world.elapsed_ms() + seconds * 1000;
                let key = rate_key(method, &body);
                let mut slack = lock(&world.slack);
                let (_, blocked_until) = slack.rates.entry(key).or_default();
                *blocked_until = until.max(*blocked_until);
            }
            answer
        }
    }
}

fn fate(world: &World, method: &str) -> Fate {
    let is_away = world.elapsed_ms() < lock(&world.slack).away_until_ms;
    if is_away {
        return if world.percent(80) { Fate::Answered(Answer::Status(503)) } else { Fate::Hangs };
    }
    if !world.percent(world.profile().slack_fails) {
        return Fate::Done;
    }
    // A post comes late within the time after which the gateway looks for it, an update within that of its repetition.
    let late_ms = if method == "chat.update" { LATEST_UPDATE_MS } else { 9_000 };
    let late_ms = if world.has_jumped() { 1 } else { late_ms };
    match world.below(100) {
        0..30 => Fate::Answered(Answer::Limited(1 + world.below(5))),
        30..45 => Fate::Answered(Answer::Status(500)),
        45..57 => Fate::Answered(Answer::Cut),
        57..72 => Fate::DoneAndCut,
        72..84 => Fate::Late(1 + world.below(late_ms)),
        84..90 => Fate::Hangs,
        roll => {
            let codes =
                ["internal_error", "a_code_of_next_year", "msg_too_long", "invalid_auth", "not_in_channel"];
            let code = match roll {
                // A refused search means by design that a message is posted again.
                _ if method.starts_with("conversations.") => codes[0],
                90..94 => codes[0],
                94..97 => codes[1],
                97..98 => codes[2],
                98 => codes[3],
                _ => codes[4],
            };
            Fate::Answered(Answer::Json(json!({"ok": false, "error": code})))
        }
    }
}

/// What has a rate limit of its own.
fn rate_key(method: &str, body: &Value) -> String {
    match method {
        "chat.postMessage" => format!("{method} {}", body["channel"]),
        _ => method.to_owned(),
    }
}

/// The gateway keeps to Slack's rate limits. Calls that wait for a slow store may come closer to each other, and a clock
/// that is set makes its buckets fuller than they should be.
fn check_rate(world: &World, method: &'static str, body: &Value) -> Result<(), String> {
    const MINUTE: u64 = 60_000;
    let (now, profile) = (world.elapsed_ms(), world.profile());
    let a_minute = match method {
        "chat.postMessage" => 60.0,
        "chat.update" | "conversations.history" | "conversations.replies" => 50.0,
        _ => return Ok(()),
    };
    let key = rate_key(method, body);
    let mut slack = lock(&world.slack);
    if slack.links_heard_ms.contains(&now) {
        return Ok(());
    }
    let (calls, blocked_until) = slack.rates.entry(key.clone()).or_default();
    while calls.front().is_some_and(|at| at + MINUTE <= now) {
        calls.pop_front();
    }
    calls.push_back(now);
    if world.has_jumped() || world.has_slow_store() {
        return Ok(());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let most = (a_minute * profile.rate_factor).ceil() as usize + 1;
    if calls.len() > most {
        return Err(format!(
            "{key} was called {} times within a minute, and {most} are allowed",
            calls.len()
        ));
    }
    if now < *blocked_until {
        return Err(format!("{key} was called {} ms before Slack allows it", *blocked_until - now));
    }
    Ok(())
}

/// Nobody hears of a decision that is not stored.
fn check_claim(world: &World, body: &Value) -> Result<(), String> {
    let Some((id, slot)) = mark(body) else { return Ok(()) };
    let ledger = lock(&world.ledger);
    let Some(request) = ledger.newest(id) else {
        return Err(format!("Slack is told of {id}, which is not stored"));
    };
    match shown_status(body) {
        Some(shown) if slot == "main" && shown.is_terminal() && shown != request.status() => {
            Err(format!("Slack is told that {id} is {shown}, and it is {}", request.status()))
        }
        _ => Ok(()),
    }
}

/// The request and the slot of a message.
pub(super) fn mark(content: &Value) -> Option<(RequestId, &str)> {
    let payload = content.get("metadata")?.get("event_payload")?;
    Some((payload.get("request_id")?.as_str()?.parse().ok()?, payload.get("slot")?.as_str()?))
}

/// The status that a message shows, as far as it has ended: what callers wrote is in blocks of another type.
pub(super) fn shown_status(content: &Value) -> Option<Status> {
    let sections = content["blocks"].as_array()?.iter().filter(|block| block["type"] == "section");
    let texts: Vec<&str> = sections.filter_map(|block| block["text"]["text"].as_str()).collect();
    let says =
        |word: &str| texts.iter().any(|text| text.lines().next().is_some_and(|line| line.contains(word)));
    [
        ("*Approved", Status::Approved),
        ("*Denied*", Status::Denied),
        ("*Expired*", Status::Expired),
        ("*Cancelled*", Status::Cancelled),
        ("*Waiting", Status::Pending),
        ("*Escalated: waiting", Status::Pending),
    ]
    .into_iter()
    .find_map(|(word, status)| says(word).then_some(status))
}

/// The buttons of a message.
pub(super) fn buttons(message: &Shown) -> Vec<Button> {
    let rows =
        message.content["blocks"].as_array().into_iter().flatten().filter(|block| block["type"] == "actions");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.flat_map(|row| {
        let block_id = text(&row["block_id"]);
        row["elements"].as_array().into_iter().flatten().map(move |element| Button {
            channel: message.channel.clone(),
            ts: message.ts.clone(),
            block_id: block_id.clone(),
            action_id: text(&element["action_id"]),
            value: text(&element["value"]),
        })
    })
    .collect()
}

impl Slack {
    /// Somebody presses something, and may have a dialog opened with this trigger.
    pub(super) fn triggered(&mut self, trigger: &str, user: &str, now_ms: u64) {
        self.triggers.insert(trigger.to_owned(), (user.to_owned(), now_ms));
    }

    /// Another process calls, which knows nothing of the calls of the one before. What that one sent arrives when it would
    /// have arrived, or before the next one starts if `at_once`.
    pub(super) fn process_ended(&mut self, now_ms: u64, at_once: bool) {
        self.rates.clear();
        if at_once {
            self.pending.iter_mut().for_each(|pending| pending.at_ms = pending.at_ms.min(now_ms));
        }
        self.advance(now_ms);
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Carries out everything whose time has come.
    pub(super) fn advance(&mut self, now_ms: u64) {
        loop {
            let due = self.pending.iter().enumerate().filter(|(_, pending)| pending.at_ms <= now_ms);
            let Some((first, _)) = due.min_by_key(|(_, pending)| (pending.at_ms, pending.number)) else {
                return;
            };
            let Pending { at_ms, number, method, body } = self.pending.swap_remove(first);
            let result = self.perform(method, body, at_ms.min(now_ms));
            self.results.insert(number, result);
        }
    }

    fn result(&mut self, number: u64, now_ms: u64) -> Value {
        self.advance(now_ms);
        self.results.remove(&number).unwrap_or_default()
    }

    fn perform(&mut self, method: &str, body: Value, at_ms: u64) -> Value {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        match method {
            "chat.postMessage" => {
                self.posted += 1;
                let seconds = (START.as_millis() + at_ms) / 1000;
                let ts = format!("{seconds}.{:06}", self.posted);
                let (channel, thread) = (text("channel"), body["thread_ts"].as_str().map(str::to_owned));
                let shown = Shown { channel: channel.clone(), ts: ts.clone(), thread, content: body };
                self.ever_shown.extend(buttons(&shown));
                self.messages.push(shown);
                json!({"ok": true, "channel": channel, "ts": ts})
            }
            "chat.update" => {
                let place = (text("channel"), text("ts"));
                let found = self.messages.iter_mut().find(|it| (&it.channel, &it.ts) == (&place.0, &place.1));
                let Some(message) = found.filter(|message| mark(&message.content) == mark(&body)) else {
                    return json!({"ok": false, "error": "message_not_found"});
                };
                message.content = body;
                self.ever_shown.extend(buttons(message));
                json!({"ok": true, "channel": place.0, "ts": place.1})
            }
            "conversations.history" | "conversations.replies" => self.history(method, &body),
            "chat.getPermalink" => {
                let link = format!("https://slack.test/{}/{}", text("channel"), text("message_ts"));
                json!({"ok": true, "permalink": link})
            }
            "auth.test" => json!({"ok": true, "team_id": TEAM, "user_id": "UBOT"}),
            "views.open" => match self.triggers.remove(&text("trigger_id")) {
                Some((user, given_ms)) if at_ms <= given_ms + TRIGGER_MS => {
                    let id = format!("V{}", self.calls);
                    self.dialogs.retain(|dialog| dialog.user != user);
                    self.dialogs.push(Dialog { id, user, view: body["view"].clone() });
                    json!({"ok": true})
                }
                _ => json!({"ok": false, "error": "expired_trigger_id"}),
            },
            "views.update" => {
                let id = text("view_id");
                match self.dialogs.iter_mut().find(|dialog| dialog.id == id) {
                    Some(dialog) => {
                        dialog.view = body["view"].clone();
                        json!({"ok": true})
                    }
                    None => json!({"ok": false, "error": "not_found"}),
                }
            }
            _ => json!({"ok": true}),
        }
    }

    fn history(&self, method: &str, body: &Value) -> Value {
        let text = |key: &str| body[key].as_str().unwrap_or_default();
        let number = |text: &str| text.parse::<f64>().unwrap_or_default();
        let thread = (method == "conversations.replies").then(|| text("ts"));
        let within = number(text("oldest"))..=number(text("latest"));
        let is_wanted = |message: &&Shown| {
            message.channel == text("channel")
                && message.thread.as_deref() == thread
                && within.contains(&number(&message.ts))
        };
        let found: Vec<&Shown> = self.messages.iter().rev().filter(is_wanted).collect();
        let from = text("cursor").parse::<usize>().unwrap_or_default();
        let page = found.iter().skip(from).take(PAGE);
        let messages: Vec<Value> =
            page.map(|message| json!({"ts": message.ts, "metadata": message.content["metadata"]})).collect();
        let next = if from + PAGE < found.len() { (from + PAGE).to_string() } else { String::new() };
        json!({"ok": true, "messages": messages, "response_metadata": {"next_cursor": next}})
    }
}
