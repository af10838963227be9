//! Parse, build, serve, drain; nothing else.

// They panic if nobody reads: `host/console` prints.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use countersign::build::{StartError, build};
use countersign::cli::{Cli, CliError, Command, client_environment};
use countersign::config::Config;
use countersign::http::{Listener, Surface};
use countersign::run::run;
use countersign::tls::{Tls, TlsFiles};
use countersign::{
    access_key, audit, check_config, dev, health, receipt, shell, shutdown, store_copy, telemetry,
};
use countersign_client::commands::hook;
use countersign_console::note;
use countersign_core::clock::SystemClock;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A create allocates some hundred times, on one thread what is freed on another; docs/PERFORMANCE.md has the comparison.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code if the configuration or the policy set is wrong.
const WRONG_SETUP: u8 = 2;

/// How long a thread that blocks is waited for at the end, as one that reads a file of a file system that does not answer.
const BLOCKED: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start threads: {error}")),
    };
    let code = runtime.block_on(command());
    runtime.shutdown_timeout(BLOCKED);
    code
}

async fn command() -> ExitCode {
    let served = match Cli::from_process() {
        Ok(Cli { command: Command::Serve(config) }) => {
            serve(&config).await.map_err(|error| match error {
                // Also one that comes after days: nothing is examined for it.
                StartError::Other(_) => (Vec::new(), error),
                _ => (check_config::others(&config, &error), error),
            })
        }
        Ok(Cli { command: Command::CheckConfig(config) }) => return check_config::run(&config),
        Ok(Cli { command: Command::Health(health) }) => return health::run(&health).await,
        Ok(Cli { command: Command::Completions(completions) }) => return shell::complete(&completions),
        Ok(Cli { command: Command::Man(manual) }) => return shell::manual(&manual),
        Ok(Cli { command: Command::Ask(ask) }) => return ask.run(&client_environment()).await.into(),
        Ok(Cli { command: Command::Wait(wait) }) => return wait.run(&client_environment()).await.into(),
        Ok(Cli { command: Command::Hook(hook) }) => hook.run(client_environment()).await,
        Ok(Cli { command: Command::Requests(requests) }) => {
            return requests.run(&client_environment()).await;
        }
        Ok(Cli { command: Command::Webhooks(webhooks) }) => {
            return webhooks.run(&client_environment()).await;
        }
        Ok(Cli { command: Command::Mcp(mcp) }) => mcp.run(client_environment()).await,
        Ok(Cli { command: Command::Hash(hash) }) => return hash.run().into(),
        Ok(Cli { command: Command::Dev(dev) }) => return dev::run(dev).await,
        Ok(Cli { command: Command::Keys(command) }) => return countersign::run_keys(&command).await,
        Ok(Cli { command: Command::Access(command) }) => return access_key::run(&command),
        Ok(Cli { command: Command::Receipt(command) }) => return receipt::run(&command),
        Ok(Cli { command: Command::Store(command) }) => return store_copy::run(&command).await,
        Ok(Cli { command: Command::Audit(command) }) => return audit::run(&command).await,
        Ok(Cli { command: Command::Policy(policy) }) => return countersign_authoring::run(&policy),
        Err(error) if is_refused_hook(&error) => {
            let arguments: Vec<_> = std::env::args_os().collect();
            hook::refuse(&arguments, &error.to_string());
        }
        Err(CliError::Flags(error)) => error.exit(),
        Err(error) => return fail(WRONG_SETUP, &error.to_string()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err((_, StartError::Other(error))) => fail(1, &format!("{error:#}")),
        // Whoever mends one is told of all.
        Err((others, error)) => fail(WRONG_SETUP, &[vec![error.to_string()], others].concat().join("\n")),
    }
}

/// Whether a hook was called wrongly: its host goes on after most failures, so it has to be told.
fn is_refused_hook(error: &CliError) -> bool {
    let is_help = matches!(error, CliError::Flags(error) if !error.use_stderr());
    !is_help && std::env::args_os().nth(1).is_some_and(|command| command == "hook")
}

async fn serve(config: &Config) -> Result<(), StartError> {
    telemetry::start_log(&config.logging)?;
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let shutdown = CancellationToken::new();
    // From here on: whoever has started it may stop it at once, and a container's first process ignores what it does not
    // listen for.
    shutdown::on_signals(shutdown.clone()).context("cannot listen for signals")?;
    let start = async {
        let app = Arc::new(build(config, Arc::new(SystemClock), shutdown.clone()).await?);
        let listeners = listen(config).await?;
        Ok::<_, StartError>((app, listeners))
    };
    let (app, listeners) = tokio::select! {
        started = start => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    Ok(run(app, config, listeners).await?)
}

/// Listens where the settings say: what has no address of its own is served where callers are.
async fn listen(config: &Config) -> Result<Vec<Listener>, StartError> {
    let (network, tls) = (&config.network, &config.tls);
    let (operations, slack) = (network.ops_listen, network.slack_listen);
    let none = Surface { callers: false, operations: false, slack: false };
    let main = Surface { callers: true, operations: operations.is_none(), slack: slack.is_none() };
    let wanted = [
        (operations, Surface { operations: true, ..none }, "operations", tls.operations(), "operations on"),
        (slack, Surface { slack: true, ..none }, "slack", tls.slack(), "Slack on"),
        // Last, since whoever starts a gateway waits for its line.
        (Some(network.listen), main, "callers", tls.callers(), "listening on"),
    ];
    let mut listeners = Vec::new();
    let mut lines = String::new();
    for (address, surface, name, files, what) in wanted {
        let Some(address) = address else { continue };
        let tls = start_tls(name, files).await?;
        let socket =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on `{address}`"))?;
        let address = socket.local_addr().context("the listener has no address")?;
        let Surface { callers, operations, slack } = surface;
        tracing::info!(%address, callers, operations, slack, tls = tls.is_some(), "listening");
        let scheme = if tls.is_some() { "https" } else { "http" };
        lines.push_str(&format!("{what} {scheme}://{address}\n"));
        listeners.push(Listener { socket, surface, tls });
    }
    // It fails if the standard output is closed: then nobody reads it.
    let _ = std::io::stdout().write_all(lines.as_bytes());
    Ok(listeners)
}

async fn start_tls(name: &'static str, files: Option<TlsFiles>) -> Result<Option<Arc<Tls>>, StartError> {
    let Some(files) = files else { return Ok(None) };
    let started = tokio::task::spawn_blocking(move || Tls::start(name, files)).await;
    Ok(Some(Arc::new(started.context("the TLS files were not read to the end")??)))
}

fn fail(code: u8, why: &str) -> ExitCode {
    note!("{why}");
    ExitCode::from(code)
}
