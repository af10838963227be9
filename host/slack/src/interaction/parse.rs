//! From the payload that Slack sends for a button press or a submitted modal to an [`Interaction`].

use std::collections::BTreeMap;

use countersign_core::lifecycle::{Digest, RequestId};
use serde::Deserialize as _;

use super::payload::{Action, Inputs, ModalMetadata, Payload, View};
use super::unreadable::{USER_BYTES, Unreadable};
use super::{
    ANSWER_BLOCK, CONTRACT_BLOCK, DECIDE_BLOCK, DENY_MODAL, Interaction, InteractionError, InteractionKind,
    OVERRIDE_MODAL, Page, READING_MODAL, REASON_BLOCK, REASON_CHARS, REVIEW_MODAL, Seen, VALUE_ACTION,
};

/// Parses the form that Slack posts over HTTP: URL-encoded, with the JSON in `payload`.
///
/// # Errors
/// If the payload is malformed, or not an interaction that the gateway handles.
#[expect(clippy::result_large_err, reason = "an interaction is larger")]
pub fn parse_form(form: &[u8]) -> Result<Interaction, Unreadable> {
    let payload = form_urlencoded::parse(form).find(|(key, _)| key == "payload");
    let payload = payload.map(|(_, payload)| payload).unwrap_or_default();
    parse_payload(payload.as_bytes())
}

/// Parses a payload, which is JSON.
///
/// # Errors
/// As for [`parse_form`].
#[expect(clippy::result_large_err, reason = "an interaction is larger")]
pub fn parse_payload(payload: &[u8]) -> Result<Interaction, Unreadable> {
    parse(payload).map_err(|error| Unreadable::of(error, payload))
}

fn parse(payload: &[u8]) -> Result<Interaction, InteractionError> {
    let mut payload: Payload = serde_json::from_slice(payload).map_err(|_| InteractionError::Malformed)?;
    let (workspace, source) = (payload.workspace(), payload.source());
    if payload.user.id.is_empty() || payload.user.id.len() > USER_BYTES {
        return Err(InteractionError::Malformed);
    }
    match payload.kind.as_str() {
        "block_actions" => {
            // One press is one action. Several at once would be several decisions, and only one can be answered.
            let [action] = payload.actions.as_slice() else { return Err(InteractionError::Unknown) };
            let kind = press(action, payload.state.as_ref()).ok_or(InteractionError::Unknown)?;
            let request = action.value.as_deref().and_then(|value| value.parse().ok());
            let request = request.ok_or(InteractionError::NoRequest)?;
            let seen = match &payload.view {
                Some(view) if view.callback_id == REVIEW_MODAL => match about(&view.private_metadata)? {
                    (of, seen, _) if of == request => seen,
                    _ => return Err(InteractionError::NoRequest),
                },
                _ => seen_in(&action.block_id)?,
            };
            Ok(Interaction { user: payload.user.id, workspace, request, kind, seen, source })
        }
        "view_submission" => {
            let View { callback_id, private_metadata, state, .. } =
                payload.view.ok_or(InteractionError::Unknown)?;
            let state = state.unwrap_or_default();
            let mut kind = match callback_id.as_str() {
                OVERRIDE_MODAL => InteractionKind::Overrides { inputs: edits(state), clearable: None },
                DENY_MODAL => InteractionKind::DenyBecause(reason(&state)),
                REVIEW_MODAL => InteractionKind::ReviewPage,
                READING_MODAL => {
                    let (request, page) = reading(&private_metadata)?;
                    let (user, kind) = (payload.user.id, InteractionKind::ReadingPage(page));
                    return Ok(Interaction { user, workspace, request, kind, seen: Seen::Unsaid, source });
                }
                _ => return Err(InteractionError::Unknown),
            };
            let (request, seen, filled) = about(&private_metadata)?;
            if let InteractionKind::Overrides { clearable, .. } = &mut kind {
                *clearable = filled;
            }
            if kind == InteractionKind::ReviewPage && !matches!(seen, Seen::Page(..)) {
                return Err(InteractionError::Unknown);
            }
            Ok(Interaction { user: payload.user.id, workspace, request, kind, seen, source })
        }
        _ => Err(InteractionError::Unknown),
    }
}

fn press(action: &Action, state: Option<&Inputs>) -> Option<InteractionKind> {
    match action.action_id.as_str() {
        "approve" => Some(InteractionKind::Approve),
        "approve_edit" => Some(InteractionKind::ApproveEdit),
        "deny" => Some(InteractionKind::Deny(state.and_then(reason))),
        "re_request" => Some(InteractionKind::Rerequest),
        "withdraw" => Some(InteractionKind::Withdraw),
        "review" => Some(InteractionKind::Review),
        "show_all" => Some(InteractionKind::ShowAll),
        other => {
            let persona = other.strip_prefix("persona_ack:").filter(|persona| !persona.is_empty())?;
            Some(InteractionKind::Acknowledge(persona.to_owned()))
        }
    }
}

/// The payload hash in the block id of the button, before the number of the row. Buttons of the contract have none; those in
/// any other block, be its id one that Slack made up for a block without one, are not ours.
fn seen_in(block_id: &str) -> Result<Seen, InteractionError> {
    match block_id.strip_prefix(DECIDE_BLOCK) {
        Some(rest) => {
            let row = rest.split_once(':').filter(|(_, row)| row.parse::<u8>().is_ok());
            let hash = row.map_or(rest, |(hash, _)| hash);
            hash.parse().map(Seen::Payload).map_err(|_| InteractionError::NoHash)
        }
        None if block_id.is_empty() || block_id == CONTRACT_BLOCK => Ok(Seen::Unsaid),
        None => Ok(Seen::Foreign),
    }
}

/// The request that a modal is about, and what the person had before them.
fn about(private_metadata: &str) -> Result<(RequestId, Seen, Option<Digest>), InteractionError> {
    let ModalMetadata { request_id, payload_hash, clearable, page, pages } =
        serde_json::from_str(private_metadata).map_err(|_| InteractionError::NoRequest)?;
    let request = request_id.parse().map_err(|_| InteractionError::NoRequest)?;
    let hash = payload_hash.map(Digest::deserialize).transpose().map_err(|_| InteractionError::NoHash)?;
    let seen = match (hash, page, pages) {
        (None, None, None) => Seen::Unsaid,
        (Some(hash), None, None) => Seen::Payload(hash),
        (Some(hash), Some(number), Some(of)) if (1..=of).contains(&number) => {
            Seen::Page(hash, Page { number, of })
        }
        // A page of a review always says which parameters it is of.
        (None, ..) => return Err(InteractionError::NoHash),
        (Some(_), ..) => return Err(InteractionError::Unknown),
    };
    Ok((request, seen, clearable))
}

/// The request and the page of a dialog that is to be read alone. Its last page cannot be submitted.
fn reading(private_metadata: &str) -> Result<(RequestId, Page), InteractionError> {
    let ModalMetadata { request_id, page, pages, .. } =
        serde_json::from_str(private_metadata).map_err(|_| InteractionError::NoRequest)?;
    let request = request_id.parse().map_err(|_| InteractionError::NoRequest)?;
    match (page, pages) {
        (Some(number), Some(of)) if (1..of).contains(&number) => Ok((request, Page { number, of })),
        _ => Err(InteractionError::Unknown),
    }
}

fn reason(state: &Inputs) -> Option<String> {
    let text = state.values.get(REASON_BLOCK)?.get(VALUE_ACTION)?.text()?;
    Some(text.trim().chars().take(REASON_CHARS).collect()).filter(|reason: &String| !reason.is_empty())
}

fn edits(state: Inputs) -> BTreeMap<String, Option<String>> {
    let inputs = state.values.into_iter().filter_map(|(block, actions)| {
        let key = block.strip_prefix(ANSWER_BLOCK)?.to_owned();
        Some((key, actions.get(VALUE_ACTION)?.text().filter(|text| !text.is_empty())))
    });
    inputs.collect()
}
