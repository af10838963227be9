//! How long a caller waits for the store.
//!
//! A thread counts the seconds, rather than a timer of the runtime for each call: a tick costs nothing if nobody waits, and
//! the threads that callers wait for work in real time, whatever the runtime takes for its own.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::column::unavailable;
use crate::{StoreError, StoreFault};

const TICK: Duration = Duration::from_secs(1);

/// How many ticks a caller waits.
const PATIENCE: u64 = 10;

/// Gives up on work that takes too long.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    ticks: watch::Receiver<u64>,
    /// When the last one is dropped, the thread ends.
    _running: Option<Arc<SyncSender<()>>>,
}

impl Deadline {
    /// Starts the thread that counts.
    pub(super) fn start() -> io::Result<Deadline> {
        let (running, ended) = sync_channel(0);
        let (count, ticks) = watch::channel(0);
        thread::Builder::new().name("store-deadline".to_owned()).spawn(move || tick(&count, &ended))?;
        Ok(Deadline { ticks, _running: Some(Arc::new(running)) })
    }

    /// A deadline that never comes.
    pub(super) fn never() -> Deadline {
        let (_, ticks) = watch::channel(0);
        Deadline { ticks, _running: None }
    }

    /// A deadline whose ticks the caller sends.
    #[cfg(test)]
    pub(super) fn manual() -> (watch::Sender<u64>, Deadline) {
        let (count, ticks) = watch::channel(0);
        (count, Deadline { ticks, _running: None })
    }

    /// Waits for `work`, but no longer than ten seconds. Work that another thread does goes on after that.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        let mut ticks = self.ticks.clone();
        let last = ticks.borrow().saturating_add(PATIENCE);
        let passed = async { ticks.wait_for(|tick| *tick > last).await.map(drop) };
        tokio::select! {
            biased;
            done = work => Ok(done),
            Ok(()) = passed => {
                let detail = format_args!("it did not answer within {PATIENCE} s; a write may still be stored");
                Err(unavailable(StoreFault::Slow, detail))
            }
        }
    }
}

fn tick(count: &watch::Sender<u64>, ended: &Receiver<()>) {
    while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        count.send_modify(|ticks| *ticks += 1);
    }
}
