//! The shapes of Slack's `block_actions` and `view_submission` payloads.
//!
//! Slack adds members to its payloads at any time, so unknown ones are ignored.

use std::collections::BTreeMap;

use countersign_core::lifecycle::Digest;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Source, Workspace};

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
    // Of any type: a payload of another shape than expected names no workspace, and can be answered all the same.
    #[serde(default)]
    team: Value,
    #[serde(default)]
    enterprise: Value,
    #[serde(default)]
    is_enterprise_install: Value,
}

impl Payload {
    /// The workspace that the person belongs to.
    pub(super) fn workspace(&self) -> Workspace {
        let (own, team) = (id(Some(&self.user.team_id)), id(self.team.get("id")));
        // The organization in the payload is that of `team`. If the person belongs to another workspace, it says
        // nothing about them: they may be a guest in a channel of that organization.
        let is_theirs = match (&own, &team) {
            (Some(own), Some(team)) => own == team,
            (None, Some(_)) => true,
            // An app that is installed in a whole organization gets no `team`.
            (Some(own), None) => !own.starts_with('E') && self.is_enterprise_install == true,
            (None, None) => self.is_enterprise_install == true,
        };
        let enterprise = id(self.team.get("enterprise_id")).or_else(|| id(self.enterprise.get("id")));
        Workspace { team: own.or(team), enterprise: enterprise.filter(|_| is_theirs) }
    }

    /// Takes out where the interaction took place.
    pub(super) fn source(&mut self) -> Source {
        let container = self.container.take().unwrap_or_default();
        let channel = self.channel.take().map(|channel| channel.id).or(container.channel_id);
        let is_short = |text: &String| is_short(text);
        Source {
            trigger: self.trigger_id.take().filter(is_short),
            channel: channel.filter(is_short),
            thread: container.thread_ts.filter(is_short),
            view: self.view.as_ref().and_then(|view| view.id.clone()).filter(is_short),
        }
    }
}

fn id(value: Option<&Value>) -> Option<String> {
    value?.as_str().filter(|text| is_short(text)).map(str::to_owned)
}

pub(super) fn is_short(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255
}

#[derive(Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    #[serde(default)]
    team_id: Value,
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
    id: Option<String>,
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
    #[serde(default)]
    pub(super) clearable: Option<Digest>,
    /// The page of a review, counted from 1, and of how many: of the review itself, and of the modal that it led to.
    #[serde(default)]
    pub(super) page: Option<usize>,
    #[serde(default)]
    pub(super) pages: Option<usize>,
}

fn present<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(member).map(Some)
}
