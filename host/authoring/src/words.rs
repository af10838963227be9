//! Formats the answers of policies as text, the same in every command.

use countersign_core::lifecycle::{Reason, Requirement, RequirementKind, Standing};
use serde_json::Value;

/// A standing, one line per requirement; `show` formats a requirement.
pub(crate) fn standing(standing: &Standing, show: impl Fn(&Requirement) -> String) -> Vec<String> {
    match standing {
        Standing::Satisfied => vec!["satisfied".to_owned()],
        Standing::Denied(denial) => vec![format!("denied: {}", reason(denial))],
        Standing::Waiting(requirements) => {
            requirements.iter().map(|wanted| format!("waiting: {}", show(wanted))).collect()
        }
    }
}

/// A requirement's label and who can meet it: `1 of 2 approvals, by U1, U2`.
pub(crate) fn asked_of(wanted: &Requirement) -> String {
    format!("{}{}", wanted.label, by(wanted))
}

/// A requirement with all its fields: `1 of 2 approvals (approval, 1 of 2, by U1, U2)`.
pub(crate) fn requirement(wanted: &Requirement) -> String {
    let Requirement { kind, label, have, need, .. } = wanted;
    format!("{label} ({}, {have} of {need}{})", self::kind(*kind), by(wanted))
}

/// `, by U1, U2`: who can meet a requirement. Empty if the policy names nobody.
fn by(wanted: &Requirement) -> String {
    let Requirement { eligible, excluded, .. } = wanted;
    let able: Vec<&String> = eligible.iter().filter(|name| !excluded.contains(name)).collect();
    match (eligible.is_empty(), able.is_empty()) {
        (true, _) => String::new(),
        (false, true) => ", by nobody".to_owned(),
        (false, false) => format!(", by {}", names(able)),
    }
}

/// A requirement's kind, as scenario files spell it too.
pub(crate) fn kind(kind: RequirementKind) -> &'static str {
    match kind {
        RequirementKind::Approval => "approval",
        RequirementKind::Acknowledgement => "acknowledgement",
        RequirementKind::Time => "time",
    }
}

/// A reason: `key_not_allowed at ref (it may not be edited)`.
pub(crate) fn reason(reason: &Reason) -> String {
    let Reason { code, message, path } = reason;
    match path {
        Some(path) => format!("{code} at {path} ({message})"),
        None => format!("{code} ({message})"),
    }
}

/// Names that others chose, joined with commas so that they can be read in one way only.
pub(crate) fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|it| name(it)).collect::<Vec<_>>().join(", ")
}

/// A name that others chose. In quotes, as in JSON, if it could be taken for something else than one name.
pub(crate) fn name(name: &str) -> String {
    let is_part = |letter: char| letter.is_alphanumeric() || "-_.:@#/".contains(letter);
    let is_plain = !name.is_empty() && name != "none" && name.chars().all(is_part);
    if is_plain { name.to_owned() } else { Value::from(name).to_string() }
}

/// `1 scenario`, `2 scenarios`.
pub(crate) fn count(amount: usize, noun: &str) -> String {
    if amount == 1 { format!("1 {noun}") } else { format!("{amount} {noun}s") }
}
