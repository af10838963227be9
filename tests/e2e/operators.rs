//! The routes for probes, dashboards and integrators.

use countersign_tests::{Ask, Call, Click, Home, Problem};
use serde_json::json;

const ACTIONS: &str = "
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
  deploy:
    description: Deploy to staging
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

#[tokio::test]
async fn probes_are_answered() {
    let gateway = Home::new(ACTIONS).start().await;

    let health = gateway.send(&Call::get("/healthz")).await;
    assert_eq!((health.status(), health.text().trim()), (200, "ok"));
    let ready = gateway.send(&Call::get("/readyz")).await;
    assert_eq!(ready.status(), 200, "{}", ready.text());
    assert_eq!(ready.json()["backend"], "sqlite");
    assert_eq!(ready.json()["policy"].as_str().map(str::len), Some(64), "{}", ready.text());
}

#[tokio::test]
async fn the_interface_describes_itself() {
    let gateway = Home::new(ACTIONS).start().await;

    let document = gateway.send(&Call::get("/openapi.json")).await;

    assert_eq!(document.status(), 200);
    let document = document.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{document}");
    for (path, method) in [
        ("/api/guard/request", "post"),
        ("/api/guard/wait", "get"),
        ("/api/guard/wait", "post"),
        ("/api/guard/wait-sse", "get"),
        ("/api/guard/status", "get"),
        ("/api/guard/rerequest", "post"),
        ("/api/guard/cancel", "post"),
        ("/api/guard/lineage", "get"),
        ("/api/schemas/{action}", "get"),
        ("/api/slack/interactions", "post"),
    ] {
        assert!(document["paths"][path][method].is_object(), "no {method} {path}");
    }
}

#[tokio::test]
async fn schemas_are_shown_without_messages_and_hidden_parameters() {
    let schema = json!({
        "type": "object",
        "properties": {
            "replicas": {"type": "integer", "maximum": 9, "errorMessage": "nine at most"},
            "password": {"type": "string", "minLength": 12},
        },
    });
    let gateway = Home::new(ACTIONS).with_schema("scale", &schema).start().await;

    let shown = gateway.send(&Call::get("/api/schemas/scale")).await;

    let expected = json!({"type": "object", "properties": {"replicas": {"type": "integer", "maximum": 9}}});
    assert_eq!((shown.status(), shown.json()), (200, expected));
    for action in ["deploy", "unknown"] {
        let none = gateway.send(&Call::get(&format!("/api/schemas/{action}"))).await;
        assert_eq!(Problem::read(&none).is(), (404, "not_found"), "{action}");
    }
}

#[tokio::test]
async fn the_metrics_follow_the_requests() {
    let gateway = Home::new(ACTIONS).start().await;
    let open = gateway.open("scale").await;
    gateway.create(&Ask::new("deploy")).await.expect("it is admitted");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("approval_requests_total", &[("action", "scale")]), 1);
    assert_eq!(metrics.count("pending_requests", &[]), 2);
    let ready = [("action", "scale"), ("status", "ready_for_approval")];
    assert_eq!(metrics.count("open_requests_status", &ready), 1);
    assert!(
        metrics.has("oldest_open_request_age_seconds") && metrics.has("average_open_request_age_seconds")
    );
    assert_eq!(metrics.count("outbox_depth", &[]), 2);

    gateway.click_ok(&Click::approve("U0ALICE", &open.id)).await;

    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("approvals_total", &[("action", "scale")]), 1);
    assert_eq!(metrics.count("pending_requests", &[("action", "scale")]), 0);
    assert_eq!(metrics.count("open_requests_status", &ready), 0);
    assert_eq!(metrics.count("pending_requests", &[("action", "deploy")]), 1);
    let latency = [("action", "scale"), ("outcome", "approved")];
    assert_eq!(metrics.count("decision_latency_seconds_count", &latency), 1);
    assert_eq!(
        metrics.count("decision_latency_seconds_bucket", &[("le", "+Inf"), latency[0], latency[1]]),
        1
    );
    // One at admission, one at the vote, at least; the sandbox measures each.
    let judged = metrics.count("policy_evaluation_seconds_count", &[("policy", "quorum"), ("call", "judge")]);
    assert!(judged >= 3, "{judged} judgements");
}
