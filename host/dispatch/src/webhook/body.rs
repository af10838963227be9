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
        data.insert("consumedAt".to_owned(), time(consumed.at));
        data.insert("consumedBy".to_owned(), json!(consumed.by));
        if let Some(report) = consumed.report.as_ref().filter(|_| milestone == Milestone::Outcome) {
            data.insert("outcome".to_owned(), json!(report.result.as_str()));
            data.insert("outcomeAt".to_owned(), time(report.at));
            data.insert("outcomeDetail".to_owned(), json!(report.detail));
        }
    }
    let kind = format!("request.{}", milestone.as_str());
    json!({ "type": kind, "timestamp": time(at), "data": data }).to_string()
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
    put("createdAt", time(submission.submitted_at));
    put("expiresAt", time(submission.expires_at));
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
    put("decidedAt", request.decided_at().map_or(Value::Null, time));
    put("decidedBy", json!(by));
    put("approvers", json!(request.approvers()));
    put("reason", json!(request.reason()));
    put("supersededBy", json!(request.superseded_by()));
    data
}

/// In RFC 3339. As it is stored, a time is a number.
fn time(at: Timestamp) -> Value {
    at.to_string().into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countersign_core::lifecycle::{RunReport, RunResult};
    use countersign_store::fixtures::{self, at};

    use super::*;

    /// All that is said of each milestone, in the form that docs/WEBHOOKS.md shows.
    #[test]
    fn each_field_has_its_form() {
        let mut open = fixtures::request(1);
        Arc::make_mut(&mut open.submission).caller = Some("nightly".to_owned());
        let approved = fixtures::next(&open, at(5), |it| it.state = fixtures::approved(at(5)));
        let mut used = fixtures::consumed(&approved, at(6));
        let State::Approved { consumed: Some(consumed), .. } = &mut used.state else {
            panic!("it was consumed");
        };
        consumed.by = Some("nightly".to_owned());
        let report =
            RunReport { at: at(7), result: RunResult::Failed, detail: Some("exit code 1".to_owned()) };
        consumed.report = Some(report);

        let mut data = json!({
            "requestId": open.id.to_string(),
            "action": "deploy",
            "caller": "nightly",
            "requester": {"id": "ci", "source": "github", "display": "CI"},
            "requesterId": "ci",
            "origin": {"repo": "acme/shop", "pr": 12},
            "lineage": open.id.to_string(),
            "depth": 0,
            "policyHash": open.submission.policy_hash.to_string(),
            "payloadHash": open.payload_hash().to_string(),
            "createdAt": "2026-03-01T12:00:00.000Z",
            "expiresAt": "2026-03-01T12:10:00.000Z",
            "params": {"ref": "v1", "replicas": 3},
            "redacted": [],
        });
        let decided = json!({
            "status": "approved", "decidedAt": "2026-03-01T12:00:00.005Z", "decidedBy": "U1", "approvers": ["U1"],
            "reason": null, "supersededBy": null,
        });
        let consumed = json!({"consumedAt": "2026-03-01T12:00:00.006Z", "consumedBy": "nightly"});
        let outcome = json!({
            "outcome": "failed", "outcomeAt": "2026-03-01T12:00:00.007Z", "outcomeDetail": "exit code 1",
        });
        for (request, milestone, millis, more) in [
            (&open, Milestone::Created, 0, json!({})),
            (&open, Milestone::Escalated, 3, json!({})),
            (&approved, Milestone::Decided, 5, decided),
            (&used, Milestone::Consumed, 6, consumed),
            (&used, Milestone::Outcome, 7, outcome),
        ] {
            data.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            let said: Value = serde_json::from_str(&of(request, milestone, at(millis), true)).unwrap();
            let expected = json!({
                "type": format!("request.{}", milestone.as_str()),
                "timestamp": format!("2026-03-01T12:00:00.00{millis}Z"),
                "data": data,
            });
            assert_eq!(said, expected);
        }
    }
}
