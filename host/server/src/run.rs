//! Serves until the shutdown begins, then drains: calls finish, deliveries finish, the store is closed.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use countersign_core::record::ChangeTrigger;
use countersign_gateway::policy_sets::{self, By, PolicySets};
use countersign_gateway::scheduler::Scheduler;
use countersign_slack::{
    self as slack, Connection, Outgoing, SlackClient, UserGroupParts, UserGroups, UserParts, Users,
};
use tokio::task::JoinSet;

use crate::audit::keeper;
use crate::config::Config;
use crate::dispatching;
use crate::hangups::Hangups;
use crate::http::{self, ConnectionLimit, Limits, Listener};
use crate::instances;
use crate::interactions::{SocketMode, apply_recorded};
use crate::readiness;
use crate::rejections;
use crate::retention::{self, PolicySweeper};
use crate::state::App;
use crate::tls::TlsMetrics;

/// How long calls and deliveries may take to finish once the shutdown has begun. Together with [`BACKGROUND`] this
/// stays under 10 s, after which orchestrators kill.
pub(crate) const DRAIN: Duration = Duration::from_secs(8);

/// How long background tasks may take after that.
const BACKGROUND: Duration = Duration::from_secs(1);

/// How often full buckets of the rate limiter are removed.
const SWEEP: Duration = Duration::from_secs(60);

/// How often rejected calls are audited.
const REJECTIONS: Duration = Duration::from_secs(60);

/// Serves on the listeners until the shutdown begins, and then until everything that was begun has ended.
///
/// # Errors
/// If the scheduler, the delivery to Slack, the clock of the policies or the store's writer ends by itself, or the store cannot
/// be closed.
pub async fn run(app: Arc<App>, config: &Config, listeners: Vec<Listener>) -> anyhow::Result<()> {
    let scheduler = Scheduler::new(Arc::clone(&app.gateway), config.scheduling.interval_ms);
    let mut scheduler = tokio::spawn(scheduler.run());
    let mut delivery = tokio::spawn(instances::deliver(Arc::clone(&app)));
    let this = Arc::clone(&app);
    let dispatching =
        tokio::spawn(app.supervisor.keep("dispatch", move || dispatching::work(Arc::clone(&this))));
    // Nothing is lost when these are aborted.
    let mut maintenance = JoinSet::new();
    maintain(&app, config, &mut maintenance);
    if let Some(outgoing) = &app.outgoing {
        // Before anybody can act, so that the memberships known before the last stop count from the start.
        let mut groups = usergroups(&app, &outgoing.client, config.slack.rate_factor);
        groups.recall().await;
        ask_slack(&app, outgoing, config.slack.rate_factor, &mut maintenance);
        open_sockets(&app, outgoing, config);
    }

    app.policy_sets.warn();
    watch_tls(&app, &listeners, &mut maintenance)?;

    let served = {
        let max_age = Duration::from_secs(config.tls.max_connection_age_sec.into());
        let serving = listeners.into_iter().map(|listener| {
            let connections = if listener.surface.callers {
                ConnectionLimit::of_callers(config.network.max_connections, app.proxies.clone())
            } else {
                ConnectionLimit::aside()
            };
            tracing::debug!(surface = ?listener.surface, connections = connections.total(), "serving");
            http::serve(listener, Arc::clone(&app), Limits { connections, max_age, drain: DRAIN })
        });
        let serving = futures_util::future::join_all(serving);
        tokio::pin!(serving);
        let store = app.gateway.store();
        // Without the scheduler nothing would expire, and without the delivery nobody would see a request.
        let ended = tokio::select! {
            _ = &mut serving => None,
            ended = &mut scheduler => Some(Err(anyhow::anyhow!("the scheduler ended: {ended:?}"))),
            () = store.failed() => Some(Err(anyhow::anyhow!(
                "the thread that writes to the store has panicked, so nothing can be stored any more"
            ))),
            // It also ends without an error, once the shutdown has begun.
            ended = &mut delivery => Some(ended.context("the delivery to Slack ended")),
            () = policies_stopped(&app) => Some(Err(anyhow::anyhow!("the clock that stops policies has ended"))),
        };
        match ended {
            None => Ok(()),
            Some(ended) => {
                app.shutdown.cancel();
                serving.await;
                ended
            }
        }
    };

    app.background.close();
    if tokio::time::timeout(BACKGROUND, app.background.wait()).await.is_err() {
        tracing::warn!("shutdown: background tasks did not finish in time");
    }
    if !delivery.is_finished() {
        // Bounded by `DRAIN`, which began when the shutdown did.
        let _ = delivery.await;
    }
    let _ = dispatching.await;
    rejections::audit(&app).await;
    scheduler.abort();
    maintenance.shutdown().await;
    // What was written last is covered too, if the store answers; else it is after the next start.
    let last_look = async {
        app.audit.sign(&app).await;
        app.audit.mirror(app.gateway.store().as_ref()).await;
    };
    let exporter = app.exporter.lock().unwrap_or_else(PoisonError::into_inner).take();
    let last_spans = async {
        if let Some(exporter) = exporter {
            exporter.flush(BACKGROUND).await;
        }
    };
    let (last_look, ()) = tokio::join!(tokio::time::timeout(BACKGROUND, last_look), last_spans);
    if last_look.is_err() {
        tracing::warn!("shutdown: the last audit entries are covered by a checkpoint after the next start");
    }
    instances::leave(&app).await;
    app.gateway.store().close().await.context("cannot close the store")?;
    served
}

/// Starts what keeps this process in order.
fn maintain(app: &Arc<App>, config: &Config, maintenance: &mut JoinSet<()>) {
    let supervisor = &app.supervisor;
    let this = Arc::clone(app);
    maintenance.spawn(supervisor.keep("rate_limit_sweep", move || sweep(Arc::clone(&this))));
    let (sets, files) = (Arc::clone(&app.policy_sets), config.policies.watch);
    maintenance
        .spawn(supervisor.keep("policy_watch", move || Arc::clone(&sets).watch(files, policy_sets::POLL)));
    let (sets, mut hangups) = (Arc::clone(&app.policy_sets), app.hangups.for_task());
    maintenance
        .spawn(supervisor.keep("policy_hangup", move || reload_on_hangup(Arc::clone(&sets), hangups())));
    let sets = Arc::clone(&app.policy_sets);
    maintenance.spawn(supervisor.keep("policy_tidy", move || Arc::clone(&sets).tidy()));
    if let Some(access) = &app.access {
        let (access, this) = (Arc::clone(access), Arc::clone(app));
        let mut hangups = app.hangups.for_task();
        maintenance.spawn(
            supervisor.keep("access_watch", move || Arc::clone(&access).watch(Arc::clone(&this), hangups())),
        );
    }
    if app.gateway.store().shared().is_some() {
        let this = Arc::clone(app);
        maintenance.spawn(supervisor.keep("instance_changes", move || instances::hear(Arc::clone(&this))));
        let this = Arc::clone(app);
        maintenance.spawn(supervisor.keep("instance_heartbeat", move || instances::live(Arc::clone(&this))));
    }
    if app.spool.is_some() {
        let this = Arc::clone(app);
        maintenance.spawn(supervisor.keep("spool", move || apply_recorded(Arc::clone(&this))));
    }
    let this = Arc::clone(app);
    maintenance.spawn(supervisor.keep("audit_checkpoints", move || keeper::keep_signing(Arc::clone(&this))));
    if config.audit.audit_file.is_some() {
        let this = Arc::clone(app);
        maintenance.spawn(supervisor.keep("audit_file", move || keeper::keep_mirroring(Arc::clone(&this))));
    }
    if config.retention.audit_retention_sec.is_some() {
        let this = Arc::clone(app);
        maintenance
            .spawn(supervisor.keep("audit_retention", move || keeper::keep_removing(Arc::clone(&this))));
    }
    if let Some(policies) = PolicySweeper::new(&config.retention) {
        let (this, policies) = (Arc::clone(app), Arc::new(policies));
        maintenance.spawn(
            supervisor
                .keep("policy_retention", move || Arc::clone(&policies).keep_sweeping(Arc::clone(&this))),
        );
    }
    if app.retention.is_some() {
        let this = Arc::clone(app);
        maintenance.spawn(supervisor.keep("retention", move || retention::keep_sweeping(Arc::clone(&this))));
    }
    let this = Arc::clone(app);
    maintenance.spawn(supervisor.keep("readiness", move || check_readiness(Arc::clone(&this))));
    let this = Arc::clone(app);
    maintenance.spawn(supervisor.keep("rejections", move || audit_rejections(Arc::clone(&this))));
}

/// Reads the policy set again at each SIGHUP, for ever.
async fn reload_on_hangup(sets: Arc<PolicySets>, mut hangups: Hangups) {
    loop {
        hangups.next().await;
        tracing::info!(signal = "SIGHUP", "reading the policy set again");
        // What went wrong is in the log and the audit log already.
        let _ = sets.reload(By::itself(ChangeTrigger::Sighup)).await;
    }
}

/// Starts what asks Slack who is who.
fn ask_slack(app: &Arc<App>, outgoing: &Outgoing, rate_factor: f64, maintenance: &mut JoinSet<()>) {
    let supervisor = &app.supervisor;
    // Each is put together anew when it is started again: what it remembers may be what broke it.
    let (this, client) = (Arc::clone(app), Arc::clone(&outgoing.client));
    maintenance.spawn(supervisor.keep("slack_user_groups", move || {
        let mut groups = usergroups(&this, &client, rate_factor);
        async move {
            // What is stored says how old the members are that are known already.
            groups.recall().await;
            groups.run().await;
        }
    }));
    let (this, client) = (Arc::clone(app), Arc::clone(&outgoing.client));
    maintenance.spawn(supervisor.keep("slack_users", move || users(&this, &client, rate_factor).run()));
    let (client, clock) = (Arc::clone(&outgoing.client), Arc::clone(app.gateway.clock()));
    let identify = move || slack::identify(Arc::clone(&client), Arc::clone(&clock));
    maintenance.spawn(supervisor.finish("slack_identity", identify));
}

/// Returns if no policy can be run any more. Then nothing is decided, and only another process can go on.
async fn policies_stopped(app: &App) {
    while !app.gateway.policies().engine().has_stopped() {
        tokio::time::sleep(readiness::INTERVAL).await;
    }
}

/// Reads the TLS files of the listeners again when they change.
fn watch_tls(app: &App, listeners: &[Listener], maintenance: &mut JoinSet<()>) -> anyhow::Result<()> {
    let with_tls: Vec<_> = listeners.iter().filter_map(|listener| listener.tls.clone()).collect();
    let in_file = app.access.as_ref().is_some_and(|it| it.authenticator.access().has_certificates());
    if in_file && !with_tls.iter().any(|tls| tls.has_clients()) {
        tracing::warn!("the access file has certificates, but no listener asks for any: set `TLS_CA_FILE`");
    }
    if with_tls.is_empty() {
        return Ok(());
    }
    let metrics = TlsMetrics::new(app.metrics.registry()).context("cannot register metrics")?;
    for tls in with_tls {
        let (metrics, clock) = (metrics.clone(), Arc::clone(app.gateway.clock()));
        let mut hangups = app.hangups.for_task();
        maintenance.spawn(app.supervisor.keep("tls_watch", move || {
            Arc::clone(&tls).watch(metrics.clone(), Arc::clone(&clock), hangups())
        }));
    }
    Ok(())
}

/// Audits once a minute what was rejected.
async fn audit_rejections(app: Arc<App>) {
    loop {
        tokio::time::sleep(REJECTIONS).await;
        rejections::audit(&app).await;
    }
}

/// Tries the store again and again, so that probes need not, and removes what has expired in it.
async fn check_readiness(app: Arc<App>) {
    loop {
        tokio::time::sleep(readiness::INTERVAL).await;
        app.readiness.refresh(app.gateway.store().as_ref(), &app.metrics).await;
        if let Err(error) = app.gateway.store().maintain(app.gateway.clock().now()).await {
            // What is wrong with the store is logged already.
            tracing::debug!(%error, "the store was not maintained");
        }
    }
}

async fn sweep(app: Arc<App>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        app.rate_limiter.remove_full();
    }
}

/// Keeps the members of those user groups up to date that a policy in memory names.
fn usergroups(app: &App, client: &Arc<SlackClient>, rate_factor: f64) -> UserGroups {
    let policies = Arc::clone(app.gateway.policies());
    let wanted = move || -> BTreeSet<String> {
        let policies = policies.in_memory();
        policies.iter().flat_map(|policy| policy.entry().usergroups()).map(str::to_owned).collect()
    };
    let parts = UserGroupParts {
        store: Arc::clone(app.gateway.store()),
        clock: Arc::clone(app.gateway.clock()),
        directory: Arc::clone(app.gateway.directory()),
        wanted: Box::new(wanted),
    };
    UserGroups::new(parts, Arc::clone(client), rate_factor)
}

/// Asks Slack which of the people have left whom a policy in memory names.
fn users(app: &App, client: &Arc<SlackClient>, rate_factor: f64) -> Users {
    let (policies, directory) = (Arc::clone(app.gateway.policies()), Arc::clone(app.gateway.directory()));
    let wanted = {
        let directory = Arc::clone(&directory);
        move || -> BTreeSet<String> {
            let people = directory.people();
            policies.in_memory().iter().flat_map(|policy| policy.entry().slack_ids(&people)).collect()
        }
    };
    let parts = UserParts {
        store: Arc::clone(app.gateway.store()),
        clock: Arc::clone(app.gateway.clock()),
        directory,
        wanted: Box::new(wanted),
    };
    Users::new(parts, Arc::clone(client), rate_factor)
}

/// Opens the connections of Socket Mode, if there is a token for it. Each ends when the shutdown begins.
fn open_sockets(app: &Arc<App>, outgoing: &Outgoing, config: &Config) {
    let Some(token) = &config.secrets.slack_app else { return };
    for number in 1..=config.slack.socket_connections {
        let (this, client, token) = (Arc::clone(app), Arc::clone(&outgoing.client), token.clone());
        let open = move || {
            slack::keep_open(Connection {
                handler: Arc::new(SocketMode(Arc::clone(&this))),
                client: Arc::clone(&client),
                token: token.clone(),
                number,
                shutdown: this.shutdown.clone(),
                background: this.background.clone(),
            })
        };
        app.background.spawn(app.supervisor.keep("slack_socket", open));
    }
}
