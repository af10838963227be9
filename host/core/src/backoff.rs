//! Exponential back-off with jitter, for everything that is tried again.

/// How long to wait before something is tried again: twice as long after each failure, up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first_ms: u64,
    longest_ms: u64,
}

impl Backoff {
    /// Waits `first_ms` milliseconds after the first failure, and never longer than `longest_ms`.
    #[must_use]
    pub const fn new(first_ms: u64, longest_ms: u64) -> Backoff {
        Backoff { first_ms, longest_ms }
    }

    /// The longest wait, in milliseconds.
    #[must_use]
    pub const fn longest_ms(self) -> u64 {
        self.longest_ms
    }

    /// The wait after `failures` earlier failures, without jitter, in milliseconds.
    #[must_use]
    pub const fn after(self, failures: u32) -> u64 {
        let wait = self.first_ms.saturating_mul(2_u64.saturating_pow(failures));
        if wait < self.longest_ms { wait } else { self.longest_ms }
    }

    /// The same with full jitter: anything from 0 to that, so that those who failed together do not come back together.
    #[must_use]
    pub fn full_jitter(self, failures: u32, rng: &mut fastrand::Rng) -> u64 {
        rng.u64(0..=self.after(failures))
    }

    /// The same, give or take a quarter: for waits that must not be short.
    #[must_use]
    pub fn around(self, failures: u32, rng: &mut fastrand::Rng) -> u64 {
        around(self.after(failures), rng)
    }
}

/// `wait_ms`, give or take a quarter.
#[must_use]
pub fn around(wait_ms: u64, rng: &mut fastrand::Rng) -> u64 {
    let quarter = wait_ms / 4;
    wait_ms.saturating_sub(quarter).saturating_add(rng.u64(0..=quarter.saturating_mul(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_its_limit() {
        let backoff = Backoff::new(1_000, 60_000);
        let waits: Vec<u64> =
            [0, 1, 2, 5, 6, 7, 63, 64, u32::MAX].map(|failures| backoff.after(failures)).into();
        assert_eq!(waits, [1_000, 2_000, 4_000, 32_000, 60_000, 60_000, 60_000, 60_000, 60_000]);
        assert_eq!(Backoff::new(0, 60_000).after(9), 0);
    }

    #[test]
    fn jitter_keeps_to_its_bounds() {
        let mut rng = fastrand::Rng::with_seed(7);
        let backoff = Backoff::new(1_000, 60_000);
        for failures in 0..20 {
            assert!(backoff.full_jitter(failures, &mut rng) <= backoff.after(failures));
            let around = backoff.around(failures, &mut rng);
            assert!(
                around >= backoff.after(failures) / 4 * 3 && around <= backoff.after(failures) / 4 * 5,
                "{around}"
            );
        }
    }
}
