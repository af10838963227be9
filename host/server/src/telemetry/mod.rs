//! The log and the metrics.

mod log;
mod metrics;
mod scrapes;
mod stored;

pub(crate) use log::log_failure;
pub use log::start_log;
pub(crate) use metrics::unix_seconds;
pub use metrics::{Metrics, SecurityEvent};
pub(crate) use scrapes::Scrapes;
pub use stored::stored;
