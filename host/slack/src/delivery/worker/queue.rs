//! The jobs that are due, the most urgent first, and within an urgency the channels in turns.

use std::collections::{HashMap, HashSet};

use countersign_core::lifecycle::{RequestId, Timestamp};
use countersign_core::record::Slot;
use countersign_store::{StoreError, Urgency};

use super::Worker;
use crate::delivery::job::Job;

/// How many outbox entries of each urgency and channel are looked at: more than can be started at a time.
const WINDOW: usize = 32;

/// How many messages of each channel that are due for a refresh are looked at.
const REFRESH_WINDOW: usize = 8;

/// A job that is due.
pub(super) struct QueuedJob {
    pub(super) job: Job,
    pub(super) priority: Priority,
    /// Where it is delivered. Empty if nowhere.
    pub(super) channel: String,
    /// Since when it waits.
    pub(super) since: Timestamp,
    /// The revision of its outbox entry; 0 for a refresh.
    pub(super) revision: u64,
}

/// The order of jobs, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Priority {
    Ended,
    First,
    Changed,
    Refresh,
    Unseen,
}

impl From<Urgency> for Priority {
    fn from(urgency: Urgency) -> Priority {
        match urgency {
            Urgency::Ended => Priority::Ended,
            Urgency::First => Priority::First,
            Urgency::Changed => Priority::Changed,
            Urgency::Unseen => Priority::Unseen,
        }
    }
}

/// When each channel had its last turn. One that nothing waits for is forgotten, and so comes first when something does.
#[derive(Debug, Default)]
pub(super) struct Turns {
    count: u64,
    last: HashMap<String, u64>,
}

impl Turns {
    pub(super) fn take(&mut self, channel: &str) {
        self.count += 1;
        self.last.insert(channel.to_owned(), self.count);
    }

    /// The number of a channel's last turn; 0 if it had none.
    pub(super) fn last(&self, channel: &str) -> u64 {
        self.last.get(channel).copied().unwrap_or_default()
    }

    fn retain(&mut self, waiting: &HashSet<&str>) {
        self.last.retain(|channel, _| waiting.contains(channel.as_str()));
    }
}

impl Worker {
    /// The jobs that are due by priority. Within a priority the channels take turns, the one first whose last turn is the
    /// longest ago; within a channel the longest waiting job comes first.
    pub(super) async fn queue(&mut self) -> Result<Vec<QueuedJob>, StoreError> {
        let now = self.schedule.now();
        let ready = self.store.ready_outbox(now, WINDOW).await?;
        let stale = self.store.stale_slack_posts(now, REFRESH_WINDOW).await?;
        let in_outbox: HashSet<RequestId> = ready.iter().map(|entry| entry.request).collect();
        let mut queue: Vec<QueuedJob> = ready
            .into_iter()
            .map(|entry| QueuedJob {
                job: Job::Outbox(entry.request, entry.effect),
                priority: entry.urgency.into(),
                channel: entry.channel,
                since: entry.since,
                revision: entry.revision,
            })
            .collect();
        // Delivering an outbox entry refreshes the message too.
        let stale =
            stale.into_iter().filter(|post| post.slot == Slot::Main && !in_outbox.contains(&post.request));
        queue.extend(stale.map(|post| QueuedJob {
            job: Job::Refresh(post.request),
            priority: Priority::Refresh,
            channel: post.channel,
            since: post.since,
            revision: 0,
        }));
        let due: HashSet<Job> = queue.iter().map(|queued| queued.job).collect();
        self.next_calls.retain(|job, _| due.contains(job));
        let mut waiting: HashSet<&str> = queue.iter().map(|queued| queued.channel.as_str()).collect();
        waiting.extend(self.active.values().map(|active| active.channel.as_str()));
        self.turns.retain(&waiting);
        self.shared_turns.retain(&waiting);
        queue.sort_by_key(|queued| (queued.priority, queued.since));
        Ok(in_turns(queue, &self.turns))
    }
}

/// Orders jobs so that within a priority each channel has one turn before any has a second one.
fn in_turns(queue: Vec<QueuedJob>, turns: &Turns) -> Vec<QueuedJob> {
    let mut rounds: HashMap<(Priority, String), usize> = HashMap::new();
    let mut placed: Vec<_> = queue
        .into_iter()
        .map(|queued| {
            let round = rounds.entry((queued.priority, queued.channel.clone())).or_default();
            *round += 1;
            ((queued.priority, *round, turns.last(&queued.channel)), queued)
        })
        .collect();
    // The sort is stable: of two channels without a turn the one that has waited for longer comes first.
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, queued)| queued).collect()
}
