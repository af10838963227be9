//! Keeps the directory of Slack's user groups up to date, for policy sets that use user groups.
//!
//! The last known members are kept in the store, for a start while Slack does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::clock::{Clock, Moment, Monotonic};
use countersign_core::directory::{Directory, Members};
use countersign_store::{Change, Shared, Store};

use super::changes::next;
use super::client::{CallError, SlackClient};
use super::freshness::is_fresh;

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
    /// When the members that are known were loaded.
    loaded: BTreeMap<String, Moment>,
    /// The user groups that could not be loaded, and when to try them again.
    failed: BTreeMap<String, Monotonic>,
}

impl UserGroups {
    /// Loads through `client`, within Slack's rate limit times `factor`.
    #[must_use]
    pub fn new(parts: Parts, client: Arc<SlackClient>, factor: f64) -> UserGroups {
        let (loaded, failed) = (BTreeMap::new(), BTreeMap::new());
        UserGroups { parts, client, call_interval: CALL_INTERVAL.div_f64(factor), loaded, failed }
    }

    /// Restores the members that were known before the last stop.
    pub async fn recall(&mut self) {
        let now = self.parts.clock.moment();
        for usergroup in self.wanted() {
            let Some(members) = self.stored(&usergroup).await else { continue };
            let as_of = members.as_of;
            // The clock was set back since: how old they are is not known, and they might count for ever.
            if as_of > now.wall {
                tracing::warn!(usergroup, %as_of, "the stored members of a user group are of the future; loading them again");
                continue;
            }
            self.loaded.insert(usergroup.clone(), Moment { wall: as_of, ..now });
            self.parts.directory.put(&usergroup, members);
        }
    }

    /// Another gateway has stored something over the store that they share. Members that it has loaded need not be loaded
    /// here.
    async fn hear(&mut self, change: &Change) {
        let Change::Document { key } = change else { return };
        let Some(usergroup) = key.strip_prefix(PREFIX).filter(|it| self.wanted().contains(*it)) else {
            return;
        };
        let Some(members) = self.stored(usergroup).await else { return };
        // They were loaded just now, whatever the other gateway's clock says.
        let now = self.parts.clock.moment();
        self.failed.remove(usergroup);
        self.loaded.insert(usergroup.to_owned(), now);
        self.parts.directory.put(usergroup, Members { as_of: now.wall, ..members });
    }

    async fn stored(&self, usergroup: &str) -> Option<Members> {
        let kept = self.parts.store.recall(&key(usergroup)).await.map_err(|error| error.to_string());
        let members = kept.and_then(|kept| match kept {
            Some(kept) => serde_json::from_slice(&kept).map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        });
        members.unwrap_or_else(|error| {
            tracing::warn!(usergroup, error, "cannot read the stored members of a user group");
            None
        })
    }

    /// Loads missing and old members, for ever.
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

    /// Loads missing and old members once.
    pub async fn refresh(&mut self) {
        let mut first = true;
        for usergroup in self.wanted() {
            let now = self.parts.clock.moment();
            let fresh = self.loaded.get(&usergroup).is_some_and(|at| is_fresh(*at, now, REFRESH_MS));
            let postponed = self.failed.get(&usergroup).is_some_and(|until| now.monotonic < *until);
            self.age(&usergroup, now);
            if fresh || postponed {
                continue;
            }
            if !std::mem::take(&mut first) {
                tokio::time::sleep(self.call_interval).await;
            }
            match self.client.usergroup_members(&usergroup).await {
                Ok(ids) => {
                    self.failed.remove(&usergroup);
                    self.loaded.insert(usergroup.clone(), now);
                    self.keep(&usergroup, Members { ids: ids.into_iter().collect(), as_of: now.wall }).await;
                }
                Err(error) => self.postpone(usergroup, &error),
            }
        }
    }

    /// Members that are known as of the future, since the clock was set back, are made as old as they are: until then they
    /// would not age.
    fn age(&mut self, usergroup: &str, now: Moment) {
        let Some(members) = self.parts.directory.members(usergroup).filter(|known| known.as_of > now.wall)
        else {
            return;
        };
        let loaded = self.loaded.get(usergroup).map_or(now.monotonic, |at| at.monotonic);
        let as_of = now.wall.minus(now.monotonic.since(loaded));
        self.parts.directory.put(usergroup, Members { as_of, ..Members::clone(&members) });
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
        self.failed.insert(usergroup, self.parts.clock.monotonic().plus(wait));
    }
}

/// What the keys of stored members begin with.
const PREFIX: &str = "usergroup:";

fn key(usergroup: &str) -> String {
    format!("{PREFIX}{usergroup}")
}

#[cfg(test)]
mod tests {
    use countersign_core::clock::ManualClock;
    use countersign_core::directory::VOID_AFTER_MS;
    use countersign_core::lifecycle::Timestamp;
    use countersign_store::SqliteStore;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::fake::{FakeSlack, Fate};

    const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);
    const JUMPS: [i64; 4] = [-3_600_000, -20_000, 20_000, 3_600_000];

    struct Loading {
        slack: FakeSlack,
        clock: Arc<ManualClock>,
        store: Arc<dyn Store>,
        directory: Arc<Directory>,
        usergroups: UserGroups,
        _folder: TempDir,
    }

    impl Loading {
        async fn new() -> Loading {
            let folder = tempfile::tempdir().unwrap();
            let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
            let clock = Arc::new(ManualClock::at(START));
            let slack = FakeSlack::start(Arc::<ManualClock>::clone(&clock)).await;
            let (directory, usergroups) = usergroups(&store, &clock, &slack);
            Loading { slack, clock, store, directory, usergroups, _folder: folder }
        }

        /// The process ends and another one starts.
        async fn restart(&mut self) {
            (self.directory, self.usergroups) = usergroups(&self.store, &self.clock, &self.slack);
            self.usergroups.recall().await;
        }

        /// Slack says from now on that this is the member.
        fn say(&self, member: &str) {
            self.slack.say("usergroups.users.list", json!({"users": [member]}));
        }

        fn belongs(&self, member: &str) -> bool {
            self.directory.belongs("S0TEAM", member, self.clock.now()).is_some()
        }

        fn calls(&self) -> usize {
            self.slack.calls().len()
        }
    }

    fn usergroups(
        store: &Arc<dyn Store>,
        clock: &Arc<ManualClock>,
        slack: &FakeSlack,
    ) -> (Arc<Directory>, UserGroups) {
        let directory = Arc::new(Directory::default());
        let parts = Parts {
            store: Arc::clone(store),
            clock: Arc::<ManualClock>::clone(clock),
            directory: Arc::clone(&directory),
            wanted: Box::new(|| BTreeSet::from(["S0TEAM".to_owned()])),
        };
        (directory, UserGroups::new(parts, Arc::new(slack.client()), 1_000_000.0))
    }

    #[tokio::test]
    async fn members_are_loaded_again_after_five_minutes() {
        for jump in [0, -3_600_000, -20_000, 20_000, 3_600_000] {
            let mut loading = Loading::new().await;
            loading.say("U1");
            loading.usergroups.refresh().await;
            assert!(loading.belongs("U1"));
            loading.clock.jump(jump);
            loading.say("U2");
            loading.clock.advance(REFRESH_MS);
            loading.usergroups.refresh().await;
            assert!(loading.belongs("U2") && !loading.belongs("U1"), "{jump}");
        }
    }

    #[tokio::test]
    async fn members_that_cannot_be_loaded_are_tried_again_after_a_minute() {
        for jump in JUMPS {
            let mut loading = Loading::new().await;
            loading.slack.decide(|_, _| Fate::Failed(503));
            loading.usergroups.refresh().await;
            loading.slack.decide(|_, _| Fate::Done);
            loading.say("U1");
            loading.clock.jump(jump);
            loading.clock.advance(RETRY_MS - 1);
            loading.usergroups.refresh().await;
            assert!(!loading.belongs("U1"), "{jump}");
            loading.clock.advance(1);
            loading.usergroups.refresh().await;
            assert!(loading.belongs("U1"), "{jump}");
        }
    }

    #[tokio::test]
    async fn what_another_gateway_has_loaded_is_not_loaded_again() {
        for ahead in [0, 3_600_000, -3_600_000] {
            let mut loading = Loading::new().await;
            // The other one has a clock of its own.
            let clock = Arc::new(ManualClock::at(START));
            clock.jump(ahead);
            let (directory, mut other) = usergroups(&loading.store, &clock, &loading.slack);
            let change = Change::Document { key: "usergroup:S0TEAM".to_owned() };
            loading.say("U1");
            loading.usergroups.refresh().await;
            other.hear(&change).await;
            other.refresh().await;
            assert!(directory.belongs("S0TEAM", "U1", clock.now()).is_some(), "{ahead}");
            assert_eq!(loading.calls(), 1);
            // What Slack does not answer to one of them, it answers to the other.
            loading.clock.advance(REFRESH_MS);
            clock.advance(REFRESH_MS);
            loading.slack.decide(|_, _| Fate::Failed(503));
            loading.usergroups.refresh().await;
            loading.slack.decide(|_, _| Fate::Done);
            loading.say("U2");
            other.refresh().await;
            loading.usergroups.hear(&change).await;
            assert!(loading.belongs("U2") && !loading.belongs("U1"), "{ahead}");
            let calls = loading.calls();
            loading.clock.advance(REFRESH_MS - 1);
            loading.usergroups.refresh().await;
            assert_eq!(loading.calls(), calls, "{ahead}: it is fresh");
        }
    }

    #[tokio::test]
    async fn members_count_for_a_day_though_the_clock_be_set_back() {
        let mut loading = Loading::new().await;
        loading.say("U1");
        loading.usergroups.refresh().await;
        loading.slack.decide(|_, _| Fate::Failed(503));
        loading.clock.advance(3_600_000);
        loading.clock.jump(-2 * 3_600_000);
        loading.usergroups.refresh().await;
        assert!(loading.belongs("U1"));
        loading.clock.advance(VOID_AFTER_MS - 3_600_000 - 1);
        assert!(loading.belongs("U1"));
        loading.clock.advance(1);
        assert!(!loading.belongs("U1"), "they are a day old");
    }

    #[tokio::test]
    async fn stored_members_count_after_a_restart_unless_they_are_of_the_future() {
        for (jump, counts) in [(0, true), (20_000, true), (-20_000, false), (-3_600_000, false)] {
            let mut loading = Loading::new().await;
            loading.say("U1");
            loading.usergroups.refresh().await;
            loading.clock.jump(jump);
            loading.slack.decide(|_, _| Fate::Failed(503));
            loading.restart().await;
            assert_eq!(loading.belongs("U1"), counts, "{jump}");
            let before = loading.calls();
            loading.usergroups.refresh().await;
            assert_eq!(loading.calls() > before, !counts, "{jump}: what is fresh is not loaded again");
            // Slack answers again.
            loading.slack.decide(|_, _| Fate::Done);
            loading.say("U2");
            loading.clock.advance(REFRESH_MS);
            loading.usergroups.refresh().await;
            assert!(loading.belongs("U2") && !loading.belongs("U1"), "{jump}");
        }
    }
}
