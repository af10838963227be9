//! Tells programs outside of requests: which ones are in force, and the worker that tells them.

use std::sync::Arc;

use countersign_access::Access;
use countersign_core::lifecycle::{Milestone, Request};
use countersign_dispatch::webhook::{self, Webhook};
use countersign_dispatch::{DispatchMetrics, Parts, Target, Targets, Worker, drop_removed};
use countersign_gateway::Subscribers;
use countersign_outbound::Client;
use countersign_store::Store;
use prometheus::Registry;

use crate::run::DRAIN;
use crate::state::App;

/// Who is told, and how.
pub(crate) struct Dispatching {
    pub(crate) targets: Targets,
    metrics: DispatchMetrics,
    client: Client,
}

impl Dispatching {
    /// Nobody is told yet. Blocks, to read certificates.
    ///
    /// # Errors
    /// If the registry has one of the metrics already.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Dispatching> {
        let metrics = DispatchMetrics::new(registry)?;
        Ok(Dispatching { targets: Targets::default(), metrics, client: Client::new() })
    }

    /// What the gateway asks who must be told of a change.
    pub(crate) fn subscribers(&self) -> Subscribers {
        let targets = self.targets.clone();
        Box::new(move |request: &Request, milestones: &[Milestone]| targets.of(request, milestones))
    }

    /// Puts the webhooks of an access file in force. Returns whether some are gone.
    pub(crate) fn follow(&self, access: &Access) -> bool {
        if let Some(why) = self.client.fault().filter(|_| !access.webhooks().is_empty()) {
            tracing::error!(%why, "webhooks are not sent but to this machine");
        }
        let webhooks = access.webhooks().values().map(|rule| {
            let webhook = Webhook::new(Arc::clone(rule), self.client.clone());
            (Webhook::target(rule), Arc::new(webhook) as Arc<dyn Target>)
        });
        let gone = self.targets.replace(webhook::KIND, webhooks);
        if !(access.webhooks().is_empty() && gone.is_empty()) {
            tracing::info!(webhooks = access.webhooks().len(), "webhooks in force");
        }
        for target in self.targets.names() {
            self.metrics.know(&target);
        }
        !gone.is_empty()
    }

    /// Puts a target in force that is the only one of its kind.
    pub(crate) fn report_to(&self, kind: &str, target: Arc<dyn Target>) {
        self.targets.replace(kind, [(kind.to_owned(), target)]);
        self.metrics.know(kind);
    }

    /// Drops what is stored for targets that are not there any more.
    pub(crate) async fn drop_removed(&self, store: &dyn Store) {
        if let Err(error) = drop_removed(store, &self.targets, &self.metrics).await {
            tracing::error!(%error, "cannot drop what targets that are gone were not told; it is dropped after the next start");
        }
    }
}

/// Drops what is stored for targets that are gone, and tells the others until the shutdown begins, and then until the calls
/// under way have ended, or were cut off.
pub(crate) async fn work(app: Arc<App>) {
    let gateway = &app.gateway;
    let worker = Worker::new(Parts {
        store: Arc::clone(gateway.store()),
        clock: Arc::clone(gateway.clock()),
        targets: app.dispatching.targets.clone(),
        notify: Arc::clone(gateway.dispatch_bell()),
        metrics: app.dispatching.metrics.clone(),
    });
    let drained = async {
        app.shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    // Beside the worker: there may be very many, and nobody waits for it.
    let dropping = app.shutdown.run_until_cancelled(async {
        // A newer file may have targets that this one lacks.
        if !app.access.as_ref().is_some_and(|access| access.is_outdated()) {
            app.dispatching.drop_removed(gateway.store().as_ref()).await;
        }
    });
    tokio::select! {
        _ = async { tokio::join!(worker.run(app.shutdown.clone()), dropping) } => {}
        () = drained => tracing::warn!("shutdown: calls of targets outside are cut off; they are made again after the next start"),
    }
}
