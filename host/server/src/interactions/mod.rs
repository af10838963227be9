//! Answers interactions from Slack: what a person asked for is done, or they read why not, in a message only to them.
//!
//! HTTP and Socket Mode differ in when they acknowledge. Slack waits for 3 s. Over HTTP it delivers nothing again, so an
//! interaction that takes longer than [`ACKNOWLEDGE_AFTER`] is acknowledged with an empty answer, run to completion, and
//! reported to the person afterwards. Over Socket Mode it delivers again what is not acknowledged, so nothing is
//! acknowledged before it is durable.

mod answer;
mod consent;
mod later;
mod perform;
mod person;
mod recorded;
mod sent;
mod workspace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::lifecycle::RequestId;
use countersign_gateway::{GatewayError, Once};
use countersign_slack::{Handler, Interaction, InteractionKind, SignatureError, Signed, Unreadable};
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::answer::Answer;
use self::consent::Basis;
use self::person::Person;
use self::recorded::Keepable;
use crate::spool::Turn;
use crate::state::App;
use crate::telemetry::{SecurityEvent, log_failure};

pub(crate) use self::recorded::apply as apply_recorded;
pub(crate) use self::sent::SentEphemerals;

/// How long an answer may take before the interaction is acknowledged without one.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_secs(2);

/// How long an interaction is remembered to recognise a second delivery, in milliseconds. Slack gives up after minutes, but
/// what was kept on disk may be applied as long as this after it came.
const REMEMBER_MS: u64 = 24 * 60 * 60 * 1000;

/// Why an interaction is not answered at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InteractionError {
    /// Its signature was used before.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Whether its signature was used before cannot be found out.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A panic; the panic hook has printed where.
    #[error("something in the gateway broke; nothing was approved by it")]
    Panicked,
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

    fn log(&self, request: Option<RequestId>) {
        if let InteractionError::Gateway(error) = self {
            log_failure(error, request);
        }
    }
}

/// Handles an interaction that came over HTTP, and returns what Slack is answered within 3 s.
///
/// # Errors
/// If the signature was used before, or the store cannot say whether it was.
pub(crate) async fn handle_signed(
    app: &Arc<App>,
    interaction: Result<Interaction, Unreadable>,
    signed: Signed,
) -> Result<Map<String, Value>, InteractionError> {
    let keepable = Keepable::of(app, &interaction);
    let (person, mut work) = start(app, interaction, keepable.clone(), Some(signed));
    if let Ok(finished) = tokio::time::timeout(ACKNOWLEDGE_AFTER, &mut work).await {
        let finished = finished.unwrap_or_default();
        let answer = or_recorded(keepable, finished).await?;
        return Ok(respond(app, person, answer, false).await);
    }
    // What is acknowledged before it is stored is on disk until it is.
    let kept = match keepable {
        Some(keepable) => keepable.keep().await,
        None => None,
    };
    let worker = Arc::clone(app);
    let request = person.as_ref().and_then(|person| person.request);
    app.background.spawn(async move {
        let Finished { answer, turn } = work.await.unwrap_or_default();
        let answer = match (answer, kept) {
            (answer, Some(kept)) if recorded::must_be_kept(&answer) => Ok(kept.leave()),
            (answer, Some(kept)) => {
                kept.forget().await;
                answer
            }
            (answer, None) => answer,
        };
        drop(turn);
        let answer = answer.unwrap_or_else(|error| {
            error.log(request);
            Answer::refusal(&worker, error.code(), &error.public_message())
        });
        respond(&worker, person, answer, true).await;
    });
    Ok(Map::new())
}

/// What handling an interaction came to.
struct Finished {
    answer: Result<Answer, InteractionError>,
    /// What the same person does next on the same request waits for it, until this press is done with or kept.
    turn: Option<Turn>,
}

impl Default for Finished {
    fn default() -> Finished {
        Finished { answer: Err(InteractionError::Panicked), turn: None }
    }
}

/// The answer, or, if the store is why there is none, that the press is kept until it answers.
async fn or_recorded(keepable: Option<Keepable>, finished: Finished) -> Result<Answer, InteractionError> {
    let Finished { answer, turn: _turn } = finished;
    if !recorded::must_be_kept(&answer) {
        return answer;
    }
    let Some(keepable) = keepable else { return answer };
    match keepable.keep().await {
        Some(kept) => Ok(kept.leave()),
        None => answer,
    }
}

/// Answers interactions that come over Socket Mode.
pub(crate) struct SocketMode(pub(crate) Arc<App>);

#[async_trait]
impl Handler for SocketMode {
    async fn handle(&self, interaction: Result<Interaction, Unreadable>) -> Option<Map<String, Value>> {
        let since = Instant::now();
        let keepable = Keepable::of(&self.0, &interaction);
        let (person, work) = start(&self.0, interaction, keepable.clone(), None);
        let finished = work.await.unwrap_or_default();
        let request = person.as_ref().and_then(|person| person.request);
        let answer = or_recorded(keepable, finished).await.inspect_err(|error| error.log(request)).ok()?;
        let is_certain = answer.is_certain;
        let body = respond(&self.0, person, answer, since.elapsed() >= ACKNOWLEDGE_AFTER).await;
        // What may not be stored is not acknowledged: the next delivery stores it, or finds it stored.
        is_certain.then_some(body)
    }
}

/// Starts to handle an interaction. It is run to completion, even if whoever sent it goes away.
fn start(
    app: &Arc<App>,
    interaction: Result<Interaction, Unreadable>,
    keepable: Option<Keepable>,
    signed: Option<Signed>,
) -> (Option<Person>, JoinHandle<Finished>) {
    let person = Person::of(&interaction);
    let worker = Arc::clone(app);
    let work = app.background.spawn(async move {
        let turn = match &keepable {
            Some(keepable) => keepable.turn().await,
            None => None,
        };
        let answer = handle(&worker, interaction, keepable, signed).await;
        Finished { answer, turn }
    });
    (person, work)
}

/// Handles an interaction once it is its turn.
async fn handle(
    app: &App,
    interaction: Result<Interaction, Unreadable>,
    keepable: Option<Keepable>,
    signed: Option<Signed>,
) -> Result<Answer, InteractionError> {
    let claim = async {
        match signed {
            Some(signed) => check_replay(app, signed).await,
            None => Ok(()),
        }
    };
    // INVARIANT: until its signature is claimed nothing comes of an interaction. What is read meanwhile waits for no disk.
    let (claimed, basis) = tokio::join!(claim, basis(app, &interaction));
    claimed?;
    if keepable.as_ref().is_some_and(Keepable::is_behind) {
        return Ok(Answer::behind(app));
    }
    if let Some(kept) = keepable.and_then(Keepable::kept_before) {
        return Ok(later::answer(app, kept, &BTreeMap::new()).await);
    }
    Ok(match interaction {
        Ok(interaction) => answer::answer(app, interaction, basis).await,
        Err(unreadable) => {
            tracing::warn!(code = unreadable.error.code(), "cannot read Slack interaction");
            app.metrics.count_unreadable(unreadable.error);
            Answer::refusal(app, unreadable.error.code(), &unreadable.error.to_string())
        }
    })
}

/// What a press that may be consent is judged by. `None` if it cannot be read; then it is told where it is needed.
async fn basis(app: &App, interaction: &Result<Interaction, Unreadable>) -> Option<Basis> {
    match interaction {
        Ok(Interaction {
            kind: InteractionKind::Approve | InteractionKind::Acknowledge(_), request, ..
        }) => Basis::read(app, *request).await.ok(),
        _ => None,
    }
}

/// Sends the person the ephemeral message of an answer, and returns what Slack is answered. If it is late, Slack shows
/// nothing of that.
async fn respond(app: &App, person: Option<Person>, answer: Answer, is_late: bool) -> Map<String, Value> {
    let Answer { mut body, ephemeral, shown_in_modal, .. } = answer;
    if let (Some(person), Some(ephemeral)) = (person, ephemeral)
        && (is_late || !shown_in_modal)
    {
        body.extend(person.send(app, ephemeral).await);
    }
    body
}

/// Claims the signature of an interaction that came over HTTP.
///
/// It is claimed before everything else, in a write of its own: what a crash leaves undone after it is not lost for that,
/// since Slack signs each delivery anew.
///
/// # Errors
/// If the signature was used before: that is a replay, not a second delivery by Slack.
async fn check_replay(app: &App, signed: Signed) -> Result<(), InteractionError> {
    let now = app.gateway.clock().now();
    let store = app.gateway.store();
    let claimed = store.claim_nonce(signed.nonce.shard(), signed.nonce, now, signed.remember_until).await;
    if claimed.map_err(GatewayError::from)? {
        return Ok(());
    }
    app.metrics.count(SecurityEvent::Replay);
    tracing::warn!(code = SignatureError::Replay.code(), "Slack interaction rejected");
    Err(SignatureError::Replay.into())
}

/// Which act an interaction is, over HTTP and Socket Mode alike. `None` if Slack does not say.
fn once(app: &App, interaction: &Interaction) -> Option<Once> {
    let at = app.gateway.clock().now();
    Some(Once { identity: interaction.identity()?, at, until: at.plus(REMEMBER_MS) })
}
