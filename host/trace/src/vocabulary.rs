//! The names of spans and attributes. There are no others.

use opentelemetry::trace::SpanKind;

/// The name of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// A request is made, for the first time or again.
    Create,
    /// A policy is asked whether a request may be made.
    Admit,
    /// A policy judges an event.
    Judge,
    /// A person approves.
    Approve,
    /// A person denies.
    Deny,
    /// A person acknowledges a persona.
    Acknowledge,
    /// A person takes back what they did.
    Withdraw,
    /// A policy judges again, at a time that it asked for.
    Wake,
    /// A request escalates.
    Escalate,
    /// A request expires, by itself or since an admin says so.
    Expire,
    /// A request is cancelled, by its caller or by an admin.
    Cancel,
    /// Older requests give way to a newer one.
    Supersede,
    /// An approval is consumed.
    Consume,
    /// What came of an approval is reported.
    Report,
    /// What was decided is stored.
    StoreCommit,
    /// A message is posted to Slack.
    SlackPost,
    /// A message in Slack is updated.
    SlackUpdate,
    /// Another policy set is to be put in force.
    Reload,
}

impl Name {
    /// Every name.
    pub const ALL: [Name; 18] = [
        Name::Create,
        Name::Admit,
        Name::Judge,
        Name::Approve,
        Name::Deny,
        Name::Acknowledge,
        Name::Withdraw,
        Name::Wake,
        Name::Escalate,
        Name::Expire,
        Name::Cancel,
        Name::Supersede,
        Name::Consume,
        Name::Report,
        Name::StoreCommit,
        Name::SlackPost,
        Name::SlackUpdate,
        Name::Reload,
    ];

    /// As a collector gets it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Name::Create => "create",
            Name::Admit => "admit",
            Name::Judge => "judge",
            Name::Approve => "approve",
            Name::Deny => "deny",
            Name::Acknowledge => "acknowledge",
            Name::Withdraw => "withdraw",
            Name::Wake => "wake",
            Name::Escalate => "escalate",
            Name::Expire => "expire",
            Name::Cancel => "cancel",
            Name::Supersede => "supersede",
            Name::Consume => "consume",
            Name::Report => "report",
            Name::StoreCommit => "store.commit",
            Name::SlackPost => "slack.post",
            Name::SlackUpdate => "slack.update",
            Name::Reload => "reload",
        }
    }

    /// Whether somebody else is called, or has called.
    pub(crate) fn kind(self) -> SpanKind {
        match self {
            Name::Create | Name::Consume | Name::Report => SpanKind::Server,
            Name::StoreCommit | Name::SlackPost | Name::SlackUpdate => SpanKind::Client,
            _ => SpanKind::Internal,
        }
    }
}

/// The key of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The id of the request.
    Request,
    /// The action.
    Action,
    /// The status of the request after what the span is about.
    Status,
    /// What came of it: a word, or the code of the refusal or the failure.
    Outcome,
    /// The hash of the rules that the request is judged by.
    RulesHash,
    /// The name of a policy.
    Policy,
    /// The digest of its module.
    PolicyDigest,
    /// How much fuel a call of a policy took.
    Fuel,
    /// The method of Slack's Web API.
    SlackMethod,
    /// Which message of the request it is.
    SlackMessage,
    /// What kind of change of the policy set in force it is.
    Change,
    /// What set it off.
    Trigger,
    /// The hash of the policy set that is wanted.
    SetHash,
}

impl Key {
    /// Every key.
    pub const ALL: [Key; 13] = [
        Key::Request,
        Key::Action,
        Key::Status,
        Key::Outcome,
        Key::RulesHash,
        Key::Policy,
        Key::PolicyDigest,
        Key::Fuel,
        Key::SlackMethod,
        Key::SlackMessage,
        Key::Change,
        Key::Trigger,
        Key::SetHash,
    ];

    /// As a collector gets it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Key::Request => "countersign.request.id",
            Key::Action => "countersign.action",
            Key::Status => "countersign.status",
            Key::Outcome => "countersign.outcome",
            Key::RulesHash => "countersign.rules.hash",
            Key::Policy => "countersign.policy.name",
            Key::PolicyDigest => "countersign.policy.digest",
            Key::Fuel => "countersign.policy.fuel",
            Key::SlackMethod => "countersign.slack.method",
            Key::SlackMessage => "countersign.slack.message",
            Key::Change => "countersign.policy_set.change",
            Key::Trigger => "countersign.policy_set.trigger",
            Key::SetHash => "countersign.policy_set.hash",
        }
    }
}
