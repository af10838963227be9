//! How many bytes requests take in memory, about: enough to bound how much of them is kept.

use std::collections::BTreeMap;
use std::io::{self, Write};

use countersign_core::lifecycle::{Act, AdminEnd, Intent, Request, Submission};
use countersign_policy::decide::Ask;
use serde::Serialize;
use serde_json::{Map, Value};

/// What a map takes for an entry, beside its key and its value.
const ENTRY: usize = 64;

/// An ask, its parameters included.
pub(super) fn of_ask(ask: &Ask) -> usize {
    let links = ask.links.iter().map(text).sum::<usize>();
    let who =
        text(&ask.requester) + ask.who.name.len() + ask.who.owners.iter().map(String::len).sum::<usize>();
    let hints = ask.policy_hints.as_ref().map_or(0, of_value);
    let text = ask.action.len() + ask.justification.len() + links + who + text(&ask.origin);
    size_of::<Ask>() + text + of_object(&ask.params) + hints
}

/// A submission, its parameters included.
pub(super) fn of_submission(submission: &Submission) -> usize {
    size_of::<Submission>() + text(submission) + values(submission)
}

/// A request with its history.
pub(super) fn of_request(request: &Request) -> usize {
    let edits = request.history.iter().flat_map(|event| match &event.act {
        Act::Approve { edits } => edits.as_slice(),
        _ => &[],
    });
    let edited = edits.flat_map(|edit| [&edit.before, &edit.after]).flatten().map(of_value).sum::<usize>();
    let memos = request.memos.iter().map(String::len).sum::<usize>();
    size_of::<Request>()
        + size_of::<Submission>()
        + text(request)
        + values(&request.submission)
        + edited
        + memos
}

/// What somebody wants to happen.
pub(super) fn of_intent(intent: &Intent) -> usize {
    match intent {
        Intent::Approve { edits } => of_map(edits, |value| value.as_ref().map_or(0, of_value)),
        Intent::Acknowledge { persona } => persona.len(),
        Intent::Deny { reason } | Intent::Cancel { reason } => reason.as_ref().map_or(0, String::len),
        Intent::End(AdminEnd { by, reason, .. }) => {
            let call = by.call.iter().map(|(key, value)| ENTRY + key.len() + of_value(value)).sum::<usize>();
            by.name.len() + call + reason.as_ref().map_or(0, String::len)
        }
        Intent::Withdraw | Intent::Escalate | Intent::Wake | Intent::Expire => 0,
    }
}

/// A map by text, whose values take what `of` says beside their own size.
pub(super) fn of_map<V>(map: &BTreeMap<String, V>, of: impl Fn(&V) -> usize) -> usize {
    map.iter().map(|(key, value)| ENTRY + key.len() + size_of::<V>() + of(value)).sum()
}

/// What the values of a submission take beyond their text: that of a small one is a fraction of it.
fn values(submission: &Submission) -> usize {
    let Submission { params, policy_hints, .. } = submission;
    let values = of_object(params) + policy_hints.as_ref().map_or(0, of_value);
    values.saturating_sub(text(params) + policy_hints.as_ref().map_or(0, text))
}

fn of_object(object: &Map<String, Value>) -> usize {
    object.iter().map(|(key, value)| ENTRY + key.len() + of_value(value)).sum()
}

fn of_value(value: &Value) -> usize {
    let held = match value {
        Value::Null | Value::Bool(_) => 0,
        // It is kept as text.
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(of_value).sum(),
        Value::Object(members) => of_object(members),
    };
    size_of::<Value>() + held
}

/// How many bytes it has as JSON.
fn text<T: Serialize>(value: &T) -> usize {
    let mut written = Written(0);
    // Nothing that is counted fails to be written.
    let _ = serde_json::to_writer(&mut written, value);
    written.0
}

/// Counts what is written to it.
struct Written(usize);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_takes_at_least_its_parts() {
        let long = "x".repeat(1000);
        for (value, least) in [
            (json!(null), size_of::<Value>()),
            (json!(long), 1000),
            (json!([0, 0, 0, 0]), 5 * size_of::<Value>()),
            (json!({ &long: long }), 2000 + size_of::<Value>()),
            (json!([[long], { "a": [long] }]), 2000 + 5 * size_of::<Value>()),
        ] {
            let bytes = of_value(&value);
            assert!(bytes >= least && bytes < least + 500, "{bytes}, {least}");
        }
        let edits = [("key".to_owned(), Some(json!(long))), ("gone".to_owned(), None)];
        assert!(of_intent(&Intent::Approve { edits: edits.into() }) >= 1000);
        assert_eq!(text(&json!({"a": "é"})), 10);
    }
}
