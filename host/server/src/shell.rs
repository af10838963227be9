//! `countersign completions` and `countersign man`: what packages install beside the program. Both are made from the
//! command line itself.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use countersign_console::{note, say_text};

use crate::cli::Cli;

/// Print what completes the commands in a shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

/// Prints the completions for a shell.
#[must_use]
pub fn complete(completions: &Completions) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(completions.shell, &mut Cli::command(), "countersign", &mut text);
    print(&text)
}

/// Print a manual page, in troff.
#[derive(Debug, Args)]
pub struct Manual {
    /// The command that it is about; without one, it is about the program.
    command: Option<String>,
}

/// Prints a manual page.
#[must_use]
pub fn manual(manual: &Manual) -> ExitCode {
    let program = Cli::command();
    let command = match &manual.command {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            Some(command) => {
                command.clone().name(format!("countersign-{name}")).bin_name(format!("countersign {name}"))
            }
            None => {
                note!("there is no command `{name}`");
                return ExitCode::from(2);
            }
        },
    };
    let mut text = Vec::new();
    // A Vec takes all that is written to it.
    let _ = clap_mangen::Man::new(command).render(&mut text);
    print(&text)
}

fn print(text: &[u8]) -> ExitCode {
    say_text(format_args!("{}", String::from_utf8_lossy(text)));
    ExitCode::SUCCESS
}
