//! How far a command is that takes long, on the standard error: on a terminal one line that is kept up to date, and is gone
//! when the command ends; elsewhere, as in the log of CI, now and then a line, since some systems end what is silent.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use countersign_core::clock::{Clock as _, SystemClock};

/// How often it is looked whether there is something to show.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a command may take until a terminal shows how far it is, in milliseconds. From then on it does each time.
const PATIENCE_MS: u64 = 2_000;

/// How far apart lines of a log are, in milliseconds.
const LOG_PERIOD_MS: u64 = 30_000;

/// How far a command is. It is shown until this is dropped.
#[derive(Debug)]
pub struct Progress {
    shared: Arc<Shared>,
    shown: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    work: Mutex<Work>,
    ended: AtomicBool,
}

/// What a command does now, and how much of it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Work {
    what: &'static str,
    done: u64,
    total: Option<u64>,
}

impl Progress {
    /// Of a command that does this, such as `evaluating requests`.
    #[must_use]
    pub fn start(what: &'static str) -> Progress {
        let stderr = io::stderr();
        let is_terminal = stderr.is_terminal();
        let began = SystemClock.monotonic();
        let screen = Screen::new(stderr, is_terminal);
        Progress::shown(what, screen, move || SystemClock.monotonic().since(began), INTERVAL)
    }

    /// `passed` says how long ago the command began, in milliseconds.
    fn shown(
        what: &'static str,
        screen: Screen<impl Write + Send + 'static>,
        passed: impl Fn() -> u64 + Send + 'static,
        interval: Duration,
    ) -> Progress {
        let work = Mutex::new(Work { what, done: 0, total: None });
        let shared = Arc::new(Shared { work, ended: AtomicBool::new(false) });
        let this = Arc::clone(&shared);
        Progress { shared, shown: Some(thread::spawn(move || this.show(screen, passed, interval))) }
    }

    /// From now on the command does something else, of which nothing is done yet.
    pub fn next(&self, what: &'static str) {
        *self.shared.work() = Work { what, done: 0, total: None };
    }

    /// So many there are to do, in all.
    pub fn total(&self, total: u64) {
        self.shared.work().total = Some(total);
    }

    /// So many are done, in all.
    pub fn set(&self, done: u64) {
        self.shared.work().done = done;
    }

    /// One more is done.
    pub fn one_more(&self) {
        self.shared.work().done += 1;
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
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, mut screen: Screen<impl Write>, passed: impl Fn() -> u64, interval: Duration) {
        loop {
            thread::park_timeout(interval);
            if self.ended.load(Ordering::Relaxed) {
                return screen.clear();
            }
            let work = *self.work();
            screen.show(passed(), work);
        }
    }
}

/// Where it is shown.
struct Screen<W> {
    out: W,
    is_terminal: bool,
    /// When the next line is due, in milliseconds since the command began.
    due: u64,
    /// What the command did when it was looked last, and since when, in milliseconds since the command began.
    phase: Option<(&'static str, u64)>,
    /// Whether a terminal has a line that is to be taken away.
    is_open: bool,
}

impl<W: Write> Screen<W> {
    const fn new(out: W, is_terminal: bool) -> Screen<W> {
        let due = if is_terminal { PATIENCE_MS } else { LOG_PERIOD_MS };
        Screen { out, is_terminal, due, phase: None, is_open: false }
    }

    /// Shows how far the command is after so many milliseconds, if that is due.
    fn show(&mut self, passed: u64, work: Work) {
        let began = match self.phase {
            Some((what, began)) if what == work.what => began,
            // What a command does first has begun with it.
            Some(_) => passed,
            None => 0,
        };
        self.phase = Some((work.what, began));
        if passed < self.due {
            return;
        }
        let line = work.line(passed.saturating_sub(began));
        // A terminal that has gone is no error of the command.
        let _ = match self.is_terminal {
            true => write!(self.out, "\r\x1b[K{line}"),
            false => writeln!(self.out, "{line}"),
        }
        .and_then(|()| self.out.flush());
        self.is_open = self.is_terminal;
        self.due = if self.is_terminal { passed } else { passed.saturating_add(LOG_PERIOD_MS) };
    }

    fn clear(&mut self) {
        if self.is_open {
            let _ = write!(self.out, "\r\x1b[K").and_then(|()| self.out.flush());
            self.is_open = false;
        }
    }
}

impl Work {
    /// What is shown after so many milliseconds of it.
    fn line(self, passed: u64) -> String {
        let Work { what, done, total } = self;
        let seconds = passed / 1000;
        if done == 0 {
            return format!("{what}: {seconds} s");
        }
        let of = match total {
            // More than there were when it began, if others add some.
            Some(total) if total >= done => {
                format!(" of {total} ({} %)", u128::from(done) * 100 / u128::from(total))
            }
            _ => String::new(),
        };
        let rate = u128::from(done) * 1000 / u128::from(passed.max(1));
        format!("{what}: {done}{of}, {rate}/s, {seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use super::*;

    const fn work(what: &'static str, done: u64, total: Option<u64>) -> Work {
        Work { what, done, total }
    }

    /// What is written if the work is looked at after so many milliseconds each.
    fn shown(is_terminal: bool, looks: &[(u64, Work)]) -> String {
        let mut screen = Screen::new(Vec::new(), is_terminal);
        looks.iter().for_each(|(passed, work)| screen.show(*passed, *work));
        screen.clear();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn a_terminal_has_one_line_that_is_taken_away() {
        let looks = [500, 1_999, 2_000, 2_500].map(|passed| (passed, work("copying", passed, None)));
        assert_eq!(
            shown(true, &looks),
            "\r\x1b[Kcopying: 2000, 1000/s, 2 s\r\x1b[Kcopying: 2500, 1000/s, 2 s\r\x1b[K"
        );
        assert_eq!(shown(true, &looks[..2]), "", "what ends soon shows nothing");
    }

    #[test]
    fn a_log_has_a_line_now_and_then() {
        let looks = [2_000, 29_999, 30_100, 30_600, 60_000, 60_100, 60_600];
        let looks = looks.map(|passed| (passed, work("copying", 7, None)));
        assert_eq!(shown(false, &looks), "copying: 7, 0/s, 30 s\ncopying: 7, 0/s, 60 s\n");
        assert_eq!(shown(false, &looks[..2]), "");
    }

    #[test]
    fn a_line_says_what_is_done_of_how_many_and_how_fast() {
        for (work, passed, expected) in [
            (work("pushing", 0, None), 3_999, "pushing: 3 s"),
            (work("copying", 0, Some(10)), 2_000, "copying: 2 s"),
            (work("copying", 5, None), 2_000, "copying: 5, 2/s, 2 s"),
            (work("copying", 5, Some(10)), 2_000, "copying: 5 of 10 (50 %), 2/s, 2 s"),
            (work("copying", 10, Some(10)), 0, "copying: 10 of 10 (100 %), 10000/s, 0 s"),
            (work("copying", 11, Some(10)), 2_000, "copying: 11, 5/s, 2 s"),
            (
                work("copying", u64::MAX, Some(u64::MAX)),
                u64::MAX,
                "copying: 18446744073709551615 of 18446744073709551615 (100 %), 1000/s, 18446744073709551 s",
            ),
        ] {
            assert_eq!(work.line(passed), expected);
        }
    }

    #[test]
    fn what_comes_next_has_a_time_and_a_rate_of_its_own() {
        let looks = [
            (500, work("copying", 1_000, None)),
            (10_000, work("verifying", 10, Some(1_000))),
            (12_000, work("verifying", 500, Some(1_000))),
        ];
        let text = shown(true, &looks);
        assert!(text.contains("verifying: 500 of 1000 (50 %), 250/s, 2 s"), "{text:?}");
    }

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

    #[test]
    fn it_is_shown_until_it_is_dropped() {
        let (sender, written) = mpsc::channel();
        let screen = Screen::new(Terminal(sender), true);
        let progress = Progress::shown("copying", screen, || 3_000, Duration::from_millis(1));
        progress.total(10);
        progress.set(4);
        progress.one_more();
        let mut text = String::new();
        while !text.contains("copying: 5 of 10 (50 %)") {
            text += &written.recv().unwrap();
        }
        progress.next("verifying");
        while !text.contains("verifying: ") {
            text += &written.recv().unwrap();
        }
        drop(progress);
        text.extend(written.iter());
        assert!(text.ends_with("\r\x1b[K"), "{text:?}");
    }
}
