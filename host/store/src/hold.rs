//! Claims that last as long as what they are for: each is short, so that what a dead process had claimed is soon ready for
//! others, and is renewed while the work goes on.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use countersign_core::clock::{Clock, Monotonic};

use crate::StoreError;

/// How long a claim lasts unless it is renewed, in milliseconds.
pub const CLAIM_MS: u64 = 10_000;

/// How long after a claim was made or renewed it is renewed, in milliseconds.
const RENEW_MS: u64 = 3_000;

/// How long after a renewal that the store did not answer the next one is tried, in milliseconds.
const AGAIN_MS: u64 = 500;

/// How long after a claim was made or renewed the work is given up, in milliseconds: some time before the claim ends, so that
/// what was sent until then arrives before another worker begins.
const GIVE_UP_MS: u64 = 7_000;

/// A claim that a worker makes, and then keeps.
pub struct Hold<'a> {
    clock: &'a dyn Clock,
    since: Monotonic,
}

/// The claim was not kept, so the work was given up: another worker may have it by now.
#[derive(Debug)]
pub struct Lost {
    /// Why it could not be renewed in time, if the store failed.
    pub error: Option<StoreError>,
}

impl<'a> Hold<'a> {
    /// To be called before the claim is made, since it counts from then on.
    pub fn begin(clock: &'a dyn Clock) -> Hold<'a> {
        Hold { clock, since: clock.monotonic() }
    }

    /// Does the work, and meanwhile calls `renew` again and again, which renews the claim by [`CLAIM_MS`] and says whether it
    /// is still held.
    ///
    /// # Errors
    /// If it is not, or may not be. The work is then dropped as it is, and nothing that it would have stored afterwards is.
    pub async fn keep<T, R>(self, renew: impl Fn() -> R, work: impl Future<Output = T>) -> Result<T, Lost>
    where
        R: Future<Output = Result<bool, StoreError>>,
    {
        let Hold { clock, mut since } = self;
        let (mut work, mut renew_at, mut error) = (pin!(work), since.plus(RENEW_MS), None);
        loop {
            let end = since.plus(GIVE_UP_MS);
            let mut slept = pin!(clock.sleep_until(end));
            // A process that stood still may come to the work before it is woken by the time.
            let ended = poll_fn(|context| match clock.monotonic() >= end {
                true => Poll::Ready(()),
                false => slept.as_mut().poll(context),
            });
            let renewed = async {
                clock.sleep_until(renew_at).await;
                (clock.monotonic(), renew().await)
            };
            tokio::select! {
                biased;
                () = ended => return Err(Lost { error }),
                done = &mut work => return Ok(done),
                (asked, renewed) = renewed => match renewed {
                    Ok(true) => (since, renew_at, error) = (asked, asked.plus(RENEW_MS), None),
                    Ok(false) => return Err(Lost { error: None }),
                    Err(failed) => (renew_at, error) = (clock.monotonic().plus(AGAIN_MS), Some(failed)),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use countersign_core::clock::ManualClock;
    use tokio::sync::{Notify, oneshot};

    use super::*;
    use crate::StoreFault;
    use crate::fixtures::at;

    fn fails() -> StoreError {
        StoreError::Unavailable { backend: "none", fault: StoreFault::Other, detail: "away".into() }
    }

    /// A hold whose renewals have these answers, one after another, and after them `true`.
    struct Held {
        clock: Arc<ManualClock>,
        renewed: Arc<Notify>,
        finish: oneshot::Sender<()>,
        kept: tokio::task::JoinHandle<Result<(), Lost>>,
    }

    impl Held {
        fn begin(answers: Vec<Result<bool, StoreError>>) -> Held {
            let clock = Arc::new(ManualClock::at(at(0)));
            let (finish, finished) = oneshot::channel::<()>();
            let (renewed, answers) = (Arc::new(Notify::new()), Mutex::new(VecDeque::from(answers)));
            let (its_clock, called) = (Arc::clone(&clock), Arc::clone(&renewed));
            let kept = tokio::spawn(async move {
                let renew = || {
                    called.notify_one();
                    std::future::ready(answers.lock().unwrap().pop_front().unwrap_or(Ok(true)))
                };
                let work = async { finished.await.unwrap() };
                Hold::begin(&*its_clock).keep(renew, work).await
            });
            Held { clock, renewed, finish, kept }
        }

        /// Once the hold waits for the time.
        async fn advance(&self, millis: u64) {
            while self.clock.sleeping() < 2 {
                tokio::task::yield_now().await;
            }
            self.clock.advance(millis);
        }
    }

    #[tokio::test]
    async fn it_is_renewed_as_long_as_the_work_goes_on() {
        let held = Held::begin(Vec::new());
        for _ in 0..20 {
            held.advance(RENEW_MS).await;
            held.renewed.notified().await;
        }
        held.finish.send(()).unwrap();
        held.kept.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_work_is_given_up_once_somebody_else_has_it() {
        let held = Held::begin(vec![Ok(true), Ok(false)]);
        for _ in 0..2 {
            held.advance(RENEW_MS).await;
            held.renewed.notified().await;
        }
        assert!(held.kept.await.unwrap().unwrap_err().error.is_none());
    }

    #[tokio::test]
    async fn the_work_goes_on_while_a_store_that_fails_may_come_back() {
        let held = Held::begin(vec![Err(fails()), Err(fails())]);
        for wait in [RENEW_MS, AGAIN_MS, AGAIN_MS, RENEW_MS] {
            held.advance(wait).await;
            held.renewed.notified().await;
        }
        held.finish.send(()).unwrap();
        held.kept.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_work_is_given_up_before_the_claim_ends() {
        let held = Held::begin((0..100).map(|_| Err(fails())).collect());
        let mut waited = RENEW_MS;
        held.advance(RENEW_MS).await;
        while waited < GIVE_UP_MS {
            held.renewed.notified().await;
            assert!(!held.kept.is_finished());
            held.advance(AGAIN_MS).await;
            waited += AGAIN_MS;
        }
        assert!(held.kept.await.unwrap().unwrap_err().error.is_some());
        assert!(waited < CLAIM_MS);
    }

    #[tokio::test]
    async fn nothing_is_done_after_a_standstill() {
        let held = Held::begin(Vec::new());
        held.advance(GIVE_UP_MS).await;
        // What the work waits for is there as well, and it does not go on.
        held.finish.send(()).unwrap();
        held.kept.await.unwrap().unwrap_err();
    }
}
