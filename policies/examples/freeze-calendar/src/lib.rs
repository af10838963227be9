//! No approval during a freeze, but by those who may lift it.
//!
//! A guard beside other policies: it grants nothing. While a freeze is on it refuses approvals rather than keeping them,
//! for a freeze can last for weeks, and nobody should find out in January what they agreed to in December.
//! `README.md` has the configuration.

use countersign_policy_sdk::{
    Act, Context, INVALID_CONFIG, Instant, Policy, Reason, ReasonDoc, Request, Requirement, Ruling,
    check_actor_list, export_policy,
};
use serde::Deserialize;

/// The policy.
#[derive(Debug)]
pub struct FreezeCalendar;

export_policy!(FreezeCalendar);

/// What a policy set says under `with`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When nothing may be approved.
    freezes: Vec<Freeze>,
    /// Whose approval lifts a freeze: ids and `@group` names.
    exempt: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Freeze {
    name: String,
    from: String,
    until: String,
}

/// A freeze that was read.
struct Span<'c> {
    name: &'c str,
    from: Instant,
    // INVARIANT: later than `from`.
    until: Instant,
}

/// The freeze that is on: freezes that overlap or touch are one.
struct Frozen<'c> {
    /// The name of the one that began first.
    name: &'c str,
    from: Instant,
    until: Instant,
}

impl Policy for FreezeCalendar {
    type Config = Config;
    type Memo = ();
    const NAME: &'static str = "freeze-calendar";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "No approval during a freeze, but by those who may lift it.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    const REASONS: &'static [ReasonDoc] = &[ReasonDoc {
        code: "frozen",
        help: "There is a freeze: wait until it is over, or ask somebody who may lift it.",
    }];

    fn check(config: &Config) -> Vec<Reason> {
        let mut problems = config.read().err().unwrap_or_default();
        if let Some(exempt) = &config.exempt {
            problems.extend(check_actor_list("/exempt", exempt));
        }
        problems
    }

    fn admit(config: &Config, request: &Request) -> Result<(), Vec<Reason>> {
        let frozen = frozen(&config.read()?, request.submitted_at);
        match frozen {
            // Nobody could ever approve it.
            Some(frozen) if frozen.until >= request.expires_at && config.exempt.is_none() => {
                Err(frozen.refusal().into())
            }
            _ => Ok(()),
        }
    }

    fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
        let Context { config, request, event, .. } = context;
        let spans = config.read()?;
        let Some(frozen) = frozen(&spans, event.at) else {
            let next = spans.iter().map(|span| span.from).filter(|from| *from > event.at).min();
            let ruling = Ruling::satisfied();
            // Woken when a freeze begins, too: what people see must not say that they could approve.
            return Ok(match next.filter(|from| *from < request.expires_at) {
                Some(from) => ruling.wake_at(from),
                None => ruling,
            });
        };
        let lifted = config.lifted(context, &frozen);
        if matches!(event.act, Act::Approve { .. }) && !lifted {
            return Err(frozen.refusal().into());
        }
        let ruling = if lifted {
            Ruling::satisfied()
        } else {
            let label = format!("the end of the freeze `{}`, {}", frozen.name, frozen.until);
            Ruling::waiting([Requirement::time(label)])
        };
        Ok(ruling.wake_at(frozen.until))
    }
}

impl Config {
    fn read(&self) -> Result<Vec<Span<'_>>, Vec<Reason>> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: &str| {
            problems.push(Reason::new(INVALID_CONFIG, message).at(path));
        };
        if self.freezes.is_empty() {
            problem(
                "/freezes".to_owned(),
                "without freezes there is nothing to refuse: leave the policy out",
            );
        }
        let mut spans = Vec::new();
        for (index, Freeze { name, from, until }) in self.freezes.iter().enumerate() {
            let path = |member: &str| format!("/freezes/{index}/{member}");
            if name.trim().is_empty() {
                problem(path("name"), "a blank name says nothing");
            }
            let mut read = |text: &str, member: &str| {
                let at = Instant::from_rfc3339(text);
                if at.is_none() {
                    problem(path(member), "this is no time such as 2026-12-18T18:00:00+01:00");
                }
                at
            };
            let (Some(from), Some(until)) = (read(from, "from"), read(until, "until")) else { continue };
            if until <= from {
                problem(path("until"), "a freeze ends after it begins");
            }
            spans.push(Span { name, from, until });
        }
        if problems.is_empty() { Ok(spans) } else { Err(problems) }
    }

    /// Has somebody exempt approved in this freeze, the judged event included, and does that approval stand?
    fn lifted(&self, context: &Context<FreezeCalendar>, frozen: &Frozen<'_>) -> bool {
        let Some(exempt) = &self.exempt else { return false };
        let history = context.history_with_event();
        let standing = history.approvals();
        // An approval from before the freeze was given without knowing of it.
        history.events().filter(|event| event.at >= frozen.from).any(|event| match &event.act {
            Act::Approve { by, .. } => by.is_listed(exempt) && standing.iter().any(|actor| actor.id == by.id),
            _ => false,
        })
    }
}

impl Frozen<'_> {
    fn refusal(&self) -> Reason {
        Reason::new("frozen", format!("the freeze `{}` lasts until {}", self.name, self.until))
    }
}

/// The freeze that is on at this time, if one is.
fn frozen<'c>(spans: &[Span<'c>], at: Instant) -> Option<Frozen<'c>> {
    let on = spans.iter().find(|span| (span.from..span.until).contains(&at))?;
    let mut frozen = Frozen { name: on.name, from: on.from, until: on.until };
    // What overlaps or touches is the same freeze. Each round takes in at least one more, or is the last.
    loop {
        let touching = || spans.iter().filter(|span| span.from <= frozen.until && span.until >= frozen.from);
        let (Some(first), Some(last)) =
            (touching().min_by_key(|span| span.from), touching().map(|span| span.until).max())
        else {
            return Some(frozen);
        };
        if first.from == frozen.from && last == frozen.until {
            return Some(frozen);
        }
        frozen = Frozen { name: first.name, from: first.from, until: last };
    }
}
