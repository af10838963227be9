//! Admins of the access file: what their roles let them do, what is recorded of it, and what they cannot do.

use std::net::IpAddr;

use countersign_access::ApiKey;
use insta::assert_snapshot;

use super::admins::ROUTES;
use super::*;

const TOKEN: &str = "correct-horse-battery-staple";

/// A gateway with an access file that has a caller, `portal`, and admins.
struct Setup {
    server: TestServer,
    portal: ApiKey,
    /// `read`.
    rita: ApiKey,
    /// `activate`, and not `read`.
    ada: ApiKey,
    /// `operate`.
    otto: ApiKey,
    _folder: TempDir,
}

impl Setup {
    async fn new(variables: &[(&str, &str)]) -> Setup {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = std::array::from_fn(|_| ApiKey::generate().expect("randomness"));
        let [portal, rita, ada, otto] = keys;
        let text = format!(
            "version: 1\n\
             callers:\n  portal: {{ keys: [{{ sha256: {} }}], requester: asserted, actions: [deploy] }}\n\
             admins:\n  rita: {{ keys: [{{ sha256: {} }}], roles: read }}\n  \
             ada: {{ keys: [{{ sha256: {} }}], roles: [activate] }}\n  \
             otto: {{ keys: [{{ sha256: {} }}], roles: [operate] }}\n",
            portal.digest(),
            rita.digest(),
            ada.digest(),
            otto.digest()
        );
        let path = folder.path().join("access.yaml");
        std::fs::write(&path, text).expect("written");
        let path = path.display().to_string();
        let variables: Vec<_> =
            std::iter::once(("COUNTERSIGN_ACCESS", path.as_str())).chain(variables.iter().copied()).collect();
        Setup { server: TestServer::with(&variables).await, portal, rita, ada, otto, _folder: folder }
    }

    async fn call(&self, method: &str, path: &str, body: &str, bearer: &str) -> Answer {
        self.call_from("192.0.2.7", method, path, body, bearer).await
    }

    async fn call_from(&self, address: &str, method: &str, path: &str, body: &str, bearer: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {bearer}"))
            .body(Body::from(body.to_owned()))
            .expect("a request");
        request.extensions_mut().insert(crate::http::Peer(address.parse::<IpAddr>().expect("an address")));
        self.server.send(request).await
    }

    /// The counts that the audit log gets of this event.
    fn counted(&self) -> Value {
        let entries = self.server.app.rejections.take(self.server.app.gateway.clock().now());
        Value::Object(entries.into_iter().map(|entry| (entry.event, json!(entry.detail))).collect())
    }
}

fn acts_on_requests(path: &str) -> bool {
    path.starts_with("/api/admin/requests/") || path.starts_with("/api/admin/webhooks/")
}

/// The answer is that of the route, whatever it is, rather than the guard's.
fn is_let_in(answer: &Answer) -> bool {
    let error = answer.text.parse::<Value>().ok().map_or(Value::Null, |body| body["error"].clone());
    !["unauthorized", "role_missing"].contains(&error.as_str().unwrap_or_default())
}

#[tokio::test]
async fn each_route_needs_its_role() {
    let setup = Setup::new(&[("ADMIN_TOKEN", TOKEN)]).await;
    for (method, path) in
        ROUTES.into_iter().chain([("GET", "/api/admin/none"), ("PATCH", "/api/admin/modules")])
    {
        let (needed, may, may_not) = match method {
            "GET" => ("read", &setup.rita, [&setup.ada, &setup.otto]),
            _ if acts_on_requests(path) => ("operate", &setup.otto, [&setup.ada, &setup.rita]),
            _ => ("activate", &setup.ada, [&setup.otto, &setup.rita]),
        };
        for key in may_not {
            let answer = setup.call(method, path, "{}", key.reveal()).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.json()["error"]),
                (403, &json!("role_missing")),
                "{method} {path}"
            );
            assert!(answer.text.contains(&format!("`{needed}`")), "{method} {path}: {}", answer.text);
        }
        for bearer in [may.reveal(), TOKEN] {
            let answer = setup.call(method, path, "{}", bearer).await;
            assert!(is_let_in(&answer), "{method} {path}: {}", answer.text);
        }
    }
    let answer = setup.call("GET", "/api/admin/access", "", setup.otto.reveal()).await;
    assert_snapshot!(answer.shown(), @r#"
    403 Forbidden
    content-type: application/problem+json
    {
      "detail": "this call needs the role `read`, which this admin does not have",
      "error": "role_missing",
      "status": 403,
      "title": "Forbidden",
      "type": "urn:countersign:problem:role_missing"
    }
    "#);
    let counts = setup.counted();
    let rejections: Vec<_> =
        counts["admin_rejections"]["rejections"].as_array().expect("a list").iter().collect();
    let (reads, all) = (ROUTES.iter().filter(|(method, _)| *method == "GET").count() + 1, ROUTES.len() + 2);
    let acts = ROUTES.iter().filter(|(method, path)| *method == "POST" && acts_on_requests(path)).count();
    assert_eq!(
        rejections,
        [
            &json!({"admin": "ada", "kind": "role_missing", "count": reads + acts}),
            &json!({"admin": "otto", "kind": "role_missing", "count": all - acts + 1}),
            &json!({"admin": "rita", "kind": "role_missing", "count": all - reads}),
        ]
    );
    let total = 2 * all + 1;
    assert!(setup.server.metric(&format!("security_events_total{{type=\"role_missing\"}} {total}")).await);
    assert!(setup.server.metric("security_events_total{type=\"unauthorized\"} 0").await);
}

#[tokio::test]
async fn what_an_admin_did_is_recorded_with_who_and_how() {
    let setup = Setup::new(&[("ADMIN_TOKEN", TOKEN)]).await;
    let reload = "/api/admin/reload-policy";
    let body = r#"{"actor": "grace"}"#;
    assert_eq!(setup.call("POST", reload, body, setup.ada.reveal()).await.status, 200);
    assert_eq!(setup.call_from("2001:db8::1", "POST", reload, "", TOKEN).await.status, 200);
    let answer = setup.call("PUT", "/api/admin/modules", "nonsense", setup.ada.reveal()).await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    let told = |entries: Vec<Value>| -> Vec<Value> {
        let keys = ["actor", "authentication", "address", "claimedActor"];
        entries.iter().map(|entry| keys.iter().map(|key| entry[*key].clone()).collect()).collect()
    };
    assert_eq!(
        told(setup.server.audited("policy_reloaded").await).split_off(1),
        [
            json!(["ada", "api_key", "192.0.2.7", "grace"]),
            json!(["admin-token", "admin_token", "2001:db8::1", null]),
        ]
    );
    assert_eq!(
        told(setup.server.audited("policy_reload_failed").await),
        [json!(["ada", "api_key", "192.0.2.7", null])]
    );
    // What is stored without being put in force is recorded alike.
    let document = std::fs::read_to_string(setup.server.folder.path().join("policies/policy-set.yaml"));
    let body = json!({"document": document.expect("a set"), "actor": "x",
        "schemas": {"deploy": serde_json::from_str::<Value>(SCHEMA).expect("JSON")}});
    let answer = setup.call("POST", "/api/admin/policy-sets", &body.to_string(), setup.ada.reveal()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        told(setup.server.audited("policy_set_stored").await),
        [json!(["ada", "api_key", "192.0.2.7", "x"])]
    );
    let history = setup.call("GET", "/api/admin/policy-sets/history", "", setup.rita.reveal()).await.json();
    assert_eq!(history["changes"][0]["actor"], "ada");
}

#[tokio::test]
async fn an_admin_is_no_caller_and_a_caller_no_admin() {
    let setup = Setup::new(&[]).await;
    let ask = ask("deploy").to_string();
    let made = setup.call("POST", "/api/guard/request", &ask, setup.portal.reveal()).await.json();
    let id = made["requestId"].as_str().expect("an id");
    for what in ["status", "lineage"] {
        let path = format!("/api/guard/{what}?requestId={id}");
        let answer = setup.call("GET", &path, "", setup.rita.reveal()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let answer = setup.call("GET", &path, "", setup.ada.reveal()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (403, &json!("role_missing")),
            "{what}"
        );
    }
    for (method, path, body) in [
        ("POST", "/api/guard/request".to_owned(), ask.clone()),
        ("GET", format!("/api/guard/wait?requestId={id}"), String::new()),
        ("GET", format!("/api/guard/wait-sse?requestId={id}"), String::new()),
        ("POST", "/api/guard/cancel".to_owned(), json!({"requestId": id}).to_string()),
        (
            "POST",
            "/api/guard/rerequest".to_owned(),
            json!({"originalRequestId": id, "actor": {"id": "U9", "source": "slack"}}).to_string(),
        ),
    ] {
        let answer = setup.call(method, &path, &body, setup.rita.reveal()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (401, &json!("unauthenticated")),
            "{method} {path}"
        );
        assert!(answer.text.contains("of an admin"), "{}", answer.text);
    }
    let answer = setup.call("GET", "/api/admin/access", "", setup.portal.reveal()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &json!("unauthorized")));
    assert!(answer.text.contains("of a caller"), "{}", answer.text);
    assert_eq!(
        setup.counted(),
        json!({
            "admin_authentication_failures":
                {"failures": [{"address": "192.0.2.7", "kind": "not_an_admin", "count": 1}]},
            "admin_rejections": {"rejections": [{"admin": "ada", "kind": "role_missing", "count": 2}]},
            "authentication_failures":
                {"failures": [{"address": "192.0.2.7", "kind": "not_a_caller", "count": 5}]},
        })
    );
}

#[tokio::test]
async fn failed_attempts_are_counted_and_hold_back_their_address() {
    let few = [("RATE_LIMIT_CAPACITY", "3"), ("RATE_LIMIT_REFILL_PER_SEC", "0.01"), ("ADMIN_TOKEN", TOKEN)];
    let setup = Setup::new(&few).await;
    let unknown = ApiKey::generate().expect("randomness");
    let shown = [unknown.reveal(), "correct-horse-battery-stapl", "a.b.c"];
    for (bearer, says) in shown.into_iter().zip(["has this API key", "missing or wrong", "no signed JSON"]) {
        let answer = setup.call("GET", "/api/admin/access", "", bearer).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &json!("unauthorized")));
        assert!(answer.text.contains(says), "{}", answer.text);
    }
    let held_back = setup.call("GET", "/api/admin/access", "", "guess").await;
    assert_eq!((held_back.status.as_u16(), &held_back.json()["error"]), (429, &json!("rate_limited")));
    // Nobody else is, and whoever has the right credentials is not either.
    let elsewhere = setup.call_from("192.0.2.8", "GET", "/api/admin/access", "", "guess").await;
    assert_eq!(elsewhere.status, 401);
    for bearer in [setup.rita.reveal(), TOKEN] {
        assert_eq!(setup.call("GET", "/api/admin/access", "", bearer).await.status, 200);
    }
    let failure =
        |address: &str, kind: &str, count: u64| json!({"address": address, "kind": kind, "count": count});
    assert_eq!(
        setup.counted(),
        json!({"admin_authentication_failures": {"failures": [
            failure("192.0.2.7", "bad_admin_token", 2),
            failure("192.0.2.7", "bad_api_key", 1),
            failure("192.0.2.7", "bad_token", 1),
            failure("192.0.2.8", "bad_admin_token", 1),
        ]}})
    );
    assert!(setup.server.metric("security_events_total{type=\"unauthorized\"} 5").await);
    assert!(setup.server.audited("policy_reloaded").await.len() <= 1, "nothing has come of it");
}

#[tokio::test]
async fn an_access_file_with_admins_is_enough_for_admin_routes() {
    let setup = Setup::new(&[]).await;
    let shown = setup.call("GET", "/api/admin/access", "", setup.rita.reveal()).await.json();
    assert_eq!((&shown["callers"], &shown["admins"]), (&json!(1), &json!(3)));
    assert_eq!(setup.call("GET", "/api/admin/access", "", "guess").await.status, 401);
    // Without them there are none.
    let path = setup._folder.path().join("access.yaml");
    let text = std::fs::read_to_string(&path).expect("the file");
    std::fs::write(&path, text.split("admins:").next().expect("callers")).expect("written");
    let access = setup.server.app.access.as_ref().expect("there is a file");
    let _ = access
        .reload(
            crate::access_control::history::Source::Sighup,
            countersign_policy::Known::Nothing,
            &setup.server.app.gateway,
        )
        .await;
    let answer = setup.call("GET", "/api/admin/access", "", setup.rita.reveal()).await;
    assert_eq!((answer.status.as_u16(), answer.text), (404, setup.server.get("/nowhere").await.text));
}
