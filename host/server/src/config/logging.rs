//! What is logged, and in which format.

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::Targets;

/// What is logged, and in which format. The log goes to the standard error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct Logging {
    /// What to log: a level, or directives such as `info,countersign_gateway::scheduler=debug`. Of libraries, nothing
    /// below `info` is logged: they trace URLs and headers.
    #[arg(long = "log", value_name = "COUNTERSIGN_LOG", default_value = "info", value_parser = directives)]
    pub filter: String,
    /// JSON, one object a line, or plain text.
    #[arg(long = "log-format", value_name = "COUNTERSIGN_LOG_FORMAT", default_value = "json")]
    pub format: LogFormat,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Plain text, coloured on a terminal.
    Text,
}

fn directives(text: &str) -> Result<String, String> {
    match text.parse::<Targets>() {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        Ok(_) => {
            Err("this is a level, or directives such as `info,countersign_gateway::scheduler=debug`".into())
        }
        Err(error) => Err(error.to_string()),
    }
}
