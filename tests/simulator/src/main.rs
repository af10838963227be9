//! The Slack simulator as a program, to try the gateway out.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use slack_simulator::{Options, Simulator, Workspace};

/// A simulator of the parts of Slack that Countersign uses, with a page to click in. It keeps everything in memory.
#[derive(Debug, Parser)]
#[command(name = "slack-simulator", version)]
struct Arguments {
    /// Address to listen on; loopback only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// URL of the gateway that gets the interactions
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    gateway: String,
    /// The variable with the secret that signs interactions
    #[arg(long, value_name = "NAME", default_value = "SLACK_SIGNING_SECRET")]
    signing_secret_env: String,
    /// The variable with the bot token of the gateway
    #[arg(long, value_name = "NAME", default_value = "SLACK_BOT_TOKEN")]
    bot_token_env: String,
    /// The variable with the app token for Socket Mode; without it a built-in one is used
    #[arg(long, value_name = "NAME", default_value = "SLACK_APP_TOKEN")]
    app_token_env: String,
    /// A JSON file with the people, groups and channels; see `--print-people`
    #[arg(long, value_name = "FILE")]
    people: Option<PathBuf>,
    /// Print the built-in people, groups and channels, in the format of `--people`
    #[arg(long)]
    print_people: bool,
    /// Factor for Slack's rate limits
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    rate_factor: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.print_people {
        println!("{}", serde_json::to_string_pretty(&Workspace::sample())?);
        return Ok(());
    }
    anyhow::ensure!(arguments.rate_factor > 0.0, "`--rate-factor` must be more than 0");
    let mut options =
        Options { listen: arguments.listen, rate_factor: arguments.rate_factor, ..Options::default() };
    options.signing_secret = needed(&arguments.signing_secret_env)?;
    options.bot_token = needed(&arguments.bot_token_env)?;
    if let Some(token) = variable(&arguments.app_token_env) {
        options.app_token = token;
    }
    if let Some(path) = &arguments.people {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        options.workspace = Workspace::parse(&text).with_context(|| format!("in `{}`", path.display()))?;
    }
    let slack = Simulator::start(options).await?;
    slack.set_gateway(&arguments.gateway);
    println!("listening on {}", slack.url());
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
}

fn needed(name: &str) -> Result<String> {
    variable(name).with_context(|| format!("the variable `{name}` is not set"))
}

#[expect(clippy::disallowed_methods, reason = "this is where the simulator's configuration is read")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
