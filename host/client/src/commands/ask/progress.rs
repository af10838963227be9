//! What people read while a command waits, on the standard error: a line that is kept up to date on a terminal, and else
//! a line for each change.

use std::io::IsTerminal as _;
use std::time::Duration;

use countersign_console::{note, note_text};
use countersign_core::duration;
use countersign_core::lifecycle::Status;
use tokio::time::Instant;

use crate::answer::{Created, Waited};
use crate::text::plain;

/// How often a log is told that nothing has changed: some CI systems end what is silent for ten minutes.
const QUIET: Duration = Duration::from_secs(300);

pub(super) struct Progress {
    on_terminal: bool,
    expires: Instant,
    needed: u32,
    state: String,
    /// Whether a line on the terminal is unfinished.
    open: bool,
}

impl Progress {
    pub(super) fn new(created: &Created, expires: Instant) -> Progress {
        let needed = created.policy.min_approvals;
        let mut progress = Progress {
            on_terminal: std::io::stderr().is_terminal(),
            expires,
            needed,
            state: String::new(),
            open: false,
        };
        progress.state = progress.describe(created.status, &[]);
        progress
    }

    /// How often [`Progress::tick`] is to be called.
    pub(super) fn period(&self) -> Duration {
        if self.on_terminal { Duration::from_secs(1) } else { QUIET }
    }

    /// Nothing has changed but the time.
    pub(super) fn tick(&mut self) {
        let left = self.expires.saturating_duration_since(Instant::now());
        let left = duration::show(Duration::from_secs(left.as_secs()));
        if self.on_terminal {
            note_text(format_args!("\r\u{1b}[2K{}; {left} left", self.state));
            self.open = true;
        } else {
            note!("{}; {left} left", self.state);
        }
    }

    pub(super) fn state(&mut self, waited: &Waited) {
        let state = self.describe(waited.status, &waited.approvers);
        if state != self.state {
            self.state = state;
            self.tick();
        }
    }

    /// A line of its own.
    pub(super) fn line(&mut self, text: &str) {
        if std::mem::take(&mut self.open) {
            note_text(format_args!("\r\u{1b}[2K"));
        }
        note!("{}", plain(text));
    }

    fn describe(&self, status: Status, approvers: &[String]) -> String {
        let by = if approvers.is_empty() { String::new() } else { format!(" ({})", approvers.join(", ")) };
        plain(&format!("{}: {} of {} approved{by}", status.as_str(), approvers.len(), self.needed))
    }
}
