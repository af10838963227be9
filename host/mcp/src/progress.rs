//! What a client hears while a call waits.

use std::time::Duration;

use countersign_client::Waited;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RoleServer};
use tokio::time::Instant;

use crate::requests::Request;

/// Tells a client that has asked for it.
pub(crate) struct Progress {
    peer: Peer<RoleServer>,
    token: ProgressToken,
    started: Instant,
    within: Duration,
}

impl Progress {
    pub(crate) fn new(peer: Peer<RoleServer>, token: ProgressToken, within: Duration) -> Progress {
        Progress { peer, token, started: Instant::now(), within }
    }

    /// Tells how the request stands.
    pub(crate) async fn tell(&self, request: &Request, waited: &Waited) {
        let (status, approved) = (waited.status.as_str(), waited.approvers.len());
        let needed = request.created.policy.min_approvals;
        let told = ProgressNotificationParam::new(self.token.clone(), self.started.elapsed().as_secs_f64())
            .with_total(self.within.as_secs_f64())
            .with_message(format!("{status}: {approved} of {needed} approved"));
        // Whoever does not hear it gets the answer all the same.
        let _ = self.peer.notify_progress(told).await;
    }
}
