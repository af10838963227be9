//! The access file in operation: its history, and what it lets callers do, over HTTP and in Slack.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_access::{Access, ApiKey, Identified};
use countersign_core::clock::Clock as _;
use countersign_core::lifecycle::{Digest, Party};
use countersign_policy::Known;
use countersign_slack::fake::FakeSlack;
use insta::assert_snapshot;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};

use super::delivery::with_slack;
use super::*;
use crate::access_control::history::Source;
use crate::access_control::warnings;
use crate::http::caller::requester;

const MINUTE: u64 = 60_000;

const ADMIN: &str = "correct-horse-battery-staple";

/// A gateway with an access file, the API key of its caller `portal`, and a Slack.
struct Setup {
    server: TestServer,
    key: ApiKey,
    slack: FakeSlack,
    folder: TempDir,
}

impl Setup {
    async fn new() -> Setup {
        let folder = tempfile::tempdir().expect("a folder");
        let key = ApiKey::generate().expect("randomness");
        let path = folder.path().join("access.yaml");
        std::fs::write(&path, file(&key)).expect("written");
        // A real Ed25519 public key (RFC 8032, test 1); nothing is signed with it here.
        let jwks = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        std::fs::write(folder.path().join("keys.json"), jwks).expect("written");
        let path = path.display().to_string();
        let (server, slack) =
            with_slack(&[("COUNTERSIGN_ACCESS", path.as_str()), ("ADMIN_TOKEN", ADMIN)]).await;
        Setup { server, key, slack, folder }
    }

    /// Replaces a part of the access file that the test began with.
    fn edit(&self, from: &str, to: &str) {
        let text = file(&self.key);
        assert!(text.contains(from), "{from}");
        std::fs::write(self.folder.path().join("access.yaml"), text.replace(from, to)).expect("written");
    }

    async fn reload(&self, source: Source) {
        self.reload_known(source, Known::Nothing).await;
    }

    /// If so much is known of the file.
    async fn reload_known(&self, source: Source, known: Known) {
        let access = self.server.app.access.as_ref().expect("there is an access file");
        let gateway = &self.server.app.gateway;
        if matches!(source, Source::File) {
            // By itself a file is taken if it is the same twice in a row.
            let _ = access.reload(Source::File, known, gateway).await;
        }
        let _ = access.reload(source, known, gateway).await;
    }

    /// What the newest attempt came to, and the first error.
    async fn newest(&self) -> String {
        let newest = &self.admin().await.json()["attempts"][0];
        format!("{} {}", newest["outcome"], newest["errors"][0]["message"]).replace('"', "")
    }

    /// Puts the file of the start in force, with one part replaced.
    async fn put_in_force(&self, from: &str, to: &str) {
        self.edit(from, to);
        self.reload(Source::Sighup).await;
    }

    async fn send(&self, path: &str, body: &Value, headers: &[(&'static str, &str)]) -> Answer {
        let mut request = post(path, body.to_string());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        self.server.send(request).await
    }

    async fn create(&self, action: &str, idempotency_key: &str) -> Answer {
        let bearer = format!("Bearer {}", self.key.reveal());
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", idempotency_key)];
        self.send("/api/guard/request", &ask(action), &headers).await
    }

    /// A request that was denied so long ago that it can be made again: its id and its token.
    async fn denied(&self, idempotency_key: &str) -> (String, String) {
        let answer = self.create("deploy", idempotency_key).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = answer.json();
        let text = |key: &str| body[key].as_str().expect(key).to_owned();
        let (id, token) = (text("requestId"), text("token"));
        let mut deny = press("U1", "deny", &id);
        // Without it no dialog asks for a reason.
        deny["trigger_id"] = Value::Null;
        let answer = self.server.send(self.server.signed(&deny)).await.json();
        assert_eq!(answer["status"], "denied", "{answer}");
        self.server.clock.advance(5 * MINUTE);
        (id, token)
    }

    /// Makes a request again over HTTP, with its token.
    async fn again(&self, (id, token): &(String, String), headers: &[(&'static str, &str)]) -> Answer {
        let body = json!({"originalRequestId": id, "actor": {"id": "U9", "source": "slack"}, "token": token});
        self.send("/api/guard/rerequest", &body, headers).await
    }

    /// Makes a request again in Slack; returns the gateway's answer.
    async fn press_again(&self, user: &str, (id, _): &(String, String)) -> Value {
        let mut payload = press(user, "re_request", id);
        payload["channel"] = json!({"id": "C0X"});
        self.server.send(self.server.signed(&payload)).await.json()
    }

    /// What people were told in ephemeral messages.
    async fn ephemerals(&self) -> Vec<String> {
        let told = delivery::ephemerals(&self.server, &self.slack).await;
        told.into_iter().map(|(_, text)| text).collect()
    }

    async fn admin(&self) -> Answer {
        let request = Request::get("/api/admin/access").header("authorization", format!("Bearer {ADMIN}"));
        self.server.send(request.body(Body::empty()).expect("a request")).await
    }

    /// What callers were refused since it was last looked at, as the audit log gets it.
    fn rejections(&self) -> Value {
        let entries = self.server.app.rejections.take(START);
        let entry = entries.into_iter().find(|entry| entry.event == "caller_rejections");
        entry.map_or(Value::Null, |entry| entry.detail["rejections"].clone())
    }
}

fn file(key: &ApiKey) -> String {
    format!(
        "version: 1\nissuers:\n  local: {{ issuer: https://id.acme.example, audience: gate, jwks: keys.json }}\n\
         callers:\n  portal:\n    keys: [{{ sha256: {} }}]\n    requester: asserted\n    actions: [deploy]\n    \
         limits: {{ open: 2, per_minute: 9 }}\n  job:\n    oidc: {{ issuer: local, claims: {{ team: web }} }}\n    \
         requester: {{ source: github, id: \"{{actor}}\" }}\n    actions: [deploy]\n\
         people:\n  dana: {{ slack: U0DANA, github: dana-d }}\n",
        key.digest()
    )
}

#[tokio::test]
async fn an_action_that_the_policy_set_in_force_lacks_is_warned_of() {
    let setup = Setup::new().await;
    let access = setup.server.app.access.as_ref().expect("there is an access file");
    let set = setup.server.app.gateway.policies().active();
    let told = || warnings(&access.authenticator.access(), Some(&set), START);
    assert_eq!(told(), [""; 0]);
    setup
        .put_in_force("asserted\n    actions: [deploy]", "asserted\n    actions: [deploy, deply, \"x*\"]")
        .await;
    let lacks = "and the policy set has no such action";
    let (deply, x) = ("the caller `portal` may ask for `deply`", "the caller `portal` may ask for `x*`");
    assert_eq!(told(), [format!("{deply}, {lacks}; did you mean `deploy`?"), format!("{x}, {lacks}")]);
    assert_eq!(warnings(&access.authenticator.access(), None, START), [""; 0]);
}

/// Without the people somebody could approve what they ask for under another name.
#[tokio::test]
async fn half_of_a_file_is_held_back() {
    let setup = Setup::new().await;
    let text = file(&setup.key);
    let half = text[..text.find("people:").expect("people")].to_owned();
    let path = setup.folder.path().join("access.yaml");
    let people = async || setup.admin().await.json()["people"].clone();
    std::fs::write(&path, &half).expect("written");
    setup.reload(Source::File).await;
    assert_eq!(setup.newest().await, "held_back `people` is missing");
    setup.reload(Source::File).await;
    assert_eq!(people().await, 1);
    let audited = setup.server.audited("access_reload_held_back").await;
    assert_eq!(audited.len(), 1, "it is told once");
    // The same file was moved in, so it is all there.
    setup.reload_known(Source::File, Known::Text).await;
    assert_eq!((setup.newest().await.as_str(), people().await), ("ok null", json!(0)));

    // Or it says so beside it.
    std::fs::write(&path, &text).expect("written");
    setup.reload(Source::File).await;
    assert_eq!(setup.newest().await, "held_back `people` is new");
    let line = format!("{}  access.yaml\n", Digest::of(text.as_bytes()));
    std::fs::write(setup.folder.path().join("access.yaml.sha256"), line).expect("written");
    setup.reload(Source::File).await;
    assert_eq!((setup.newest().await.as_str(), people().await), ("ok null", json!(1)));

    // A file that is still being written is another one at the next look. Nothing is doubted that somebody asks for.
    std::fs::write(&path, text.replace("open: 2", "open: 3")).expect("written");
    let access = setup.server.app.access.as_ref().expect("there is an access file");
    assert_eq!(access.reload(Source::File, Known::Text, &setup.server.app.gateway).await, None);
    std::fs::write(&path, &half).expect("written");
    assert_eq!(access.reload(Source::File, Known::Text, &setup.server.app.gateway).await, None);
    setup.reload(Source::Sighup).await;
    assert_eq!((setup.newest().await.as_str(), people().await), ("ok null", json!(0)));
}

#[tokio::test]
async fn an_admin_sees_which_file_is_in_force_and_how_it_came_to_be() {
    let setup = Setup::new().await;
    assert_snapshot!(setup.admin().await.shown(), @r#"
    200 OK
    content-type: application/json
    {
      "admins": 0,
      "attempts": [
        {
          "at": "2026-05-28T20:26:40.000Z",
          "errors": [],
          "hash": "[hash]",
          "outcome": "ok",
          "previousHash": null,
          "source": "start"
        }
      ],
      "callers": 2,
      "hash": "[hash]",
      "issuers": 1,
      "people": 1,
      "since": "2026-05-28T20:26:40.000Z"
    }
    "#);

    setup.server.clock.advance(1000);
    setup.reload(Source::Sighup).await;
    setup.edit("actions: [deploy]\n    limits", "action: [deploy]\n    limits");
    setup.reload(Source::File).await;
    // The same wrong file is told of once.
    setup.reload(Source::File).await;
    setup.server.clock.advance(1000);
    setup.edit("open: 2", "open: 3");
    setup.reload(Source::File).await;
    std::fs::remove_file(setup.folder.path().join("access.yaml")).expect("removed");
    setup.reload(Source::Sighup).await;

    let answer = setup.admin().await;
    let shown = answer.json();
    assert_eq!(shown["since"], "2026-05-28T20:26:42.000Z");
    let rows = shown["attempts"].as_array().expect("a list");
    let told: Vec<String> = rows
        .iter()
        .map(|row| {
            let known = |key: &str| match row[key].as_str() {
                None => "none",
                Some(hash) if shown["hash"] == hash => "the new one",
                Some(hash) if rows.last().is_some_and(|first| first["hash"] == hash) => "the first one",
                Some(_) => "another",
            };
            format!(
                "{} {} {}, before {}: {}",
                row["source"].as_str().unwrap_or_default(),
                row["outcome"].as_str().unwrap_or_default(),
                known("hash"),
                known("previousHash"),
                row["errors"][0]["message"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    let expected = [
        "sighup failed none, before the new one: No such file or directory (os error 2)",
        "file ok the new one, before the first one: ",
        "file failed another, before the first one: the caller `portal` has no `actions`: it could ask for nothing",
        "sighup unchanged the first one, before the first one: ",
        "start ok the first one, before none: ",
    ];
    assert_eq!(told, expected);
    let path = rows.get(2).and_then(|row| row["errors"][0]["path"].as_str()).unwrap_or_default();
    assert!(path.ends_with("access.yaml:5:3"), "{path}");
    let digest = setup.key.digest().to_string();
    assert!(!answer.text.contains(&digest) && !answer.text.contains(setup.key.reveal()), "{}", answer.text);

    let audited = setup.server.audited("access_reloaded").await;
    let sources: Vec<_> = audited.iter().map(|entry| &entry["source"]).collect();
    assert_eq!(sources, ["start", "sighup", "file"]);
    assert_eq!(setup.server.audited("access_reload_failed").await.len(), 2);
    for line in [
        r#"access_reloads_total{outcome="ok",source="file"} 1"#,
        r#"access_reloads_total{outcome="ok",source="sighup"} 0"#,
        r#"access_reloads_total{outcome="failed",source="file"} 1"#,
        r#"access_reloads_total{outcome="failed",source="sighup"} 1"#,
        r#"access_reloads_total{outcome="unchanged",source="sighup"} 1"#,
    ] {
        assert!(setup.server.metric(line).await, "{line}");
    }
}

#[tokio::test]
async fn when_the_last_key_of_a_caller_ends_is_a_metric() {
    let setup = Setup::new().await;
    let shown = async || {
        setup.server.app.scrapes.forget().await;
        let text = setup.server.get("/metrics").await.text;
        let ends = text.lines().filter(|line| line.starts_with("access_key_expiry_timestamp_seconds{"));
        ends.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(shown().await.is_empty());
    let digest = format!("sha256: {}", setup.key.digest());
    setup.put_in_force(&digest, &format!("{digest}, until: 2026-06-30")).await;
    let end = r#"access_key_expiry_timestamp_seconds{holder="caller"} 1782864000"#;
    assert_eq!(shown().await, [end]);
    // Each edit is one of the first text.
    setup.put_in_force("open: 2", "open: 3").await;
    assert!(shown().await.is_empty());
}

#[tokio::test]
async fn a_history_that_cannot_be_read_stops_nothing() {
    let setup = Setup::new().await;
    let store = setup.server.app.gateway.store();
    store.keep("access:history", b"nonsense".to_vec()).await.expect("kept");
    assert_eq!(setup.admin().await.status, 500);
    setup.put_in_force("open: 2", "open: 3").await;
    let shown = setup.admin().await.json();
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["since"], "2026-05-28T20:26:40.000Z");
}

#[tokio::test]
async fn without_an_access_file_there_is_no_history() {
    let server = TestServer::with(&[("ADMIN_TOKEN", ADMIN)]).await;
    let request = Request::get("/api/admin/access").header("authorization", format!("Bearer {ADMIN}"));
    let answer = server.send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!((answer.status.as_u16(), answer.text), (404, server.get("/nowhere").await.text));
    // It has noted nothing, either.
    assert!(server.audited("access_reloaded").await.is_empty());
}

#[tokio::test]
async fn a_request_says_whose_it_is_and_whether_it_was_made_before() {
    let setup = Setup::new().await;
    let first = setup.create("deploy", "once").await.json();
    assert_eq!((&first["caller"], &first["replayed"]), (&json!("portal"), &json!(false)));
    let second = setup.create("deploy", "once").await.json();
    assert_eq!((&second["requestId"], &second["replayed"]), (&first["requestId"], &json!(true)));
    let original = setup.denied("twice").await;
    let headers = [("idempotency-key", "again")];
    let made = setup.again(&original, &headers).await.json();
    assert_eq!((&made["caller"], &made["replayed"]), (&json!("portal"), &json!(false)), "{made}");
    let repeated = setup.again(&original, &headers).await;
    assert_eq!(repeated.header("idempotent-replayed"), "true");
    let repeated = repeated.json();
    assert_eq!((&repeated["requestId"], &repeated["replayed"]), (&made["requestId"], &json!(true)));
    let token = format!("Bearer {}", original.1);
    let request = Request::get(format!("/api/guard/status?requestId={}", original.0));
    let request = request.header("authorization", token).body(Body::empty()).expect("a request");
    assert_eq!(setup.server.send(request).await.json()["caller"], "portal");
}

/// The salt of hidden values, and a token that opens it, are for whoever holds the old token.
#[tokio::test]
async fn an_api_key_alone_makes_no_request_with_hidden_values_again() {
    let setup = Setup::new().await;
    let original = setup.denied("one").await;
    let bearer = format!("Bearer {}", setup.key.reveal());
    let by_key = async |id: &str| {
        let body = json!({"originalRequestId": id, "actor": {"id": "U9", "source": "slack"}});
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "again")];
        setup.send("/api/guard/rerequest", &body, &headers).await
    };
    let refused = async || {
        let answer = by_key(&original.0).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (403, &json!("not_allowed")));
        assert!(answer.text.contains("with its wait token"), "{}", answer.text);
    };
    refused().await;
    let made = setup.again(&original, &[("idempotency-key", "again")]).await.json();
    assert!(made["payloadSalt"].is_string() && made["token"].is_string(), "{made}");
    // Nor is it given what the holder of the token was given for the same key and body.
    refused().await;

    // With nothing hidden there is nothing to be found by trying.
    let mut body = ask("deploy");
    body["params"].as_object_mut().expect("an object").remove("password");
    let open = setup.send("/api/guard/request", &body, &[("authorization", &bearer)]).await.json();
    let id = open["requestId"].as_str().expect("an id");
    let mut deny = press("U1", "deny", id);
    deny["trigger_id"] = Value::Null;
    assert_eq!(setup.server.send(setup.server.signed(&deny)).await.json()["status"], "denied");
    setup.server.clock.advance(5 * MINUTE);
    let body = json!({"originalRequestId": id, "actor": {"id": "U9", "source": "slack"}});
    let answer = setup.send("/api/guard/rerequest", &body, &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Several people share a caller whose requesters come from claims: none of them is given what another has asked for.
#[tokio::test]
async fn an_idempotency_key_is_that_of_the_person_whom_the_token_proves() {
    let setup = Setup::new().await;
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let x = URL_SAFE_NO_PAD.encode(key.der_bytes());
    let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "2", "x": x}]});
    std::fs::write(setup.folder.path().join("keys.json"), jwks.to_string()).expect("written");
    setup.put_in_force("dana: { slack: U0DANA,", "rita: { github: rita-r }\n  dana: { slack: U0DANA,").await;
    let bearer = |actor: &str| {
        let now = setup.server.clock.now().as_millis() / 1000;
        let claims = json!({"iss": "https://id.acme.example", "aud": "gate", "iat": now, "nbf": now,
            "exp": now + 300, "team": "web", "actor": actor});
        let header = json!({"alg": "EdDSA", "kid": "2"});
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).expect("a signature"));
        format!("Bearer {signed}.{signature}")
    };
    let mut body = ask("deploy");
    body["meta"].as_object_mut().expect("an object").remove("requester");
    body["params"].as_object_mut().expect("an object").remove("password");
    let create = async |actor: &str| {
        let headers = [("authorization", bearer(actor)), ("idempotency-key", "run-1".to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        setup.send("/api/guard/request", &body, &headers).await
    };
    let first = create("dana-d").await;
    assert_eq!(first.status, 200, "{}", first.text);
    let first = first.json();
    let other = create("rita-r").await;
    assert_eq!((other.status.as_u16(), &other.json()["error"]), (422, &json!("idempotency_key_reused")));
    let again = create("dana-d").await.json();
    assert_eq!((&again["token"], &again["replayed"]), (&first["token"], &json!(true)));

    // Nor does anybody make it again in the name of another.
    let id = first["requestId"].as_str().expect("an id");
    let mut deny = press("U1", "deny", id);
    deny["trigger_id"] = Value::Null;
    assert_eq!(setup.server.send(setup.server.signed(&deny)).await.json()["status"], "denied");
    setup.server.clock.advance(5 * MINUTE);
    let rerequest = async |token: &str, actor: &str| {
        let actor = json!({"id": actor, "source": "github"});
        let body = json!({"originalRequestId": id, "actor": actor});
        let headers = [("authorization", bearer(token)), ("idempotency-key", "run-2".to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        setup.send("/api/guard/rerequest", &body, &headers).await
    };
    let refused = rerequest("rita-r", "dana-d").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (403, &json!("requester_mismatch")));
    let made = rerequest("dana-d", "dana-d").await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert_eq!(rerequest("rita-r", "dana-d").await.status, 403);
}

/// The same rule over HTTP and in Slack: whose request it is must still be a caller, be allowed to ask, and have a part of
/// its limits left.
#[tokio::test]
async fn a_request_that_is_made_again_counts_as_its_callers() {
    const WHOLE: &str = "limits: { open: 2, per_minute: 9 }";
    for (from, to, code, said) in [
        ("  portal:\n", "  another:\n", "caller_not_allowed", "may not ask for this action any more"),
        (
            "actions: [deploy]",
            "actions: [guarded]",
            "caller_not_allowed",
            "may not ask for this action any more",
        ),
        (WHOLE, "limits: { open: 1 }", "too_many_open", "has as many open requests as it may have"),
        (
            WHOLE,
            "limits: { open_per_action: 1 }",
            "too_many_open",
            "has as many open requests as it may have",
        ),
        // The quota of a minute is used up by what has been asked for already.
        (WHOLE, "limits: { per_minute: 1 }", "rate_limited", "asks too often; press again in"),
    ] {
        let setup = Setup::new().await;
        let original = setup.denied("one").await;
        setup.put_in_force(from, to).await;
        if code != "caller_not_allowed" {
            assert_eq!(setup.create("deploy", "other").await.status, 200);
        }
        let answer = setup.again(&original, &[]).await;
        assert_eq!(answer.json()["error"], code, "{to}: {}", answer.text);
        for user in ["U9", "U1"] {
            let answer = setup.press_again(user, &original).await;
            assert_eq!((&answer["ok"], &answer["error"]), (&json!(false), &json!(code)), "{to}: {answer}");
            assert!(answer["message"].as_str().is_some_and(|message| message.contains(said)), "{answer}");
        }
        let told = setup.ephemerals().await;
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().all(|text| text.contains(said)), "{told:?}");
        let expected = match code {
            "caller_not_allowed" => json!([{"caller": "portal", "kind": "caller_not_allowed", "count": 3}]),
            _ => Value::Null,
        };
        assert_eq!(setup.rejections(), expected, "{to}");
        // Once the file says so again, and a minute has passed, it can be made again.
        setup.put_in_force("open: 2", "open: 3").await;
        setup.server.clock.advance(MINUTE);
        assert_eq!(setup.press_again("U9", &original).await["ok"], true, "{to}");
    }
}

#[tokio::test]
async fn a_request_that_was_made_again_in_slack_counts_towards_the_limits() {
    let setup = Setup::new().await;
    setup.put_in_force("open: 2, per_minute: 9", "open: 1, per_minute: 2").await;
    let original = setup.denied("one").await;
    // Somebody without the right uses up nothing.
    for _ in 0..5 {
        assert_eq!(setup.press_again("U5", &original).await["error"], "not_allowed");
    }
    assert_eq!(setup.press_again("U9", &original).await["ok"], true);
    assert_eq!(setup.create("deploy", "two").await.json()["error"], "too_many_open");
    assert_eq!(setup.create("deploy", "two").await.json()["error"], "rate_limited");
}

/// Whoever has a wait token alone must not keep its caller from asking.
#[tokio::test]
async fn what_cannot_be_made_again_uses_up_no_quota() {
    let setup = Setup::new().await;
    setup.put_in_force("open: 2, per_minute: 9", "open: 2, per_minute: 2").await;
    let original = setup.denied("one").await;
    assert_eq!(setup.again(&original, &[]).await.status, 200);
    for _ in 0..5 {
        assert_eq!(setup.again(&original, &[]).await.json()["error"], "not_allowed");
        assert_eq!(setup.press_again("U9", &original).await["error"], "not_allowed");
    }
    setup.server.clock.advance(MINUTE);
    assert_eq!(setup.again(&original, &[]).await.json()["error"], "not_allowed");
    assert_eq!(setup.again(&original, &[]).await.json()["error"], "not_allowed");
    assert_eq!(setup.create("deploy", "two").await.status, 200);
}

#[tokio::test]
async fn a_quota_is_full_again_in_time_whatever_the_wall_clock_says() {
    for jump in [-3_600_000, -20_000, 20_000, 3_600_000] {
        let setup = Setup::new().await;
        setup.put_in_force("open: 2, per_minute: 9", "open: 9, per_minute: 2").await;
        for key in ["one", "two"] {
            assert_eq!(setup.create("deploy", key).await.status, 200, "{jump}");
        }
        setup.server.clock.jump(jump);
        setup.server.clock.advance(MINUTE / 2 - 1);
        assert_eq!(setup.create("deploy", "three").await.json()["error"], "rate_limited", "{jump}");
        setup.server.clock.advance(1);
        assert_eq!(setup.create("deploy", "four").await.status, 200, "{jump}");
        assert_eq!(setup.create("deploy", "five").await.json()["error"], "rate_limited", "{jump}");
    }
}

#[tokio::test]
async fn what_a_caller_was_refused_is_audited_as_counts() {
    let setup = Setup::new().await;
    for _ in 0..3 {
        assert_eq!(setup.create("guarded", "one").await.json()["error"], "caller_not_allowed");
    }
    // A token of an issuer would have to be signed, and what it is taken for is tested where it is.
    let path = setup.folder.path().join("access.yaml");
    let access = Access::read(&path, &file(&setup.key)).expect("it is sound");
    let claims = json!({"actor": "dana-d"}).as_object().cloned().map(Arc::new);
    let job = Identified { caller: Arc::clone(access.caller("job").expect("it is there")), claims };
    let party = |id: &str| Some(Party { id: id.into(), source: "github".into(), display: None });
    assert!(requester(&setup.server.app, Some(&job), party("rita")).is_err());
    assert!(requester(&setup.server.app, Some(&job), party("dana-d")).is_ok());
    assert_eq!(
        setup.rejections(),
        json!([
            {"caller": "job", "kind": "requester_mismatch", "count": 1},
            {"caller": "portal", "kind": "caller_not_allowed", "count": 3},
        ])
    );
    assert_eq!(setup.rejections(), Value::Null);
    assert!(setup.server.metric(r#"security_events_total{type="requester_mismatch"} 1"#).await);
}

/// The caller has the salt from its create. By the id alone it gets it no more than an admin does.
#[tokio::test]
async fn the_salt_is_not_given_by_the_id() {
    let setup = Setup::new().await;
    let made = setup.create("deploy", "once").await.json();
    assert_eq!(setup.create("deploy", "once").await.json()["payloadSalt"], made["payloadSalt"]);
    let salt = made["payloadSalt"].as_str().expect("a salt");
    let (id, token) = (made["requestId"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    let get = async |path: String, bearer: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {bearer}"));
        setup.server.send(request.body(Body::empty()).expect("a request")).await
    };
    let status = || format!("/api/guard/status?requestId={id}");
    let wait = || format!("/api/guard/wait?requestId={id}&timeoutSec=0");
    for (path, bearer) in [(status(), ADMIN), (status(), setup.key.reveal()), (wait(), setup.key.reveal())] {
        let answer = get(path, bearer).await;
        assert_eq!(answer.json()["payloadHashVersion"], 2, "{}", answer.text);
        assert!(!answer.text.contains(salt) && !answer.text.contains("payloadSalt"), "{}", answer.text);
    }
    for path in [status(), wait()] {
        assert_eq!(get(path, token).await.json()["payloadSalt"], salt);
    }
}

#[tokio::test]
async fn each_action_has_a_limit_of_its_own() {
    let setup = Setup::new().await;
    let limits =
        |actions: &str, open: &str| format!("actions: {actions}\n    limits: {{ {open}, per_minute: 9 }}");
    setup.put_in_force(&limits("[deploy]", "open: 2"), &limits("\"*\"", "open_per_action: 1")).await;
    assert_eq!(setup.create("deploy", "one").await.status, 200);
    let refused = setup.create("deploy", "two").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"], "too_many_open");
    assert_eq!(setup.create("deploy", "one").await.json()["replayed"], true);
    assert_eq!(setup.create("guarded", "other").await.status, 200, "it is another action");
}
