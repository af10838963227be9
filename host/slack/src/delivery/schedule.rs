//! The time by which delivery schedules what the store keeps.

use std::sync::Arc;

use countersign_core::clock::{Clock, Monotonic};
use countersign_core::lifecycle::Timestamp;

/// The time of delivery: what the wall clock showed when the worker was made, and what has passed since by the monotonic
/// clock.
///
/// When an outbox entry is ready, and when a message is looked at again, is stored, so it cannot be a reading of the
/// monotonic clock. A wall clock that is set back would make it wait. This time never jumps; only after a restart can it be
/// earlier than a stored one should be, and then the store has nothing wait longer than
/// [`LONGEST_WAIT_MS`](countersign_store::LONGEST_WAIT_MS).
#[derive(Clone)]
pub(super) struct Schedule {
    clock: Arc<dyn Clock>,
    wall: Timestamp,
    monotonic: Monotonic,
}

impl Schedule {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Schedule {
        let now = clock.moment();
        Schedule { clock, wall: now.wall, monotonic: now.monotonic }
    }

    /// The time of delivery. It is compared with nothing but what delivery itself has stored.
    pub(super) fn now(&self) -> Timestamp {
        self.wall.plus(self.clock.monotonic().since(self.monotonic))
    }
}
