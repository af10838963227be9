//! Countersign: the gate in front of risky automation.
//!
//! The map of the code, in reading order; docs/ARCHITECTURE.md tells it at length.

pub mod lifecycle;

pub mod gateway;

pub mod policy;

pub mod store;

pub mod clock;
pub mod scheduler;
