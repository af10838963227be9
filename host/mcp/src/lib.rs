//! `countersign mcp`: an MCP server by which an agent asks a gateway, waits, and uses an approval.
//!
//! The agent decides nothing: it gets handles, and wait tokens stay here. What is not known, or cannot be checked, is no
//! approval. This crate is apart from the client's, so that programs that use that one do without the protocol's library.

// They panic if nobody reads: `host/console` prints.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

mod server;

mod progress;
mod requests;
mod tools;

mod strict;
mod web;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use countersign_client::Environment;
use countersign_client::commands::{Connection, Ended, Exit, party, word};
use countersign_console::note;
use countersign_core::lifecycle::Party;
use rmcp::ServiceExt as _;
use rmcp::transport::io::stdio;
use tokio::signal::unix::{SignalKind, signal};

use self::requests::Asker;
use self::server::Server;
use self::strict::Lines;
use self::web::Web;

/// The variable with the token that callers over HTTP must have.
const TOKEN: &str = "COUNTERSIGN_MCP_TOKEN";

/// For how long a gateway that gives no usable answer is tried again at most: clients give a call up after 60 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest message, in bytes: the gateway takes 128 KiB of canonical JSON.
const MOST_BYTES: usize = 1 << 20;

/// Serve tools to an agent by which it asks, waits, and uses approvals.
///
/// By default on the standard input and output, as agents' hosts start it. With `--listen` it is served by streamable HTTP
/// at `/mcp`, to whoever has the token in the variable `COUNTERSIGN_MCP_TOKEN`.
#[derive(Debug, Args)]
pub struct McpCommand {
    #[command(flatten)]
    connection: Connection,
    /// An action that the agent may ask for; may be repeated. By default any that the gateway lets this caller ask for.
    #[arg(long = "action", value_name = "NAME")]
    actions: Vec<String>,
    /// In whose name the agent asks, unless the credentials say so. The agent cannot choose.
    #[arg(long, value_name = "SOURCE:ID", value_parser = party)]
    requester: Option<Party>,
    /// The repository that requests come from; the folder that this is started in if it is left out.
    #[arg(long, value_name = "REPO")]
    repo: Option<String>,
    /// Serve streamable HTTP on this address, in place of the standard input and output.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A name under which clients reach `--listen`, as behind a proxy that ends TLS; may be repeated. Without one, only
    /// addresses of this machine can be listened on.
    #[arg(long = "host", value_name = "HOST", requires = "listen")]
    hosts: Vec<String>,
}

impl McpCommand {
    /// Serves until the input is closed, or a signal says to end; then ends the process, since a read of the standard input
    /// cannot be given up.
    pub async fn run(mut self, environment: Environment) -> ! {
        self.connection.patience = self.connection.patience.min(PATIENCE);
        let exit = match self.serve(&environment).await {
            Ok(()) => Exit::Approved,
            Err(Ended { exit, why }) => {
                note!("{}: {why}", word(exit));
                exit
            }
        };
        std::process::exit(i32::from(exit as u8))
    }

    async fn serve(self, environment: &Environment) -> Result<(), Ended> {
        let web = self.listen.map(|address| Web::new(address, self.hosts.clone(), environment.get(TOKEN)));
        let web = web.transpose()?;
        let repo = match self.repo {
            Some(repo) => repo,
            None => std::env::current_dir().map_err(Ended::usage)?.to_string_lossy().into_owned(),
        };
        let client = self.connection.client(environment).await?;
        let asker = Arc::new(Asker::new(client, self.connection, self.actions, self.requester, repo));
        let server = Server::new(Arc::clone(&asker));
        let served = async {
            match web {
                Some(web) => web.serve(server).await,
                None => by_stdio(server).await,
            }
        };
        let ended = tokio::select! {
            ended = served => ended,
            ended = signalled() => ended,
        };
        asker.cancel_open().await;
        ended
    }
}

async fn by_stdio(server: Server) -> Result<(), Ended> {
    let (input, output) = stdio();
    // A host that closes the input before it has said anything has changed its mind.
    let Ok(running) = server.serve(Lines::new(input, output)).await else { return Ok(()) };
    running.waiting().await.map(drop).map_err(Ended::doubt)
}

async fn signalled() -> Result<(), Ended> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Ended::doubt)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Ended::doubt)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Ended::doubt)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
