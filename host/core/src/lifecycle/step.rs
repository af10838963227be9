//! The steps that move a request on: each returns the new state with everything that must be stored with it, or a
//! refusal. An event that policies judge comes here as a [`super::Proposal`].

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::audit_event::AuditEvent;
use super::effect::{AuditEntry, Count, Effect};
use super::event::{
    Act, Event, FailureKind, PolicyFailure, Reason, Requirement, RequirementKind, Ruling, Standing, Verdict,
};
use super::id::RequestId;
use super::refusal::Refusal;
use super::request::{Decided, Escalation, Needs, Open, Request, State, Status};
use super::submission::Submission;
use super::timestamp::Timestamp;
use crate::record::Redaction;

/// How many events a request's history can hold; the escalation still fits after that.
pub const MAX_HISTORY: usize = 512;

/// The least time between an event and the wake-up that a policy asks for at it, in milliseconds.
const LEAST_WAKE_MS: u64 = 1000;

/// Upper bounds of the buckets of `decision_latency_seconds`, in milliseconds.
pub const LATENCY_BUCKETS_MS: [u64; 12] = [
    100, 1_000, 5_000, 15_000, 30_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 14_400_000, 86_400_000,
];

/// A request's next version, and everything that must be stored with it in one atomic write.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The request.
    pub request: Request,
    /// For the audit log.
    pub audit: Vec<AuditEntry>,
    /// For the outbox.
    pub effects: Vec<Effect>,
    /// For the metrics.
    pub counts: Vec<Count>,
}

/// The request as the policies see it when they judge `submitted`: it is not stored, and nothing has happened to it.
#[must_use]
pub fn draft(id: RequestId, submission: Submission, memos: Vec<String>) -> Request {
    let escalation = submission.escalate_at.map_or(Escalation::Never, Escalation::At);
    Request {
        id,
        version: 0,
        submission: Arc::new(submission),
        memos: memos.into(),
        history: Vec::new(),
        needs: Needs::default(),
        superseded: Vec::new(),
        trace: None,
        state: State::Open(Open { escalation, ..Open::default() }),
    }
}

/// The step that a proposed event leads to, once every policy has judged it.
pub(super) fn judged(
    mut request: Request,
    event: Event,
    verdicts: &[Verdict],
    redaction: &Redaction,
) -> Result<Step, Refusal> {
    let State::Open(open) = &request.state else { return Err(Refusal::Ended(request.status())) };
    let rulings = combine(&event, verdicts)?;
    let hides = |key: &str| request.hides(key, redaction);
    request.check_edits(&event.act, &open.editable, redaction)?;
    let acted = event.by.is_some() || request.history.iter().any(|earlier| earlier.by.is_some());
    let state = next_state(&request, open, &event, &rulings, acted, hides)?;

    let act = event.act.clone();
    let changes_view = !matches!(act, Act::Tick) || progress(&state) != progress(&request.state);
    update_needs(&mut request.needs, &rulings);
    let mut effects = Vec::new();
    let mut counts = act_counts(&request.submission.rules, &act);
    let by = event.by.as_ref().map(|actor| actor.id.clone());
    let groups_as_of = event.by.as_ref().and_then(|actor| actor.groups_as_of);
    let (at, seq) = (event.at, event.seq);
    request.history.push(event);
    request.version += 1;
    let before = std::mem::replace(&mut request.state, state);

    let mut detail = act_detail(&request, &act);
    let replacements = request.replacements();
    let replaces = replacements.last().filter(|replacement| replacement.seq == seq);
    if let Some(replacement) = replaces {
        let replaced: Vec<&str> = replacement.replaced.iter().map(|actor| actor.id.as_str()).collect();
        detail.insert("approvalsReplaced".into(), json!(replaced));
        effects.push(Effect::NotifyReplaced);
    }
    if let Some(as_of) = groups_as_of {
        detail.insert("groupsAsOf".into(), as_of.to_string().into());
    }
    let mut audit = vec![entry(&request, at, act_event(&act), by.clone(), detail)];
    if act == Act::Escalated && !request.status().is_terminal() {
        effects.push(Effect::NotifyEscalation);
        counts.push(Count::one("escalations_total", &[("action", &request.submission.rules)]));
    }
    if changes_view {
        effects.push(Effect::ShowRequest);
    }
    if request.status().is_terminal() {
        audit.extend(decision(&request, at, by));
        counts.extend(outcome_counts(&request, at));
        close_notices(&before, &request, &mut effects);
    }
    Ok(Step { request, audit, effects, counts })
}

/// The combination rule: an act counts only if no policy refuses it and at least one grants it.
fn combine<'a>(event: &Event, verdicts: &'a [Verdict]) -> Result<Vec<&'a Ruling>, Refusal> {
    let mut failures: Vec<PolicyFailure> = Vec::new();
    let mut objections = Vec::new();
    let mut rulings = Vec::new();
    for verdict in verdicts {
        match verdict {
            Verdict::Failed(failure) => failures.push(failure.clone()),
            Verdict::Refused(reasons) => objections.push(reasons),
            Verdict::Ruled(ruling) => rulings.push(ruling),
        }
    }
    // INVARIANT: no code path approves on an error. No verdict at all is one, too.
    if verdicts.is_empty() {
        failures.push(malformed("no policy judged the event"));
    }
    if !failures.is_empty() {
        return Err(Refusal::PolicyFailed(failures));
    }
    let reasons = || objections.iter().copied().flatten().cloned().collect::<Vec<_>>();
    match (&event.by, &event.act) {
        (Some(_), _) if !rulings.iter().any(|ruling| ruling.grants) => {
            return Err(Refusal::Unauthorized(reasons()));
        }
        (Some(_), _) | (None, Act::Submitted) if !objections.is_empty() => {
            return Err(Refusal::Objected(reasons()));
        }
        (None, _) if !objections.is_empty() => {
            return Err(Refusal::PolicyFailed(vec![malformed("it refused an event that nobody made")]));
        }
        _ => {}
    }
    Ok(rulings)
}

impl Request {
    /// What the host holds the edits of an act to, whatever the policies say of them. `editable` are the parameters that
    /// policies let people edit.
    ///
    /// # Errors
    /// If one is not among `editable` or hidden, or does not fit the schema.
    pub fn check_edits(
        &self,
        act: &Act,
        editable: &BTreeSet<String>,
        redaction: &Redaction,
    ) -> Result<(), Refusal> {
        let Act::Approve { edits } = act else { return Ok(()) };
        // INVARIANT: edits never touch a key that no policy calls editable, or whose value is hidden.
        let is_editable = |key: &str| editable.contains(key) && !self.hides(key, redaction);
        let locked = edits.iter().map(|edit| &edit.key).filter(|key| !is_editable(key));
        let locked: Vec<String> = locked.cloned().collect();
        if !locked.is_empty() {
            return Err(Refusal::NotEditable(locked));
        }
        // INVARIANT: what is edited fits the action's schema as a whole.
        let violations = edits.iter().flat_map(|edit| {
            edit.violations.iter().map(|violation| Reason {
                code: "schema_validation".to_owned(),
                message: violation.clone(),
                path: Some(edit.key.clone()),
            })
        });
        let violations: Vec<Reason> = violations.collect();
        if violations.is_empty() { Ok(()) } else { Err(Refusal::Objected(violations)) }
    }

    /// Whether people may not see the value of a parameter.
    fn hides(&self, key: &str, redaction: &Redaction) -> bool {
        self.submission.redacted.contains(key) || !redaction.shows(key)
    }
}

fn next_state(
    request: &Request,
    open: &Open,
    event: &Event,
    rulings: &[&Ruling],
    acted: bool,
    hides: impl Fn(&str) -> bool,
) -> Result<State, Refusal> {
    let by = event.by.as_ref().map(|actor| actor.id.clone());
    let denial = rulings.iter().find_map(|ruling| match &ruling.standing {
        Standing::Denied(reason) => Some(reason.message.clone()),
        Standing::Satisfied | Standing::Waiting(_) => None,
    });
    if let Some(message) = denial {
        let reason = match &event.act {
            Act::Deny { reason: Some(said) } => said.clone(),
            _ => message,
        };
        return Ok(State::Denied(Decided { at: event.at, by, reason: Some(reason) }));
    }
    if rulings.iter().all(|ruling| ruling.standing == Standing::Satisfied) {
        if matches!(event.act, Act::Deny { .. } | Act::Withdraw) {
            return Err(Refusal::PolicyFailed(vec![malformed(
                "every policy is satisfied by an act against the request",
            )]));
        }
        if !acted && !request.submission.unattended {
            return Err(Refusal::PolicyFailed(vec![malformed(
                "every policy is satisfied before anybody acted, and the action is not `unattended`",
            )]));
        }
        return Ok(State::Approved { decided: Decided { at: event.at, by, reason: None }, consumed: None });
    }
    let requirements: Vec<Requirement> = rulings
        .iter()
        .flat_map(|ruling| match &ruling.standing {
            Standing::Waiting(requirements) => requirements.as_slice(),
            Standing::Satisfied | Standing::Denied(_) => &[],
        })
        .cloned()
        .collect();
    // A hidden value cannot be edited: its new value would have to be stored and shown.
    let editable: BTreeSet<String> =
        rulings.iter().flat_map(|ruling| &ruling.editable).filter(|key| !hides(key)).cloned().collect();
    let escalation = if event.act == Act::Escalated { Escalation::Done(event.at) } else { open.escalation };
    let has_room = request.history.len() + 1 < MAX_HISTORY;
    let wake_at = rulings
        .iter()
        .filter_map(|ruling| ruling.wake_at)
        .min()
        .map(|at| at.max(event.at.plus(LEAST_WAKE_MS)))
        .filter(|at| has_room && *at < request.submission.expires_at);
    let superseding = match event.act {
        Act::Submitted => request.submission.contests().next().is_some(),
        _ => open.superseding,
    };
    Ok(State::Open(Open { requirements, editable, escalation, wake_at, superseding }))
}

impl Request {
    /// The time to decide is over, as noticed at `at`.
    ///
    /// # Errors
    /// If the request has ended already, or is not due to expire yet.
    pub fn expire(&self, at: Timestamp) -> Result<Step, Refusal> {
        if self.status().is_terminal() {
            return Err(Refusal::Ended(self.status()));
        }
        if at < self.submission.expires_at {
            return Err(Refusal::NotDue);
        }
        Ok(self.ended(at, |at| State::Expired { at, by: None, reason: None }))
    }

    /// The caller takes the request back, and says why.
    ///
    /// # Errors
    /// If the request has ended or expired already.
    pub fn cancel(&self, at: Timestamp, reason: Option<String>) -> Result<Step, Refusal> {
        if self.status().is_terminal() {
            return Err(Refusal::Ended(self.status()));
        }
        if at >= self.submission.expires_at {
            return Err(Refusal::TooLate);
        }
        Ok(self.ended(at, |at| State::Cancelled { at, reason, successor: None, by: None }))
    }

    /// Ends the request without an event in its history.
    pub(super) fn ended(&self, at: Timestamp, state: impl FnOnce(Timestamp) -> State) -> Step {
        let at = self.time_of_next(at);
        let request = Request { version: self.version + 1, state: state(at), ..self.clone() };
        let audit = decision(&request, at, request.ended_by_admin().map(str::to_owned)).into_iter().collect();
        let counts = outcome_counts(&request, at);
        let mut effects = vec![Effect::ShowRequest];
        close_notices(&self.state, &request, &mut effects);
        Step { request, audit, effects, counts }
    }
}

impl Request {
    /// The entry of the audit log that says how the request ended; `None` while it is open. It is the same whatever is done
    /// with its approval.
    #[must_use]
    pub fn decision_entry(&self) -> Option<AuditEntry> {
        let at = self.decided_at()?;
        let by = match &self.state {
            State::Approved { decided, .. } | State::Denied(decided) => decided.by.clone(),
            State::Open(_) | State::Expired { .. } | State::Cancelled { .. } => {
                self.ended_by_admin().map(str::to_owned)
            }
        };
        decision(self, at, by)
    }
}

/// The notices of a request that has ended must say so, if it had any in the state before.
fn close_notices(before: &State, request: &Request, effects: &mut Vec<Effect>) {
    let escalated = matches!(before, State::Open(open) if matches!(open.escalation, Escalation::Done(_)));
    if escalated {
        effects.push(Effect::NotifyEscalation);
    }
    if !request.replacements().is_empty() && !effects.contains(&Effect::NotifyReplaced) {
        effects.push(Effect::NotifyReplaced);
    }
}

/// What of a state people see, for telling whether their message is stale.
fn progress(state: &State) -> Option<&[Requirement]> {
    match state {
        State::Open(open) => Some(&open.requirements),
        _ => None,
    }
}

fn update_needs(needs: &mut Needs, rulings: &[&Ruling]) {
    needs.approvals.resize(rulings.len(), 0);
    for (need, ruling) in needs.approvals.iter_mut().zip(rulings) {
        let Standing::Waiting(requirements) = &ruling.standing else { continue };
        let approvals =
            requirements.iter().filter(|requirement| requirement.kind == RequirementKind::Approval);
        let total = approvals.map(|requirement| requirement.need).fold(0, u32::saturating_add);
        if total > 0 {
            *need = total;
        }
        for requirement in requirements.iter().filter(|r| r.kind == RequirementKind::Acknowledgement) {
            if !needs.personas.contains(&requirement.label) {
                needs.personas.push(requirement.label.clone());
            }
        }
    }
}

fn malformed(detail: &str) -> PolicyFailure {
    PolicyFailure { policy: "*".into(), kind: FailureKind::Malformed, detail: detail.into() }
}

fn act_event(act: &Act) -> AuditEvent {
    match act {
        Act::Submitted => AuditEvent::Created,
        Act::Acknowledge { .. } => AuditEvent::PersonaAcknowledged,
        Act::Approve { .. } => AuditEvent::ApprovalRecorded,
        Act::Deny { .. } => AuditEvent::DenialRecorded,
        Act::Withdraw => AuditEvent::Withdrawn,
        Act::Escalated => AuditEvent::Escalated,
        Act::Tick => AuditEvent::Tick,
    }
}

fn act_detail(request: &Request, act: &Act) -> Map<String, Value> {
    let mut detail = Map::new();
    match act {
        Act::Submitted => {
            detail.insert("requester".into(), json!(request.submission.requester));
            if let Some(identity) = &request.submission.requester_is {
                detail.insert("requesterIs".into(), json!(identity));
            }
            if let Some(caller) = &request.submission.caller {
                detail.insert("caller".into(), json!(caller));
            }
            if !request.submission.owners.is_empty() {
                detail.insert("owners".into(), json!(request.submission.owners));
            }
            detail.insert("lineageId".into(), json!(request.submission.lineage));
            if let Some(party) = &request.submission.rerequested_by {
                detail.insert("rerequestedBy".into(), json!(party));
                if let Some(identity) = &request.submission.rerequester_is {
                    detail.insert("rerequesterIs".into(), json!(identity));
                }
            }
        }
        Act::Acknowledge { persona } => {
            detail.insert("persona".into(), persona.as_str().into());
        }
        Act::Approve { edits } => {
            let Submission { redacted, consent, .. } = &*request.submission;
            if !edits.is_empty() {
                // `before` is left out of a parameter that was not there, and `after` of one that goes: `null` is a value.
                detail.insert("edits".into(), json!(edits));
            }
            if !redacted.is_empty() {
                detail.insert("unseen".into(), json!(redacted));
            }
            if !consent.is_whole() {
                detail.insert("consent".into(), json!(consent));
            }
        }
        Act::Deny { reason: Some(reason) } => {
            detail.insert("reason".into(), reason.as_str().into());
        }
        Act::Deny { .. } | Act::Withdraw | Act::Escalated | Act::Tick => {}
    }
    detail
}

fn act_counts(rules: &str, act: &Act) -> Vec<Count> {
    let action = ("action", rules);
    match act {
        Act::Submitted => vec![Count::one("approval_requests_total", &[action])],
        Act::Acknowledge { persona } => {
            vec![Count::one("persona_ack_total", &[action, ("persona", persona)])]
        }
        Act::Approve { edits } if !edits.is_empty() => {
            vec![Count::one("param_overrides_total", &[action, ("outcome", "applied")])]
        }
        Act::Approve { .. } | Act::Deny { .. } | Act::Withdraw | Act::Escalated | Act::Tick => Vec::new(),
    }
}

fn outcome_counts(request: &Request, at: Timestamp) -> Vec<Count> {
    let action = ("action", request.submission.rules.as_str());
    let outcome = ("outcome", request.status().as_str());
    let took = at.since(request.submission.submitted_at);
    let bucket =
        LATENCY_BUCKETS_MS.iter().find(|bound| took <= **bound).map_or("+Inf".to_owned(), u64::to_string);
    let mut counts = vec![
        Count::one("decision_latency_bucket_ms", &[action, outcome, ("le", &bucket)]),
        Count::of("decision_latency_sum_ms", &[action, outcome], took),
    ];
    let total = match request.status() {
        Status::Approved => "approvals_total",
        Status::Denied => "denies_total",
        Status::Expired => "expired_total",
        Status::Cancelled | Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => {
            return counts;
        }
    };
    counts.push(Count::one(total, &[action]));
    counts
}

fn decision(request: &Request, at: Timestamp, by: Option<String>) -> Option<AuditEntry> {
    let status = request.status();
    let event = match status {
        Status::Approved => AuditEvent::Approved,
        Status::Denied => AuditEvent::Denied,
        Status::Expired => AuditEvent::Expired,
        Status::Cancelled => AuditEvent::Cancelled,
        Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => return None,
    };
    let mut detail = Map::new();
    detail.insert("decision".into(), status.as_str().into());
    detail.insert("approvers".into(), json!(request.approvers()));
    if let Some(reason) = request.reason() {
        detail.insert("reason".into(), reason.into());
    }
    if let State::Cancelled { successor: Some(successor), .. } = &request.state {
        detail.insert("successor".into(), json!(successor));
    }
    Some(entry(request, at, event, by, detail))
}

pub(super) fn entry(
    request: &Request,
    at: Timestamp,
    event: AuditEvent,
    actor: Option<String>,
    detail: Map<String, Value>,
) -> AuditEntry {
    AuditEntry {
        at,
        event: event.as_str().to_owned(),
        action: request.submission.action.clone(),
        request: Some(request.id),
        status: Some(request.status()),
        actor,
        policy_hash: Some(request.submission.policy_hash),
        payload_hash: Some(request.payload_hash()),
        detail,
    }
}
