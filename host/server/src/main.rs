//! Parse, build, serve, drain; nothing else.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use countersign::app::{App, StartError};
use countersign::config::{Cli, Command, Config, ConfigError};
use countersign::{dev, shutdown, telemetry};
use countersign_authoring as author;
use tokio::net::TcpListener;

/// The exit code of a start that the configuration or the policy set stops.
const WRONG_SETUP: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::from_process() {
        Ok(Cli { command: Command::Serve(config) }) => serve(&config).await,
        Ok(Cli { command: Command::Dev(dev) }) => return dev::run(dev).await,
        Ok(Cli { command: Command::Policy(policy) }) => return author::run(&policy),
        Err(ConfigError::Flags(error)) => error.exit(),
        Err(error) => return stop(WRONG_SETUP, &error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Policies(errors)) => stop(WRONG_SETUP, &errors.to_string()),
        Err(StartError::Keys(error)) => stop(WRONG_SETUP, &error.to_string()),
        Err(StartError::Other(error)) => stop(1, &format!("{error:#}")),
    }
}

async fn serve(config: &Config) -> Result<(), StartError> {
    telemetry::start_log(&config.logging)?;
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let app = Arc::new(App::start(config).await?);
    let listen = config.network.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on `{listen}`"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    shutdown::on_signals(app.shutdown().clone()).context("cannot listen for signals")?;
    app.policy_sets().on_hangup().context("cannot listen for SIGHUP")?;
    tracing::info!(%address, "listening");
    // Whoever does not want to know has closed the standard output.
    let _ = writeln!(std::io::stdout(), "listening on http://{address}");
    Ok(app.serve(listener).await?)
}

fn stop(code: u8, why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(code)
}
