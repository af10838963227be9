//! The contract of `wit/policy.wit` as Rust types: what goes into a sandbox borrows from the lifecycle's
//! values, what comes out is owned and becomes the lifecycle's values.
//!
//! Written by hand rather than generated, so that lowering a call copies no string on the host's side.
//! A module whose types differ is refused when it is loaded, which is also what keeps these in step.

use std::cell::OnceCell;

use wasmtime::component::{ComponentType, Lift, Lower};

use super::function::FunctionType;
use countersign_core::lifecycle;
use countersign_core::people::is_slack_id;

/// The interface that a policy module exports.
pub(super) const INTERFACE: &str = "countersign:policy/policy@0.2.0";

/// The interface of modules that were built before there were people, machines and owners.
pub(super) const INTERFACE_1: &str = "countersign:policy/policy@0.1.0";

/// `describe: func() -> descriptor`
pub(super) enum Describe {}
/// `check-config: func(config: json) -> list<reason>`
pub(super) enum CheckConfig {}
/// `admit: func(config: json, request: request) -> result<json, list<reason>>`
pub(super) enum Admit {}
/// The same in 0.1.0.
pub(super) enum Admit1 {}
/// `judge: func(context: context) -> result<ruling, list<reason>>`
pub(super) enum Judge {}
/// The same in 0.1.0.
pub(super) enum Judge1 {}

impl FunctionType for Describe {
    type Params<'a> = ();
    type Result = (Descriptor,);
}

impl FunctionType for CheckConfig {
    type Params<'a> = (&'a str,);
    type Result = (Vec<Reason>,);
}

impl FunctionType for Admit {
    type Params<'a> = (&'a str, Request<'a>);
    type Result = (Result<String, Vec<Reason>>,);
}

impl FunctionType for Admit1 {
    type Params<'a> = (&'a str, Request1<'a>);
    type Result = (Result<String, Vec<Reason>>,);
}

impl FunctionType for Judge {
    type Params<'a> = (Context<'a, Request<'a>, Actor<'a>>,);
    type Result = (Result<Ruling<Requirement>, Vec<Reason>>,);
}

impl FunctionType for Judge1 {
    type Params<'a> = (Context<'a, Request1<'a>, Actor1<'a>>,);
    type Result = (Result<Ruling<Requirement1>, Vec<Reason>>,);
}

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

/// What kind of thing somebody is.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Known {
    #[component(name = "person")]
    Person,
    #[component(name = "machine")]
    Machine,
    #[component(name = "unknown")]
    Unknown,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Actor<'a> {
    pub(super) id: &'a str,
    pub(super) groups: Vec<&'a str>,
    pub(super) known: Known,
    pub(super) authenticated: bool,
}

/// An actor as 0.1.0 has it: the one id alone.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Actor1<'a> {
    pub(super) id: &'a str,
    pub(super) groups: Vec<&'a str>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Request<'a> {
    pub(super) id: &'a str,
    pub(super) action: &'a str,
    pub(super) requester: Actor<'a>,
    pub(super) owners: &'a [&'a str],
    #[component(name = "rerequested-by")]
    pub(super) rerequested_by: Option<Actor<'a>>,
    pub(super) params: &'a str,
    pub(super) meta: &'a str,
    #[component(name = "submitted-at")]
    pub(super) submitted_at: u64,
    #[component(name = "expires-at")]
    pub(super) expires_at: u64,
    #[component(name = "lineage-depth")]
    pub(super) lineage_depth: u32,
}

/// A request as 0.1.0 has it.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Request1<'a> {
    pub(super) id: &'a str,
    pub(super) action: &'a str,
    pub(super) requester: Actor1<'a>,
    pub(super) params: &'a str,
    pub(super) meta: &'a str,
    #[component(name = "submitted-at")]
    pub(super) submitted_at: u64,
    #[component(name = "expires-at")]
    pub(super) expires_at: u64,
    #[component(name = "lineage-depth")]
    pub(super) lineage_depth: u32,
}

impl<'a> From<Request<'a>> for Request1<'a> {
    fn from(request: Request<'a>) -> Self {
        let Request { id, action, requester, params, meta, submitted_at, expires_at, lineage_depth, .. } =
            request;
        Request1 {
            id,
            action,
            requester: requester.into(),
            params,
            meta,
            submitted_at,
            expires_at,
            lineage_depth,
        }
    }
}

impl<'a> From<Actor<'a>> for Actor1<'a> {
    fn from(actor: Actor<'a>) -> Self {
        Actor1 { id: actor.id, groups: actor.groups }
    }
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
pub(super) struct Event<'a, A> {
    seq: u32,
    at: u64,
    by: Option<A>,
    act: Act<'a>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Context<'a, R, A> {
    pub(super) config: &'a str,
    pub(super) memo: &'a str,
    pub(super) request: R,
    pub(super) history: &'a [Event<'a, A>],
    pub(super) event: &'a Event<'a, A>,
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
    pub(super) excluded: Vec<String>,
}

/// A requirement as 0.1.0 has it: whom a policy refuses is not said.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Requirement1 {
    pub(super) kind: RequirementKind,
    pub(super) label: String,
    pub(super) have: u32,
    pub(super) need: u32,
    pub(super) eligible: Vec<String>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Standing<Q> {
    #[component(name = "satisfied")]
    Satisfied,
    #[component(name = "waiting")]
    Waiting(Vec<Q>),
    #[component(name = "denied")]
    Denied(Reason),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Ruling<Q> {
    pub(super) grants: bool,
    pub(super) standing: Standing<Q>,
    pub(super) editable: Vec<String>,
    #[component(name = "wake-at")]
    pub(super) wake_at: Option<u64>,
}

impl<'a> From<&'a lifecycle::Actor> for Actor<'a> {
    fn from(actor: &'a lifecycle::Actor) -> Self {
        Actor {
            id: &actor.id,
            groups: actor.groups.iter().map(String::as_str).collect(),
            known: actor.known.into(),
            // Whoever acts does so in Slack, which has signed it.
            authenticated: true,
        }
    }
}

impl<'a> From<&'a lifecycle::Actor> for Actor1<'a> {
    fn from(actor: &'a lifecycle::Actor) -> Self {
        Actor1 { id: &actor.id, groups: actor.groups.iter().map(String::as_str).collect() }
    }
}

impl From<lifecycle::Known> for Known {
    fn from(known: lifecycle::Known) -> Self {
        match known {
            lifecycle::Known::Person => Known::Person,
            lifecycle::Known::Machine => Known::Machine,
            lifecycle::Known::Unknown => Known::Unknown,
        }
    }
}

impl<'a> Actor<'a> {
    /// Whoever asked, with the groups that held them then: a judgement must not depend on who is in a group by now.
    pub(super) fn requester(submission: &'a lifecycle::Submission) -> Actor<'a> {
        let identity = submission.requester_is.as_ref();
        Actor {
            id: submission.requester_id(),
            groups: submission.requester_groups.iter().map(String::as_str).collect(),
            // Of requests from before that was kept, a Slack id is a person's, as it is now.
            known: match identity {
                Some(identity) => identity.known.into(),
                None if is_slack_id(submission.requester_id()) => Known::Person,
                None => Known::Unknown,
            },
            authenticated: identity.is_some_and(|identity| identity.authenticated),
        }
    }

    /// Whoever asked for it again, if somebody did.
    pub(super) fn rerequester(submission: &'a lifecycle::Submission) -> Option<Actor<'a>> {
        submission.rerequester_is.as_ref().map(|identity| Actor {
            id: &identity.id,
            groups: Vec::new(),
            known: identity.known.into(),
            authenticated: identity.authenticated,
        })
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

impl<'a, A: From<&'a lifecycle::Actor>> From<&'a lifecycle::Event> for Event<'a, A> {
    fn from(event: &'a lifecycle::Event) -> Self {
        Event {
            seq: event.seq,
            at: event.at.as_millis(),
            by: event.by.as_ref().map(A::from),
            act: Act::from(&event.act),
        }
    }
}

/// The accepted events and the one that is judged, as each version of the contract has them.
pub(super) struct Events<'a> {
    history: &'a [lifecycle::Event],
    event: &'a lifecycle::Event,
    now: OnceCell<Listed<'a, Actor<'a>>>,
    then: OnceCell<Listed<'a, Actor1<'a>>>,
}

type Listed<'a, A> = (Vec<Event<'a, A>>, Event<'a, A>);

impl<'a> Events<'a> {
    pub(super) fn new(history: &'a [lifecycle::Event], event: &'a lifecycle::Event) -> Events<'a> {
        Events { history, event, now: OnceCell::new(), then: OnceCell::new() }
    }

    /// For 0.2.0; made once, whichever number of policies wants it.
    pub(super) fn now(&self) -> (&[Event<'a, Actor<'a>>], &Event<'a, Actor<'a>>) {
        self.listed(&self.now)
    }

    /// For 0.1.0.
    pub(super) fn then(&self) -> (&[Event<'a, Actor1<'a>>], &Event<'a, Actor1<'a>>) {
        self.listed(&self.then)
    }

    fn listed<'b, A: From<&'a lifecycle::Actor>>(
        &self,
        cell: &'b OnceCell<Listed<'a, A>>,
    ) -> (&'b [Event<'a, A>], &'b Event<'a, A>) {
        let (history, event) =
            cell.get_or_init(|| (self.history.iter().map(Event::from).collect(), Event::from(self.event)));
        (history, event)
    }
}

impl From<Reason> for lifecycle::Reason {
    fn from(reason: Reason) -> Self {
        lifecycle::Reason { code: reason.code, message: reason.message, path: reason.path }
    }
}

impl From<Requirement> for lifecycle::Requirement {
    fn from(requirement: Requirement) -> Self {
        let Requirement { kind, label, have, need, eligible, excluded } = requirement;
        lifecycle::Requirement { kind: kind.into(), label, have, need, eligible, excluded }
    }
}

impl From<Requirement1> for lifecycle::Requirement {
    fn from(requirement: Requirement1) -> Self {
        let Requirement1 { kind, label, have, need, eligible } = requirement;
        lifecycle::Requirement { kind: kind.into(), label, have, need, eligible, excluded: Vec::new() }
    }
}

impl From<RequirementKind> for lifecycle::RequirementKind {
    fn from(kind: RequirementKind) -> Self {
        match kind {
            RequirementKind::Approval => lifecycle::RequirementKind::Approval,
            RequirementKind::Acknowledgement => lifecycle::RequirementKind::Acknowledgement,
            RequirementKind::Time => lifecycle::RequirementKind::Time,
        }
    }
}

impl<Q: Into<lifecycle::Requirement>> From<Ruling<Q>> for lifecycle::Ruling {
    fn from(ruling: Ruling<Q>) -> Self {
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
