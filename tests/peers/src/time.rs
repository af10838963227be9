//! How long the calls of several engines take, measured in turns.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use crate::case::TIMED;
use crate::engine::Judge;

/// Calls of an engine before it is the next one's turn: many, as the first ones find cold caches.
const TURN: usize = 1000;

/// Turns that are not counted.
const WARM_UP: usize = 2;

/// What the calls of one engine took.
#[derive(Debug, Default)]
pub(crate) struct Times {
    calls: Vec<Duration>,
    elapsed: Duration,
    cpu: Duration,
}

impl Times {
    /// What `percent` of the calls did not exceed, in microseconds.
    pub(crate) fn percentile(&mut self, percent: usize) -> f64 {
        self.calls.sort_unstable();
        let rank = (self.calls.len() * percent).div_ceil(100).saturating_sub(1);
        micros(self.calls.get(rank).copied().unwrap_or_default())
    }

    /// How many calls one thread made in a second.
    pub(crate) fn rate(&self) -> Result<f64> {
        Ok(self.count()? / self.elapsed.as_secs_f64())
    }

    /// The CPU time of a call, in microseconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        Ok(micros(self.cpu) / self.count()?)
    }

    fn count(&self) -> Result<f64> {
        Ok(f64::from(u32::try_from(self.calls.len())?))
    }
}

/// Measures at least `calls` calls of each. In turns, so that whatever else the machine does slows all of them alike;
/// and whoever begins may have it easier or harder, so each begins as often.
pub(crate) fn measure(judges: &mut [Box<dyn Judge>], calls: usize) -> Result<Vec<Times>> {
    for judge in &mut *judges {
        judge.take(TIMED)?;
    }
    let count = judges.len();
    let mut times: Vec<Times> = (0..count).map(|_| Times::default()).collect();
    for round in 0..WARM_UP + calls.div_ceil(TURN) {
        for place in 0..count {
            let place = (round + place) % count;
            let judge = judges.get_mut(place).context("it is one of them")?;
            let turn = turn(judge.as_mut())?;
            if round >= WARM_UP {
                let times = times.get_mut(place).context("it is one of them")?;
                times.calls.extend(turn.calls);
                times.elapsed += turn.elapsed;
                times.cpu += turn.cpu;
            }
        }
    }
    Ok(times)
}

fn turn(judge: &mut dyn Judge) -> Result<Times> {
    let mut calls = Vec::with_capacity(TURN);
    let (started, cpu) = (now(), cpu_time());
    for _ in 0..TURN {
        let started = now();
        let answer = judge.judge()?;
        calls.push(started.elapsed());
        ensure!(answer == TIMED.answer, "suddenly {answer:?}");
    }
    Ok(Times { calls, elapsed: started.elapsed(), cpu: cpu_time().saturating_sub(cpu) })
}

/// The time for which the threads of this process have run.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn now() -> Instant {
    Instant::now()
}
