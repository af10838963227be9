//! Policies: sandboxed WebAssembly components, loaded by hash.
//!
//! An [`Engine`] loads [`Module`]s and runs each call of them in a fresh sandbox. An [`ActionPolicy`] is one
//! action's entry with its modules, and answers the two questions of a request's life: may it be made, and
//! does an event count. A [`PolicySet`] is all of them, as loaded from a folder; [`Policies`] is the set in
//! force and whatever open requests are still pinned to.
//!
//! What becomes of a submission or an event is decided in [`decide`]; what the policies' answers amount to is the
//! combination rule of the core.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

// Where a submission or an event is decided.
pub mod decide;

mod action;
mod bindings;
mod cache;
mod engine;
pub mod files;
mod function;
mod metrics;
mod module;
mod pace;
mod policies;
pub mod reach;
mod schema;
mod set;
pub mod settings;
pub mod signing_key;
mod ticker;
mod trust;
pub mod yaml;

#[cfg(test)]
mod tests;

pub use action::{ActionError, ActionPolicy, ConfigFault, NotAdmitted};
pub use cache::CompileCache;
pub use engine::{Cost, Engine, EngineError, Limits};
pub use module::{Descriptor, Module, ModuleError, ReasonDoc};
pub use policies::{Policies, RestoreError};
pub use schema::checks_format;
pub use set::{Kept, Known, LoadError, LoadErrors, Manifest, Pins, PolicySet, Source, Stored};
pub use trust::{KeyError, Keys, PublicKey, Signed, Trust, Unsigned, Verified};
