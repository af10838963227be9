//! The bodies and answers of the methods that are called, with only the members that are used.

use countersign_core::record::Mark;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use slack_morphism::prelude::SlackBlock;

use crate::message::Message;

/// The `event_type` of our messages' metadata.
const EVENT_TYPE: &str = "countersign_message";

/// An answer of which only `ok` counts.
#[derive(Deserialize)]
pub(super) struct Empty {}

/// Body of `chat.postMessage`.
#[derive(Serialize)]
pub(super) struct Post<'a> {
    pub(super) channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thread_ts: Option<&'a str>,
    #[serde(flatten)]
    pub(super) content: Content<'a>,
    pub(super) unfurl_links: bool,
    pub(super) unfurl_media: bool,
}

/// Body of `chat.update`.
#[derive(Serialize)]
pub(super) struct Update<'a> {
    pub(super) channel: &'a str,
    pub(super) ts: &'a str,
    #[serde(flatten)]
    pub(super) content: Content<'a>,
}

/// What a message shows, and the metadata that it is found by.
#[derive(Serialize)]
pub(super) struct Content<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    blocks: &'a [SlackBlock],
    metadata: Value,
    link_names: bool,
    parse: &'static str,
}

impl<'a> Content<'a> {
    pub(super) fn new(message: &'a Message, mark: &Mark) -> Content<'a> {
        let payload = json!({ "request_id": mark.request, "slot": mark.slot });
        Content {
            text: &message.text,
            blocks: &message.blocks,
            metadata: json!({ "event_type": EVENT_TYPE, "event_payload": payload }),
            link_names: false,
            parse: "none",
        }
    }
}

/// Body of `chat.postEphemeral`.
#[derive(Serialize)]
pub(super) struct Ephemeral<'a> {
    pub(super) channel: &'a str,
    pub(super) user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thread_ts: Option<&'a str>,
    pub(super) text: &'a str,
    pub(super) link_names: bool,
    pub(super) parse: &'static str,
}

/// Answer of `conversations.history` and `conversations.replies`.
#[derive(Deserialize)]
pub(super) struct History {
    pub(super) messages: Vec<HistoryMessage>,
    #[serde(default)]
    pub(super) response_metadata: Option<ResponseMetadata>,
}

#[derive(Deserialize)]
pub(super) struct ResponseMetadata {
    #[serde(default)]
    pub(super) next_cursor: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct HistoryMessage {
    #[serde(default)]
    pub(super) ts: String,
    #[serde(default)]
    metadata: Option<MessageMetadata>,
}

#[derive(Deserialize)]
struct MessageMetadata {
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    event_payload: Value,
}

impl HistoryMessage {
    /// Whether the message has this mark.
    ///
    /// Another app could give its message our mark. We cannot update that message, so we would post our own.
    pub(super) fn has(&self, mark: &Mark) -> bool {
        let Some(MessageMetadata { event_type, event_payload }) = &self.metadata else { return false };
        let payload = |key| event_payload.get(key).and_then(Value::as_str);
        !self.ts.is_empty()
            && event_type == EVENT_TYPE
            && payload("request_id") == Some(mark.request.to_string().as_str())
            && payload("slot") == Some(mark.slot.to_string().as_str())
    }
}

/// Answer of `chat.getPermalink`.
#[derive(Deserialize)]
pub(super) struct Permalink {
    pub(super) permalink: String,
}

/// Answer of `usergroups.users.list`.
#[derive(Deserialize)]
pub(super) struct UserGroupMembers {
    pub(super) users: Vec<String>,
}

/// Answer of `users.info`.
#[derive(Deserialize)]
pub(super) struct UserInfo {
    pub(super) user: User,
}

/// A user, as `users.info` has it.
#[derive(Deserialize)]
pub(super) struct User {
    /// The user was deactivated.
    #[serde(default)]
    pub(super) deleted: bool,
}

/// Answer of `apps.connections.open`.
#[derive(Deserialize)]
pub(super) struct Socket {
    pub(super) url: String,
}
