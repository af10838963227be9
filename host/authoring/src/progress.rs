//! How far a command is that takes long: one line on a terminal, which is gone when it ends. Elsewhere nothing is shown, since
//! nobody watches a log file.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a command may take until it is shown how far it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often that is shown.
const INTERVAL: Duration = Duration::from_millis(500);

/// How far a command is. It is shown until this is dropped.
#[derive(Debug)]
pub struct Progress {
    shared: Arc<Shared>,
    shown: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    what: &'static str,
    done: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    /// Of a command that does this, such as `evaluating requests`. It is shown on the standard error, if that is a terminal.
    #[must_use]
    pub fn start(what: &'static str) -> Progress {
        let stderr = io::stderr();
        let shared = Shared { what, done: AtomicU64::new(0), ended: AtomicBool::new(false) };
        match stderr.is_terminal() {
            true => Progress::on(stderr, PATIENCE, shared),
            false => Progress { shared: Arc::new(shared), shown: None },
        }
    }

    fn on(terminal: impl Write + Send + 'static, patience: Duration, shared: Shared) -> Progress {
        let shared = Arc::new(shared);
        let this = Arc::clone(&shared);
        Progress { shared, shown: Some(thread::spawn(move || this.show(terminal, patience))) }
    }

    /// So many are done, in all.
    pub fn set(&self, done: u64) {
        self.shared.done.store(done, Ordering::Relaxed);
    }

    /// One more is done.
    pub fn one_more(&self) {
        self.shared.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(shown) = self.shown.take() {
            shown.thread().unpark();
            // It ends at once, and what it shows decides nothing.
            let _ = shown.join();
        }
    }
}

impl Shared {
    fn show(&self, mut terminal: impl Write, patience: Duration) {
        let mut wait = patience;
        let mut passed = Duration::ZERO;
        loop {
            thread::park_timeout(wait);
            passed += wait;
            wait = INTERVAL;
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            // A terminal that has gone is no error of the command.
            let _ = write!(terminal, "\r\x1b[K{}", self.line(passed)).and_then(|()| terminal.flush());
        }
        if passed > patience {
            let _ = write!(terminal, "\r\x1b[K").and_then(|()| terminal.flush());
        }
    }

    fn line(&self, passed: Duration) -> String {
        let (what, seconds) = (self.what, passed.as_secs());
        match self.done.load(Ordering::Relaxed) {
            0 => format!("{what}: {seconds} s"),
            done => format!("{what}: {done} in {seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use super::*;

    /// Sends what is written to it.
    struct Terminal(Sender<String>);

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8_lossy(bytes).into_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shared() -> Shared {
        Shared { what: "copying", done: AtomicU64::new(3), ended: AtomicBool::new(false) }
    }

    #[test]
    fn a_line_is_shown_and_taken_away() {
        let (sender, written) = mpsc::channel();
        let progress = Progress::on(Terminal(sender), Duration::from_millis(1), shared());
        let mut text = String::new();
        while !text.contains("copying: 3 in 0 s") {
            text += &written.recv().unwrap();
        }
        drop(progress);
        text.extend(written.iter());
        assert!(text.ends_with("\r\x1b[K"), "{text:?}");
    }

    #[test]
    fn what_ends_soon_shows_nothing() {
        let (sender, written) = mpsc::channel();
        drop(Progress::on(Terminal(sender), Duration::from_secs(3600), shared()));
        assert_eq!(written.iter().collect::<String>(), "");
    }

    #[test]
    fn what_is_done_is_counted() {
        let progress = Progress { shared: Arc::new(shared()), shown: None };
        progress.set(4);
        progress.one_more();
        assert_eq!(progress.shared.line(Duration::from_secs(7)), "copying: 5 in 7 s");
    }
}
