//! From the payload that Slack sends for a button press or a submitted modal to an [`Interaction`].

use std::collections::BTreeMap;

use countersign_core::lifecycle::Digest;
use serde::Deserialize as _;

use super::payload::{Action, Inputs, ModalMetadata, Payload, View};
use super::{
    ANSWER_BLOCK, DECIDE_BLOCK, DENY_MODAL, Interaction, InteractionError, InteractionKind, OVERRIDE_MODAL,
    REASON_BLOCK, REASON_CHARS, VALUE_ACTION,
};

/// Parses the form that Slack posts over HTTP: URL-encoded, with the JSON in `payload`.
///
/// # Errors
/// If the payload is malformed, or not an interaction that the gateway handles.
pub fn parse_form(form: &[u8]) -> Result<Interaction, InteractionError> {
    let payload = form_urlencoded::parse(form).find(|(key, _)| key == "payload");
    let (_, payload) = payload.ok_or(InteractionError::Malformed)?;
    parse_payload(payload.as_bytes())
}

/// Parses a payload, which is JSON.
///
/// # Errors
/// As for [`parse_form`].
pub fn parse_payload(payload: &[u8]) -> Result<Interaction, InteractionError> {
    let mut payload: Payload = serde_json::from_slice(payload).map_err(|_| InteractionError::Malformed)?;
    let (workspace, source) = (payload.workspace(), payload.source());
    if payload.user.id.is_empty() || payload.user.id.len() > 128 {
        return Err(InteractionError::Malformed);
    }
    match payload.kind.as_str() {
        "block_actions" => {
            // One press is one action. Several at once would be several decisions, and only one can be answered.
            let [action] = payload.actions.as_slice() else { return Err(InteractionError::Unknown) };
            let kind = press(action, payload.state.as_ref()).ok_or(InteractionError::Unknown)?;
            let request = action.value.as_deref().and_then(|value| value.parse().ok());
            Ok(Interaction {
                user: payload.user.id,
                workspace,
                request: request.ok_or(InteractionError::NoRequest)?,
                kind,
                seen: seen_in(&action.block_id)?,
                source,
            })
        }
        "view_submission" => {
            let View { callback_id, private_metadata, state } =
                payload.view.ok_or(InteractionError::Unknown)?;
            let state = state.unwrap_or_default();
            let metadata: Result<ModalMetadata, _> = serde_json::from_str(&private_metadata);
            let kind = match callback_id.as_str() {
                OVERRIDE_MODAL => InteractionKind::Overrides {
                    inputs: edits(state),
                    clearable: metadata.as_ref().ok().and_then(|metadata| metadata.clearable),
                },
                DENY_MODAL => InteractionKind::DenyBecause(reason(&state)),
                _ => return Err(InteractionError::Unknown),
            };
            let metadata = metadata.map_err(|_| InteractionError::NoRequest)?;
            let request = metadata.request_id.parse().map_err(|_| InteractionError::NoRequest)?;
            let seen = metadata.payload_hash.map(Digest::deserialize).transpose();
            let seen = seen.map_err(|_| InteractionError::NoHash)?;
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
        other => {
            let persona = other.strip_prefix("persona_ack:").filter(|persona| !persona.is_empty())?;
            Some(InteractionKind::Acknowledge(persona.to_owned()))
        }
    }
}

/// The payload hash in the block id of the button. Ids of any other form have none: Slack generates ids for blocks
/// without one, such as those in messages that the Node.js service posted.
fn seen_in(block_id: &str) -> Result<Option<Digest>, InteractionError> {
    let hash = block_id.strip_prefix(DECIDE_BLOCK).map(str::parse).transpose();
    hash.map_err(|_| InteractionError::NoHash)
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
