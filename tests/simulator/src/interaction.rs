//! The acts of people: click, fill in, submit and close.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::blocks;
use crate::clock;
use crate::delivery::{self, Delivered};
use crate::message::Message;
use crate::shared::Shared;
use crate::view::{Entry, Response, TROUBLE, View, element_state};
use crate::workspace::APP;
use crate::world::World;

/// The result of a click.
#[derive(Clone, Debug)]
pub struct Clicked {
    /// The payload that the app got.
    pub payload: Value,
    /// The outcome of each delivery; the first one counts for Slack.
    pub deliveries: Vec<Delivered>,
    /// What the person reads if the app did not answer properly.
    pub warning: Option<String>,
}

/// The result of a submitted modal.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// What the person sees then.
    pub outcome: Outcome,
    /// The payload that the app got; null if none.
    pub payload: Value,
    /// The outcome of each delivery; the first one counts for Slack.
    pub deliveries: Vec<Delivered>,
    /// How long the app took to answer.
    pub took: Duration,
}

/// What a person sees who submitted a modal.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The modal is gone; one below it may show again.
    Closed,
    /// All modals are gone.
    Cleared,
    /// Slack itself found faults, by `block_id`, and sent nothing.
    Incomplete(BTreeMap<String, String>),
    /// The app found faults, by `block_id`.
    Errors(BTreeMap<String, String>),
    /// The modal shows something else now.
    Updated(View),
    /// Another modal is on top of it now.
    Pushed(View),
    /// The app did not answer in time, or not properly: the reason, for developers. The person is asked to try again.
    Trouble(String),
}

/// Somebody clicks on a button of a message, as they see it. `entries` is what they put into its inputs.
pub(crate) async fn click(
    shared: &Shared,
    user: &str,
    message: &Message,
    action_id: &str,
    entries: &BTreeMap<String, Entry>,
) -> Option<Clicked> {
    let payload = shared.change(|world| click_payload(world, shared, user, message, action_id, entries))?;
    let deliveries = delivery::deliver(shared, &payload).await;
    let minded = deliveries.first();
    let warning = minded.filter(|delivered| !delivered.is_ok()).map(Delivered::complaint);
    if let Some(warning) = &warning {
        shared.change(|world| world.warn(user, &message.channel, &message.ts, warning));
    }
    Some(Clicked { payload, deliveries, warning })
}

fn click_payload(
    world: &mut World,
    shared: &Shared,
    user: &str,
    message: &Message,
    action_id: &str,
    entries: &BTreeMap<String, Entry>,
) -> Option<Value> {
    let (block_id, element) = blocks::elements(&message.blocks)
        .find(|(_, element)| element["type"] == "button" && element["action_id"] == action_id)?;
    world.warnings.retain(|warning| warning.user != user || warning.ts != message.ts);
    let mut action = Map::from_iter([
        ("type".to_owned(), json!("button")),
        ("action_id".to_owned(), json!(action_id)),
        ("block_id".to_owned(), json!(block_id)),
        ("action_ts".to_owned(), json!(clock::ts(world.next_ts()))),
    ]);
    for key in ["text", "value", "style"] {
        if let Some(value) = element.get(key) {
            action.insert(key.to_owned(), value.clone());
        }
    }
    let mut container = json!({
        "type": "message",
        "message_ts": message.ts,
        "channel_id": message.channel,
        "is_ephemeral": false,
    });
    if let Some(thread) = &message.thread {
        container["thread_ts"] = json!(thread);
    }
    let channel = world.channels.get(&message.channel).map(|channel| &channel.profile);
    // Slack does not reveal the names of private channels.
    let name =
        channel.map_or("", |channel| if channel.private { "privategroup" } else { &channel.name }).to_owned();
    let trigger = world.trigger(user);
    let hook = world.id("");
    let team = world.workspace.team.clone();
    Some(json!({
        "type": "block_actions",
        "user": world.user_json(user),
        "api_app_id": APP,
        "container": container,
        "trigger_id": trigger,
        "team": {"id": team.id, "domain": team.domain},
        "enterprise": null,
        "is_enterprise_install": false,
        "channel": {"id": message.channel, "name": name},
        "message": message.json(&team, false),
        "state": {"values": message_state(message, entries)},
        "response_url": format!("{}/actions/{}/{hook}", shared.addresses.http, team.id),
        "actions": [action],
    }))
}

/// Somebody clicks on a button of an open modal. `None` if it is not open on their screen, or has no such button.
pub(crate) async fn press(shared: &Shared, user: &str, view_id: &str, action_id: &str) -> Option<Clicked> {
    let payload = shared.change(|world| {
        let view = world.view_mut(view_id).filter(|view| view.user == user)?.clone();
        let all: Vec<Value> = blocks::items(&view.view["blocks"]).cloned().collect();
        let (block, element) = blocks::elements(&all)
            .find(|(_, element)| element["type"] == "button" && element["action_id"] == action_id)?;
        let (block, value) = (block.to_owned(), element["value"].clone());
        let mut payload = view_payload(world, "block_actions", &view);
        payload["container"] = json!({"type": "view", "view_id": view.id});
        payload["actions"] = json!([{
            "type": "button", "action_id": action_id, "block_id": block, "value": value,
            "action_ts": clock::ts(world.next_ts()),
        }]);
        Some(payload)
    })?;
    let deliveries = delivery::deliver(shared, &payload).await;
    let warning = deliveries.first().filter(|delivered| !delivered.is_ok()).map(Delivered::complaint);
    Some(Clicked { payload, deliveries, warning })
}

/// What a message's inputs hold.
fn message_state(message: &Message, entries: &BTreeMap<String, Entry>) -> Map<String, Value> {
    let inputs = blocks::elements(&message.blocks).filter(|(_, element)| element["type"] != "button");
    let mut values: Map<String, Value> = Map::new();
    for (block, element) in inputs {
        let entry = entries.get(block).cloned().unwrap_or(Entry::Empty);
        let action = element["action_id"].as_str().unwrap_or_default();
        values.insert(block.to_owned(), json!({action: element_state(element, &entry)}));
    }
    values
}

/// Somebody submits an open modal. `None` if it is not open on their screen.
pub(crate) async fn submit(
    shared: &Shared,
    user: &str,
    view_id: &str,
    entries: BTreeMap<String, Entry>,
) -> Option<Submitted> {
    let filled = shared.change(|world| {
        let view = world.view_mut(view_id).filter(|view| view.user == user)?;
        view.trouble = None;
        view.errors = view.fill(entries);
        Some(view.clone())
    })?;
    if !filled.errors.is_empty() {
        let outcome = Outcome::Incomplete(filled.errors);
        let (payload, deliveries, took) = (Value::Null, Vec::new(), Duration::ZERO);
        return Some(Submitted { outcome, payload, deliveries, took });
    }
    let payload = shared.change(|world| view_payload(world, "view_submission", &filled));
    let since = Instant::now();
    let deliveries = delivery::deliver(shared, &payload).await;
    let took = since.elapsed();
    let response = match deliveries.first() {
        None => Response::Nonsense("it was not delivered".into()),
        Some(delivered) => match delivered.response() {
            Some(answer) => filled.response(&answer),
            None => Response::Nonsense(format!("{delivered:?}")),
        },
    };
    let outcome = shared.change(|world| respond(world, user, view_id, response));
    Some(Submitted { outcome, payload, deliveries, took })
}

/// Applies the app's answer.
fn respond(world: &mut World, user: &str, view_id: &str, response: Response) -> Outcome {
    let trouble = |world: &mut World, why: String| {
        if let Some(view) = world.view_mut(view_id) {
            view.trouble = Some(TROUBLE.to_owned());
        }
        Outcome::Trouble(why)
    };
    match response {
        Response::Close => {
            world.views.retain(|view| view.id != view_id);
            Outcome::Closed
        }
        Response::Clear => {
            world.views.retain(|view| view.user != user);
            Outcome::Cleared
        }
        Response::Errors(errors) => {
            if let Some(view) = world.view_mut(view_id) {
                view.errors.clone_from(&errors);
            }
            Outcome::Errors(errors)
        }
        Response::Update(new) => match world.update_view(view_id, new) {
            Some(view) => Outcome::Updated(view),
            None => Outcome::Trouble("the modal was closed meanwhile".into()),
        },
        Response::Push(new) => match world.open_view(user, new) {
            Some(view) => Outcome::Pushed(view),
            None => trouble(world, "there are three modals on top of each other already".into()),
        },
        Response::Nonsense(why) => trouble(world, why),
    }
}

fn view_payload(world: &mut World, kind: &str, view: &View) -> Value {
    let trigger = world.trigger(&view.user);
    let team = &world.workspace.team;
    json!({
        "type": kind,
        "team": {"id": team.id, "domain": team.domain},
        "user": world.user_json(&view.user),
        "api_app_id": APP,
        "trigger_id": trigger,
        "view": view.json(team),
        "response_urls": [],
        "is_enterprise_install": false,
        "enterprise": null,
    })
}

/// Somebody closes a modal. The app is notified if it asked for that.
pub(crate) async fn close(shared: &Shared, user: &str, view_id: &str) {
    let payload = shared.change(|world| {
        let at = world.views.iter().position(|view| view.id == view_id && view.user == user)?;
        let view = world.views.remove(at);
        if view.view["clear_on_close"] == true {
            world.views.retain(|view| view.user != user);
        }
        (view.view["notify_on_close"] == true).then(|| view_payload(world, "view_closed", &view))
    });
    if let Some(payload) = payload {
        // The outcome is visible to nobody.
        let _ = delivery::deliver(shared, &payload).await;
    }
}
