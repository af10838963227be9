//! Removes policy sets that nothing needs any more. Which those are is the gateway's to say.

use std::sync::Arc;
use std::time::Duration;

use countersign_store::StoreError;

use super::{LEASE_MS, is_on_time};
use crate::config;
use crate::state::App;

/// The lease of the instance that removes policy sets.
const LEASE: &str = "policy_retention";

/// Removes policy sets that nothing needs.
pub(crate) struct PolicySweeper {
    retention_ms: u64,
    interval: Duration,
}

impl PolicySweeper {
    /// `None` if policy sets are kept for ever.
    pub(crate) fn new(config: &config::Retention) -> Option<PolicySweeper> {
        Some(PolicySweeper {
            retention_ms: u64::from(config.policy_retention_sec?).saturating_mul(1000),
            interval: Duration::from_secs(config.sweep_sec.into()),
        })
    }

    /// Sweeps again and again.
    pub(crate) async fn keep_sweeping(self: Arc<PolicySweeper>, app: Arc<App>) {
        loop {
            match self.sweep(&app).await {
                Ok(()) => {}
                // What is wrong with the store is logged already, and the next sweep goes on.
                Err(error @ StoreError::Unavailable { .. }) => {
                    tracing::debug!(%error, "policy sets were not removed");
                }
                Err(error) => tracing::warn!(%error, "a policy set cannot be read, so none is removed"),
            }
            tokio::time::sleep(self.interval).await;
        }
    }

    async fn sweep(&self, app: &App) -> Result<(), StoreError> {
        if !is_on_time(app).await? {
            return Ok(());
        }
        if let Some(shared) = app.gateway.store().shared() {
            let interval_ms = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
            let ttl_ms = interval_ms.saturating_add(LEASE_MS);
            if !shared.lease(LEASE, app.gateway.instance(), ttl_ms).await? {
                return Ok(());
            }
        }
        app.policy_sets.remove_unneeded(self.retention_ms).await.map(drop)
    }
}
