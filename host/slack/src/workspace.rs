//! Learns at the start which workspace the bot belongs to, which Slack may only be able to say later.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::backoff::Backoff;
use countersign_core::clock::Clock;

use crate::client::{CallError, SlackClient};

/// The wait after `auth.test` failed.
const BACKOFF: Backoff = Backoff::new(2_000, 60_000);

/// Calls `auth.test` until Slack answers, so that [`SlackClient::identity`] is known.
pub async fn identify(client: Arc<SlackClient>, clock: Arc<dyn Clock>) {
    let mut rng = fastrand::Rng::new();
    for failures in 0_u32.. {
        let error = match client.auth_test().await {
            Ok(identity) => {
                let (team, enterprise) = (&identity.team_id, &identity.enterprise_id);
                tracing::info!(team, enterprise, "the workspace of the Slack app is known");
                return;
            }
            Err(error) => error,
        };
        let wait_ms = match &error {
            CallError::RateLimited { retry_after } => {
                u64::try_from(retry_after.as_millis()).unwrap_or(BACKOFF.longest_ms())
            }
            CallError::Rejected { .. } | CallError::Unanswered { .. } => BACKOFF.around(failures, &mut rng),
        };
        tracing::warn!(%error, "the workspace of the Slack app is not known yet; people of every workspace count");
        clock.sleep(Duration::from_millis(wait_ms)).await;
    }
}
