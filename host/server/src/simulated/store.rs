//! The store behind failures: a call can be slow, fail before it is carried out, or be carried out and fail.

use std::sync::Arc;

use countersign_core::lifecycle::{AuditEntry, Request};
use countersign_store::faulty::Faulty;
use countersign_store::{StoreError, StoreFault};

use super::world::{World, lock};

/// What goes wrong with the store of a schedule.
pub(super) struct StoreFaults(pub(super) Arc<World>);

impl Faulty for StoreFaults {
    async fn read<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.before(name).await?;
        let result = call.await;
        self.0.point().await;
        result
    }

    async fn write<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.before(name).await?;
        let result = call.await;
        self.after(name).await?;
        result
    }

    fn version(&self, request: &Request, audit: &[AuditEntry], stored: bool) {
        if stored {
            self.0.stored(request, audit);
        } else {
            self.0.say(|| format!("store: {} v{}: not stored", request.id, request.version));
        }
    }

    fn refused(&self, audit: &[AuditEntry]) {
        lock(&self.0.ledger).refused(audit);
    }
}

impl StoreFaults {
    async fn before(&self, name: &str) -> Result<(), StoreError> {
        self.0.point().await;
        let profile = self.0.profile();
        if self.0.is_outage() {
            return Err(self.failed(name, "the store is away"));
        }
        match self.0.per_thousand() {
            roll if roll < profile.store_fails => Err(self.failed(name, "it fails")),
            roll if roll < profile.store_fails + profile.store_slow => {
                let wait_ms = self.0.below(400);
                self.0.say(|| format!("store: {name} takes {wait_ms} ms"));
                self.0.disturb();
                self.0.pass(wait_ms).await;
                self.0.disturb();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn after(&self, name: &str) -> Result<(), StoreError> {
        self.0.point().await;
        if self.0.per_thousand() < self.0.profile().store_unsure {
            return Err(self.failed(name, "it is carried out, and fails all the same"));
        }
        Ok(())
    }

    fn failed(&self, name: &str, detail: &str) -> StoreError {
        self.0.say(|| format!("store: {name}: {detail}"));
        self.0.disturb();
        let (backend, detail) = ("simulated", detail.to_owned());
        StoreError::Unavailable { backend, fault: StoreFault::Other, detail }
    }
}
