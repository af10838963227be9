//! A payload that is not an interaction that the gateway handles, and who must be told so.

use countersign_core::lifecycle::Digest;
use serde_json::Value;

use super::payload::is_short;
use super::{InteractionError, Source, identity};

/// The longest id of a person, in bytes.
pub(super) const USER_BYTES: usize = 128;

/// A payload that cannot be read, or not in full. Whoever pressed is told, as far as the rest says who and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong with it.
    pub error: InteractionError,
    /// The Slack id of the person.
    pub user: Option<String>,
    /// Where the person did it.
    pub source: Source,
    /// Whether it is a submitted modal, whose answer can say something.
    pub is_modal: bool,
}

impl Unreadable {
    /// Reads who and where in a payload that was refused, whatever the types of its other members are.
    pub(super) fn of(error: InteractionError, payload: &[u8]) -> Unreadable {
        let payload: Value = serde_json::from_slice(payload).unwrap_or_default();
        let text = |pointer: &str| {
            let text = payload.pointer(pointer)?.as_str()?;
            is_short(text).then(|| text.to_owned())
        };
        Unreadable {
            error,
            user: text("/user/id").filter(|user| user.len() <= USER_BYTES),
            source: Source {
                trigger: text("/trigger_id"),
                channel: text("/channel/id").or_else(|| text("/container/channel_id")),
                thread: text("/container/thread_ts"),
                view: text("/view/id"),
            },
            is_modal: payload.get("type").is_some_and(|kind| kind == "view_submission"),
        }
    }

    /// Identifies it as [`Interaction::identity`](super::Interaction::identity) does.
    #[must_use]
    pub fn identity(&self) -> Option<Digest> {
        identity(self.user.as_deref()?, &self.source)
    }
}
