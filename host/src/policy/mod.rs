//! Policies: sandboxed WebAssembly components, loaded by hash.

mod entry;

pub use entry::{Escalate, PolicyEntry, PolicyUse, Redaction, Rerequest};
mod stub;
pub use stub::*;
