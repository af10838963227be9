//! Calls about one thing that are made at the same time: they are put together in one. Callers of one name come in crowds,
//! and a script for each of them costs Redis more than what it does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::fault::unavailable;
use crate::{StoreError, StoreFault};

/// The most items that one call has.
const MOST: usize = 64;

/// Who asks, and where the answer goes.
type Waiting<I, A> = Vec<(I, oneshot::Sender<Result<A, StoreError>>)>;

/// Items that wait to be put together, by what they are about.
#[derive(Debug)]
pub(super) struct Together<K, I, A>(Arc<Mutex<HashMap<K, Waiting<I, A>>>>);

impl<K, I, A> Default for Together<K, I, A> {
    fn default() -> Together<K, I, A> {
        Together(Arc::default())
    }
}

impl<K, I, A> Together<K, I, A>
where
    K: Clone + Eq + Hash + Send + 'static,
    I: Send + 'static,
    A: Send + 'static,
{
    /// Has an item carried out with those about the same thing that are asked for at the same time. `carry_out` gets them in
    /// order, and gives an answer for each. It goes on if this is dropped.
    ///
    /// # Errors
    /// Those of `carry_out`, for each item that it was given.
    pub(super) async fn ask<R>(
        &self,
        about: K,
        item: I,
        carry_out: impl Fn(Vec<I>) -> R + Send + 'static,
    ) -> Result<A, StoreError>
    where
        R: Future<Output = Result<Vec<A>, StoreError>> + Send,
    {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut waiting = lock(&self.0);
            let those = waiting.entry(about.clone()).or_default();
            those.push((item, answer));
            those.len() == 1
        };
        if is_first {
            let waiting = Arc::clone(&self.0);
            tokio::spawn(async move {
                // Those that can go on now ask before this one does.
                tokio::task::yield_now().await;
                let mut those = lock(&waiting).remove(&about).unwrap_or_default();
                while !those.is_empty() {
                    let rest = those.split_off(those.len().min(MOST));
                    let (items, askers): (Vec<I>, Vec<_>) = those.into_iter().unzip();
                    answer_all(askers, carry_out(items).await);
                    those = rest;
                }
            });
        }
        answered.await.unwrap_or_else(|_| Err(unavailable(StoreFault::Other, "the call was cut off")))
    }
}

fn lock<K, I, A>(waiting: &Mutex<HashMap<K, Waiting<I, A>>>) -> MutexGuard<'_, HashMap<K, Waiting<I, A>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever gets no answer finds its sender dropped; whoever does not wait any more is told nothing.
fn answer_all<A>(askers: Vec<oneshot::Sender<Result<A, StoreError>>>, answers: Result<Vec<A>, StoreError>) {
    match answers {
        Ok(answers) => {
            for (asker, answer) in askers.into_iter().zip(answers) {
                let _gone = asker.send(Ok(answer));
            }
        }
        Err(error) => {
            for asker in askers {
                let _gone = asker.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn those_that_ask_at_the_same_time_are_one_call() {
        let together = Together::<&str, usize, usize>::default();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let ask = |about, item| {
            let calls = Arc::clone(&calls);
            together.ask(about, item, move |items: Vec<usize>| {
                calls.lock().unwrap().push((about, items.clone()));
                async move { Ok(items.into_iter().map(|item| item * 10).collect()) }
            })
        };
        let asked =
            join_all((0..2 * MOST + 1).map(|item| ask(if item == 1 { "b" } else { "a" }, item))).await;
        let expected: Vec<usize> = (0..2 * MOST + 1).map(|item| item * 10).collect();
        assert_eq!(asked.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
        let mut sizes: Vec<_> =
            calls.lock().unwrap().drain(..).map(|(about, items)| (about, items.len())).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [("a", MOST), ("a", MOST), ("b", 1)]);
        assert_eq!(ask("a", 7).await.unwrap(), 70, "one alone");
        assert_eq!(*calls.lock().unwrap(), [("a", vec![7])]);
    }

    #[tokio::test]
    async fn each_is_told_of_a_failure_and_one_that_gave_up_hinders_nobody() {
        let together = Together::<&str, usize, usize>::default();
        let fails = |_| async { Err(unavailable(StoreFault::Busy, "no")) };
        let asked = join_all((0..3).map(|item| together.ask("a", item, fails))).await;
        assert!(
            asked.iter().all(|asked| asked.as_ref().is_err_and(|it| it.fault() == Some(StoreFault::Busy)))
        );

        let answers = |items: Vec<usize>| async move { Ok(items) };
        let mut gone = Box::pin(together.ask("a", 1, answers));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        assert_eq!(together.ask("a", 2, answers).await.unwrap(), 2);
        assert!(lock(&together.0).is_empty());
    }
}
