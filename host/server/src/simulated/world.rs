//! What everything in a schedule shares: the seed's choices, the time, the faults that are on, and what was found wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::clock::Clock as _;
use countersign_core::lifecycle::{AuditEntry, Request, Timestamp};
use countersign_policy::Policies;
use fastrand::Rng;
use tokio::sync::Notify;

use super::callers::Callers;
use super::clock::{START, SimulatedClock};
use super::ledger::Ledger;
use super::people::People;
use super::profile::{MOST_BACK_MS, MOST_SKEW_MS, Profile};
use super::slack::Slack;

/// One schedule's world.
pub(super) struct World {
    profile: Profile,
    pub(super) slack: Mutex<Slack>,
    pub(super) people: Mutex<People>,
    pub(super) callers: Mutex<Callers>,
    pub(super) ledger: Mutex<Ledger>,
    /// Rung when the process dies, and when something is found wrong.
    pub(super) stop: Notify,
    rng: Mutex<Rng>,
    state: Mutex<State>,
    steps: Option<Mutex<Vec<String>>>,
}

struct State {
    clock: Option<Arc<SimulatedClock>>,
    /// The time that has passed, and the clock's error, when the last process ended.
    at_end: (u64, i64),
    wrong: Option<String>,
    /// How many more points the process lives for.
    dies_in: Option<u32>,
    is_dead: bool,
    calm: bool,
    outage_until_ms: u64,
    /// When something last went wrong that may make the gateway late, by its own clock.
    disturbed_at: Timestamp,
    jumped: bool,
}

impl World {
    pub(super) fn new(policies: Arc<Policies>, mut rng: Rng, traced: bool) -> World {
        let profile = Profile::of(&mut rng);
        World {
            profile,
            slack: Mutex::default(),
            people: Mutex::default(),
            callers: Mutex::default(),
            ledger: Mutex::new(Ledger::new(policies)),
            stop: Notify::new(),
            rng: Mutex::new(rng),
            state: Mutex::new(State {
                clock: None,
                at_end: (0, 0),
                wrong: None,
                dies_in: None,
                is_dead: false,
                calm: false,
                outage_until_ms: 0,
                disturbed_at: START,
                jumped: false,
            }),
            steps: traced.then(|| Mutex::new(vec![format!("{profile:?}")])),
        }
    }

    /// What can go wrong now.
    pub(super) fn profile(&self) -> Profile {
        let calm = self.state().calm;
        if calm {
            let Profile { steps, rate_factor, .. } = self.profile;
            return Profile { steps, rate_factor, ..Profile::default() };
        }
        self.profile
    }

    /// From now on nothing goes wrong.
    pub(super) fn calm_down(&self) {
        self.say(|| "from here on nothing goes wrong".to_owned());
        let mut state = self.state();
        (state.calm, state.outage_until_ms, state.dies_in) = (true, 0, None);
    }

    // The seed's choices.

    /// Below `most`.
    pub(super) fn below(&self, most: u64) -> u64 {
        lock(&self.rng).u64(0..most.max(1))
    }

    pub(super) fn per_thousand(&self) -> u32 {
        lock(&self.rng).u32(0..1000)
    }

    pub(super) fn percent(&self, chance: u32) -> bool {
        lock(&self.rng).u32(0..100) < chance
    }

    pub(super) fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        lock(&self.rng).choice(from)
    }

    pub(super) fn fill(&self, bytes: &mut [u8]) {
        lock(&self.rng).fill(bytes);
    }

    // The process.

    /// A process starts, and with it its clock.
    pub(super) fn process_starts(&self) -> Arc<SimulatedClock> {
        let mut state = self.state();
        let (before_ms, skew_ms) = state.at_end;
        let clock = Arc::new(SimulatedClock::new(before_ms, skew_ms));
        (state.clock, state.is_dead) = (Some(Arc::clone(&clock)), false);
        state.disturbed_at = state.disturbed_at.max(clock.now());
        clock
    }

    /// The process has ended, and nothing runs for some time.
    pub(super) fn process_ends(&self, down_ms: u64) {
        let mut state = self.state();
        if let Some(clock) = state.clock.take() {
            state.at_end = (clock.elapsed_ms() + down_ms, clock.skew_ms());
        }
    }

    /// The process dies at one of the next points.
    pub(super) fn die_soon(&self, within: u64) {
        let points = u32::try_from(self.below(within)).unwrap_or_default();
        self.state().dies_in = Some(points);
    }

    /// A point at which the process may die, or others go first.
    pub(super) async fn point(&self) {
        let dies = {
            let mut state = self.state();
            let dies = state.dies_in == Some(0) && !state.is_dead;
            state.is_dead |= dies;
            state.dies_in = state.dies_in.and_then(|points| points.checked_sub(1));
            dies
        };
        if dies {
            self.say(|| "the process dies".to_owned());
            self.stop.notify_one();
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        if self.percent(10) {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    // The time.

    /// How much time has passed, in milliseconds, whatever the clock says.
    pub(super) fn elapsed_ms(&self) -> u64 {
        let state = self.state();
        state.clock.as_ref().map_or(state.at_end.0, |clock| clock.elapsed_ms())
    }

    pub(super) async fn pass(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// What the clock of the gateway says.
    pub(super) fn now(&self) -> Timestamp {
        self.state().clock.as_ref().map_or(START, |clock| clock.now())
    }

    /// Somebody sets the clock, by as much as it may be off.
    pub(super) fn jump(&self) {
        let wanted = i64::try_from(self.below(240_000)).unwrap_or_default() - MOST_BACK_MS;
        let mut state = self.state();
        let Some(clock) = state.clock.clone() else { return };
        let by_ms = wanted.clamp(-MOST_SKEW_MS - clock.skew_ms(), MOST_SKEW_MS - clock.skew_ms());
        clock.jump(by_ms);
        state.jumped = true;
        drop(state);
        self.disturb();
        self.say(|| format!("the clock is set by {by_ms} ms"));
    }

    pub(super) fn has_jumped(&self) -> bool {
        self.state().jumped
    }

    // Faults.

    /// The store fails for some time.
    pub(super) fn begin_outage(&self, millis: u64) {
        self.say(|| format!("the store is away for {millis} ms"));
        let until = self.elapsed_ms() + millis;
        self.state().outage_until_ms = until;
    }

    pub(super) fn is_outage(&self) -> bool {
        let until = self.state().outage_until_ms;
        until > 0 && self.elapsed_ms() < until
    }

    /// Something goes wrong that may make the gateway late.
    pub(super) fn disturb(&self) {
        let now = self.now();
        let mut state = self.state();
        // What was written before the clock was set back has the time of before.
        state.disturbed_at = state.disturbed_at.max(now);
    }

    pub(super) fn disturbed_at(&self) -> Timestamp {
        self.state().disturbed_at
    }

    /// The store has stored a version of a request.
    pub(super) fn stored(&self, request: &Request, audit: &[AuditEntry]) {
        self.say(|| {
            let last = request
                .history
                .last()
                .filter(|_| !request.status().is_terminal() || request.decided_at().is_some());
            let act = last.map_or("nothing", |event| event.act.name());
            format!("store: {} v{} is {} after {act}", request.id, request.version, request.status())
        });
        let stored = lock(&self.ledger).stored(request, audit, self.disturbed_at(), self.now());
        self.must(stored);
    }

    /// Whether calls of the store take time in this schedule.
    pub(super) fn has_slow_store(&self) -> bool {
        self.profile.store_slow > 0
    }

    // What is found.

    /// Keeps the first thing that is wrong.
    pub(super) fn must(&self, found: Result<(), String>) {
        let Err(wrong) = found else { return };
        self.say(|| format!("WRONG: {wrong}"));
        self.state().wrong.get_or_insert(wrong);
        self.stop.notify_one();
    }

    pub(super) fn wrong(&self) -> Option<String> {
        self.state().wrong.clone()
    }

    /// Notes a step, if somebody wants to read them.
    pub(super) fn say(&self, step: impl FnOnce() -> String) {
        if let Some(steps) = &self.steps {
            let elapsed = self.elapsed_ms();
            lock(steps).push(format!("{:>9.3} s  {}", Duration::from_millis(elapsed).as_secs_f64(), step()));
        }
    }

    pub(super) fn steps(&self) -> Vec<String> {
        self.steps.as_ref().map(|steps| lock(steps).clone()).unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What panicked has failed the test already.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
