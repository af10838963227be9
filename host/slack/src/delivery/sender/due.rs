//! When what this sender has postponed is due: it is read from the store again then, and not looked for before.

use std::collections::BTreeSet;

use countersign_core::lifecycle::Timestamp;

/// The most times that are remembered, the earliest ones. What is due at a later one is found without.
const MOST: usize = 4_096;

/// Nobody waits for a refresh, so those that are due within this time of each other are read together, in milliseconds.
const REFRESHES_MS: u64 = 1_000;

/// Times by the schedule of delivery.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Due(BTreeSet<Timestamp>);

impl Due {
    /// An outbox entry is ready at this time.
    pub(super) fn at(&mut self, at: Timestamp) {
        self.0.insert(at);
        if self.0.len() > MOST {
            self.0.pop_last();
        }
    }

    /// A refresh of a message is due at this time.
    pub(super) fn refresh_at(&mut self, at: Timestamp) {
        let millis = at.as_millis().div_ceil(REFRESHES_MS).saturating_mul(REFRESHES_MS);
        self.at(Timestamp::from_millis(millis));
    }

    /// The earliest time.
    pub(in crate::delivery) fn next(&self) -> Option<Timestamp> {
        self.0.first().copied()
    }

    /// What was due until `now` has been read.
    pub(in crate::delivery) fn passed(&mut self, now: Timestamp) {
        self.0.retain(|at| *at > now);
    }
}
