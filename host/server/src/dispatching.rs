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

use crate::reports;
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

    /// What the gateway asks who must be told of a change: the targets in force here, and the gate that the request stands
    /// for, which another gateway may have the settings of.
    pub(crate) fn subscribers(&self) -> Subscribers {
        let targets = self.targets.clone();
        Box::new(move |request: &Request, milestones: &[Milestone]| {
            let mut told = targets.of(request, milestones);
            let gate = reports::target_of(request, milestones).map(str::to_owned);
            told.extend(gate.filter(|gate| !told.contains(gate)));
            told
        })
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

    /// Drops what is stored for webhooks that are not there any more. What a gate is to be told stays, whatever the settings:
    /// it goes with its request.
    pub(crate) async fn drop_removed(&self, store: &dyn Store) {
        if let Err(error) = drop_removed(store, webhook::KIND, &self.targets, &self.metrics).await {
            tracing::error!(%error, "cannot drop what webhooks that are gone were not told; it is dropped after the next start");
        }
    }
}

/// Whether what waits for webhooks that are not in force here is dropped. Over a store that is shared other gateways may have
/// them, so only one that is known to have the newest access file drops it.
async fn may_drop(app: &App) -> bool {
    match &app.access {
        Some(access) => access.compare(&app.gateway).await,
        None => app.gateway.store().shared().is_none(),
    }
}

/// Drops what is stored for webhooks that are gone, and tells the others until the shutdown begins, and then until the calls
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
        if may_drop(&app).await {
            app.dispatching.drop_removed(gateway.store().as_ref()).await;
        }
    });
    tokio::select! {
        _ = async { tokio::join!(worker.run(app.shutdown.clone()), dropping) } => {}
        () = drained => tracing::warn!("shutdown: calls of targets outside are cut off; they are made again after the next start"),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use countersign_core::lifecycle::{Gate, StatusCheck};
    use countersign_dispatch::{Answer, Telling};
    use countersign_store::fixtures;

    use super::*;

    struct All;

    #[async_trait]
    impl Target for All {
        fn wants(&self, _: &Request, _: Milestone) -> bool {
            true
        }

        async fn tell(&self, _: &Telling<'_>) -> Answer {
            Answer::Told
        }
    }

    /// Whichever gateway stores a decision notes it for the gate; only one that has the settings can tell it.
    #[test]
    fn a_gate_is_to_be_told_whatever_the_settings_of_the_gateway() {
        let dispatching = Dispatching::new(&Registry::new()).expect("a new registry");
        let told_to = dispatching.subscribers();
        let mut request = fixtures::request(1);
        assert_eq!(told_to(&request, &Milestone::ALL), [""; 0]);
        let check =
            StatusCheck { project: 815, merge_request: 7, check: 3, sha: "0f".into(), target: "main".into() };
        Arc::make_mut(&mut request.submission).gate = Some(Gate::Gitlab(check));
        for (milestone, expected) in [
            (Milestone::Created, true),
            (Milestone::Escalated, false),
            (Milestone::Decided, true),
            (Milestone::Consumed, false),
        ] {
            let expected = if expected { vec!["gitlab"] } else { vec![] };
            assert_eq!(told_to(&request, &[milestone]), expected, "{milestone:?}");
        }
        dispatching.report_to("gitlab", Arc::new(All));
        assert_eq!(told_to(&request, &[Milestone::Decided]), ["gitlab"], "once");
    }
}
