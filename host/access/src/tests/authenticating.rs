//! Keys and tokens, and what they are taken for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

use super::issuer::{SigningKey, key_set};
use super::*;

const ISSUER: &str = "https://id.acme.example";
pub(super) const SECONDS: u64 = NOW.as_millis() / 1000;

pub(super) fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "countersign", "exp": SECONDS + 300, "iat": SECONDS, "nbf": SECONDS, "team": "web"})
}

pub(super) fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = object(claims());
    claims.remove(name);
    Value::Object(claims)
}

pub(super) fn file(jwks: &str) -> String {
    format!(
        "version: 1\nissuers: {{ acme: {{ issuer: {ISSUER}, audience: countersign, jwks: \"{jwks}\" }} }}\n\
         callers:\n  web: {{ oidc: {{ issuer: acme, claims: {{ team: web }} }}, requester: machine, actions: \"*\" }}\n"
    )
}

/// Recognises callers by tokens of keys in a file.
struct Setup {
    folder: TempDir,
    authenticator: Authenticator,
}

impl Setup {
    fn new(keys: &[&SigningKey]) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { authenticator: Authenticator::default(), folder };
        setup.publish(keys);
        setup.authenticator.replace(read(&file(&setup.jwks())));
        setup
    }

    fn jwks(&self) -> String {
        self.folder.path().join("keys.json").display().to_string()
    }

    fn publish(&self, keys: &[&SigningKey]) {
        std::fs::write(self.jwks(), key_set(keys)).unwrap();
    }

    async fn identify_at(&self, token: &str, now: Timestamp) -> Result<String, Unauthenticated> {
        self.authenticator.identify(token, at(now)).await.map(|identified| identified.caller.name.clone())
    }

    async fn identify(&self, token: &str) -> Result<String, Unauthenticated> {
        self.identify_at(token, NOW).await
    }
}

#[tokio::test]
async fn keys_count_until_they_end_and_overlap() {
    let (old, new) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    let text = format!(
        "version: 1\ncallers:\n  job:\n    keys:\n      - {{ sha256: {}, until: 2026-03-01 }}\n      - {{ sha256: {} }}\n    \
         requester: machine\n    actions: \"*\"\n",
        old.digest(),
        new.digest()
    );
    let authenticator = Authenticator::new(read(&text));
    let is_job = async |key: &str, now| {
        authenticator.identify(key, at(now)).await.map(|found| found.caller.name.clone())
    };
    assert_eq!(is_job(old.reveal(), NOW).await, Ok("job".to_owned()));
    assert_eq!(is_job(new.reveal(), NOW).await, Ok("job".to_owned()));
    // To the end of that day.
    let midnight = NOW.plus(12 * 3_600_000);
    assert_eq!(is_job(old.reveal(), midnight.minus(1)).await, Ok("job".to_owned()));
    assert_eq!(is_job(old.reveal(), midnight).await, Err(Unauthenticated::KeyEnded));
    assert_eq!(is_job(new.reveal(), midnight).await, Ok("job".to_owned()));
    let other = ApiKey::generate().unwrap();
    assert_eq!(is_job(other.reveal(), NOW).await, Err(Unauthenticated::UnknownKey));
    // The digest itself opens nothing.
    assert_eq!(is_job(&format!("cs_{}", new.digest()), NOW).await, Err(Unauthenticated::UnknownKey));
}

#[tokio::test]
async fn a_token_is_its_callers_whatever_it_is_signed_with() {
    let (ed, ec) = (SigningKey::ed25519("a"), SigningKey::p256("b"));
    let setup = Setup::new(&[&ed, &ec]);
    for key in [&ed, &ec] {
        assert_eq!(setup.identify(&key.token(&claims())).await, Ok("web".to_owned()));
    }
    assert_eq!(
        setup.identify(&ed.token(&with("aud", json!(["x", "countersign"])))).await,
        Ok("web".to_owned())
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_never_overlooked() {
    let key = SigningKey::ed25519("a");
    let stranger = SigningKey::ed25519("a");
    let setup = Setup::new(&[&key, &SigningKey::p256("b")]);
    let header = |header: Value| key.token_with(&header, &claims());
    let claim = |error| Err(Unauthenticated::Token(TokenError::Claim(error)));
    let token = |error| Err(Unauthenticated::Token(error));
    for (shown, expected) in [
        (header(json!({"alg": "none"})), token(TokenError::Algorithm)),
        (header(json!({"alg": "HS256", "kid": "a"})), token(TokenError::Algorithm)),
        (header(json!({"kid": "a"})), token(TokenError::Algorithm)),
        // An algorithm of another kind than the key's.
        (header(json!({"alg": "ES256", "kid": "a"})), token(TokenError::Signature)),
        (header(json!({"alg": "EdDSA", "kid": "b"})), token(TokenError::Signature)),
        (
            header(json!({"alg": "EdDSA", "kid": "a", "crit": ["b64"], "b64": true})),
            token(TokenError::Critical),
        ),
        (header(json!({"alg": "EdDSA", "kid": "c"})), token(TokenError::Key)),
        (header(json!({"alg": "EdDSA"})), token(TokenError::Key)),
        (header(json!({"alg": "EdDSA", "kid": 7})), token(TokenError::Malformed)),
        (stranger.token(&claims()), token(TokenError::Signature)),
        (key.token(&without("iss")), claim("iss")),
        (key.token(&without("aud")), claim("aud")),
        (key.token(&without("exp")), claim("exp")),
        (key.token(&with("exp", json!("soon"))), claim("exp")),
        (key.token(&with("exp", json!(-1))), claim("exp")),
        (key.token(&with("iss", json!("https://evil.example"))), token(TokenError::Issuer)),
        (key.token(&with("iss", json!(format!("{ISSUER}/")))), token(TokenError::Issuer)),
        (key.token(&with("aud", json!("sigstore"))), token(TokenError::Audience)),
        (key.token(&with("aud", json!(["countersign2"]))), token(TokenError::Audience)),
        (key.token(&with("exp", json!(SECONDS - 31))), token(TokenError::Expired)),
        (key.token(&with("nbf", json!(SECONDS + 60))), token(TokenError::Future)),
        (key.token(&with("iat", json!(SECONDS + 60))), token(TokenError::Future)),
        (key.token(&with("team", json!("db"))), Err(Unauthenticated::Nobody)),
        (key.token(&without("team")), Err(Unauthenticated::Nobody)),
        ("".to_owned(), token(TokenError::Malformed)),
        ("a.b".to_owned(), token(TokenError::Malformed)),
        ("a.b.c".to_owned(), token(TokenError::Malformed)),
        (format!("{}.d", key.token(&claims())), token(TokenError::Malformed)),
        ("x".repeat(20_000), token(TokenError::Malformed)),
    ] {
        assert_eq!(setup.identify(&shown).await, expected, "{shown}");
    }
    // A claim that comes twice could be read in two ways.
    let twice = format!("{{\"iss\":\"{ISSUER}\",\"iss\":\"https://evil.example\"}}");
    let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"EdDSA\",\"kid\":\"a\"}");
    let shown = format!("{header}.{}.AAAA", URL_SAFE_NO_PAD.encode(twice));
    assert_eq!(setup.identify(&shown).await, token(TokenError::Malformed));
}

#[tokio::test]
async fn pipelines_of_strangers_are_refused_whatever_a_rule_says() {
    let key = SigningKey::ed25519("a");
    let setup = Setup::new(&[&key]);
    let gitlab = |job: Option<&str>, protected: Option<&str>| {
        let mut claims = with("project_id", json!("1"));
        claims["job_project_id"] = json!(job);
        claims["ref_protected"] = json!(protected);
        claims
    };
    setup.identify(&key.token(&gitlab(Some("1"), Some("true")))).await.unwrap();
    for claims in [
        with("event_name", json!("pull_request_target")),
        gitlab(Some("2"), Some("true")),
        gitlab(None, Some("true")),
        gitlab(Some("1"), Some("false")),
        gitlab(Some("1"), None),
    ] {
        let error = setup.identify(&key.token(&claims)).await;
        assert!(matches!(error, Err(Unauthenticated::Token(TokenError::Untrusted(_)))), "{error:?}");
    }
}

#[tokio::test]
async fn a_verified_token_is_remembered_until_it_ends() {
    let key = SigningKey::ed25519("a");
    let setup = Setup::new(&[&key]);
    let token = key.token(&claims());
    assert_eq!(setup.identify(&token).await, Ok("web".to_owned()));
    setup.publish(&[&SigningKey::ed25519("z")]);
    assert_eq!(setup.identify_at(&token, NOW.plus(329_999)).await, Ok("web".to_owned()));
    let ended = setup.identify_at(&token, NOW.plus(330_000)).await;
    assert_eq!(ended, Err(Unauthenticated::Token(TokenError::Expired)));
}

#[tokio::test]
async fn another_file_counts_at_once() {
    let key = SigningKey::ed25519("a");
    let setup = Setup::new(&[&key]);
    let token = key.token(&claims());
    assert_eq!(setup.identify(&token).await, Ok("web".to_owned()));
    setup.authenticator.replace(read(&file(&setup.jwks()).replace("team: web", "team: db")));
    assert_eq!(setup.identify(&token).await, Err(Unauthenticated::Nobody));
}
