//! Runs a scenario against a module, in the gateway's own sandbox, and compares its answers with what is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::claim::{Outcome, Seen, compare};
use super::{ACTION, Mismatch, Scenario, Setting, Step};
use crate::event::duration;
use crate::synthetic::{Submitted, request_id};
use crate::words;
use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    self, Act, Event, FailureKind, Intent, PolicyFailure, Reason, Refusal, Request, Ruling, Standing,
    Submission, Verdict,
};
use countersign_core::record::{PolicyEntry, PolicyUse};
use countersign_policy::decide;
use countersign_policy::{ActionPolicy, Module, NotAdmitted};

/// A scenario that was run.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) name: String,
    pub(crate) line: u64,
    /// What happened and what came of it, up to the first outcome that was not expected.
    pub(crate) steps: Vec<PlayedStep>,
    pub(crate) mismatches: Vec<Mismatch>,
    /// What was called with what, to be called again and measured.
    pub(crate) calls: Option<Calls>,
}

/// An event that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlayedStep {
    /// Milliseconds after the submission.
    pub(crate) at_ms: u64,
    pub(crate) event: String,
    pub(crate) outcome: String,
}

/// The calls of a scenario.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) policy: ActionPolicy,
    pub(crate) admission: Option<(Submission, Map<String, Value>)>,
    pub(crate) judged: Vec<(Request, Event)>,
}

/// Runs a scenario.
pub(crate) fn play(scenario: &Scenario, module: &Arc<Module>) -> Played {
    let mut playing = Playing {
        scenario,
        now_ms: 0,
        steps: Vec::new(),
        mismatches: Vec::new(),
        request: None,
        ruling: None,
        judged: Vec::new(),
    };
    let calls = match policy(&scenario.setting, module) {
        Ok(policy) => {
            let admission = playing.run(&policy);
            Some(Calls { policy, admission, judged: std::mem::take(&mut playing.judged) })
        }
        Err(error) => {
            playing.differs(scenario.line, "setting", "a setting without fault", vec![error]);
            None
        }
    };
    let Playing { steps, mismatches, .. } = playing;
    Played { name: scenario.name.clone(), line: scenario.line, steps, mismatches, calls }
}

/// The module as the only policy of an action.
fn policy(setting: &Setting, module: &Arc<Module>) -> Result<ActionPolicy, String> {
    let used = PolicyUse {
        name: module.descriptor().name.clone(),
        digest: module.digest(),
        config: setting.config.clone(),
    };
    let entry = PolicyEntry {
        action: ACTION.to_owned(),
        description: String::new(),
        timeout_ms: setting.timeout_ms,
        channel: None,
        escalate: None,
        redact: setting.redact.clone(),
        rerequest: None,
        unattended: false,
        consent: Default::default(),
        notify: false,
        terms: Default::default(),
        supersede: Default::default(),
        unsatisfiable: Default::default(),
        schema: setting.schema.clone(),
        groups: setting.groups.clone(),
        policies: vec![used],
    };
    ActionPolicy::new(entry, |_| Some(Arc::clone(module))).map_err(|error| error.to_string())
}

struct Playing<'a> {
    scenario: &'a Scenario,
    now_ms: u64,
    steps: Vec<PlayedStep>,
    mismatches: Vec<Mismatch>,
    request: Option<Request>,
    /// The ruling on the last event that counted.
    ruling: Option<Ruling>,
    judged: Vec<(Request, Event)>,
}

impl Playing<'_> {
    /// Runs the events until an outcome is not expected, and returns what was admitted, or would have been.
    fn run(&mut self, policy: &ActionPolicy) -> Option<(Submission, Map<String, Value>)> {
        if !self.configured(policy) {
            return None;
        }
        let Submitted { submission, params } =
            self.scenario.setting.request.submit(policy, &Directory::default());
        let admission = Some((submission.clone(), params.clone()));
        if self.submitted(policy, submission, &params) {
            for step in &self.scenario.events {
                if !self.happens(policy, step) {
                    break;
                }
            }
        }
        admission
    }

    /// Whether there is a configuration to go on with.
    fn configured(&mut self, policy: &ActionPolicy) -> bool {
        let line = self.scenario.line;
        let mut found = Vec::new();
        let mut pointers = Vec::new();
        for (faults, _) in policy.config_faults() {
            match faults {
                Ok(faults) => {
                    for fault in faults {
                        let code = fault.code.map(|code| format!(" ({code})")).unwrap_or_default();
                        found.push(format!("at `{}`: {}{code}", fault.pointer, fault.message));
                        pointers.push(fault.pointer);
                    }
                }
                Err(failure) => {
                    let seen = vec![format!("fails: {} ({})", failure.kind, failure.detail)];
                    self.differs(line, "configuration", "that it can be checked", seen);
                    return false;
                }
            }
        }
        pointers.sort();
        pointers.dedup();
        match &self.scenario.config_refused {
            None if found.is_empty() => true,
            None => {
                self.differs(line, "configuration", "a configuration without fault", found);
                false
            }
            Some(expected) => {
                let mut expected = expected.clone();
                expected.sort();
                expected.dedup();
                if expected != pointers {
                    let expected = expected.iter().map(|pointer| format!("a fault at `{pointer}`"));
                    let seen = if found.is_empty() { vec!["no fault".to_owned()] } else { found };
                    self.mismatches.push(Mismatch {
                        line,
                        event: "the configuration is checked".to_owned(),
                        what: "configuration",
                        expected: expected.collect(),
                        seen,
                    });
                }
                false
            }
        }
    }

    /// The request is made. Returns whether there is one, as expected.
    fn submitted(
        &mut self,
        policy: &ActionPolicy,
        submission: Submission,
        params: &Map<String, Value>,
    ) -> bool {
        let event = format!("{} asks", submission.requester_id());
        let mut memo = None;
        let outcome =
            match policy.admit(request_id(self.scenario.setting.request.at), &submission, params, |_| None) {
                Err(NotAdmitted::Denied(reasons)) => Outcome::Refused(reasons),
                Err(NotAdmitted::Failed(failure)) => Outcome::Failed(failure),
                Ok(memos) => {
                    memo = memos.first().cloned();
                    self.request = Some(lifecycle::draft(
                        request_id(self.scenario.setting.request.at),
                        submission,
                        memos,
                    ));
                    let submitted =
                        Event { seq: 0, at: self.scenario.setting.request.at, by: None, act: Act::Submitted };
                    self.judge(policy, submitted)
                }
            };
        let seen = Seen {
            line: self.scenario.line,
            event: &event,
            submitted_at: self.scenario.setting.request.at,
            outcome: &outcome,
            memo: memo.as_deref(),
        };
        let found = compare(&seen, self.scenario.expect.as_ref());
        self.came_to(&event, &outcome, found) && matches!(outcome, Outcome::Counted(_))
    }

    /// Something happens. Returns whether the scenario goes on.
    fn happens(&mut self, policy: &ActionPolicy, step: &Step) -> bool {
        let event = step.event.to_string();
        let (at_ms, problem) = self.time_of(step);
        self.now_ms = at_ms.max(self.now_ms);
        if let Some(problem) = problem {
            self.differs_at(step.line, event, "event", "that it can happen", vec![problem]);
            return false;
        }
        let Some(request) = &self.request else { return false };
        let entry = policy.entry();
        let at = self.scenario.setting.request.at.plus(self.now_ms);
        let by = step.event.by.as_ref().map(|id| entry.actor(id, &Directory::default(), at));
        let act = decide::act(policy, request, step.event.intent.clone(), &BTreeMap::new());
        let seq = u32::try_from(request.history.len()).unwrap_or(u32::MAX);
        let outcome = self.judge(policy, Event { seq, at, by, act });
        let seen = Seen {
            line: step.line,
            event: &event,
            submitted_at: self.scenario.setting.request.at,
            outcome: &outcome,
            memo: None,
        };
        let found = compare(&seen, step.expect.as_ref());
        self.came_to(&event, &outcome, found)
    }

    /// When a step happens, and what is wrong with that.
    fn time_of(&self, step: &Step) -> (u64, Option<String>) {
        let wish = self.ruling.as_ref().and_then(|ruling| ruling.wake_at);
        let wish = wish.map(|at| at.since(self.scenario.setting.request.at));
        let default = match step.event.intent {
            Intent::Wake => wish,
            _ => Some(self.now_ms.saturating_add(1000)),
        };
        let at_ms = step.event.at_ms.or(default).unwrap_or(self.now_ms);
        let timeout_ms = self.scenario.setting.timeout_ms;
        let problem = if let Some(Standing::Denied(_)) = self.ruling.as_ref().map(|ruling| &ruling.standing) {
            "the request is denied, and with that the scenario is over".to_owned()
        } else if step.event.intent == Intent::Wake && wish.is_none_or(|wish| at_ms < wish) {
            match wish {
                Some(wish) => format!("the policy asked to be woken at {}", duration(wish)),
                None => "the policy did not ask to be woken".to_owned(),
            }
        } else if at_ms < self.now_ms {
            format!("it is {} already", duration(self.now_ms))
        } else if at_ms >= timeout_ms && step.event.by.is_some() {
            format!("the request expires at {}", duration(timeout_ms))
        } else {
            return (at_ms, None);
        };
        (at_ms, Some(problem))
    }

    /// Asks the policy twice, for it has to give the same answer, and keeps the event if it counts.
    fn judge(&mut self, policy: &ActionPolicy, event: Event) -> Outcome {
        let editable = self.editable();
        let Some(request) = &mut self.request else { return Outcome::Refused(Vec::new()) };
        let mut answers = policy.judge_at_cost(request, &event);
        let mut again = policy.judge_at_cost(request, &event);
        let (Some((verdict, cost)), Some((second, other_cost))) = (answers.pop(), again.pop()) else {
            return Outcome::Refused(Vec::new());
        };
        self.judged.push((request.clone(), event.clone()));
        if verdict != second || cost.fuel != other_cost.fuel {
            let what = "it answered the same question in two ways";
            return Outcome::Failed(malformed(policy, what));
        }
        match verdict {
            Verdict::Failed(failure) => Outcome::Failed(failure),
            Verdict::Refused(reasons) => Outcome::Refused(reasons),
            Verdict::Ruled(ruling) => {
                let counts = event.by.is_none() || ruling.grants || self.scenario.setting.granted_elsewhere;
                if !counts {
                    return Outcome::Silent(ruling);
                }
                if let Err(refusal) = request.check_edits(&event.act, &editable, &policy.entry().redact) {
                    return Outcome::Refused(reasons(&refusal));
                }
                request.history.push(event);
                self.ruling = Some(ruling.clone());
                Outcome::Counted(ruling)
            }
        }
    }

    /// The parameters that may be edited, by this policy and by others.
    fn editable(&self) -> BTreeSet<String> {
        let own = self.ruling.iter().flat_map(|ruling| &ruling.editable);
        own.chain(&self.scenario.setting.editable_elsewhere).cloned().collect()
    }

    /// Records the step. Returns whether all was as expected.
    fn came_to(&mut self, event: &str, outcome: &Outcome, found: Vec<Mismatch>) -> bool {
        let outcome = outcome.line();
        self.steps.push(PlayedStep { at_ms: self.now_ms, event: event.to_owned(), outcome });
        let as_expected = found.is_empty();
        self.mismatches.extend(found);
        as_expected
    }

    fn differs(&mut self, line: u64, what: &'static str, expected: &str, seen: Vec<String>) {
        self.differs_at(line, "the configuration is checked".to_owned(), what, expected, seen);
    }

    fn differs_at(
        &mut self,
        line: u64,
        event: String,
        what: &'static str,
        expected: &str,
        seen: Vec<String>,
    ) {
        self.mismatches.push(Mismatch { line, event, what, expected: vec![expected.to_owned()], seen });
    }
}

/// A refusal of the gateway's own, as a policy would give it.
fn reasons(refusal: &Refusal) -> Vec<Reason> {
    match refusal.reasons() {
        [] => vec![Reason { code: refusal.code().to_owned(), message: refusal.to_string(), path: None }],
        reasons => reasons.to_vec(),
    }
}

fn malformed(policy: &ActionPolicy, detail: &str) -> PolicyFailure {
    let name = words::names(policy.entry().policies.iter().map(|used| &used.name));
    PolicyFailure { policy: name, kind: FailureKind::Malformed, detail: detail.to_owned() }
}
