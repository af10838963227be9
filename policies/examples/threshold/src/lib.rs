//! Approval without anybody if an amount is below a threshold, and by enough approvers if it is not.
//!
//! Whatever is not clearly a small amount needs people: no amount at all, text that looks like one, a negative one.
//! `README.md` has the configuration.

use countersign_policy_sdk::{
    Act, Actor, Context, History, INVALID_CONFIG, Known, Policy, Reason, ReasonDoc, Request, Requirement,
    Ruling, SUPER_APPROVERS, check_actor_list, export_policy, serde_json::Value,
};
use serde::{Deserialize, Serialize};

/// The policy.
#[derive(Debug)]
pub struct Threshold;

export_policy!(Threshold);

/// What a policy set says under `with`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The parameter with the amount.
    parameter: String,
    /// What is below this needs nobody.
    below: f64,
    /// Ids and `@group` names.
    approvers: Vec<String>,
    /// How many of them must approve what is not below.
    #[serde(default = "one")]
    approvals: u32,
}

fn one() -> u32 {
    1
}

/// What is remembered of a request: not the amount, which may be redacted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memo {
    /// The amount was below the threshold.
    small: bool,
}

impl Policy for Threshold {
    type Config = Config;
    type Memo = Memo;
    const NAME: &'static str = "threshold";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Approval without anybody below an amount, by enough approvers above it.";
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
            |path: &str, message: &str| problems.push(Reason::new(INVALID_CONFIG, message).at(path));
        if config.parameter.trim().is_empty() {
            problem("/parameter", "a blank key names no parameter");
        }
        if config.below.is_nan() || config.below <= 0.0 {
            problem("/below", "no amount is below this: use quorum instead");
        }
        if config.approvals == 0 {
            problem("/approvals", "at least one approval is needed");
        }
        // How many people are in a group is not known here, so only a list of ids can be too short.
        let listed = u32::try_from(config.approvers.len()).unwrap_or(u32::MAX);
        if config.approvals > listed && !config.approvers.iter().any(|approver| approver.starts_with('@')) {
            problem("/approvals", "there are fewer approvers than that");
        }
        problems
    }

    fn admit(config: &Config, request: &Request) -> Result<Memo, Vec<Reason>> {
        // An unknown requester may be an approver under another name.
        if request.requester.known == Known::Unknown {
            let message = "the requester is neither a known person nor a machine, and may not approve";
            return Err(Reason::new("requester_unknown", message).into());
        }
        let amount = request.params.parse::<Value>().ok();
        let amount = amount.as_ref().and_then(|params| params.get(&config.parameter)).and_then(Value::as_f64);
        Ok(Memo { small: amount.is_some_and(|amount| (0.0..config.below).contains(&amount)) })
    }

    fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
        let Context { config, memo, request, event, .. } = context;
        let counted = |history: History<'_>, actor: &Actor| {
            config.counted(history, request).iter().any(|counted| counted.id == actor.id)
        };
        let grants = match &event.act {
            Act::Approve { by, .. } if config.names(by) => {
                if request.is_asked_by(by) {
                    return Err(Reason::new(
                        "requester_may_not_approve",
                        "whoever made a request may not approve it",
                    )
                    .into());
                }
                if counted(context.history(), by) {
                    return Err(Reason::new("already_approved", "your approval stands already").into());
                }
                true
            }
            Act::Deny { by, message } if config.names(by) => {
                let message = message.as_deref().map(str::trim).filter(|message| !message.is_empty());
                let reason = Reason::new("denied_by_approver", message.unwrap_or("denied by an approver"));
                return Ok(Ruling::denied(reason).granting());
            }
            Act::Withdraw { by } => counted(context.history(), by),
            _ => false,
        };
        let history = context.history_with_event();
        let have = u32::try_from(config.counted(history, request).len()).unwrap_or(u32::MAX);
        let need = config.approvals;
        let ruling = if memo.small || have >= need {
            Ruling::satisfied()
        } else {
            let noun = if need == 1 { "approval" } else { "approvals" };
            let label = format!("{have} of {need} {noun}");
            let missing = Requirement::approval(label, have, need, &config.approvers);
            Ruling::waiting([missing.excluding(request.askers())])
        };
        Ok(ruling.granting_if(grants))
    }
}

impl Config {
    /// Is this actor an approver, listed or super?
    fn names(&self, actor: &Actor) -> bool {
        actor.is_listed(&self.approvers) || actor.is_in(SUPER_APPROVERS)
    }

    /// Everybody whose approval stands and counts.
    fn counted<'a>(&self, history: History<'a>, request: &Request) -> Vec<&'a Actor> {
        let mut approvals = history.approvals();
        approvals.retain(|actor| self.names(actor) && !request.is_asked_by(actor));
        approvals
    }
}
