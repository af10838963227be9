//! The commands, one module each: its arguments, `run`, and its report.
//!
//! `judge` is a module of the crate's root.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod diff;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod keygen;
pub(crate) mod new;
pub(crate) mod pack;
pub(crate) mod push;
pub(crate) mod replay;
pub(crate) mod sdk;
pub(crate) mod sign;
pub(crate) mod test;
