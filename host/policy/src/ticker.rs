//! What bounds a call from outside of it: a clock that ends it, and a count of how many run at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many ticks a deadline has: one more is waited for, since the first may come at once.
const TICKS: u64 = 5;

/// A thread that moves the engine's epoch on, until it is dropped.
pub(super) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
}

impl Ticker {
    /// Starts the clock of `wasm` so that [`Ticker::ticks`] take `deadline`, or up to a fifth more.
    pub(super) fn start(wasm: &wasmtime::Engine, deadline: Duration) -> std::io::Result<Ticker> {
        let period = (deadline / u32::try_from(TICKS).unwrap_or(1)).max(Duration::from_millis(1));
        let engine = wasm.weak();
        Ticker::run(period, move || engine.upgrade().inspect(|engine| engine.increment_epoch()).is_some())
    }

    /// Calls `tick` once in each period, on a thread of its own, as long as it returns true.
    fn run(period: Duration, mut tick: impl FnMut() -> bool + Send + 'static) -> std::io::Result<Ticker> {
        let (stop, told) = mpsc::channel::<()>();
        let stopped = Arc::new(AtomicBool::new(false));
        let ends = SetsOnDrop(Arc::clone(&stopped));
        let run = move || {
            let _ends = ends;
            while matches!(told.recv_timeout(period), Err(RecvTimeoutError::Timeout)) && tick() {}
        };
        let thread = std::thread::Builder::new().name("policy-clock".to_owned()).spawn(run)?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread), stopped })
    }

    /// Whether no deadline comes any more, because the thread has ended.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The deadline of a call, in ticks from its start.
    #[expect(clippy::unused_self, reason = "a deadline is only to be had from the clock that makes it come")]
    pub(super) fn ticks(&self) -> u64 {
        TICKS + 1
    }
}

/// Sets a flag however its thread ends, by a panic as well.
struct SetsOnDrop(Arc<AtomicBool>);

impl Drop for SetsOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
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

#[cfg(test)]
impl Ticker {
    /// One whose thread panics at its first tick; returns once it has.
    pub(super) fn broken() -> Ticker {
        let ticker = Ticker::run(Duration::from_millis(1), || panic!("broken on purpose"));
        let mut ticker = ticker.expect("a thread");
        let thread = ticker.thread.take().expect("a thread");
        thread.join().expect_err("it has panicked");
        ticker
    }
}

/// Lets so many calls run at once as there are sandboxes.
pub(super) struct Slots {
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    free: u32,
    /// How many wait for one.
    waiting: u32,
}

impl Slots {
    pub(super) fn new(slots: u32) -> Slots {
        Slots { state: Mutex::new(State { free: slots, waiting: 0 }), freed: Condvar::new() }
    }

    /// Waits for a sandbox: at most as long as the calls that hold one may take.
    pub(super) fn take(&self) -> Slot<'_> {
        let mut state = self.state();
        while state.free == 0 {
            state.waiting += 1;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.free -= 1;
        Slot(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A right to one sandbox, given back when it is dropped.
pub(super) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.free += 1;
        let awaited = state.waiting > 0;
        drop(state);
        // A notification is a system call, also if nobody waits.
        if awaited {
            self.0.freed.notify_one();
        }
    }
}
