//! HTTP: routes, one file a resource, and the listener that serves them.
//!
//! Handlers parse, ask the gateway, and show what it says; they decide nothing.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod admin;
mod again;
mod body;
mod check;
mod connection;
mod create;
mod error;
mod health;
mod modules;
mod openapi;
mod params;
mod policy_sets;
mod ratelimit;
mod router;
mod schemas;
mod serve;
mod shadow;
mod slack;
mod sse;
mod status;
mod view;
mod wait;

#[cfg(test)]
mod tests;

pub(crate) use admin::AdminToken;
pub(crate) use error::ApiError;
pub use ratelimit::Peer;
pub(crate) use ratelimit::{Buckets, Client};
pub use router::router;
pub use serve::serve;
