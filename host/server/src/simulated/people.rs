//! People in Slack: they press what they see, or what they saw a while ago, fill in dialogs, and press twice; and Slack
//! delivers again what the gateway has not answered.

use std::sync::Arc;

use countersign_core::lifecycle::RequestId;
use countersign_slack::{Handler as _, parse_payload};
use serde_json::{Map, Value, json};

use super::expected::{PEOPLE, who_can};
use super::gateway::Process;
use super::slack::{Button, Dialog, Slack, TEAM, buttons};
use super::world::{World, lock};
use crate::interactions::SocketMode;

/// What people have done.
#[derive(Default)]
pub(super) struct People {
    pub(super) presses: Vec<Press>,
}

/// Somebody pressed a button or submitted a dialog.
#[derive(Clone, Debug)]
pub(super) struct Press {
    user: String,
    payload: Value,
    request: Option<RequestId>,
    /// The act that it may become; empty if it is none.
    act: &'static str,
    /// The dialog that it submitted.
    dialog: Option<String>,
    /// How many deliveries were not answered yet.
    under_way: u32,
    pub(super) is_answered: bool,
    /// It was answered that it counts.
    is_counted: bool,
    /// How many acts the person had on the request before.
    counted_before: usize,
    /// How often they had been refused one.
    refused_before: usize,
}

/// Somebody does something.
pub(super) fn act(world: &Arc<World>, process: &Process) {
    let now = world.elapsed_ms();
    let dialog = {
        let mut slack = lock(&world.slack);
        slack.advance(now);
        world.pick(&slack.dialogs).filter(|_| world.percent(50)).cloned()
    };
    if let Some(dialog) = dialog {
        return submit(world, process, &dialog);
    }
    let is_old = world.percent(15);
    let Some(button) = look_for_button(world, &lock(&world.slack), is_old) else { return };
    let act = match button.action_id.as_str() {
        "approve" => "approve",
        "deny" => "deny",
        "withdraw" => "withdraw",
        persona if persona.starts_with("persona_ack:") => "acknowledge",
        _ => "",
    };
    let Button { channel, ts, block_id, action_id, value } = &button;
    let action =
        value.parse().ok().and_then(|id| Some(lock(&world.ledger).newest(id)?.submission.action.clone()));
    let able = action.map(|action| who_can(&action, action_id)).unwrap_or_default();
    let able = world.pick(able).filter(|_| world.percent(65));
    let Some(user) = able.or_else(|| world.pick(&PEOPLE)) else { return };
    let what = json!({
        "type": "block_actions",
        "channel": {"id": channel},
        "container": {"channel_id": channel, "message_ts": ts},
        "actions": [{"action_id": action_id, "block_id": block_id, "value": value}],
    });
    world.say(|| format!("{user} presses {action_id} of {value}"));
    press(world, process, user, what, (value.parse().ok(), act, None));
}

/// A button that a message shows, or one that any message has ever shown.
fn look_for_button(world: &World, slack: &Slack, is_old: bool) -> Option<Button> {
    // Requests that are open matter more than those that have ended.
    let is_looked_at = |button: &&Button| {
        (!matches!(button.action_id.as_str(), "show_all" | "re_request") || world.percent(10))
            && (!matches!(button.action_id.as_str(), "deny" | "withdraw") || world.percent(30))
    };
    if is_old {
        let shown: Vec<&Button> = slack.ever_shown.iter().filter(is_looked_at).collect();
        return world.pick(&shown).map(|button| Button::clone(button));
    }
    let shown: Vec<Button> = slack.messages.iter().flat_map(buttons).collect();
    let shown: Vec<&Button> = shown.iter().filter(is_looked_at).collect();
    world.pick(&shown).map(|button| Button::clone(button))
}

/// Somebody submits a dialog, or presses a button in it.
fn submit(world: &Arc<World>, process: &Process, dialog: &Dialog) {
    let Dialog { id, user, view } = dialog;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = text(&view["private_metadata"]);
    let about: Value = serde_json::from_str(&metadata).unwrap_or_default();
    let request = about["request_id"].as_str().and_then(|id| id.parse().ok());
    let callback = text(&view["callback_id"]);
    let shown = json!({"id": id, "callback_id": callback, "private_metadata": metadata});
    let rows = view["blocks"].as_array().into_iter().flatten().filter(|block| block["type"] == "actions");
    let inside: Vec<&Value> = rows.flat_map(|row| row["elements"].as_array().into_iter().flatten()).collect();
    if let Some(button) = world.pick(&inside).filter(|_| world.percent(40) || view["submit"].is_null()) {
        let action_id = text(&button["action_id"]);
        let act = if action_id.starts_with("persona_ack:") { "acknowledge" } else { "" };
        world.say(|| format!("{user} presses {action_id} in a dialog"));
        let what = json!({
            "type": "block_actions",
            "view": shown,
            "container": {"type": "view"},
            "actions": [{"action_id": action_id, "block_id": "", "value": button["value"]}],
        });
        return press(world, process, user, what, (request, act, None));
    }
    if view["submit"].is_null() {
        lock(&world.slack).dialogs.retain(|open| open.id != *id);
        return;
    }
    let mut values = Map::new();
    for block in view["blocks"].as_array().into_iter().flatten().filter(|block| block["type"] == "input") {
        values.insert(text(&block["block_id"]), fill_in(world, &block["element"]));
    }
    let act = match callback.as_str() {
        "override_submit" | "review_page" => "approve",
        "deny_submit" => "deny",
        _ => "",
    };
    world.say(|| format!("{user} submits {callback}: {}", json!(values)));
    let mut shown = shown;
    shown["state"] = json!({ "values": values });
    let what = json!({"type": "view_submission", "view": shown});
    press(world, process, user, what, (request, act, Some(id.clone())));
}

/// What somebody leaves in an input.
fn fill_in(world: &World, element: &Value) -> Value {
    if !element["options"].is_null() {
        let options = element["options"].as_array().cloned().unwrap_or_default();
        return json!({"value": {"selected_option": world.pick(&options)}});
    }
    let before = &element["initial_value"];
    match world.below(10) {
        0 => json!({"value": {"value": null}}),
        1..4 => json!({"value": {"value": (1 + world.below(9)).to_string()}}),
        _ => json!({"value": {"value": before}}),
    }
}

fn press(
    world: &Arc<World>,
    process: &Process,
    user: &str,
    mut payload: Value,
    (request, act, dialog): (Option<RequestId>, &'static str, Option<String>),
) {
    let number = lock(&world.people).presses.len();
    let trigger = format!("trigger-{number}");
    payload["user"] = json!({"id": user, "team_id": TEAM});
    payload["trigger_id"] = trigger.clone().into();
    lock(&world.slack).triggered(&trigger, user, world.elapsed_ms());
    let (counted_before, refused_before) = {
        let mut ledger = lock(&world.ledger);
        if let (Some(request), false) = (request, act.is_empty()) {
            *ledger.presses.entry((request, user.to_owned(), act)).or_default() += 1;
        }
        let refusals = request.map_or(0, |request| ledger.refusals(request, user));
        (counted(world, &ledger.requests, request, user, act), refusals)
    };
    let user = user.to_owned();
    let press = Press {
        user,
        payload,
        request,
        act,
        dialog,
        under_way: 0,
        is_answered: false,
        is_counted: false,
        counted_before,
        refused_before,
    };
    lock(&world.people).presses.push(press);
    deliver(world, process, number);
    if world.percent(12) {
        world.say(|| format!("press {number} is delivered twice"));
        deliver(world, process, number);
    }
}

fn counted(
    _: &World,
    requests: &std::collections::BTreeMap<RequestId, Vec<countersign_core::lifecycle::Request>>,
    request: Option<RequestId>,
    user: &str,
    act: &str,
) -> usize {
    let newest = request.and_then(|id| requests.get(&id)?.last());
    let history = newest.into_iter().flat_map(|request| &request.history);
    let is_theirs = |event: &&countersign_core::lifecycle::Event| {
        event.by.as_ref().is_some_and(|by| by.id == user) && event.act.name() == act
    };
    history.filter(is_theirs).count()
}

/// Slack delivers again some of what was not answered.
pub(super) fn redeliver(world: &Arc<World>, process: &Process) {
    let unanswered: Vec<usize> = {
        let people = lock(&world.people);
        let presses = people.presses.iter().enumerate();
        let unanswered = presses.filter(|(_, press)| !press.is_answered && press.under_way == 0);
        unanswered.map(|(number, _)| number).collect()
    };
    for number in unanswered {
        if world.percent(70) {
            world.say(|| format!("press {number} is delivered again"));
            deliver(world, process, number);
        }
    }
}

/// The process has ended, and whatever it was doing.
pub(super) fn process_ended(world: &World) {
    for press in &mut lock(&world.people).presses {
        press.under_way = 0;
    }
}

fn deliver(world: &Arc<World>, process: &Process, number: usize) {
    let payload = {
        let mut people = lock(&world.people);
        let Some(press) = people.presses.get_mut(number) else { return };
        press.under_way += 1;
        press.payload.to_string()
    };
    let (world, app) = (Arc::clone(world), Arc::clone(&process.app));
    tokio::spawn(async move {
        let answer = SocketMode(app).handle(parse_payload(payload.as_bytes())).await;
        if world.is_dead() {
            return;
        }
        match answer {
            Some(answer) => answered(&world, number, &answer),
            None => {
                world.say(|| format!("press {number} is not acknowledged"));
                if let Some(press) = lock(&world.people).presses.get_mut(number) {
                    press.under_way = press.under_way.saturating_sub(1);
                }
            }
        }
    });
}

fn answered(world: &World, number: usize, answer: &Map<String, Value>) {
    world.say(|| format!("press {number} is answered: {}", brief(answer)));
    let press = {
        let mut people = lock(&world.people);
        let Some(press) = people.presses.get_mut(number) else { return };
        press.under_way = press.under_way.saturating_sub(1);
        let before = press.clone();
        press.is_answered = true;
        press.is_counted |= says_counted(answer) && !press.act.is_empty();
        before
    };
    if let Some(id) = &press.dialog {
        let mut slack = lock(&world.slack);
        match answer.get("response_action").and_then(Value::as_str) {
            Some("update") => {
                if let Some(dialog) = slack.dialogs.iter_mut().find(|dialog| dialog.id == *id) {
                    dialog.view = answer.get("view").cloned().unwrap_or_default();
                }
            }
            Some("errors") => {}
            _ => slack.dialogs.retain(|dialog| dialog.id != *id),
        }
    }
    world.must(check_answer(world, &press, answer));
}

/// Whoever is told that an act counts is told the truth, however often the press is delivered; and nobody is told that a
/// press was delivered before if it neither counted nor was refused then.
fn check_answer(world: &World, press: &Press, answer: &Map<String, Value>) -> Result<(), String> {
    let Some(id) = press.request else { return Ok(()) };
    let ledger = lock(&world.ledger);
    let counts = || counted(world, &ledger.requests, Some(id), &press.user, press.act) > press.counted_before;
    let code = answer.get("error").and_then(Value::as_str);
    let status = answer.get("status").and_then(Value::as_str);
    if let (Some(status), false) = (status, press.act.is_empty()) {
        if !counts() {
            return Err(format!("{} is told that the act counts, and it does not: {press:?}", press.user));
        }
        let versions = ledger.requests.get(&id).into_iter().flatten();
        if !versions.map(|version| version.status().as_str()).any(|known| known == status) {
            return Err(format!("{} is told that {id} is {status}, and it never was", press.user));
        }
    }
    if press.is_counted && says_refused(answer) {
        return Err(format!(
            "a press that counted is refused when it is delivered again: {press:?}, {answer:?}"
        ));
    }
    let was_refused = || ledger.refusals(id, &press.user) > press.refused_before;
    if code == Some("duplicate_delivery") && !press.act.is_empty() && !counts() && !was_refused() {
        return Err(format!("a press is lost: {press:?}"));
    }
    Ok(())
}

/// Whether an answer says that the act counts.
fn says_counted(answer: &Map<String, Value>) -> bool {
    answer.contains_key("status")
}

/// Whether an answer says that the act does not count.
fn says_refused(answer: &Map<String, Value>) -> bool {
    answer.contains_key("error") || answer.get("response_action").is_some_and(|action| action == "errors")
}

fn brief(answer: &Map<String, Value>) -> String {
    let members = ["ok", "status", "error", "message", "response_action"];
    let shown = members.iter().filter_map(|name| Some(format!("{name} {}", answer.get(*name)?)));
    shown.collect::<Vec<_>>().join(", ")
}
