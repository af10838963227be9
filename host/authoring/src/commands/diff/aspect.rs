//! What an action means for people, each thing by its name.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::lifecycle::{Consent, Open, Requirement, RequirementKind, State, UseTerms, canonical};
use countersign_core::record::{Escalate, PolicyEntry, PolicyUse, Redaction, Rerequest};
use countersign_policy::ActionPolicy;
use serde_json::{Value, json};

use super::values;
use crate::event::duration;
use crate::words;

/// What is said of one thing. Two are the same if their values are: texts are only read, since two values may have one.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// One value, in canonical JSON, and in words.
    Value { canonical: String, text: String },
    /// Names, of which it matters which there are. Those of a set are sorted.
    Members(Vec<String>),
}

impl PartialEq for Said {
    fn eq(&self, other: &Said) -> bool {
        match (self, other) {
            (Said::Value { canonical, .. }, Said::Value { canonical: other, .. }) => canonical == other,
            (Said::Members(members), Said::Members(other)) => members == other,
            (Said::Value { .. }, Said::Members(_)) | (Said::Members(_), Said::Value { .. }) => false,
        }
    }
}

impl Said {
    /// A value that people read as `text`.
    pub(super) fn value(value: &Value, text: String) -> Said {
        Said::Value { canonical: canonical(value), text }
    }

    /// A value that people read as it is.
    pub(super) fn json(value: &Value) -> Said {
        let canonical = canonical(value);
        Said::Value { text: canonical.clone(), canonical }
    }

    /// A set of names.
    pub(super) fn members(names: impl Iterator<Item = String>) -> Said {
        Said::Members(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    pub(super) fn text(&self) -> String {
        match self {
            Said::Value { text, .. } => text.clone(),
            // Not as names: a list of one and its member differ.
            Said::Members(members) => canonical(&json!(members)),
        }
    }
}

/// What an action means for people.
pub(super) struct Aspects(BTreeMap<String, Said>);

impl Aspects {
    pub(super) fn of(policy: &ActionPolicy) -> Aspects {
        let mut aspects = Aspects(BTreeMap::new());
        // All fields by name, so that a new one is not forgotten here.
        let PolicyEntry {
            action: _,
            description,
            timeout_ms,
            channel,
            escalate,
            redact,
            rerequest,
            unattended,
            consent,
            notify,
            terms,
            supersede,
            unsatisfiable,
            schema,
            groups: _,
            policies,
        } = &**policy.entry();
        aspects.agreement(policy);
        aspects.text("timeout", duration(*timeout_ms));
        if !description.is_empty() {
            aspects.put("description", Said::json(&json!(description)));
        }
        aspects.named("channel", channel.as_ref());
        if let Some(Escalate { before_ms, channel, mention }) = escalate {
            aspects.text("escalation", format!("{} before the expiry", duration(*before_ms)));
            aspects.named("escalation channel", channel.as_ref());
            aspects.named("escalation mentions", mention.as_ref());
        }
        let shown = match redact {
            Redaction::Show(keys) if keys.is_empty() => "none".to_owned(),
            Redaction::Show(keys) => format!("only {}", words::names(keys)),
            Redaction::Hide(keys) if keys.is_empty() => "all".to_owned(),
            Redaction::Hide(keys) => format!("all but {}", words::names(keys)),
        };
        aspects.put("shown parameters", Said::value(&json!(redact), shown));
        if let Some(rerequest) = rerequest {
            let Rerequest { cooldown_ms, limit, window_ms, by } = rerequest;
            let by = match by.is_empty() {
                true => "the requester and the approvers".to_owned(),
                false => words::names(by),
            };
            let (cooldown, window) = (duration(*cooldown_ms), duration(*window_ms));
            let text = format!("after {cooldown}, {limit} times in {window} at the most, by {by}");
            aspects.put("made again", Said::value(&json!(rerequest), text));
        }
        let consent = match consent {
            Consent::Whole => "all that a request shows must have been read",
            Consent::Summary => "what the message shows is enough",
        };
        aspects.text("consent", consent.to_owned());
        aspects.text("approval by nobody", yes(*unattended, "allowed", "not allowed"));
        aspects.text("people notified at first", yes(*notify, "yes", "no"));
        let UseTerms { valid_for_ms, required } = terms;
        aspects.text("approval is valid for", valid_for_ms.map_or_else(|| "ever".to_owned(), duration));
        aspects.text("approval must be consumed", yes(*required, "yes", "no"));
        aspects.members("superseded by the same", supersede.iter().cloned());
        let refused = unsatisfiable.is_refused();
        aspects.text(
            "request that needs more people than there are",
            yes(refused, "not made", "made, and waits"),
        );
        aspects.text("parameters have a schema", yes(schema.is_some(), "yes", "no"));
        if let Some(schema) = schema {
            aspects.values("schema", schema);
        }
        aspects.policies(policies);
        aspects
    }

    pub(super) const fn said(&self) -> &BTreeMap<String, Said> {
        &self.0
    }

    /// Who must agree, as the policies say it of a synthetic request.
    fn agreement(&mut self, policy: &ActionPolicy) {
        let request = match policy.synthetic_request() {
            Ok(request) => request,
            Err(why) => return self.text("who must agree", format!("not known: {why}")),
        };
        let open = match &request.state {
            State::Open(open) => open,
            State::Approved { .. } => return self.text("who must agree", "nobody".to_owned()),
            _ => return self.text("who must agree", "denied at once".to_owned()),
        };
        let Open { requirements, editable, .. } = open;
        self.members("can be edited", editable.iter().cloned());
        // Policies of one action may each ask for approvals.
        let mut numbers: BTreeMap<RequirementName<'_>, usize> = BTreeMap::new();
        for wanted in requirements {
            let number = numbers.entry(RequirementName::of(wanted)).or_default();
            *number += 1;
            let suffix = if *number == 1 { String::new() } else { format!(" ({number})") };
            let name = RequirementName::of(wanted);
            self.text(&format!("{}{suffix}", name.needed()), wanted.need.to_string());
            let people = wanted.eligible.iter().flat_map(|name| people(policy.entry(), name));
            let excluded: BTreeSet<&String> = wanted.excluded.iter().collect();
            self.members(&format!("{}{suffix}", name.able()), people.filter(|name| !excluded.contains(name)));
        }
    }

    fn policies(&mut self, policies: &[PolicyUse]) {
        let names: Vec<&str> = policies.iter().map(|used| used.name.as_str()).collect();
        self.put("policies", Said::value(&json!(names), names.join(", then ")));
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for PolicyUse { name, digest, config } in policies {
            let number = numbers.entry(name).or_default();
            *number += 1;
            let name = if *number == 1 { name.clone() } else { format!("{name} ({number})") };
            self.text(&format!("module of {name}"), format!("sha256:{digest}"));
            self.values(&format!("configuration of {name}"), config);
        }
    }

    /// Each value in a document, by its JSON Pointer.
    fn values(&mut self, what: &str, document: &Value) {
        for (pointer, value) in values::leaves(document) {
            let what = if pointer.is_empty() { what.to_owned() } else { format!("{what} at {pointer}") };
            self.0.insert(what, value);
        }
    }

    fn put(&mut self, what: &str, said: Said) {
        self.0.insert(what.to_owned(), said);
    }

    /// What is a text of this command's own, one for each value.
    fn text(&mut self, what: &str, text: String) {
        self.put(what, Said::value(&json!(text), text.clone()));
    }

    /// A name of the set's choice, if there is one.
    fn named(&mut self, what: &str, name: Option<&String>) {
        let text = name.map_or_else(|| "none".to_owned(), |name| words::name(name));
        self.put(what, Said::value(&json!(name), text));
    }

    /// No names are the same as nothing said.
    fn members(&mut self, what: &str, members: impl Iterator<Item = String>) {
        let members: BTreeSet<String> = members.collect();
        if !members.is_empty() {
            self.put(what, Said::members(members.into_iter()));
        }
    }
}

/// What tells a requirement from the others of its action. Its label may have numbers in it, which change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RequirementName<'a> {
    Approvals,
    Acknowledgement(&'a str),
    Time,
}

impl<'a> RequirementName<'a> {
    fn of(wanted: &'a Requirement) -> RequirementName<'a> {
        match wanted.kind {
            RequirementKind::Approval => RequirementName::Approvals,
            RequirementKind::Acknowledgement => RequirementName::Acknowledgement(&wanted.label),
            RequirementKind::Time => RequirementName::Time,
        }
    }

    fn needed(self) -> String {
        match self {
            RequirementName::Approvals => "approvals needed".to_owned(),
            RequirementName::Acknowledgement(persona) => format!("acknowledgements needed as {persona}"),
            RequirementName::Time => "waits for a time".to_owned(),
        }
    }

    fn able(self) -> String {
        match self {
            RequirementName::Approvals => "can approve".to_owned(),
            RequirementName::Acknowledgement(persona) => format!("can acknowledge as {persona}"),
            RequirementName::Time => "can shorten the wait".to_owned(),
        }
    }
}

/// The members of a group of the set, or the one that is named.
fn people(entry: &PolicyEntry, name: &str) -> BTreeSet<String> {
    let group = name.strip_prefix('@').and_then(|group| entry.groups.get(group));
    group.cloned().unwrap_or_else(|| BTreeSet::from([name.to_owned()]))
}

fn yes(is: bool, yes: &str, no: &str) -> String {
    if is { yes.to_owned() } else { no.to_owned() }
}
