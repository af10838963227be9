//! The shell around the core: load, ask the policies, step, commit, tell.
//!
//! Nothing is announced before it is stored: watchers hear of a version after the store has it,
//! and whatever else must happen is in the outbox by then.

// How a request comes to be, and what gives way to it.
mod submission;
mod supersede;

// How it moves on, and ends.
mod event;

// What admins do to it, and who could act on it.
mod operate;
mod trial;

// How its approval is used, what proves it, and what re-executes it.
pub mod bundle;
pub mod receipts;
mod refused_uses;
mod usage;

// What proves that what was written about it was not changed since.
pub mod audit;

// When it goes.
pub mod retention;

// On which thread its policies are asked.
mod judging;
// What is delivered more than once.
mod once;

// Why something was not done.
mod error;

// What opens it, what its payload hash is made with, who waits for it, and what the scheduler hears of it.
mod alarm;
mod salt;
mod token;
mod watch;

// What happens by itself.
pub mod scheduler;

// What other instances do.
mod instances;

// What is counted, logged and traced.
mod decision_log;
mod drawn;
mod metrics;
mod traces;

// How the policy set in force changes, and what another one would make of the same requests.
pub mod fetch;
pub mod policy_sets;
pub mod simulation;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus::Registry;
use tokio::sync::Notify;

pub use alarm::Alarm;
pub use countersign_core::lifecycle::Intent;
pub use countersign_policy::decide::{Again, Ask, Who};
pub use error::GatewayError;
pub use instances::Share;
pub use once::Once;
pub use salt::{SaltError, SaltKey, SaltKeys, SaltNonce};
pub use submission::{IdempotencyKey, Made};
pub use token::{Tokens, WaitToken};
pub use trial::{Candidate, MostTried, Trial, Tried, TriedAct};
pub use usage::{Given, GivenParameters, Used};
pub use watch::{Seen, Watch, Watchers};

use crate::instances::Instances;
use crate::judging::{Judges, joined};
use crate::metrics::GatewayMetrics;
use crate::receipts::ReceiptKeys;
use crate::refused_uses::RefusedUses;
use crate::simulation::Shadow;
use countersign_core::clock::Clock;
use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Milestone, PayloadHashVersion, PolicyFailure, Request, RequestId, Salt};
use countersign_core::record::PolicyEntry;
use countersign_policy::{ActionPolicy, Policies};
use countersign_store::{NewDispatch, Store};
use countersign_trace::Tracer;

/// How often a change is tried again when others got in first.
///
/// Each conflict means that somebody else's change was stored, so the number only bounds how many
/// people can act on one request at the same instant.
const MOST_CONFLICTS: usize = 256;

/// The gateway: every way in which a request comes to be, moves on and ends.
pub struct Gateway {
    store: Arc<dyn Store>,
    policies: Arc<Policies>,
    clock: Arc<dyn Clock>,
    tokens: Tokens,
    salts: SaltKeys,
    receipts: Option<ReceiptKeys>,
    directory: Arc<Directory>,
    watchers: Watchers,
    alarm: Arc<Alarm>,
    outbox_bell: Arc<Notify>,
    dispatch_bell: Arc<Notify>,
    /// Which programs outside must be told what.
    subscribers: Subscribers,
    instances: Instances,
    shadow: Arc<Shadow>,
    judges: Judges,
    metrics: GatewayMetrics,
    tracer: Tracer,
    refused_uses: RefusedUses,
    /// Whether people can be shown all that they would agree to.
    readable: Readable,
    /// Where the bits of ids, salts and nonces come from.
    randomness: Randomness,
}

/// Whether people can be shown all that they would agree to. How much that is depends on where they are shown it.
pub type Readable = fn(&Request, &PolicyEntry) -> bool;

/// The names of the targets outside that must be told of these milestones, which a request has just reached.
pub type Subscribers = Box<dyn Fn(&Request, &[Milestone]) -> Vec<String> + Send + Sync>;

/// Fills bytes with random bits that nobody can guess.
pub type Randomness = Box<dyn Fn(&mut [u8]) -> Result<(), getrandom::Error> + Send + Sync>;

impl Gateway {
    /// A gateway over its parts.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        policies: Arc<Policies>,
        clock: Arc<dyn Clock>,
        tokens: Tokens,
        salts: SaltKeys,
    ) -> Gateway {
        let metrics = GatewayMetrics::default();
        // Half of the sandboxes at most: whoever judges in place must not wait for one.
        let sandboxes = policies.engine().limits().concurrent_calls / 2;
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let judges = Judges::new(cores.min(sandboxes), metrics.overloads.clone());
        Gateway {
            judges,
            metrics,
            tracer: Tracer::default(),
            store,
            policies,
            clock,
            tokens,
            salts,
            receipts: None,
            directory: Arc::default(),
            watchers: Watchers::default(),
            alarm: Arc::default(),
            outbox_bell: Arc::default(),
            dispatch_bell: Arc::default(),
            subscribers: Box::new(|_, _| Vec::new()),
            instances: Instances::new(0),
            refused_uses: RefusedUses::default(),
            shadow: Arc::default(),
            readable: |_, _| true,
            randomness: Box::new(drawn::fill),
        }
    }

    /// The same, where a request is not made, and not edited, if `readable` is false of what it would become.
    #[must_use]
    pub fn reading(self, readable: Readable) -> Gateway {
        Gateway { readable, ..self }
    }

    /// The same, which notes with each change of a request which of these targets must be told of it.
    #[must_use]
    pub fn told_to(self, subscribers: Subscribers) -> Gateway {
        Gateway { subscribers, ..self }
    }

    /// The same, which signs receipts with these keys.
    #[must_use]
    pub fn signing(self, receipts: ReceiptKeys) -> Gateway {
        Gateway { receipts: Some(receipts), ..self }
    }

    /// The same, which says what it does to `tracer`.
    #[must_use]
    pub fn tracing(self, tracer: Tracer) -> Gateway {
        Gateway { tracer, ..self }
    }

    /// The same, with ids, salts and nonces made of these bits, for tests that must run the same each time.
    #[must_use]
    pub fn drawing(self, randomness: Randomness) -> Gateway {
        Gateway { randomness, ..self }
    }

    /// The same, as one of several instances. Its number is its own.
    #[must_use]
    pub fn numbered(self, instance: u64) -> Gateway {
        Gateway { instances: Instances::new(instance), ..self }
    }

    /// The same, but policies are asked on the thread that needs them however slow they are, so that a simulation can be
    /// repeated: how slow they are depends on the machine.
    #[must_use]
    pub fn judging_in_place(self) -> Gateway {
        Gateway { judges: self.judges.in_place(), ..self }
    }

    /// Where requests are kept.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What requests are judged by.
    #[must_use]
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// Where the time comes from.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Who is in the user groups of Slack.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Who waits for a request's next version.
    #[must_use]
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// What tells the scheduler that something nearer was stored.
    #[must_use]
    pub fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// What is rung when something was stored that waits for delivery. There is one who hears it.
    #[must_use]
    pub fn outbox_bell(&self) -> &Arc<Notify> {
        &self.outbox_bell
    }

    /// What it says to traces.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// What is rung when something was stored that targets outside must be told. There is one who hears it.
    #[must_use]
    pub fn dispatch_bell(&self) -> &Arc<Notify> {
        &self.dispatch_bell
    }

    /// What targets outside must be told of a request that is stored next. `before` is the version that is stored now.
    fn dispatches_of(&self, before: Option<&Request>, request: &Request) -> Vec<NewDispatch> {
        let known = before.map_or(0, |before| before.milestones().len());
        let reached = request.milestones();
        let new: Vec<Milestone> = reached.into_iter().skip(known).map(|(milestone, _)| milestone).collect();
        if new.is_empty() {
            return Vec::new();
        }
        let position = u32::try_from(known).unwrap_or(u32::MAX);
        let targets = (self.subscribers)(request, &new).into_iter();
        targets.map(|target| NewDispatch { target, position }).collect()
    }

    /// Adds its metrics to `registry`.
    ///
    /// # Errors
    /// If there is one of the same name.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.shadow.register(registry)?;
        self.metrics.register(registry)
    }

    /// What judges beside the policies in force, with no effect.
    #[must_use]
    pub fn shadow(&self) -> &Arc<Shadow> {
        &self.shadow
    }

    /// A request by its id. Whether whoever asks may see it is not looked at here.
    ///
    /// # Errors
    /// [`GatewayError::NotFound`] if there is none.
    pub async fn request(&self, id: RequestId) -> Result<Arc<Request>, GatewayError> {
        Ok(Arc::new(self.store.request(id).await?.ok_or(GatewayError::NotFound)?))
    }

    /// The request that a token opens.
    ///
    /// # Errors
    /// [`GatewayError::NotFound`] whether the token is broken, names no request, or is another's.
    pub async fn opened_by(&self, token: &str) -> Result<Arc<Request>, GatewayError> {
        let id = Tokens::names(token).ok_or(GatewayError::NotFound)?;
        let request = self.store.request(id).await?.ok_or(GatewayError::NotFound)?;
        if !Tokens::opens(token, &request) {
            return Err(GatewayError::NotFound);
        }
        Ok(Arc::new(request))
    }

    /// The entry of the rules of a request, from memory or from the store. Its modules need not be loaded for it, so that
    /// what has ended can be told of although its rules could not judge any more.
    ///
    /// # Errors
    /// If the store cannot be read, or has no such entry.
    pub async fn entry_of(&self, request: &Request) -> Result<Entry, GatewayError> {
        let hash = request.submission.policy_hash;
        if let Some(rules) = self.policies.by_hash(&hash) {
            return Ok(Entry::Loaded(rules));
        }
        let stored = self.store.policy_entry(hash).await?;
        stored.map(|entry| Entry::Stored(Box::new(entry))).ok_or(GatewayError::RulesLost(hash))
    }

    /// The salt of a request's payload hash, for whoever holds its token. `None` if it has none, and if it cannot be
    /// decrypted, which the log says.
    #[must_use]
    pub fn salt_of(&self, request: &Request) -> Option<Salt> {
        let submission = &request.submission;
        if submission.payload_hash_version == PayloadHashVersion::One {
            return None;
        }
        let salt = match &submission.salt {
            Some(wrapped) => self.salts.unwrap(request.id, wrapped),
            None => Err(SaltError::Missing),
        };
        let log = |error: &SaltError| {
            tracing::warn!(request = %request.id, trace = request.trace_id(), %error, "cannot decrypt the salt of a payload hash");
        };
        salt.inspect_err(log).ok()
    }

    /// The token of a request: the same each time.
    #[must_use]
    pub fn token_of(&self, id: RequestId) -> WaitToken {
        self.tokens.of(id)
    }
}

/// The entry of the rules of a request.
#[derive(Debug)]
pub enum Entry {
    /// Its modules are loaded.
    Loaded(Arc<ActionPolicy>),
    /// It was read from the store.
    Stored(Box<PolicyEntry>),
}

impl std::ops::Deref for Entry {
    type Target = PolicyEntry;

    fn deref(&self) -> &PolicyEntry {
        match self {
            Entry::Loaded(rules) => rules.entry(),
            Entry::Stored(entry) => entry,
        }
    }
}

/// Does `work` to its end, even if whoever asked for it goes away half-way:
/// what was stored must be told of, and a caller who hangs up must not keep others from hearing it.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, GatewayError>> + Send + 'static,
) -> Result<T, GatewayError> {
    joined(tokio::spawn(work).await)?
}

fn log_failures(failures: &[PolicyFailure], request: Option<RequestId>) {
    for failure in failures {
        tracing::error!(
            policy = failure.policy,
            kind = %failure.kind,
            detail = failure.detail,
            request = request.map(tracing::field::display),
            "a policy gave no usable answer; nothing was changed"
        );
    }
}
