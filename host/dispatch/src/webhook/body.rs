//! What a webhook says: `{type, timestamp, data}`. The same each time for a milestone, though the request has moved on.

use countersign_core::lifecycle::{Milestone, Request, State, Submission, Timestamp, payload_hash};
use serde_json::{Map, Value, json};

/// The body of a message. Values of parameters are in it only if they are wanted, and then only those that people are shown.
pub(super) fn of(request: &Request, milestone: Milestone, at: Timestamp, shows_parameters: bool) -> String {
    let submission = &*request.submission;
    let is_new = milestone < Milestone::Decided;
    let mut data = base(request, submission);
    // Edits change what is agreed to, so until the end it is what was asked for that counts.
    let hash = if is_new { payload_hash(&submission.digests) } else { request.payload_hash() };
    data.insert("payloadHash".to_owned(), json!(hash));
    if shows_parameters {
        let params = if is_new { submission.params.clone() } else { request.params() };
        data.insert("params".to_owned(), Value::Object(params));
        data.insert("redacted".to_owned(), json!(submission.redacted));
    }
    if !is_new {
        data.extend(decision(request));
    }
    if let Some(consumed) = request.consumption().filter(|_| milestone >= Milestone::Consumed) {
        data.insert("consumedAt".to_owned(), json!(consumed.at));
        data.insert("consumedBy".to_owned(), json!(consumed.by));
        if let Some(report) = consumed.report.as_ref().filter(|_| milestone == Milestone::Outcome) {
            data.insert("outcome".to_owned(), json!(report.result.as_str()));
            data.insert("outcomeAt".to_owned(), json!(report.at));
            data.insert("outcomeDetail".to_owned(), json!(report.detail));
        }
    }
    let kind = format!("request.{}", milestone.as_str());
    json!({ "type": kind, "timestamp": at, "data": data }).to_string()
}

fn base(request: &Request, submission: &Submission) -> Map<String, Value> {
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| drop(data.insert(name.to_owned(), value));
    put("requestId", json!(request.id));
    put("action", json!(submission.action));
    put("caller", json!(submission.caller));
    put("requester", json!(submission.requester));
    put("requesterId", json!(submission.requester_id()));
    put("origin", json!(submission.origin));
    put("lineage", json!(submission.lineage));
    put("depth", json!(submission.depth));
    put("policyHash", json!(submission.policy_hash));
    put("createdAt", json!(submission.submitted_at));
    put("expiresAt", json!(submission.expires_at));
    data
}

fn decision(request: &Request) -> Map<String, Value> {
    let by = match &request.state {
        State::Approved { decided, .. } | State::Denied(decided) => decided.by.clone(),
        State::Expired { by, .. } | State::Cancelled { by, .. } => by.clone(),
        State::Open(_) => None,
    };
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| drop(data.insert(name.to_owned(), value));
    put("status", json!(request.status()));
    put("decidedAt", json!(request.decided_at()));
    put("decidedBy", json!(by));
    put("approvers", json!(request.approvers()));
    put("reason", json!(request.reason()));
    put("supersededBy", json!(request.superseded_by()));
    data
}
