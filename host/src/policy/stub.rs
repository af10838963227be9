//! Stand-in until the engine lands.
#![expect(missing_docs, clippy::missing_errors_doc, reason = "stand-in")]
use super::PolicyEntry;
use crate::lifecycle::*;
use serde_json::{Map, Value};
use std::sync::Arc;
pub struct ActionPolicy {
    pub entry: Arc<PolicyEntry>,
    pub hash: Digest,
}
pub struct AdmitInput<'a> {
    pub id: RequestId,
    pub requester: Actor,
    pub params: &'a Map<String, Value>,
    pub submission: &'a Submission,
}
pub enum Admission {
    Denied(Vec<Reason>),
    Failed(PolicyFailure),
}
impl ActionPolicy {
    pub fn admit(&self, _: &AdmitInput<'_>) -> Result<Vec<String>, Admission> {
        Ok(vec![])
    }
    pub fn judge(&self, _: &Request, _: &Event) -> Vec<Verdict> {
        vec![]
    }
    pub fn check_edit(&self, _: &str, _: Option<&Value>) -> Vec<String> {
        vec![]
    }
    pub fn schema(&self) -> Option<&Value> {
        None
    }
}
pub struct PolicySet {
    pub hash: Digest,
}
impl PolicySet {
    pub fn rules(&self, _: &str) -> Option<Arc<ActionPolicy>> {
        None
    }
}
pub struct Policies;
impl Policies {
    pub fn active(&self) -> Arc<PolicySet> {
        Arc::new(PolicySet { hash: Digest::of(b"") })
    }
    pub fn by_hash(&self, _: &Digest) -> Option<Arc<ActionPolicy>> {
        None
    }
    pub fn restore(&self, _: PolicyEntry, _: Vec<Vec<u8>>) -> Result<Arc<ActionPolicy>, RestoreError> {
        Err(RestoreError::Missing(Digest::of(b"")))
    }
}
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("`{0}` is missing")]
    Missing(Digest),
    #[error("stopped: {0}")]
    Stopped(String),
}
