//! Writes a policy set that behaves as the legacy configuration did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::duration;
use countersign_policy::Module;

use super::OverrideLimits;
use super::guards::{Action, Guards, Redact};
use super::note::Note;

const QUORUM: &str = "quorum";
const PERSONA_GATE: &str = "persona-gate";
const OVERRIDE_GUARD: &str = "override-guard";
const SUPER_APPROVERS: &str = "super-approvers";
const DAY: u32 = 86_400;
/// The original request and five rerequests: the legacy service's limit for 24 hours.
const LINEAGE_LIMIT: u32 = 6;

/// The document below `modules`, and the modules that it uses.
pub(super) struct Body {
    text: String,
    pub(super) modules: BTreeSet<&'static str>,
}

/// The whole document.
pub(super) fn document(
    guards: &str,
    notes: &[Note],
    modules: &BTreeMap<&'static str, Arc<Module>>,
    body: &Body,
) -> String {
    let mut text = format!("# Imported from {} by `countersign policy import`.\n", in_one_line(guards));
    if notes.is_empty() {
        text.push_str("# Everything was carried over.\n");
    } else {
        text.push_str("# What differs from guards.yml:\n");
    }
    for note in notes {
        let _ = writeln!(text, "# - {}", in_one_line(&note.with_name(guards)));
    }
    text.push_str("version: 1\nmodules:\n");
    for (name, module) in modules {
        let _ = writeln!(text, "  {name}: sha256:{}", module.digest());
    }
    text.push_str(&body.text);
    text
}

/// The groups, the defaults and the actions.
pub(super) fn body(guards: &Guards, limits: OverrideLimits, notes: &mut Vec<Note>) -> Body {
    let mut body = Body { text: String::new(), modules: BTreeSet::from([QUORUM]) };
    notes.extend(guards.ignored.iter().map(|field| Note::at(field.at, &field.value)));
    let supers = !guards.super_approvers.is_empty();
    if supers {
        let _ = writeln!(body.text, "groups:\n  {SUPER_APPROVERS}: {}", list(&guards.super_approvers));
    }
    defaults(guards, &mut body.text, notes);
    body.text.push_str("actions:");
    body.text.push_str(if guards.actions.is_empty() { " {}\n" } else { "\n" });
    for action in &guards.actions {
        write_action(guards, action, limits, &mut body, notes);
    }
    let required: BTreeSet<&String> = guards
        .actions
        .iter()
        .filter_map(|action| action.personas.as_ref())
        .flat_map(|personas| &personas.value)
        .collect();
    for (persona, holders) in guards.personas.iter().filter(|(persona, _)| !required.contains(persona)) {
        notes
            .push(Note::at(holders.at, format!("no action requires the persona `{persona}`; it is dropped")));
    }
    body
}

fn defaults(guards: &Guards, text: &mut String, notes: &mut Vec<Note>) {
    let mut manual = false;
    if let Some(at) = guards.manual {
        if guards.super_approvers.is_empty() {
            notes.push(Note::at(
                at,
                "`manual` without `superApprovers` denied unknown actions; they are denied here too",
            ));
        } else {
            manual = true;
            notes.push(Note::at(
                at,
                "the parameters `reason` and `count` of unknown actions could be edited; here no parameter of them can be \
                 edited or is shown, and the requester may not approve",
            ));
        }
    }
    let mut parts = vec![format!("timeout: {}", duration(guards.default_timeout))];
    parts.extend(guards.default_channel.as_deref().map(|channel| format!("channel: {}", scalar(channel))));
    parts.push(format!("unknown_action: {}", if manual { "manual" } else { "deny" }));
    let _ = writeln!(text, "defaults: {{ {} }}", parts.join(", "));
    if let Some(fallback) = &guards.dm_fallback
        && !guards.actions.iter().any(uses_fallback)
    {
        notes.push(Note::at(
            fallback.at,
            "`dmFallbackUser` is dropped: it is mentioned when an action escalates, and no action needs it for that",
        ));
    }
}

/// The legacy service sent escalations to the fallback user, unless the action named another.
fn uses_fallback(action: &Action) -> bool {
    action.escalation.as_ref().is_some_and(|escalation| escalation.mention.is_none())
}

fn write_action(
    guards: &Guards,
    action: &Action,
    limits: OverrideLimits,
    body: &mut Body,
    notes: &mut Vec<Note>,
) {
    let supers = !guards.super_approvers.is_empty();
    let text = &mut body.text;
    let _ = writeln!(text, "  {}:", scalar(&action.name));
    if let Some(description) = &action.description {
        let _ = writeln!(text, "    description: {}", scalar(description));
    }
    if let Some(timeout) = action.timeout {
        let _ = writeln!(text, "    timeout: {}", duration(timeout));
    }
    if let Some(channel) = &action.channel {
        let _ = writeln!(text, "    channel: {}", scalar(channel));
    }
    if let Some(escalation) = &action.escalation {
        let mut parts = vec![format!("before: {}", duration(escalation.before))];
        parts.extend(escalation.channel.as_deref().map(|channel| format!("channel: {}", scalar(channel))));
        let mention =
            escalation.mention.as_ref().or(guards.dm_fallback.as_ref().map(|fallback| &fallback.value));
        parts.extend(mention.map(|person| format!("mention: {}", scalar(person))));
        let _ = writeln!(text, "    escalate: {{ {} }}", parts.join(", "));
    }
    let (word, keys) = match &action.redact {
        Redact::Show(keys) => ("show", keys),
        Redact::Hide(keys) => ("hide", keys),
    };
    let comment =
        if word == "hide" && keys.is_empty() { " # every parameter is stored and shown" } else { "" };
    let _ = writeln!(text, "    redact: {{ {word}: {} }}{comment}", list(keys));
    if let Some(cooldown) = action.rerequest {
        // The window must be longer than the cooldown. With a cooldown of more than half a day the legacy limit could not
        // be reached, and with a window of twice the cooldown it still cannot.
        let window = DAY.max(cooldown.saturating_mul(2));
        let (cooldown, window) = (duration(cooldown), duration(window));
        let _ = writeln!(
            text,
            "    rerequest: {{ cooldown: {cooldown}, limit: {LINEAGE_LIMIT}, window: {window} }}"
        );
    }
    text.push_str("    policies:\n");

    let mut approvers = action.approvers.clone();
    if approvers.is_empty() {
        approvers.push(format!("@{SUPER_APPROVERS}"));
    }
    let needed = action.escalation.as_ref().and_then(|escalation| escalation.min_approvals);
    let most = needed.unwrap_or(action.min_approvals);
    let listed = u32::try_from(action.approvers.len()).unwrap_or(u32::MAX);
    // Super approvers may approve anyway. They are listed if the quorum policy would otherwise see too few approvers.
    if supers && !action.approvers.is_empty() && most > listed {
        approvers.push(format!("@{SUPER_APPROVERS}"));
    }
    if let Some(personas) = &action.personas {
        body.modules.insert(PERSONA_GATE);
        let mut holders = action.approvers.clone();
        if supers {
            holders.push(format!("@{SUPER_APPROVERS}"));
        }
        let mut assumed = Vec::new();
        let entries = personas.value.iter().map(|persona| {
            let ids = match guards.personas.get(persona) {
                Some(holders) => &holders.value,
                None => {
                    assumed.push(format!("`{persona}`"));
                    &holders
                }
            };
            format!("{}: {}", scalar(persona), list(ids))
        });
        let entries: Vec<String> = entries.collect();
        let _ = writeln!(body.text, "      - use: {PERSONA_GATE}");
        let _ = writeln!(body.text, "        with: {{ personas: {{ {} }} }}", entries.join(", "));
        if !assumed.is_empty() {
            notes.push(Note::at(
                personas.at,
                format!(
                    "anybody could acknowledge {}; here the approvers of `{}` can: list the holders under `personas` to change that",
                    assumed.join(" and "),
                    action.name
                ),
            ));
        }
    }
    let mut parts = vec![
        format!("approvers: {}", list(&approvers)),
        format!("approvals: {}", action.min_approvals),
        "requester_may_approve: true".to_owned(),
    ];
    parts.extend(needed.map(|needed| format!("escalated_approvals: {needed}")));
    let _ = writeln!(body.text, "      - use: {QUORUM}\n        with: {{ {} }}", parts.join(", "));
    write_override_guard(action, limits, body, notes);
    note_dropped(action, notes);
}

fn write_override_guard(action: &Action, limits: OverrideLimits, body: &mut Body, notes: &mut Vec<Note>) {
    for key in action.editable.iter().filter(|key| !action.shows(&key.value)) {
        notes.push(Note::at(
            key.at,
            format!(
                "`{}` is redacted, so it cannot be edited: approvers can only edit what they see",
                key.value
            ),
        ));
    }
    let keys: Vec<String> = action.editable_and_shown().map(str::to_owned).collect();
    let Some(first) = action.editable.iter().find(|key| action.shows(&key.value)) else { return };
    body.modules.insert(OVERRIDE_GUARD);
    let mut parts = vec![format!("keys: {}", list(&keys))];
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    parts.extend(limits.keys.map(|most| format!("max_keys: {}", most.min(count))));
    parts.extend(limits.chars.map(|most| format!("max_chars: {most}")));
    let _ = writeln!(body.text, "      - use: {OVERRIDE_GUARD}\n        with: {{ {} }}", parts.join(", "));
    if limits.keys.is_none() && limits.chars.is_none() {
        notes.push(Note::at(
            first.at,
            format!(
                "edits of `{}` have no limit, because `OVERRIDE_MAX_KEYS` and `OVERRIDE_MAX_CHARS` are not in this file: \
                 pass `--override-max-keys` and `--override-max-chars`",
                action.name
            ),
        ));
    }
}

fn note_dropped(action: &Action, notes: &mut Vec<Note>) {
    if let Some(at) = action.handles {
        notes.push(Note::at(at, "`allowHandles` is dropped: approvers are listed by their Slack ids"));
    }
    if let Some(at) = action.unused_cooldown {
        notes.push(Note::at(
            at,
            "`reRequestCooldownSec` had no effect without `allowReRequest: true`; it is dropped",
        ));
    }
    if let Some(at) = action.unused_keys {
        notes.push(Note::at(
            at,
            "`overrideKeys` had no effect without `allowParamOverrides: true`; it is dropped",
        ));
    }
}

fn duration(seconds: u32) -> String {
    duration::show(Duration::from_secs(seconds.into()))
}

fn list(texts: &[impl AsRef<str>]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| scalar(text.as_ref())).collect();
    format!("[{}]", texts.join(", "))
}

/// A YAML scalar that is read back as this text.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let keywords = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"];
    if plain && !keywords.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            // Unicode line breaks and the byte order mark.
            '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// The text without line breaks, which would end a comment.
fn in_one_line(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\u{2028}' | '\u{2029}' | '\u{feff}' => ' ',
            letter if letter.is_control() => ' ',
            letter => letter,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_is_read_back_as_the_same_text() {
        for text in [
            "U1",
            "yes",
            "NO",
            "null",
            "1e3",
            "0x10",
            "",
            " a ",
            "a: b",
            "- a",
            "#",
            "\"\\\n\r\t\u{0}\u{85}\u{2028}",
            "ü😀",
            "@x",
            "*",
        ] {
            let read: Vec<String> = serde_saphyr::from_str(&format!("[{}]", scalar(text))).unwrap();
            assert_eq!(read, [text], "{}", scalar(text));
        }
    }
}
