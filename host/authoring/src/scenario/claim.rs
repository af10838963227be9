//! Compares the outcome of an event with the expected one.

use std::collections::BTreeSet;

use countersign_core::lifecycle::{PolicyFailure, Reason, Requirement, Ruling, Standing, Timestamp};
use serde_json::Value;

use super::{Expect, Wanted, WantedReason, WantedRequirement};
use crate::event::duration;
use crate::words;

/// A difference between the expected and the actual outcome, both as lines of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The line of the expectation, or of the event if it has none.
    pub(crate) line: u64,
    /// The event, as text.
    pub(crate) event: String,
    /// What was compared: `outcome`, `editable`.
    pub(crate) what: &'static str,
    pub(crate) expected: Vec<String>,
    pub(crate) seen: Vec<String>,
}

/// The outcome of an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Counted(Ruling),
    /// Neither refused nor granted, and so not counted.
    Silent(Ruling),
    Refused(Vec<Reason>),
    Failed(PolicyFailure),
}

impl Outcome {
    /// The outcome on one line.
    pub(super) fn line(&self) -> String {
        self.lines(|wanted| wanted.label.clone()).join("; ")
    }

    fn lines(&self, show: impl Fn(&Requirement) -> String) -> Vec<String> {
        match self {
            Outcome::Silent(_) => vec!["silent: neither refused nor granted".to_owned()],
            Outcome::Counted(ruling) => words::standing(&ruling.standing, show),
            Outcome::Refused(reasons) => {
                reasons.iter().map(|reason| format!("refused: {}", words::reason(reason))).collect()
            }
            Outcome::Failed(failure) => vec![format!("fails: {} ({})", failure.kind, failure.detail)],
        }
    }

    fn ruling(&self) -> Option<&Ruling> {
        match self {
            Outcome::Counted(ruling) | Outcome::Silent(ruling) => Some(ruling),
            Outcome::Refused(_) | Outcome::Failed(_) => None,
        }
    }
}

/// An event with its actual outcome.
pub(super) struct Seen<'a> {
    pub(super) line: u64,
    pub(super) event: &'a str,
    pub(super) submitted_at: Timestamp,
    pub(super) outcome: &'a Outcome,
    /// The memo that `admit` returned, if the event is the submission.
    pub(super) memo: Option<&'a str>,
}

/// Compares an outcome with what is expected. If nothing is expected, the event must be counted.
pub(super) fn compare(seen: &Seen<'_>, expect: Option<&Expect>) -> Vec<Mismatch> {
    let mut found = Vec::new();
    let line = expect.map_or(seen.line, |expect| expect.line);
    let mut differ = |what, expected: Vec<String>, seen_lines: Vec<String>| {
        found.push(Mismatch { line, event: seen.event.to_owned(), what, expected, seen: seen_lines });
    };
    let wanted = expect.and_then(|expect| expect.outcome.as_ref());
    let as_wanted = match wanted {
        Some(wanted) => meets(seen.outcome, wanted),
        // An expectation without an outcome, such as `editable` alone, implies that the event is counted.
        None => matches!(seen.outcome, Outcome::Counted(_)),
    };
    if !as_wanted {
        differ("outcome", wanted_lines(wanted), seen.outcome.lines(words::requirement));
    }
    let (Some(expect), Some(ruling)) = (expect, seen.outcome.ruling()) else { return found };
    if let Some(grants) = expect.grants.filter(|grants| *grants != ruling.grants) {
        differ("grants", vec![grants.to_string()], vec![ruling.grants.to_string()]);
    }
    if let Some(editable) = &expect.editable {
        let may: BTreeSet<String> = ruling.editable.iter().cloned().collect();
        if *editable != may {
            differ("editable", list(editable), list(&may));
        }
    }
    if let Some(wake_at) = expect.wake_at {
        let wakes = ruling.wake_at.map(|at| at.since(seen.submitted_at));
        if wake_at != wakes {
            let text = |at: Option<u64>| vec![at.map_or_else(|| "never".to_owned(), duration)];
            differ("wake_at", text(wake_at), text(wakes));
        }
    }
    if let (Some(expected), Some(memo)) = (&expect.memo, seen.memo) {
        // A memo that is not JSON has failed the scenario before.
        let memo: Value = serde_json::from_str(memo).unwrap_or_default();
        if *expected != memo {
            differ("memo", vec![expected.to_string()], vec![memo.to_string()]);
        }
    }
    found
}

fn meets(outcome: &Outcome, wanted: &Wanted) -> bool {
    match (outcome, wanted) {
        (Outcome::Counted(ruling), wanted) => match (&ruling.standing, wanted) {
            (Standing::Satisfied, Wanted::Satisfied) | (Standing::Waiting(_), Wanted::Waiting(None)) => true,
            (Standing::Waiting(requirements), Wanted::Waiting(Some(wanted))) => {
                requirements.len() == wanted.len()
                    && requirements.iter().zip(wanted).all(|(seen, wanted)| wanted.fits(seen))
            }
            (Standing::Denied(reason), Wanted::Denied(wanted)) => wanted.fits(reason),
            _ => false,
        },
        (Outcome::Silent(_), Wanted::Silent) | (Outcome::Refused(_), Wanted::Refused(None)) => true,
        (Outcome::Refused(reasons), Wanted::Refused(Some(wanted))) => {
            reasons.len() == wanted.len() && pairs(wanted, reasons)
        }
        (Outcome::Failed(failure), Wanted::Fails(kind)) => failure.kind == *kind,
        _ => false,
    }
}

/// Whether the expected reasons can be matched to distinct actual ones.
fn pairs(wanted: &[WantedReason], reasons: &[Reason]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    reasons.iter().enumerate().filter(|(_, reason)| first.fits(reason)).any(|(index, _)| {
        let others: Vec<Reason> =
            reasons.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, r)| r.clone()).collect();
        pairs(rest, &others)
    })
}

impl WantedRequirement {
    fn fits(&self, seen: &Requirement) -> bool {
        let eligible = || seen.eligible.iter().cloned().collect::<BTreeSet<_>>();
        self.kind.is_none_or(|kind| kind == seen.kind)
            && self.label.as_ref().is_none_or(|label| *label == seen.label)
            && self.have.is_none_or(|have| have == seen.have)
            && self.need.is_none_or(|need| need == seen.need)
            && self.eligible.as_ref().is_none_or(|wanted| *wanted == eligible())
    }

    fn line(&self) -> String {
        let mut line = self.label.clone().unwrap_or_else(|| "anything".to_owned());
        let mut details = Vec::new();
        details.extend(self.kind.map(|kind| words::kind(kind).to_owned()));
        match (self.have, self.need) {
            (None, None) => {}
            (have, need) => {
                let number = |number: Option<u32>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
                details.push(format!("{} of {}", number(have), number(need)));
            }
        }
        details.extend(self.eligible.as_ref().map(|eligible| format!("by {}", words::names(eligible))));
        if !details.is_empty() {
            line.push_str(&format!(" ({})", details.join(", ")));
        }
        line
    }
}

impl WantedReason {
    fn fits(&self, seen: &Reason) -> bool {
        self.code.as_ref().is_none_or(|code| *code == seen.code)
            && self.message.as_ref().is_none_or(|message| *message == seen.message)
            && self.path.as_ref().is_none_or(|path| seen.path.as_ref() == Some(path))
    }

    fn line(&self) -> String {
        let mut line = self.code.clone().unwrap_or_else(|| "any reason".to_owned());
        if let Some(path) = &self.path {
            line.push_str(&format!(" at {path}"));
        }
        if let Some(message) = &self.message {
            line.push_str(&format!(" ({message})"));
        }
        line
    }
}

fn wanted_lines(wanted: Option<&Wanted>) -> Vec<String> {
    match wanted {
        None => vec!["counted, as nothing else is expected".to_owned()],
        Some(Wanted::Satisfied) => vec!["satisfied".to_owned()],
        Some(Wanted::Waiting(None)) => vec!["waiting".to_owned()],
        Some(Wanted::Waiting(Some(wanted))) if wanted.is_empty() => vec!["waiting for nothing".to_owned()],
        Some(Wanted::Waiting(Some(wanted))) => {
            wanted.iter().map(|wanted| format!("waiting: {}", wanted.line())).collect()
        }
        Some(Wanted::Denied(reason)) if *reason == WantedReason::default() => vec!["denied".to_owned()],
        Some(Wanted::Denied(reason)) => vec![format!("denied: {}", reason.line())],
        Some(Wanted::Silent) => vec!["silent: neither refused nor granted".to_owned()],
        Some(Wanted::Refused(None)) => vec!["refused".to_owned()],
        Some(Wanted::Refused(Some(wanted))) => {
            wanted.iter().map(|wanted| format!("refused: {}", wanted.line())).collect()
        }
        Some(Wanted::Fails(kind)) => vec![format!("fails: {kind}")],
    }
}

fn list(keys: &BTreeSet<String>) -> Vec<String> {
    if keys.is_empty() { vec!["nothing".to_owned()] } else { keys.iter().cloned().collect() }
}
