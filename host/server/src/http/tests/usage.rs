//! An approval is used once, by its caller, for what was agreed to, and says what came of it.

use countersign_access::ApiKey;
use countersign_core::lifecycle::Salt;
use countersign_store::faulty::Fault;
use insta::assert_snapshot;

use super::*;

const MINUTE: u64 = 60_000;

/// Calls `path` with an idempotency key.
async fn repeated(server: &TestServer, path: &str, key: &str, body: &Value) -> Answer {
    let mut request = post(path, body.to_string());
    request.headers_mut().insert("idempotency-key", key.parse().expect("a header"));
    server.send(request).await
}

/// A request that was approved as it was asked: its id and its token.
async fn approved(server: &TestServer) -> (String, String) {
    let (id, token) = server.open("once").await;
    server.press("U1", "approve", &id).await;
    assert_eq!(server.look(&token).await["status"], "approved");
    (id, token)
}

async fn consume(server: &TestServer, token: &str, params: &Value) -> Answer {
    server.post("/api/guard/consume", &json!({"token": token, "params": params})).await
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["error"].as_str().expect("a code").to_owned())
}

#[tokio::test]
async fn an_approval_is_consumed_once_and_says_what_came_of_it() {
    let server = TestServer::new().await;
    let (id, token) = server.open("once").await;
    let params = ask("once")["params"].clone();
    assert_eq!(server.look(&token).await["consume"], "required", "the caller knows before it is decided");
    assert_eq!(code(&consume(&server, &token, &params).await), (409, "not_approved".to_owned()));
    server.press("U1", "approve", &id).await;

    let seen = server.look(&token).await;
    let used = |seen: &Value| ["use", "consume", "validUntil", "consumedAt"].map(|name| seen[name].clone());
    let until = json!("2026-05-28T20:56:40.000Z");
    assert_eq!(used(&seen), [json!("unused"), json!("required"), until.clone(), Value::Null]);
    let outcome = json!({"token": token, "status": "failed", "detail": "exit code 1"});
    assert_eq!(code(&server.post("/api/guard/outcome", &outcome).await), (409, "not_consumed".to_owned()));
    server.clock.advance(1000);
    assert_snapshot!(consume(&server, &token, &params).await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "action": "once",
      "consumedAt": "2026-05-28T20:26:41.000Z",
      "payloadHash": "[payloadHash]",
      "receipt": "[receipt]",
      "replayed": false,
      "requestId": "[requestId]",
      "status": "approved",
      "use": "consumed",
      "validUntil": "2026-05-28T20:56:40.000Z"
    }
    "#);
    assert_snapshot!(consume(&server, &token, &params).await.shown(), @r#"
    409 Conflict
    content-type: application/problem+json
    {
      "detail": "this approval was consumed already",
      "error": "already_consumed",
      "status": 409,
      "title": "Conflict",
      "type": "urn:countersign:problem:already_consumed"
    }
    "#);
    server.clock.advance(1000);
    let reported = server.post("/api/guard/outcome", &outcome).await;
    assert_snapshot!(reported.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "consumedAt": "2026-05-28T20:26:41.000Z",
      "replayed": false,
      "reportedAt": "2026-05-28T20:26:42.000Z",
      "requestId": "[requestId]",
      "status": "approved",
      "use": "failed"
    }
    "#);
    // The same again is no other outcome; another one is.
    let mut expected = reported.json();
    expected["replayed"] = true.into();
    assert_eq!(server.post("/api/guard/outcome", &outcome).await.json(), expected);
    let other = json!({"token": token, "status": "succeeded"});
    assert_eq!(code(&server.post("/api/guard/outcome", &other).await), (409, "already_reported".to_owned()));

    let consumed_at = json!("2026-05-28T20:26:41.000Z");
    let expected = [json!("failed"), json!("required"), until, consumed_at];
    let status = server.get(&format!("/api/guard/status?requestId={id}")).await.json();
    assert_eq!((used(&status), &status["status"]), (expected.clone(), &json!("approved")));
    let stream = server.get(&format!("/api/guard/wait-sse?token={token}")).await.text;
    assert!(stream.contains(r#""use":"failed""#), "{stream}");

    for (event, detail) in [
        ("consumed", json!({})),
        ("outcome_reported", json!({"outcome": "failed", "detail": "exit code 1"})),
        ("use_refused", json!({"act": "consume", "code": "already_consumed"})),
    ] {
        let [entry] = server.audited(event).await.try_into().expect("one entry");
        assert_eq!((&entry["requestId"], &entry["status"]), (&json!(id), &json!("approved")));
        for (name, value) in detail.as_object().expect("an object") {
            assert_eq!(&entry[name], value, "{entry}");
        }
    }
    for line in [
        r#"approvals_total{action="once"} 1"#,
        r#"approvals_consumed_total{action="once"} 1"#,
        r#"approval_outcomes_total{action="once",outcome="failed"} 1"#,
        r#"approval_use_refusals_total{action="once",reason="already_consumed"} 1"#,
    ] {
        assert!(server.metric(line).await, "{line}");
    }
}

#[tokio::test]
async fn only_what_was_agreed_to_is_consumed() {
    let server = TestServer::new().await;
    let (id, token) = server.open("once").await;
    server.send(server.signed(&modal("U1", &id, &[("replicas", "5"), ("ref", "v1.2.3")]))).await;
    let seen = server.look(&token).await;
    assert_eq!((&seen["status"], &seen["overrides"]), (&json!("approved"), &json!({"replicas": 5})));
    let asked = ask("once")["params"].clone();
    assert_snapshot!(consume(&server, &token, &asked).await.shown(), @r#"
    409 Conflict
    content-type: application/problem+json
    {
      "detail": "these are not the parameters that were approved: replicas",
      "differing": [
        "replicas"
      ],
      "error": "payload_mismatch",
      "status": 409,
      "title": "Conflict",
      "type": "urn:countersign:problem:payload_mismatch"
    }
    "#);
    let differing = async |params: Value| {
        let answer = consume(&server, &token, &params).await;
        assert_eq!(code(&answer), (409, "payload_mismatch".to_owned()));
        answer.json()["differing"].clone()
    };
    let redacted = json!({"ref": "v1.2.3", "replicas": 5, "password": "[redacted]"});
    assert_eq!(differing(redacted).await, json!(["password"]), "what `wait` shows is not what is run");
    assert_eq!(differing(json!({"ref": "v1.2.3", "replicas": 5})).await, json!(["password"]));
    let more = json!({"ref": "v1.2.3", "replicas": 5, "password": "hunter2", "force": true});
    assert_eq!(differing(more).await, json!(["force"]));
    let agreed = json!({"ref": "v1.2.3", "replicas": 5, "password": "hunter2"});

    // Another action may have these very parameters.
    let of = async |action: &str| {
        let body = json!({"token": token, "action": action, "params": agreed});
        server.post("/api/guard/consume", &body).await
    };
    let refused = of("deploy").await;
    assert_eq!(code(&refused), (409, "action_mismatch".to_owned()));
    assert_eq!(refused.json()["detail"], "this approval is one of another action");
    assert_eq!(code(&of("").await), (400, "invalid_payload".to_owned()));
    let audit = serde_json::to_string(&server.audited("use_refused").await).expect("JSON");
    assert!(audit.contains(r#""differing":["replicas"]"#) && audit.contains("action_mismatch"), "{audit}");
    assert!(!audit.contains("hunter2") && !audit.contains("[redacted]"), "{audit}");
    let answer = of("once").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["action"]), (200, &json!("once")));
}

#[tokio::test]
async fn an_approval_is_consumed_by_its_hash_too() {
    let server = TestServer::new().await;
    let (id, token) = server.open("once").await;
    server.send(server.signed(&modal("U1", &id, &[("replicas", "5"), ("ref", "v1.2.3")]))).await;
    let seen = server.look(&token).await;
    let asked = ask("once")["params"].clone();
    let agreed = json!({"ref": "v1.2.3", "replicas": 5, "password": "hunter2"});
    // The caller can compute the hash, with the salt that it was given.
    let hash = |params: &Value| {
        let salt = hex::decode(seen["payloadSalt"].as_str().expect("a salt")).expect("hexadecimal");
        let salt = Salt::new(salt.try_into().expect("32 bytes"));
        let params = params.as_object().expect("an object").iter();
        let commitments = params.map(|(key, value)| (key.clone(), salt.commit(value))).collect();
        countersign_core::lifecycle::payload_hash(&commitments).to_string()
    };
    let consume_hash = async |hash: &str| {
        server.post("/api/guard/consume", &json!({"token": token, "payloadHash": hash})).await
    };
    let refused = consume_hash(&hash(&asked)).await;
    assert_eq!(
        (code(&refused), &refused.json()["differing"]),
        ((409, "payload_mismatch".to_owned()), &Value::Null)
    );
    let answer = consume_hash(&hash(&agreed)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["payloadHash"]), (200, &seen["payloadHash"]));
}

#[tokio::test]
async fn an_approval_that_nobody_consumes_lapses() {
    let server = TestServer::new().await;
    let (_, token) = approved(&server).await;
    server.clock.advance(30 * MINUTE - 1);
    assert_eq!(server.look(&token).await["use"], "unused");
    server.clock.advance(1);
    let seen = server.look(&token).await;
    assert_eq!((&seen["status"], &seen["use"]), (&json!("approved"), &json!("lapsed")));
    assert_snapshot!(consume(&server, &token, &ask("once")["params"]).await.shown(), @r#"
    410 Gone
    content-type: application/problem+json
    {
      "detail": "this approval could be consumed until 2026-05-28T20:56:40.000Z",
      "error": "approval_expired",
      "status": 410,
      "title": "Gone",
      "type": "urn:countersign:problem:approval_expired"
    }
    "#);
    // Without `valid_for` there is no end, and nothing has to be consumed.
    let (id, token) = server.open("guarded").await;
    server.press("U7", "persona_ack:security", &id).await;
    server.press("U1", "approve", &id).await;
    server.clock.advance(365 * 24 * 60 * MINUTE);
    let seen = server.look(&token).await;
    assert_eq!(
        [&seen["use"], &seen["consume"], &seen["validUntil"]],
        [&json!("unused"), &Value::Null, &Value::Null]
    );
    assert_eq!(consume(&server, &token, &ask("guarded")["params"]).await.status, 200);
}

/// Whoever holds a token can have uses refused on and on; the audit log does not grow with each.
#[tokio::test]
async fn refused_uses_are_audited_once_and_counted() {
    let server = TestServer::new().await;
    let (id, token) = approved(&server).await;
    let params = ask("once")["params"].clone();
    assert_eq!(consume(&server, &token, &params).await.status, 200);
    for _ in 0..50 {
        assert_eq!(code(&consume(&server, &token, &params).await), (409, "already_consumed".to_owned()));
    }
    assert_eq!(server.audited("use_refused").await.len(), 1);
    let counted = r#"approval_use_refusals_total{action="once",reason="already_consumed"}"#;
    assert!(server.metric(&format!("{counted} 1")).await);
    crate::rejections::audit(&server.app).await;
    let [entry] = server.audited("use_refused_again").await.try_into().expect("one entry");
    let refused = json!([{
        "requestId": id, "act": "consume", "code": "already_consumed", "caller": null, "count": 49
    }]);
    assert_eq!(entry["refusals"], refused);
    assert!(server.metric(&format!("{counted} 50")).await);
    crate::rejections::audit(&server.app).await;
    assert_eq!(server.audited("use_refused_again").await.len(), 1, "nothing more was refused");
    // In the next minute it is told at once again.
    consume(&server, &token, &params).await;
    assert_eq!(server.audited("use_refused").await.len(), 2);
}

/// Whatever the store does with a refusal, it is told, and the store is not asked again with each repetition.
#[tokio::test]
async fn refused_uses_outlast_a_store_that_fails() {
    let server = TestServer::new().await;
    let (id, token) = approved(&server).await;
    let params = ask("once")["params"].clone();
    assert_eq!(consume(&server, &token, &params).await.status, 200);
    server.faults.set(Fault::NotStored);
    assert_eq!(consume(&server, &token, &params).await.status, 503);
    assert_eq!(code(&consume(&server, &token, &params).await), (409, "already_consumed".to_owned()));
    crate::rejections::audit(&server.app).await;
    // What was taken is kept; and what comes meanwhile is counted apart.
    assert_eq!(consume(&server, &token, &params).await.status, 503);
    server.faults.set(Fault::Stored);
    crate::rejections::audit(&server.app).await;
    server.faults.set(Fault::None);
    crate::rejections::audit(&server.app).await;
    crate::rejections::audit(&server.app).await;
    let told = server.audited("use_refused_again").await;
    let counts: Vec<_> = told.iter().map(|entry| &entry["refusals"][0]["count"]).collect();
    assert_eq!(counts, [2, 1], "each is told once");
    assert!(told.iter().all(|entry| entry["refusals"][0]["requestId"] == json!(id)));
    assert_eq!(server.audited("use_refused").await.len(), 0);
}

/// Also if the store has stored it and could not say so, which to the caller is as if the gateway was killed in between.
#[tokio::test]
async fn the_same_key_gets_the_same_answer() {
    let server = TestServer::new().await;
    let params = ask("once")["params"].clone();
    for fault in [Fault::None, Fault::Stored] {
        let (_, token) = approved(&server).await;
        let body = json!({"token": token, "params": params});
        let send = async |key: &str, body: &Value| repeated(&server, "/api/guard/consume", key, body).await;
        let is_lost = fault == Fault::Stored;
        if is_lost {
            server.faults.set(fault);
            assert_eq!(send("run-1", &body).await.status, 503);
            server.faults.set(Fault::None);
        }
        let first = send("run-1", &body).await;
        assert_eq!((first.status.as_u16(), first.json()["replayed"] == true), (200, is_lost));
        server.clock.advance(MINUTE);
        let second = send("run-1", &body).await;
        let mut expected = first.json();
        expected["replayed"] = true.into();
        assert_eq!((second.json(), second.header("idempotent-replayed")), (expected.clone(), "true"));
        assert_eq!(code(&send("run-2", &body).await), (409, "already_consumed".to_owned()));
        let other = json!({"token": token, "params": {"ref": "v9"}});
        assert_eq!(code(&send("run-1", &other).await), (422, "idempotency_key_reused".to_owned()));
        // As it was then, though more has happened since, and it could not be consumed any more.
        server.post("/api/guard/outcome", &json!({"token": token, "status": "succeeded"})).await;
        server.clock.advance(60 * MINUTE);
        assert_eq!(send("run-1", &body).await.json(), expected);
        assert_eq!(server.look(&token).await["use"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_a_thousand_consumes() {
    let server = Arc::new(TestServer::new().await);
    let (_, token) = approved(&server).await;
    let body = json!({"token": token, "params": ask("once")["params"]});
    let barrier = Arc::new(tokio::sync::Barrier::new(1000));
    let calls = (0..1000).map(|_| {
        let (server, body, barrier) = (Arc::clone(&server), body.clone(), Arc::clone(&barrier));
        tokio::spawn(async move {
            barrier.wait().await;
            let mut timed_out = false;
            loop {
                let answer = server.post("/api/guard/consume", &body).await;
                // On a busy machine the disk may take too long for so many refusals to be noted.
                if answer.status != 503 {
                    return (answer, timed_out);
                }
                timed_out = true;
            }
        })
    });
    let mut any_timed_out = false;
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for answer in futures_util::future::join_all(calls).await {
        let (answer, timed_out) = answer.expect("it is answered");
        any_timed_out |= timed_out;
        *statuses.entry(answer.status.as_u16()).or_default() += 1;
        assert!(answer.status == 200 || answer.json()["error"] == "already_consumed", "{}", answer.text);
    }
    // A call that timed out may have consumed it, and says so as little as any other.
    let won = statuses.get(&200).copied().unwrap_or_default();
    assert!(won == 1 || (won == 0 && any_timed_out), "{statuses:?}");
    assert_eq!(server.audited("consumed").await.len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_named() {
    let server = TestServer::new().await;
    let (id, token) = approved(&server).await;
    let hash = "0".repeat(64);
    for (path, body, wrong) in [
        ("consume", json!({"token": token}), "params"),
        ("consume", json!({"token": token, "params": {}, "payloadHash": hash}), "payloadHash"),
        ("consume", json!({"token": token, "payloadHash": "00"}), "payloadHash"),
        ("consume", json!({"params": {}}), "token"),
        ("consume", json!({"token": token, "params": {}, "requestId": id}), "requestId"),
        ("outcome", json!({"token": token, "status": "done"}), "status"),
        ("outcome", json!({"token": token, "status": "failed", "detail": ""}), "detail"),
        ("outcome", json!({"token": token, "status": "failed", "detail": "x".repeat(501)}), "detail"),
        ("outcome", json!({"status": "failed"}), "token"),
    ] {
        let answer = server.post(&format!("/api/guard/{path}"), &body).await;
        assert_eq!(code(&answer), (400, "invalid_payload".to_owned()), "{body}");
        let error = &answer.json()["errors"][0];
        assert!(error["path"] == wrong || error["message"].to_string().contains(wrong), "{error}");
    }
    for path in ["consume", "outcome"] {
        let body = json!({"token": format!("{id}.x"), "params": {}, "status": "failed"});
        let mut body = body.as_object().expect("an object").clone();
        body.remove(if path == "consume" { "status" } else { "params" });
        let answer = server.post(&format!("/api/guard/{path}"), &Value::Object(body)).await;
        assert_eq!(code(&answer), (404, "not_found".to_owned()), "another's token");
    }
}

/// A token that got out is not enough.
#[tokio::test]
async fn only_the_caller_that_made_the_request_consumes() {
    let folder = tempfile::tempdir().expect("a folder");
    let [web, nightly] = [(); 2].map(|()| ApiKey::generate().expect("randomness"));
    let path = folder.path().join("access.yaml");
    let caller = |name, key: &ApiKey| {
        format!(
            "  {name}:\n    keys: [{{ sha256: {} }}]\n    requester: asserted\n    actions: [once]\n",
            key.digest()
        )
    };
    let file = format!("version: 1\ncallers:\n{}{}", caller("web", &web), caller("nightly", &nightly));
    std::fs::write(&path, file).expect("written");
    let server = TestServer::with(&[("COUNTERSIGN_ACCESS", &path.display().to_string())]).await;
    let send = async |key: Option<&ApiKey>, path: &str, body: &Value| {
        let mut request = post(path, body.to_string());
        if let Some(key) = key {
            let bearer = format!("Bearer {}", key.reveal());
            request.headers_mut().insert("authorization", bearer.parse().expect("a header"));
        }
        server.send(request).await
    };
    let made = send(Some(&web), "/api/guard/request", &ask("once")).await.json();
    let (id, token) = (made["requestId"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    server.press("U1", "approve", id).await;

    let body = json!({"token": token, "params": ask("once")["params"]});
    let done = json!({"token": token, "status": "succeeded"});
    for (path, body) in [("/api/guard/consume", &body), ("/api/guard/outcome", &done)] {
        assert_eq!(code(&send(None, path, body).await), (401, "unauthenticated".to_owned()));
        assert_eq!(code(&send(Some(&nightly), path, body).await), (403, "not_the_caller".to_owned()));
    }
    // Who it is does not open it without its token.
    let without = json!({"params": ask("once")["params"]});
    assert_eq!(
        code(&send(Some(&web), "/api/guard/consume", &without).await),
        (400, "invalid_payload".to_owned())
    );
    assert_eq!(server.look(token).await["use"], "unused");
    let refused = server.audited("use_refused").await;
    let told: Vec<_> =
        refused.iter().map(|entry| (&entry["act"], &entry["caller"], &entry["code"])).collect();
    let by = |act: &'static str| (json!(act), json!("nightly"), json!("not_the_caller"));
    let expected = [by("consume"), by("outcome")];
    assert_eq!(told, expected.iter().map(|(act, caller, code)| (act, caller, code)).collect::<Vec<_>>());

    assert_eq!(send(Some(&web), "/api/guard/consume", &body).await.status, 200);
    assert_eq!(send(Some(&web), "/api/guard/outcome", &done).await.json()["use"], "succeeded");
    assert_eq!(server.audited("consumed").await[0]["caller"], "web");
}
