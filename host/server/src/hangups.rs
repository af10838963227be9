//! SIGHUP: what is read from files is to be read again.
//!
//! It is listened for before the first file is read. So one that comes during a start does not end the process, and is
//! served once there is a gateway.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The SIGHUPs of this process. Each clone hears those that the one it was made of had not heard.
#[derive(Clone, Debug)]
pub(crate) struct Hangups(watch::Receiver<()>);

impl Hangups {
    /// Listens from now on, for as long as the process runs.
    ///
    /// # Errors
    /// If the signal cannot be listened for.
    pub(crate) fn listen() -> std::io::Result<Hangups> {
        let mut signals = signal(SignalKind::hangup())?;
        let (sender, hangups) = watch::channel(());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                sender.send_replace(());
            }
        });
        Ok(Hangups(hangups))
    }

    /// None, for gateways in tests: a signal would reach each of them.
    #[cfg(test)]
    pub(crate) fn none() -> Hangups {
        Hangups(watch::channel(()).1)
    }

    /// Waits for one that was not heard yet. Several that were not are one.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The runtime ends, and nobody listens any more.
            std::future::pending().await
        }
    }

    /// For a task that is started again if it fails: what is returned first hears of all so far, and what is returned after
    /// that only of what comes then, so that no signal makes the task fail again and again.
    pub(crate) fn for_task(&self) -> impl FnMut() -> Hangups + Send + use<> {
        let (all, mut first) = (self.clone(), Some(self.clone()));
        move || {
            first.take().unwrap_or_else(|| {
                let mut later = all.clone();
                later.0.mark_unchanged();
                later
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// The channel stands in for the signal, which would reach every gateway in the process of the tests.
    #[test]
    fn what_came_during_the_start_is_served_once() {
        let (signal, hangups) = watch::channel(());
        let hangups = Hangups(hangups);
        let mut start = hangups.for_task();
        signal.send_replace(());
        signal.send_replace(());

        let mut first = start();
        assert!(first.next().now_or_never().is_some(), "it came before the task began");
        assert!(first.next().now_or_never().is_none(), "two in a row are one");
        signal.send_replace(());
        assert!(first.next().now_or_never().is_some());

        let mut again = start();
        assert!(again.next().now_or_never().is_none(), "the first one had heard it");
        signal.send_replace(());
        assert!(again.next().now_or_never().is_some());

        let mut other = hangups.for_task()();
        assert!(other.next().now_or_never().is_some(), "each task hears it");
        drop(signal);
        assert!(other.next().now_or_never().is_none(), "nobody listens any more");
    }
}
