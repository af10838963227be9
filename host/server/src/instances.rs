//! Several gateways over one store: each hears of what the others store, says that it lives, and one at a time delivers
//! to Slack, and shows what the store counts for all.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_slack::Outgoing;
use countersign_store::{Change, Shared, Store};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::run::DRAIN;
use crate::state::App;

/// How often an instance says that it lives, and renews its lease.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long an instance lives, and a lease lasts, without a word, in milliseconds.
pub(crate) const LIFE_MS: u64 = 4_000;

/// The lease of the instance that delivers to Slack.
pub(crate) const DELIVERY: &str = "slack_delivery";

/// The lease of the instance that shows the metrics of the store.
const METRICS: &str = "stored_metrics";

/// Whether this instance is the one whose `/metrics` show what the store counts for all instances: if each did, a sum over
/// them would count everything several times.
#[derive(Debug, Default)]
pub(crate) struct ShowsStored {
    /// Until when this instance has the lease.
    until: Mutex<Option<Instant>>,
}

impl ShowsStored {
    /// Now, over this store: always if no other instance has it.
    pub(crate) fn now(&self, store: &dyn Store) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        store.shared().is_none() || until.is_some_and(|until| Instant::now() < until)
    }

    async fn renew(&self, shared: &dyn Shared, holder: u64) {
        // The store counts from later on, so no other instance has it before this one stops.
        let until = Instant::now() + Duration::from_millis(LIFE_MS);
        let leased = match shared.lease(METRICS, holder, LIFE_MS).await {
            Ok(leased) => leased.then_some(until),
            // What was leased before stays so until its time is over.
            Err(error) => return tracing::debug!(%error, "cannot tell which instance shows stored metrics"),
        };
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = leased;
    }
}

/// Hears of what other instances store, for ever.
pub(crate) async fn hear(app: Arc<App>) {
    let Some(shared) = app.gateway.store().shared() else { return };
    let mut changes = shared.changes();
    loop {
        let change = match changes.recv().await {
            Ok(change) => change,
            Err(RecvError::Lagged(_)) => Change::Missed,
            Err(RecvError::Closed) => return,
        };
        if matches!(change, Change::PolicyInForce | Change::Missed) {
            let sets = Arc::clone(&app.policy_sets);
            // What went wrong is in the log. The next look of the policy watcher tries again.
            tokio::spawn(async move { sets.follow().await.map(drop) });
        }
        app.gateway.hear(&change);
    }
}

/// Says again and again that this instance lives, and learns which others do.
pub(crate) async fn live(app: Arc<App>) {
    let Some(shared) = app.gateway.store().shared() else { return };
    loop {
        match shared.announce(app.gateway.instance(), LIFE_MS).await {
            Ok(live) => app.gateway.instances_live(&live),
            Err(error) => tracing::debug!(%error, "cannot tell which instances live"),
        }
        app.shows_stored.renew(shared, app.gateway.instance()).await;
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// Says that this instance lives no longer, so that nobody waits for it to be forgotten.
pub(crate) async fn leave(app: &App) {
    let Some(shared) = app.gateway.store().shared() else { return };
    let holder = app.gateway.instance();
    let farewell = async {
        shared.release(METRICS, holder).await?;
        shared.announce(holder, 0).await
    };
    match tokio::time::timeout(HEARTBEAT, farewell).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the other instances forget this one by themselves"),
        Err(_) => tracing::debug!("the other instances forget this one by themselves"),
    }
}

/// Delivers the outbox to Slack until the shutdown begins and the deliveries under way have ended: always if no other
/// instance has the store, else while this one holds the lease.
pub(crate) async fn deliver(app: Arc<App>) {
    let Some(outgoing) = &app.outgoing else { return app.shutdown.cancelled().await };
    let Some(shared) = app.gateway.store().shared() else {
        return work(&app, outgoing, app.shutdown.clone()).await;
    };
    let holder = app.gateway.instance();
    while !app.shutdown.is_cancelled() {
        match shared.lease(DELIVERY, holder, LIFE_MS).await {
            Ok(true) => {
                tracing::info!("this instance delivers to Slack");
                let turn = app.shutdown.child_token();
                let working = work(&app, outgoing, turn.clone());
                tokio::pin!(working);
                tokio::select! {
                    () = &mut working => {}
                    () = lost(shared, holder) => {
                        tracing::warn!("another instance may deliver to Slack by now; this one stops");
                        turn.cancel();
                        working.await;
                    }
                }
                if let Err(error) = shared.release(DELIVERY, holder).await {
                    tracing::debug!(%error, "the lease of the delivery runs out by itself");
                }
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "cannot tell which instance delivers to Slack"),
        }
        outgoing.health.stand_by(app.gateway.clock().moment());
        tokio::select! {
            () = app.shutdown.cancelled() => {}
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
    }
}

/// Delivers until `stop`, and then until what is under way has ended, or was cut off.
async fn work(app: &App, outgoing: &Outgoing, stop: CancellationToken) {
    let gateway = &app.gateway;
    let worker =
        outgoing.worker(gateway.store(), gateway.clock(), gateway.directory(), gateway.outbox_bell());
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = worker.run(stop.clone()) => {}
        () = drained => tracing::warn!("calls of Slack cut off; what they deliver stays in the outbox"),
    }
}

/// Renews the lease until it is lost, or may be.
async fn lost(shared: &dyn Shared, holder: u64) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let asked = Instant::now();
        match shared.lease(DELIVERY, holder, LIFE_MS).await {
            Ok(true) => renewed = asked,
            Ok(false) => return,
            // The store may be back before another instance can have it.
            Err(_) if renewed.elapsed() < Duration::from_millis(LIFE_MS) => {}
            Err(_) => return,
        }
    }
}
