//! Keeps the directory of Slack's user groups up to date, for the groups of policy sets that name some.
//!
//! What Slack said last is kept in the store, so that a start while Slack is away finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::client::{CallError, SlackClient};
use countersign_core::clock::Clock;
use countersign_core::directory::{Directory, Members};
use countersign_core::lifecycle::Timestamp;
use countersign_store::Store;

/// How old a list may be before it is asked for again, in milliseconds.
const REFRESH_MS: u64 = 5 * 60 * 1000;

/// The most time between two looks at what is to be asked for, in milliseconds: a new policy set may name new groups.
const LOOK_MS: u64 = 30 * 1000;

/// How long to leave a user group alone after it could not be read, in milliseconds.
const RETRY_MS: u64 = 60 * 1000;

/// How far apart two calls are: Slack allows 20 a minute.
const APART: Duration = Duration::from_secs(3);

/// What user groups are read for, and where their members are kept.
pub struct Parts {
    /// Where the members are kept between starts.
    pub store: Arc<dyn Store>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where the members are looked up.
    pub directory: Arc<Directory>,
    /// The user groups that policies name: those in force, and those that open requests are judged by.
    pub wanted: Box<dyn Fn() -> BTreeSet<String> + Send + Sync>,
}

/// Asks Slack who is in its user groups.
pub struct UserGroups {
    parts: Parts,
    client: Arc<SlackClient>,
    apart: Duration,
    /// When to ask again for those that could not be read.
    failed: BTreeMap<String, Timestamp>,
}

impl UserGroups {
    /// Asks through `client`, `factor` times as fast as Slack allows by default.
    #[must_use]
    pub fn new(parts: Parts, client: Arc<SlackClient>, factor: f64) -> UserGroups {
        UserGroups { parts, client, apart: APART.div_f64(factor), failed: BTreeMap::new() }
    }

    /// Remembers what Slack said before the last stop.
    pub async fn recall(&self) {
        for usergroup in self.wanted() {
            match self.parts.store.recall(&key(&usergroup)).await {
                Ok(None) => {}
                Ok(Some(kept)) => match serde_json::from_slice::<Members>(&kept) {
                    Ok(members) => self.parts.directory.put(&usergroup, members),
                    Err(error) => {
                        tracing::warn!(usergroup, %error, "the kept members of a user group cannot be read")
                    }
                },
                Err(error) => {
                    tracing::warn!(usergroup, %error, "the kept members of a user group cannot be read")
                }
            }
        }
    }

    /// Asks for what is missing or old, for ever.
    pub async fn run(mut self) {
        loop {
            self.refresh().await;
            let clock = Arc::clone(&self.parts.clock);
            clock.sleep_until(clock.now().plus(LOOK_MS)).await;
        }
    }

    /// Asks once for each that is missing or old.
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
                tokio::time::sleep(self.apart).await;
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

    /// The user groups that the policies in force name, and those that open requests are still judged by.
    fn wanted(&self) -> BTreeSet<String> {
        (self.parts.wanted)()
    }

    async fn keep(&self, usergroup: &str, members: Members) {
        match serde_json::to_vec(&members) {
            Ok(document) => {
                if let Err(error) = self.parts.store.keep(&key(usergroup), document).await {
                    tracing::warn!(usergroup, %error, "the members of a user group are not kept for the next start");
                }
            }
            Err(error) => tracing::warn!(usergroup, %error, "the members of a user group are not kept"),
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
        tracing::warn!(usergroup, %error, "Slack does not say who is in a user group; what it said last still counts");
        self.failed.insert(usergroup, self.parts.clock.now().plus(wait));
    }
}

fn key(usergroup: &str) -> String {
    format!("usergroup:{usergroup}")
}
