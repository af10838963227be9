//! Which stored set judges in the shadow; what it judges, and how, is [`crate::simulation::Shadow`]'s.

use std::sync::Arc;

use serde_json::json;

use super::{By, ChangeError, PolicySets, whole};
use crate::simulation::Explained;
use countersign_core::lifecycle::{AuditEvent, Digest};

impl PolicySets {
    /// Has a stored set judge beside the one in force, in the place of any other, with no effect.
    ///
    /// # Errors
    /// Where it is in force, is not stored, or can no longer be loaded.
    pub async fn start_shadow(self: &Arc<Self>, hash: Digest, by: By) -> Result<(), ChangeError> {
        let sets = Arc::clone(self);
        whole(async move {
            // Nothing else is put in force meanwhile, so that it is known what it is compared with.
            let _seen = sets.changing.lock().await;
            let beside = sets.policies().active().hash();
            if beside == hash {
                return Err(ChangeError::InForce(hash));
            }
            // Its calls are no calls of the policies in force, and its failures hurt nobody.
            let set = Arc::new(sets.restored(hash, |name| format!("shadow:{name}")).await?);
            let (gateway, since) = (&sets.gateway, sets.now());
            let directory = Arc::clone(gateway.directory());
            gateway
                .shadow()
                .start(set, beside, directory, (by.actor.clone(), since))
                .map_err(|error| ChangeError::Stopped(format!("there is no thread for it: {error}")))?;
            sets.audit(AuditEvent::PolicyShadowStarted, &by, hash, &[("beside", json!(beside))]).await?;
            tracing::info!(%hash, %beside, "a policy set judges in the shadow");
            Ok(())
        })
        .await
    }

    /// Ends the shadow. False if there is none.
    ///
    /// # Errors
    /// Where that cannot be stored; it has ended all the same.
    pub async fn stop_shadow(&self, by: By) -> Result<bool, ChangeError> {
        let _seen = self.changing.lock().await;
        let Some(hash) = self.gateway.shadow().stop() else { return Ok(false) };
        self.audit(AuditEvent::PolicyShadowStopped, &by, hash, &[]).await?;
        Ok(true)
    }

    /// Says why a kind of difference is as it should be. False if there is no shadow, or no such difference.
    ///
    /// # Errors
    /// Where that cannot be stored: then it is not said.
    pub async fn explain(&self, action: &str, kind: &str, why: &str, by: By) -> Result<bool, ChangeError> {
        let _seen = self.changing.lock().await;
        let standing = self.gateway.shadow().standing();
        let known = standing.as_ref().is_some_and(|standing| {
            standing.differences.iter().any(|found| found.action == action && found.kind == kind)
        });
        let Some(hash) = standing.filter(|_| known).map(|standing| standing.hash) else { return Ok(false) };
        let detail = [("about", json!(action)), ("kind", json!(kind)), ("why", json!(why))];
        self.audit(AuditEvent::PolicyShadowExplained, &by, hash, &detail).await?;
        let explained = Explained { why: why.to_owned(), by: by.actor, at: self.now() };
        Ok(self.gateway.shadow().explain(action, kind, explained))
    }
}
