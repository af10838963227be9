//! Gates of CI systems: GitHub's deployment protection rules, and GitLab's external status checks.
//!
//! Both are the same: the CI system calls with a signature, a request is made for it, and what was decided is reported by
//! a call of its API. Here is what belongs to the CI systems: how their calls are verified and read, and the calls of their
//! APIs. Which action a delivery asks for says the access file; what is reported when, the server.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod api_url;
mod asked;
mod call;
mod signature;

pub mod github;
pub mod gitlab;

pub use api_url::{ApiUrl, ApiUrlError};
pub use asked::{Asked, Malformed, Read};
pub use call::CallError;
pub use signature::Verifier;
