//! Invalid input from callers: each gets a clear error, and nothing changes.

use countersign_tests::{Api, Ask, Call, Home, Problem, Receipt, within};
use serde_json::{Value, json};

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    rerequest: { cooldown: 5m, limit: 5, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
";

const NO_SUCH_ID: &str = "req_01jd8xkm0n0000000000000000";

#[tokio::test]
async fn a_create_that_is_wrong_is_refused() {
    let gateway = Home::new(ACTIONS).start().await;
    let good = Ask::new("deploy").body().to_string();
    let json_rows: [(&str, String, u16, &str); 16] = [
        ("nothing", String::new(), 400, "invalid_payload"),
        ("no JSON", "action=deploy".into(), 400, "invalid_payload"),
        ("half of it", good[..good.len() - 1].into(), 400, "invalid_payload"),
        ("something behind it", format!("{good}{good}"), 400, "invalid_payload"),
        ("a list", "[]".into(), 400, "invalid_payload"),
        ("a key twice", good.replacen('{', r#"{"action":"deploy","#, 1), 400, "invalid_payload"),
        ("nesting without end", nested(&good, 10_000), 400, "invalid_payload"),
        ("nesting that is too deep", nested(&good, 100), 400, "invalid_payload"),
        (
            "a number that is read in two ways",
            good.replace(":2", ":12345678901234567890"),
            400,
            "invalid_payload",
        ),
        ("a number of too many digits", good.replace(":2", ":9007199254740991.4"), 400, "invalid_payload"),
        ("almost one", good.replace(":2", ":1.00000000000000000001"), 400, "invalid_payload"),
        ("almost nothing", good.replace(":2", ":1e-400"), 400, "invalid_payload"),
        ("a number that is too large", good.replace(":2", ":1e999"), 400, "invalid_payload"),
        ("half a character", good.replace("v1.2.3", "\\ud800"), 400, "invalid_payload"),
        ("far too much", good.replace("v1.2.3", &"x".repeat(20_000_000)), 413, "payload_too_large"),
        ("an unknown action", good.replace("\"deploy\"", "\"deploi\""), 403, "policy_denied"),
    ];
    for (what, body, status, code) in json_rows {
        let call = Call::new("POST", "/api/guard/request").body("application/json", body);
        check(&gateway, what, &call, status, code).await;
    }
    let not_utf8 = [b"{\"action\":\"".as_slice(), b"\xff\xfe", b"\"}"].concat();
    let call = Call::new("POST", "/api/guard/request").body("application/json", not_utf8);
    check(&gateway, "no UTF-8", &call, 400, "invalid_payload").await;
    let call = Call::new("POST", "/api/guard/request").body("text/plain", good);
    check(&gateway, "another content type", &call, 415, "unsupported_media_type").await;
    assert_unchanged(&gateway).await;
}

/// Numbers are the numbers that were written, or are refused where they stand.
#[tokio::test]
async fn a_number_does_not_become_another_one() {
    let gateway = Home::new(ACTIONS).start().await;
    let good = Ask::new("deploy").params(json!({"list": [{"n": 2}]})).body().to_string();
    for text in
        ["9007199254740991.4", "1.00000000000000000001", "1e-400", "0.1000000000000000055511151231257827"]
    {
        let body = good.replace(":2", &format!(":{text}"));
        let call = Call::new("POST", "/api/guard/request").body("application/json", body);
        let problem = check(&gateway, text, &call, 400, "invalid_payload").await;
        assert_eq!(problem.body["errors"][0]["path"], "params.list[0].n", "{text}: {}", problem.body);
    }
    assert_unchanged(&gateway).await;
    for (text, hashed) in [("1.50", json!(1.5)), ("1e2", json!(100)), ("-0.0", json!(0)), ("0.1", json!(0.1))]
    {
        let body = good.replace(":2", &format!(":{text}"));
        let call = Call::new("POST", "/api/guard/request").body("application/json", body);
        let made = gateway.send(&call).await;
        assert_eq!(made.status(), 200, "{text}: {}", made.text());
        let token = made.json()["token"].as_str().map(str::to_owned).expect("it has a token");
        let answer = gateway.look(&token).await;
        let expected = countersign_tests::payload_hash(&answer, &json!({"list": [{"n": hashed}]}));
        assert_eq!(answer["payloadHash"], expected.as_str(), "{text}");
    }
}

#[tokio::test]
async fn every_field_is_checked_and_named() {
    let gateway = Home::new(ACTIONS).start().await;
    let rows: [(&str, Value); 15] = [
        ("action", json!(7)),
        ("action", json!("")),
        ("params", json!([1])),
        ("params", json!(null)),
        ("meta", json!("x")),
        ("meta.origin", json!({})),
        ("meta.origin.repo", json!("")),
        ("meta.requester.id", json!("")),
        ("meta.requester.id", json!({"$ne": null})),
        ("meta.requester.source", json!(1)),
        ("meta.justification", json!("no")),
        ("meta.justification", json!(null)),
        ("meta.links", json!([{"label": "run", "url": "javascript:alert(1)"}])),
        ("meta.links", json!({"label": "run"})),
        ("meta.surprise", json!(true)),
    ];
    for (path, value) in rows {
        let mut body = Ask::new("deploy").body();
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        let pointer =
            if parent.is_empty() { String::new() } else { format!("/{}", parent.replace('.', "/")) };
        body.pointer_mut(&pointer).expect("the parent is there")[key] = value.clone();

        let what = format!("{path} = {value}");
        let problem =
            check(&gateway, &what, &Call::post("/api/guard/request", &body), 400, "invalid_payload").await;

        let errors = problem.body["errors"].as_array().unwrap_or_else(|| panic!("{what}: {}", problem.body));
        let named =
            errors.iter().any(|error| error["path"].as_str().is_some_and(|found| found.starts_with(path)));
        assert!(named, "{what} is not named: {}", problem.body);
        assert!(errors.iter().all(|error| error["message"].is_string()), "{what}: {}", problem.body);
    }
    assert_unchanged(&gateway).await;
}

#[tokio::test]
async fn idempotency_keys_have_a_form() {
    let gateway = Home::new(ACTIONS).start().await;
    for key in ["", " ", "two words", &"k".repeat(256), "schl\u{fc}ssel"] {
        let call = Ask::new("deploy").idempotency_key(key).call();
        check(&gateway, key, &call, 400, "invalid_payload").await;
    }
    assert_unchanged(&gateway).await;
}

#[tokio::test]
async fn tokens_and_ids_that_name_nothing_find_nothing() {
    let gateway = Home::new(ACTIONS).start().await;
    let request = gateway.open("deploy").await;
    let mut flipped = request.token.clone().into_bytes();
    let last = flipped.last_mut().expect("a token is not empty");
    *last = if *last == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).expect("a token is ASCII");
    let shorter = &request.token[..request.token.len() - 1];
    let long = "A".repeat(5000);
    for token in [flipped.as_str(), shorter, &request.id, "x", "..%2f..%2fetc", "%00", &long] {
        for path in ["/api/guard/wait", "/api/guard/wait-sse"] {
            let call = Call::get(&format!("{path}?token={token}"));
            check(&gateway, &format!("{path} {token}"), &call, 404, "not_found").await;
        }
        let body = json!({"token": token});
        check(&gateway, token, &Call::post("/api/guard/wait", &body), 404, "not_found").await;
        check(&gateway, token, &Call::post("/api/guard/cancel", &body), 404, "not_found").await;
    }
    for path in ["/api/guard/wait", "/api/guard/wait-sse", "/api/guard/status", "/api/guard/lineage"] {
        check(&gateway, path, &Call::get(path), 400, "invalid_payload").await;
    }
    for seconds in ["-1", "61", "x", "NaN", "inf"] {
        let call = Call::get(&format!("/api/guard/wait?token={}&timeoutSec={seconds}", request.token));
        check(&gateway, seconds, &call, 400, "invalid_payload").await;
    }
    for path in ["/api/guard/status", "/api/guard/lineage"] {
        let call = Call::get(&format!("{path}?requestId={NO_SUCH_ID}"));
        check(&gateway, path, &call, 404, "not_found").await;
        let call = Call::get(&format!("{path}?requestId=req_1"));
        check(&gateway, path, &call, 400, "invalid_payload").await;
    }
    let other = Receipt { id: NO_SUCH_ID.to_owned(), ..request.clone() };
    let again = gateway.rerequest(&other, "U0REQ").await.expect_err("there is no such request");
    assert_eq!(again.is(), (404, "not_found"));
    let actor = json!({"id": "U0REQ", "source": "slack"});
    let call = Call::post("/api/guard/rerequest", &json!({"originalRequestId": request.id, "actor": actor}));
    check(&gateway, "an id alone", &call, 404, "not_found").await;
    let again = gateway.rerequest(&request, "").await.expect_err("nobody asks");
    assert_eq!(again.is(), (400, "invalid_payload"));
    let token_of_another_kind = Call::post("/api/guard/wait", &json!({"token": 7}));
    check(&gateway, "a number", &token_of_another_kind, 400, "invalid_payload").await;

    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");
    assert_eq!(gateway.metrics().await.count("approval_requests_total", &[]), 1);
}

#[tokio::test]
async fn there_are_no_other_routes() {
    let gateway = Home::new(ACTIONS).start().await;
    for path in [
        "/",
        "/api",
        "/api/guard",
        "/api/guard/request/",
        "/api/guard/../guard/wait",
        "/api/admin/reload-policy",
    ] {
        check(&gateway, path, &Call::post(path, &json!({})), 404, "not_found").await;
    }
    for (method, path) in
        [("GET", "/api/guard/request"), ("DELETE", "/api/guard/wait"), ("PUT", "/api/guard/status")]
    {
        check(&gateway, path, &Call::new(method, path), 405, "method_not_allowed").await;
    }
    assert_unchanged(&gateway).await;
}

#[tokio::test]
async fn invalid_http_disturbs_nobody() {
    let gateway = Home::new(ACTIONS).start().await;
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /api/guard/request HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    ] {
        let mut connection = gateway.connect().await;
        connection.write(bytes).await.expect("it is sent");
        // The last one announces more bytes than it sends, and closes the connection.
        drop(connection);
    }
    let huge =
        format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "x".repeat(1_000_000));
    let mut connection = gateway.connect().await;
    if let Ok(reply) = within("an answer or a hang-up", connection.send_bytes(huge.as_bytes())).await {
        assert!((400..500).contains(&reply.status()), "{}", reply.status());
    }
    assert_unchanged(&gateway).await;
}

async fn check(gateway: &Api, what: &str, call: &Call, status: u16, code: &str) -> Problem {
    let problem = Problem::read(&gateway.send(call).await);
    assert_eq!(
        problem.is(),
        (status, code),
        "{}: {}",
        what.chars().take(200).collect::<String>(),
        problem.body
    );
    problem
}

async fn assert_unchanged(gateway: &Api) {
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.count("approval_requests_total", &[]), 0);
    assert_eq!(metrics.count("outbox_depth", &[]), 0);
    gateway.open("deploy").await;
}

fn nested(body: &str, depth: usize) -> String {
    body.replace(":2", &format!(":{}{}", "[".repeat(depth), "]".repeat(depth)))
}
