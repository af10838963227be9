//! What bounds a call from outside of it: a clock that ends it, and a count of how many run at once.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many ticks a deadline has: one more is waited for, since the first may come at once.
const TICKS: u64 = 5;

/// A thread that moves the engine's epoch on, until it is dropped.
pub(super) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the clock of `wasm` so that [`Ticker::ticks`] take `deadline`, or up to a fifth more.
    pub(super) fn start(wasm: &wasmtime::Engine, deadline: Duration) -> std::io::Result<Ticker> {
        let period = (deadline / u32::try_from(TICKS).unwrap_or(1)).max(Duration::from_millis(1));
        let (stop, stopped) = mpsc::channel::<()>();
        let engine = wasm.weak();
        let tick = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(period) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        };
        let thread = std::thread::Builder::new().name("policy-clock".to_owned()).spawn(tick)?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread) })
    }

    /// The deadline of a call, in ticks from its start.
    #[expect(clippy::unused_self, reason = "a deadline is only to be had from the clock that makes it come")]
    pub(super) fn ticks(&self) -> u64 {
        TICKS + 1
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It ends by itself once the channel is closed; a panic in it has already been printed.
            let _ = thread.join();
        }
    }
}

/// Lets so many calls run at once as there are sandboxes.
pub(super) struct Slots {
    free: Mutex<u32>,
    freed: Condvar,
}

impl Slots {
    pub(super) fn new(slots: u32) -> Slots {
        Slots { free: Mutex::new(slots), freed: Condvar::new() }
    }

    /// Waits for a sandbox: at most as long as the calls that hold one may take.
    pub(super) fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

/// A right to one sandbox, given back when it is dropped.
pub(super) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
