//! One schedule: what happens when, from the first request to the time when nothing is left to do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::lifecycle::Status;
use countersign_store::faulty::FaultyStore;
use countersign_store::{SqliteStore, Store};
use fastrand::Rng;
use tokio::task::JoinHandle;

use super::callers;
use super::gateway::{Installation, Process};
use super::outcome;
use super::people;
use super::store::StoreFaults;
use super::world::{World, lock};

/// How long it may take until nothing is left to do, once nothing goes wrong any more, in milliseconds: a channel that
/// Slack has refused is tried again within a quarter of an hour.
const SETTLED_WITHIN_MS: u64 = 60 * 60 * 1000;

/// The longest time between two heartbeats of a stream, and a little more, in milliseconds.
const HEARTBEAT_MS: u64 = 21_000;

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What all schedules together did: a run in which nothing was approved shows nothing.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    schedules: AtomicU64,
    requests: AtomicU64,
    versions: AtomicU64,
    approved: AtomicU64,
    denied: AtomicU64,
    expired: AtomicU64,
    cancelled: AtomicU64,
    presses: AtomicU64,
    messages: AtomicU64,
    processes: AtomicU64,
    simulated_ms: AtomicU64,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statistics { schedules, requests, versions, approved, denied, expired, cancelled, .. } = self;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (requests, versions) = (of(requests), of(versions));
        let (approved, denied, expired, cancelled) = (of(approved), of(denied), of(expired), of(cancelled));
        let (presses, messages, processes) = (of(&self.presses), of(&self.messages), of(&self.processes));
        let hours = of(&self.simulated_ms) / 3_600_000;
        write!(
            f,
            "{} schedules: {requests} requests in {versions} versions ({approved} approved, {denied} denied, {expired} \
             expired, {cancelled} cancelled), {presses} presses, {messages} messages, {processes} processes, {hours} \
             hours of simulated time",
            of(schedules)
        )
    }
}

/// A schedule that is being carried out.
pub(super) struct Schedule<'a> {
    installation: &'a Installation,
    world: Arc<World>,
    store: Arc<FaultyStore<StoreFaults>>,
    /// How many steps are still to come before nothing goes wrong any more.
    steps_left: u32,
    processes: u64,
}

/// How a process ended.
enum End {
    /// Nothing is left to do, or something is wrong.
    Done,
    Died,
}

impl Schedule<'_> {
    /// Carries out the schedule of this seed.
    pub(super) fn run(
        installation: &Installation,
        seed: u64,
        statistics: &Statistics,
    ) -> Result<(), Failure> {
        let mut schedule = Schedule::new(installation, seed, false);
        let outcome = schedule.carry_out();
        schedule.count(statistics);
        outcome
    }

    /// Carries it out, and also returns what happened.
    pub(super) fn traced(installation: &Installation, seed: u64) -> (Result<(), Failure>, Vec<String>) {
        let mut schedule = Schedule::new(installation, seed, true);
        (schedule.carry_out(), schedule.world.steps())
    }

    fn new(installation: &Installation, seed: u64, traced: bool) -> Schedule<'_> {
        // What spreads retries draws from the generator of the thread.
        fastrand::seed(seed);
        let mut rng = Rng::with_seed(seed);
        // Neighbouring seeds begin alike.
        let rng = rng.fork();
        let world = Arc::new(World::new(Arc::clone(&installation.policies), rng, traced));
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().expect("memory"));
        let store = Arc::new(FaultyStore { store, faults: StoreFaults(Arc::clone(&world)) });
        let steps_left = world.profile().steps;
        Schedule { installation, world, store, steps_left, processes: 0 }
    }

    fn carry_out(&mut self) -> Result<(), Failure> {
        loop {
            // A process is a runtime: when it is dropped, every task of it ends where it is.
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let runtime = runtime.expect("a runtime without I/O");
            let end = runtime.block_on(self.process());
            let down_ms =
                if self.world.percent(80) { self.world.below(3_000) } else { self.world.below(60_000) };
            runtime.block_on(async { self.world.process_ends(down_ms) });
            drop(runtime);
            if let Some(wrong) = self.world.wrong() {
                return Err(Failure(wrong));
            }
            if let End::Done = end {
                return Ok(());
            }
            callers::process_ended(&self.world);
            people::process_ended(&self.world);
            let now = self.world.elapsed_ms();
            lock(&self.world.slack).process_ended(now, self.world.has_jumped());
        }
    }

    /// From the start of a process to its end.
    async fn process(&mut self) -> End {
        if self.processes == 0 {
            let entries = self.installation.entries.clone();
            self.store.store.pin(entries, Vec::new()).await.expect("the store is empty");
        }
        self.processes += 1;
        let store = Arc::<FaultyStore<StoreFaults>>::clone(&self.store);
        let (process, tasks) = Process::start(self.installation, &self.world, store);
        self.world.say(|| "a process starts".to_owned());
        while self.steps_left > 0 {
            if self.steps_left == self.world.profile().steps {
                // Before the first request there is little to do, and most schedules are short.
                callers::ask(&self.world, &process);
            }
            self.steps_left -= 1;
            self.step(&process);
            // Some things happen at the same time.
            for _ in 0..self.world.below(4) {
                self.act(&process);
            }
            if self.wait().await {
                return self.ended();
            }
            self.must_run(&tasks);
        }
        self.world.calm_down();
        self.settle(&process, &tasks).await;
        self.ended()
    }

    fn ended(&self) -> End {
        if self.world.is_dead() && self.world.wrong().is_none() { End::Died } else { End::Done }
    }

    /// Lets some time pass. True if the process ended meanwhile.
    async fn wait(&self) -> bool {
        let world = &self.world;
        let millis = match world.below(100) {
            0..35 => world.below(5),
            35..65 => world.below(400),
            65..90 => world.below(4_000),
            _ => world.below(20_000),
        };
        self.pass(millis).await
    }

    async fn pass(&self, millis: u64) -> bool {
        tokio::select! {
            biased;
            () = self.world.stop.notified() => true,
            () = self.world.pass(millis) => false,
        }
    }

    /// Something happens.
    fn step(&self, process: &Process) {
        let (world, profile) = (&self.world, self.world.profile());
        callers::listen(world, process);
        if world.percent(profile.crashes) {
            world.die_soon(60);
        }
        if world.percent(profile.outages) {
            world.begin_outage(1 + world.below(20_000));
        }
        if world.percent(profile.outages) {
            let millis = 1 + world.below(40_000);
            world.say(|| format!("Slack is away for {millis} ms"));
            lock(&world.slack).away_until_ms = world.elapsed_ms() + millis;
        }
        if world.percent(profile.jumps) {
            world.jump();
        }
        self.act(process);
    }

    /// Somebody does something.
    fn act(&self, process: &Process) {
        let world = &self.world;
        match world.below(100) {
            0..12 => callers::ask(world, process),
            12..20 => callers::ask_again(world, process),
            20..26 => people::redeliver(world, process),
            26..28 => callers::cancel(world, process),
            28..31 => callers::look(world, process),
            _ => people::act(world, process),
        }
    }

    /// Without the scheduler nothing expires, and without the delivery nobody sees anything.
    fn must_run(&self, tasks: &[JoinHandle<()>; 2]) {
        let has_ended = tasks.iter().any(JoinHandle::is_finished) && !self.world.is_dead();
        self.world.must(if has_ended {
            Err("a task that runs for ever has ended".to_owned())
        } else {
            Ok(())
        });
    }

    /// Waits until nothing is left to do, and looks at what has become of everything.
    async fn settle(&self, process: &Process, tasks: &[JoinHandle<()>; 2]) {
        lock(&self.world.slack).away_until_ms = 0;
        let until = self.world.elapsed_ms() + SETTLED_WITHIN_MS;
        loop {
            people::redeliver(&self.world, process);
            callers::listen(&self.world, process);
            if self.pass(5_000).await {
                return;
            }
            self.must_run(tasks);
            let now = self.world.elapsed_ms();
            lock(&self.world.slack).advance(now);
            let left = outcome::left_to_do(&self.world, &*self.store.store).await;
            if left.is_none() {
                break;
            }
            if now > until {
                return self.world.must(Err(format!("it is not done: {}", left.unwrap_or_default())));
            }
        }
        // A stream that was not told looks at the store itself at its next heartbeat, and one that was cut comes again.
        // Some schedules go on for that long although no stream waits: nothing may happen after the end.
        let goes_on = self.world.percent(10);
        for _ in 0..5 {
            callers::listen(&self.world, process);
            if self.pass(HEARTBEAT_MS / 4).await {
                return;
            }
            if !goes_on && outcome::check_streams(&self.world).is_ok() {
                break;
            }
        }
        self.world.must(outcome::check(&self.world, &*self.store.store).await);
    }

    fn count(&self, statistics: &Statistics) {
        let add = |count: &AtomicU64, by: usize| {
            count.fetch_add(u64::try_from(by).unwrap_or_default(), Ordering::Relaxed);
        };
        let ledger = lock(&self.world.ledger);
        let ended = |status: Status| {
            let last = ledger.requests.values().filter_map(|versions| versions.last());
            last.filter(|request| request.status() == status).count()
        };
        add(&statistics.schedules, 1);
        add(&statistics.requests, ledger.requests.len());
        add(&statistics.versions, ledger.requests.values().map(Vec::len).sum());
        add(&statistics.approved, ended(Status::Approved));
        add(&statistics.denied, ended(Status::Denied));
        add(&statistics.expired, ended(Status::Expired));
        add(&statistics.cancelled, ended(Status::Cancelled));
        add(&statistics.presses, lock(&self.world.people).presses.len());
        add(&statistics.messages, lock(&self.world.slack).messages.len());
        statistics.processes.fetch_add(self.processes, Ordering::Relaxed);
        statistics.simulated_ms.fetch_add(self.world.elapsed_ms(), Ordering::Relaxed);
    }
}
