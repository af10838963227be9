//! The signals that ask this process to end.

use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// How long a call may take that a signal comes in on: CI systems kill a job some seconds after they have asked it to end.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// SIGINT, SIGTERM and SIGHUP, from when this was made on: none is lost.
pub(in crate::commands) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    pub(in crate::commands) fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hang_up: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Nothing is lost if the future is dropped.
    pub(in crate::commands) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hang_up.recv() => Signal::HUP,
        }
    }

    /// What comes of a call, and the signal that came in on it, if one did. After a signal it has a little time left, and a
    /// second one ends it at once.
    ///
    /// # Errors
    /// The signal, if it is not known what came of the call.
    pub(super) async fn or_cut<T>(
        &mut self,
        call: impl Future<Output = T>,
    ) -> Result<(T, Option<Signal>), Signal> {
        let mut call = std::pin::pin!(call);
        let signal = tokio::select! {
            biased;
            made = &mut call => return Ok((made, None)),
            signal = self.next() => signal,
        };
        self.within_grace(call).await.map(|made| (made, Some(signal))).ok_or(signal)
    }

    /// What comes of a call in the little time that is left after a signal, unless another one comes.
    pub(super) async fn within_grace<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            made = tokio::time::timeout(GRACE, call) => made.ok(),
            _ = self.next() => None,
        }
    }

    /// One that has come already.
    pub(super) async fn pending(&mut self) -> Option<Signal> {
        tokio::select! {
            biased;
            signal = self.next() => Some(signal),
            () = std::future::ready(()) => None,
        }
    }
}

/// As people know it.
pub(in crate::commands) fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "SIGINT",
        Signal::HUP => "SIGHUP",
        _ => "SIGTERM",
    }
}
