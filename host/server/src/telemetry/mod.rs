//! The log and the metrics.

mod log;
mod metrics;
mod stored;

pub(crate) use log::log_failure;
pub use log::start_log;
pub use metrics::{Metrics, SecurityEvent};
pub use stored::stored;
