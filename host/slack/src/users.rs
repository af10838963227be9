//! Asks Slack which of the people whom policies name have left, so that nobody is told to wait for them.
//!
//! What Slack has said is kept in the store, so that gateways that share one ask once for all. While it does not say
//! otherwise, everybody is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::clock::{Clock, Moment, Monotonic};
use countersign_core::directory::{Directory, Presence};
use countersign_store::{Change, Shared, Store};

use super::changes::next;
use super::client::{CallError, SlackClient};
use super::freshness::is_fresh;

/// What the keys of stored answers begin with.
const PREFIX: &str = "user:";

/// The age at which a user is asked about again, in milliseconds.
const REFRESH_MS: u64 = 60 * 60 * 1000;

/// How often to look for users to ask about, in milliseconds: a new policy set may name new ones.
const POLL_MS: u64 = 30 * 1000;

/// How long to wait after Slack did not say, in milliseconds.
const RETRY_MS: u64 = 10 * 60 * 1000;

/// The time between two calls: Slack allows 100 a minute, and opening dialogs for people comes first.
const CALL_INTERVAL: Duration = Duration::from_millis(1200);

/// The most users that are asked about: more would take longer than [`REFRESH_MS`].
const MOST: usize = 2_000;

/// What [`Users`] is made of.
pub struct Parts {
    /// Keeps the answers.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Receives the answers.
    pub directory: Arc<Directory>,
    /// The Slack ids that policies name: those in force, and those of open requests.
    pub wanted: Box<dyn Fn() -> BTreeSet<String> + Send + Sync>,
}

/// Asks Slack about users.
pub struct Users {
    parts: Parts,
    client: Arc<SlackClient>,
    call_interval: Duration,
    /// When Slack last told about whom.
    told: BTreeMap<String, Moment>,
    /// Whom Slack did not tell about, and when to ask again.
    failed: BTreeMap<String, Monotonic>,
    /// Slack refuses every call for a scope that the token lacks; said once.
    refused: bool,
}

impl Users {
    /// Asks through `client`, within Slack's rate limit times `factor`.
    #[must_use]
    pub fn new(parts: Parts, client: Arc<SlackClient>, factor: f64) -> Users {
        let call_interval = CALL_INTERVAL.div_f64(factor);
        let (told, failed) = (BTreeMap::new(), BTreeMap::new());
        Users { parts, client, call_interval, told, failed, refused: false }
    }

    /// Asks about everybody who was never asked about, or long ago, for ever.
    pub async fn run(mut self) {
        let (clock, store) = (Arc::clone(&self.parts.clock), Arc::clone(&self.parts.store));
        let mut changes = store.shared().map(Shared::changes);
        loop {
            self.refresh().await;
            let pause = clock.sleep(Duration::from_millis(POLL_MS));
            tokio::pin!(pause);
            loop {
                let change = tokio::select! {
                    () = &mut pause => break,
                    change = next(&mut changes) => change,
                };
                self.hear(&change).await;
            }
        }
    }

    /// Another gateway has stored something over the store that they share. Whom it has asked about need not be asked about
    /// here.
    async fn hear(&mut self, change: &Change) {
        let Change::Document { key } = change else { return };
        let Some(id) = key.strip_prefix(PREFIX).filter(|id| (self.parts.wanted)().contains(*id)) else {
            return;
        };
        let Some(presence) = self.stored(id).await else { return };
        // Slack was asked just now, whatever the other gateway's clock says.
        let now = self.parts.clock.moment();
        self.learn(id, Presence { as_of: now.wall, ..presence }, now);
    }

    /// What Slack said of a user when it was last asked, by any gateway.
    async fn stored(&self, id: &str) -> Option<Presence> {
        let kept = self.parts.store.recall(&format!("{PREFIX}{id}")).await.map_err(|error| error.to_string());
        let presence = kept.and_then(|kept| {
            kept.map(|kept| serde_json::from_slice(&kept)).transpose().map_err(|error| error.to_string())
        });
        presence.unwrap_or_else(|error| {
            tracing::debug!(error, "cannot read what Slack said of a user");
            None
        })
    }

    async fn keep(&self, id: &str, presence: Presence) {
        let Ok(document) = serde_json::to_vec(&presence) else { return };
        if let Err(error) = self.parts.store.keep(&format!("{PREFIX}{id}"), document).await {
            tracing::debug!(%error, "cannot store what Slack said of a user");
        }
    }

    fn learn(&mut self, id: &str, presence: Presence, now: Moment) {
        self.failed.remove(id);
        self.told.insert(id.to_owned(), Moment { wall: presence.as_of, ..now });
        self.parts.directory.put_user(id, presence);
    }

    /// Asks once.
    pub async fn refresh(&mut self) {
        let wanted = (self.parts.wanted)();
        self.told.retain(|id, _| wanted.contains(id));
        self.failed.retain(|id, _| wanted.contains(id));
        let mut first = true;
        for id in wanted.into_iter().take(MOST) {
            let now = self.parts.clock.moment();
            let fresh = self.told.get(&id).is_some_and(|at| is_fresh(*at, now, REFRESH_MS));
            let postponed = self.failed.get(&id).is_some_and(|until| now.monotonic < *until);
            if fresh || postponed {
                continue;
            }
            // Another gateway may have asked, or this one before it was started. What it has asked since is not read again:
            // how old it is, its own clock knows better.
            if !self.told.contains_key(&id)
                && let Some(presence) = self.stored(&id).await
                && is_fresh(Moment { wall: presence.as_of, ..now }, now, REFRESH_MS)
            {
                self.learn(&id, presence, now);
                continue;
            }
            if !std::mem::take(&mut first) {
                tokio::time::sleep(self.call_interval).await;
            }
            match self.client.is_gone(&id).await {
                Ok(gone) => {
                    self.refused = false;
                    let presence = Presence { gone, as_of: now.wall };
                    self.keep(&id, presence).await;
                    self.learn(&id, presence, now);
                }
                // Whoever else is asked about now, the answer would be the same.
                Err(error @ (CallError::Unanswered { .. } | CallError::RateLimited { .. })) => {
                    tracing::debug!(%error, "cannot ask Slack about users; they count as there");
                    return;
                }
                Err(CallError::Rejected { code }) if is_about_token(&code) => {
                    if !std::mem::replace(&mut self.refused, true) {
                        tracing::warn!(
                            code,
                            "Slack does not say who has left, so approvers who have left are still waited for: \
                             the app needs the scope `users:read`"
                        );
                    }
                    self.failed.insert(id, now.monotonic.plus(RETRY_MS));
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "Slack does not say whether a user has left");
                    self.failed.insert(id, now.monotonic.plus(RETRY_MS));
                }
            }
        }
    }
}

/// Whether a code of Slack's is about the token rather than the user.
fn is_about_token(code: &str) -> bool {
    matches!(
        code,
        "missing_scope"
            | "not_allowed_token_type"
            | "invalid_auth"
            | "not_authed"
            | "account_inactive"
            | "token_revoked"
            | "token_expired"
            | "no_permission"
            | "access_denied"
    )
}

#[cfg(test)]
mod tests {
    use countersign_core::clock::ManualClock;
    use countersign_core::lifecycle::Timestamp;
    use countersign_store::SqliteStore;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::fake::{FakeSlack, Fate};

    const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    struct Asking {
        slack: FakeSlack,
        clock: Arc<ManualClock>,
        store: Arc<dyn Store>,
        directory: Arc<Directory>,
        users: Users,
        _folder: TempDir,
    }

    async fn asking(ids: &'static [&'static str]) -> Asking {
        let clock = Arc::new(ManualClock::at(START));
        let slack = FakeSlack::start(Arc::<ManualClock>::clone(&clock)).await;
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
        let (directory, users) = users(&store, &clock, &slack, ids);
        Asking { slack, clock, store, directory, users, _folder: folder }
    }

    fn users(
        store: &Arc<dyn Store>,
        clock: &Arc<ManualClock>,
        slack: &FakeSlack,
        ids: &'static [&'static str],
    ) -> (Arc<Directory>, Users) {
        let directory = Arc::new(Directory::default());
        let parts = Parts {
            store: Arc::clone(store),
            clock: Arc::<ManualClock>::clone(clock),
            directory: Arc::clone(&directory),
            wanted: Box::new(move || ids.iter().map(|id| (*id).to_owned()).collect()),
        };
        (directory, Users::new(parts, Arc::new(slack.client()), 1_000_000.0))
    }

    impl Asking {
        fn gone(&self, id: &str) -> bool {
            self.directory.is_gone(id, self.clock.now())
        }

        fn calls(&self) -> usize {
            self.slack.calls().len()
        }
    }

    #[tokio::test]
    async fn who_has_left_is_asked_again_after_an_hour() {
        let mut asking = asking(&["U1", "U2"]).await;
        asking.slack.say("users.info", json!({"user": {"deleted": true}}));
        asking.users.refresh().await;
        assert!(asking.gone("U1") && asking.gone("U2") && !asking.gone("U3"));
        asking.users.refresh().await;
        assert_eq!(asking.calls(), 2, "it is known");
        asking.slack.say("users.info", json!({"user": {"deleted": false}}));
        asking.clock.advance(REFRESH_MS);
        asking.users.refresh().await;
        assert!(!asking.gone("U1"), "the account is active again");
        assert_eq!(asking.calls(), 4);
    }

    #[tokio::test]
    async fn a_wall_clock_that_is_set_makes_no_answer_last_longer() {
        for jump in [-3_600_000, -20_000, 20_000, 3_600_000] {
            let mut asking = asking(&["U1"]).await;
            asking.slack.say("users.info", json!({"user": {"deleted": true}}));
            // Asked under a clock that is ahead or behind, which is mended then.
            asking.users.refresh().await;
            asking.clock.jump(jump);
            asking.slack.say("users.info", json!({"user": {"deleted": false}}));
            asking.clock.advance(REFRESH_MS);
            asking.users.refresh().await;
            assert!(!asking.gone("U1"), "{jump}");
        }
    }

    #[tokio::test]
    async fn a_wall_clock_that_is_set_makes_no_pause_longer() {
        for jump in [-3_600_000, -20_000, 20_000, 3_600_000] {
            let mut asking = asking(&["U1"]).await;
            asking.slack.decide(|_, _| Fate::Refused("user_not_visible"));
            asking.users.refresh().await;
            asking.clock.jump(jump);
            asking.clock.advance(RETRY_MS - 1);
            asking.users.refresh().await;
            assert_eq!(asking.calls(), 1, "{jump}");
            asking.clock.advance(1);
            asking.users.refresh().await;
            assert_eq!(asking.calls(), 2, "{jump}");
        }
    }

    #[tokio::test]
    async fn whom_another_gateway_has_asked_about_is_not_asked_about_again() {
        for ahead in [0, 3_600_000, -3_600_000] {
            let mut asking = asking(&["U1"]).await;
            // The other one has a clock of its own.
            let clock = Arc::new(ManualClock::at(START));
            clock.jump(ahead);
            let (directory, mut other) = users(&asking.store, &clock, &asking.slack, &["U1"]);
            asking.slack.say("users.info", json!({"user": {"deleted": true}}));
            asking.users.refresh().await;
            let change = Change::Document { key: "user:U1".to_owned() };
            other.hear(&change).await;
            other.hear(&Change::Document { key: "user:U2".to_owned() }).await;
            other.refresh().await;
            assert!(directory.is_gone("U1", clock.now()), "{ahead}");
            assert_eq!(asking.calls(), 1, "{ahead}");
            clock.advance(REFRESH_MS - 1);
            other.refresh().await;
            assert_eq!(asking.calls(), 1, "{ahead}: it is fresh");
            clock.advance(1);
            asking.slack.say("users.info", json!({"user": {"deleted": false}}));
            other.refresh().await;
            assert_eq!(asking.calls(), 2, "{ahead}: it is an hour old");
            asking.users.hear(&change).await;
            assert!(!asking.gone("U1"), "{ahead}");
        }
    }

    #[tokio::test]
    async fn a_gateway_that_starts_asks_only_about_whom_nobody_asked_lately() {
        for (passed, calls) in [(REFRESH_MS - 1, 1), (REFRESH_MS, 2)] {
            let mut asking = asking(&["U1"]).await;
            asking.slack.say("users.info", json!({"user": {"deleted": true}}));
            asking.users.refresh().await;
            asking.clock.advance(passed);
            let (directory, mut started) = users(&asking.store, &asking.clock, &asking.slack, &["U1"]);
            started.refresh().await;
            assert!(directory.is_gone("U1", asking.clock.now()), "{passed}");
            assert_eq!(asking.calls(), calls, "{passed}");
        }
    }

    #[tokio::test]
    async fn nobody_has_left_if_slack_does_not_say_so() {
        for (fate, calls) in [
            // Another user would get the same answer.
            (Fate::Refused("missing_scope"), 1),
            (Fate::Failed(503), 1),
            (Fate::Limited(30), 1),
            (Fate::Refused("user_not_visible"), 2),
        ] {
            let mut asking = asking(&["U1", "U2"]).await;
            asking.slack.decide(move |_, _| fate);
            asking.users.refresh().await;
            assert!(!asking.gone("U1") && !asking.gone("U2"), "{fate:?}");
            assert_eq!(asking.calls(), calls, "{fate:?}");
        }
        let mut asking = asking(&["U1"]).await;
        asking.slack.decide(|_, _| Fate::Refused("user_not_found"));
        asking.users.refresh().await;
        assert!(asking.gone("U1"), "there is nobody with this id");
    }
}
