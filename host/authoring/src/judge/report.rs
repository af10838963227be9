//! Formats a simulation: as lines for people, or as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::moves::Moves;
use super::{Refused, Step};
use crate::event::duration;
use crate::shown::plain;
use crate::synthetic::SUBMITTED_AT;
use crate::table::{cell, columns};
use crate::{Answer, words};
use countersign_core::lifecycle::{
    Escalation, Open, Reason, Request, Requirement, Ruling, Standing, State, Timestamp, Verdict,
};
use countersign_policy::ActionPolicy;

pub(super) struct Report<'a> {
    pub(super) action: &'a str,
    pub(super) policy: &'a ActionPolicy,
    /// When the request was made.
    pub(super) began: Timestamp,
    pub(super) steps: &'a [Step],
    pub(super) request: Option<&'a Request>,
    pub(super) moves: Moves,
    /// User groups of Slack whose members are not known.
    pub(super) unknown: BTreeSet<String>,
    /// What whoever wrote the action may not want.
    pub(super) warnings: Vec<String>,
}

impl Report<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = self.outcome();
        if !self.warnings.is_empty() {
            text.push('\n');
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }

    /// What happened, and how the request stands.
    fn outcome(&self) -> String {
        let mut text = String::new();
        let entry = self.policy.entry();
        let _ = write!(text, "{}", plain(self.action));
        if entry.action != self.action {
            let _ = write!(text, ", an unknown action: judged by hand");
        }
        let _ = writeln!(text, "\npolicy hash {}", self.policy.hash());
        if self.began != SUBMITTED_AT {
            let _ = writeln!(text, "asked at {}", self.began);
        }
        text.push('\n');
        for step in self.steps {
            text.push_str(&step_lines(step, self.began));
        }
        let Some(request) = self.request else {
            text.push_str("\nnow: there is no request\n");
            return text;
        };
        let _ = write!(text, "\nnow: {}", request.status());
        match &request.state {
            State::Open(open) => text.push_str(&self.open(request, open)),
            State::Denied(decided) => {
                let _ = writeln!(text, "{}", because(decided.reason.as_deref()));
            }
            State::Approved { .. } | State::Expired { .. } | State::Cancelled { .. } => text.push('\n'),
        }
        text
    }

    /// What is missing, and who could move it on.
    fn open(&self, request: &Request, open: &Open) -> String {
        let since = |at: Timestamp| duration(at.since(self.began));
        let mut text = format!("; expires at {}", since(request.submission.expires_at));
        if let Escalation::At(at) = open.escalation {
            let _ = write!(text, ", escalates at {}", since(at));
        }
        if let Some(at) = open.wake_at {
            let _ = write!(text, ", a policy looks again at {}", since(at));
        }
        text.push_str("\n\nmissing\n");
        let missing = |wanted: &Requirement| vec![cell(words::requirement(wanted))];
        text.push_str(&columns(2, &open.requirements.iter().map(missing).collect::<Vec<_>>()));
        if !open.editable.is_empty() {
            let _ = writeln!(text, "\nan approver may edit {}", words::names(&open.editable));
        }
        text.push_str("\nwho could move it on\n");
        if self.moves.moves.iter().all(|action| action.leads_to.is_err()) {
            text.push_str("  nobody that the policy set knows of\n");
        }
        let rows = self.moves.moves.iter().map(|action| {
            let outcome = match &action.leads_to {
                Ok(status) => format!("→ {status}"),
                Err(refusal) => format!("would be refused: {refusal}"),
            };
            vec![cell(&action.who), cell(&action.what), cell(outcome)]
        });
        text.push_str(&columns(2, &rows.collect::<Vec<_>>()));
        if !self.moves.deniers.is_empty() {
            let _ = writeln!(text, "\nwho could deny it: {}", words::names(&self.moves.deniers));
        }
        if self.moves.untried > 0 {
            let _ = writeln!(text, "\n{} more were not tried", words::count(self.moves.untried, "member"));
        }
        if !self.unknown.is_empty() {
            let groups = words::names(&self.unknown);
            let _ = writeln!(text, "\nwho is in {groups} only Slack knows: say it with `--usergroup`");
        }
        text
    }

    pub(super) fn json(&self) -> Result<Answer> {
        let open = self.request.and_then(|request| match &request.state {
            State::Open(open) => Some((request, open)),
            _ => None,
        });
        let moves = self.moves.moves.iter().map(|action| MoveView {
            who: &action.who,
            act: &action.what,
            status: action.leads_to.as_ref().ok().map(|status| status.as_str()),
            refusal: action.leads_to.as_ref().err().map(Refused::of),
        });
        let view = View {
            action: self.action,
            policy_hash: self.policy.hash().to_string(),
            status: self.request.map(|request| request.status().as_str()),
            steps: self.steps.iter().map(|step| StepView::of(step, self.began)).collect(),
            missing: open.map_or(&[], |(_, open)| open.requirements.as_slice()),
            editable: open.map(|(_, open)| &open.editable),
            expires_at_ms: open.map(|(request, _)| request.submission.expires_at.since(self.began)),
            escalates_at_ms: open.and_then(|(_, open)| match open.escalation {
                Escalation::At(at) => Some(at.since(self.began)),
                Escalation::Never | Escalation::Done(_) => None,
            }),
            wakes_at_ms: open.and_then(|(_, open)| open.wake_at).map(|at| at.since(self.began)),
            could_move: moves.collect(),
            could_deny: &self.moves.deniers,
            unknown_usergroups: &self.unknown,
            warnings: &self.warnings,
        };
        Answer::json(&view, true)
    }
}

/// One event, what each policy says of it, and what comes of it.
fn step_lines(step: &Step, began: Timestamp) -> String {
    let mut text = format!("{:<6}  {}\n", duration(step.at_ms), plain(&step.event));
    let row = |(policy, verdict): &(String, Verdict)| vec![cell(policy), verdict_lines(verdict, began)];
    text.push_str(&columns(10, &step.verdicts.iter().map(row).collect::<Vec<_>>()));
    let _ = match &step.outcome {
        Ok(status) => writeln!(text, "        → {status}"),
        // The code of a policy's refusal says no more than that.
        Err(Refused { code, message }) if code == "refused" => {
            writeln!(text, "        → refused: {}", plain(message))
        }
        Err(Refused { code, message }) => writeln!(text, "        → refused ({code}): {}", plain(message)),
    };
    text
}

fn verdict_lines(verdict: &Verdict, began: Timestamp) -> Vec<String> {
    match verdict {
        Verdict::Failed(failure) => vec![format!("fails ({}): {}", failure.kind, failure.detail)],
        Verdict::Refused(reasons) => {
            reasons.iter().map(|reason| format!("refuses: {}", words::reason(reason))).collect()
        }
        Verdict::Ruled(Ruling { grants, standing, editable, wake_at }) => {
            let mut lines = words::standing(standing, words::asked_of);
            if *grants {
                lines.insert(0, "grants it".to_owned());
            }
            if !editable.is_empty() {
                lines.push(format!("editable: {}", words::names(editable)));
            }
            lines.extend(wake_at.map(|at| format!("looks again at {}", duration(at.since(began)))));
            lines
        }
    }
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(", because: {}", plain(reason))).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    action: &'a str,
    policy_hash: String,
    /// Absent if the request was not made.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(rename = "story")]
    steps: Vec<StepView<'a>>,
    missing: &'a [Requirement],
    #[serde(skip_serializing_if = "Option::is_none")]
    editable: Option<&'a BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    escalates_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wakes_at_ms: Option<u64>,
    could_move: Vec<MoveView<'a>>,
    could_deny: &'a [String],
    unknown_usergroups: &'a BTreeSet<String>,
    warnings: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepView<'a> {
    at_ms: u64,
    event: &'a str,
    policies: Vec<VerdictView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a Refused>,
}

/// What a policy said: one of `ruling`, `refuses` and `fails`.
#[derive(Serialize)]
struct VerdictView<'a> {
    policy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ruling: Option<RulingView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refuses: Option<&'a [Reason]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fails: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RulingView<'a> {
    grants: bool,
    standing: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    requirements: Option<&'a [Requirement]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a Reason>,
    editable: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    wakes_at_ms: Option<u64>,
}

#[derive(Serialize)]
struct MoveView<'a> {
    who: &'a str,
    act: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Refused>,
}

impl<'a> StepView<'a> {
    fn of(step: &'a Step, began: Timestamp) -> StepView<'a> {
        StepView {
            at_ms: step.at_ms,
            event: &step.event,
            policies: step.verdicts.iter().map(|verdict| VerdictView::of(verdict, began)).collect(),
            status: step.outcome.as_ref().ok().map(|status| status.as_str()),
            refusal: step.outcome.as_ref().err(),
        }
    }
}

impl<'a> VerdictView<'a> {
    fn of((policy, verdict): &'a (String, Verdict), began: Timestamp) -> VerdictView<'a> {
        let mut view = VerdictView { policy, ruling: None, refuses: None, fails: None };
        match verdict {
            Verdict::Failed(failure) => view.fails = Some(format!("{}: {}", failure.kind, failure.detail)),
            Verdict::Refused(reasons) => view.refuses = Some(reasons),
            Verdict::Ruled(Ruling { grants, standing, editable, wake_at }) => {
                let (name, requirements, reason) = match standing {
                    Standing::Satisfied => ("satisfied", None, None),
                    Standing::Waiting(requirements) => ("waiting", Some(requirements.as_slice()), None),
                    Standing::Denied(reason) => ("denied", None, Some(reason)),
                };
                view.ruling = Some(RulingView {
                    grants: *grants,
                    standing: name,
                    requirements,
                    reason,
                    editable,
                    wakes_at_ms: wake_at.map(|at| at.since(began)),
                });
            }
        }
        view
    }
}
