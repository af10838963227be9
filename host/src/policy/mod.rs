//! Policies: sandboxed WebAssembly components, loaded by hash.

mod bindings;
mod entry;

pub use entry::{Escalate, PolicyEntry, PolicyUse, Redaction, Rerequest};
