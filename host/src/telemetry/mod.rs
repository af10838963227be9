//! What operators see: the log, and the metrics.

mod calls;
mod log;
mod metrics;
mod stored;

pub use calls::{CallMetrics, CallOutcome};
pub use log::start_log;
pub use metrics::{Metrics, SecurityEvent, StreamSlot};
pub use stored::stored;
