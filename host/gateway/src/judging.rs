//! On which thread policies are asked.
//!
//! A judgement takes microseconds as a rule, and is made on the thread that needs it: to hand it to another one and to wake
//! up for its result would double its cost. One that takes long must not hold up whatever else that thread has to do, so
//! while an action's judgements are slow they are made on other threads, and no more of them wait than can be made soon.
//! One action does not take all of these threads, if there are several, and actions take turns: an action may be slow only
//! because the machine is busy, and must not wait for all that waits for another one.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::lifecycle::Digest;
use countersign_policy::ActionPolicy;
use countersign_trace::carried;
use prometheus::IntCounter;
use tokio::sync::{AcquireError, Semaphore};
use tokio::task::JoinError;

use crate::GatewayError;

/// How much work of one action may wait, for each thread that it may take. Whoever would have to wait longer is refused at once.
const MOST_WAITING: Duration = Duration::from_secs(2);

/// How many of an action's due requests may wait at once, and how many of all actions. The scheduler comes back for others.
const MOST_DUE: usize = 16;
const MOST_DUE_OF_ALL: usize = 128;

/// Who needs a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A caller or a person: they are told that there is too much to do, and can try again.
    Person,
    /// The scheduler: callers, however many, do not keep it from what is due.
    Scheduler,
}

/// Asks policies, on this thread or on another one.
pub(crate) struct Judges {
    /// Whether all is done on the thread that needs it.
    in_place: bool,
    /// How many threads one action may take.
    each: u32,
    free: Arc<Semaphore>,
    queues: Mutex<HashMap<Digest, Queue>>,
    refused: IntCounter,
}

/// What waits for the slow policies of an action, or is being judged by them.
#[derive(Debug)]
struct Queue {
    /// Who of them may wait for a thread: as many as may have one. So actions take turns.
    turn: Arc<Semaphore>,
    /// How many callers and people wait, and how long their judgements may take.
    asked: usize,
    takes: Duration,
    /// How many due requests do.
    due: usize,
}

impl Judges {
    /// With so many threads for slow policies. `refused` counts who was told that there is too much to do.
    pub(crate) fn new(threads: u32, refused: IntCounter) -> Judges {
        let each = threads.saturating_sub(1).max(1);
        Judges { in_place: false, each, free: semaphore(threads.max(1)), queues: Mutex::default(), refused }
    }

    /// The same, but all is done on the thread that needs it.
    pub(crate) fn in_place(self) -> Judges {
        Judges { in_place: true, ..self }
    }

    /// Has `work` done, which asks the policies of `rules`.
    ///
    /// # Errors
    /// [`GatewayError::Overloaded`] if they are slow and too much waits for them.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        rules: &ActionPolicy,
        asker: Asker,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, GatewayError> {
        match rules.slow() {
            None => Ok(work()),
            Some(_) if self.in_place => Ok(work()),
            Some(takes) => self.aside(rules.hash(), takes, asker, work).await,
        }
    }

    async fn aside<T: Send + 'static>(
        &self,
        rules: Digest,
        takes: Duration,
        asker: Asker,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, GatewayError> {
        let place = self.place(rules, takes, asker).ok_or(GatewayError::Overloaded)?;
        let closed = |closed: AcquireError| GatewayError::Stopped(closed.to_string());
        let turn = Arc::clone(&place.turn).acquire_owned().await.map_err(closed)?;
        let free = Arc::clone(&self.free).acquire_owned().await.map_err(closed)?;
        let work = carried(work);
        let judged = tokio::task::spawn_blocking(move || {
            // Held here, so that the thread counts as busy until it is free, whoever still waits for the result.
            let _held = (turn, free);
            work()
        });
        let judged = joined(judged.await);
        drop(place);
        judged
    }

    /// A place in the queue of these rules, unless it is full.
    fn place(&self, rules: Digest, takes: Duration, asker: Asker) -> Option<Place<'_>> {
        let mut queues = self.queues();
        let due_of_all: usize = queues.values().map(|queue| queue.due).sum();
        let new = || Queue { turn: semaphore(self.each), asked: 0, takes: Duration::ZERO, due: 0 };
        let queue = queues.entry(rules).or_insert_with(new);
        match asker {
            Asker::Person if queue.asked > 0 && queue.takes + takes > MOST_WAITING * self.each => {
                self.refused.inc();
                return None;
            }
            Asker::Person => {
                queue.asked += 1;
                queue.takes += takes;
            }
            Asker::Scheduler if queue.due >= MOST_DUE || due_of_all >= MOST_DUE_OF_ALL => {
                if queue.is_empty() {
                    queues.remove(&rules);
                }
                return None;
            }
            Asker::Scheduler => queue.due += 1,
        }
        let turn = Arc::clone(&queue.turn);
        Some(Place { judges: self, rules, turn, takes, asker })
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Digest, Queue>> {
        // Numbers, which no panic leaves half changed.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.asked == 0 && self.due == 0
    }
}

/// A place in a queue, given back when it is dropped: whoever goes away waits no longer.
struct Place<'a> {
    judges: &'a Judges,
    rules: Digest,
    turn: Arc<Semaphore>,
    takes: Duration,
    asker: Asker,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.judges.queues();
        let Some(queue) = queues.get_mut(&self.rules) else { return };
        match self.asker {
            Asker::Person => {
                queue.asked = queue.asked.saturating_sub(1);
                queue.takes = queue.takes.saturating_sub(self.takes);
            }
            Asker::Scheduler => queue.due = queue.due.saturating_sub(1),
        }
        if queue.is_empty() {
            queues.remove(&self.rules);
        }
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(permits).unwrap_or(1)))
}

/// What a task of its own returned. A panic there is one here, so that whoever isolates panics need not know of the task.
pub(crate) fn joined<T>(ended: Result<T, JoinError>) -> Result<T, GatewayError> {
    ended.map_err(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(stopped) => GatewayError::Stopped(stopped.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    const SLOW: Duration = Duration::from_millis(50);

    fn judges(threads: u32) -> Judges {
        Judges::new(threads, IntCounter::new("refused", "Refused.").unwrap())
    }

    fn rules(number: u8) -> Digest {
        Digest::of(&[number])
    }

    #[tokio::test]
    async fn slow_work_runs_on_other_threads_of_which_one_action_leaves_one_to_others() {
        let judges = judges(3);
        let (begun, begins) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let here = thread::current().id();
        let work = |action: u8, number: u32| {
            let (begun, gate) = (begun.clone(), Arc::clone(&gate));
            judges.aside(rules(action), SLOW, Asker::Person, move || {
                begun.send(number).unwrap();
                gate.lock().unwrap().recv().unwrap();
                assert_ne!(thread::current().id(), here);
                number
            })
        };
        let mut all = Box::pin(join_all((0..5).map(|number| work(1, number))));
        // None of them is done, and this thread is free all the time.
        assert!((&mut all).now_or_never().is_none());
        let mut first = [begins.recv().unwrap(), begins.recv().unwrap()];
        first.sort_unstable();
        assert_eq!(first, [0, 1]);
        let mut other = Box::pin(work(2, 7));
        assert!((&mut other).now_or_never().is_none());
        assert_eq!(begins.recv().unwrap(), 7, "it does not wait for those that came before it");
        assert!((&mut all).now_or_never().is_none());
        assert!(begins.try_recv().is_err(), "more have begun than there are threads");
        (0..6).for_each(|_| go.send(()).unwrap());
        let (done, other) = tokio::join!(all, other);
        assert_eq!(done.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(other.unwrap(), 7);
        assert!(judges.queues().is_empty(), "an action that nobody waits for is forgotten");
    }

    /// On one thread, which each of them takes in its turn.
    #[tokio::test]
    async fn actions_take_turns_however_many_wait_for_one_of_them() {
        let judges = judges(1);
        let (begun, begins) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let work = |action: u8| {
            let (begun, gate) = (begun.clone(), Arc::clone(&gate));
            judges.aside(rules(action), SLOW, Asker::Person, move || {
                begun.send(action).unwrap();
                gate.lock().unwrap().recv().unwrap();
            })
        };
        let mut all = Box::pin(join_all([1, 1, 1, 1, 1, 1, 1, 1, 2, 2].map(work)));
        let mut order = Vec::new();
        for _ in 0..5 {
            let next = loop {
                assert!((&mut all).now_or_never().is_none());
                match begins.try_recv() {
                    Ok(next) => break next,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            order.push(next);
            // Whoever may ask next has asked before this one is done.
            assert!((&mut all).now_or_never().is_none());
            go.send(()).unwrap();
        }
        assert_eq!(order, [1, 2, 1, 2, 1]);
        (0..5).for_each(|_| go.send(()).unwrap());
        assert!(all.await.into_iter().all(|done| done.is_ok()));
    }

    #[test]
    fn a_queue_is_as_long_as_the_work_in_it() {
        for (threads, takes, most) in [
            (1, SLOW, 40),
            (2, SLOW, 40),
            (3, SLOW, 80),
            (3, Duration::from_millis(1), 4000),
            // Somebody is always served.
            (1, Duration::from_secs(60), 1),
        ] {
            let judges = judges(threads);
            let mut places = Vec::new();
            while let Some(place) = judges.place(rules(1), takes, Asker::Person) {
                places.push(place);
            }
            assert_eq!(places.len(), most, "{threads} threads, {takes:?}");
            assert_eq!(judges.refused.get(), 1);
            assert!(
                judges.place(rules(2), takes, Asker::Person).is_some(),
                "another action has its own queue"
            );
            assert!(
                judges.place(rules(1), takes, Asker::Scheduler).is_some(),
                "what is due comes to its turn"
            );
            places.pop();
            assert!(judges.place(rules(1), takes, Asker::Person).is_some(), "whoever goes makes room");
            drop(places);
            assert!(judges.queues().is_empty());
        }
    }

    #[test]
    fn the_due_requests_of_one_action_leave_room_for_those_of_others() {
        let judges = judges(1);
        let mut places = Vec::new();
        for action in 0..20 {
            let before = places.len();
            while let Some(place) = judges.place(rules(action), SLOW, Asker::Scheduler) {
                places.push(place);
            }
            let expected = if action < 8 { 16 } else { 0 };
            assert_eq!(places.len() - before, expected, "{action}");
        }
        assert_eq!(judges.queues().len(), 8);
        assert_eq!(judges.refused.get(), 0, "the scheduler comes back by itself");
        drop(places);
        assert!(judges.queues().is_empty());
    }

    #[tokio::test]
    async fn whoever_goes_away_gives_up_their_place_and_a_panic_comes_back() {
        let judges = judges(1);
        let (go, gate) = mpsc::channel::<()>();
        let mut first = Box::pin(judges.aside(rules(1), SLOW, Asker::Person, move || gate.recv().unwrap()));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(judges.aside(rules(1), SLOW, Asker::Person, || ()));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(judges.queues()[&rules(1)].asked, 2);
        drop(second);
        assert_eq!(judges.queues()[&rules(1)].asked, 1);
        go.send(()).unwrap();
        first.await.unwrap();

        let broken = judges.aside(rules(1), SLOW, Asker::Person, || -> u32 { panic!("broken on purpose") });
        let panicked = std::panic::AssertUnwindSafe(broken).catch_unwind().await.unwrap_err();
        assert_eq!(panicked.downcast_ref::<&str>(), Some(&"broken on purpose"));
        assert_eq!(judges.aside(rules(1), SLOW, Asker::Person, || 7).await.unwrap(), 7);
        assert!(judges.queues().is_empty());
    }
}
