//! Bad input: each gets a clear error, and nothing changes.

use insta::assert_snapshot;

use super::*;

/// Sends each body to `path`, and returns one line for each answer.
async fn check(server: &TestServer, path: &str, rows: &[(&str, String)]) -> String {
    let mut shown = String::new();
    for (name, body) in rows {
        let answer = server.send(post(path, body.clone())).await;
        assert_eq!(answer.header("content-type"), "application/problem+json", "{name}: {}", answer.text);
        let problem = answer.json();
        shown += &format!("{name}: {} {}\n", answer.status.as_u16(), problem["error"].as_str().unwrap());
        for wrong in problem["errors"].as_array().into_iter().flatten() {
            shown +=
                &format!("    {}: {}\n", wrong["path"].as_str().unwrap(), wrong["message"].as_str().unwrap());
        }
    }
    shown
}

/// A request body with the value at a JSON pointer replaced; `None` removes it.
fn with(pointer: &str, value: Option<Value>) -> String {
    let mut ask = ask("deploy");
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = ask.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(object), Some(value)) => drop(object.insert(key.to_owned(), value)),
        (Value::Object(object), None) => drop(object.remove(key)),
        (other, _) => panic!("{other} has no members"),
    }
    ask.to_string()
}

#[tokio::test]
async fn every_mistake_in_a_request_is_named() {
    let server = TestServer::new().await;
    let set = |pointer: &str, value: Value| with(pointer, Some(value));
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    let link = |label: &str, url: &str| set("/meta/links", json!([{"label": label, "url": url}]));
    let rows = [
        ("empty", String::new()),
        ("half", r#"{"action": "deploy", "params": {"#.to_owned()),
        ("no object", "[]".to_owned()),
        (
            "a list for meta",
            set("/meta", json!([{"repo": "shop"}, {"source": "ci", "id": "hunter2"}, "why"])),
        ),
        ("a list for the requester", set("/meta/requester", json!(["ci", "hunter2"]))),
        ("a list for a link", set("/meta/links", json!([["a", "https://a.example"]]))),
        ("two values", format!("{} {{}}", ask("deploy"))),
        ("no action", with("/action", None)),
        ("action of a wrong type", set("/action", json!(5))),
        ("blank action", set("/action", json!(" "))),
        ("long action", set("/action", json!("a".repeat(129)))),
        ("action with a line break", set("/action", json!("a\nb"))),
        ("no params", with("/params", None)),
        ("params of a wrong type", set("/params", json!(["hunter2"]))),
        ("null for params", set("/params", Value::Null)),
        ("parameter without a name", set("/params", json!({"": 1}))),
        ("unknown member", set("/polciyHints", json!({}))),
        ("unknown member of meta", set("/meta/jsutification", json!("x"))),
        ("no meta", with("/meta", None)),
        ("no requester", with("/meta/requester", None)),
        ("no requester id", with("/meta/requester/id", None)),
        ("requester id of a wrong type", set("/meta/requester/id", json!({"hunter2": 1}))),
        ("blank requester id", set("/meta/requester/id", json!("\t"))),
        ("requester id with a NUL", set("/meta/requester/id", json!("U1\u{0}"))),
        ("no origin", with("/meta/origin", None)),
        ("unknown member of origin", set("/meta/origin/repository", json!("x"))),
        ("pr of a wrong type", set("/meta/origin/pr", json!([1]))),
        ("short justification", set("/meta/justification", json!(" ab "))),
        ("long justification", set("/meta/justification", json!("a".repeat(2001)))),
        ("link that is no link", link("x", "javascript:alert(1)")),
        ("link to somebody else", link("x", "https://good.example@evil.example/")),
        ("link without a label", link("", "https://x.example/")),
        ("a key twice", r#"{"action": "deploy", "action": "other"}"#.to_owned()),
        ("a parameter twice", ask("deploy").to_string().replace(r#""password""#, r#""ref""#)),
        (
            "a large number",
            ask("deploy").to_string().replace(r#""replicas":3"#, r#""replicas":9007199254740993"#),
        ),
        (
            "deep nesting",
            ask("deploy").to_string().replace(r#""replicas":3"#, &format!(r#""replicas":{deep}"#)),
        ),
        ("several mistakes", {
            let mut ask = ask("");
            ask["meta"]["requester"]["source"] = json!("");
            ask["meta"]["justification"] = json!("");
            ask.to_string()
        }),
        ("large hints", set("/policyHints", json!("h".repeat(20_000)))),
        ("large parameters", set("/params", json!({"x": "x".repeat(132_000)}))),
        ("large body", set("/params", json!({"x": "x".repeat(300_000)}))),
    ];
    let shown = check(&server, "/api/guard/request", &rows).await;
    // The answer does not repeat what was sent, which may be secret.
    assert!(!shown.contains("hunter2"));
    assert_snapshot!(shown, @r#"
    empty: 400 invalid_payload
        : malformed JSON: EOF while parsing a value at line 1 column 0
    half: 400 invalid_payload
        params: malformed JSON: EOF while parsing an object at line 1 column 32
    no object: 400 invalid_payload
        : expected an object
    a list for meta: 400 invalid_payload
        meta: expected an object
    a list for the requester: 400 invalid_payload
        meta.requester: expected an object
    a list for a link: 400 invalid_payload
        meta.links[0]: expected an object
    two values: 400 invalid_payload
        : malformed JSON: trailing characters at line 1 column 320
    no action: 400 invalid_payload
        : missing field `action`
    action of a wrong type: 400 invalid_payload
        action: expected a string
    blank action: 400 invalid_payload
        action: must not be blank
    long action: 400 invalid_payload
        action: must have at most 128 characters
    action with a line break: 400 invalid_payload
        action: must not have control characters
    no params: 400 invalid_payload
        : missing field `params`
    params of a wrong type: 400 invalid_payload
        params: expected a map
    null for params: 400 invalid_payload
        params: expected a map
    parameter without a name: 400 invalid_payload
        params.: the name must have 1 to 128 characters, and no control characters
    unknown member: 400 invalid_payload
        polciyHints: unknown field `polciyHints`, expected one of `action`, `params`, `meta`, `policyHints`
    unknown member of meta: 400 invalid_payload
        meta.jsutification: unknown field `jsutification`, expected one of `origin`, `requester`, `justification`, `links`
    no meta: 400 invalid_payload
        : missing field `meta`
    no requester: 400 invalid_payload
        meta.requester: is missing: this caller asserts who its requesters are
    no requester id: 400 invalid_payload
        meta.requester: missing field `id`
    requester id of a wrong type: 400 invalid_payload
        meta.requester.id: expected a string
    blank requester id: 400 invalid_payload
        meta.requester.id: must not be blank
    requester id with a NUL: 400 invalid_payload
        meta.requester.id: must not have control characters
    no origin: 400 invalid_payload
        meta: missing field `origin`
    unknown member of origin: 400 invalid_payload
        meta.origin.repository: unknown field `repository`, expected one of `repo`, `branch`, `pr`, `run_id`
    pr of a wrong type: 400 invalid_payload
        meta.origin.pr: must be a number or a string
    short justification: 400 invalid_payload
        meta.justification: must have at least 3 characters
    long justification: 400 invalid_payload
        meta.justification: must have at most 2000 characters
    link that is no link: 400 invalid_payload
        meta.links[0].url: must be an https or http URL
    link to somebody else: 400 invalid_payload
        meta.links[0].url: must not name a user, since that can pass for the host
    link without a label: 400 invalid_payload
        meta.links[0].label: must not be blank
    a key twice: 400 invalid_payload
        action: this key comes twice
    a parameter twice: 400 invalid_payload
        params.ref: this key comes twice
    a large number: 400 invalid_payload
        params.replicas: a whole number beyond ±(2^53 − 1) is read differently by different programs; send a string
    deep nesting: 400 invalid_payload
        params.replicas[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]: nested deeper than 32
    several mistakes: 400 invalid_payload
        action: must not be blank
        meta.requester.source: must not be blank
        meta.justification: must have at least 3 characters
    large hints: 400 invalid_payload
        policyHints: must have at most 16384 bytes
    large parameters: 413 payload_too_large
    large body: 413 payload_too_large
    "#);
    let entries = server.app.gateway.store().audit(&AuditCursor::default(), 10).await.unwrap().entries;
    let events: Vec<_> = entries.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(
        events,
        ["policy_reloaded"],
        "bad input leaves no trace: there is the start, and nothing else"
    );
}

#[tokio::test]
async fn every_mistake_in_the_other_calls_is_named() {
    let server = TestServer::new().await;
    let body = |value: Value| value.to_string();
    let actor = json!({"id": "U9", "source": "slack"});
    let rows = [
        ("no id", body(json!({"actor": actor}))),
        ("malformed id", body(json!({"originalRequestId": "req_1", "actor": actor}))),
        ("no actor", body(json!({"originalRequestId": "req_1"}))),
        ("unknown id", body(json!({"originalRequestId": "req_00000000000000000000000000", "actor": actor}))),
        (
            "blank actor",
            body(
                json!({"originalRequestId": "req_00000000000000000000000000", "actor": {"id": "", "source": "slack"}}),
            ),
        ),
    ];
    assert_snapshot!(check(&server, "/api/guard/rerequest", &rows).await, @r#"
    no id: 400 invalid_payload
        : missing field `originalRequestId`
    malformed id: 400 invalid_payload
        originalRequestId: not a request id: it should be `req_` and 26 letters or digits
    no actor: 400 invalid_payload
        : missing field `actor`
    unknown id: 404 not_found
    blank actor: 400 invalid_payload
        actor.id: must not be blank
    "#);
    let rows = [
        ("no token", body(json!({}))),
        ("empty token", body(json!({"token": ""}))),
        ("unknown member", body(json!({"token": "x", "resaon": "y"}))),
        ("blank reason", body(json!({"token": "x", "reason": " "}))),
        ("unknown token", body(json!({"token": "x"}))),
    ];
    assert_snapshot!(check(&server, "/api/guard/cancel", &rows).await, @r#"
    no token: 400 invalid_payload
        token: is missing; send it as a parameter or as `Authorization: Bearer`
    empty token: 400 invalid_payload
        token: is missing; send it as a parameter or as `Authorization: Bearer`
    unknown member: 400 invalid_payload
        resaon: unknown field `resaon`, expected one of `token`, `requestId`, `reason`
    blank reason: 400 invalid_payload
        reason: must have at least 1 characters
    unknown token: 404 not_found
    "#);

    let mut shown = String::new();
    for path in [
        "/api/guard/wait",
        "/api/guard/wait?token=x&token=x",
        "/api/guard/wait?token=x&timeoutSec=61",
        "/api/guard/wait?token=x&timeoutSec=-1",
        "/api/guard/wait?token=x&timeoutSec=NaN",
        "/api/guard/wait?token=x&timeoutSec=",
        "/api/guard/wait?token=%ff",
        "/api/guard/wait-sse",
        "/api/guard/wait-sse?token=x",
        "/api/guard/status",
        "/api/guard/status?requestId=x",
        "/api/guard/status?requestId=req_00000000000000000000000000",
        "/api/guard/lineage?requestId=",
        "/api/guard/lineage?requestId=req_00000000000000000000000000",
        "/api/guard/nothing",
        "/api/guard/request/",
        "/",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        let problem = answer.json();
        shown += &format!("{path}: {} {}", answer.status.as_u16(), problem["error"].as_str().unwrap());
        if let Some(wrong) = problem["errors"].get(0) {
            shown +=
                &format!(", {}: {}", wrong["path"].as_str().unwrap(), wrong["message"].as_str().unwrap());
        }
        shown.push('\n');
    }
    assert_snapshot!(shown, @r#"
    /api/guard/wait: 400 invalid_payload, token: is missing; send it as a parameter or as `Authorization: Bearer`
    /api/guard/wait?token=x&token=x: 400 invalid_payload, token: must come once
    /api/guard/wait?token=x&timeoutSec=61: 400 invalid_payload, timeoutSec: must be a number from 0 to 60
    /api/guard/wait?token=x&timeoutSec=-1: 400 invalid_payload, timeoutSec: must be a number from 0 to 60
    /api/guard/wait?token=x&timeoutSec=NaN: 400 invalid_payload, timeoutSec: must be a number from 0 to 60
    /api/guard/wait?token=x&timeoutSec=: 400 invalid_payload, timeoutSec: must be a number from 0 to 60
    /api/guard/wait?token=%ff: 404 not_found
    /api/guard/wait-sse: 400 invalid_payload, token: is missing; send it as a parameter or as `Authorization: Bearer`
    /api/guard/wait-sse?token=x: 404 not_found
    /api/guard/status: 400 invalid_payload, requestId: is missing
    /api/guard/status?requestId=x: 400 invalid_payload, requestId: not a request id: it should be `req_` and 26 letters or digits
    /api/guard/status?requestId=req_00000000000000000000000000: 404 not_found
    /api/guard/lineage?requestId=: 400 invalid_payload, requestId: not a request id: it should be `req_` and 26 letters or digits
    /api/guard/lineage?requestId=req_00000000000000000000000000: 404 not_found
    /api/guard/nothing: 404 not_found
    /api/guard/request/: 404 not_found
    /: 404 not_found
    "#);
}

#[tokio::test]
async fn a_body_must_say_that_it_is_json() {
    let server = TestServer::new().await;
    for (content_type, status) in [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.acme+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ] {
        let mut request = post("/api/guard/request", ask("deploy").to_string());
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        assert_eq!(server.send(request).await.status, status, "{content_type}");
    }
    let mut request = post("/api/guard/request", ask("deploy").to_string());
    request.headers_mut().remove("content-type");
    assert_snapshot!(server.send(request).await.shown(), @r#"
    415 Unsupported Media Type
    content-type: application/problem+json
    {
      "detail": "the content type must be `application/json`",
      "error": "unsupported_media_type",
      "status": 415,
      "title": "Unsupported Media Type",
      "type": "urn:countersign:problem:unsupported_media_type"
    }
    "#);
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_the_right_ones() {
    let server = TestServer::new().await;
    let delete = Request::delete("/api/guard/wait").body(Body::empty()).unwrap();
    assert_snapshot!(server.send(delete).await.shown(), @r#"
    405 Method Not Allowed
    content-type: application/problem+json
    allow: GET,HEAD,POST
    {
      "detail": "this path does not take this method",
      "error": "method_not_allowed",
      "status": 405,
      "title": "Method Not Allowed",
      "type": "urn:countersign:problem:method_not_allowed"
    }
    "#);
    let answer = server.get("/api/guard/request").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn a_slow_body_times_out() {
    let server = TestServer::new().await;
    // Only now, since the store works in real time.
    tokio::time::pause();
    let endless = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let error = crate::http::body::read(&server.app, endless, 1000).await.unwrap_err();
    assert_eq!(error.code(), "request_timeout");
    tokio::time::resume();
    assert!(server.metric("security_events_total{type=\"slow_client\"} 1").await);
}

/// The least and the most that the document allows of a number in a query string are what the gateway takes.
#[tokio::test]
async fn numbers_in_queries_are_taken_as_far_as_the_document_says() {
    const ADMIN: &str = "correct-horse-battery-staple";
    let server = TestServer::with(&[("ADMIN_TOKEN", ADMIN)]).await;
    let (request, token) = server.open("deploy").await;
    // It has ended, so that nobody waits for it.
    assert_eq!(server.post("/api/guard/cancel", &json!({"token": token})).await.status, 200);
    let document = serde_json::to_value(crate::http::openapi_document()).expect("JSON");
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().expect("an object") {
        let parameters: Vec<_> = item["get"]["parameters"].as_array().into_iter().flatten().collect();
        let who = [("requestId", request.to_string()), ("token", token.clone())];
        // The routes of callers take the token, whether it is documented there or not; those of admins refuse it.
        let is_taken = |name: &str| {
            !path.starts_with("/api/admin/") || parameters.iter().any(|parameter| parameter["name"] == name)
        };
        let who =
            who.iter().filter(|(name, _)| is_taken(name)).map(|(name, value)| format!("{name}={value}&"));
        let who: String = who.collect();
        for parameter in &parameters {
            let (name, schema) = (parameter["name"].as_str().expect("a name"), &parameter["schema"]);
            if parameter["in"] != "query" || !(schema["type"] == "integer" || schema["type"] == "number") {
                continue;
            }
            seen += 1;
            let bound = |bound: &str| {
                schema[bound].as_f64().unwrap_or_else(|| panic!("{path}: `{name}` has no {bound}: {schema}"))
            };
            let (least, most) = (bound("minimum"), bound("maximum"));
            for (value, is_taken) in [(least, true), (most, true), (least - 1.0, false), (most + 1.0, false)]
            {
                let query = format!("{who}{name}={value}");
                let call = Request::get(format!("{path}?{query}")).header("x-admin-token", ADMIN);
                let answer = server.send(call.body(Body::empty()).expect("a call")).await;
                assert_eq!(
                    answer.status.as_u16(),
                    if is_taken { 200 } else { 400 },
                    "{path} {query}: {}",
                    answer.text
                );
                if !is_taken {
                    assert_eq!(answer.json()["errors"][0]["path"], name, "{path} {query}: {}", answer.text);
                }
            }
        }
    }
    assert!(seen > 5, "{seen}");
}
