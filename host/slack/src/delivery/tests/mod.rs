//! Tests of the worker with the SQLite store, a fake Slack that fails on demand, and a clock that the tests advance.

mod backlog;
mod clock_jumps;
mod ephemerals;
mod failures;
mod messages;
mod notices;
mod plain_rendering;
mod priority;
mod random_failures;
mod run_loop;

use std::sync::Arc;

use countersign_core::clock::{Clock, ManualClock, Monotonic};
use countersign_core::lifecycle::{
    Act, Decided, Edit, Effect, Request, RequestId, State, Submission, Timestamp, UseTerms,
};
use countersign_core::record::{Escalate, PolicyEntry, Rerequest, SlackPost, Slot};
use countersign_store::{AuditCursor, Commit, Committed, Created, SqliteStore, Store, fixtures};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::Rendering;
use super::health::{Health, HealthState};
use super::rate_limit::RateLimits;
use super::worker::{Parts, Worker};
use crate::fake::{FakeSlack, Shown};

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// A worker and everything that it needs.
struct Harness {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    slack: FakeSlack,
    health: Arc<Health>,
    notify: Arc<Notify>,
    worker: Worker,
    seed: u64,
    rate_factor: f64,
    _folder: TempDir,
}

impl Harness {
    async fn new() -> Harness {
        Harness::with(1, 1.0).await
    }

    async fn with(seed: u64, rate_factor: f64) -> Harness {
        Harness::over(seed, rate_factor, |store| store).await
    }

    /// With what `wrap` makes of the store.
    async fn over(
        seed: u64,
        rate_factor: f64,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Harness {
        let folder = tempfile::tempdir().unwrap();
        let store = wrap(Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap()));
        store.pin(["C1", "C2", "C3", "#one", ""].map(entry).to_vec(), vec![]).await.unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let slack = FakeSlack::start(Arc::<ManualClock>::clone(&clock)).await;
        let (health, notify) = (Arc::new(Health::new(clock.moment())), Arc::new(Notify::new()));
        let worker = worker(&store, &clock, &slack, &health, &notify, (seed, rate_factor));
        Harness { store, clock, slack, health, notify, worker, seed, rate_factor, _folder: folder }
    }

    /// Has messages rendered as people see them from now on.
    fn render_for_people(&mut self) {
        self.render(Rendering::DEFAULT);
    }

    fn render(&mut self, rendering: Rendering) {
        let Harness { store, clock, slack, health, notify, .. } = self;
        let parts = Parts { rendering, ..parts(store, clock, slack, health, notify, self.rate_factor) };
        self.worker = Worker::with_rng(parts, fastrand::Rng::with_seed(self.seed));
    }

    /// Kills the worker at this instant, and starts another one.
    fn kill_and_restart(&mut self) {
        self.take_worker();
    }

    /// Hands out the worker, to be run, and puts another one in its place.
    fn take_worker(&mut self) -> Worker {
        self.seed += 1;
        let seed_and_factor = (self.seed, self.rate_factor);
        let replacement =
            worker(&self.store, &self.clock, &self.slack, &self.health, &self.notify, seed_and_factor);
        std::mem::replace(&mut self.worker, replacement)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Creates request `number`, whose messages go to `channel`; nowhere if that is empty.
    async fn create(&self, number: u64, channel: &str) -> Request {
        self.create_with(number, channel, |_| {}).await
    }

    async fn create_with(&self, number: u64, channel: &str, change: impl FnOnce(&mut Submission)) -> Request {
        let mut request = fixtures::request_at(number, self.now());
        let submission = Arc::make_mut(&mut request.submission);
        submission.policy_hash = entry(channel).hash();
        submission.expires_at = self.now().plus(60 * MINUTE);
        change(submission);
        self.store(&request).await;
        request
    }

    /// Creates a request that is approved as it is made, as those of `unattended` actions may be.
    async fn create_approved(&self, number: u64, channel: &str) {
        let mut request = fixtures::request_at(number, self.now());
        Arc::make_mut(&mut request.submission).policy_hash = entry(channel).hash();
        request.state = fixtures::approved(self.now());
        self.store(&request).await;
    }

    /// Stores a request, and notifies the worker as the gateway does.
    async fn store(&self, request: &Request) {
        assert_eq!(self.store.create(fixtures::new(request)).await.unwrap(), Created::New);
        self.notify.notify_one();
    }

    /// Stores a version of a request, and notifies the worker as the gateway does.
    async fn store_version(&self, commit: Commit) {
        assert_eq!(self.store.commit(commit).await.unwrap(), Committed::Done);
        self.notify.notify_one();
    }

    /// Stores a new version of the request.
    async fn change(&self, number: u64) -> Request {
        self.commit(number, vec![Effect::ShowRequest], |_| {}).await
    }

    /// Approves the request.
    async fn end(&self, number: u64) -> Request {
        let decided = Decided { at: self.now(), by: Some("U1".into()), reason: None };
        self.commit(number, vec![Effect::ShowRequest], |request| {
            request.state = State::Approved { decided, consumed: None }
        })
        .await
    }

    /// Approves a request that has notices.
    async fn end_with_notices(&self, number: u64) -> Request {
        let decided = Decided { at: self.now(), by: Some("U1".into()), reason: None };
        let effects = vec![Effect::ShowRequest, Effect::NotifyEscalation, Effect::NotifyReplaced];
        self.commit(number, effects, |request| request.state = State::Approved { decided, consumed: None })
            .await
    }

    /// `by` approves the request with edits, which replaces the approval of whoever approved before.
    async fn edit(&self, number: u64, by: &str) -> Request {
        let effects = vec![Effect::NotifyReplaced, Effect::ShowRequest];
        self.commit(number, effects, |request| {
            let event = request.history.last_mut().unwrap();
            event.by.as_mut().unwrap().id = by.to_owned();
            let edit = Edit {
                key: "ref".into(),
                before: None,
                after: Some(by.into()),
                commitment: None,
                violations: vec![],
            };
            event.act = Act::Approve { edits: vec![edit] };
        })
        .await
    }

    /// Escalates the request.
    async fn escalate(&self, number: u64) -> Request {
        let effects = vec![Effect::NotifyEscalation, Effect::ShowRequest];
        self.commit(number, effects, |request| {
            request.history.last_mut().unwrap().act = Act::Escalated;
        })
        .await
    }

    async fn commit(&self, number: u64, effects: Vec<Effect>, change: impl FnOnce(&mut Request)) -> Request {
        let request = self.store.request(id(number)).await.unwrap().unwrap();
        let request = fixtures::next(&request, self.now(), change);
        let commit = Commit { effects, ..fixtures::change(&request) };
        self.store_version(commit).await;
        request
    }

    /// Lets this many milliseconds pass.
    async fn pass(&mut self, millis: u64) {
        let end = self.clock.monotonic().plus(millis);
        loop {
            let next = self.work().await;
            if self.clock.monotonic() >= end {
                return;
            }
            self.advance_to(next.min(end));
        }
    }

    /// Lets at most `most` milliseconds pass until the outbox is empty, and returns how many passed.
    async fn deliver(&mut self, most: u64) -> u64 {
        let begun = self.clock.monotonic();
        loop {
            let next = self.work().await;
            let took = self.clock.monotonic().since(begun);
            if self.waiting().await == 0 {
                return took;
            }
            assert!(took < most, "{} are still waiting", self.waiting().await);
            self.advance_to(next);
        }
    }

    /// Carries out every step that is possible now, and returns when there are more.
    async fn work(&mut self) -> Monotonic {
        for _ in 0..10_000 {
            let next = self.worker.turn().await;
            if !self.worker.is_busy() {
                return next;
            }
            self.worker.finish().await;
        }
        panic!("endless work at {}: {:?}", self.now(), self.slack.methods());
    }

    /// Advances the clocks to `at`, and by 1 ms at least.
    fn advance_to(&self, at: Monotonic) {
        let now = self.clock.monotonic();
        self.clock.advance(at.max(now.plus(1)).since(now));
    }

    async fn waiting(&self) -> u64 {
        self.store.outbox_depth().await.unwrap().entries
    }

    async fn post(&self, number: u64, slot: Slot) -> Option<SlackPost> {
        self.store.slack_post(id(number), slot).await.unwrap()
    }

    /// The message of a request, of which there must be one.
    fn message(&self, number: u64) -> Shown {
        let messages = self.messages(number, Slot::Main);
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.into_iter().next().unwrap()
    }

    fn messages(&self, number: u64, slot: Slot) -> Vec<Shown> {
        let payload = serde_json::json!({"request_id": id(number), "slot": slot});
        let all = self.slack.messages().into_iter();
        all.filter(|message| message.metadata["event_payload"] == payload).collect()
    }

    /// The events and the codes of the audit entries of delivery.
    async fn audited(&self) -> Vec<(String, String)> {
        let audit = self.store.audit(&AuditCursor::default(), 100_000).await.unwrap().entries;
        let ours = audit.into_iter().filter(|entry| entry.event.starts_with("slack_"));
        ours.map(|entry| (entry.event.clone(), entry.detail["code"].as_str().unwrap().to_owned())).collect()
    }

    /// How many messages were not posted since their requests ended before that.
    async fn skipped(&self) -> u64 {
        let counters = self.store.counters().await.unwrap();
        let skipped = counters.iter().filter(|(counter, _)| counter.metric == "slack_posts_skipped_total");
        skipped.map(|(_, value)| value).sum()
    }

    fn state(&self) -> HealthState {
        self.health.report(self.clock.monotonic()).state
    }

    fn count(&self, method: &str) -> usize {
        self.slack.methods().iter().filter(|called| *called == method).count()
    }
}

fn worker(
    store: &Arc<dyn Store>,
    clock: &Arc<ManualClock>,
    slack: &FakeSlack,
    health: &Arc<Health>,
    notify: &Arc<Notify>,
    (seed, rate_factor): (u64, f64),
) -> Worker {
    let parts = parts(store, clock, slack, health, notify, rate_factor);
    Worker::with_rng(parts, fastrand::Rng::with_seed(seed))
}

fn parts(
    store: &Arc<dyn Store>,
    clock: &Arc<ManualClock>,
    slack: &FakeSlack,
    health: &Arc<Health>,
    notify: &Arc<Notify>,
    rate_factor: f64,
) -> Parts {
    Parts {
        store: Arc::clone(store),
        clock: Arc::<ManualClock>::clone(clock),
        directory: Arc::default(),
        client: Arc::new(slack.client()),
        notify: Arc::clone(notify),
        health: Arc::clone(health),
        rendering: plain_rendering::PLAIN,
        rate_limits: Arc::new(RateLimits::new(rate_factor)),
        tracer: Default::default(),
    }
}

/// The policy entry of an action whose messages go to `channel`, and whose escalations also go to `C9`.
fn entry(channel: &str) -> PolicyEntry {
    PolicyEntry {
        channel: Some(channel.to_owned()).filter(|channel| !channel.is_empty()),
        escalate: Some(Escalate { before_ms: 1, channel: Some("C9".into()), mention: None }),
        rerequest: Some(Rerequest { cooldown_ms: 1, limit: 9, window_ms: MINUTE, by: Default::default() }),
        ..fixtures::policy_entry("deploy")
    }
}

fn id(number: u64) -> RequestId {
    fixtures::request(number).id
}
