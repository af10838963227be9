//! Tells programs outside of requests: each target of each milestone that it wants, in order for each request, at least
//! once, and again on a schedule until it has taken it or is given up.
//!
//! What is to be told is in the store, written with the state that it is about ([`Dispatches`]). A target is whatever
//! implements [`Target`]; the worker knows nothing of what they are.
//!
//! [`Dispatches`]: countersign_store::Dispatches

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod schedule;
mod target;
mod targets;
mod worker;

mod metrics;

pub mod webhook;

#[cfg(test)]
mod tests;

pub use countersign_outbound::Reach;
pub use metrics::DispatchMetrics;
pub use target::{Answer, Target, Telling, What, message_id};
pub use targets::Targets;
pub use worker::{Parts, Worker, drop_removed};
