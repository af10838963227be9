//! Native tests of a policy: who does what, and what is expected of it.
//!
//! A [`Scenario`] does with one policy what the gateway does: it checks the configuration against the schema and with
//! [`Policy::check`], admits a synthetic request, judges one event after the other, and keeps those that count.
//! Configuration, memo and parameters pass as JSON text, through the very code that a module is made of.
//! It does not simulate the gateway's own refusals (a second approval by the same person, say), so that a policy's
//! defences can be tested, nor the other policies of an action, but for [`Scenario::acts_granted_elsewhere`].
//!
//! Beyond what a scenario asserts, these hold in all of them, or the test fails:
//! - an event that does not count is followed by an assertion that it does not;
//! - every reason's code is documented in [`Policy::REASONS`];
//! - judging the same thing again gives the same answer.
//!
//! A failure shows the events up to there, what was expected and what was seen.
//! ```should_panic
//! # use countersign_policy_sdk::{Context, Policy, Reason, ReasonDoc, Request, Ruling, scenario::Scenario};
//! # struct Nobody;
//! # impl Policy for Nobody {
//! #     type Config = serde_json::Value;
//! #     type Memo = ();
//! #     const NAME: &'static str = "nobody";
//! #     const VERSION: &'static str = "0.1.0";
//! #     const SUMMARY: &'static str = "Has no say.";
//! #     const CONFIG_SCHEMA: &'static str = "{}";
//! #     const REASONS: &'static [ReasonDoc] = &[];
//! #     fn admit(_: &serde_json::Value, _: &Request) -> Result<(), Vec<Reason>> { Ok(()) }
//! #     fn judge(_: &Context<Self>) -> Result<Ruling, Vec<Reason>> { Ok(Ruling::waiting([])) }
//! # }
//! // Panics with "U1 approves: silent", for a scenario must say that an approval was not granted.
//! Scenario::<Nobody>::new(serde_json::json!({})).admitted().approve("U1").satisfied();
//! ```

mod setting;

mod events;

mod assertions;

mod run;

mod config;
mod describe;

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use crate::{Instant, Known, Policy, bindings::exports::countersign::policy::policy as wire};

pub use self::events::edit;

/// One request, as one policy sees it. See the [module](self).
///
/// First the setting ([`group`](Self::group), [`requested_by`](Self::requested_by), …), then
/// [`admitted`](Self::admitted), then acts, each followed by assertions about what came of it.
#[derive(Debug)]
pub struct Scenario<P: Policy> {
    config: String,
    groups: BTreeMap<String, Vec<String>>,
    requester: String,
    requester_is: Known,
    owners: Vec<String>,
    params: String,
    meta: String,
    submitted_at: u64,
    lifetime: Duration,
    lineage_depth: u32,
    granted_elsewhere: bool,
    now: u64,
    /// What admission returned; nothing before it.
    memo: Option<String>,
    history: Vec<wire::Event>,
    /// The ruling on the last event that counted.
    ruling: Option<wire::Ruling>,
    outcome: Outcome,
    /// Does the outcome still need an assertion?
    unasserted: bool,
    /// What happened so far, one line for each event, for a failure to show.
    steps: Vec<String>,
    policy: PhantomData<P>,
}

/// What came of the last event.
#[derive(Debug)]
enum Outcome {
    Counted,
    Silent,
    Refused(Vec<wire::Reason>),
}

/// A time in RFC 3339, in milliseconds since the epoch.
#[track_caller]
fn instant(time: &str) -> u64 {
    match Instant::from_rfc3339(time) {
        Some(instant) => instant.millis(),
        None => panic!("expected: a point in time in RFC 3339\nseen: {time}"),
    }
}
