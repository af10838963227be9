//! Answers interactions from Slack: what a person asked for is done, or they read why not, in a message only to them.
//!
//! HTTP and Socket Mode both end here. Slack waits for 3 s, so an interaction that takes longer than
//! [`ACKNOWLEDGE_AFTER`] is acknowledged with an empty answer, run to completion, and reported to the person afterwards.

mod answer;
mod consent;
mod perform;
mod person;
mod workspace;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_gateway::GatewayError;
use countersign_slack::{
    Handler, Interaction, InteractionError as SlackInteractionError, SignatureError, Signed, ephemeral_text,
};
use countersign_store::StoreError;
use serde_json::{Map, Value};

use self::answer::Answer;
use self::person::Person;
use crate::state::App;
use crate::telemetry::{SecurityEvent, log_failure};

/// How long an answer may take before the interaction is acknowledged without one.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_secs(2);

/// How long an interaction is remembered to recognise a second delivery, in milliseconds.
const REMEMBER_MS: u64 = 10 * 60 * 1000;

/// Why an interaction is not answered at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InteractionError {
    /// Its signature was used before.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Whether it was delivered before cannot be found out.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A panic; the panic hook has printed it.
    #[error("something in the gateway broke; nothing was approved by it")]
    Panicked,
}

impl From<StoreError> for InteractionError {
    fn from(error: StoreError) -> InteractionError {
        InteractionError::Gateway(error.into())
    }
}

impl InteractionError {
    fn code(&self) -> &'static str {
        match self {
            InteractionError::Signature(error) => error.code(),
            InteractionError::Gateway(error) => error.code(),
            InteractionError::Panicked => "internal",
        }
    }

    fn public_message(&self) -> String {
        match self {
            InteractionError::Gateway(error) => error.public_message(),
            error => error.to_string(),
        }
    }

    fn log(&self) {
        if let InteractionError::Gateway(error) = self {
            log_failure(error);
        }
    }
}

/// Handles an interaction once, however often it is delivered, and returns what Slack is answered.
///
/// `signed` proves that it comes from Slack; in Socket Mode the connection does.
///
/// # Errors
/// If the signature was used before, or the store cannot say whether it was.
pub(crate) async fn handle(
    app: &Arc<App>,
    interaction: Result<Interaction, SlackInteractionError>,
    signed: Option<Signed>,
) -> Result<Map<String, Value>, InteractionError> {
    let person = interaction.as_ref().ok().map(Person::of);
    let worker = Arc::clone(app);
    let mut work = app.background.spawn(async move { handle_once(&worker, interaction, signed).await });
    if let Ok(finished) = tokio::time::timeout(ACKNOWLEDGE_AFTER, &mut work).await {
        let Answer { body, ephemeral, shown_in_modal } =
            finished.unwrap_or(Err(InteractionError::Panicked))?;
        if let (Some(person), Some(text), false) = (person, ephemeral, shown_in_modal) {
            person.send_ephemeral(app, text).await;
        }
        return Ok(body);
    }
    let worker = Arc::clone(app);
    app.background.spawn(async move {
        let ephemeral = match work.await.unwrap_or(Err(InteractionError::Panicked)) {
            // The modal is closed by now, so what it would have shown goes into the message.
            Ok(answer) => answer.ephemeral,
            Err(error) => {
                error.log();
                let (directory, now) = (worker.gateway.directory(), worker.gateway.clock().now());
                let message = error.public_message();
                Some(ephemeral_text::refusal(error.code(), &message, &[], None, directory, now))
            }
        };
        if let (Some(person), Some(text)) = (person, ephemeral) {
            person.send_ephemeral(&worker, text).await;
        }
    });
    Ok(Map::new())
}

async fn handle_once(
    app: &App,
    interaction: Result<Interaction, SlackInteractionError>,
    signed: Option<Signed>,
) -> Result<Answer, InteractionError> {
    if !is_first_delivery(app, signed, interaction.as_ref().ok()).await? {
        return Ok(Answer::refusal("duplicate_delivery", "this was delivered before"));
    }
    match interaction {
        Ok(interaction) => Ok(answer::answer(app, interaction).await),
        Err(unreadable) => {
            tracing::warn!(code = unreadable.code(), "cannot read Slack interaction");
            Ok(Answer::refusal(unreadable.code(), &unreadable.to_string()))
        }
    }
}

/// Whether the interaction was not delivered before, over HTTP or Socket Mode.
///
/// # Errors
/// If the signature was used before: that is a replay, not a second delivery by Slack, which signs anew.
async fn is_first_delivery(
    app: &App,
    signed: Option<Signed>,
    interaction: Option<&Interaction>,
) -> Result<bool, InteractionError> {
    let (store, now) = (app.gateway.store(), app.gateway.clock().now());
    let signature = async {
        let Some(signed) = signed else { return Ok(true) };
        store.claim_nonce(signed.nonce, now, signed.remember_until).await
    };
    let identity = async {
        let Some(identity) = interaction.and_then(Interaction::identity) else { return Ok(true) };
        store.claim_nonce(identity, now, now.plus(REMEMBER_MS)).await
    };
    // Concurrently, so that the store commits them together.
    let (signature, identity): (Result<bool, StoreError>, Result<bool, StoreError>) =
        tokio::join!(signature, identity);
    if !signature? {
        app.metrics.count(SecurityEvent::Replay);
        tracing::warn!(code = SignatureError::Replay.code(), "Slack interaction rejected");
        return Err(SignatureError::Replay.into());
    }
    Ok(identity?)
}

/// Answers interactions that come over Socket Mode.
pub(crate) struct SocketMode(pub(crate) Arc<App>);

#[async_trait]
impl Handler for SocketMode {
    async fn handle(
        &self,
        interaction: Result<Interaction, SlackInteractionError>,
    ) -> Option<Map<String, Value>> {
        handle(&self.0, interaction, None).await.inspect_err(InteractionError::log).ok()
    }
}
