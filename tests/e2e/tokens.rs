//! Callers with tokens of an identity provider, and with API keys that overlap.

use countersign_tests::{
    ApiKey, Ask, Call, Click, Gateway, Home, Issuer, Problem, Receipt, SigningKey, holds, token_signed_by,
};
use futures_util::future::join_all;
use ring::hmac;
use serde_json::{Value, json};

use crate::ledger::Ledger;

const ACTIONS: &str = "
  deploy:
    description: Deploy to production
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [dana, U0BOB] }
";

/// A gateway for the jobs of one repository, whose requesters are the actors of their tokens.
async fn gateway(issuer: &Issuer) -> Gateway {
    let file = format!(
        "version: 1\nissuers:\n  acme: {{ issuer: \"{}\", audience: countersign }}\ncallers:\n  pipeline:\n    \
         oidc: {{ issuer: acme, claims: {{ repository_id: \"4711\" }} }}\n    \
         requester: {{ source: github, id: \"{{actor_id}}\" }}\n    actions: [deploy]\npeople:\n  \
         dana: {{ slack: U0DANA, github: \"583231\" }}\n  rita: {{ github: \"9919\" }}\n",
        issuer.url()
    );
    // The log has to keep secrets at each level.
    Home::new(ACTIONS).with_access(&file).with("COUNTERSIGN_LOG", "trace").start().await
}

/// The claims of a job of that repository that Dana has started.
fn claims(issuer: &Issuer) -> Value {
    let mut claims = issuer.claims();
    claims["repository_id"] = "4711".into();
    claims["actor_id"] = "583231".into();
    claims
}

fn with(issuer: &Issuer, changes: &[(&str, Value)]) -> Value {
    let mut claims = claims(issuer);
    for (claim, value) in changes {
        claims[*claim] = value.clone();
    }
    claims
}

fn without(issuer: &Issuer, claim: &str) -> Value {
    let mut claims = claims(issuer);
    claims.as_object_mut().expect("claims are an object").remove(claim);
    claims
}

/// A request that leaves it to the gateway who its requester is.
fn ask() -> Ask {
    let mut body = Ask::new("deploy").body();
    body["meta"].as_object_mut().expect("an object").remove("requester");
    Ask::of(body)
}

async fn create(gateway: &Gateway, bearer: &str) -> Result<Receipt, Problem> {
    Receipt::read(gateway.send(&ask().call().bearer(bearer)).await)
}

/// What a request with this bearer is told, which must be 401.
async fn refused(gateway: &Gateway, bearer: &str) -> String {
    let problem = create(gateway, bearer).await.expect_err("it is nobody's");
    assert_eq!(problem.is(), (401, "unauthenticated"));
    problem.body["detail"].as_str().unwrap_or_default().to_owned()
}

async fn answered(gateway: &Gateway, call: Call) -> Value {
    let reply = gateway.send(&call).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    reply.json()
}

async fn failures(gateway: &Gateway) -> u64 {
    gateway.metrics().await.count("security_events_total", &[("type", "unauthenticated")])
}

/// Nothing of these is in the log: neither a whole API key or token, nor the claims or the signature of a token.
fn assert_not_logged(gateway: &Gateway, secrets: &[String]) {
    let log = gateway.output();
    assert!(log.contains("listening on"), "the log is there");
    for secret in secrets {
        let mut parts: Vec<&str> = secret.split('.').skip(1).filter(|part| !part.is_empty()).collect();
        parts.push(secret);
        for part in parts {
            assert!(!log.contains(part), "a part of a credential is in the log: {part}");
        }
    }
}

#[tokio::test]
async fn a_token_asks_waits_reads_and_cancels_whatever_it_is_signed_with() {
    let keys = [SigningKey::rs256("rsa"), SigningKey::es256("ec"), SigningKey::eddsa("ed")];
    let issuer = Issuer::start(&keys.each_ref()).await;
    let gateway = gateway(&issuer).await;
    let mut shown = Vec::new();
    for key in &keys {
        let token = key.token(&claims(&issuer));
        let request = create(&gateway, &token).await.unwrap_or_else(|problem| panic!("{key:?}: {problem:?}"));
        let id = &request.id;

        // Dana is the requester, so she may not approve.
        assert_eq!(gateway.click_refused(&Click::approve("U0DANA", id)).await, "unauthorized");
        let mut contradicting = ask().body();
        contradicting["meta"]["requester"] = json!({"id": "U0BOB", "source": "slack"});
        let reply = gateway.send(&Ask::of(contradicting).call().bearer(&token)).await;
        assert_eq!(Problem::read(&reply).is(), (403, "requester_mismatch"));

        let status =
            answered(&gateway, Call::get(&format!("/api/guard/status?requestId={id}")).bearer(&token));
        assert_eq!(status.await["status"], "ready_for_approval");
        let wait = Call::get(&format!("/api/guard/wait?requestId={id}&timeoutSec=15")).bearer(&token);
        let cancel = Call::post("/api/guard/cancel", &json!({"requestId": id})).bearer(&token);
        let (waited, cancelled) = tokio::join!(answered(&gateway, wait), answered(&gateway, cancel));
        assert_eq!((&waited["status"], &cancelled["status"]), (&json!("cancelled"), &json!("cancelled")));
        shown.push(token);
    }
    // Who is the requester is in the token alone: what Rita asks for Dana may approve.
    let hers = keys[0].token(&with(&issuer, &[("actor_id", json!("9919"))]));
    let request = create(&gateway, &hers).await.expect("Rita is known");
    gateway.click_ok(&Click::approve("U0DANA", &request.id)).await;
    let stranger = keys[0].token(&with(&issuer, &[("actor_id", json!("9"))]));
    let problem = create(&gateway, &stranger).await.expect_err("nobody knows that actor");
    assert_eq!(problem.is(), (403, "policy_denied"));
    let nobody = keys[0].token(&without(&issuer, "actor_id"));
    let problem = create(&gateway, &nobody).await.expect_err("it has no actor");
    assert_eq!(problem.is(), (403, "requester_mismatch"));
    shown.extend([hers, stranger, nobody]);

    assert_eq!(issuer.fetches(), 1);
    assert_eq!(failures(&gateway).await, 0);
    assert_not_logged(&gateway, &shown);
}

#[tokio::test]
async fn keys_are_rotated_without_a_pause_and_unknown_ones_are_asked_for_once() {
    let [old, new, never] = ["old", "new", "never"].map(SigningKey::es256);
    let issuer = Issuer::start(&[&old]).await;
    let gateway = gateway(&issuer).await;
    let early = old.token(&claims(&issuer));
    create(&gateway, &early).await.expect("the key is known");
    assert_eq!(issuer.fetches(), 1);

    issuer.publish(&[&old, &new]);
    create(&gateway, &new.token(&claims(&issuer))).await.expect("the new key counts at once");
    assert_eq!(issuer.fetches(), 2);
    create(&gateway, &early).await.expect("the old key counts still");

    let tokens: Vec<String> =
        (0..20).map(|number| never.token(&with(&issuer, &[("run_id", json!(number))]))).collect();
    // Twice, since those that come at once could share a fetch without being held back after it.
    for _ in 0..2 {
        for detail in join_all(tokens.iter().map(|token| refused(&gateway, token))).await {
            assert!(detail.contains("its issuer has no such key"), "{detail}");
        }
    }
    assert!(issuer.fetches() <= 3, "{} fetches", issuer.fetches());
    assert_not_logged(&gateway, &tokens);
}

#[tokio::test]
async fn a_withdrawn_key_counts_no_longer_once_others_were_fetched() {
    let [old, new] = ["old", "new"].map(SigningKey::eddsa);
    let issuer = Issuer::start(&[&old]).await;
    let gateway = gateway(&issuer).await;
    let early = old.token(&claims(&issuer));
    create(&gateway, &early).await.expect("the key is known");
    issuer.publish(&[&new]);
    create(&gateway, &new.token(&claims(&issuer))).await.expect("the new key counts at once");
    // The token that was verified before, and another one.
    for token in [early, old.token(&with(&issuer, &[("run_id", json!(2))]))] {
        let detail = refused(&gateway, &token).await;
        assert!(detail.contains("its issuer has no such key"), "{detail}");
    }
}

#[tokio::test]
async fn a_bad_token_is_refused_counted_and_not_logged() {
    let key = SigningKey::rs256("rsa");
    let issuer = Issuer::start(&[&key]).await;
    let gateway = gateway(&issuer).await;
    create(&gateway, &key.token(&claims(&issuer))).await.expect("a good one counts");

    let now = claims(&issuer)["iat"].as_u64().expect("a time");
    let claims = claims(&issuer);
    let changed = |changes: &[(&str, Value)]| key.token(&with(&issuer, changes));
    let mut critical = key.header();
    critical["crit"] = json!(["b64"]);
    critical["b64"] = json!(true);
    // Whoever takes the algorithm from the token would check it with the public key as an HMAC's.
    let secret = hmac::Key::new(hmac::HMAC_SHA256, key.public_key());
    let hs256 = json!({"alg": "HS256", "kid": "rsa", "typ": "JWT"});
    let hs256 = token_signed_by(&hs256, &claims, |message| hmac::sign(&secret, message).as_ref().to_vec());
    let none = token_signed_by(&json!({"alg": "none", "typ": "JWT"}), &claims, |_| Vec::new());
    let algorithm = "not signed with an algorithm that counts";
    let strangers = "a pipeline that anybody could have started";
    let of_fork =
        [("project_id", json!("1")), ("job_project_id", json!("2")), ("ref_protected", json!("true"))];
    let rows = [
        ("alg: none", none, algorithm),
        ("HS256 with the public key", hs256, algorithm),
        ("no aud", key.token(&without(&issuer, "aud")), "lacks the claim `aud`"),
        ("no iss", key.token(&without(&issuer, "iss")), "lacks the claim `iss`"),
        ("no exp", key.token(&without(&issuer, "exp")), "lacks the claim `exp`"),
        ("crit", key.token_with(&critical, &claims), "its header has `crit`"),
        ("expired", changed(&[("exp", json!(now - 3600))]), "has expired"),
        ("from the future", changed(&[("nbf", json!(now + 3600))]), "from the future"),
        ("for another", changed(&[("aud", json!("sigstore"))]), "for another audience"),
        (
            "of another issuer",
            changed(&[("iss", json!("https://evil.example"))]),
            "not one of the access file's",
        ),
        ("pull_request_target", changed(&[("event_name", json!("pull_request_target"))]), strangers),
        ("of a fork on GitLab", changed(&of_fork), strangers),
        ("of another repository", changed(&[("repository_id", json!("4712"))]), "those of no caller"),
        (
            "signed by somebody else",
            SigningKey::es256("rsa").token_with(&key.header(), &claims),
            "its signature is wrong",
        ),
    ];
    for (number, (name, token, expected)) in (1..).zip(&rows) {
        let detail = refused(&gateway, token).await;
        assert!(detail.contains(expected), "{name}: {detail}");
        assert_eq!(failures(&gateway).await, number, "{name}");
    }
    assert_eq!(issuer.fetches(), 1);
    let shown: Vec<String> = rows.into_iter().map(|(_, token, _)| token).collect();
    assert_not_logged(&gateway, &shown);
    for (path, bytes) in gateway.kill().files() {
        for token in &shown {
            assert!(!holds(&bytes, token.as_bytes()), "a token is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn an_issuer_that_fails_from_the_start_lets_nobody_in() {
    let key = SigningKey::es256("ec");
    for fails in [Issuer::go_down, Issuer::send_too_much] {
        let issuer = Issuer::start(&[&key]).await;
        fails(&issuer);
        let gateway = gateway(&issuer).await;
        let token = key.token(&claims(&issuer));
        for _ in 0..3 {
            let detail = refused(&gateway, &token).await;
            assert!(detail.contains("the keys of its issuer cannot be fetched"), "{detail}");
        }
        gateway.logged("cannot fetch the keys of an issuer", 1).await;
        assert_eq!(failures(&gateway).await, 3);
        assert_not_logged(&gateway, &[token]);
        assert!(Ledger::of(&gateway.kill()).requests().is_empty());
    }
}

#[tokio::test]
async fn known_keys_go_on_while_the_issuer_is_down() {
    let [key, unknown] = ["a", "b"].map(SigningKey::es256);
    for fails in [Issuer::go_down, Issuer::send_too_much] {
        let issuer = Issuer::start(&[&key]).await;
        let gateway = gateway(&issuer).await;
        create(&gateway, &key.token(&claims(&issuer))).await.expect("the key is known");
        issuer.publish(&[&key, &unknown]);
        fails(&issuer);
        let detail = refused(&gateway, &unknown.token(&claims(&issuer))).await;
        assert!(detail.contains("its issuer has no such key"), "{detail}");
        assert_eq!(issuer.fetches(), 2, "it was asked for the unknown key");
        let another = key.token(&with(&issuer, &[("run_id", json!(2))]));
        create(&gateway, &another).await.expect("the key is known still");
    }
}

#[tokio::test]
async fn api_keys_overlap_and_end() {
    let [old, new, ended] = [(); 3].map(|()| ApiKey::new("nightly"));
    let file = |lines: &[String]| {
        let lines: String = lines.iter().map(|line| format!("      {line}\n")).collect();
        format!(
            "version: 1\ncallers:\n  nightly:\n    keys:\n{lines}    requester: machine\n    actions: [deploy]\n"
        )
    };
    let past = ended.line.replace(" }", ", until: 2020-01-31 }");
    let both = file(&[old.line.replace(" }", ", until: 2999-12-31 }"), new.line.clone(), past.clone()]);
    let home = Home::new(ACTIONS).with_access(&both).with("COUNTERSIGN_LOG", "trace");
    let gateway = home.start().await;
    create(&gateway, &old.secret).await.expect("the old key counts");
    create(&gateway, &new.secret).await.expect("the new key counts");
    let detail = refused(&gateway, &ended.secret).await;
    assert!(detail.contains("this API key has ended"), "{detail}");

    gateway.home().write("access.yaml", file(&[new.line.clone(), past]).as_bytes());
    gateway.hang_up();
    gateway.logged("access file reloaded", 1).await;
    let detail = refused(&gateway, &old.secret).await;
    assert!(detail.contains("no caller and no admin has this API key"), "{detail}");
    create(&gateway, &new.secret).await.expect("the new key counts still");
    assert_eq!(failures(&gateway).await, 2);
    assert_not_logged(&gateway, &[old.secret, new.secret, ended.secret]);
}

#[tokio::test]
async fn key_files_are_checked_with_the_access_file() {
    let [key, other] = ["a", "b"].map(SigningKey::es256);
    let issuer = Issuer::start(&[&key]).await;
    let file = format!(
        "version: 1\nissuers:\n  acme: {{ issuer: \"{}\", audience: countersign, jwks: keys.json }}\ncallers:\n  \
         pipeline: {{ oidc: {{ issuer: acme, claims: {{ repository_id: \"4711\" }} }}, requester: machine, \
         actions: deploy }}\n",
        issuer.url()
    );
    let home = Home::new(ACTIONS).with_access(&file);
    let failure = home.fail_to_start().await;
    assert_eq!(failure.code, Some(2), "{}", failure.stderr);
    assert!(failure.stderr.contains("access.yaml:3:") && failure.stderr.contains("keys.json"), "{failure:?}");

    home.write("keys.json", SigningKey::key_set(&[&key]).as_bytes());
    let gateway = home.start().await;
    let token = key.token(&claims(&issuer));
    create(&gateway, &token).await.expect("the key is in the file");
    // A wrong key file changes nothing, and is told of with its place.
    gateway.home().write("other.json", b"{}");
    let wrong = file.replace("keys.json", "other.json");
    gateway.home().write("access.yaml", wrong.as_bytes());
    gateway.hang_up();
    gateway.logged("the last one stays in force", 1).await;
    create(&gateway, &token).await.expect("the last good file is in force");
    // A new key in the file counts without a reload.
    gateway.home().write("keys.json", SigningKey::key_set(&[&key, &other]).as_bytes());
    create(&gateway, &other.token(&claims(&issuer))).await.expect("the file has the key");
    assert_eq!(issuer.fetches(), 0);
}
