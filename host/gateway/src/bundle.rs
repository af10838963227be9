//! Bundles: what re-executes a decision, and the re-execution itself.
//!
//! A decision is re-executed by the modules that made it, in the same engine and by the same steps (`decide` in
//! `host/policy`), from what was recorded of the request. It needs no store, no clock and no network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::bundle::{
    Bundle, BundledModule, Recorded, RecordedEvents, RecordedSubmission, VERSION,
};
use countersign_core::lifecycle::{
    Act, AdminEnd, Digest, Event, Intent, PayloadHashVersion, Refusal, Request, Salt, State, Submission,
};
use countersign_core::receipt::ReceiptDocument;
use countersign_policy::decide::{self, Admission, Attempt, NotMade};
use countersign_policy::{ActionPolicy, Engine, Module};
use serde_json::{Map, Value};

use super::{Gateway, GatewayError};
use crate::simulation::replay::{commitments, intent};

/// The largest bundle that is read, in bytes.
pub const MOST_BYTES: usize = 256 << 20;

impl Gateway {
    /// What re-executes the decision about a request that has ended, as canonical JSON.
    ///
    /// # Errors
    /// [`GatewayError::Undecided`] of an open request, and if the store does not have its rules and their modules.
    pub async fn bundle(&self, request: &Request) -> Result<String, GatewayError> {
        let happened = RecordedEvents::of(request).ok_or(GatewayError::Undecided)?;
        let entry = self.entry_of(request).await?.clone();
        let mut modules = Vec::new();
        for digest in entry.policies.iter().map(|used| used.digest).collect::<BTreeSet<_>>() {
            modules.push((digest, self.store.module(digest).await?.ok_or(GatewayError::RulesLost(digest))?));
        }
        let (request_id, asked) = (request.id, RecordedSubmission::of(request));
        // Some megabytes of text: not on a thread that serves others.
        let written = tokio::task::spawn_blocking(move || {
            let modules = modules.into_iter();
            let modules =
                modules.map(|(digest, bytes)| BundledModule { digest, bytes: STANDARD.encode(bytes) });
            let modules = modules.collect();
            Bundle { version: VERSION, request_id, asked, happened, entry, modules }.canonical()
        });
        let written = written.await.map_err(|error| GatewayError::Stopped(error.to_string()))?;
        written.map_err(|error| GatewayError::Stopped(error.to_string()))
    }
}

/// Why a decision is not what a re-execution makes of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It is no bundle, or was changed.
    #[error("the bundle is not as a gateway gives it: {0}")]
    Malformed(String),
    /// A part of it is not what the receipt is about.
    #[error("{0} of the bundle is not what the receipt is about")]
    NotOfReceipt(String),
    /// A module of it is not the one that its rules name.
    #[error("the module `{0}` of the bundle is not the one that judged: its bytes have another digest")]
    Module(String),
    /// A module of it cannot be run here.
    #[error("the module `{0}` cannot be run: {1}")]
    NotRun(String, String),
    /// The parameters at hand are not those that were asked for.
    #[error("the parameters at hand are not those that were asked for: `{0}` differs")]
    Parameters(String),
    /// The modules come to something else.
    #[error("re-execution comes to something else: {0}")]
    Differs(String),
}

/// What was re-executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// How many events were judged again.
    pub events: usize,
    /// Whether the policies were asked again whether to admit the request. If not, what they had remembered of hidden
    /// values is taken as it was recorded.
    pub admitted: bool,
    /// The hidden parameters whose values at hand were not compared with what was committed to, since their salt is not at
    /// hand: the policies were asked about them, and may admit others just the same.
    pub uncompared: BTreeSet<String>,
}

/// What was asked for, in clear.
#[derive(Debug)]
pub struct Asked {
    /// Every parameter, hidden ones included, without the edits of approvers.
    pub params: Map<String, Value>,
    /// The salt of the request; without it a hidden value is not compared with what was committed to.
    pub salt: Option<Salt>,
}

/// Reads a bundle.
///
/// # Errors
/// If it is none, or not byte for byte as a gateway writes it.
pub fn read(text: &[u8]) -> Result<Bundle, ReplayError> {
    let malformed = |what: String| ReplayError::Malformed(what);
    // Not with the strict reader: it allows less depth than parameters may have in here. That keys come twice, or that
    // numbers would become others, shows in the comparison below.
    let bundle: Bundle = serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
    if bundle.version != VERSION {
        return Err(malformed("it is of another version".to_owned()));
    }
    let canonical = bundle.canonical().map_err(|error| malformed(error.to_string()))?;
    if canonical.as_bytes() != text {
        return Err(malformed("it is not in canonical form".to_owned()));
    }
    Ok(bundle)
}

/// Runs the modules of a bundle again, on what was recorded, and compares what they come to with the receipt's document.
/// Blocks.
///
/// # Errors
/// What of the bundle, of the parameters or of the decision is not as the receipt says.
pub fn replay(
    receipt: &ReceiptDocument,
    bundle: &Bundle,
    asked: Option<&Asked>,
    engine: &Engine,
) -> Result<Replayed, ReplayError> {
    belongs(receipt, bundle)?;
    let submission = &bundle.asked.submission;
    let uncompared = asked.map(|asked| compare(submission, asked)).transpose()?.unwrap_or_default();
    let rules = rules(bundle, engine)?;
    let (mut request, admitted) = admit(&rules, bundle, asked)?;
    for recorded in bundle.happened.history.iter().skip(1) {
        request = happen(&rules, &request, recorded)?;
    }
    let request = end(request, &bundle.happened.end)?;
    let made = ReceiptDocument::of(&request, &bundle.entry)
        .ok_or_else(|| ReplayError::Differs("the request is still open".to_owned()))?;
    // The text as well as the values: in canonical form a number may be written as its neighbour.
    if made != *receipt || made.canonical() != receipt.canonical() {
        return Err(ReplayError::Differs(differing(&made, receipt)));
    }
    Ok(Replayed { events: bundle.happened.history.len(), admitted, uncompared })
}

/// Whether every part of the bundle is what the receipt is about.
fn belongs(receipt: &ReceiptDocument, bundle: &Bundle) -> Result<(), ReplayError> {
    let not = |part: &str| Err(ReplayError::NotOfReceipt(part.to_owned()));
    if bundle.request_id != receipt.request_id {
        return not("the request");
    }
    if bundle.entry.hash() != receipt.policy.hash {
        return not("the policy entry");
    }
    let Recorded { asked, happened } = receipt.recorded;
    if bundle.asked.digest() != Some(asked) {
        return not("what was asked (the submission, or what policies remembered of it)");
    }
    if bundle.happened.digest(bundle.asked.submission.token_hash) != Some(happened) {
        return not("what happened (the events, or how the request ended)");
    }
    Ok(())
}

/// Whether these are the parameters that were asked for; and those of which that cannot be told.
fn compare(submission: &Submission, asked: &Asked) -> Result<BTreeSet<String>, ReplayError> {
    let mut uncompared = BTreeSet::new();
    let differs = |key: &str| Err(ReplayError::Parameters(key.to_owned()));
    let keys: BTreeSet<&String> = asked.params.keys().chain(submission.params.keys()).collect();
    for key in keys {
        let (Some(value), Some(recorded)) = (asked.params.get(key), submission.params.get(key)) else {
            return differs(key);
        };
        if !submission.redacted.contains(key) {
            if value != recorded {
                return differs(key);
            }
            continue;
        }
        let commitment = match (submission.payload_hash_version, &asked.salt) {
            (PayloadHashVersion::One, _) => Digest::of_json(value),
            (PayloadHashVersion::Two, Some(salt)) => salt.commit(value),
            (PayloadHashVersion::Two, None) => {
                uncompared.insert(key.clone());
                continue;
            }
        };
        if submission.digests.get(key) != Some(&commitment) {
            return differs(key);
        }
    }
    Ok(uncompared)
}

/// The rules, with the very modules that they name.
fn rules(bundle: &Bundle, engine: &Engine) -> Result<ActionPolicy, ReplayError> {
    let mut modules: BTreeMap<Digest, Arc<Module>> = BTreeMap::new();
    let named: BTreeSet<Digest> = bundle.entry.policies.iter().map(|used| used.digest).collect();
    let others = bundle.modules.iter().any(|module| !named.contains(&module.digest));
    if others || bundle.modules.len() != named.len() {
        return Err(ReplayError::Malformed("its modules are not those that its rules name".to_owned()));
    }
    for used in &bundle.entry.policies {
        let name = || used.name.clone();
        if modules.contains_key(&used.digest) {
            continue;
        }
        let module = bundle.modules.iter().find(|module| module.digest == used.digest);
        let bytes = module.and_then(|module| STANDARD.decode(&module.bytes).ok());
        // INVARIANT: nothing runs whose bytes do not have the digest that the receipt is about.
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == used.digest);
        let bytes = bytes.ok_or_else(|| ReplayError::Module(name()))?;
        let module =
            engine.load(&bytes, &[]).map_err(|error| ReplayError::NotRun(name(), error.to_string()))?;
        modules.insert(used.digest, module);
    }
    ActionPolicy::new(bundle.entry.clone(), |digest| modules.get(digest).cloned())
        .map_err(|error| ReplayError::Malformed(error.to_string()))
}

/// Makes the request again; and whether the policies were asked to admit it.
fn admit(
    rules: &ActionPolicy,
    bundle: &Bundle,
    asked: Option<&Asked>,
) -> Result<(Request, bool), ReplayError> {
    let RecordedSubmission { submission, memos } = &bundle.asked;
    let differs = |what: String| ReplayError::Differs(what);
    if decide::under(rules, submission.clone()) != *submission {
        let what =
            "the rules make another submission of what was asked (what is hidden, or its times and terms)";
        return Err(differs(what.to_owned()));
    }
    // One that was made again was admitted without its hidden values; nobody had them any more.
    let in_clear = submission.redacted.is_empty() || submission.depth > 0;
    let params = match asked {
        Some(asked) if !in_clear => &asked.params,
        _ => &submission.params,
    };
    let is_asked = in_clear || asked.is_some();
    let known = |index: usize| if is_asked { None } else { memos.get(index).cloned() };
    let Admission { outcome, .. } =
        decide::admit(rules, bundle.request_id, submission.clone(), params, known);
    let request = match outcome {
        Ok(step) => step.request,
        Err(not_made) => return Err(differs(format!("the request is not made: {}", why(&not_made)))),
    };
    let mut remembered = request.memos.iter().zip(memos).zip(&bundle.entry.policies);
    if let Some((_, used)) = remembered.find(|((again, memo), _)| again != memo) {
        let name = &used.name;
        return Err(differs(format!("the policy `{name}` remembers something else of what was asked")));
    }
    if request.memos.len() != memos.len() {
        return Err(differs("another number of policies remember something of what was asked".to_owned()));
    }
    match bundle.happened.history.first() {
        Some(first) if request.history.first() == Some(first) => Ok((request, is_asked)),
        _ => Err(differs("the request begins with another event".to_owned())),
    }
}

/// What happened next happens again.
fn happen(rules: &ActionPolicy, request: &Request, recorded: &Event) -> Result<Request, ReplayError> {
    let name = || format!("event {} ({}", recorded.seq, recorded.act.name());
    let by = || recorded.by.as_ref().map_or(")".to_owned(), |by| format!(" by {})", by.id));
    let differs = |what: String| ReplayError::Differs(format!("{}{} {what}", name(), by()));
    let intent = match &recorded.act {
        Act::Escalated => Intent::Escalate,
        Act::Tick => Intent::Wake,
        Act::Submitted => return Err(differs("cannot happen again".to_owned())),
        act => intent(act),
    };
    let commitments = commitments(&recorded.act);
    let attempt = Attempt { commitments, ..Attempt::of(intent, recorded.by.clone()) };
    let step = decide::event(rules, request, attempt, recorded.at).outcome;
    let after = step.map_err(|refusal| differs(format!("does not count: {}", refused(&refusal))))?.request;
    if after.history.last() != Some(recorded) || after.history.len() != request.history.len() + 1 {
        return Err(differs("becomes another one".to_owned()));
    }
    Ok(after)
}

/// The request ends as it did.
fn end(request: Request, recorded: &State) -> Result<Request, ReplayError> {
    let ended = match (recorded, AdminEnd::recorded(recorded)) {
        (State::Expired { at, .. } | State::Cancelled { at, .. }, Some(end)) => {
            request.end_by_admin(*at, &end).map(|step| step.request)
        }
        // By the last event, or not at all.
        (State::Open(_) | State::Approved { .. } | State::Denied(_), _) => Ok(request),
        (State::Expired { at, .. }, None) => request.expire(*at).map(|step| step.request),
        (State::Cancelled { at, successor: Some(newer), .. }, None) => {
            request.supersede(*at, *newer).map(|step| step.request)
        }
        (State::Cancelled { at, reason, successor: None, .. }, None) => {
            request.cancel(*at, reason.clone()).map(|step| step.request)
        }
    };
    let ended = ended.map_err(|refusal| {
        ReplayError::Differs(format!("the request does not end as recorded: {}", refused(&refusal)))
    })?;
    if ended.state == *recorded {
        return Ok(ended);
    }
    let (made, was) = (ended.status(), Request { state: recorded.clone(), ..ended }.status());
    let what =
        if made == was { format!("{was} otherwise than recorded") } else { format!("{made}, not {was}") };
    Err(ReplayError::Differs(format!("the request is {what}")))
}

/// The members of the receipt that differ.
fn differing(made: &ReceiptDocument, receipt: &ReceiptDocument) -> String {
    let object = |document: &ReceiptDocument| match serde_json::to_value(document) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    };
    let (made, receipt) = (object(made), object(receipt));
    let keys: BTreeSet<&String> = made.keys().chain(receipt.keys()).collect();
    let keys = keys.into_iter().filter(|key| made.get(*key) != receipt.get(*key));
    let keys: Vec<String> = keys.map(|key| format!("`{key}`")).collect();
    format!("{} of the receipt", keys.join(", "))
}

fn why(not_made: &NotMade) -> String {
    match not_made {
        NotMade::Denied(reasons) => {
            reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>().join(", ")
        }
        NotMade::Failed(failures) => failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        NotMade::Refused(refusal) => refused(refusal),
    }
}

fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::PolicyFailed(failures) => {
            failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
        refusal => refusal.code().to_owned(),
    }
}
