//! The gateway, put together: engine, policies, store, clock, and what the routes share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::http::{self, AdminToken, ApiError, Buckets, Client};
use crate::slack_press;
use crate::telemetry::{Metrics, SecurityEvent};
use countersign_core::clock::{Clock, SystemClock};
use countersign_core::secret::Secret;
use countersign_gateway::policy_sets::{self, PolicySets};
use countersign_gateway::scheduler::Scheduler;
use countersign_gateway::{Gateway, Tokens};
use countersign_policy::{CompileCache, Engine, KeyError, LoadErrors, Policies};
use countersign_slack::CallMetrics;
use countersign_slack::{
    self as slack, Connection, Handler, Interaction, InteractionError, Outgoing, SlackClient, UserGroupParts,
    UserGroups, Verifier,
};
use countersign_store::{Store, StoreUrl};
use tokio_util::sync::CancellationToken;

/// How long calls may take to finish once the shutdown has begun; with the rest it stays under 10 s.
const DRAIN: Duration = Duration::from_secs(8);

/// How long what people did in Slack may take after that.
const BACKGROUND: Duration = Duration::from_secs(1);

/// How often the rate limiter's full buckets are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// What the routes share.
pub struct App {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) policy_sets: Arc<PolicySets>,
    /// `None` where there is no admin token: then nobody is an admin.
    pub(crate) admin: Option<AdminToken>,
    watch_files: bool,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    /// `None` where there is no signing secret: then nobody can act in Slack over HTTP.
    pub(crate) slack: Option<Verifier>,
    /// `None` where there is no bot token: then nothing goes to Slack, and what should waits in the outbox.
    pub(crate) outgoing: Option<Outgoing>,
    /// What goes on after its caller was answered, and must end before the store does.
    pub(crate) background: TaskTracker,
    socket_token: Option<Secret>,
    socket_connections: u8,
    slack_rate_factor: f64,
    pub(crate) body_limit: usize,
    pub(crate) most_streams: usize,
    buckets: Buckets,
    scheduler_interval_ms: u64,
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy set is wrong; each mistake with its place.
    #[error(transparent)]
    Policies(#[from] LoadErrors),
    /// The keys that are to be trusted are none.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Anything else.
    #[error(transparent)]
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

impl App {
    /// Puts the gateway together; nothing is served yet.
    ///
    /// # Errors
    /// Where the store cannot be opened, or the policy set is wrong.
    pub async fn start(config: &Config) -> Result<App, StartError> {
        App::with_clock(config, Arc::new(SystemClock)).await
    }

    /// As [`App::start`], with another clock.
    ///
    /// # Errors
    /// As for [`App::start`].
    pub async fn with_clock(config: &Config, clock: Arc<dyn Clock>) -> Result<App, StartError> {
        let url = config.storage.store.clone();
        let store = blocking(move || open(&url)).await??;
        let secret = secret(config, store.as_ref()).await?;

        let cache = CompileCache::new(config.cache_dir(), &secret);
        let limits = config.policies.limits.limits();
        let trust = config.policies.supply.trust()?;
        if let Some(missing) =
            config.policies.supply.registry_auth_file.as_ref().filter(|file| !file.exists())
        {
            // It may be mounted later; until it is, nothing can be fetched.
            tracing::warn!(file = %missing.display(), "the file with the passwords of registries is not there");
        }
        let engine =
            blocking(move || Engine::new(limits, Some(cache), trust).context("no sandbox")).await??;
        let directory = &config.policies.directory;
        let registries = config.policies.supply.registries();
        let (set, folder) =
            policy_sets::at_start(&store, &engine, &clock, directory.clone(), &registries).await?;

        let metrics = Metrics::new().context("the metrics cannot be set up")?;
        engine.register(metrics.registry()).context("the metrics cannot be set up")?;
        let policies = Arc::new(Policies::new(engine, set));
        let slack = config.secrets.slack_signing.as_ref().and_then(Verifier::new);
        let outgoing = outgoing(config, &metrics, &clock)?;
        let gateway = Arc::new(Gateway::new(store, policies, clock, Tokens::new(secret)));
        gateway.shadow().register(metrics.registry()).context("the metrics cannot be set up")?;
        Ok(App {
            policy_sets: PolicySets::new(Arc::clone(&gateway), directory.clone(), registries, folder),
            gateway,
            admin: config.secrets.admin.as_ref().map(AdminToken::new),
            watch_files: config.policies.watch,
            metrics,
            shutdown: CancellationToken::new(),
            slack,
            outgoing,
            background: TaskTracker::new(),
            socket_token: config.secrets.slack_app.clone(),
            socket_connections: config.slack.socket_connections,
            slack_rate_factor: config.slack.rate_factor,
            body_limit: usize::try_from(config.network.body_limit_bytes).unwrap_or(usize::MAX),
            most_streams: usize::try_from(config.network.sse_max_connections).unwrap_or(usize::MAX),
            buckets: Buckets::new(&config.limits),
            scheduler_interval_ms: config.scheduling.interval_ms,
        })
    }

    /// What ends the gateway, and tells everybody who waits in it.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// The gateway itself.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// The one place through which the policy set in force changes.
    #[must_use]
    pub fn policy_sets(&self) -> &Arc<PolicySets> {
        &self.policy_sets
    }

    /// Serves on `listener` until the shutdown begins, and then to the end of what was begun.
    ///
    /// # Errors
    /// Where a task of the gateway breaks.
    pub async fn serve(self: Arc<App>, listener: TcpListener) -> anyhow::Result<()> {
        let scheduler = Scheduler::new(Arc::clone(&self.gateway), self.scheduler_interval_ms);
        let mut scheduler = tokio::spawn(scheduler.run());
        let mut delivery = tokio::spawn(Arc::clone(&self).deliver());
        let sweeper = tokio::spawn(Arc::clone(&self).sweep());
        let watcher = Arc::clone(&self.policy_sets).watch(self.watch_files, policy_sets::POLL);
        let watcher = tokio::spawn(watcher);
        let tidier = tokio::spawn(Arc::clone(&self.policy_sets).tidy());
        let router = http::router(Arc::clone(&self));
        let usergroups = match &self.outgoing {
            Some(Outgoing { client, .. }) => {
                let policies = Arc::clone(self.gateway.policies());
                let wanted = move || {
                    let policies = policies.in_memory();
                    policies
                        .iter()
                        .flat_map(|policy| policy.entry().usergroups())
                        .map(str::to_owned)
                        .collect()
                };
                let parts = UserGroupParts {
                    store: Arc::clone(self.gateway.store()),
                    clock: Arc::clone(self.gateway.clock()),
                    directory: Arc::clone(self.gateway.directory()),
                    wanted: Box::new(wanted),
                };
                let usergroups = UserGroups::new(parts, Arc::clone(client), self.slack_rate_factor);
                // Before anybody can act: what Slack said before the last stop counts from the start.
                usergroups.recall().await;
                Some(tokio::spawn(usergroups.run()))
            }
            None => None,
        };
        self.open_sockets();
        let served = {
            let serving = http::serve(listener, router, &self.shutdown, DRAIN);
            tokio::pin!(serving);
            // Without either of them the gateway must not go on as if all were well:
            // nothing would expire, or nobody would see what is asked of them.
            let ended = tokio::select! {
                () = &mut serving => None,
                ended = &mut scheduler => Some(Err(anyhow::anyhow!("the scheduler ended: {ended:?}"))),
                // It also ends by itself, once the shutdown has begun.
                ended = &mut delivery => Some(ended.context("the delivery to Slack ended")),
            };
            match ended {
                None => Ok(()),
                Some(ended) => {
                    self.shutdown.cancel();
                    serving.await;
                    ended
                }
            }
        };
        self.background.close();
        if tokio::time::timeout(BACKGROUND, self.background.wait()).await.is_err() {
            tracing::warn!("the shutdown does not wait any longer for what people did in Slack");
        }
        if !delivery.is_finished() {
            // It does not take longer than the calls had.
            let _ = delivery.await;
        }
        scheduler.abort();
        sweeper.abort();
        watcher.abort();
        tidier.abort();
        if let Some(usergroups) = usergroups {
            usergroups.abort();
        }
        self.gateway.store().close().await.context("the store does not close")?;
        served
    }

    /// Delivers what goes to Slack, until the shutdown begins and what was under way by then has ended.
    async fn deliver(self: Arc<App>) {
        let Some(outgoing) = &self.outgoing else { return self.shutdown.cancelled().await };
        let gateway = &self.gateway;
        let worker = outgoing.worker(gateway.store(), gateway.clock(), gateway.outbox_bell());
        let over = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = worker.run(self.shutdown.clone()) => {}
            () = over => tracing::warn!("calls of Slack were cut off; what they were for is in the outbox"),
        }
    }

    /// Takes one from the client's bucket.
    pub(crate) fn admit_client(&self, client: Client) -> Result<(), ApiError> {
        self.buckets.take(client).map_err(|retry_after_ms| {
            self.metrics.count(SecurityEvent::RateLimited);
            ApiError::RateLimited { retry_after_ms }
        })
    }

    /// Opens what interactions come by where Socket Mode is on; each ends when the shutdown begins.
    fn open_sockets(self: &Arc<App>) {
        let (Some(outgoing), Some(token)) = (&self.outgoing, &self.socket_token) else { return };
        for number in 1..=self.socket_connections {
            let connection = Connection {
                handler: Arc::new(Interactions(Arc::clone(self))),
                client: Arc::clone(&outgoing.client),
                token: token.clone(),
                number,
                shutdown: self.shutdown.clone(),
                background: self.background.clone(),
            };
            self.background.spawn(slack::keep_open(connection));
        }
    }

    async fn sweep(self: Arc<App>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.buckets.forget_full();
        }
    }
}

/// Interactions that come over Socket Mode.
struct Interactions(Arc<App>);

#[async_trait]
impl Handler for Interactions {
    async fn handle(
        &self,
        read: Result<Interaction, InteractionError>,
    ) -> Option<serde_json::Map<String, serde_json::Value>> {
        slack_press::take(&self.0, read, None).await.inspect_err(ApiError::log).ok()
    }
}

fn open(url: &StoreUrl) -> anyhow::Result<Arc<dyn Store>> {
    url.open().with_context(|| format!("the store `{url}` cannot be opened"))
}

/// All that goes to Slack, where there is a token for it.
fn outgoing(config: &Config, metrics: &Metrics, clock: &Arc<dyn Clock>) -> anyhow::Result<Option<Outgoing>> {
    let calls = CallMetrics::new(metrics.registry()).context("the metrics cannot be set up")?;
    let Some(token) = &config.secrets.slack_bot else {
        tracing::warn!(
            "there is no `SLACK_BOT_TOKEN`: nothing is shown in Slack, and messages wait in the outbox"
        );
        return Ok(None);
    };
    let client =
        SlackClient::new(token, Some(&config.slack.api_url), calls).context("Slack cannot be called")?;
    Ok(Some(Outgoing::new(client, clock, config.slack.rate_factor)))
}

/// The configured secret, else the one that the store keeps.
async fn secret(config: &Config, store: &dyn Store) -> anyhow::Result<[u8; 32]> {
    if let Some(secret) = &config.secrets.server {
        return secret.expose().try_into().context("`COUNTERSIGN_SECRET` is not 32 bytes");
    }
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).context("the system gives no randomness")?;
    store.secret(fresh).await.context("the store keeps no secret")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("work was stopped half-way")
}
