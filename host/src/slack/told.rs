//! Stands in until the rendering is merged.

use crate::lifecycle::{Reason, Request, Timestamp};

/// A refusal.
#[must_use]
pub fn refusal(_code: &str, detail: &str, _: &[Reason], _: Option<&Request>, _: Timestamp) -> String {
    detail.to_owned()
}

/// Made again.
#[must_use]
pub fn rerequested(request: &Request) -> String {
    format!("made again as {}", request.id)
}
