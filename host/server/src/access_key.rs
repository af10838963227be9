//! `countersign access`: making what the access file keeps.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use countersign_access::ApiKey;
use countersign_console::{note, say_text};

/// Make API keys for the access file.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Make an API key: prints it once, and the line for the access file.
    Key(Key),
}

/// A new API key.
#[derive(Debug, Args)]
pub struct Key {
    /// The caller or the admin that it is for.
    #[arg(value_name = "NAME", value_parser = countersign_access::holder_name)]
    name: String,
}

/// Runs a command, and returns the exit code.
#[must_use]
pub fn run(command: &AccessCommand) -> ExitCode {
    let AccessCommand::Key(Key { name }) = command;
    match ApiKey::generate() {
        Ok(key) => {
            say_text(format_args!("{}", text(name, &key)));
            ExitCode::SUCCESS
        }
        Err(error) => {
            note!("the system gives no randomness: {error}");
            ExitCode::from(2)
        }
    }
}

fn text(name: &str, key: &ApiKey) -> String {
    let (secret, digest) = (key.reveal(), key.digest());
    format!(
        "API key of `{name}`; keep it, for it is not shown again:\n  {secret}\n\n\
         line for the access file, under `callers: {name}: keys:`, or for an admin under `admins: {name}: keys:`\n  - {{ sha256: {digest} }}\n"
    )
}
