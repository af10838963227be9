//! One action's policies, ready to admit and to judge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::bindings;
use super::engine::{Cost, Failure};
use super::metrics::Meter;
use super::module::Module;
use super::pace::Pace;
use super::schema::ParamSchema;
use countersign_core::lifecycle::{
    Digest, Event, Link, Origin, Party, PolicyFailure, REDACTED, Reason, Request, RequestId, Ruling,
    Standing, Submission, Verdict, canonical,
};
use countersign_core::record::PolicyEntry;
use countersign_trace::{Key, Name, Span};

/// An action's entry together with its modules: what judges its requests.
pub struct ActionPolicy {
    entry: Arc<PolicyEntry>,
    hash: Digest,
    rules: Vec<Rule>,
    schema: Option<ParamSchema>,
    pace: Pace,
}

/// One policy of an action.
pub(super) struct Rule {
    pub(super) module: Arc<Module>,
    /// The configuration as JSON text, made once.
    pub(super) config: String,
    pub(super) meter: Meter,
}

/// An entry that cannot judge.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// A module is not at hand.
    #[error("the module `{name}` ({digest}) of the action `{action}` is missing")]
    MissingModule {
        /// The action.
        action: String,
        /// The module's name in the policy set.
        name: String,
        /// Its digest.
        digest: Digest,
    },
    /// The schema of the parameters cannot be used.
    #[error("the parameter schema of the action `{action}` is not valid: {detail}")]
    Schema {
        /// The action.
        action: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Nothing would judge its requests.
    #[error("the action `{action}` has no policy")]
    NoPolicy {
        /// The action.
        action: String,
    },
}

/// Something that is wrong with a policy's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// JSON Pointer into the configuration.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// The code that the policy gives it; `None` for what its schema says.
    pub code: Option<String>,
}

/// Why a request is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Policies forbid it, for these reasons.
    Denied(Vec<Reason>),
    /// A policy gave no usable answer, which never counts as consent.
    Failed(PolicyFailure),
}

impl ActionPolicy {
    /// The entry with its modules, as `module_of` finds them.
    pub fn new(
        entry: PolicyEntry,
        module_of: impl Fn(&Digest) -> Option<Arc<Module>>,
    ) -> Result<ActionPolicy, ActionError> {
        ActionPolicy::measured_as(entry, module_of, &str::to_owned)
    }

    /// As [`ActionPolicy::new`], with other names for its policies in metrics and failures.
    pub(super) fn measured_as(
        entry: PolicyEntry,
        module_of: impl Fn(&Digest) -> Option<Arc<Module>>,
        name: &dyn Fn(&str) -> String,
    ) -> Result<ActionPolicy, ActionError> {
        let action = || entry.action.clone();
        let schema = entry.schema.clone().map(|schema| ParamSchema::new(schema, &entry.redact)).transpose();
        let schema = schema.map_err(|detail| ActionError::Schema { action: action(), detail })?;
        let mut rules = Vec::with_capacity(entry.policies.len());
        for policy in &entry.policies {
            let module = module_of(&policy.digest).ok_or_else(|| ActionError::MissingModule {
                action: action(),
                name: policy.name.clone(),
                digest: policy.digest,
            })?;
            let meter = module.meter(&name(&policy.name));
            rules.push(Rule { module, config: canonical(&policy.config), meter });
        }
        if rules.is_empty() {
            return Err(ActionError::NoPolicy { action: action() });
        }
        Ok(ActionPolicy { hash: entry.hash(), entry: Arc::new(entry), rules, schema, pace: Pace::default() })
    }

    /// What it is made of.
    #[must_use]
    pub fn entry(&self) -> &Arc<PolicyEntry> {
        &self.entry
    }

    /// The policy hash.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The modules that judge, in order.
    pub fn modules(&self) -> impl Iterator<Item = &Arc<Module>> {
        self.rules.iter().map(|rule| &rule.module)
    }

    /// JSON Schema of the parameters, as it was written.
    #[must_use]
    pub fn schema(&self) -> Option<&Value> {
        self.schema.as_ref().map(ParamSchema::document)
    }

    /// Asks every policy whether the request may be made, and returns what they want to remember of it. What some of them
    /// remember may be `known` already, by their place.
    ///
    /// `params` are the full parameters, which nobody but `admit` ever sees; the rest comes from `submission`.
    pub fn admit(
        &self,
        id: RequestId,
        submission: &Submission,
        params: &Map<String, Value>,
        known: impl Fn(usize) -> Option<String>,
    ) -> Result<Vec<String>, NotAdmitted> {
        self.pace.of(|| self.admit_at_cost(id, submission, params, known).0)
    }

    /// As [`ActionPolicy::admit`], and what each policy that was asked used.
    pub fn admit_at_cost(
        &self,
        id: RequestId,
        submission: &Submission,
        params: &Map<String, Value>,
        known: impl Fn(usize) -> Option<String>,
    ) -> (Result<Vec<String>, NotAdmitted>, Vec<Cost>) {
        let prepared = Prepared::new(id, submission, params);
        let mut memos = Vec::with_capacity(self.rules.len());
        let mut costs = Vec::with_capacity(self.rules.len());
        let mut reasons = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let (answer, cost) = match known(index) {
                Some(memo) => (Ok(Ok(memo)), None),
                None => {
                    let (answer, cost) = rule.admit(prepared.request());
                    (answer, Some(cost))
                }
            };
            costs.extend(cost);
            match answer {
                // INVARIANT: no memo is kept that was not looked at: memos are stored, and hidden values must not be.
                Ok(Ok(memo)) if repeats_hidden(&memo, params, &submission.redacted) => {
                    let failure =
                        Failure::malformed("its memo repeats a redacted parameter, and memos are stored");
                    return (Err(NotAdmitted::Failed(rule.failed(failure))), costs);
                }
                Ok(Ok(memo)) => memos.push(memo),
                Ok(Err(refused)) => reasons.extend(refused),
                Err(failure) => return (Err(NotAdmitted::Failed(failure)), costs),
            }
        }
        let admitted = if reasons.is_empty() { Ok(memos) } else { Err(NotAdmitted::Denied(reasons)) };
        (admitted, costs)
    }

    /// Asks every policy, in order, whether `event` counts, and where `request` stands once it does.
    #[must_use]
    pub fn judge(&self, request: &Request, event: &Event) -> Vec<Verdict> {
        let judge = || self.judge_at_cost(request, event).into_iter().map(|(verdict, _)| verdict).collect();
        self.pace.of(judge)
    }

    /// As [`ActionPolicy::judge`], and what each policy used.
    #[must_use]
    pub fn judge_at_cost(&self, request: &Request, event: &Event) -> Vec<(Verdict, Cost)> {
        let submission = &request.submission;
        let prepared = Prepared::new(request.id, submission, &submission.params);
        let events = bindings::Events::new(&request.history, event);
        let verdict = |(index, rule): (usize, &Rule)| {
            let Some(memo) = request.memos.get(index) else {
                let failure = Failure::malformed("the request has no memo for it");
                return (Verdict::Failed(rule.failed(failure)), Cost::default());
            };
            rule.judge(memo, prepared.request(), &events, event)
        };
        self.rules.iter().enumerate().map(verdict).collect()
    }

    /// How long a judgement may take, if one of the last ones was slow; `None` if all were quick. A slow one is not for a
    /// thread that others wait for.
    #[must_use]
    pub fn slow(&self) -> Option<Duration> {
        self.pace.slow()
    }

    /// What is wrong with each policy's configuration, in order, and what it used to find out: first what its schema
    /// says; if that has nothing against it, what the policy itself says.
    #[must_use]
    pub fn config_faults(&self) -> Vec<(Result<Vec<ConfigFault>, PolicyFailure>, Cost)> {
        self.rules
            .iter()
            .zip(&self.entry.policies)
            .map(|(rule, used)| rule.config_faults(&used.config))
            .collect()
    }

    /// What the action's JSON Schema has against the request's parameters as they would be with these edits, by the edit
    /// at which it is told. A parameter without a value is removed. Empty if there is no schema.
    #[must_use]
    pub fn check_edits(
        &self,
        request: &Request,
        edits: &BTreeMap<String, Option<Value>>,
    ) -> BTreeMap<String, Vec<String>> {
        let Some(schema) = &self.schema else { return BTreeMap::new() };
        let mut params = request.params();
        for (key, after) in edits {
            match after {
                Some(value) => params.insert(key.clone(), value.clone()),
                None => params.remove(key),
            };
        }
        let edited = edits.keys().map(String::as_str).collect();
        schema.violations(&params, &request.submission.redacted, &edited)
    }

    pub(super) fn param_schema(&self) -> Option<&ParamSchema> {
        self.schema.as_ref()
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl std::fmt::Debug for ActionPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActionPolicy")
            .field("hash", &self.hash)
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

/// What every policy of a call is told, turned into text once.
struct Prepared<'a> {
    submission: &'a Submission,
    action: &'a str,
    id: String,
    requester: bindings::Actor<'a>,
    rerequester: Option<bindings::Actor<'a>>,
    owners: Vec<&'a str>,
    params: String,
    meta: String,
}

impl<'a> Prepared<'a> {
    fn new(id: RequestId, submission: &'a Submission, params: &Map<String, Value>) -> Prepared<'a> {
        Prepared {
            submission,
            action: &submission.action,
            id: id.to_string(),
            requester: bindings::Actor::requester(submission),
            rerequester: bindings::Actor::rerequester(submission),
            owners: submission.owners.iter().map(String::as_str).collect(),
            // A map with string keys always serialises.
            params: serde_json::to_string(params).unwrap_or_default(),
            meta: Meta::of(submission),
        }
    }

    fn request(&self) -> bindings::Request<'_> {
        bindings::Request {
            id: &self.id,
            action: self.action,
            requester: self.requester.clone(),
            owners: &self.owners,
            rerequested_by: self.rerequester.clone(),
            params: &self.params,
            meta: &self.meta,
            submitted_at: self.submission.submitted_at.as_millis(),
            expires_at: self.submission.expires_at.as_millis(),
            lineage_depth: self.submission.depth,
        }
    }
}

/// What a policy is told besides the parameters: the submission's `meta`, and `policyHints` if there are any.
#[derive(Serialize)]
struct Meta<'a> {
    origin: &'a Origin,
    requester: &'a Party,
    justification: &'a str,
    links: &'a [Link],
    #[serde(rename = "policyHints", skip_serializing_if = "Option::is_none")]
    policy_hints: Option<&'a Value>,
}

impl Meta<'_> {
    fn of(submission: &Submission) -> String {
        let Submission { origin, requester, justification, links, policy_hints, .. } = submission;
        let meta = Meta { origin, requester, justification, links, policy_hints: policy_hints.as_ref() };
        // Strings and values always serialise.
        serde_json::to_string(&meta).unwrap_or_default()
    }
}

impl Rule {
    /// What the policy has against its configuration, beyond what the schema says.
    pub(super) fn check_config(&self) -> (Result<Vec<Reason>, PolicyFailure>, Cost) {
        let (reasons, cost) = self.module.check_config(&self.meter, &self.config);
        let reasons = reasons.map(|(reasons,)| reasons.into_iter().map(Into::into).collect());
        (reasons.map_err(|failure| self.failed(failure)), cost)
    }

    fn config_faults(&self, config: &Value) -> (Result<Vec<ConfigFault>, PolicyFailure>, Cost) {
        let (reasons, cost) = self.check_config();
        let by_schema = self.module.config().iter_errors(config).map(|error| ConfigFault {
            pointer: error.instance_path().as_str().to_owned(),
            message: error.to_string(),
            code: None,
        });
        let by_schema: Vec<ConfigFault> = by_schema.collect();
        if !by_schema.is_empty() {
            return (Ok(by_schema), cost);
        }
        let faults = reasons.map(|reasons| {
            let fault = |Reason { code, message, path }| ConfigFault {
                pointer: path.unwrap_or_default(),
                message,
                code: Some(code),
            };
            reasons.into_iter().map(fault).collect()
        });
        (faults, cost)
    }

    fn admit(
        &self,
        request: bindings::Request<'_>,
    ) -> (Result<Result<String, Vec<Reason>>, PolicyFailure>, Cost) {
        let span = self.span(Name::Admit);
        let (answer, cost) = self.module.admit(&self.meter, &self.config, request);
        let answer = answer.and_then(|answer| match answer {
            Ok(memo) => check_memo(&memo, self.module.output_bytes()).map(|()| Ok(memo)),
            Err(reasons) => self.check_reasons(reasons).map(Err),
        });
        let answer = answer.map_err(|failure| self.failed(failure));
        say(
            &span,
            cost,
            match &answer {
                Ok(Ok(_)) => Ok("admitted"),
                Ok(Err(_)) => Ok("refused"),
                Err(failure) => Err(failure),
            },
        );
        (answer, cost)
    }

    fn judge(
        &self,
        memo: &str,
        request: bindings::Request<'_>,
        events: &bindings::Events<'_>,
        event: &Event,
    ) -> (Verdict, Cost) {
        let span = self.span(Name::Judge);
        let (answer, cost) = self.module.judge(&self.meter, (&self.config, memo), request, events);
        let verdict = answer.and_then(|answer| match answer {
            Ok(ruling) => self.check_ruling(ruling, event).map(Verdict::Ruled),
            Err(reasons) => self.check_reasons(reasons).map(Verdict::Refused),
        });
        let verdict = verdict.unwrap_or_else(|failure| Verdict::Failed(self.failed(failure)));
        say(
            &span,
            cost,
            match &verdict {
                Verdict::Ruled(Ruling { standing: Standing::Satisfied, .. }) => Ok("satisfied"),
                Verdict::Ruled(Ruling { standing: Standing::Waiting(_), .. }) => Ok("waiting"),
                Verdict::Ruled(Ruling { standing: Standing::Denied(_), .. }) => Ok("denied"),
                Verdict::Refused(_) => Ok("refused"),
                Verdict::Failed(failure) => Err(failure),
            },
        );
        (verdict, cost)
    }

    /// The span of a call, within that of what the policy is asked about.
    fn span(&self, name: Name) -> Span {
        let span = Span::child(name);
        span.set(Key::Policy, || self.meter.policy().to_owned());
        span.set(Key::PolicyDigest, || self.module.digest().to_string());
        span
    }

    /// Counts the failure, and says whose it is.
    fn failed(&self, failure: Failure) -> PolicyFailure {
        self.meter.failed(&failure);
        PolicyFailure { policy: self.meter.policy().to_owned(), kind: failure.kind, detail: failure.detail }
    }

    fn check_ruling(&self, ruling: Ruling, event: &Event) -> Result<Ruling, Failure> {
        match &ruling.standing {
            Standing::Satisfied => {}
            Standing::Waiting(requirements) if requirements.is_empty() => {
                return Err(Failure::malformed("it waits for nothing"));
            }
            Standing::Waiting(requirements) => {
                if requirements.iter().any(|requirement| requirement.label.is_empty()) {
                    return Err(Failure::malformed("a requirement has no label"));
                }
            }
            Standing::Denied(reason) => self.check_code(reason)?,
        }
        if ruling.editable.iter().any(String::is_empty) {
            return Err(Failure::malformed("an editable key is empty"));
        }
        if ruling.wake_at.is_some_and(|at| at <= event.at) {
            return Err(Failure::malformed("it asks to be woken at a time that is not after the event"));
        }
        Ok(ruling)
    }

    fn check_reasons(&self, reasons: Vec<bindings::Reason>) -> Result<Vec<Reason>, Failure> {
        if reasons.is_empty() {
            return Err(Failure::malformed("it refuses without a reason"));
        }
        let reasons: Vec<Reason> = reasons.into_iter().map(Into::into).collect();
        reasons.iter().try_for_each(|reason| self.check_code(reason))?;
        Ok(reasons)
    }

    /// Codes become labels of metrics, so there may be no others than the described ones.
    fn check_code(&self, reason: &Reason) -> Result<(), Failure> {
        if self.module.knows(&reason.code) {
            return Ok(());
        }
        let name: String = reason.code.chars().filter(|letter| !letter.is_control()).take(64).collect();
        let named = if self.module.names_unlisted_codes() { format!(", `{name}`,") } else { String::new() };
        Err(Failure::malformed(format!("it gives a reason whose code{named} its description does not list")))
    }
}

/// Says what a call took, and what came of it.
fn say(span: &Span, cost: Cost, outcome: Result<&'static str, &PolicyFailure>) {
    span.set_number(Key::Fuel, cost.fuel);
    span.set_word(Key::Outcome, outcome.unwrap_or_else(|failure| failure.kind.as_str()));
    if let Err(failure) = outcome {
        span.fail(failure.kind.as_str());
    }
}

/// The memo is stored with the request, and handed back as JSON.
fn check_memo(memo: &str, limit: usize) -> Result<(), Failure> {
    if memo.len() > limit {
        return Err(Failure::malformed(format!("its memo has more than {limit} bytes")));
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(memo) {
        Ok(_) => Ok(()),
        // Says only where, since the text may hold parameters.
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            Err(Failure::malformed(format!("its memo is no JSON, at line {line}, column {column}")))
        }
    }
}

/// Whether a memo holds a text or a long number of a hidden parameter.
///
/// A policy sees hidden values when it admits, and what it remembers is stored. This catches the policy that
/// remembers one as it is; one that disguises it cannot be caught, so read the policies that you pin.
fn repeats_hidden(memo: &str, params: &Map<String, Value>, hidden: &BTreeSet<String>) -> bool {
    fn repeats(memo: &str, value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Array(values) => values.iter().any(|value| repeats(memo, value)),
            Value::Object(members) => members.values().any(|value| repeats(memo, value)),
            // Shorter ones stand in a memo by chance.
            Value::Number(number) => {
                Some(number.to_string()).is_some_and(|text| text.len() > 5 && memo.contains(&text))
            }
            Value::String(text) => {
                let escaped = value.to_string();
                let inner = escaped.get(1..escaped.len().saturating_sub(1)).unwrap_or_default();
                text.len() > 3 && memo.contains(inner)
            }
        }
    }
    // When a request is made again there is a placeholder in the place of each hidden value, which a memo may repeat.
    let values = hidden.iter().filter_map(|key| params.get(key));
    values.filter(|value| value.as_str() != Some(REDACTED)).any(|value| repeats(memo, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_memo_that_repeats_a_hidden_value_is_noticed() {
        let again = json!({"secret": REDACTED}).as_object().cloned().unwrap();
        let hidden = ["secret".to_owned()].into();
        assert!(
            !repeats_hidden(&format!("{{\"secret\": \"{REDACTED}\"}}"), &again, &hidden),
            "a placeholder"
        );
        let params = json!({"secret": {"key": "hun\"ter", "pins": [123456, 12]}, "shown": "visible"});
        let params = params.as_object().cloned().unwrap_or_default();
        let hidden = BTreeSet::from(["secret".to_owned()]);
        for (memo, expected) in [
            (r#"{"saw":"xhun\"terx"}"#, true),
            (r#"{"n":123456}"#, true),
            (r#"{"n":12,"t":"visible"}"#, false),
            ("null", false),
        ] {
            assert_eq!(repeats_hidden(memo, &params, &hidden), expected, "{memo}");
        }
    }
}
