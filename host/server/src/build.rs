//! Puts the shared state together from the configuration: store, sandbox, policy set, Slack.

use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use countersign_access::Proxies;
use countersign_core::clock::Clock;
use countersign_core::lifecycle::Timestamp;
use countersign_core::mac::hmac;
use countersign_gateway::policy_sets::{self, PolicySets};
use countersign_gateway::receipts::ReceiptKeys;
use countersign_gateway::{Gateway, Tokens};
use countersign_policy::{CompileCache, Engine, KeyError, LoadErrors, Policies};
use countersign_slack::{CallMetrics, Outgoing, SlackClient, Verifier, review};
use countersign_store::Store;
use countersign_trace::{ExportMetrics, Exporter, Tracer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_control::{AccessControl, AccessError, history};
use crate::audit::keeper::Keeper;
use crate::config::Config;
use crate::dispatching::Dispatching;
use crate::gates::Gates;
use crate::hangups::Hangups;
use crate::http::{Fingerprints, Permalinks};
use crate::instances::ShowsStored;
use crate::interactions::SentEphemerals;
use crate::keys::{self, Keys};
use crate::rate_limit::{CallerQuotas, RateLimiter};
use crate::readiness::Readiness;
use crate::rejections::Rejections;
use crate::reports;
use crate::retention::Sweeper;
use crate::spool::Spool;
use crate::state::App;
use crate::streams::Streams;
use crate::supervisor::Supervisor;
use crate::telemetry::{Metrics, Scrapes};
use crate::tls::TlsError;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy set is wrong; each mistake with its place.
    #[error(transparent)]
    Policies(#[from] LoadErrors),
    /// A file of trusted keys cannot be read, or holds no keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The access file is wrong, or cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Two settings name the same file.
    #[error("{0}")]
    Files(String),
    /// The keys of the installation cannot be used.
    #[error("{0:#}")]
    Secrets(anyhow::Error),
    /// The TLS files of a listener are wrong, or cannot be read.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl From<policy_sets::StartError> for StartError {
    fn from(error: policy_sets::StartError) -> StartError {
        match error {
            policy_sets::StartError::Policies(errors) => StartError::Policies(errors),
            policy_sets::StartError::Other(error) => StartError::Other(error),
        }
    }
}

/// Puts the shared state together. Nothing is served yet; cancelling `shutdown` will end what is.
///
/// # Errors
/// If the store cannot be opened, the policy set is wrong, or a part cannot be set up.
pub async fn build(
    config: &Config,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<App, StartError> {
    build_over(config, clock, shutdown, |store| store).await
}

/// As [`build`], over what `over` makes of the store.
pub(crate) async fn build_over(
    config: &Config,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
    over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> Result<App, StartError> {
    // Before anything is read.
    let hangups = Hangups::listen().context("cannot listen for SIGHUP")?;
    // Before anything is written.
    if let Some(wrong) = config.wrong_files().into_iter().next() {
        return Err(StartError::Files(wrong));
    }
    config.cautions().into_iter().for_each(|caution| tracing::warn!("{caution}"));
    let keys = keys(config).await?;
    let store = over(config.storage.open().await?);
    keys::check(&keys, store.as_ref(), &config.storage.store).await.map_err(StartError::Secrets)?;
    let receipt_keys = receipt_keys(config, clock.now()).await?;
    if let Some(keys) = &receipt_keys {
        keys::receipts::check(keys, store.as_ref()).await.map_err(StartError::Secrets)?;
    }
    let engine = engine(config, &keys).await?;
    let directory = &config.policies.directory;
    let registries = config.policies.supply.registries();
    let (set, folder) =
        policy_sets::at_start(&store, &engine, &clock, directory.clone(), &registries).await?;

    let access = access(config).await?;
    if let Some(access) = &access {
        access.warn(&set, clock.now());
    }
    let gates = gates(config, access.as_deref())?;
    let metrics = Metrics::new().context(METRICS)?;
    engine.register(metrics.registry()).context(METRICS)?;
    let most_streams = usize::try_from(config.network.sse_max_connections).unwrap_or(usize::MAX);
    let streams =
        Streams::new(most_streams, config.network.sse_heartbeat_sec, metrics.registry()).context(METRICS)?;
    let supervisor = Supervisor::new(metrics.registry(), shutdown.clone()).context(METRICS)?;
    let instance = getrandom::u64().context("the system gives no randomness")?;
    let (tracer, exporter) = traces(config, &metrics, instance)?;
    let outgoing = outgoing(config, &metrics, &clock)?.map(|outgoing| outgoing.tracing(tracer.clone()));
    let policies = Arc::new(Policies::new(engine, set));
    let registry = metrics.registry().clone();
    let dispatching = blocking(move || Dispatching::new(&registry)).await?.context(METRICS)?;
    if let Some(access) = &access {
        dispatching.follow(&access.authenticator.access());
    }
    let gateway = Gateway::new(store, policies, clock, tokens(&keys), keys.salts())
        .reading(review::is_possible)
        .tracing(tracer)
        .told_to(dispatching.subscribers())
        .numbered(instance);
    let gateway = match receipt_keys {
        Some(keys) => gateway.signing(keys),
        None => gateway,
    };
    let gateway = Arc::new(gateway);
    if let Some(access) = &access {
        gateway.directory().set_people(Arc::clone(access.authenticator.access().people()));
    }
    gateway.register(metrics.registry()).context(METRICS)?;
    let spool = spool(config, &keys, &metrics).await?;
    let audit = audit(config, &keys, gateway.store(), &metrics).await?.removing_after(&config.retention);
    let retention = Sweeper::new(&config.retention, metrics.registry()).context(METRICS)?;
    // Last of what can fail: a start that fails puts no file in force.
    let found = access.as_ref().and_then(|access| access.authenticator.access().digest());
    history::at_start(gateway.store().as_ref(), gateway.clock().now(), found)
        .await
        .context("cannot store which access file is in force")?;
    let gates = Arc::new(gates);
    for (name, target) in reports::targets(&gates, &gateway) {
        dispatching.report_to(&name, target);
    }
    if let Some(access) = &access {
        access.compare(&gateway).await;
    }
    Ok(App {
        policy_sets: PolicySets::new(Arc::clone(&gateway), directory.clone(), registries, folder),
        gateway,
        admin_token: config.secrets.admin.clone(),
        metrics,
        slack_verifier: config.secrets.slack_signing.as_ref().and_then(Verifier::new),
        outgoing,
        dispatching,
        gates,
        spool,
        audit,
        retention,
        sent_ephemerals: SentEphemerals::default(),
        permalinks: Permalinks::default(),
        slack_team_ids: config.slack.team_ids.iter().cloned().collect(),
        rate_limiter: RateLimiter::new(&config.rate_limit),
        access,
        insecure_anonymous: config.access.insecure_anonymous,
        scrapes: Scrapes::regular(),
        scrapes_of_all: Scrapes::by_hand(),
        shows_stored: ShowsStored::default(),
        readiness: Readiness::new(),
        proxies: Proxies {
            trusted: config.network.trusted_proxies.clone(),
            header: config.network.client_header,
        },
        fingerprints: Fingerprints::new(&keys),
        caller_quotas: CallerQuotas::default(),
        rejections: Rejections::default(),
        max_open_requests: config.network.max_open_requests,
        body_limit: usize::try_from(config.network.body_limit_bytes).unwrap_or(usize::MAX),
        streams: Arc::new(streams),
        background: TaskTracker::new(),
        supervisor,
        exporter: Mutex::new(exporter),
        hangups,
        shutdown,
    })
}

/// What traces, and what sends that to the collector, if there is one.
fn traces(config: &Config, metrics: &Metrics, instance: u64) -> anyhow::Result<(Tracer, Option<Exporter>)> {
    let counts = ExportMetrics::new(metrics.registry()).context(METRICS)?;
    let Some(mut collector) = config.tracing.collector.clone() else { return Ok((Tracer::default(), None)) };
    const INSTANCE: &str = "service.instance.id";
    if collector.resource.iter().all(|(key, _)| key != INSTANCE) {
        collector.resource.push((INSTANCE.to_owned(), format!("{instance:016x}")));
    }
    let (tracer, exporter) = Exporter::start(collector, &counts).context("cannot export traces")?;
    Ok((tracer, Some(exporter)))
}

/// Where presses are kept that the store cannot take.
async fn spool(config: &Config, keys: &Keys, metrics: &Metrics) -> anyhow::Result<Option<Arc<Spool>>> {
    let Some(folder) = config.spool_dir() else { return Ok(None) };
    let (keys, registry) = (keys.clone(), metrics.registry().clone());
    let opened = blocking(move || {
        Spool::open(&folder, &keys, &registry)
            .with_context(|| format!("cannot use the spool folder `{}`", folder.display()))
    });
    Ok(Some(Arc::new(opened.await??)))
}

/// What keeps the audit log provable.
async fn audit(
    config: &Config,
    keys: &Keys,
    store: &Arc<dyn Store>,
    metrics: &Metrics,
) -> Result<Keeper, StartError> {
    let keys = keys.audit().map_err(StartError::Secrets)?;
    let random = getrandom::u64().context("the system gives no randomness")?;
    let (store, registry, config) = (Arc::clone(store), metrics.registry().clone(), config.audit.clone());
    let opened = blocking(move || Keeper::open(store, keys, random, &config, &registry));
    opened.await?.map_err(StartError::Secrets)
}

/// The access file, if there is one.
async fn access(config: &Config) -> Result<Option<Arc<AccessControl>>, StartError> {
    let Some(file) = config.access.file.clone() else { return Ok(None) };
    let access = blocking(move || AccessControl::start(&file)).await??;
    let known = access.authenticator.access();
    tracing::info!(
        callers = known.callers().count(),
        people = known.people().iter().count(),
        "access file loaded"
    );
    Ok(Some(Arc::new(access)))
}

const METRICS: &str = "cannot register metrics";

/// The keys of this installation, before the store is opened: an earlier version may have left its secret there.
async fn keys(config: &Config) -> Result<Keys, StartError> {
    let (url, secrets) = (config.storage.store.clone(), config.secrets.keys()?);
    blocking(move || keys::load(&url, secrets)).await?.map_err(StartError::Secrets)
}

/// The keys that receipts are signed with.
async fn receipt_keys(config: &Config, now: Timestamp) -> Result<Option<ReceiptKeys>, StartError> {
    let (url, file) = (config.storage.store.clone(), config.storage.receipt_keys.clone());
    let loaded = blocking(move || keys::receipts::load(&url, file.as_deref(), now)).await?;
    loaded.map_err(StartError::Secrets)
}

/// Wait tokens: those of earlier versions were made with keys that were derived in another way.
pub(crate) fn tokens(keys: &Keys) -> Tokens {
    const PURPOSE: &str = "countersign wait token";
    let previous = keys.previous.iter().map(|key| key.derive(PURPOSE));
    let legacy = keys.all().map(|key| hmac(key.secret(), PURPOSE.as_bytes()));
    Tokens::new(keys.current.derive(PURPOSE), previous.chain(legacy).collect())
}

/// The sandbox for policy modules. A key of its own authenticates the compiled modules in the cache.
async fn engine(config: &Config, keys: &Keys) -> Result<Engine, StartError> {
    let supply = &config.policies.supply;
    let trust = supply.trust()?;
    if let Some(missing) = supply.registry_auth_file.as_ref().filter(|file| !file.exists()) {
        // It may be mounted later; until then nothing that needs a password can be fetched.
        tracing::warn!(file = %missing.display(), "registry password file does not exist");
    }
    let limits = config.policies.limits.limits();
    let key = keys.current.derive("countersign compile cache");
    let cache = config.cache_dir().map(|folder| CompileCache::new(folder, &key));
    let engine = blocking(move || Engine::new(limits, cache, trust)).await?;
    Ok(engine.context("cannot set up the WebAssembly sandbox")?)
}

/// The gates of CI systems, with a warning for each that could be of no use.
fn gates(config: &Config, access: Option<&AccessControl>) -> anyhow::Result<Gates> {
    let gates = Gates::start(config)?;
    let doubts = access.map(|access| gates.doubts(&access.authenticator.access())).unwrap_or_default();
    for doubt in doubts {
        tracing::warn!("{doubt}");
    }
    Ok(gates)
}

fn outgoing(config: &Config, metrics: &Metrics, clock: &Arc<dyn Clock>) -> anyhow::Result<Option<Outgoing>> {
    let calls = CallMetrics::new(metrics.registry()).context(METRICS)?;
    let Some(token) = &config.secrets.slack_bot else { return Ok(None) };
    let client = SlackClient::new(token, Some(&config.slack.api_url), calls)
        .context("cannot set up the Slack client")?;
    Ok(Some(Outgoing::new(client, clock, config.slack.rate_factor)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("work was stopped half-way")
}
