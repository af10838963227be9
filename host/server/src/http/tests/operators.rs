//! Health, metrics and the OpenAPI document.

use insta::assert_snapshot;

use super::*;

#[tokio::test]
async fn health_and_readiness() {
    let server = TestServer::new().await;
    assert_eq!(server.get("/healthz").await.text, "ok");
    assert_snapshot!(server.get("/readyz").await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "backend": "sqlite",
      "policy": "[policy]",
      "slack": {
        "configured": false
      },
      "status": "ready",
      "store": "ok"
    }
    "#);
    server.app.shutdown.cancel();
    assert_snapshot!(server.get("/readyz").await.shown(), @r#"
    503 Service Unavailable
    content-type: application/json
    {
      "backend": "sqlite",
      "policy": "[policy]",
      "slack": {
        "configured": false
      },
      "status": "shutting_down",
      "store": "ok"
    }
    "#);
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn metrics_of_a_decided_request() {
    let server = TestServer::new().await;
    let (id, _) = server.open("deploy").await;
    server.open("guarded").await;
    server.clock.advance(42_000);
    server.press("U1", "approve", &id).await;
    server.press("U2", "approve", &id).await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    // The time that policies take differs from run to run.
    let lines: Vec<&str> =
        answer.text.lines().filter(|line| !line.starts_with("policy_evaluation")).collect();
    assert_snapshot!(lines.join("\n"), @r#"
    # HELP access_reloads_total Attempts to reload the access file, by what set them off and outcome.
    # TYPE access_reloads_total counter
    access_reloads_total{outcome="failed",source="file"} 0
    access_reloads_total{outcome="failed",source="sighup"} 0
    access_reloads_total{outcome="held_back",source="file"} 0
    access_reloads_total{outcome="held_back",source="sighup"} 0
    access_reloads_total{outcome="ok",source="file"} 0
    access_reloads_total{outcome="ok",source="sighup"} 0
    access_reloads_total{outcome="unchanged",source="file"} 0
    access_reloads_total{outcome="unchanged",source="sighup"} 0
    # HELP approval_outcomes_total What came of consumed approvals, by outcome: succeeded or failed.
    # TYPE approval_outcomes_total counter
    # HELP approval_requests_total Requests created, re-requests included.
    # TYPE approval_requests_total counter
    approval_requests_total{action="deploy"} 1
    approval_requests_total{action="guarded"} 1
    # HELP approval_use_refusals_total Approvals that somebody tried to use otherwise than once, in time and as agreed.
    # TYPE approval_use_refusals_total counter
    # HELP approvals_consumed_total Approvals that were consumed.
    # TYPE approvals_consumed_total counter
    # HELP approvals_total Requests that were approved.
    # TYPE approvals_total counter
    approvals_total{action="deploy"} 1
    # HELP audit_file_failing 1 if a file outside of the store cannot be written.
    # TYPE audit_file_failing gauge
    audit_file_failing{file="checkpoint_file"} 0
    audit_file_failing{file="file"} 0
    # HELP audit_signed_entries Audit entries that the newest checkpoint covers.
    # TYPE audit_signed_entries gauge
    audit_signed_entries 0
    # HELP audit_signing_refused 1 if no checkpoint is signed because the audit log is not what was signed before.
    # TYPE audit_signing_refused gauge
    audit_signing_refused 0
    # HELP average_open_request_age_seconds Average age of the requests that have not ended.
    # TYPE average_open_request_age_seconds gauge
    average_open_request_age_seconds{action="guarded"} 42
    # HELP decision_latency_seconds Time from a request's creation to its end.
    # TYPE decision_latency_seconds histogram
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="0.1"} 0
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="1"} 0
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="5"} 0
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="15"} 0
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="30"} 0
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="60"} 1
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="300"} 1
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="900"} 1
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="1800"} 1
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="3600"} 1
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="14400"} 1
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="86400"} 1
    decision_latency_seconds_bucket{action="deploy",outcome="approved",le="+Inf"} 1
    decision_latency_seconds_sum{action="deploy",outcome="approved"} 42
    decision_latency_seconds_count{action="deploy",outcome="approved"} 1
    # HELP denies_total Requests that were denied.
    # TYPE denies_total counter
    # HELP escalations_total Escalations.
    # TYPE escalations_total counter
    # HELP expired_total Requests that nobody decided in time.
    # TYPE expired_total counter
    # HELP oldest_open_request_age_seconds Age of the oldest request that has not ended.
    # TYPE oldest_open_request_age_seconds gauge
    oldest_open_request_age_seconds{action="guarded"} 42
    # HELP open_requests_status Requests that have not ended, by status.
    # TYPE open_requests_status gauge
    open_requests_status{action="guarded",status="awaiting_personas"} 1
    # HELP outbox_depth Work that waits for delivery.
    # TYPE outbox_depth gauge
    outbox_depth 2
    # HELP outbox_oldest_age_seconds How long the oldest of it has waited.
    # TYPE outbox_oldest_age_seconds gauge
    outbox_oldest_age_seconds 42
    # HELP override_rejections_total Edits that were rejected, by reason.
    # TYPE override_rejections_total counter
    # HELP param_overrides_total Edits of parameters, by outcome: applied or rejected.
    # TYPE param_overrides_total counter
    # HELP pending_requests Requests that have not ended.
    # TYPE pending_requests gauge
    pending_requests{action="guarded"} 1
    # HELP persona_ack_total Acknowledgements of personas.
    # TYPE persona_ack_total counter
    # HELP persona_pending_requests Requests that wait for a persona.
    # TYPE persona_pending_requests gauge
    persona_pending_requests{action="guarded",persona="security"} 1
    # HELP policy_evaluation_seconds Time in the sandbox.
    # TYPE policy_evaluation_seconds histogram
    # HELP policy_failures_total Policies that gave no usable answer.
    # TYPE policy_failures_total counter
    policy_failures_total{kind="deadline",policy="override-guard"} 0
    policy_failures_total{kind="deadline",policy="persona-gate"} 0
    policy_failures_total{kind="deadline",policy="quorum"} 0
    policy_failures_total{kind="fuel",policy="override-guard"} 0
    policy_failures_total{kind="fuel",policy="persona-gate"} 0
    policy_failures_total{kind="fuel",policy="quorum"} 0
    policy_failures_total{kind="malformed",policy="override-guard"} 0
    policy_failures_total{kind="malformed",policy="persona-gate"} 0
    policy_failures_total{kind="malformed",policy="quorum"} 0
    policy_failures_total{kind="memory",policy="override-guard"} 0
    policy_failures_total{kind="memory",policy="persona-gate"} 0
    policy_failures_total{kind="memory",policy="quorum"} 0
    policy_failures_total{kind="trap",policy="override-guard"} 0
    policy_failures_total{kind="trap",policy="persona-gate"} 0
    policy_failures_total{kind="trap",policy="quorum"} 0
    # HELP policy_overloads_total Calls that were refused because too much waits for the policies of their action.
    # TYPE policy_overloads_total counter
    policy_overloads_total 0
    # HELP policy_reloads_total Attempts to change the policy set in force, by what set them off and outcome.
    # TYPE policy_reloads_total counter
    policy_reloads_total{outcome="conflict",source="api"} 0
    policy_reloads_total{outcome="conflict",source="file"} 0
    policy_reloads_total{outcome="conflict",source="sighup"} 0
    policy_reloads_total{outcome="conflict",source="store"} 0
    policy_reloads_total{outcome="failed",source="api"} 0
    policy_reloads_total{outcome="failed",source="file"} 0
    policy_reloads_total{outcome="failed",source="sighup"} 0
    policy_reloads_total{outcome="failed",source="store"} 0
    policy_reloads_total{outcome="held_back",source="api"} 0
    policy_reloads_total{outcome="held_back",source="file"} 0
    policy_reloads_total{outcome="held_back",source="sighup"} 0
    policy_reloads_total{outcome="held_back",source="store"} 0
    policy_reloads_total{outcome="ok",source="api"} 0
    policy_reloads_total{outcome="ok",source="file"} 0
    policy_reloads_total{outcome="ok",source="sighup"} 0
    policy_reloads_total{outcome="ok",source="store"} 0
    policy_reloads_total{outcome="unchanged",source="api"} 0
    policy_reloads_total{outcome="unchanged",source="file"} 0
    policy_reloads_total{outcome="unchanged",source="sighup"} 0
    policy_reloads_total{outcome="unchanged",source="store"} 0
    # HELP requests_quarantined Due requests that are left alone, because something in the gateway breaks on them.
    # TYPE requests_quarantined gauge
    requests_quarantined 0
    # HELP security_events_total Calls and acts that were turned away for the sake of security.
    # TYPE security_events_total counter
    security_events_total{type="bad_signature"} 0
    security_events_total{type="caller_not_allowed"} 0
    security_events_total{type="client_certificate_rejected"} 0
    security_events_total{type="connection_refused"} 0
    security_events_total{type="foreign_workspace"} 0
    security_events_total{type="proxied"} 0
    security_events_total{type="proxy_header_unreadable"} 0
    security_events_total{type="rate_limited"} 0
    security_events_total{type="replay"} 0
    security_events_total{type="requester_mismatch"} 0
    security_events_total{type="role_missing"} 0
    security_events_total{type="slow_client"} 0
    security_events_total{type="stale_signature"} 0
    security_events_total{type="tls_handshake_failed"} 0
    security_events_total{type="unauthenticated"} 0
    security_events_total{type="unauthorized"} 0
    # HELP slack_delivery_failures_total Messages that Slack refuses, by its code; each is counted once.
    # TYPE slack_delivery_failures_total counter
    # HELP slack_posts_skipped_total Messages that were not posted, by reason: the request ended before anybody saw it.
    # TYPE slack_posts_skipped_total counter
    # HELP slack_presses_spooled Presses in Slack that wait on disk for the store.
    # TYPE slack_presses_spooled gauge
    slack_presses_spooled 0
    # HELP slack_unreadable_interactions_total Interactions from Slack that cannot be read, or are of no request.
    # TYPE slack_unreadable_interactions_total counter
    slack_unreadable_interactions_total{code="invalid_hash"} 0
    slack_unreadable_interactions_total{code="invalid_payload"} 0
    slack_unreadable_interactions_total{code="not_found"} 0
    slack_unreadable_interactions_total{code="unknown_interaction"} 0
    # HELP sse_connections Open event streams.
    # TYPE sse_connections gauge
    sse_connections 0
    # HELP superseded_total Requests that newer ones of the same caller have superseded.
    # TYPE superseded_total counter
    "#);
}

#[tokio::test]
async fn every_documented_metric_exists() {
    let server = TestServer::new().await;
    let text = server.get("/metrics").await.text;
    for name in [
        "approval_requests_total",
        "approvals_total",
        "denies_total",
        "expired_total",
        "escalations_total",
        "decision_latency_seconds",
        "pending_requests",
        "open_requests_status",
        "oldest_open_request_age_seconds",
        "average_open_request_age_seconds",
        "persona_ack_total",
        "persona_pending_requests",
        "param_overrides_total",
        "override_rejections_total",
        "security_events_total",
        "policy_evaluation_seconds",
        "policy_failures_total",
        "policy_reloads_total",
        "outbox_depth",
        "outbox_oldest_age_seconds",
        "sse_connections",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[tokio::test]
async fn the_api_describes_itself() {
    let server = TestServer::new().await;
    let description = server.get("/openapi.json").await.json();
    assert_eq!(description["openapi"], "3.1.0");
    let create = &description["paths"]["/api/guard/request"]["post"]["responses"];
    let statuses: Vec<&String> = create.as_object().unwrap().keys().collect();
    assert_eq!(statuses, ["200", "4XX", "5XX"]);
    for (range, codes) in [
        (
            "4XX",
            &[
                "400 `invalid_payload`",
                "403 `policy_denied`",
                "408 `request_timeout`",
                "413 `payload_too_large`",
                "415 `unsupported_media_type`",
                "422 `idempotency_key_reused`",
                "429 `rate_limited`",
            ][..],
        ),
        (
            "5XX",
            &[
                "500 `internal`",
                "503 `policy_failure`, `overloaded`, `store_unavailable`, `store_full`, `store_timeout` or `contended`",
            ],
        ),
    ] {
        let documented = create[range]["description"].as_str().unwrap();
        for code in codes {
            assert!(documented.contains(code), "{code} is not in: {documented}");
        }
    }
    let body = &description["components"]["schemas"]["CreateBody"];
    assert_eq!(body["required"], json!(["action", "params", "meta"]));
    let references: Vec<&str> = find_references(&description);
    assert!(references.len() > 10);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(description.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_documented_error_is_a_problem() {
    let description = TestServer::new().await.get("/openapi.json").await.json();
    let mut ranges = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                if status.ends_with("XX") {
                    ranges += 1;
                    let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
                }
            }
        }
    }
    assert!(ranges > 40, "{ranges}");
}

fn find_references(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().flat_map(find_references).collect(),
        Value::Object(object) => {
            let own = object.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(object.values().flat_map(find_references)).collect()
        }
        _ => Vec::new(),
    }
}
