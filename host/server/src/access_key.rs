//! `countersign access`: making what the access file keeps.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use countersign_access::ApiKey;

/// Make API keys for the access file.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Make an API key: prints it once, and the line for the access file.
    Key(Key),
}

/// A new API key.
#[derive(Debug, Args)]
pub struct Key {
    /// The caller that it is for.
    #[arg(value_name = "CALLER")]
    caller: String,
}

/// Runs a command, and returns the exit code.
#[must_use]
pub fn run(command: &AccessCommand) -> ExitCode {
    let AccessCommand::Key(Key { caller }) = command;
    match ApiKey::generate() {
        Ok(key) => {
            print!("{}", text(caller, &key));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the system gives no randomness: {error}");
            ExitCode::from(2)
        }
    }
}

fn text(caller: &str, key: &ApiKey) -> String {
    let (secret, digest) = (key.reveal(), key.digest());
    format!(
        "API key of `{caller}`; keep it, for it is not shown again:\n  {secret}\n\n\
         line for the access file, under `callers: {caller}: keys:`\n  - {{ sha256: {digest} }}\n"
    )
}
