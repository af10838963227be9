//! Approvals take effect in business hours only.
//!
//! A window of time beside other policies: it grants nothing and refuses nothing. Outside of the hours it waits, and asks
//! to be woken when they begin, so that people may approve whenever they like and the approval counts in the morning.
//! `README.md` has the configuration.

mod hours;

use countersign_policy_sdk::{
    Context, Instant, Policy, Reason, ReasonDoc, Request, Requirement, Ruling, export_policy,
};
use serde::Deserialize;

use hours::Hours;

/// The policy.
#[derive(Debug)]
pub struct BusinessHours;

export_policy!(BusinessHours);

/// What a policy set says under `with`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The hours of a week.
    hours: Vec<Window>,
    /// How far local time is ahead of UTC, before the first change.
    utc_offset: Option<String>,
    /// When that changes; oldest first.
    #[serde(default)]
    offset_changes: Vec<OffsetChange>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    days: Vec<String>,
    from: String,
    until: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OffsetChange {
    at: String,
    utc_offset: String,
}

impl Policy for BusinessHours {
    type Config = Config;
    type Memo = ();
    const NAME: &'static str = "business-hours";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Approvals take effect in business hours only.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    const REASONS: &'static [ReasonDoc] = &[ReasonDoc {
        code: "closed_until_expiry",
        help: "The request would expire before business hours begin; make it again when they have begun.",
    }];

    fn check(config: &Config) -> Vec<Reason> {
        Hours::read(config).err().unwrap_or_default()
    }

    fn admit(config: &Config, request: &Request) -> Result<(), Vec<Reason>> {
        let hours = Hours::read(config)?;
        let (from, until) = (request.submitted_at, request.expires_at);
        if hours.open(from) || hours.next_change(from, until).is_some() {
            return Ok(());
        }
        let message = format!("business hours do not begin before the request would expire, at {until}");
        Err(Reason::new("closed_until_expiry", message).into())
    }

    fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
        let hours = Hours::read(&context.config)?;
        let at = context.event.at;
        let change = hours.next_change(at, context.request.expires_at);
        let ruling = if hours.open(at) {
            Ruling::satisfied()
        } else {
            Ruling::waiting([Requirement::time(label(&hours, change))])
        };
        // Woken when they end, too: what people see must not say that it is only up to them.
        Ok(match change {
            Some(change) => ruling.wake_at(change),
            None => ruling,
        })
    }
}

fn label(hours: &Hours, opening: Option<Instant>) -> String {
    match opening {
        Some(opening) => format!("business hours, from {}", hours.written(opening)),
        None => "business hours, which do not begin before this request expires".to_owned(),
    }
}
