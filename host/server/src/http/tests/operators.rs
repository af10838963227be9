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
    // How long something took differs from run to run. The metrics themselves are compared with docs/METRICS.md.
    let varying = ["policy_evaluation", "http_request", "store_probe", "countersign_build_info"];
    let counted = answer.text.lines().filter(|line| {
        let varies = varying.iter().any(|name| line.starts_with(name));
        !line.starts_with('#') && !line.ends_with(" 0") && !varies
    });
    assert_snapshot!(counted.collect::<Vec<_>>().join("\n"), @r#"
    approval_requests_total{action="deploy"} 1
    approval_requests_total{action="guarded"} 1
    approvals_total{action="deploy"} 1
    average_open_request_age_seconds{action="guarded"} 42
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
    oldest_open_request_age_seconds{action="guarded"} 42
    open_requests_status{action="guarded",status="awaiting_personas"} 1
    outbox_depth 2
    outbox_oldest_age_seconds 42
    pending_requests{action="guarded"} 1
    persona_pending_requests{action="guarded",persona="security"} 1
    stored_metrics_shown 1
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
