//! The answer to an interaction: JSON for Slack, errors in a modal, and a message to the person.

use std::collections::BTreeMap;

use countersign_core::lifecycle::{Reason, Refusal, Request, RequestId};
use countersign_gateway::GatewayError;
use countersign_slack::{ANSWER_BLOCK, Interaction, ephemeral_text};
use serde_json::{Map, Value, json};

use super::perform::{PerformError, Performed, perform};
use crate::state::App;
use crate::telemetry::{SecurityEvent, log_failure};

/// The longest error on an input of a modal, in characters.
const MAX_ERROR_CHARS: usize = 500;

/// The answer to an interaction.
pub(super) struct Answer {
    /// What Slack is answered.
    pub(super) body: Map<String, Value>,
    /// What the person reads in an ephemeral message, as escaped mrkdwn.
    pub(super) ephemeral: Option<String>,
    /// Whether `body` shows the same in the modal.
    pub(super) shown_in_modal: bool,
}

impl Answer {
    fn silent(body: Map<String, Value>) -> Answer {
        Answer { body, ephemeral: None, shown_in_modal: false }
    }

    /// A refusal of which the person reads nothing.
    pub(super) fn refusal(code: &str, message: &str) -> Answer {
        Answer::silent(refusal(code, message, &[]))
    }
}

/// Does what the interaction asks for, and answers it.
pub(super) async fn answer(app: &App, interaction: Interaction) -> Answer {
    let modal_blocks = interaction.kind.modal_blocks();
    let id = interaction.request;
    match perform(app, interaction).await {
        Ok(Performed::Changed(request)) => {
            let mut body = success(&request);
            if modal_blocks.is_some() {
                body.insert("response_action".into(), "clear".into());
            }
            Answer::silent(body)
        }
        Ok(Performed::Rerequested(request)) => Answer {
            ephemeral: Some(ephemeral_text::rerequested(&request)),
            ..Answer::silent(success(&request))
        },
        Ok(Performed::NextPage(view)) => Answer {
            body: object(json!({"response_action": "update", "view": view})),
            // The modal is closed by then.
            ephemeral: Some(ephemeral_text::page_too_late()),
            shown_in_modal: true,
        },
        Ok(Performed::ModalOpened) => Answer::silent(object(json!({"ok": true, "requestId": id}))),
        Err(error) => refused(app, id, &error, &modal_blocks.unwrap_or_default()).await,
    }
}

async fn refused(app: &App, id: RequestId, error: &PerformError, modal_blocks: &[String]) -> Answer {
    let (reasons, mut locked) = (error.reasons(), &[][..]);
    if let PerformError::Gateway(error) = error {
        log_failure(error);
        match error {
            GatewayError::Refused(Refusal::Unauthorized(_)) => app.metrics.count(SecurityEvent::Unauthorized),
            GatewayError::Refused(Refusal::NotEditable(keys)) => locked = keys,
            _ => {}
        }
    }
    let (code, message) = (error.code(), error.public_message());
    let mut body = refusal(code, &message, &reasons);
    let errors = modal_errors(modal_blocks, locked, &reasons, &message);
    let shown_in_modal = !errors.is_empty();
    if shown_in_modal {
        body.insert("response_action".into(), "errors".into());
        body.insert("errors".into(), json!(errors));
    }
    // The message also says how the request stands now.
    let request = match error {
        // To people of another workspace it says nothing about the request.
        PerformError::ForeignWorkspace => None,
        _ => app.gateway.store().request(id).await.unwrap_or_default(),
    };
    let rules = match &request {
        Some(request) => app.gateway.rules_of(request.submission.policy_hash).await.ok(),
        None => None,
    };
    let stands = request.as_ref().zip(rules.as_ref().map(|rules| &**rules.entry()));
    let (directory, now) = (app.gateway.directory(), app.gateway.clock().now());
    let text = ephemeral_text::refusal(code, &message, &reasons, stands, directory, now);
    Answer { body, ephemeral: Some(text), shown_in_modal }
}

/// The errors to show in a modal with these blocks: each on its parameter's block, else on the first.
fn modal_errors(
    blocks: &[String],
    locked: &[String],
    reasons: &[Reason],
    message: &str,
) -> BTreeMap<String, String> {
    let block_of = |key: &str| Some(format!("{ANSWER_BLOCK}{key}")).filter(|block| blocks.contains(block));
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for reason in reasons {
        let block = reason.path.as_deref().and_then(block_of).or_else(|| blocks.first().cloned());
        let Some(block) = block else { continue };
        let error = errors.entry(block).or_default();
        let separator = if error.is_empty() { "" } else { "; " };
        error.push_str(&format!("{separator}{}", reason.message));
    }
    for error in errors.values_mut() {
        if let Some((end, _)) = error.char_indices().nth(MAX_ERROR_CHARS) {
            error.truncate(end);
        }
    }
    for block in locked.iter().filter_map(|key| block_of(key)) {
        errors.insert(block, "this parameter cannot be edited".into());
    }
    if errors.is_empty()
        && let Some(block) = blocks.first()
    {
        errors.insert(block.clone(), message.to_owned());
    }
    errors
}

fn success(request: &Request) -> Map<String, Value> {
    object(json!({
        "ok": true,
        "requestId": request.id,
        "status": request.status(),
        "approvers": request.approvers(),
    }))
}

fn refusal(code: &str, message: &str, reasons: &[Reason]) -> Map<String, Value> {
    object(json!({"ok": false, "error": code, "message": message, "reasons": reasons}))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
