//! GitLab: an external status check of merge requests.

mod delivery;
mod service;

pub use delivery::{CLAIMS, read};
pub use service::{Gitlab, Status};

/// How long a check may stay pending before GitLab lets it fail, in milliseconds.
pub const PENDING_MS: u64 = 120_000;

/// The API of gitlab.com.
pub const DEFAULT_API_URL: &str = "https://gitlab.com/api/v4";
