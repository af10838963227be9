//! The log: lines on the standard error, as JSON or as plain text.
//!
//! A failure is logged once, where it is handled. No line contains a body, a token, a parameter or a person's name.

use std::io;

use countersign_gateway::GatewayError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, Logging};

/// Starts the log of this process.
///
/// # Errors
/// If the filter is malformed or a log was started before.
pub fn start_log(logging: &Logging) -> anyhow::Result<()> {
    let filter: Targets = logging.filter.parse()?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match logging.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
        LogFormat::Text => {
            registry.with(layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).try_init()?
        }
    }
    Ok(())
}

/// Logs an error if an operator should know of it. Mistakes of callers are not logged.
pub(crate) fn log_failure(error: &GatewayError) {
    match error {
        GatewayError::Store(_)
        | GatewayError::Rules(_)
        | GatewayError::RulesLost(_)
        | GatewayError::Stopped(_)
        | GatewayError::Randomness(_) => tracing::error!(%error, code = error.code(), "call failed"),
        GatewayError::Contended => {
            tracing::warn!(code = error.code(), "call failed: too many concurrent changes of the request");
        }
        // The gateway itself logs failures of policies.
        _ => {}
    }
}
