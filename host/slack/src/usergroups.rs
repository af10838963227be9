//! Keeps the directory of Slack's user groups up to date, for policy sets that use user groups.
//!
//! The last known members are kept in the store, for a start while Slack does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::clock::Clock;
use countersign_core::directory::{Directory, Members};
use countersign_core::lifecycle::Timestamp;
use countersign_store::Store;

use super::client::{CallError, SlackClient};

/// The age at which the members of a user group are loaded again, in milliseconds.
const REFRESH_MS: u64 = 5 * 60 * 1000;

/// How often to look for user groups to load, in milliseconds: a new policy set may use new ones.
const POLL_MS: u64 = 30 * 1000;

/// How long to wait after the members of a user group could not be loaded, in milliseconds.
const RETRY_MS: u64 = 60 * 1000;

/// The time between two calls: Slack allows 20 a minute.
const CALL_INTERVAL: Duration = Duration::from_secs(3);

/// What [`UserGroups`] is made of.
pub struct Parts {
    /// Keeps the members between starts.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Receives the members.
    pub directory: Arc<Directory>,
    /// The ids of the user groups in use: by the policies in force, and by those of open requests.
    pub wanted: Box<dyn Fn() -> BTreeSet<String> + Send + Sync>,
}

/// Loads the members of user groups from Slack.
pub struct UserGroups {
    parts: Parts,
    client: Arc<SlackClient>,
    call_interval: Duration,
    /// The user groups that could not be loaded, and when to try them again.
    failed: BTreeMap<String, Timestamp>,
}

impl UserGroups {
    /// Loads through `client`, within Slack's rate limit times `factor`.
    #[must_use]
    pub fn new(parts: Parts, client: Arc<SlackClient>, factor: f64) -> UserGroups {
        UserGroups { parts, client, call_interval: CALL_INTERVAL.div_f64(factor), failed: BTreeMap::new() }
    }

    /// Restores the members that were known before the last stop.
    pub async fn recall(&self) {
        for usergroup in self.wanted() {
            match self.parts.store.recall(&key(&usergroup)).await {
                Ok(None) => {}
                Ok(Some(kept)) => match serde_json::from_slice::<Members>(&kept) {
                    Ok(members) => self.parts.directory.put(&usergroup, members),
                    Err(error) => {
                        tracing::warn!(usergroup, %error, "cannot read the stored members of a user group")
                    }
                },
                Err(error) => {
                    tracing::warn!(usergroup, %error, "cannot read the stored members of a user group")
                }
            }
        }
    }

    /// Loads missing and old members, for ever.
    pub async fn run(mut self) {
        loop {
            self.refresh().await;
            let clock = Arc::clone(&self.parts.clock);
            clock.sleep_until(clock.now().plus(POLL_MS)).await;
        }
    }

    /// Loads missing and old members once.
    pub async fn refresh(&mut self) {
        let mut first = true;
        for usergroup in self.wanted() {
            let now = self.parts.clock.now();
            let known = self.parts.directory.members(&usergroup);
            let fresh = known.is_some_and(|members| now.since(members.as_of) < REFRESH_MS);
            let postponed = self.failed.get(&usergroup).is_some_and(|until| now < *until);
            if fresh || postponed {
                continue;
            }
            if !std::mem::take(&mut first) {
                tokio::time::sleep(self.call_interval).await;
            }
            match self.client.usergroup_members(&usergroup).await {
                Ok(ids) => {
                    self.failed.remove(&usergroup);
                    self.keep(&usergroup, Members { ids: ids.into_iter().collect(), as_of: now }).await;
                }
                Err(error) => self.postpone(usergroup, &error),
            }
        }
    }

    fn wanted(&self) -> BTreeSet<String> {
        (self.parts.wanted)()
    }

    async fn keep(&self, usergroup: &str, members: Members) {
        match serde_json::to_vec(&members) {
            Ok(document) => {
                if let Err(error) = self.parts.store.keep(&key(usergroup), document).await {
                    tracing::warn!(usergroup, %error, "cannot store the members of a user group");
                }
            }
            Err(error) => tracing::warn!(usergroup, %error, "cannot serialize the members of a user group"),
        }
        self.parts.directory.put(usergroup, members);
    }

    fn postpone(&mut self, usergroup: String, error: &CallError) {
        let wait = match error {
            CallError::RateLimited { retry_after } => {
                u64::try_from(retry_after.as_millis()).unwrap_or(RETRY_MS)
            }
            CallError::Rejected { .. } | CallError::Unanswered { .. } => RETRY_MS,
        };
        tracing::warn!(usergroup, %error, "cannot load the members of a user group; the last known ones still count");
        self.failed.insert(usergroup, self.parts.clock.now().plus(wait));
    }
}

fn key(usergroup: &str) -> String {
    format!("usergroup:{usergroup}")
}
