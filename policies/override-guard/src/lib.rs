//! Which parameters an approver may edit, how many of them, and how far.
//!
//! A guard beside other policies: it grants nothing and waits for nothing, it only refuses edits that go too far.
//! `README.md` has the configuration.

use countersign_policy_sdk::{
    Act, Context, Edit, INVALID_CONFIG, Json, Policy, Reason, ReasonDoc, Request, Ruling, export_policy,
};
use serde::Deserialize;

/// The policy.
#[derive(Debug)]
pub struct OverrideGuard;

export_policy!(OverrideGuard);

/// What a policy set says under `with`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The parameters that may be edited.
    keys: Vec<String>,
    /// How many of them may differ from what was submitted.
    max_keys: Option<u32>,
    /// How long their new values may be, added up, in characters of canonical JSON.
    max_chars: Option<u32>,
}

impl Policy for OverrideGuard {
    type Config = Config;
    type Memo = ();
    const NAME: &'static str = "override-guard";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Which parameters an approver may edit, how many of them, and how far.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    const REASONS: &'static [ReasonDoc] = &[
        ReasonDoc { code: "key_not_allowed", help: "This parameter may not be edited." },
        ReasonDoc {
            code: "limit_exceeded",
            help: "Too many parameters would be edited, earlier edits included.",
        },
        ReasonDoc {
            code: "diff_size_exceeded",
            help: "The new values are too long, earlier edits included.",
        },
        ReasonDoc { code: "schema_validation", help: "The new value does not fit the action's schema." },
    ];

    fn check(config: &Config) -> Vec<Reason> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: String| {
            problems.push(Reason::new(INVALID_CONFIG, message).at(path));
        };
        if config.keys.is_empty() {
            problem("/keys".to_owned(), "without keys nothing can be edited: leave the guard out".to_owned());
        }
        for (index, key) in config.keys.iter().enumerate() {
            if key.trim().is_empty() {
                problem(format!("/keys/{index}"), "a blank key names no parameter".to_owned());
            } else if config.keys.iter().take(index).any(|earlier| earlier == key) {
                problem(format!("/keys/{index}"), format!("`{key}` is listed twice"));
            }
        }
        for (path, limit) in [("/max_keys", config.max_keys), ("/max_chars", config.max_chars)] {
            if limit == Some(0) {
                problem(path.to_owned(), "with a limit of 0 nothing can be edited".to_owned());
            }
        }
        if let Some(max_keys) = config.max_keys.filter(|max| *max > count(config.keys.len())) {
            let message = format!("{max_keys} is more than the {} keys there are", config.keys.len());
            problem("/max_keys".to_owned(), message);
        }
        problems
    }

    fn admit(_: &Config, _: &Request) -> Result<(), Vec<Reason>> {
        Ok(())
    }

    fn judge(context: &Context<Self>) -> Result<Ruling, Vec<Reason>> {
        let config = &context.config;
        if let Act::Approve { edits, .. } = &context.event.act
            && !edits.is_empty()
        {
            let refusals = config.refusals(edits, &context.history_with_event().edits());
            if !refusals.is_empty() {
                return Err(refusals);
            }
        }
        Ok(Ruling::satisfied().editable(&config.keys))
    }
}

impl Config {
    /// Everything that is wrong with `edits`, given `merged`: the newest edit of each key, `edits` included.
    fn refusals(&self, edits: &[Edit], merged: &[&Edit]) -> Vec<Reason> {
        let mut refusals = Vec::new();
        for edit in edits {
            if !self.keys.contains(&edit.key) {
                let message = format!("`{}` may not be edited", edit.key);
                refusals.push(Reason::new("key_not_allowed", message).at(&edit.key));
            }
            for violation in &edit.violations {
                refusals.push(Reason::new("schema_validation", violation).at(&edit.key));
            }
        }
        if let Some(max_keys) = self.max_keys.filter(|max| count(merged.len()) > *max) {
            let message =
                format!("{} parameters would be edited, and at most {max_keys} may be", merged.len());
            refusals.push(Reason::new("limit_exceeded", message));
        }
        let chars = merged.iter().filter_map(|edit| edit.after.as_ref()).map(chars).sum();
        if let Some(max_chars) = self.max_chars.filter(|max| count(chars) > *max) {
            let message =
                format!("the new values have {chars} characters, and at most {max_chars} are allowed");
            refusals.push(Reason::new("diff_size_exceeded", message));
        }
        refusals
    }
}

/// How long a value is as people see it: in characters of its JSON text, which the gateway sends in canonical form.
fn chars(value: &Json) -> usize {
    value.text().chars().count()
}

fn count(amount: usize) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}
