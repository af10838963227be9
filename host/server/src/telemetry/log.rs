//! The log: lines on the standard error, as JSON or for people.
//!
//! A failure is logged once, where it is handled. No line holds a body, a token, a parameter or a name.

use std::io;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, Logging};

/// Starts the log of this process.
///
/// # Errors
/// Where the filter is malformed or a log was started before.
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
