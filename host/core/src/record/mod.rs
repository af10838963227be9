//! Records that a store keeps beside requests: rules, signatures, messages in Slack, changes of the policy set.

mod policy_change;
mod policy_entry;
mod signature;
mod slack_post;

pub use policy_change::{
    AdminCall, Authentication, ChangeFault, ChangeKind, ChangeOutcome, ChangeTrigger, PolicyChange,
};
pub use policy_entry::{Escalate, PolicyEntry, PolicyUse, Redaction, Rerequest, Unsatisfiable};
pub use signature::{MOST_SIGNATURES, NoSignature, SIGNATURES_BYTES, Signature};
pub use slack_post::{Mark, PostState, SlackPost, Slot};
