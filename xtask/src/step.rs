//! The steps of a command: each has a heading, and says how long it took.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Runs a step under a heading.
pub(crate) fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n── {what}");
    let watch = Stopwatch::start();
    let done = run()?;
    println!("   {what}: {}", watch.elapsed());
    Ok(done)
}

/// Measures how long something takes.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "this is what measures")]
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Elapsed {
        Elapsed(self.0.elapsed())
    }
}

/// A duration, as people read it.
pub(crate) struct Elapsed(Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0..10 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds @ 10..60 => write!(f, "{seconds} s"),
            seconds => write!(f, "{} min {} s", seconds / 60, seconds % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_seconds_and_minutes() {
        for (milliseconds, shown) in
            [(0, "0.0 s"), (3_440, "3.4 s"), (10_000, "10 s"), (59_999, "59 s"), (372_000, "6 min 12 s")]
        {
            assert_eq!(Elapsed(Duration::from_millis(milliseconds)).to_string(), shown);
        }
    }
}
