//! The core: requests, the events that happen to them, and the records that a store keeps.
//!
//! Nothing in here does I/O: times and ids are arguments, and the clock is a port.

pub mod lifecycle;

pub mod record;

pub mod audit;
pub mod bundle;
pub mod receipt;

pub mod backoff;
pub mod clock;
pub mod directory;
pub mod duration;
pub mod eligible;
pub mod glob;
pub mod json;
pub mod loopback;
pub mod mac;
pub mod people;
pub mod secret;
pub mod text;
pub mod trace;
