//! The core: a request, the events that happen to it, and the one pure function that joins them.
//!
//! Nothing in here reads a clock, a file, the network or randomness; times and ids are arguments.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

mod audit_event;
mod commitment;
mod digest;
mod effect;
mod event;
mod gate;
mod id;
mod intent;
mod milestone;
mod operate;
mod proposal;
mod refusal;
mod request;
mod step;
mod submission;
mod supersede;
mod timestamp;
mod usage;

#[cfg(test)]
mod tests;

pub use audit_event::{AuditEvent, AuditSubject};
pub use commitment::{
    BadSalt, BadVersion, Commitments, PayloadHashVersion, Salt, WrappedSalt, payload_hash_of,
};
pub use digest::{BadDigest, Digest, Hasher, canonical, parameter_digests, payload_hash};
pub use effect::{AuditEntry, Count, Counter, Effect};
pub use event::{
    Act, Actor, Edit, Event, FailureKind, Identity, Known, PolicyFailure, Reason, Requirement,
    RequirementKind, Ruling, Standing, Verdict,
};
pub use gate::{Deployment, Gate, StatusCheck};
pub use id::{BadRequestId, RequestId};
pub use intent::Intent;
pub use milestone::Milestone;
pub use operate::{AdminActor, AdminEnd, Ending};
pub use proposal::Proposal;
pub use refusal::Refusal;
pub use request::{Decided, Escalation, Needs, Open, Replacement, Request, State, Status};
pub use step::{LATENCY_BUCKETS_MS, MAX_HISTORY, Step, draft};
pub use submission::{Consent, Link, Origin, Party, REDACTED, Submission};
pub use supersede::SupersedeKey;
pub use timestamp::{BadTimestamp, Timestamp};
pub use usage::{
    Consumption, Presented, PresentedParameters, Repeat, RunReport, RunResult, Usage, UseAct, UseRefusal,
    UseTerms,
};
