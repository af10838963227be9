//! How Slack is called. Its tokens are among the secrets.

use clap::Args;
use countersign_slack::{self as slack, DEFAULT_API_URL};

/// How Slack is called. The tokens come from the environment only.
#[derive(Debug, Args)]
#[command(next_help_heading = "Slack")]
pub struct Slack {
    /// The URL of Slack's Web API: `https`, or `http` to a simulator on this machine.
    #[arg(long = "slack-api-url", value_name = "SLACK_API_URL", default_value = DEFAULT_API_URL)]
    #[arg(value_parser = slack::api_url)]
    pub api_url: String,
    /// A factor on Slack's rate limits, for workspaces that have other ones; may be a fraction.
    #[arg(long = "slack-rate-factor", value_name = "SLACK_RATE_FACTOR", default_value = "1")]
    #[arg(value_parser = factor)]
    pub rate_factor: f64,
    /// How many WebSockets to keep open in Socket Mode.
    #[arg(long = "slack-socket-connections", value_name = "SLACK_SOCKET_CONNECTIONS", default_value = "2")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=10))]
    pub socket_connections: u8,
    /// The ids of other workspaces (`T…`) and Enterprise organizations (`E…`) whose people count, separated by commas.
    #[arg(long = "slack-team-ids", value_name = "SLACK_TEAM_IDS", value_delimiter = ',')]
    #[arg(value_parser = team_id)]
    pub team_ids: Vec<String>,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= 1000.0 => Ok(factor),
        _ => Err("this is a number above 0 and up to 1000".into()),
    }
}

fn team_id(text: &str) -> Result<String, String> {
    let id = text.trim();
    let is_id = id.len() > 1
        && id.starts_with(['T', 'E'])
        && id.bytes().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit());
    if is_id {
        Ok(id.to_owned())
    } else {
        Err("this is the id of a workspace, `T…`, or of an organization, `E…`".into())
    }
}
