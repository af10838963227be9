//! The contract of `wit/policy.wit` as Rust types: what goes into a sandbox borrows from the lifecycle's
//! values, what comes out is owned and becomes the lifecycle's values.
//!
//! Written by hand rather than generated, so that lowering a call copies no string on the host's side.
//! A module whose types differ is refused when it is loaded, which is also what keeps these in step.

use wasmtime::component::{ComponentType, Lift, Lower};

use countersign_core::lifecycle;

/// The interface that a policy module exports.
pub(super) const INTERFACE: &str = "countersign:policy/policy@0.1.0";

/// `describe: func() -> descriptor`
pub(super) type DescribeResult = (Descriptor,);
/// `check-config: func(config: json) -> list<reason>`
pub(super) type CheckParams<'a> = (&'a str,);
/// What `check-config` returns.
pub(super) type CheckResult = (Vec<Reason>,);
/// `admit: func(config: json, request: request) -> result<json, list<reason>>`
pub(super) type AdmitParams<'a> = (&'a str, Request<'a>);
/// What `admit` returns.
pub(super) type AdmitResult = (Result<String, Vec<Reason>>,);
/// `judge: func(context: context) -> result<ruling, list<reason>>`
pub(super) type JudgeParams<'a> = (Context<'a>,);
/// What `judge` returns.
pub(super) type JudgeResult = (Result<Ruling, Vec<Reason>>,);

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Descriptor {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) summary: String,
    #[component(name = "config-schema")]
    pub(super) config_schema: String,
    pub(super) reasons: Vec<ReasonDoc>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct ReasonDoc {
    pub(super) code: String,
    pub(super) help: String,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Actor<'a> {
    pub(super) id: &'a str,
    pub(super) groups: Vec<&'a str>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Request<'a> {
    pub(super) id: &'a str,
    pub(super) action: &'a str,
    pub(super) requester: Actor<'a>,
    pub(super) params: &'a str,
    pub(super) meta: &'a str,
    #[component(name = "submitted-at")]
    pub(super) submitted_at: u64,
    #[component(name = "expires-at")]
    pub(super) expires_at: u64,
    #[component(name = "lineage-depth")]
    pub(super) lineage_depth: u32,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Edit<'a> {
    key: &'a str,
    before: Option<String>,
    after: Option<String>,
    violations: &'a [String],
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(variant)]
pub(super) enum Act<'a> {
    #[component(name = "submitted")]
    Submitted,
    #[component(name = "acknowledge")]
    Acknowledge(&'a str),
    #[component(name = "approve")]
    Approve(Vec<Edit<'a>>),
    #[component(name = "deny")]
    Deny(Option<&'a str>),
    #[component(name = "withdraw")]
    Withdraw,
    #[component(name = "escalated")]
    Escalated,
    #[component(name = "tick")]
    Tick,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Event<'a> {
    seq: u32,
    at: u64,
    by: Option<Actor<'a>>,
    act: Act<'a>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Context<'a> {
    pub(super) config: &'a str,
    pub(super) memo: &'a str,
    pub(super) request: Request<'a>,
    pub(super) history: &'a [Event<'a>],
    pub(super) event: &'a Event<'a>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Reason {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) path: Option<String>,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "made by lifting only, from the number of the variant")]
pub(super) enum RequirementKind {
    #[component(name = "approval")]
    Approval,
    #[component(name = "acknowledgement")]
    Acknowledgement,
    #[component(name = "time")]
    Time,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Requirement {
    pub(super) kind: RequirementKind,
    pub(super) label: String,
    pub(super) have: u32,
    pub(super) need: u32,
    pub(super) eligible: Vec<String>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Standing {
    #[component(name = "satisfied")]
    Satisfied,
    #[component(name = "waiting")]
    Waiting(Vec<Requirement>),
    #[component(name = "denied")]
    Denied(Reason),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Ruling {
    pub(super) grants: bool,
    pub(super) standing: Standing,
    pub(super) editable: Vec<String>,
    #[component(name = "wake-at")]
    pub(super) wake_at: Option<u64>,
}

impl<'a> From<&'a lifecycle::Actor> for Actor<'a> {
    fn from(actor: &'a lifecycle::Actor) -> Self {
        Actor { id: &actor.id, groups: actor.groups.iter().map(String::as_str).collect() }
    }
}

impl<'a> Actor<'a> {
    /// Whoever asked, with the groups that held them then: a judgement must not depend on who is in a group by now.
    pub(super) fn requester(submission: &'a lifecycle::Submission) -> Actor<'a> {
        let groups = submission.requester_groups.iter().map(String::as_str).collect();
        Actor { id: &submission.requester.id, groups }
    }
}

impl<'a> From<&'a lifecycle::Edit> for Edit<'a> {
    fn from(edit: &'a lifecycle::Edit) -> Self {
        Edit {
            key: &edit.key,
            before: edit.before.as_ref().map(ToString::to_string),
            after: edit.after.as_ref().map(ToString::to_string),
            violations: &edit.violations,
        }
    }
}

impl<'a> From<&'a lifecycle::Act> for Act<'a> {
    fn from(act: &'a lifecycle::Act) -> Self {
        match act {
            lifecycle::Act::Submitted => Act::Submitted,
            lifecycle::Act::Acknowledge { persona } => Act::Acknowledge(persona),
            lifecycle::Act::Approve { edits } => Act::Approve(edits.iter().map(Edit::from).collect()),
            lifecycle::Act::Deny { reason } => Act::Deny(reason.as_deref()),
            lifecycle::Act::Withdraw => Act::Withdraw,
            lifecycle::Act::Escalated => Act::Escalated,
            lifecycle::Act::Tick => Act::Tick,
        }
    }
}

impl<'a> From<&'a lifecycle::Event> for Event<'a> {
    fn from(event: &'a lifecycle::Event) -> Self {
        Event {
            seq: event.seq,
            at: event.at.as_millis(),
            by: event.by.as_ref().map(Actor::from),
            act: Act::from(&event.act),
        }
    }
}

impl From<Reason> for lifecycle::Reason {
    fn from(reason: Reason) -> Self {
        lifecycle::Reason { code: reason.code, message: reason.message, path: reason.path }
    }
}

impl From<Requirement> for lifecycle::Requirement {
    fn from(requirement: Requirement) -> Self {
        let Requirement { kind, label, have, need, eligible } = requirement;
        let kind = match kind {
            RequirementKind::Approval => lifecycle::RequirementKind::Approval,
            RequirementKind::Acknowledgement => lifecycle::RequirementKind::Acknowledgement,
            RequirementKind::Time => lifecycle::RequirementKind::Time,
        };
        lifecycle::Requirement { kind, label, have, need, eligible }
    }
}

impl From<Ruling> for lifecycle::Ruling {
    fn from(ruling: Ruling) -> Self {
        let standing = match ruling.standing {
            Standing::Satisfied => lifecycle::Standing::Satisfied,
            Standing::Waiting(requirements) => {
                lifecycle::Standing::Waiting(requirements.into_iter().map(Into::into).collect())
            }
            Standing::Denied(reason) => lifecycle::Standing::Denied(reason.into()),
        };
        lifecycle::Ruling {
            grants: ruling.grants,
            standing,
            editable: ruling.editable,
            wake_at: ruling.wake_at.map(lifecycle::Timestamp::from_millis),
        }
    }
}
