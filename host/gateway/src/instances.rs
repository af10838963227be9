//! Several gateways over one store: which of them live, and what the others have stored.
//!
//! Nothing here decides anything. What the store keeps from happening twice cannot happen twice however the instances
//! share their work; they share it so that little is done in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::lifecycle::RequestId;
use countersign_store::Change;

use crate::Gateway;

/// The part of the requests whose timers an instance looks after first. It is all of them while no other one lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: u32,
    count: u32,
}

impl Share {
    /// That of the whole.
    pub const ALL: Share = Share { index: 0, count: 1 };

    /// That of `instance`, of those that live; they are in the same order everywhere.
    #[must_use]
    pub fn of(instance: u64, live: &[u64]) -> Share {
        let index = live.iter().position(|it| *it == instance).and_then(|index| u32::try_from(index).ok());
        match (index, u32::try_from(live.len())) {
            (Some(index), Ok(count)) => Share { index, count },
            _ => Share::ALL,
        }
    }

    /// Whether a request is in it.
    #[must_use]
    pub fn has(self, id: RequestId) -> bool {
        u32::from(id.shard()) % self.count.max(1) == self.index
    }
}

/// What this instance knows of the others.
#[derive(Debug)]
pub(crate) struct Instances {
    /// Drawn at random when the process starts.
    id: u64,
    /// The share, its index in the upper half.
    share: AtomicU64,
}

impl Instances {
    pub(crate) fn new(id: u64) -> Instances {
        Instances { id, share: AtomicU64::new(1) }
    }

    pub(crate) fn share(&self) -> Share {
        let share = self.share.load(Ordering::Relaxed);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        Share { index: half(share >> 32), count: half(share) }
    }
}

impl Gateway {
    /// Tells this instance from the others.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instances.id
    }

    /// These instances live, this one among them.
    pub fn instances_live(&self, live: &[u64]) {
        let Share { index, count } = Share::of(self.instances.id, live);
        self.instances.share.store(u64::from(index) << 32 | u64::from(count), Ordering::Relaxed);
    }

    /// The part of the requests whose timers this instance looks after first.
    #[must_use]
    pub fn share(&self) -> Share {
        self.instances.share()
    }

    /// Another instance has stored something. Whoever waits for a request that cannot be read now looks at the store again
    /// by itself.
    pub fn hear(&self, change: &Change) {
        match change {
            Change::Request { id, version } => {
                self.outbox_bell.notify_one();
                self.dispatch_bell.notify_one();
                if self.watchers.lacks(*id, *version) {
                    let (store, watchers, id) = (Arc::clone(&self.store), self.watchers.clone(), *id);
                    tokio::spawn(async move {
                        match store.request(id).await {
                            Ok(Some(request)) => watchers.catch_up(&Arc::new(request)),
                            Ok(None) => {}
                            Err(error) => tracing::debug!(request = %id, %error, "a change cannot be read"),
                        }
                    });
                }
            }
            Change::Missed => {
                self.outbox_bell.notify_one();
                self.dispatch_bell.notify_one();
                self.watchers.look_again();
            }
            // Whoever keeps these looks at them.
            Change::PolicyInForce | Change::Document { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::lifecycle::Timestamp;

    use super::*;

    #[test]
    fn each_request_is_in_the_share_of_one_instance() {
        let live = [3, 17, 99];
        let shares = live.map(|instance| Share::of(instance, &live));
        for shard in 0..500 {
            let id = RequestId::new(Timestamp::EPOCH, shard, 7);
            assert_eq!(shares.iter().filter(|share| share.has(id)).count(), 1, "{shard}");
            assert!(Share::ALL.has(id));
        }
        assert_eq!(Share::of(5, &live), Share::ALL, "one that the others do not know looks after all");
        assert_eq!(Share::of(5, &[]), Share::ALL);
        let instances = Instances::new(17);
        assert_eq!(instances.share(), Share::ALL);
    }
}
