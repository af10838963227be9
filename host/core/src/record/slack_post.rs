//! What is known of a message of ours in Slack: which it is, and how far its posting has come.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lifecycle::{Digest, RequestId, Timestamp};

/// Which of a request's messages.
///
/// Its text is the name under which it is stored, and which Slack keeps with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Slot {
    /// The one that shows the request.
    Main,
    /// The notice of its escalation, in the thread of that one.
    EscalationThread,
    /// The notice of its escalation, in the escalation channel.
    EscalationChannel,
    /// The notice to those whose approvals were replaced, in the thread of the first one. Holds the place in the request's
    /// history of the approval with edits that replaced them.
    Replaced(u32),
}

const MAIN: &str = "main";
const ESCALATION_THREAD: &str = "escalation_thread";
const ESCALATION_CHANNEL: &str = "escalation_channel";
const REPLACED: &str = "replaced_";

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Main => f.write_str(MAIN),
            Slot::EscalationThread => f.write_str(ESCALATION_THREAD),
            Slot::EscalationChannel => f.write_str(ESCALATION_CHANNEL),
            Slot::Replaced(edit) => write!(f, "{REPLACED}{edit}"),
        }
    }
}

/// It names no message of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no message of a request")]
pub struct UnknownSlot(String);

impl FromStr for Slot {
    type Err = UnknownSlot;

    fn from_str(name: &str) -> Result<Slot, UnknownSlot> {
        let slot = match name {
            MAIN => Some(Slot::Main),
            ESCALATION_THREAD => Some(Slot::EscalationThread),
            ESCALATION_CHANNEL => Some(Slot::EscalationChannel),
            _ => name.strip_prefix(REPLACED).and_then(|edit| edit.parse().ok()).map(Slot::Replaced),
        };
        // One message has one name: `replaced_07` is none.
        slot.filter(|slot| slot.to_string() == name).ok_or_else(|| UnknownSlot(name.to_owned()))
    }
}

impl TryFrom<String> for Slot {
    type Error = UnknownSlot;

    fn try_from(name: String) -> Result<Slot, UnknownSlot> {
        name.parse()
    }
}

impl From<Slot> for String {
    fn from(slot: Slot) -> String {
        slot.to_string()
    }
}

/// What a message of ours is found by. It is in the message's metadata, which people do not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The request.
    pub request: RequestId,
    /// Which of its messages.
    pub slot: Slot,
}

/// How far a message has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlackPost {
    /// Grows by one each time it is stored, from 1; guards against two who deliver at once.
    pub revision: u64,
    /// The channel, as the policy names it until Slack has answered, and then by Slack's id.
    pub channel: String,
    /// Whether it was posted.
    pub state: PostState,
    /// Whether it was posted at some time, also if it was deleted since: whom it calls is notified once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_called: bool,
    /// The version of the request that it shows, 0 if it shows none.
    pub shown: u64,
    /// Digest of what it shows; `None` if that is to be sent again whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks: Option<Digest>,
    /// The version of the request that Slack did not take, so that only the least of it is shown; a newer one is tried in
    /// full. While it is there, nobody can have read the request in its message, so it stays until Slack takes a newer
    /// version in full, also if the message is sent again or posted anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimal: Option<u64>,
    /// An update was not answered, and may be carried out late, over a newer one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsure: bool,
    /// Slack's code for why it cannot be delivered, once the audit log has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// When to look at it again although nothing has changed: time has passed for those who read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_at: Option<Timestamp>,
}

/// Whether a message was posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum PostState {
    /// Not, for all that is known.
    Absent,
    /// Perhaps: this was stored before Slack was asked, and no answer has been stored since.
    Posting {
        /// When it was tried.
        since: Timestamp,
        /// From when on to look for it: what comes later than that is not waited for.
        look_at: Timestamp,
    },
    /// It was.
    Posted {
        /// Slack's name for it in its channel.
        ts: String,
    },
}

impl SlackPost {
    /// A message of which nothing is stored and nothing was sent.
    #[must_use]
    pub fn new(channel: &str) -> SlackPost {
        SlackPost {
            revision: 0,
            channel: channel.to_owned(),
            state: PostState::Absent,
            has_called: false,
            shown: 0,
            looks: None,
            minimal: None,
            unsure: false,
            failed: None,
            refresh_at: None,
        }
    }

    /// Whether Slack refused the message, and has not taken all of it since.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.minimal.is_some()
    }

    /// Slack's name for it, if it was posted.
    #[must_use]
    pub fn ts(&self) -> Option<&str> {
        match &self.state {
            PostState::Posted { ts } => Some(ts),
            PostState::Absent | PostState::Posting { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_name() {
        let rows = [
            (Slot::Main, "main"),
            (Slot::EscalationThread, "escalation_thread"),
            (Slot::EscalationChannel, "escalation_channel"),
            (Slot::Replaced(0), "replaced_0"),
            (Slot::Replaced(511), "replaced_511"),
        ];
        for (slot, name) in rows {
            assert_eq!(slot.to_string(), name);
            assert_eq!(name.parse(), Ok(slot));
            assert_eq!(serde_json::to_value(slot).unwrap(), name);
            assert_eq!(serde_json::from_value::<Slot>(name.into()).unwrap(), slot);
        }
        for name in [
            "",
            "Main",
            "replaced",
            "replaced_",
            "replaced_07",
            "replaced_+7",
            "replaced_-1",
            "replaced_4294967296",
        ] {
            assert_eq!(name.parse::<Slot>(), Err(UnknownSlot(name.to_owned())));
        }
    }
}
