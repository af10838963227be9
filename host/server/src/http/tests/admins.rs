//! The admin routes, and who may call them.

use insta::assert_snapshot;

use super::*;

const TOKEN: &str = "correct-horse-battery-staple";

/// Every admin route.
pub(super) const ROUTES: [(&str, &str); 22] = [
    ("POST", "/api/admin/reload-policy"),
    ("GET", "/api/admin/access"),
    ("GET", "/api/admin/state"),
    ("GET", "/api/admin/requests"),
    ("GET", "/api/admin/requests/req_00000000000000000000000000"),
    ("POST", "/api/admin/requests/req_00000000000000000000000000/cancel"),
    ("POST", "/api/admin/requests/req_00000000000000000000000000/expire"),
    ("POST", "/api/admin/requests/req_00000000000000000000000000/resend"),
    ("GET", "/api/admin/webhooks/dead"),
    ("POST", "/api/admin/webhooks/dead/req_00000000000000000000000000-0-webhook-lake/resend"),
    ("PUT", "/api/admin/modules"),
    ("GET", "/api/admin/modules"),
    ("POST", "/api/admin/policy-sets"),
    ("GET", "/api/admin/policy-sets"),
    ("GET", "/api/admin/policy-sets/active"),
    ("GET", "/api/admin/policy-sets/history"),
    ("POST", "/api/admin/policy-sets/rollback"),
    ("POST", "/api/admin/policy-sets/00/activate"),
    ("POST", "/api/admin/policy-sets/00/shadow"),
    ("GET", "/api/admin/shadow"),
    ("DELETE", "/api/admin/shadow"),
    ("POST", "/api/admin/shadow/explain"),
];

async fn server() -> TestServer {
    TestServer::with(&[("ADMIN_TOKEN", TOKEN)]).await
}

fn call(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

impl TestServer {
    async fn admin(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let mut call = call(method, path, body);
        call.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        self.send(call).await
    }

    async fn reload(&self) -> Answer {
        self.admin("POST", "/api/admin/reload-policy", Body::empty()).await
    }

    async fn active(&self) -> String {
        self.get("/readyz").await.json()["policy"].as_str().unwrap().to_owned()
    }

    fn policy_set(&self) -> String {
        std::fs::read_to_string(self.policy_file()).unwrap()
    }

    fn policy_file(&self) -> std::path::PathBuf {
        self.folder.path().join("policies/policy-set.yaml")
    }

    fn edit(&self, from: &str, to: &str) {
        let text = self.policy_set();
        assert!(text.contains(from), "{from}");
        std::fs::write(self.policy_file(), text.replace(from, to)).unwrap();
    }

    /// Stores the folder's set with one text replaced; returns its hash.
    async fn store_set(&self, from: &str, to: &str) -> String {
        let document = self.policy_set().replace(from, to);
        let body = json!({"document": document, "schemas": {"deploy": serde_json::from_str::<Value>(SCHEMA).unwrap()}});
        let answer = self.admin("POST", "/api/admin/policy-sets", body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["hash"].as_str().unwrap().to_owned()
    }

    async fn activate(&self, hash: &str, expected: &str) -> Answer {
        let body = json!({"expectedCurrent": expected, "actor": "ada"});
        self.admin("POST", &format!("/api/admin/policy-sets/{hash}/activate"), body.to_string()).await
    }
}

#[tokio::test]
async fn without_a_token_there_are_no_admin_routes() {
    let server = TestServer::new().await;
    let elsewhere = server.get("/nowhere").await;
    for (method, path) in
        ROUTES.into_iter().chain([("GET", "/api/admin/none"), ("DELETE", "/api/admin/modules")])
    {
        let answer = server.admin(method, path, "{}").await;
        assert_eq!((answer.status, &answer.text), (elsewhere.status, &elsewhere.text), "{method} {path}");
    }
    assert_eq!(elsewhere.status, 404);
    assert!(server.metric("security_events_total{type=\"unauthorized\"} 0").await);
}

#[tokio::test]
async fn a_wrong_token_is_rejected_and_counted() {
    let server = server().await;
    let mut turned_away = 0;
    for (method, path) in
        ROUTES.into_iter().chain([("GET", "/api/admin/none"), ("DELETE", "/api/admin/modules")])
    {
        for (name, value) in [
            ("authorization", "Bearer correct-horse-battery-stapl"),
            ("authorization", "Basic correct-horse-battery-staple"),
            ("authorization", "Bearer"),
            ("x-admin-token", ""),
            ("x-nothing", ""),
        ] {
            let mut call = call(method, path, "{}");
            call.headers_mut().insert(name, value.parse().unwrap());
            let answer = server.send(call).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.json()["error"], "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            turned_away += 1;
        }
    }
    assert!(server.metric(&format!("security_events_total{{type=\"unauthorized\"}} {turned_away}")).await);
    // Other routes do not need the token.
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn the_legacy_header_authenticates_and_a_claimed_actor_is_audited_as_claimed() {
    let server = server().await;
    let mut call = Request::post("/api/admin/reload-policy").body(Body::empty()).unwrap();
    call.headers_mut().insert("x-admin-token", TOKEN.parse().unwrap());
    call.headers_mut().insert("x-admin-actor", "grace".parse().unwrap());
    let answer = server.send(call).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = server.admin("POST", "/api/admin/reload-policy", json!({"actor": "ada"}).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    server.reload().await;
    let entries = server.audited("policy_reloaded").await;
    let told: Vec<_> = entries
        .iter()
        .map(|entry| [&entry["actor"], &entry["authentication"], &entry["claimedActor"]])
        .collect();
    let (token, how) = (json!("admin-token"), json!("admin_token"));
    let none = Value::Null;
    let expected = [
        [&none, &none, &none],
        [&token, &how, &json!("grace")],
        [&token, &how, &json!("ada")],
        [&token, &how, &none],
    ];
    assert_eq!(told, expected);
    assert_eq!((&entries[0]["address"], &entries[3]["address"]), (&none, &json!("0.0.0.0")));
    for body in [r#"{"actor": ""}"#, r#"{"actor": 5}"#, r#"{"who": "x"}"#, "[", "5"] {
        let answer = server.admin("POST", "/api/admin/reload-policy", body).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (400, &json!("invalid_payload")),
            "{body}"
        );
    }
    assert_eq!(server.audited("policy_reloaded").await.len(), 4);
}

/// Whose members would be read by their places.
#[tokio::test]
async fn a_list_is_no_body() {
    let server = server().await;
    for body in ["[]", "[\"ada\"]", "null", "1"] {
        let answer = server.admin("POST", "/api/admin/reload-policy", body.to_owned()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_reload_answers_with_what_is_in_force() {
    let server = server().await;
    let before = server.active().await;
    server.edit("approvals: 2", "approvals: 3");
    let answer = server.reload().await;
    assert_snapshot!(answer.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "actions": [
        "deploy",
        "guarded",
        "once"
      ],
      "hash": "[hash]",
      "ok": true,
      "outcome": "ok",
      "previous": "[previous]"
    }
    "#);
    assert_eq!(answer.json()["previous"], before);
    assert_eq!(answer.json()["hash"], server.active().await);
    assert_ne!(server.active().await, before);
    assert!(server.metric(r#"policy_reloads_total{outcome="ok",source="api"} 1"#).await);
}

#[tokio::test]
async fn a_bad_set_is_refused_and_each_error_has_its_place() {
    let server = server().await;
    let before = server.active().await;
    server.edit("approvals: 2", "aprovals: 2");
    server.edit("timeout: 10m\n    redact", "timeout: soon\n    redact");
    let answer = server.reload().await;
    let text = answer.shown().replace(&server.folder.path().display().to_string(), "");
    assert_snapshot!(text, @r#"
    422 Unprocessable Entity
    content-type: application/problem+json
    {
      "detail": "the policy set is refused, and nothing has changed",
      "error": "invalid_policy_set",
      "errors": [
        {
          "message": "`soon` is no duration such as `10m`: expected number at 0",
          "path": "/policies/policy-set.yaml:10:14"
        },
        {
          "message": "configuration of `quorum`: Additional properties are not allowed ('aprovals' was unexpected); did you mean `approvals`?",
          "path": "/policies/policy-set.yaml:15:15"
        }
      ],
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "urn:countersign:problem:invalid_policy_set"
    }
    "#);
    assert_eq!(server.active().await, before);
    let entry = server.audited("policy_reload_failed").await.pop().unwrap();
    assert_eq!(entry["errors"], answer.json()["errors"]);
    assert_eq!((&entry["previousHash"], &entry["hash"]), (&json!(before), &Value::Null));
    assert!(server.metric(r#"policy_reloads_total{outcome="failed",source="api"} 1"#).await);
}

#[tokio::test]
async fn a_set_by_http_from_its_modules_to_its_rollback() {
    let server = server().await;
    let first = server.active().await;
    let answer = server.admin("PUT", "/api/admin/modules", countersign_test_modules::bytes("quorum")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let inspection = answer.json();
    assert_eq!((&inspection["name"], &inspection["size"].is_u64()), (&json!("quorum"), &true));
    assert!(inspection["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(inspection["configSchema"]["type"], "object");
    assert!(inspection["reasons"][0]["help"].is_string());

    let second = server.store_set("approvals: 2", "approvals: 3").await;
    assert_eq!(server.active().await, first);
    let (open, _) = server.open("deploy").await;
    let answer = server.activate(&second, &first).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["hash"]), (200, &json!(second)), "{}", answer.text);
    assert_eq!(server.active().await, second);

    // A caller that expects the first set to be still in force gets a conflict.
    let answer = server.activate(&first, &first).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (409, &json!("conflict")));
    assert!(answer.json()["detail"].as_str().unwrap().contains(&second));

    let active = server.admin("GET", "/api/admin/policy-sets/active", "").await.json();
    assert_eq!(
        (&active["hash"], &active["what"], &active["actor"]),
        (&json!(second), &json!("activate"), &json!("admin-token"))
    );
    assert_eq!(active["since"], START.to_string());
    assert!(active["document"].as_str().unwrap().contains("approvals: 3"));
    assert_eq!(active["modules"]["quorum"], inspection["digest"]);

    let sets = server.admin("GET", "/api/admin/policy-sets", "").await.json();
    assert_eq!(sets["active"], second);
    let told: Vec<_> = sets["sets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|set| (&set["hash"], &set["active"], &set["openRequests"]))
        .collect();
    assert_eq!(told, [(&json!(second), &json!(true), &json!(0)), (&json!(first), &json!(false), &json!(1))]);
    let under = &server.get(&format!("/api/guard/status?requestId={open}")).await.json()["policyHash"];
    assert_eq!(
        sets["openRequests"],
        json!([{"policyHash": under, "action": "deploy", "count": 1, "active": false}])
    );

    let rollback = json!({"expectedCurrent": second}).to_string();
    let answer = server.admin("POST", "/api/admin/policy-sets/rollback", rollback.clone()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["hash"]), (200, &json!(first)), "{}", answer.text);
    let answer = server.admin("POST", "/api/admin/policy-sets/rollback", rollback).await;
    assert_eq!(answer.status, 409);

    let history = server.admin("GET", "/api/admin/policy-sets/history", "").await.json();
    let told: Vec<String> = history["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let text = |key: &str| change[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", text("what"), text("source"), text("outcome"), text("actor"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "rollback api conflict admin-token",
            "rollback api ok admin-token",
            "activate api conflict admin-token",
            "activate api ok admin-token",
            "start start ok -",
        ]
    );
    assert_eq!(history["next"], Value::Null);
    let page = server.admin("GET", "/api/admin/policy-sets/history?limit=2", "").await.json();
    let next = page["next"].as_u64().unwrap();
    let rest = server
        .admin("GET", &format!("/api/admin/policy-sets/history?limit=2&before={next}"), "")
        .await
        .json();
    assert_eq!(rest["changes"][0]["what"], "activate");
    assert_eq!(server.admin("GET", "/api/admin/policy-sets/history?limit=x", "").await.status, 400);

    let modules = server.admin("GET", "/api/admin/modules", "").await.json();
    let modules = modules["modules"].as_array().unwrap();
    assert_eq!(modules.len(), 3);
    assert!(modules.iter().all(|module| module["inMemory"] == true && module["name"].is_string()));
}

#[tokio::test]
async fn an_invalid_module_or_set_is_not_stored() {
    let server = server().await;
    for (bytes, says) in [
        (b"text".to_vec(), "no WebAssembly"),
        (b"\0asm\x01\0\0\0".to_vec(), "core WebAssembly module"),
        (wat::parse_str("(component (import \"now\" (func)))").unwrap(), "imports `now`"),
    ] {
        let answer = server.admin("PUT", "/api/admin/modules", bytes.clone()).await;
        let body = answer.json();
        assert_eq!((answer.status.as_u16(), &body["error"]), (422, &json!("invalid_module")));
        assert!(body["detail"].as_str().unwrap().contains(says), "{body}");
        assert_eq!(body["errors"][0]["path"], "");
        let entry = server.audited("policy_reload_failed").await.pop().unwrap();
        assert_eq!(entry["errors"][0]["path"], format!("sha256:{}", Digest::of(&bytes)));
    }
    let answer = server.admin("PUT", "/api/admin/modules", vec![0; (2 << 20) + 1]).await;
    assert_eq!(answer.status, 413, "{}", answer.text);

    let sets = async || {
        server.admin("GET", "/api/admin/policy-sets", "").await.json()["sets"].as_array().unwrap().len()
    };
    for (body, status, code) in [
        (json!({"document": "version: 2"}), 422, "invalid_policy_set"),
        (json!({"document": ""}), 422, "invalid_policy_set"),
        (json!({"document": 5}), 400, "invalid_payload"),
        (json!({}), 400, "invalid_payload"),
        (json!({"document": "x", "surprise": 1}), 400, "invalid_payload"),
    ] {
        let answer = server.admin("POST", "/api/admin/policy-sets", body.to_string()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (status, &json!(code)), "{body}");
    }
    assert_eq!(sets().await, 1);
    let active = server.active().await;
    for (hash, expected, status) in [
        ("00", active.as_str(), 400),
        (&"00".repeat(32), &active, 404),
        (&active, "", 400),
        (&active, &active, 200),
        (&format!("sha256:{active}"), &active, 200),
    ] {
        assert_eq!(server.activate(hash, expected).await.status, status, "{hash} {expected}");
    }
    let without = server.admin("POST", &format!("/api/admin/policy-sets/{active}/activate"), "{}").await;
    assert_eq!(without.status, 400);
    assert!(without.text.contains("expectedCurrent"), "{}", without.text);
}

/// Waits until the shadow has evaluated this many events.
async fn judged(server: &TestServer, count: u64) -> Value {
    let judged = async {
        loop {
            let shadow = server.admin("GET", "/api/admin/shadow", "").await.json();
            if shadow["judged"].as_u64() >= Some(count) {
                return shadow;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), judged).await.expect("it judges")
}

#[tokio::test]
async fn a_shadow_shows_what_a_change_would_do() {
    let server = server().await;
    let first = server.active().await;
    let (early, _) = server.open("deploy").await;
    assert_eq!(server.admin("GET", "/api/admin/shadow", "").await.status, 404);
    assert_eq!(server.admin("DELETE", "/api/admin/shadow", "").await.status, 404);
    let in_force = server.admin("POST", &format!("/api/admin/policy-sets/{first}/shadow"), "").await;
    assert_eq!((in_force.status.as_u16(), &in_force.json()["error"]), (409, &json!("in_force")));

    let second = server.store_set("approvals: 2", "approvals: 1").await;
    let answer = server.admin("POST", &format!("/api/admin/policy-sets/{second}/shadow"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let (id, token) = server.open("deploy").await;
    server.press("U5", "approve", &id).await;
    server.press("U1", "approve", &id).await;
    assert_eq!(server.look(&token).await["status"], "ready_for_approval", "it has no effect");
    server.press("U2", "approve", &id).await;
    assert_eq!(server.look(&token).await["status"], "approved");
    // It is older than the shadow, so the memo that the candidate would have for it is unknown.
    server.press("U1", "approve", &early).await;
    server.open("guarded").await;

    let shadow = judged(&server, 4).await;
    assert!(!shadow.to_string().contains("hunter2"), "{shadow}");
    assert_eq!((&shadow["hash"], &shadow["beside"]), (&json!(second), &json!(first)));
    let kind = "approve: counted(ready_for_approval) -> counted(approved)";
    assert_eq!(
        shadow["differences"],
        json!([{
            "action": "deploy", "kind": kind, "count": 1,
            "explained": null, "explainedBy": null, "explainedAt": null,
        }])
    );
    assert_eq!(
        shadow["samples"],
        json!([{
            "at": START.to_string(), "action": "deploy", "requestId": id, "event": "approve",
            "active": "counted(ready_for_approval)", "candidate": "counted(approved)",
        }])
    );
    let counts =
        ["judged", "same", "different", "unjudged", "dropped", "unexplained"].map(|key| shadow[key].as_u64());
    assert_eq!(counts, [4, 3, 1, 2, 0, 1].map(Some), "{shadow}");
    for (action, result, count) in
        [("deploy", "same", 2), ("guarded", "same", 1), ("deploy", "different", 1), ("deploy", "unjudged", 2)]
    {
        let line = format!("policy_shadow_events_total{{action=\"{action}\",result=\"{result}\"}} {count}");
        assert!(server.metric(&line).await, "{line}");
    }
    let sets = server.admin("GET", "/api/admin/policy-sets", "").await.json();
    assert_eq!((&sets["sets"][0]["hash"], &sets["sets"][0]["shadow"]), (&json!(second), &json!(true)));

    // Activation can require a result of the shadow.
    let activate = async |events: u64, hash: &str| {
        let body = json!({"expectedCurrent": first, "requireShadow": {"events": events}});
        server.admin("POST", &format!("/api/admin/policy-sets/{hash}/activate"), body.to_string()).await
    };
    let third = server.store_set("approvals: 2", "approvals: 3").await;
    for (events, hash, says) in
        [(1, &third, "not the shadow"), (9, &second, "4 of the 9"), (4, &second, "1 kinds of difference")]
    {
        let answer = activate(events, hash).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (409, &json!("shadow_not_ready")));
        assert!(answer.text.contains(says), "{}", answer.text);
    }
    let explain = async |action: &str, kind: &str, why: &str| {
        let body = json!({"action": action, "kind": kind, "why": why, "actor": "ada"});
        server.admin("POST", "/api/admin/shadow/explain", body.to_string()).await
    };
    assert_eq!(explain("deploy", "another", "because").await.status, 404);
    assert_eq!(explain("deploy", kind, "").await.status, 400);
    let shadow = explain("deploy", kind, "one approval is what we want").await.json();
    assert_eq!(
        (&shadow["unexplained"], &shadow["differences"][0]["explainedBy"]),
        (&json!(0), &json!("admin-token"))
    );
    let entry = server.audited("policy_shadow_explained").await.pop().unwrap();
    assert_eq!((&entry["kind"], &entry["why"]), (&json!(kind), &json!("one approval is what we want")));
    assert_eq!((&entry["actor"], &entry["claimedActor"]), (&json!("admin-token"), &json!("ada")));
    assert_eq!(activate(4, &second).await.status, 200);
    assert_eq!(server.active().await, second);
    assert_eq!(server.admin("GET", "/api/admin/shadow", "").await.status, 404, "it has arrived");
    assert_eq!(server.audited("policy_shadow_started").await.len(), 1);
}

#[tokio::test]
async fn a_shadow_with_the_same_rules_shows_no_difference() {
    let server = server().await;
    // Another description: another hash, the same rules.
    let second = server.store_set("description: Two of three", "description: Two, of three").await;
    let answer = server.admin("POST", &format!("/api/admin/policy-sets/{second}/shadow"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut deploy = Vec::new();
    for _ in 0..3 {
        deploy.push(server.open("deploy").await);
    }
    let edits = [("replicas", "5")];
    server.press("U9", "approve", &deploy[0].0).await;
    server.press("U1", "approve", &deploy[0].0).await;
    let edited = server.send(server.signed(&modal("U2", &deploy[0].0, &edits))).await;
    assert_eq!(edited.status, 200, "{}", edited.text);
    server.approve_as_it_stands("U3", &deploy[0]).await;
    server.press("U1", "deny", &deploy[1].0).await;
    server.post("/api/guard/cancel", &json!({"token": deploy[2].1})).await;
    server
        .post(
            "/api/guard/rerequest",
            &json!({"originalRequestId": deploy[1].0, "token": deploy[1].1, "actor": {"id": "U9", "source": "slack"}}),
        )
        .await;
    server.clock.advance(301_000);
    let answer = server
        .post(
            "/api/guard/rerequest",
            &json!({"originalRequestId": deploy[1].0, "token": deploy[1].1, "actor": {"id": "U9", "source": "slack"}}),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let (guarded, _) = server.open("guarded").await;
    server.press("U1", "approve", &guarded).await;
    server.press("U7", "persona_ack:security", &guarded).await;
    server.press("U1", "approve", &guarded).await;
    server.post("/api/guard/request", &ask("unknown")).await;
    server.clock.advance(3_600_000);
    server.run_scheduler().await;
    let shadow = judged(&server, 15).await;
    assert_eq!(shadow["different"], 0, "{shadow}");
    assert_eq!((&shadow["unjudged"], &shadow["samples"]), (&json!(0), &json!([])), "{shadow}");
    let stood = server.admin("DELETE", "/api/admin/shadow", "").await.json();
    assert_eq!(stood["judged"], shadow["judged"]);
    assert_eq!(server.admin("GET", "/api/admin/shadow", "").await.status, 404);
    assert_eq!(server.audited("policy_shadow_stopped").await.len(), 1);
}

#[tokio::test]
async fn a_shadow_restarts_when_another_set_is_in_force() {
    let server = server().await;
    let first = server.active().await;
    let second = server.store_set("approvals: 2", "approvals: 1").await;
    let third = server.store_set("approvals: 2", "approvals: 3").await;
    server.admin("POST", &format!("/api/admin/policy-sets/{second}/shadow"), "").await;
    server.open("deploy").await;
    judged(&server, 1).await;
    assert_eq!(server.activate(&third, &first).await.status, 200);
    let shadow = server.admin("GET", "/api/admin/shadow", "").await.json();
    assert_eq!((&shadow["beside"], &shadow["judged"]), (&json!(third), &json!(0)));
}

/// With a typing error in its name, a filter would be left out.
#[tokio::test]
async fn a_parameter_that_a_route_does_not_have_is_refused() {
    let server = server().await;
    let documented = crate::http::openapi::query_parameters().into_iter();
    let filtered = documented.filter(|(path, names)| path.starts_with("/api/admin/") && !names.is_empty());
    let filtered: Vec<String> = filtered.map(|(path, _)| path).collect();
    assert!(filtered.len() >= 4, "{filtered:?}");
    for path in filtered {
        let answer = server.admin("GET", &format!("{path}?nosuch=1"), "").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert!(answer.text.contains("is no parameter of this path"), "{path}: {}", answer.text);
    }
    let answer = server.admin("GET", "/api/admin/audit?evnt=x&limit=1", "").await;
    assert_snapshot!(answer.shown(), @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "detail": "what was sent is not valid",
      "error": "invalid_payload",
      "errors": [
        {
          "message": "is no parameter of this path; did you mean `event`?",
          "path": "evnt"
        }
      ],
      "status": 400,
      "title": "Bad Request",
      "type": "urn:countersign:problem:invalid_payload"
    }
    "#);
    for query in ["", "?event=created&limit=1&cursor=", "?%65vent=created", "?"] {
        let answer = server.admin("GET", &format!("/api/admin/audit{query}"), "").await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    }
    // Who may not ask is not told more.
    assert_eq!(server.get("/api/admin/audit?evnt=x").await.status, 401);
    // Callers may be newer than the gateway.
    let (id, token) = server.open("deploy").await;
    let status = server.get(&format!("/api/guard/status?requestId={id}&token={token}&later=1")).await;
    assert_eq!(status.status, 200, "{}", status.text);
}

#[tokio::test]
async fn a_filter_that_can_find_nothing_is_refused() {
    let server = server().await;
    for (path, said) in [
        ("audit?event=nosuch", "must be an event of the audit log, such as `approved`"),
        ("audit?event=Approved", "did you mean `approved`?"),
        ("audit?status=aproved", "must be a status"),
        ("webhooks/dead?target=webhook:nosuch", "is no target of this gateway"),
    ] {
        let answer = server.admin("GET", &format!("/api/admin/{path}"), "").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert!(answer.text.contains(said), "{path}: {}", answer.text);
    }
}
