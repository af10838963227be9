//! Admins of the access file: what each may do, and what the audit log says of who did it.

use countersign_tests::{ApiKey, Ask, Call, Gateway, Home, Issuer, Problem, Receipt, SigningKey, deploy};
use serde_json::{Value, json};

use crate::ledger::Ledger;

/// An access file with a caller and two admins: `rita` may read, `ada` may change what is in force.
fn access(issuer: &Issuer, portal: &ApiKey, rita: &ApiKey) -> String {
    format!(
        "version: 1\nissuers:\n  acme: {{ issuer: \"{}\", audience: countersign }}\n\
         callers:\n  portal:\n    keys:\n      {}\n    requester: asserted\n    actions: [deploy]\n\
         admins:\n  rita:\n    keys:\n      {}\n    roles: [read]\n  \
         ada:\n    oidc: {{ issuer: acme, claims: {{ email: ada@acme.example }} }}\n    roles: [activate]\n",
        issuer.url(),
        portal.line,
        rita.line
    )
}

async fn sent(gateway: &Gateway, call: &Call, bearer: &str) -> Result<Value, Problem> {
    let reply = gateway.send(&call.clone().bearer(bearer)).await;
    if reply.status() == 200 { Ok(reply.json()) } else { Err(Problem::read(&reply)) }
}

#[tokio::test]
async fn two_admins_do_what_their_roles_let_them() {
    let signing = SigningKey::es256("a");
    let issuer = Issuer::start(&[&signing]).await;
    let [portal, rita] = ["portal", "rita"].map(ApiKey::new);
    let file = access(&issuer, &portal, &rita);
    // There is no ADMIN_TOKEN.
    let gateway = Home::new(&deploy(1)).with_access(&file).start().await;
    let mut claims = issuer.claims();
    claims["email"] = "ada@acme.example".into();
    let ada = signing.token(&claims);

    let made = Receipt::read(gateway.send(&Ask::new("deploy").call().bearer(&portal.secret)).await);
    let request = made.expect("the caller may ask");
    let read = [
        Call::get("/api/admin/policy-sets/active"),
        Call::get("/api/admin/access"),
        Call::get(&format!("/api/guard/status?requestId={}", request.id)),
    ];
    for call in &read {
        sent(&gateway, call, &rita.secret).await.unwrap_or_else(|problem| panic!("{call:?}: {problem:?}"));
        let problem = sent(&gateway, call, &ada).await.expect_err("she may not read");
        assert_eq!(problem.is(), (403, "role_missing"), "{call:?}");
    }

    let first = gateway.policy().await;
    let document = gateway.home().policy_set().replace("approvals: 1", "approvals: 2");
    let store = Call::post("/api/admin/policy-sets", &json!({"document": document}));
    let problem = sent(&gateway, &store, &rita.secret).await.expect_err("she may not store");
    assert_eq!(problem.is(), (403, "role_missing"));
    let stored = sent(&gateway, &store, &ada).await.expect("she may");
    let second = stored["hash"].as_str().expect("a hash");
    let path = format!("/api/admin/policy-sets/{second}/activate");
    // Whatever the call claims, the actor is who was authenticated.
    let activate = Call::post(&path, &json!({"expectedCurrent": first, "actor": "rita"}));
    let problem = sent(&gateway, &activate, &rita.secret).await.expect_err("she may not activate");
    assert_eq!(problem.is(), (403, "role_missing"));
    assert_eq!(gateway.policy().await, first);
    sent(&gateway, &activate, &ada).await.expect("she may");
    assert_eq!(gateway.policy().await, second);

    // A caller is no admin, an admin is no caller, and a guess is nobody.
    for bearer in [&portal.secret, "guess"] {
        let problem = sent(&gateway, &read[0], bearer).await.expect_err("it is no admin's");
        assert_eq!(problem.is(), (401, "unauthorized"));
    }
    let problem = sent(&gateway, &Ask::new("deploy").call(), &rita.secret).await.expect_err("no caller");
    assert_eq!(problem.is(), (401, "unauthenticated"));
    let metrics = gateway.metrics().await;
    for (kind, count) in [("role_missing", 5), ("unauthorized", 2), ("unauthenticated", 1)] {
        assert_eq!(metrics.count("security_events_total", &[("type", kind)]), count, "{kind}");
    }

    // An admin who is taken out of the file has no rights from then on.
    gateway.home().write("access.yaml", file.replace("ada@acme.example", "eve@acme.example").as_bytes());
    gateway.hang_up();
    gateway.logged("access file reloaded", 1).await;
    let problem = sent(&gateway, &store, &ada).await.expect_err("she is no admin any more");
    assert_eq!(problem.is(), (401, "unauthorized"));

    let log = gateway.output();
    for secret in [&rita.secret, &portal.secret, &ada] {
        assert!(!log.contains(secret.as_str()), "a credential is in the log");
    }
    // A stop writes what was counted since the last minute.
    let ledger = Ledger::of(&gateway.stop().await);
    let [stored] = ledger.entries("policy_set_stored").try_into().expect("one set was stored");
    let who =
        |entry: &Value| ["actor", "authentication", "address", "claimedActor"].map(|key| entry[key].clone());
    assert_eq!(who(&stored), [json!("ada"), json!("oidc"), json!("127.0.0.1"), Value::Null]);
    // The signal has reloaded the policy set, too.
    let activated = ledger.entries("policy_reloaded").into_iter().find(|entry| entry["what"] == "activate");
    let activated = activated.expect("it was activated");
    assert_eq!(who(&activated), [json!("ada"), json!("oidc"), json!("127.0.0.1"), json!("rita")]);
    let counted = |event: &str, list: &str| -> Vec<Value> {
        let entries = ledger.entries(event);
        entries.iter().flat_map(|entry| entry[list].as_array().cloned().unwrap_or_default()).collect()
    };
    let sum = |counts: &[Value], kind: &str| -> u64 {
        counts.iter().filter(|it| it["kind"] == kind).filter_map(|it| it["count"].as_u64()).sum()
    };
    let failures = counted("admin_authentication_failures", "failures");
    for (kind, count) in [("not_an_admin", 1), ("bad_admin_token", 1), ("bad_token", 1)] {
        assert_eq!(sum(&failures, kind), count, "{kind}: {failures:?}");
    }
    assert!(failures.iter().all(|it| it["address"] == "127.0.0.1"), "{failures:?}");
    let rejections = counted("admin_rejections", "rejections");
    assert_eq!(sum(&rejections, "role_missing"), 5, "{rejections:?}");
}
