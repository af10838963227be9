//! The shapes of Slack's `block_actions` and `view_submission` payloads.
//!
//! Slack adds members to its payloads at any time, so unknown ones are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Source;

#[derive(Deserialize)]
pub(super) struct Payload {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) user: User,
    #[serde(default)]
    pub(super) actions: Vec<Action>,
    #[serde(default)]
    pub(super) state: Option<Inputs>,
    #[serde(default)]
    pub(super) view: Option<View>,
    #[serde(default)]
    trigger_id: Option<String>,
    #[serde(default)]
    channel: Option<Channel>,
    #[serde(default)]
    container: Option<Container>,
}

impl Payload {
    /// Takes out where the interaction took place.
    pub(super) fn source(&mut self) -> Source {
        let container = self.container.take().unwrap_or_default();
        let channel = self.channel.take().map(|channel| channel.id).or(container.channel_id);
        let is_short = |text: &String| !text.is_empty() && text.len() <= 255;
        Source {
            trigger: self.trigger_id.take().filter(is_short),
            channel: channel.filter(is_short),
            thread: container.thread_ts.filter(is_short),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct User {
    pub(super) id: String,
}

#[derive(Deserialize)]
struct Channel {
    id: String,
}

#[derive(Default, Deserialize)]
struct Container {
    #[serde(default)]
    channel_id: Option<String>,
    #[serde(default)]
    thread_ts: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Action {
    pub(super) action_id: String,
    #[serde(default)]
    pub(super) block_id: String,
    #[serde(default)]
    pub(super) value: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct View {
    #[serde(default)]
    pub(super) callback_id: String,
    #[serde(default)]
    pub(super) private_metadata: String,
    #[serde(default)]
    pub(super) state: Option<Inputs>,
}

/// The inputs by block id and action id.
#[derive(Default, Deserialize)]
pub(super) struct Inputs {
    #[serde(default)]
    pub(super) values: BTreeMap<String, BTreeMap<String, Input>>,
}

/// The value of an input: a text, or one of several options.
#[derive(Deserialize)]
pub(super) struct Input {
    #[serde(default)]
    value: Value,
    #[serde(default)]
    selected_option: Value,
}

impl Input {
    pub(super) fn text(&self) -> Option<String> {
        let text = self.value.as_str().or_else(|| self.selected_option.get("value")?.as_str());
        text.map(str::to_owned)
    }
}

/// The `private_metadata` of our modals.
#[derive(Deserialize)]
pub(super) struct ModalMetadata {
    pub(super) request_id: String,
    /// Kept as it was sent, so that `null` is not taken for an absent member.
    #[serde(default, deserialize_with = "present")]
    pub(super) payload_hash: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(member).map(Some)
}
