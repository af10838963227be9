//! Approval by enough of the listed approvers, each counted once.
//!
//! Says nothing about people who are not listed, so that several quorums on one action do not block each other: two of
//! them, with separate groups, are a four-eyes rule.
//! `README.md` has the configuration.

use countersign_policy_sdk::{
    Act, Actor, Context, History, INVALID_CONFIG, Known, Policy, Reason, ReasonDoc, Request, Requirement,
    Ruling, SUPER_APPROVERS, check_actor_list, export_policy,
};
use serde::Deserialize;

/// The policy.
#[derive(Debug)]
pub struct Quorum;

export_policy!(Quorum);

/// What a policy set says under `with`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Ids and `@group` names.
    approvers: Vec<String>,
    /// How many of them must approve.
    #[serde(default = "one")]
    approvals: u32,
    /// May the requester be one of them?
    #[serde(default)]
    requester_may_approve: bool,
    /// May somebody ask who is neither a known person nor a machine? Such a requester could be an approver under another
    /// name, so by default it may only if the requester may approve.
    #[serde(default)]
    unknown_requester: bool,
    /// How many must approve once the request was escalated; the same as before if nothing is said.
    escalated_approvals: Option<u32>,
}

fn one() -> u32 {
    1
}

impl Policy for Quorum {
    type Config = Config;
    type Memo = ();
    const NAME: &'static str = "quorum";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Approval by enough of the listed approvers, each counted once.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    const REASONS: &'static [ReasonDoc] = &[
        ReasonDoc { code: "already_approved", help: "Your approval stands already, and counts once." },
        ReasonDoc {
            code: "requester_may_not_approve",
            help: "You made this request; somebody else has to approve it.",
        },
        ReasonDoc {
            code: "requester_unknown",
            help: "Nobody knows who you are, and you may not approve your own request: ask under a name that is known.",
        },
        ReasonDoc { code: "denied_by_approver", help: "One of the approvers denied the request." },
    ];

    fn check(config: &Config) -> Vec<Reason> {
        let mut problems = check_actor_list("/approvers", &config.approvers);
        let mut problem =
            |path: &str, message: String| problems.push(Reason::new(INVALID_CONFIG, message).at(path));
        if config.approvals == 0 {
            problem("/approvals", "at least one approval is needed".to_owned());
        }
        if let Some(escalated) = config.escalated_approvals
            && escalated < config.approvals
        {
            problem(
                "/escalated_approvals",
                format!(
                    "{escalated} is fewer than the {} that are needed before the escalation",
                    config.approvals
                ),
            );
        }
        // How many people are in a group is not known here, so only a list of ids can be too short.
        if !config.approvers.iter().any(|approver| approver.starts_with('@')) {
            let listed = config.approvers.len();
            let needed = [
                ("/approvals", Some(config.approvals)),
                ("/escalated_approvals", config.escalated_approvals),
            ];
            for (path, approvals) in needed {
                if let Some(approvals) =
                    approvals.filter(|needed| usize::try_from(*needed).is_ok_and(|n| n > listed))
                {
                    problem(path, format!("{approvals} approvals cannot come from {listed} approvers"));
                }
            }
        }
        problems
    }

    fn admit(config: &Config, request: &Request) -> Result<(), Vec<Reason>> {
        // An unknown requester may be an approver under another name.
        if !config.requester_may_approve
            && !config.unknown_requester
            && request.requester.known == Known::Unknown
        {
            let message = "the requester is neither a known person nor a machine, and may not approve";
            return Err(Reason::new("requester_unknown", message).into());
        }
        Ok(())
    }

    fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
        let Context { config, request, event, .. } = context;
        let grants = match &event.act {
            Act::Approve { by, .. } if config.names(by) => {
                if !config.counts(by, request) {
                    return Err(Reason::new(
                        "requester_may_not_approve",
                        "whoever made a request may not approve it",
                    )
                    .into());
                }
                // The gateway refuses this first; a vote must not count twice even if it did not.
                if config.counted(context.history(), request).iter().any(|actor| actor.id == by.id) {
                    return Err(Reason::new("already_approved", "your approval stands already").into());
                }
                true
            }
            Act::Deny { by, message } if config.names(by) => {
                let message = message.as_deref().map(str::trim).filter(|message| !message.is_empty());
                let reason = Reason::new("denied_by_approver", message.unwrap_or("denied by an approver"));
                return Ok(Ruling::denied(reason).granting());
            }
            Act::Withdraw { by } => {
                config.counted(context.history(), request).iter().any(|actor| actor.id == by.id)
            }
            _ => false,
        };
        let history = context.history_with_event();
        let have = u32::try_from(config.counted(history, request).len()).unwrap_or(u32::MAX);
        let need = config.needed(history);
        let ruling = if have >= need {
            Ruling::satisfied()
        } else {
            let noun = if need == 1 { "approval" } else { "approvals" };
            let label = format!("{have} of {need} {noun}");
            let missing = Requirement::approval(label, have, need, &config.approvers);
            let excluded = request.askers().filter(|_| !config.requester_may_approve);
            Ruling::waiting([missing.excluding(excluded)])
        };
        Ok(ruling.granting_if(grants))
    }
}

impl Config {
    /// Is this actor an approver, listed or super?
    fn names(&self, actor: &Actor) -> bool {
        actor.is_listed(&self.approvers) || actor.is_in(SUPER_APPROVERS)
    }

    /// Does this actor's approval count towards the quorum?
    fn counts(&self, actor: &Actor, request: &Request) -> bool {
        self.names(actor) && (self.requester_may_approve || !request.is_asked_by(actor))
    }

    /// Everybody whose approval stands and counts.
    fn counted<'a>(&self, history: History<'a>, request: &Request) -> Vec<&'a Actor> {
        let mut approvals = history.approvals();
        approvals.retain(|actor| self.counts(actor, request));
        approvals
    }

    fn needed(&self, history: History<'_>) -> u32 {
        match self.escalated_approvals {
            Some(escalated) if history.escalated() => escalated,
            _ => self.approvals,
        }
    }
}
