//! Running the command that was approved.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, getpgrp, pidfd_open, pidfd_send_signal};
use rustix::termios::tcgetpgrp;

use super::program::Prepared;
use super::signals::Signals;

/// How a command ended: whether it succeeded, and what to say of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) succeeded: bool,
    pub(super) detail: String,
}

impl Ran {
    pub(super) fn not(detail: String) -> Ran {
        Ran { succeeded: false, detail }
    }
}

/// Runs a command, and passes on the signals that come meanwhile. `input` is its standard input; without it the command
/// has that of this process.
pub(super) async fn run(prepared: Prepared, input: Option<String>, signals: &mut Signals) -> Ran {
    let Prepared { name, arguments, variables, stale } = prepared;
    let mut command = Command::new(&name);
    command.args(arguments);
    for variable in stale {
        command.env_remove(variable);
    }
    command.envs(variables);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ran::not(format!("it could not be started: {error}")),
    };
    // Names this process and no later one with its number. It cannot have been reaped: that is done below.
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // It fails if the command does not read it, which is up to the command.
        tokio::task::spawn_blocking(move || drop(pipe.write_all(input.as_bytes())));
    }
    let mut waiting = tokio::task::spawn_blocking(move || child.wait());
    loop {
        tokio::select! {
            ended = &mut waiting => return match ended {
                Ok(Ok(status)) => of(status),
                Ok(Err(error)) => Ran::not(format!("how it ended is not known: {error}")),
                Err(error) => Ran::not(format!("how it ended is not known: {error}")),
            },
            signal = signals.next() => {
                // Who has sent it is not known: Ctrl-C is what is likely.
                let has_it = signal == Signal::INT && is_in_foreground();
                if let (false, Ok(process)) = (has_it, &process) {
                    // It fails if the command has just ended.
                    let _ = pidfd_send_signal(process, signal);
                }
            }
        }
    }
}

/// Whether the terminal sends its SIGINT to this process, and so to the command, which is in the same process group.
fn is_in_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else { return false };
    tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())
}

fn of(status: ExitStatus) -> Ran {
    let detail = match (status.code(), status.signal()) {
        (Some(0), _) => String::new(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "it did not end by itself".to_owned(),
    };
    Ran { succeeded: status.success(), detail }
}
