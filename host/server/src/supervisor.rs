//! Keeps the tasks of the process running: one that panics, or ends although it should not, is logged, counted, and started
//! again after a while.
//!
//! Not for what the gateway cannot be without, such as the scheduler: its end is the end of the process.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The first and the longest wait before a task is started again.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A task that has run so long has worked; the next wait is the first one again.
const WORKED: Duration = Duration::from_secs(120);

/// Keeps tasks running until the shutdown begins. The clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    restarts: IntCounterVec,
    shutdown: CancellationToken,
}

/// Whether a task may end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MayEnd {
    Yes,
    No,
}

impl Supervisor {
    /// A supervisor whose metric is in `registry`.
    ///
    /// # Errors
    /// If there is one of the same name.
    pub(crate) fn new(registry: &Registry, shutdown: CancellationToken) -> prometheus::Result<Supervisor> {
        let about =
            "Tasks of the process that panicked, or ended although they should not, and were started again.";
        let restarts = IntCounterVec::new(Opts::new("task_restarts_total", about), &["task"])?;
        registry.register(Box::new(restarts.clone()))?;
        Ok(Supervisor { restarts, shutdown })
    }

    /// Runs what `start` returns, and again whenever it ends, until the shutdown begins.
    pub(crate) fn keep<S: FnMut() -> F + Send, F: Future<Output = ()> + Send>(
        &self,
        task: &'static str,
        start: S,
    ) -> impl Future<Output = ()> + Send + use<S, F> {
        self.clone().supervise(task, MayEnd::No, start)
    }

    /// Runs what `start` returns until it has ended, and again whenever it panics, until the shutdown begins.
    pub(crate) fn finish<S: FnMut() -> F + Send, F: Future<Output = ()> + Send>(
        &self,
        task: &'static str,
        start: S,
    ) -> impl Future<Output = ()> + Send + use<S, F> {
        self.clone().supervise(task, MayEnd::Yes, start)
    }

    async fn supervise<F: Future<Output = ()> + Send>(
        self,
        task: &'static str,
        may_end: MayEnd,
        mut start: impl FnMut() -> F + Send,
    ) {
        // Shown from the start: a counter that appears with the first restart hides that restart from a rate.
        let restarts = self.restarts.with_label_values(&[task]);
        let mut wait = WAIT.0;
        loop {
            let started = Instant::now();
            let ended = AssertUnwindSafe(async { start().await }).catch_unwind().await;
            if self.shutdown.is_cancelled() || (ended.is_ok() && may_end == MayEnd::Yes) {
                return;
            }
            if started.elapsed() >= WORKED {
                wait = WAIT.0;
            }
            restarts.inc();
            let (panicked, wait_ms) = (ended.is_err(), wait.as_millis());
            tracing::error!(task, panicked, wait_ms, "task ended, and is started again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => return,
            }
            wait = (wait * 2).min(WAIT.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    fn supervisor() -> (Supervisor, CancellationToken) {
        let shutdown = CancellationToken::new();
        (Supervisor::new(&Registry::new(), shutdown.clone()).unwrap(), shutdown)
    }

    /// The paused clock advances once nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_or_ends_is_started_again_each_time_later() {
        let (supervisor, shutdown) = supervisor();
        let (begun, starts) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let (noted, ends) = (Arc::clone(&starts), shutdown.clone());
        let kept = supervisor.keep("broken", move || {
            let mut starts = noted.lock().unwrap();
            starts.push(begun.elapsed().as_secs());
            let (number, ends) = (starts.len(), ends.clone());
            drop(starts);
            assert_ne!(number, 3, "broken before it has begun");
            async move {
                match number {
                    1 => panic!("broken on purpose"),
                    2 | 4..9 => {}
                    9 => tokio::time::sleep(WORKED).await,
                    _ => ends.cancel(),
                }
            }
        });
        kept.await;
        assert_eq!(*starts.lock().unwrap(), [0, 1, 3, 7, 15, 31, 63, 123, 183, 183 + 120 + 1]);
        assert_eq!(supervisor.restarts.with_label_values(&["broken"]).get(), 9, "a shutdown is no restart");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_end_is_started_again_only_if_it_panics() {
        let (supervisor, _shutdown) = supervisor();
        let mut starts = 0;
        let finished = supervisor.finish("once", || {
            starts += 1;
            let number = starts;
            async move { assert_ne!(number, 1, "broken on purpose") }
        });
        finished.await;
        assert_eq!(starts, 2);
        assert_eq!(supervisor.restarts.with_label_values(&["once"]).get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_is_not_kept_waiting() {
        let (supervisor, shutdown) = supervisor();
        let kept = tokio::spawn(supervisor.keep("ends", || async {}));
        while supervisor.restarts.with_label_values(&["ends"]).get() == 0 {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
        kept.await.unwrap();
        assert_eq!(supervisor.restarts.with_label_values(&["ends"]).get(), 1);
    }
}
