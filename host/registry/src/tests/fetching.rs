//! `fetch`, with valid and invalid replies.

use std::time::Duration;

use serde_json::json;

use super::fake::{FakeRegistry, Received, Reply};
use super::*;

const MOST: usize = 10_000;
const WANTED: &[u8] = b"\0asm, more or less";

/// Texts that no error may contain.
const SECRETS: [&str; 5] = ["hunter2", "dXNlcjpodW50ZXIy", "s3cr3t-t0ken", "X-Signature", "refresh-me"];

fn wanted() -> Digest {
    Digest::of(WANTED)
}

fn blob() -> String {
    format!("GET /v2/acme/quorum/blobs/sha256:{}", wanted())
}

fn manifest() -> String {
    format!("GET /v2/acme/quorum/manifests/sha256:{}", wanted())
}

/// A file with credentials for this registry; `entry` is its entry in `auths`.
fn credentials_for(registry: &str, entry: &str) -> (tempfile::TempDir, Credentials) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, format!(r#"{{ "auths": {{ "{registry}": {entry} }} }}"#)).unwrap();
    (folder, Credentials::file(file))
}

const PASSWORD: &str = r#"{ "auth": "dXNlcjpodW50ZXIy" }"#;
const IDENTITY: &str = r#"{ "identitytoken": "refresh-me" }"#;

async fn fetch(fake: &FakeRegistry, credentials: Credentials) -> Result<Vec<u8>, RegistryError> {
    fetch_with(fake, Registries::any(credentials)).await
}

async fn fetch_with(fake: &FakeRegistry, registries: Registries) -> Result<Vec<u8>, RegistryError> {
    let repository = repository(&format!("{}/acme/quorum", fake.registry()));
    let fetched = registries.fetch(&repository, &wanted(), MOST).await;
    if let Err(error) = &fetched {
        let shown = format!("{error} {error:?}");
        assert!(!SECRETS.iter().any(|secret| shown.contains(secret)), "{shown}");
    }
    fetched
}

/// Asserts the error that a reply to the request for the blob leads to, and whether it may pass.
async fn check(answer: Reply, text: &str, may_pass: bool) {
    let fake = FakeRegistry::start(
        move |received| if received.line == blob() { answer.clone() } else { Reply::status(404) },
    )
    .await;
    let error = fetch(&fake, Credentials::none()).await.unwrap_err();
    let shown = error.to_string().replace(&fake.registry(), "HOST");
    assert_eq!((shown.as_str(), error.may_pass()), (text, may_pass));
}

#[tokio::test]
async fn what_has_the_digest_is_fetched_without_credentials_where_none_are_wanted() {
    let fake = FakeRegistry::start(|_| Reply::bytes(WANTED)).await;
    let (_folder, credentials) = credentials_for(&fake.registry(), PASSWORD);
    assert_eq!(fetch(&fake, credentials).await.unwrap(), WANTED);
    assert_eq!(fake.received(), [Received { line: blob(), authorization: None, body: String::new() }]);
}

#[tokio::test]
async fn no_bad_answer_is_taken_for_a_module() {
    let digest = wanted();
    let large = "`HOST/acme/quorum` sends more than 10000 bytes";
    let others = format!("`HOST/acme/quorum` sends bytes that do not have the digest sha256:{digest}");
    let envelope =
        r#"{ "errors": [{ "code": "TOOMANYREQUESTS", "message": "hunter2", "detail": "hunter2" }] }"#;
    let strange = r#"{ "errors": [{ "code": "hunter2" }] }"#;
    let nobody = "`HOST/acme/quorum` may not be read or written without credentials, and there are none for this registry";
    let strange_challenge = "unusable answer from `HOST`: unsupported authentication challenge";
    for (answer, text, may_pass) in [
        (Reply::bytes(vec![0; MOST + 1]), large, false),
        (Reply::status(200).without_end(), large, false),
        (Reply::bytes("something else"), &*others, false),
        (Reply::bytes(""), &*others, false),
        (Reply::status(206).body(WANTED), "`HOST` answers with 206 Partial Content", false),
        (Reply::status(204), "`HOST` answers with 204 No Content", false),
        (Reply::status(401), strange_challenge, false),
        (Reply::status(401).header("www-authenticate", "Negotiate"), strange_challenge, false),
        (Reply::status(401).header("www-authenticate", "Bearer service=\"x\""), strange_challenge, false),
        (Reply::status(401).header("www-authenticate", "Basic realm=\"x\""), nobody, false),
        (Reply::status(403).body("hunter2"), nobody, false),
        (
            Reply::status(429).body(envelope),
            "`HOST` answers with 429 Too Many Requests (TOOMANYREQUESTS)",
            true,
        ),
        (Reply::status(500).body("hunter2"), "`HOST` answers with 500 Internal Server Error", true),
        (Reply::status(503).body(strange), "`HOST` answers with 503 Service Unavailable", true),
        (Reply::status(503).without_end(), "`HOST` answers with 503 Service Unavailable", true),
        (Reply::status(400).body(strange), "`HOST` answers with 400 Bad Request", false),
        (
            Reply::status(404),
            &*format!("`HOST/acme/quorum` has nothing with the digest sha256:{digest}"),
            false,
        ),
        (Reply::status(307), "unusable answer from `HOST`: no `Location` header", false),
        (
            Reply::status(307)
                .header("location", "/v2/acme/quorum/blobs/sha256:".to_owned() + &digest.to_string()),
            "unusable answer from `HOST`: too many redirects",
            false,
        ),
        (
            Reply::status(302).header("location", "http://storage.example/blob?X-Signature=1"),
            "unusable answer from `HOST`: its `Location` is not a secure URL",
            false,
        ),
        (
            Reply::status(302).header("location", "https://user:hunter2@storage.example/blob"),
            "unusable answer from `HOST`: its `Location` is not a secure URL",
            false,
        ),
        (
            Reply::status(302).header("location", "file:///etc/passwd"),
            "unusable answer from `HOST`: its `Location` is not a URL",
            false,
        ),
    ] {
        check(answer, text, may_pass).await;
    }
}

#[tokio::test]
async fn the_digest_of_a_manifest_is_told_from_that_of_a_module() {
    let module = format!("sha256:{}", Digest::of(b"the module"));
    let layer = |kind: &str| json!({ "mediaType": kind, "digest": module, "size": 10 });
    let listing = |layers: serde_json::Value| {
        json!({ "schemaVersion": 2, "config": layer("x"), "layers": layers }).to_string()
    };
    let wasm = layer("application/wasm");
    for (manifest, pin) in [
        (listing(json!([wasm])), format!(": pin the module that it lists, {module}")),
        (listing(json!([wasm, wasm])), String::new()),
        (listing(json!([layer("application/vnd.oci.image.layer.v1.tar")])), String::new()),
        (json!({ "schemaVersion": 2, "manifests": [] }).to_string(), String::new()),
    ] {
        let digest = Digest::of(manifest.as_bytes());
        // Some registries serve manifests as blobs too.
        for place in ["/manifests/", "/blobs/"] {
            let answer = manifest.clone();
            let fake = FakeRegistry::start(move |received| {
                if received.line.contains(place) { Reply::bytes(answer.clone()) } else { Reply::status(404) }
            })
            .await;
            let repository = repository(&format!("{}/acme/quorum", fake.registry()));
            let fetched = Registries::any(Credentials::none()).fetch(&repository, &digest, MOST).await;
            assert_eq!(
                fetched.unwrap_err().to_string(),
                format!(
                    "sha256:{digest} in `{repository}` is the digest of a manifest, not of a module{pin}"
                )
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_the_manifest_that_was_asked_for_says_nothing() {
    for answer in [
        Reply::bytes(r#"{ "schemaVersion": 2, "layers": [] }"#),
        Reply::bytes(WANTED),
        Reply::status(500),
        Reply::status(200).without_end(),
    ] {
        let fake = FakeRegistry::start(move |received| {
            if received.line == manifest() { answer.clone() } else { Reply::status(404) }
        })
        .await;
        let error = fetch(&fake, Credentials::none()).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_password_is_sent_where_it_is_wanted_and_nowhere_else() {
    let storage = FakeRegistry::start(|_| Reply::bytes(WANTED)).await;
    let location = format!("http://{}/blob?X-Signature=1", storage.registry());
    let fake = FakeRegistry::start(move |received| match received.authorization.as_deref() {
        Some("Basic dXNlcjpodW50ZXIy") => Reply::status(307).header("location", location.as_str()),
        _ => Reply::status(401).header("www-authenticate", "Basic realm=\"registry\""),
    })
    .await;
    let (_folder, credentials) = credentials_for(&fake.registry(), PASSWORD);
    assert_eq!(fetch(&fake, credentials).await.unwrap(), WANTED);
    assert_eq!(fake.received().len(), 2);
    let moved =
        Received { line: "GET /blob?X-Signature=1".to_owned(), authorization: None, body: String::new() };
    assert_eq!(storage.received(), [moved]);
}

#[tokio::test]
async fn what_storage_refuses_is_no_matter_of_credentials() {
    let storage = FakeRegistry::start(|_| Reply::status(403).body("X-Signature")).await;
    let location = format!("http://{}/blob?X-Signature=1", storage.registry());
    let fake = FakeRegistry::start(move |_| Reply::status(307).header("location", location.as_str())).await;
    let error = fetch(&fake, Credentials::none()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("`{}` answers with 403 Forbidden", storage.registry()));
    // A redirect's target cannot ask for credentials either.
    let storage =
        FakeRegistry::start(|_| Reply::status(401).header("www-authenticate", "Basic realm=\"x\"")).await;
    let location = format!("http://{}/blob", storage.registry());
    let fake = FakeRegistry::start(move |_| Reply::status(307).header("location", location.as_str())).await;
    let (_folder, credentials) = credentials_for(&fake.registry(), PASSWORD);
    let error = fetch(&fake, credentials).await.unwrap_err();
    assert_eq!(error.to_string(), format!("`{}` answers with 401 Unauthorized", storage.registry()));
    assert_eq!(storage.received().len(), 1);
}

#[tokio::test]
async fn a_wrong_password_is_told_from_none() {
    let fake =
        FakeRegistry::start(|_| Reply::status(401).header("www-authenticate", "Basic realm=\"registry\""))
            .await;
    let (_folder, credentials) = credentials_for(&fake.registry(), PASSWORD);
    let error = fetch(&fake, credentials).await.unwrap_err();
    assert!(error.to_string().ends_with("with the credentials that were sent"), "{error}");
    let (_folder, credentials) = credentials_for(&fake.registry(), IDENTITY);
    let error = fetch(&fake, credentials).await.unwrap_err();
    assert!(
        error.to_string().ends_with("it requires a password, but the credential is an identity token"),
        "{error}"
    );
}

/// A registry that requires a token from another server.
async fn token_registry(realm: &FakeRegistry) -> FakeRegistry {
    let challenge = format!(
        "Basic realm=\"registry\", Bearer realm=\"http://{}/token?account=x\",service=\"a registry\"",
        realm.registry()
    );
    FakeRegistry::start(move |received| match received.authorization.as_deref() {
        Some("Bearer s3cr3t-t0ken") => Reply::bytes(WANTED),
        _ => Reply::status(401).header("www-authenticate", challenge.as_str()),
    })
    .await
}

#[tokio::test]
async fn a_token_is_got_as_the_registry_says() {
    let scope = "scope=repository%3Aacme%2Fquorum%3Apull&service=a+registry";
    let (get, post) = (format!("GET /token?account=x&{scope}"), "POST /token?account=x".to_owned());
    let form = format!("{scope}&grant_type=refresh_token&client_id=countersign&refresh_token=refresh-me");
    for (entry, answer, what, authorization, body) in [
        ("{}", r#"{ "token": "s3cr3t-t0ken" }"#, &get, None, ""),
        (PASSWORD, r#"{ "access_token": "s3cr3t-t0ken" }"#, &get, Some("Basic dXNlcjpodW50ZXIy"), ""),
        (IDENTITY, r#"{ "access_token": "s3cr3t-t0ken", "scope": "x" }"#, &post, None, &form),
    ] {
        let realm = FakeRegistry::start(move |_| Reply::bytes(answer)).await;
        let fake = token_registry(&realm).await;
        let (_folder, credentials) = credentials_for(&fake.registry(), entry);
        assert_eq!(fetch(&fake, credentials).await.unwrap(), WANTED);
        let authorization = authorization.map(str::to_owned);
        assert_eq!(realm.received(), [Received { line: what.clone(), authorization, body: body.to_owned() }]);
    }
}

#[tokio::test]
async fn no_bad_token_is_used() {
    let none = ": no usable token";
    for (answer, text, may_pass) in [
        (Reply::status(401), "with the credentials that were sent", false),
        (Reply::status(403).body("hunter2"), "with the credentials that were sent", false),
        (Reply::status(500).body("hunter2"), "answers with 500 Internal Server Error", true),
        (Reply::status(429), "answers with 429 Too Many Requests", true),
        (Reply::status(307).header("location", "/token"), "answers with 307 Temporary Redirect", false),
        (Reply::bytes("hunter2"), none, false),
        (Reply::bytes("{}"), none, false),
        (Reply::bytes(r#"{ "token": "" }"#), none, false),
        // Not a valid header value.
        (Reply::bytes(r#"{ "token": "s3cr3t-t0ken\r\nx: y" }"#), none, false),
        (Reply::status(200).without_end(), "sends more than 65536 bytes", false),
        (Reply::bytes(r#"{ "token": "another" }"#), "with the credentials that were sent", false),
    ] {
        let realm = FakeRegistry::start(move |_| answer.clone()).await;
        let fake = token_registry(&realm).await;
        let (_folder, credentials) = credentials_for(&fake.registry(), PASSWORD);
        let error = fetch(&fake, credentials).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.may_pass(), may_pass, "{error}");
        assert_eq!(realm.received().len(), 1);
    }
}

#[tokio::test]
async fn credentials_go_nowhere_without_encryption() {
    let challenge = "Bearer realm=\"http://auth.example/token\"";
    let fake = FakeRegistry::start(move |_| Reply::status(401).header("www-authenticate", challenge)).await;
    let (_folder, credentials) = credentials_for(&fake.registry(), PASSWORD);
    let error = fetch(&fake, credentials).await.unwrap_err();
    assert!(error.to_string().ends_with("the realm of its challenge is not a secure URL"), "{error}");
}

#[tokio::test]
async fn only_what_is_allowed_is_asked() {
    let fake = FakeRegistry::start(|_| Reply::bytes(WANTED)).await;
    let (host, other) = (fake.registry(), format!("{}/other", fake.registry()));
    for allowed in [vec![], vec![other.clone()], vec!["ghcr.io".to_owned(), other]] {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        // The credentials are not even read.
        let registries = Registries::new(allowed, Credentials::file("nowhere".into()));
        let error = fetch_with(&fake, registries).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`{host}/acme/quorum` is not among the registries that may be asked: add it to COUNTERSIGN_REGISTRIES"
            )
        );
    }
    assert_eq!(fake.received(), []);
    let allowed = vec!["ghcr.io".parse().unwrap(), format!("{host}/acme").parse().unwrap()];
    assert_eq!(fetch_with(&fake, Registries::new(allowed, Credentials::none())).await.unwrap(), WANTED);
}

#[tokio::test]
async fn credentials_are_read_for_each_call() {
    let fake = FakeRegistry::start(|received| match received.authorization.as_deref() {
        Some("Basic dXNlcjpodW50ZXIy") => Reply::bytes(WANTED),
        _ => Reply::status(401).header("www-authenticate", "Basic realm=\"registry\""),
    })
    .await;
    let (folder, credentials) =
        credentials_for(&fake.registry(), r#"{ "username": "user", "password": "old" }"#);
    let registries = Registries::any(credentials);
    assert!(fetch_with(&fake, registries.clone()).await.is_err());
    let new = format!(r#"{{ "auths": {{ "{}": {PASSWORD} }} }}"#, fake.registry());
    std::fs::write(folder.path().join("config.json"), new).unwrap();
    assert_eq!(fetch_with(&fake, registries).await.unwrap(), WANTED);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_not_waited_for() {
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(600));
    for timeouts in [
        Timeouts { connect: long, read: short, total: long },
        Timeouts { connect: long, read: long, total: short },
    ] {
        let fake = FakeRegistry::start(|_| Reply::status(200).stalling()).await;
        let registries = Registries { timeouts, ..Registries::any(Credentials::none()) };
        let error = fetch_with(&fake, registries).await.unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` did not answer in time", fake.registry()));
        assert!(error.may_pass());
    }
    // Nothing listens on the port of a closed listener.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = repository(&format!("{}/acme/quorum", listener.local_addr().unwrap()));
    drop(listener);
    let error = Registries::any(Credentials::none()).fetch(&gone, &wanted(), MOST).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached: ") && error.may_pass(), "{error}");
}
