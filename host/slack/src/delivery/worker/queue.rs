//! The jobs that are due, the most urgent first.

use std::collections::HashSet;

use countersign_core::lifecycle::{RequestId, Timestamp};
use countersign_core::record::Slot;
use countersign_store::{StoreError, Urgency};

use super::Worker;
use crate::delivery::job::Job;

/// How many outbox entries of each urgency are looked at: more than can be sent within some minutes.
const WINDOW: usize = 1024;

/// How many messages that are due for a refresh are looked at.
const REFRESH_WINDOW: usize = 32;

/// A job that is due.
pub(super) struct QueuedJob {
    pub(super) job: Job,
    pub(super) priority: Priority,
    /// Since when it waits.
    pub(super) since: Timestamp,
    /// The revision of its outbox entry; 0 for a refresh.
    pub(super) revision: u64,
}

/// The order of jobs, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    Outbox(Urgency),
    Refresh,
}

impl Worker {
    /// The jobs that are due by priority, and within a priority the longest waiting first.
    pub(super) async fn queue(&mut self) -> Result<Vec<QueuedJob>, StoreError> {
        let now = self.schedule.now();
        let ready = self.store.ready_outbox(now, WINDOW).await?;
        let stale = self.store.stale_slack_posts(now, REFRESH_WINDOW).await?;
        let in_outbox: HashSet<RequestId> = ready.iter().map(|entry| entry.request).collect();
        let mut queue: Vec<QueuedJob> = ready
            .into_iter()
            .map(|entry| QueuedJob {
                job: Job::Outbox(entry.request, entry.effect),
                priority: Priority::Outbox(entry.urgency),
                since: entry.since,
                revision: entry.revision,
            })
            .collect();
        // Delivering an outbox entry refreshes the message too.
        let stale = stale.into_iter().filter(|(id, slot)| *slot == Slot::Main && !in_outbox.contains(id));
        queue.extend(stale.map(|(id, _)| QueuedJob {
            job: Job::Refresh(id),
            priority: Priority::Refresh,
            since: now,
            revision: 0,
        }));
        let due: HashSet<Job> = queue.iter().map(|queued| queued.job).collect();
        self.next_calls.retain(|job, _| due.contains(job));
        // The sort is stable, so refreshes stay in the store's order: the most overdue first.
        queue.sort_by_key(|queued| (queued.priority, queued.since));
        Ok(queue)
    }
}
