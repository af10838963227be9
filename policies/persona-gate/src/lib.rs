//! No approval before every named persona has been acknowledged by somebody who holds it.
//!
//! A gate beside other policies: it grants acknowledgements and nothing else, holds approvals back while personas are
//! pending, and never stands in the way of a denial.
//! `README.md` has the configuration.

use std::collections::BTreeMap;

use countersign_policy_sdk::{
    Act, Context, History, INVALID_CONFIG, Policy, Reason, ReasonDoc, Request, Requirement, Ruling,
    check_actor_list, export_policy,
};
use serde::Deserialize;

/// The policy.
#[derive(Debug)]
pub struct PersonaGate;

export_policy!(PersonaGate);

/// What a policy set says under `with`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who holds each persona: ids and `@group` names, by the persona's name.
    personas: BTreeMap<String, Vec<String>>,
}

impl Policy for PersonaGate {
    type Config = Config;
    type Memo = ();
    const NAME: &'static str = "persona-gate";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "No approval before every named persona has been acknowledged by a holder.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    const REASONS: &'static [ReasonDoc] = &[
        ReasonDoc { code: "not_a_holder", help: "You do not hold the persona that you acknowledged." },
        ReasonDoc {
            code: "personas_pending",
            help: "Approve once the personas named have been acknowledged.",
        },
    ];

    fn check(config: &Config) -> Vec<Reason> {
        if config.personas.is_empty() {
            return Reason::new(INVALID_CONFIG, "a gate without personas holds nothing back")
                .at("/personas")
                .into();
        }
        let check = |(persona, holders): (&String, &Vec<String>)| {
            let path = format!("/personas/{}", pointer_token(persona));
            let mut problems = check_actor_list(&path, holders);
            if persona.trim().is_empty() || persona.trim() != persona {
                let message = "a persona's name is not blank and has no spaces around it";
                problems.push(Reason::new(INVALID_CONFIG, message).at(path));
            }
            problems
        };
        config.personas.iter().flat_map(check).collect()
    }

    fn admit(_: &Config, _: &Request) -> Result<(), Vec<Reason>> {
        Ok(())
    }

    fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
        let Context { config, event, .. } = context;
        let history = context.history_with_event();
        let pending = config.pending(history);
        let grants = match &event.act {
            Act::Acknowledge { by, persona } => match config.personas.get(persona) {
                Some(holders) if by.is_listed(holders) => true,
                Some(_) => {
                    let message = format!("only a holder of the persona `{persona}` may acknowledge it");
                    return Err(Reason::new("not_a_holder", message).at(persona).into());
                }
                // Another gate's persona is that gate's business.
                None => false,
            },
            Act::Approve { .. } if !pending.is_empty() => {
                let names: Vec<&str> = pending.iter().map(|(persona, _)| *persona).collect();
                let message = format!("waiting for the acknowledgement of {}", names.join(", "));
                return Err(Reason::new("personas_pending", message).into());
            }
            Act::Withdraw { by } => context
                .history()
                .acknowledgements()
                .iter()
                .any(|held| held.by.id == by.id && config.personas.contains_key(held.persona)),
            _ => false,
        };
        let ruling = if pending.is_empty() {
            Ruling::satisfied()
        } else {
            Ruling::waiting(
                pending.iter().map(|(persona, holders)| Requirement::acknowledgement(*persona, *holders)),
            )
        };
        Ok(ruling.granting_if(grants))
    }
}

impl Config {
    /// The personas that nobody has acknowledged yet, with their holders, in the order of their names.
    fn pending(&self, history: History<'_>) -> Vec<(&str, &[String])> {
        let held = history.acknowledgements();
        let personas = self.personas.iter().map(|(persona, holders)| (persona.as_str(), holders.as_slice()));
        personas.filter(|(persona, _)| !held.iter().any(|held| held.persona == *persona)).collect()
    }
}

/// A name as a step of a JSON Pointer (RFC 6901).
fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
