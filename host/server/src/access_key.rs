//! `countersign access`: making what the access file keeps, and saying what it makes of a token.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use countersign_access::{ApiKey, Explained, explain};
use countersign_client::commands::read_token;
use countersign_console::{note, say_text};
use countersign_core::clock::{Clock as _, SystemClock};

use crate::access_control::AccessControl;

/// The exit code if something is wrong.
const WRONG: u8 = 2;

/// Make API keys for the access file, and see whose a token is by it.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Make an API key: prints it once, and the line for the access file.
    Key(Key),
    /// Say whose the token of an identity provider is, and which of its claims differ from the rules of the access file. Its
    /// signature is not checked, and nothing is called.
    #[command(after_long_help = EXIT_CODES)]
    Explain(Explain),
}

const EXIT_CODES: &str = "\
Exit codes:
  0  a gateway with this file would take it now, if its issuer has signed it
  1  it would not
  2  the arguments or the file are wrong, or it is no token";

/// A new API key.
#[derive(Debug, Args)]
pub struct Key {
    /// The caller or the admin that it is for.
    #[arg(value_name = "NAME", value_parser = countersign_access::holder_name)]
    name: String,
}

/// Whose token it is.
#[derive(Debug, Args)]
pub struct Explain {
    /// The access file.
    #[arg(long, value_name = "COUNTERSIGN_ACCESS")]
    access: PathBuf,
    /// The token; `@FILE` for a file that holds it, `-` for the standard input.
    #[arg(value_name = "TOKEN")]
    token: String,
}

/// Runs a command, and returns the exit code. Blocks.
#[must_use]
pub fn run(command: &AccessCommand) -> ExitCode {
    let ran = match command {
        AccessCommand::Key(Key { name }) => make(name),
        AccessCommand::Explain(command) => command.explain(),
    };
    ran.unwrap_or_else(|why| {
        note!("{why}");
        ExitCode::from(WRONG)
    })
}

fn make(name: &str) -> Result<ExitCode, String> {
    let key = ApiKey::generate().map_err(|error| format!("the system gives no randomness: {error}"))?;
    say_text(format_args!("{}", text(name, &key)));
    Ok(ExitCode::SUCCESS)
}

impl Explain {
    fn explain(&self) -> Result<ExitCode, String> {
        let token = read_token(&self.token).map_err(|ended| ended.why)?;
        if ApiKey::is_one(&token) {
            return Err(
                "this is an API key, which has no claims: compare its SHA-256 with the file".to_owned()
            );
        }
        let access = AccessControl::start(&self.access).map_err(|error| error.to_string())?;
        let explained = explain(&access.authenticator.access(), &token, SystemClock.now());
        let Explained { lines, counts } = explained.map_err(|error| error.to_string())?;
        say_text(format_args!("{}\n", lines.join("\n")));
        Ok(if counts { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn text(name: &str, key: &ApiKey) -> String {
    let (secret, digest) = (key.reveal(), key.digest());
    format!(
        "API key of `{name}`; keep it, for it is not shown again:\n  {secret}\n\n\
         line for the access file, under `callers: {name}: keys:`, or for an admin under `admins: {name}: keys:`\n  - {{ sha256: {digest} }}\n"
    )
}
