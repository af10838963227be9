//! Countersign: the gate in front of risky automation.
//!
//! The map of the code, in reading order; docs/ARCHITECTURE.md tells it at length.

// What a request is, and the one function that moves it on.
pub mod lifecycle;

// The shell around it: load, judge, step, commit, tell.
pub mod gateway;

// What requests are judged by, and how that changes while the gateway runs.
pub mod policy;
pub mod policy_sets;
pub mod registry;
pub mod rehearsal;

// Where requests are kept.
pub mod store;

// What happens by itself.
pub mod clock;
pub mod scheduler;

// How JSON is read, wherever it comes from.
mod json;

// How callers and people reach the gateway.
pub mod http;
pub mod slack;

// How it is run: put together, configured, watched and ended.
pub mod app;
pub mod config;
mod loopback;
pub mod secret;
pub mod shutdown;
pub mod telemetry;

// For people who write policies.
pub mod author;

// For moving in.
pub mod import;

// For trying things out.
pub mod dev;
