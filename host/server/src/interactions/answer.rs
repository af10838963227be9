//! The answer to an interaction: JSON for Slack, errors in a modal, and a message to the person.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::lifecycle::{Reason, Refusal, Request, RequestId};
use countersign_gateway::{GatewayError, Once};
use countersign_slack::{ANSWER_BLOCK, Interaction, InteractionError, InteractionKind, ephemeral_text};
use countersign_store::{StoreError, StoreFault};
use serde_json::{Map, Value, json};

use super::consent::Basis;
use super::perform::{PerformError, Performed, perform};
use crate::state::App;
use crate::telemetry::{SecurityEvent, log_failure};

/// The longest error on an input of a modal, in characters.
const MAX_ERROR_CHARS: usize = 500;

/// The answer to an interaction.
pub(super) struct Answer {
    /// What Slack is answered.
    pub(super) body: Map<String, Value>,
    /// What the person reads in an ephemeral message.
    pub(super) ephemeral: Option<Ephemeral>,
    /// Whether `body` shows the same in the modal.
    pub(super) shown_in_modal: bool,
    /// Whether it is known what was stored. The store may have stored something, and answered with an error.
    pub(super) is_certain: bool,
    /// Whether it has to be kept: the store was the reason why nothing was done, or why that is not known, or something that
    /// the person did before waits for the store.
    pub(super) must_be_kept: bool,
}

/// An ephemeral message.
pub(super) struct Ephemeral {
    /// What it is about: of each interaction one message is sent for each code.
    pub(super) code: &'static str,
    /// Escaped mrkdwn.
    pub(super) text: String,
}

impl Answer {
    fn silent(body: Map<String, Value>) -> Answer {
        Answer { body, ephemeral: None, shown_in_modal: false, is_certain: true, must_be_kept: false }
    }

    /// A press that is kept until the store takes it.
    pub(super) fn recorded(modal: bool) -> Answer {
        let mut body = object(json!({"ok": true, "recorded": true}));
        if modal {
            body.insert("response_action".into(), "clear".into());
        }
        let ephemeral = Some(Ephemeral { code: "recorded", text: ephemeral_text::recorded() });
        Answer { ephemeral, ..Answer::silent(body) }
    }

    /// Something that the same person did before on the same request is kept, and this is not yet.
    pub(super) fn behind(app: &App) -> Answer {
        let why = "something that you did before is recorded, and this could not be";
        Answer { is_certain: false, must_be_kept: true, ..Answer::refusal(app, "not_recorded", why) }
    }

    /// A refusal of what is of no request.
    pub(super) fn refusal(app: &App, code: &'static str, message: &str) -> Answer {
        let (directory, now) = (app.gateway.directory(), app.gateway.clock().now());
        let text = ephemeral_text::refusal(code, message, &[], None, directory, now);
        let ephemeral = Some(Ephemeral { code, text });
        Answer { ephemeral, ..Answer::silent(refusal(code, message, &[])) }
    }
}

/// Does what the interaction asks for, and answers it. One that was delivered before, and counted, is answered as it was
/// then, whatever the gateway would say to it now. `basis` is what was read for it already.
pub(super) async fn answer(app: &App, interaction: Interaction, basis: Option<Basis>) -> Answer {
    let once = super::once(app, &interaction);
    let (id, modal_blocks) = (interaction.request, interaction.kind.modal_blocks());
    let made_again = (interaction.kind == InteractionKind::Rerequest).then(|| interaction.user.clone());
    let mut performed = perform(app, interaction, once, basis).await;
    if let (Err(error), Some(once)) = (&performed, once) {
        match counted_before(app, id, once, made_again).await {
            Ok(None) => {}
            Ok(Some(before)) => {
                tracing::info!(request = %id, code = error.code(), "Slack interaction has counted already");
                performed = Ok(before);
            }
            Err(error) => performed = Err(error.into()),
        }
    }
    match performed {
        Ok(Performed::Changed(request)) => {
            let mut body = success(&request);
            if modal_blocks.is_some() {
                body.insert("response_action".into(), "clear".into());
            }
            Answer::silent(body)
        }
        Ok(Performed::Rerequested(request)) => Answer {
            ephemeral: Some(Ephemeral { code: "rerequested", text: ephemeral_text::rerequested(&request) }),
            ..Answer::silent(success(&request))
        },
        Ok(Performed::NextPage(view)) => Answer {
            body: object(json!({"response_action": "update", "view": view})),
            // The modal is closed by then.
            ephemeral: Some(Ephemeral { code: "page_too_late", text: ephemeral_text::page_too_late() }),
            shown_in_modal: true,
            ..Answer::silent(Map::new())
        },
        Ok(Performed::ModalOpened) => Answer::silent(object(json!({"ok": true, "requestId": id}))),
        Err(error) => refused(app, id, &error, &modal_blocks.unwrap_or_default()).await,
    }
}

/// Among how many later requests of a lineage the one is looked for that a press made: it was made minutes ago.
const LATER_REQUESTS: usize = 100;

/// What was done when the interaction was delivered before. `None` if nothing was.
async fn counted_before(
    app: &App,
    id: RequestId,
    once: Once,
    made_again_by: Option<String>,
) -> Result<Option<Performed>, GatewayError> {
    if !app.gateway.has_counted(id, once).await? {
        return Ok(None);
    }
    let request = app.gateway.request(id).await?;
    let Some(user) = made_again_by else { return Ok(Some(Performed::Changed(request))) };
    let (lineage, depth) = (request.submission.lineage, request.submission.depth);
    let later = app.gateway.store().lineage(lineage, depth.saturating_add(1), LATER_REQUESTS).await?;
    let is_theirs =
        |made: &Request| made.submission.rerequested_by.as_ref().is_some_and(|party| party.id == user);
    let made = later.into_iter().rev().find(is_theirs).map_or(request, Arc::new);
    Ok(Some(Performed::Rerequested(made)))
}

/// The answer to what was refused.
pub(super) async fn refused(
    app: &App,
    id: RequestId,
    error: &PerformError,
    modal_blocks: &[String],
) -> Answer {
    let (reasons, mut locked, mut is_certain) = (error.reasons(), &[][..], true);
    let must_be_kept = matches!(error, PerformError::Gateway(error) if is_of_store(error));
    if let PerformError::Gateway(error) = error {
        log_failure(error, Some(id));
        match error {
            GatewayError::Refused(Refusal::Unauthorized(_)) => app.metrics.count(SecurityEvent::Unauthorized),
            GatewayError::Refused(Refusal::NotEditable(keys)) => locked = keys,
            GatewayError::NotFound => app.metrics.count_unreadable(InteractionError::NoRequest),
            // Nothing was stored.
            GatewayError::Store(StoreError::Unavailable {
                fault: StoreFault::Full | StoreFault::ReadOnly | StoreFault::Busy,
                ..
            }) => {}
            GatewayError::Store(StoreError::Unavailable { .. }) | GatewayError::Stopped(_) => {
                is_certain = false
            }
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
    Answer { body, ephemeral: Some(Ephemeral { code, text }), shown_in_modal, is_certain, must_be_kept }
}

/// Whether the store does not answer, or takes nothing.
pub(super) fn is_of_store(error: &GatewayError) -> bool {
    matches!(error, GatewayError::Store(StoreError::Unavailable { .. }))
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
