//! What becomes of what a person does in Slack: it is done, or they are told, only they, why not.
//!
//! HTTP and Socket Mode both end here. Slack waits for 3 s and no longer, so whatever takes longer than
//! [`ACKNOWLEDGE`] is acknowledged first, done to its end all the same, and told of afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::app::App;
use crate::http::ApiError;
use crate::telemetry::SecurityEvent;
use countersign_core::json;
use countersign_core::lifecycle::{Digest, Party, Reason, Refusal, Request, RequestId};
use countersign_gateway::{GatewayError, Intent};
use countersign_slack::{
    ANSWER_BLOCK, Interaction, InteractionError, InteractionKind, Outgoing, SignatureError, Signed, Source,
    ephemeral_text, modal,
};
use countersign_store::StoreError;

/// How long an answer may take before it is acknowledged without one.
const ACKNOWLEDGE: Duration = Duration::from_secs(2);

/// How long an interaction is remembered, so that one that is delivered again is not done again, in milliseconds.
const REMEMBER_MS: u64 = 10 * 60 * 1000;

/// The longest error that is shown on an input of a modal, in characters.
const ERROR_CHARS: usize = 500;

/// Does what was read, where it came for the first time, and returns what to answer.
///
/// `signed` is the proof that it comes from Slack; Socket Mode needs none, since the connection is one.
///
/// # Errors
/// Where the signature was used before, or the store cannot tell whether it was.
pub(crate) async fn take(
    app: &Arc<App>,
    read: Result<Interaction, InteractionError>,
    signed: Option<Signed>,
) -> Result<Map<String, Value>, ApiError> {
    let person = read.as_ref().ok().map(Person::of);
    let worker = Arc::clone(app);
    let mut work = app.background.spawn(async move {
        let first = first_time(&worker, signed, read.as_ref().ok()).await?;
        Ok(match read {
            _ if !first => Became::silent(refusal("duplicate_delivery", "this was delivered before")),
            Ok(interaction) => respond(&worker, interaction).await,
            Err(unreadable) => {
                tracing::warn!(code = unreadable.code(), "a Slack interaction was not understood");
                Became::silent(refusal(unreadable.code(), &unreadable.to_string()))
            }
        })
    });
    if let Ok(done) = tokio::time::timeout(ACKNOWLEDGE, &mut work).await {
        let became = done.unwrap_or(Err(ApiError::Panicked))?;
        if let (Some(person), Some(text), false) = (person, became.tell, became.shown) {
            person.tell(app, text).await;
        }
        return Ok(became.answer);
    }
    let worker = Arc::clone(app);
    app.background.spawn(async move {
        let tell = match work.await.unwrap_or(Err(ApiError::Panicked)) {
            Ok(became) => became.tell,
            Err(error) => {
                error.log();
                Some(ephemeral_text::refusal(
                    error.code(),
                    &error.detail(),
                    &[],
                    None,
                    worker.gateway.clock().now(),
                ))
            }
        };
        if let (Some(person), Some(text)) = (person, tell) {
            person.tell(&worker, text).await;
        }
    });
    Ok(Map::new())
}

/// Whether this was not delivered before, by either way. A signature that was is a replay.
async fn first_time(
    app: &App,
    signed: Option<Signed>,
    interaction: Option<&Interaction>,
) -> Result<bool, ApiError> {
    let (store, now) = (app.gateway.store(), app.gateway.clock().now());
    let signature = async {
        let Some(signed) = signed else { return Ok(true) };
        store.claim_nonce(signed.nonce, now, signed.remember_until).await
    };
    let itself = async {
        let Some(identity) = interaction.and_then(Interaction::identity) else { return Ok(true) };
        store.claim_nonce(identity, now, now.plus(REMEMBER_MS)).await
    };
    // At once: the store makes both durable together.
    let (signature, itself): (Result<bool, StoreError>, Result<bool, StoreError>) =
        tokio::join!(signature, itself);
    if !signature? {
        app.metrics.count(SecurityEvent::Replay);
        tracing::warn!(code = SignatureError::Replay.code(), "a Slack interaction was turned away");
        return Err(SignatureError::Replay.into());
    }
    Ok(itself?)
}

/// Who acted, and where they can be told something.
struct Person {
    user: String,
    request: RequestId,
    source: Source,
}

impl Person {
    fn of(interaction: &Interaction) -> Person {
        let Interaction { user, request, source, .. } = interaction;
        Person { user: user.clone(), request: *request, source: source.clone() }
    }

    /// Tells them, and only them. A modal is in no channel: then it is where the request's message is.
    async fn tell(self, app: &App, text: String) {
        let Some(outgoing) = &app.outgoing else { return };
        let Person { user, request, source } = self;
        let channel = match source.channel {
            Some(channel) => Some(channel),
            None => channel_of(app, request).await.unwrap_or_default(),
        };
        if let Some(channel) = channel {
            outgoing.ephemerals.send(&channel, &user, source.thread.as_deref(), text);
        }
    }
}

async fn channel_of(app: &App, id: RequestId) -> Result<Option<String>, GatewayError> {
    let Some(request) = app.gateway.store().request(id).await? else { return Ok(None) };
    Ok(app.gateway.rules_of(request.submission.policy_hash).await?.entry().channel.clone())
}

/// What became of an interaction.
struct Became {
    /// What Slack is answered.
    answer: Map<String, Value>,
    /// What the person is told, as escaped mrkdwn.
    tell: Option<String>,
    /// The answer shows it to them already.
    shown: bool,
}

impl Became {
    fn silent(answer: Map<String, Value>) -> Became {
        Became { answer, tell: None, shown: false }
    }
}

/// Does what the person did, and says what became of it.
async fn respond(app: &App, interaction: Interaction) -> Became {
    let blocks = interaction.kind.modal_blocks();
    let request = interaction.request;
    match perform(app, interaction).await {
        Ok(Done::Changed(request)) => {
            let mut answer = success(&request);
            if blocks.is_some() {
                answer.insert("response_action".into(), "clear".into());
            }
            Became::silent(answer)
        }
        Ok(Done::MadeAgain(request)) => {
            Became { tell: Some(ephemeral_text::rerequested(&request)), ..Became::silent(success(&request)) }
        }
        Ok(Done::Asked) => Became::silent(object(json!({"ok": true, "requestId": request}))),
        Err(Undone::Not { code, message }) => Became {
            tell: Some(told_of(app, request, code, message, &[]).await),
            ..Became::silent(refusal(code, message))
        },
        Err(Undone::Refused(error)) => refused(app, request, error, blocks).await,
    }
}

/// What was done.
enum Done {
    /// The request has changed.
    Changed(Arc<Request>),
    /// It was made again.
    MadeAgain(Arc<Request>),
    /// The person was asked for more, in a modal.
    Asked,
}

/// Why nothing was done.
enum Undone {
    /// The gateway refuses.
    Refused(GatewayError),
    /// There is nothing to do it with.
    Not { code: &'static str, message: &'static str },
}

impl From<GatewayError> for Undone {
    fn from(error: GatewayError) -> Undone {
        Undone::Refused(error)
    }
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Undone {
        Undone::Refused(error.into())
    }
}

async fn perform(app: &App, interaction: Interaction) -> Result<Done, Undone> {
    let Interaction { user, request, kind, seen, source } = interaction;
    let intent = match kind {
        InteractionKind::Approve => Intent::Approve { edits: BTreeMap::new() },
        InteractionKind::Acknowledge(persona) => Intent::Acknowledge { persona },
        InteractionKind::Withdraw => Intent::Withdraw,
        InteractionKind::DenyBecause(reason) => Intent::Deny { reason },
        InteractionKind::Deny(reason) => {
            let intent = Intent::Deny { reason };
            if ask_why(app, request, &user, &intent, &source).await? {
                return Ok(Done::Asked);
            }
            intent
        }
        InteractionKind::Overrides(inputs) => Intent::Approve { edits: edits(app, request, inputs).await? },
        InteractionKind::ApproveEdit => return ask_for_edits(app, request, &user, &source, seen).await,
        InteractionKind::Rerequest => {
            let actor = Party { id: user, source: "slack".into(), display: None };
            return Ok(Done::MadeAgain(app.gateway.rerequest(request, actor).await?.request));
        }
    };
    Ok(Done::Changed(app.gateway.act_on(request, &user, &intent, seen).await?))
}

/// Opens the modal that asks why somebody denies. False where that cannot be: then the denial counts without a reason,
/// as that is what was pressed, and nothing is approved by it.
async fn ask_why(
    app: &App,
    request: RequestId,
    user: &str,
    intent: &Intent,
    source: &Source,
) -> Result<bool, Undone> {
    let (Some(Outgoing { client, .. }), Some(trigger)) = (&app.outgoing, &source.trigger) else {
        return Ok(false);
    };
    if !matches!(intent, Intent::Deny { reason: None }) {
        return Ok(false);
    }
    let request = app.gateway.check(request, user, intent, None).await?;
    match client.open_view(trigger, &modal::deny(&request)).await {
        Ok(()) => Ok(true),
        Err(error) => {
            tracing::warn!(%error, request = %request.id, "cannot ask why somebody denies");
            Ok(false)
        }
    }
}

/// Opens the modal in which parameters are edited.
async fn ask_for_edits(
    app: &App,
    request: RequestId,
    user: &str,
    source: &Source,
    seen: Option<Digest>,
) -> Result<Done, Undone> {
    let (Some(Outgoing { client, .. }), Some(trigger)) = (&app.outgoing, &source.trigger) else {
        let message = "this gateway has no bot token, so it cannot open a dialog";
        return Err(Undone::Not { code: "no_modal", message });
    };
    let intent = Intent::Approve { edits: BTreeMap::new() };
    let request = app.gateway.check(request, user, &intent, seen).await?;
    let rules = app.gateway.rules_of(request.submission.policy_hash).await?;
    let Some(view) = modal::overrides(&request, rules.entry()) else {
        return Err(Undone::Not {
            code: "key_not_allowed",
            message: "nothing of this request can be edited",
        });
    };
    client.open_view(trigger, &view).await.map_err(|error| {
        tracing::warn!(%error, request = %request.id, "cannot open the dialog for edits");
        Undone::Not {
            code: "no_modal",
            message: "Slack did not open the dialog; please press the button again",
        }
    })?;
    Ok(Done::Asked)
}

/// What the texts of the modal mean. An input that was left empty, or as it was, changes nothing.
async fn edits(
    app: &App,
    id: RequestId,
    inputs: BTreeMap<String, Option<String>>,
) -> Result<BTreeMap<String, Option<Value>>, GatewayError> {
    let request = app.gateway.store().request(id).await?.ok_or(GatewayError::NotFound)?;
    let rules = app.gateway.rules_of(request.submission.policy_hash).await?;
    let params = request.params();
    let edits = inputs.into_iter().filter_map(|(key, text)| {
        let text = text?;
        let is_text = modal::reads_as_text(rules.schema(), &key, params.get(&key));
        // What is not JSON is kept as a text, for the schema and the policies to judge.
        let value = match json::parse(text.as_bytes()) {
            Ok(value) if !is_text => value,
            _ => Value::String(text),
        };
        Some((key, Some(value)))
    });
    Ok(edits.collect())
}

fn success(request: &Request) -> Map<String, Value> {
    object(json!({
        "ok": true,
        "requestId": request.id,
        "status": request.status(),
        "approvers": request.approvers(),
    }))
}

fn refusal(code: &str, message: &str) -> Map<String, Value> {
    object(json!({"ok": false, "error": code, "message": message, "reasons": []}))
}

async fn refused(app: &App, id: RequestId, error: GatewayError, blocks: Option<Vec<String>>) -> Became {
    if matches!(error, GatewayError::Refused(Refusal::Unauthorized(_))) {
        app.metrics.count(SecurityEvent::Unauthorized);
    }
    let keys = match &error {
        GatewayError::Refused(Refusal::NotEditable(keys)) => keys.clone(),
        _ => Vec::new(),
    };
    let error = ApiError::from(error);
    error.log();
    let (reasons, detail) = (error.reasons(), error.detail());
    let mut answer = refusal(error.code(), &detail);
    answer.insert("reasons".into(), json!(reasons));
    let errors = modal_errors(&blocks.unwrap_or_default(), &keys, &reasons, &detail);
    let shown = !errors.is_empty();
    if shown {
        answer.insert("response_action".into(), "errors".into());
        answer.insert("errors".into(), json!(errors));
    }
    let tell = told_of(app, id, error.code(), &detail, &reasons).await;
    Became { answer, tell: Some(tell), shown }
}

/// The errors to show in a modal with these blocks: each on its parameter's block, else on the first.
fn modal_errors(
    blocks: &[String],
    locked: &[String],
    reasons: &[Reason],
    detail: &str,
) -> BTreeMap<String, String> {
    let block_of = |key: &str| Some(format!("{ANSWER_BLOCK}{key}")).filter(|block| blocks.contains(block));
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for reason in reasons {
        let block = reason.path.as_deref().and_then(block_of).or_else(|| blocks.first().cloned());
        let Some(block) = block else { continue };
        let said = errors.entry(block).or_default();
        let separator = if said.is_empty() { "" } else { "; " };
        said.push_str(&format!("{separator}{}", reason.message));
    }
    for said in errors.values_mut() {
        if let Some((end, _)) = said.char_indices().nth(ERROR_CHARS) {
            said.truncate(end);
        }
    }
    for block in locked.iter().filter_map(|key| block_of(key)) {
        errors.insert(block, "this parameter cannot be edited".into());
    }
    if errors.is_empty()
        && let Some(block) = blocks.first()
    {
        errors.insert(block.clone(), detail.to_owned());
    }
    errors
}

/// What the person is told, with how the request stands by now.
async fn told_of(app: &App, id: RequestId, code: &str, detail: &str, reasons: &[Reason]) -> String {
    let request = app.gateway.store().request(id).await.unwrap_or_default();
    ephemeral_text::refusal(code, detail, reasons, request.as_ref(), app.gateway.clock().now())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
