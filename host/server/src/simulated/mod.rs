//! A simulation of the whole gateway on one thread and in simulated time: a seed decides what callers and people do, when
//! the process dies, and how the store, Slack and the clock fail. Invariants are checked after each write, each call of
//! Slack and each thing that callers hear of.
//!
//! The gateway, the scheduler, the delivery, the HTTP routes, the answers to presses, the policies in their sandbox and
//! the SQLite store are the ones that ship. What stands in for the world outside is here. docs/SIMULATION.md says how to
//! run it, what it checks, and what it cannot find.

// What is outside of the gateway, and how it fails.
mod clock;
mod slack;
mod store;

// Who uses it.
mod callers;
mod people;

// One schedule: what is shared in it, the gateway, and what happens when.
mod gateway;
mod profile;
mod schedule;
mod world;

// What must hold.
mod expected;
mod ledger;
mod outcome;

use std::sync::atomic::{AtomicU64, Ordering};

use self::gateway::Installation;
use self::schedule::{Failure, Schedule};
use countersign_console::say;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many schedules run with all other tests.
const SHORT_RUN: u64 = 100;

#[test]
fn no_schedule_breaks_an_invariant() {
    run(0, SHORT_RUN);
}

/// A failure can be looked into only if its seed fails again in the same way.
#[test]
fn a_seed_is_always_the_same_schedule() {
    let installation = Installation::new();
    for seed in [3, 1_000_007, 0x5eed_5eed_5eed] {
        let steps = || Schedule::traced(&installation, seed).1;
        let (first, second) = (steps(), steps());
        for (number, (one, other)) in first.iter().zip(&second).enumerate() {
            assert_eq!(one, other, "step {number} of seed {seed}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert!(first.len() > 15, "seed {seed}: {first:?}");
    }
}

/// `cargo xtask simulate` runs this one.
#[test]
#[ignore = "takes minutes; `cargo xtask simulate` runs it"]
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no arguments, so `cargo xtask simulate` says here what to run"
)]
fn simulate() {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let first = variable("COUNTERSIGN_SIMULATE_SEED").expect("`cargo xtask simulate` says the first seed");
    run(first, variable("COUNTERSIGN_SIMULATE_SCHEDULES").expect("and how many"));
}

/// Runs the schedules of so many seeds from `first` on, on one thread for each core.
///
/// # Panics
/// At the first schedule that breaks an invariant, with its seed and its steps.
fn run(first: u64, schedules: u64) {
    let installation = Installation::new();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, statistics) = (AtomicU64::new(0), schedule::Statistics::default());
    let worker = || -> Option<(u64, Failure)> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= schedules {
                return None;
            }
            let seed = first.wrapping_add(number);
            if let Err(failure) = Schedule::run(&installation, seed, &statistics) {
                next.store(schedules, Ordering::Relaxed);
                return Some((seed, failure));
            }
        }
    };
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let ended = workers.into_iter().map(|worker| worker.join().expect("a schedule reports its failures"));
        ended.flatten().min_by_key(|(seed, _)| *seed)
    });
    say!("{statistics}");
    let Some((seed, failure)) = failed else { return };
    let (again, steps) = Schedule::traced(&installation, seed);
    let repeated = match again {
        Err(again) if again == failure => "",
        _ => "\nIt did not fail in the same way again: something in it does not follow from the seed.",
    };
    panic!(
        "seed {seed}: {failure}{repeated}\nThe steps:\n{}\nRepeat it with `cargo xtask simulate --seed {seed} --schedules 1`.",
        steps.join("\n")
    );
}
