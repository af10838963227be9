//! The routes of callers.

use insta::assert_snapshot;

use super::*;

const MINUTE: u64 = 60_000;

#[tokio::test]
async fn a_request_is_made_and_decided() {
    let server = TestServer::new().await;
    assert_snapshot!(server.post("/api/guard/request", &ask("deploy")).await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "canAct": [
        {
          "act": "approve",
          "who": [
            "U1",
            "U2",
            "U3"
          ]
        }
      ],
      "expiresAt": "2026-05-28T20:36:40.000Z",
      "payloadHashVersion": 2,
      "payloadSalt": "[payloadSalt]",
      "policy": {
        "hash": "[hash]",
        "minApprovals": 2,
        "requiredPersonas": [],
        "timeoutSec": 600
      },
      "replayed": false,
      "requestId": "[requestId]",
      "status": "ready_for_approval",
      "token": "[token]",
      "undeliverable": "slack_not_configured",
      "where": []
    }
    "#);

    let (id, token) = server.open("deploy").await;
    assert_snapshot!(server.get(&format!("/api/guard/wait?token={token}&timeoutSec=0")).await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "approvers": [],
      "decidedAt": null,
      "decisionParams": null,
      "overrides": null,
      "payloadHash": "[payloadHash]",
      "payloadHashVersion": 2,
      "payloadSalt": "[payloadSalt]",
      "policyHash": "[policyHash]",
      "reason": null,
      "removed": null,
      "status": "ready_for_approval"
    }
    "#);
    server.clock.advance(1000);
    server.press("U1", "approve", &id).await;
    assert_snapshot!(server.get(&format!("/api/guard/status?requestId={id}")).await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "action": "deploy",
      "approvalsCount": 1,
      "approvers": [
        "U1"
      ],
      "canAct": [
        {
          "act": "approve",
          "who": [
            "U2",
            "U3"
          ]
        }
      ],
      "createdAt": "2026-05-28T20:26:40.000Z",
      "decidedAt": null,
      "expiresAt": "2026-05-28T20:36:40.000Z",
      "lineageId": "[lineageId]",
      "minApprovals": 2,
      "payloadHash": "[payloadHash]",
      "payloadHashVersion": 2,
      "personaState": {},
      "policyHash": "[policyHash]",
      "requestId": "[requestId]",
      "requiredPersonas": [],
      "status": "ready_for_approval",
      "undeliverable": "slack_not_configured",
      "where": []
    }
    "#);
    server.press("U2", "approve", &id).await;
    // A terminal state is returned at once, whatever the timeout.
    assert_snapshot!(server.get(&format!("/api/guard/wait?token={token}&timeoutSec=60")).await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "approvers": [
        "U1",
        "U2"
      ],
      "decidedAt": "2026-05-28T20:26:41.000Z",
      "decisionParams": {
        "password": "[redacted]",
        "ref": "v1.2.3",
        "replicas": 3
      },
      "overrides": {},
      "payloadHash": "[payloadHash]",
      "payloadHashVersion": 2,
      "payloadSalt": "[payloadSalt]",
      "policyHash": "[policyHash]",
      "reason": null,
      "receipt": "[receipt]",
      "removed": [],
      "status": "approved",
      "use": "unused"
    }
    "#);
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_request() {
    let server = TestServer::new().await;
    let send = async |key: &str, body: Value| {
        let mut request = post("/api/guard/request", body.to_string());
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        server.send(request).await
    };
    let first = send("a", ask("deploy")).await;
    let (mut expected, again) = (first.json(), send("a", ask("deploy")).await);
    assert_eq!(expected["replayed"], false);
    expected["replayed"] = true.into();
    assert_eq!(again.json(), expected);
    assert_ne!(first.json()["requestId"], send("b", ask("deploy")).await.json()["requestId"]);
    assert_snapshot!(send("a", ask("guarded")).await.shown(), @r#"
    422 Unprocessable Entity
    content-type: application/problem+json
    {
      "detail": "this idempotency key was used with another body",
      "error": "idempotency_key_reused",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "urn:countersign:problem:idempotency_key_reused"
    }
    "#);
    for key in ["", "a b", "é", &"k".repeat(256)] {
        let answer = send(key, ask("deploy")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["errors"][0]["path"]),
            (400, &json!("Idempotency-Key"))
        );
    }
}

/// A job that runs twice with one key is told that the approval is the first run's.
#[tokio::test]
async fn a_replayed_answer_is_marked() {
    let server = TestServer::new().await;
    let run = async || {
        let mut request = post("/api/guard/request", ask("guarded").to_string());
        request.headers_mut().insert("idempotency-key", "run-4711".parse().unwrap());
        server.send(request).await
    };
    let first = run().await;
    assert_eq!((first.header("idempotent-replayed"), &first.json()["replayed"]), ("", &json!(false)));
    let id = first.json()["requestId"].as_str().unwrap().to_owned();
    server.press("U7", "persona_ack:security", &id).await;
    server.press("U1", "approve", &id).await;
    // Yesterday's approval, on the last moment that the key counts.
    server.clock.advance(10 * 60_000 + 24 * 60 * 60_000 - 1);
    let second = run().await;
    assert_eq!((&second.json()["requestId"], &second.json()["status"]), (&json!(id), &json!("approved")));
    assert_eq!((second.header("idempotent-replayed"), &second.json()["replayed"]), ("true", &json!(true)));
    server.clock.advance(1);
    let third = run().await;
    assert_ne!(third.json()["requestId"], json!(id), "a key lives as long as its request and a day");
    assert_eq!((third.header("idempotent-replayed"), &third.json()["replayed"]), ("", &json!(false)));
}

#[tokio::test]
async fn a_request_that_no_policy_admits_is_denied() {
    let server = TestServer::new().await;
    assert_snapshot!(server.post("/api/guard/request", &ask("unheard_of")).await.shown(), @r#"
    403 Forbidden
    content-type: application/problem+json
    {
      "detail": "no policy admits the action `unheard_of`",
      "error": "policy_denied",
      "reasons": [
        {
          "code": "unknown_action",
          "message": "no policy admits the action `unheard_of`",
          "path": "action"
        }
      ],
      "status": 403,
      "title": "Forbidden",
      "type": "urn:countersign:problem:policy_denied"
    }
    "#);
}

#[tokio::test]
async fn a_long_poll_answers_when_the_request_changes() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let path = format!("/api/guard/wait?token={token}&timeoutSec=60");
    let wait = server.get(&path);
    tokio::pin!(wait);
    // The call has begun to wait once it is registered.
    while server.app.gateway.watchers().watched() == 0 {
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(wait.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        tokio::task::yield_now().await;
    }
    let (answer, _) = tokio::join!(wait, server.press("U1", "approve", &id));
    assert_eq!(answer.json()["approvers"], json!(["U1"]));
    assert_eq!(server.app.gateway.watchers().watched(), 0);
}

#[tokio::test]
async fn a_shutdown_ends_a_long_poll() {
    let server = TestServer::new().await;
    let (_, token) = server.open("deploy").await;
    server.app.shutdown.cancel();
    let answer = server.get(&format!("/api/guard/wait?token={token}&timeoutSec=60")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("ready_for_approval")));
}

#[tokio::test]
async fn a_token_may_come_in_several_places_but_not_differ() {
    let server = TestServer::new().await;
    let (_, token) = server.open("deploy").await;
    let get = async |path: String, bearer: &str| {
        let request = Request::get(path).header("authorization", format!("bearer {bearer}"));
        server.send(request.body(Body::empty()).unwrap()).await
    };
    let path = "/api/guard/wait?timeoutSec=0";
    assert_eq!(get(path.into(), &token).await.status, 200);
    assert_eq!(get(format!("{path}&token={token}"), &token).await.status, 200);
    assert_snapshot!(get(format!("{path}&token={token}x"), &token).await.shown(), @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "detail": "what was sent is not valid",
      "error": "invalid_payload",
      "errors": [
        {
          "message": "was sent twice, and differs",
          "path": "token"
        }
      ],
      "status": 400,
      "title": "Bad Request",
      "type": "urn:countersign:problem:invalid_payload"
    }
    "#);

    let mut request = post("/api/guard/wait", "{}");
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    assert_eq!(server.send(request).await.status, 200);
    // A malformed token and the token of another request are indistinguishable.
    let (_, other) = server.open("deploy").await;
    let mixed = format!("{}.{}", token.split_once('.').unwrap().0, other.split_once('.').unwrap().1);
    for wrong in [mixed.as_str(), "x", "req_.", &token[..token.len() - 1], &format!("{token}0")] {
        let answer = server.post("/api/guard/wait", &json!({"token": wrong})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (404, &json!("not_found")), "{wrong}");
    }
}

#[tokio::test]
async fn a_request_is_cancelled_once() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    let cancel = json!({"token": token, "reason": "wrong branch"});
    assert_snapshot!(server.post("/api/guard/cancel", &cancel).await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "approvers": [],
      "decidedAt": "2026-05-28T20:26:40.000Z",
      "decisionParams": null,
      "overrides": null,
      "payloadHash": "[payloadHash]",
      "payloadHashVersion": 2,
      "payloadSalt": "[payloadSalt]",
      "policyHash": "[policyHash]",
      "reason": "wrong branch",
      "receipt": "[receipt]",
      "removed": null,
      "status": "cancelled"
    }
    "#);
    assert_snapshot!(server.post("/api/guard/cancel", &cancel).await.shown(), @r#"
    409 Conflict
    content-type: application/problem+json
    {
      "detail": "the request is already cancelled",
      "error": "already_decided",
      "status": 409,
      "title": "Conflict",
      "type": "urn:countersign:problem:already_decided"
    }
    "#);
    let again = json!({"originalRequestId": id, "actor": {"id": "U9", "source": "slack"}, "token": token});
    assert_snapshot!(server.post("/api/guard/rerequest", &again).await.shown(), @r#"
    403 Forbidden
    content-type: application/problem+json
    {
      "detail": "the caller took the request back",
      "error": "not_allowed",
      "status": 403,
      "title": "Forbidden",
      "type": "urn:countersign:problem:not_allowed"
    }
    "#);
}

#[tokio::test]
async fn a_request_is_made_again_after_the_cooldown_and_not_too_often() {
    let server = TestServer::new().await;
    let (id, token) = server.open("deploy").await;
    server.clock.advance(10 * MINUTE);
    server.run_scheduler().await;
    let again = json!({"originalRequestId": id, "actor": {"id": "U9", "source": "slack"}, "token": token});
    assert_snapshot!(server.post("/api/guard/rerequest", &again).await.shown(), @r#"
    429 Too Many Requests
    content-type: application/problem+json
    retry-after: 300
    {
      "detail": "this request can be made again in 300 s",
      "error": "cooldown",
      "status": 429,
      "title": "Too Many Requests",
      "type": "urn:countersign:problem:cooldown"
    }
    "#);
    server.clock.advance(5 * MINUTE);
    assert_snapshot!(server.post("/api/guard/rerequest", &again).await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "expiresAt": "2026-05-28T20:51:40.000Z",
      "lineageId": "[lineageId]",
      "payloadHashVersion": 2,
      "payloadSalt": "[payloadSalt]",
      "replayed": false,
      "requestId": "[requestId]",
      "status": "ready_for_approval",
      "token": "[token]"
    }
    "#);
    server.clock.advance(10 * MINUTE);
    server.run_scheduler().await;
    server.clock.advance(5 * MINUTE);
    assert_snapshot!(server.post("/api/guard/rerequest", &again).await.shown(), @r#"
    429 Too Many Requests
    content-type: application/problem+json
    retry-after: 84600
    {
      "detail": "this request was made 2 times within the allowed window",
      "error": "rate_limited",
      "status": 429,
      "title": "Too Many Requests",
      "type": "urn:countersign:problem:rate_limited"
    }
    "#);
    let chain = server.get(&format!("/api/guard/lineage?requestId={id}")).await.json();
    let statuses: Vec<_> = chain["requests"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!((&chain["lineageId"], statuses), (&json!(id), vec![&json!("expired"); 2]));
}

/// The holder of the token can make the payload hash again, and nobody else.
#[tokio::test]
async fn the_salt_is_for_the_holder_of_the_token_alone() {
    let server = TestServer::new().await;
    let made = server.post("/api/guard/request", &ask("deploy")).await.json();
    let (id, token) = (made["requestId"].as_str().unwrap(), made["token"].as_str().unwrap());
    let salt = made["payloadSalt"].as_str().unwrap();
    assert_eq!(salt.len(), 64);
    let status = format!("/api/guard/status?requestId={id}");
    let with_token = || Request::get(&status).header("authorization", format!("Bearer {token}"));
    assert_eq!(server.send(with_token().body(Body::empty()).unwrap()).await.json()["payloadSalt"], salt);
    let looked = server.look(token).await;
    assert_eq!(looked["payloadSalt"], salt);

    let key: [u8; 32] = hex::decode(salt).unwrap().try_into().unwrap();
    let params = ask("deploy")["params"].as_object().unwrap().clone();
    let commit = |(key_name, value): (&String, &Value)| {
        let text = countersign_core::lifecycle::canonical(value);
        (key_name.clone(), hex::encode(countersign_core::mac::hmac(&key, text.as_bytes())).into())
    };
    let object = Value::Object(params.iter().map(commit).collect());
    let hash = countersign_core::lifecycle::Digest::of_json(&object).to_string();
    assert_eq!(looked["payloadHash"], hash.as_str());

    let lineage = format!("/api/guard/lineage?requestId={id}");
    for answer in [server.get(&status).await, server.get(&lineage).await] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.text.contains(&hash) && answer.text.contains("payloadHashVersion"), "{}", answer.text);
        assert!(!answer.text.contains(salt) && !answer.text.contains("payloadSalt"), "{}", answer.text);
    }
    let (other, _) = server.open("deploy").await;
    assert_ne!(server.get(&format!("/api/guard/status?requestId={other}")).await.json()["payloadHash"], hash);
}

#[tokio::test]
async fn a_schema_is_shown_without_hidden_parameters() {
    let server = TestServer::new().await;
    assert_snapshot!(server.get("/api/schemas/deploy").await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "properties": {
        "ref": {
          "maxLength": 40,
          "type": "string"
        },
        "replicas": {
          "maximum": 9,
          "minimum": 1,
          "type": "integer"
        }
      },
      "required": [
        "ref"
      ],
      "type": "object"
    }
    "#);
    for action in ["guarded", "unheard_of", "%00", "*"] {
        assert_eq!(server.get(&format!("/api/schemas/{action}")).await.status, 404, "{action}");
    }
}

#[tokio::test]
async fn a_client_address_is_rate_limited() {
    let server =
        TestServer::with(&[("RATE_LIMIT_CAPACITY", "2"), ("RATE_LIMIT_REFILL_PER_SEC", "0.01")]).await;
    let send = async |address: &str| {
        let mut request = post("/api/guard/request", ask("deploy").to_string());
        request.extensions_mut().insert(crate::http::Peer(address.parse().unwrap()));
        server.send(request).await
    };
    assert_eq!(send("192.0.2.1").await.status, 200);
    assert_eq!(send("192.0.2.1").await.status, 200);
    let refused = send("192.0.2.1").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (429, &json!("rate_limited")));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=100).contains(&wait), "{wait}");
    assert_eq!(send("192.0.2.2").await.status, 200);
    assert!(server.metric(r#"security_events_total{type="rate_limited"} 1"#).await);
}
