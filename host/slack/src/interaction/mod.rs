//! An interaction with Slack: a person pressed a button or submitted a modal.
//!
//! [`parse_form`] and [`parse_payload`] read it from what Slack sends; this module does not act on it.

mod parse;
mod payload;
#[cfg(test)]
mod tests;
mod unreadable;

use std::collections::BTreeMap;

use countersign_core::lifecycle::{Digest, RequestId};
use serde::{Deserialize, Serialize};

pub use parse::{parse_form, parse_payload};
pub use unreadable::Unreadable;

/// The prefix of the block ids of the buttons for decisions; the payload hash of the parameters shown follows it, and after a
/// colon the number of the row for each row of persona buttons.
///
/// It distinguishes a press on an outdated message from a press on the current one.
pub const DECIDE_BLOCK: &str = "decide:";

/// The block id of the buttons of the contract, as the Node.js service posted them.
pub(super) const CONTRACT_BLOCK: &str = "approval_actions";

/// The block id of the input for the reason of a denial, in a message or in the modal for denials.
pub const REASON_BLOCK: &str = "reason";

/// The prefix of the block id of a parameter's input in the modal for edits; the parameter's key follows it.
pub const ANSWER_BLOCK: &str = "ov_";

/// The action id of every input.
pub const VALUE_ACTION: &str = "value";

/// The callback id of the modal in which parameters are edited.
pub(super) const OVERRIDE_MODAL: &str = "override_submit";

/// The callback id of the modal that asks for the reason of a denial.
pub(super) const DENY_MODAL: &str = "deny_submit";

/// The callback id of the pages of a review.
pub(super) const REVIEW_MODAL: &str = "review_page";

/// The callback id of the pages that show an ended request, from which nothing can be approved.
pub(super) const READING_MODAL: &str = "reading_page";

/// The longest reason that is kept, in characters.
pub(super) const REASON_CHARS: usize = 1000;

/// A button press or a submitted modal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interaction {
    /// The Slack id of the person.
    pub user: String,
    /// The workspace that the person belongs to.
    pub workspace: Workspace,
    /// The request that it is about.
    pub request: RequestId,
    /// What the person did.
    pub kind: InteractionKind,
    /// What the person had before them.
    pub seen: Seen,
    /// Where the person did it.
    pub source: Source,
}

/// What somebody had before them when they acted, as far as the block or the modal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Parameters with this payload hash.
    Payload(Digest),
    /// A page of a review of the parameters with this payload hash, and of nothing else.
    Page(Digest, Page),
    /// The buttons of the contract, which do not say so. They are of the parameters as they were submitted.
    Unsaid,
    /// A block that is none of ours. An approval there is of nobody knows what; an acknowledgement is of the parameters as they
    /// were submitted, since older versions posted the buttons of personas in such blocks.
    Foreign,
}

impl Seen {
    /// The payload hash, if there is one.
    #[must_use]
    pub fn payload(self) -> Option<Digest> {
        match self {
            Seen::Payload(hash) | Seen::Page(hash, _) => Some(hash),
            Seen::Unsaid | Seen::Foreign => None,
        }
    }
}

/// A page of a review, as the page itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Which one, counted from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
}

impl Page {
    /// Whether there is none after it.
    #[must_use]
    pub fn is_last(self) -> bool {
        self.number == self.of
    }
}

/// The workspace that a person belongs to, as far as Slack says. A guest from Slack Connect belongs to their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// Its id, `T…`. Of some people of an Enterprise organization Slack gives the organization's id instead, `E…`.
    pub team: Option<String>,
    /// The id of the Enterprise organization that the workspace is part of.
    pub enterprise: Option<String>,
}

/// Where an interaction took place, as far as Slack says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The `trigger_id`: opens a modal, within 3 s. Every interaction has its own.
    pub trigger: Option<String>,
    /// The id of the message's channel. A modal has none.
    pub channel: Option<String>,
    /// The `thread_ts` of the thread that the message is in, if it is in one.
    pub thread: Option<String>,
    /// The id of the modal, if it was one.
    pub view: Option<String>,
}

impl Interaction {
    /// Identifies this interaction over HTTP and Socket Mode alike; `None` if Slack gave it no `trigger_id`.
    #[must_use]
    pub fn identity(&self) -> Option<Digest> {
        identity(&self.user, &self.source)
    }
}

impl Interaction {
    /// Whether it asks for something that is stored, and not just for a dialog.
    #[must_use]
    pub fn acts(&self) -> bool {
        match self.kind {
            InteractionKind::ApproveEdit
            | InteractionKind::Review
            | InteractionKind::ShowAll
            | InteractionKind::ReadingPage(_) => false,
            InteractionKind::ReviewPage => !matches!(self.seen, Seen::Page(_, page) if !page.is_last()),
            _ => true,
        }
    }
}

fn identity(user: &str, source: &Source) -> Option<Digest> {
    let trigger = source.trigger.as_deref()?;
    Some(Digest::of(format!("slack interaction\0{user}\0{trigger}").as_bytes()))
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InteractionKind {
    /// Pressed `approve`.
    Approve,
    /// Pressed `approve_edit`, which opens the modal for edits.
    ApproveEdit,
    /// Pressed `deny`, with the reason if the message has an input for it.
    Deny(Option<String>),
    /// Pressed `persona_ack` for this persona.
    Acknowledge(String),
    /// Pressed `re_request`.
    Rerequest,
    /// Pressed `withdraw`: takes back the person's own approval and acknowledgements.
    Withdraw,
    /// Submitted the modal for edits.
    Overrides {
        /// The text of each input by parameter key, `None` for an empty input.
        inputs: BTreeMap<String, Option<String>>,
        /// Which inputs the modal filled, as a digest; see [`crate::modal::is_as_told`]. Modals that leave it out say that an
        /// empty input changes nothing.
        clearable: Option<Digest>,
    },
    /// Pressed `review`, which opens the first page of the review.
    Review,
    /// Submitted a page of the review: the last one approves, each other one leads on to the next.
    ReviewPage,
    /// Pressed `show_all`, which opens the first page of all that was asked.
    ShowAll,
    /// Submitted a page of that, which leads on to the next one. The last one cannot be submitted.
    ReadingPage(Page),
    /// Submitted the modal for the reason of a denial.
    DenyBecause(Option<String>),
}

impl InteractionKind {
    /// The ids of the input blocks of a submitted modal, on which errors can be shown. `None` for a button.
    #[must_use]
    pub fn modal_blocks(&self) -> Option<Vec<String>> {
        match self {
            InteractionKind::Overrides { inputs, .. } => {
                Some(inputs.keys().map(|key| format!("{ANSWER_BLOCK}{key}")).collect())
            }
            InteractionKind::DenyBecause(_) => Some(vec![REASON_BLOCK.to_owned()]),
            InteractionKind::ReviewPage | InteractionKind::ReadingPage(_) => Some(Vec::new()),
            _ => None,
        }
    }
}

/// Why a payload is not an interaction that the gateway handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InteractionError {
    /// The form has no `payload`, or the payload is not JSON of the documented shape.
    #[error("the payload cannot be read")]
    Malformed,
    /// A button, a modal or a type of interaction that is not ours.
    #[error("this interaction is not known here")]
    Unknown,
    /// The request id is missing or malformed.
    #[error("the interaction names no request")]
    NoRequest,
    /// The payload hash is malformed. It must not count as absent: an absent hash is not checked.
    #[error("what the interaction says of the parameters that were seen is no payload hash")]
    NoHash,
}

impl InteractionError {
    /// All of them.
    pub const ALL: [InteractionError; 4] = [
        InteractionError::Malformed,
        InteractionError::Unknown,
        InteractionError::NoRequest,
        InteractionError::NoHash,
    ];

    /// A stable code for machines.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            InteractionError::Malformed => "invalid_payload",
            InteractionError::Unknown => "unknown_interaction",
            InteractionError::NoRequest => "not_found",
            InteractionError::NoHash => "invalid_hash",
        }
    }
}
