//! What was tried and may still be due: until when it is left alone.

use countersign_core::lifecycle::Timestamp;

/// The first and the longest time to wait before a request that stays due is tried again, in milliseconds.
const RETRY_MS: (u64, u64) = (1_000, 60_000);

/// How long a request that breaks the gateway is left alone, in milliseconds.
const QUARANTINE_MS: u64 = 60 * 60 * 1_000;

/// A time in which nothing is done. It ends at its end, and if the clock is set back to before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    from: Timestamp,
    pub(super) until: Timestamp,
}

impl Pause {
    pub(super) fn new(now: Timestamp, ms: u64) -> Pause {
        Pause { from: now, until: now.plus(ms) }
    }

    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }
}

/// A request that was tried, and is left alone as long as the same thing is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// What was tried: the due time that it was listed with. With another one something else is due.
    pub(super) due_at: Timestamp,
    pause: Pause,
    /// The wait that doubles each time.
    wait_ms: u64,
    is_quarantined: bool,
    /// The last look at which it was due.
    seen: u64,
}

impl Held {
    /// Longer than the `last` time.
    pub(super) fn again(last: Option<&Held>, due_at: Timestamp, now: Timestamp) -> Held {
        let wait_ms = last.map_or(0, |held| held.wait_ms.saturating_mul(2)).clamp(RETRY_MS.0, RETRY_MS.1);
        Held { due_at, pause: Pause::new(now, wait_ms), wait_ms, is_quarantined: false, seen: 0 }
    }

    /// For a moment, whatever the `last` time was: what keeps it from being done does not lie in the request.
    pub(super) fn for_now(last: Option<&Held>, due_at: Timestamp, now: Timestamp) -> Held {
        let wait_ms = last.map_or(0, |held| held.wait_ms);
        let pause = Pause::new(now, super::PAUSE_MS);
        Held { due_at, pause, wait_ms, is_quarantined: false, seen: 0 }
    }

    pub(super) fn in_quarantine(due_at: Timestamp, now: Timestamp) -> Held {
        let pause = Pause::new(now, QUARANTINE_MS);
        Held { due_at, pause, wait_ms: 0, is_quarantined: true, seen: 0 }
    }

    /// The same, but no longer than until its expiry, which needs no policy.
    pub(super) fn until_expiry(self, expires_at: Option<Timestamp>) -> Held {
        let Pause { from, until } = self.pause;
        let until = expires_at.filter(|at| *at > from).map_or(until, |at| at.min(until));
        Held { pause: Pause { from, until }, ..self }
    }

    /// Whether it is to be left alone now, if it is listed with this due time.
    pub(super) fn holds(&self, due_at: Timestamp, now: Timestamp) -> bool {
        self.due_at == due_at && self.pause.holds(now)
    }

    pub(super) fn seen_at(self, look: u64) -> Held {
        Held { seen: look, ..self }
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    pub(super) fn until(&self) -> Timestamp {
        self.pause.until
    }

    pub(super) fn wait_ms(&self) -> u64 {
        self.wait_ms
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.is_quarantined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const DUE: Timestamp = Timestamp::from_millis(900_000);

    #[test]
    fn it_is_left_alone_as_long_as_the_same_thing_is_due() {
        let held = Held::again(None, DUE, NOW);
        assert!(held.holds(DUE, NOW));
        assert!(held.holds(DUE, NOW.plus(999)));
        assert!(!held.holds(DUE, NOW.plus(1000)));
        assert!(
            !held.holds(DUE.plus(1), NOW),
            "something else is due, such as a wake-up after an escalation"
        );
        assert!(!held.holds(DUE, NOW.minus(1)), "the clock was set back, so that its end may be far away");
    }

    #[test]
    fn it_waits_longer_each_time_except_for_what_does_not_lie_in_it() {
        let first = Held::again(None, DUE, NOW);
        let second = Held::again(Some(&first), DUE, NOW);
        let outage = Held::for_now(Some(&second), DUE, NOW);
        let third = Held::again(Some(&outage), DUE, NOW);
        let waits = [first, second, outage, third].map(|held| held.until().since(NOW));
        assert_eq!(waits, [1_000, 2_000, 1_000, 4_000]);
        assert_eq!((0..9).fold(first, |held, _| Held::again(Some(&held), DUE, NOW)).wait_ms(), 60_000);
    }

    #[test]
    fn nothing_is_left_alone_beyond_its_expiry() {
        for (expires_at, until) in [
            (None, NOW.plus(QUARANTINE_MS)),
            (Some(NOW.plus(5)), NOW.plus(5)),
            (Some(NOW.plus(2 * QUARANTINE_MS)), NOW.plus(QUARANTINE_MS)),
            // It was the expiry itself that broke.
            (Some(NOW), NOW.plus(QUARANTINE_MS)),
        ] {
            assert_eq!(Held::in_quarantine(DUE, NOW).until_expiry(expires_at).until(), until);
        }
    }
}
