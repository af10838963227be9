//! One HTTP call to another system: to addresses that may be connected to, with limits on time and size. Nothing is
//! followed, no proxy is used, and no connection is kept.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod addresses;
mod client;

pub use addresses::{Reach, TooFar};
pub use client::{Answered, Call, CallError, Client, OutOfReach};
