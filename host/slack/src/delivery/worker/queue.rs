//! The jobs that are due, the most urgent first, and within an urgency the channels in turns.
//!
//! They are read in batches, and kept until they are begun. What is kept is a hint: a claim decides who carries a job out,
//! and one that another worker has taken is dropped when its claim fails.

use std::collections::{HashMap, HashSet};

use countersign_core::clock::Monotonic;
use countersign_core::lifecycle::{RequestId, Timestamp};
use countersign_core::record::Slot;
use countersign_store::{StoreError, Urgency};

use super::{POLL_MS, Worker};
use crate::delivery::job::Job;

/// How many outbox entries of each urgency and channel are read at a time.
const WINDOW: usize = 32;

/// How many messages of each channel that are due for a refresh are read at a time.
const REFRESH_WINDOW: usize = 8;

/// The next batch is read when this part of one is left of an urgency and channel: more than can be started at a time.
const LOW: usize = 4;

/// The longest that jobs are kept without reading anew, in milliseconds. What was stored is notified of, and what this
/// worker has postponed it knows, so this finds what others have postponed or claimed, and what a lost hint was about.
const KEPT_MS: u64 = 5_000;

/// The jobs that were read and not begun.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    jobs: Vec<QueuedJob>,
    /// The priorities and channels of which the store may have more, and how many are left when the next ones are read.
    full: HashMap<(Priority, String), usize>,
    /// When they are read anew in any case. At once, if they never were.
    read_at: Option<Monotonic>,
    /// Whether something was stored since.
    pub(super) is_outdated: bool,
}

/// A job that is due.
#[derive(Debug)]
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

impl Backlog {
    /// The jobs by priority. Within a priority the channels take turns, the one first whose last turn is the longest ago;
    /// within a channel the longest waiting job comes first.
    pub(super) fn take_in_turns(&mut self, turns: &Turns) -> Vec<QueuedJob> {
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.sort_by_key(|queued| (queued.priority, queued.since));
        in_turns(jobs, turns)
    }

    /// Keeps the jobs that are not begun.
    pub(super) fn put_back(&mut self, jobs: Vec<QueuedJob>, is_begun: impl Fn(Job) -> bool) {
        self.jobs = jobs;
        self.jobs.retain(|queued| !is_begun(queued.job));
    }

    /// Whether the store may have more of something of which little is left.
    fn runs_low(&self) -> bool {
        let mut left: HashMap<(Priority, &str), usize> = HashMap::new();
        for queued in &self.jobs {
            *left.entry((queued.priority, &queued.channel)).or_default() += 1;
        }
        let mut full = self.full.iter();
        full.any(|((priority, channel), low)| {
            left.get(&(*priority, channel.as_str())).copied().unwrap_or_default() <= *low
        })
    }

    fn replace(&mut self, jobs: Vec<QueuedJob>, read_at: Monotonic) {
        let mut read: HashMap<(Priority, String), usize> = HashMap::new();
        for queued in &jobs {
            *read.entry((queued.priority, queued.channel.clone())).or_default() += 1;
        }
        let window = |priority| if priority == Priority::Refresh { REFRESH_WINDOW } else { WINDOW };
        let full = read.into_iter().filter(|((priority, _), count)| *count >= window(*priority));
        self.full = full.map(|(of, _)| (window(of.0) / LOW, of)).map(|(low, of)| (of, low)).collect();
        (self.jobs, self.read_at, self.is_outdated) = (jobs, Some(read_at), false);
    }
}

impl Worker {
    /// Reads the jobs that are due, if those that are kept are outdated or run low.
    pub(super) async fn read_backlog(&mut self, now: Monotonic) -> Result<(), StoreError> {
        if self.next_read(now) > now && !self.backlog.is_outdated && !self.backlog.runs_low() {
            return Ok(());
        }
        let read_until = self.schedule.now();
        let ready = self.store.ready_outbox(read_until, WINDOW).await?;
        let stale = self.store.stale_slack_posts(read_until, REFRESH_WINDOW).await?;
        self.sender.due().passed(read_until);
        let in_outbox: HashSet<RequestId> = ready.iter().map(|entry| entry.request).collect();
        let mut jobs: Vec<QueuedJob> = ready
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
        jobs.extend(stale.map(|post| QueuedJob {
            job: Job::Refresh(post.request),
            priority: Priority::Refresh,
            channel: post.channel,
            since: post.since,
            revision: 0,
        }));
        let due: HashSet<Job> = jobs.iter().map(|queued| queued.job).collect();
        self.next_calls.retain(|job, _| due.contains(job));
        let mut waiting: HashSet<&str> = jobs.iter().map(|queued| queued.channel.as_str()).collect();
        waiting.extend(self.active.values().map(|active| active.channel.as_str()));
        self.turns.retain(&waiting);
        self.shared_turns.retain(&waiting);
        let kept_ms = if jobs.is_empty() { POLL_MS } else { KEPT_MS };
        self.backlog.replace(jobs, now.plus(kept_ms));
        Ok(())
    }

    /// When the jobs are read anew, unless something is stored before, or they run low.
    pub(super) fn next_read(&self, now: Monotonic) -> Monotonic {
        let Some(read_at) = self.backlog.read_at else { return now };
        let due = self.sender.due().next().map(|at| now.plus(at.since(self.schedule.now())));
        due.map_or(read_at, |due| due.min(read_at))
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
