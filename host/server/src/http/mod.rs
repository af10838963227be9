//! HTTP: routes, one file a resource, and the listener that serves them.
//!
//! Handlers parse, call the gateway, and show what it returns; they decide nothing.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// The listener, its connections, and which path goes to which handler.
mod connection;
mod connection_limit;
mod front_door;
mod router;
mod secured;
mod serve;
mod takeover;

// What handlers read, and how they fail.
mod body;
mod bundle;
mod caller;
mod check;
mod client;
mod error;
mod idempotency;
mod params;
mod proxies;

// For callers.
mod can_act;
mod cancel;
mod create;
mod end;
mod place;
mod receipts;
mod rerequest;
mod schemas;
mod sse;
mod status;
mod usage;
mod view;
mod wait;

// For Slack.
mod slack;

// For CI systems.
mod hooks;

// For admins.
mod access;
mod admin;
mod audit;
mod gateway_state;
mod modules;
mod policy_sets;
mod requests;
mod shadow;
mod webhooks;

// For operators.
mod health;
mod openapi;

#[cfg(test)]
mod tests;

pub use client::Peer;
pub use connection_limit::ConnectionLimit;
pub(crate) use idempotency::Fingerprints;
#[cfg(test)]
pub(crate) use openapi::document as openapi_document;
pub(crate) use place::Permalinks;
#[cfg(test)]
pub(crate) use router::paths_of_operators;
pub use router::{Surface, router};
pub use serve::{Limits, Listener, serve};
