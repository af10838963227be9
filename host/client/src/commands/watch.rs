//! `countersign wait`: every state of a request until it ends.

use std::fs::File;
use std::io::Read as _;

use clap::Args;
use countersign_console::{note, say};
use countersign_core::lifecycle::{RequestId, Status};
use countersign_core::receipt::signed::verify;
use tokio::time::Instant;

use super::connection::Connection;
use super::decision::unused;
use super::exit::{EXIT_CODES, Ended, Exit};
use crate::environment::Environment;
use crate::patience::until;
use crate::text::plain;
use crate::wait::{News, Waiting};

/// The longest token that is read, in bytes: a gateway takes none of more than 16 KiB.
const TOKEN_BYTES: u64 = 64 * 1024;

const NO_TOKEN: &str =
    "it is no wait token, as `countersign ask --detach --token-out FILE` writes one to a file";

/// Print every state of a request until it ends, and check the receipt of the decision.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct WaitCommand {
    #[command(flatten)]
    connection: Connection,
    /// The wait token; `@FILE` for a file that holds it, `-` for the standard input.
    #[arg(value_name = "TOKEN")]
    token: String,
}

impl WaitCommand {
    /// Waits. Nothing is consumed by it.
    pub async fn run(&self, environment: &Environment) -> Exit {
        match self.wait(environment).await {
            Ok(exit) => exit,
            Err(Ended { exit, why }) => {
                note!("error: {why}");
                exit
            }
        }
    }

    async fn wait(&self, environment: &Environment) -> Result<Exit, Ended> {
        let token = read_token(&self.token)?;
        let client = self.connection.client(environment).await?;
        let keys = self.connection.keys(&client).await?;
        // A wait token begins with the request that it is of.
        let request = token.split('.').next().and_then(|id| id.parse::<RequestId>().ok());
        let request = request.ok_or_else(|| Ended::usage(NO_TOKEN))?;
        let mut waiting = Waiting::start(&client, &token);
        // When the patience with a gateway that is not heard of is over.
        let mut give_up = None;
        loop {
            let news = tokio::select! {
                biased;
                news = waiting.next() => news,
                () = until(give_up) => {
                    return Err(Ended::doubt("nothing was heard of the gateway for as long as `--patience` says"));
                }
            };
            let state = match news {
                Some(News::State(state)) => state,
                Some(News::Lost(error)) => {
                    note!("{}; trying again", plain(&error.to_string()));
                    give_up = Some(Instant::now() + client.patience());
                    continue;
                }
                Some(News::Back) => {
                    note!("the gateway answers again");
                    give_up = None;
                    continue;
                }
                Some(News::Refused(error)) => return Err(Ended::doubt(error)),
                None => return Err(Ended::doubt("the gateway says no more of this request")),
            };
            say!("{}  approvers: {}", state.status.as_str(), plain(&state.approvers.join(", ")));
            if let (Status::Approved, Some(keys)) = (state.status, &keys) {
                let receipt = state.receipt.as_deref();
                let receipt = receipt.ok_or_else(|| Ended::doubt(crate::Doubt::NoReceipt))?;
                let document =
                    verify(receipt, keys).map_err(|error| Ended::doubt(crate::Doubt::from(error)))?;
                if document.request_id != request {
                    return Err(Ended::doubt(crate::Doubt::Other("request")));
                }
                if document.decision != Status::Approved || document.payload.decided != state.payload_hash {
                    return Err(Ended::doubt(crate::Doubt::Other("decision")));
                }
            }
            match state.status {
                Status::Approved => return unused(&state).map(|()| Exit::Approved),
                Status::Denied => return Ok(Exit::Denied),
                Status::Expired => return Ok(Exit::Expired),
                Status::Cancelled => return Ok(Exit::Cancelled),
                Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => {}
            }
        }
    }
}

/// A token that is given on the command line: itself, `@FILE` for a file that holds it, or `-` for the standard input.
///
/// # Errors
/// If it cannot be read.
pub fn read_token(argument: &str) -> Result<String, Ended> {
    let mut text = String::new();
    let read = match argument.strip_prefix('@') {
        Some(path) => File::open(path).and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut text)),
        None if argument == "-" => std::io::stdin().lock().take(TOKEN_BYTES).read_to_string(&mut text),
        None => return Ok(argument.trim().to_owned()),
    };
    read.map_err(|error| Ended::usage(format!("cannot read the token: {error}")))?;
    Ok(text.trim().to_owned())
}
