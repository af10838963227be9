//! How long what Slack said counts as fresh.

use countersign_core::clock::Moment;

/// Whether what Slack said at `at` is younger than `most_ms` by both clocks. What it said in the future, before the clock was
/// set back, is not: as of when it is would be shown wrongly.
pub(crate) fn is_fresh(at: Moment, now: Moment, most_ms: u64) -> bool {
    at.wall <= now.wall && now.since(at) < most_ms
}
