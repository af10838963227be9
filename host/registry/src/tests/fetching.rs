//! What is made of what a registry answers.

use std::time::Duration;

use serde_json::json;

use super::hostile::{Asked, Fake, Says};
use super::*;

const MOST: usize = 10_000;
const WANTED: &[u8] = b"\0asm, more or less";

/// What must be nowhere in an error.
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

/// Credentials in a file, for this registry: an `auths` entry.
fn known_to(registry: &str, entry: &str) -> (tempfile::TempDir, Credentials) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, format!(r#"{{ "auths": {{ "{registry}": {entry} }} }}"#)).unwrap();
    (folder, Credentials::file(file))
}

const PASSWORD: &str = r#"{ "auth": "dXNlcjpodW50ZXIy" }"#;
const IDENTITY: &str = r#"{ "identitytoken": "refresh-me" }"#;

async fn fetch(fake: &Fake, credentials: Credentials) -> Result<Vec<u8>, RegistryError> {
    fetch_with(fake, Registries::any(credentials)).await
}

async fn fetch_with(fake: &Fake, registries: Registries) -> Result<Vec<u8>, RegistryError> {
    let repository = repository(&format!("{}/acme/quorum", fake.registry()));
    let fetched = registries.fetch(&repository, &wanted(), MOST).await;
    if let Err(error) = &fetched {
        let shown = format!("{error} {error:?}");
        assert!(!SECRETS.iter().any(|secret| shown.contains(secret)), "{shown}");
    }
    fetched
}

/// That an answer to the request for the blob is an error, with this text and this hope.
async fn check(answer: Says, text: &str, may_pass: bool) {
    let fake =
        Fake::start(move |asked| if asked.what == blob() { answer.clone() } else { Says::status(404) }).await;
    let error = fetch(&fake, Credentials::none()).await.unwrap_err();
    let shown = error.to_string().replace(&fake.registry(), "HOST");
    assert_eq!((shown.as_str(), error.may_pass()), (text, may_pass));
}

#[tokio::test]
async fn what_has_the_digest_is_fetched_without_credentials_where_none_are_wanted() {
    let fake = Fake::start(|_| Says::bytes(WANTED)).await;
    let (_folder, credentials) = known_to(&fake.registry(), PASSWORD);
    assert_eq!(fetch(&fake, credentials).await.unwrap(), WANTED);
    assert_eq!(fake.asked(), [Asked { what: blob(), authorization: None, body: String::new() }]);
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
    let strange_challenge = "`HOST` does not answer as a registry does: \
                             it wants to know who we are, and not in a way that registries do";
    for (answer, text, may_pass) in [
        (Says::bytes(vec![0; MOST + 1]), large, false),
        (Says::status(200).without_end(), large, false),
        (Says::bytes("something else"), &*others, false),
        (Says::bytes(""), &*others, false),
        (Says::status(206).body(WANTED), "`HOST` answers with 206 Partial Content", false),
        (Says::status(204), "`HOST` answers with 204 No Content", false),
        (Says::status(401), strange_challenge, false),
        (Says::status(401).header("www-authenticate", "Negotiate"), strange_challenge, false),
        (Says::status(401).header("www-authenticate", "Bearer service=\"x\""), strange_challenge, false),
        (Says::status(401).header("www-authenticate", "Basic realm=\"x\""), nobody, false),
        (Says::status(403).body("hunter2"), nobody, false),
        (
            Says::status(429).body(envelope),
            "`HOST` answers with 429 Too Many Requests (TOOMANYREQUESTS)",
            true,
        ),
        (Says::status(500).body("hunter2"), "`HOST` answers with 500 Internal Server Error", true),
        (Says::status(503).body(strange), "`HOST` answers with 503 Service Unavailable", true),
        (Says::status(503).without_end(), "`HOST` answers with 503 Service Unavailable", true),
        (Says::status(400).body(strange), "`HOST` answers with 400 Bad Request", false),
        (
            Says::status(404),
            &*format!("`HOST/acme/quorum` has nothing with the digest sha256:{digest}"),
            false,
        ),
        (
            Says::status(307),
            "`HOST` does not answer as a registry does: it sends us on, and does not say where",
            false,
        ),
        (
            Says::status(307)
                .header("location", "/v2/acme/quorum/blobs/sha256:".to_owned() + &digest.to_string()),
            "`HOST` does not answer as a registry does: it sends us on and on",
            false,
        ),
        (
            Says::status(302).header("location", "http://storage.example/blob?X-Signature=1"),
            "`HOST` does not answer as a registry does: it sends us to a place that is not encrypted",
            false,
        ),
        (
            Says::status(302).header("location", "https://user:hunter2@storage.example/blob"),
            "`HOST` does not answer as a registry does: it sends us to a place that is not encrypted",
            false,
        ),
        (
            Says::status(302).header("location", "file:///etc/passwd"),
            "`HOST` does not answer as a registry does: it sends us to no address",
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
        // Some registries also hand manifests out as blobs.
        for place in ["/manifests/", "/blobs/"] {
            let answer = manifest.clone();
            let fake = Fake::start(move |asked| {
                if asked.what.contains(place) { Says::bytes(answer.clone()) } else { Says::status(404) }
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
        Says::bytes(r#"{ "schemaVersion": 2, "layers": [] }"#),
        Says::bytes(WANTED),
        Says::status(500),
        Says::status(200).without_end(),
    ] {
        let fake = Fake::start(
            move |asked| {
                if asked.what == manifest() { answer.clone() } else { Says::status(404) }
            },
        )
        .await;
        let error = fetch(&fake, Credentials::none()).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_password_is_sent_where_it_is_wanted_and_nowhere_else() {
    let storage = Fake::start(|_| Says::bytes(WANTED)).await;
    let location = format!("http://{}/blob?X-Signature=1", storage.registry());
    let fake = Fake::start(move |asked| match asked.authorization.as_deref() {
        Some("Basic dXNlcjpodW50ZXIy") => Says::status(307).header("location", location.as_str()),
        _ => Says::status(401).header("www-authenticate", "Basic realm=\"registry\""),
    })
    .await;
    let (_folder, credentials) = known_to(&fake.registry(), PASSWORD);
    assert_eq!(fetch(&fake, credentials).await.unwrap(), WANTED);
    assert_eq!(fake.asked().len(), 2);
    let moved =
        Asked { what: "GET /blob?X-Signature=1".to_owned(), authorization: None, body: String::new() };
    assert_eq!(storage.asked(), [moved]);
}

#[tokio::test]
async fn what_storage_refuses_is_no_matter_of_credentials() {
    let storage = Fake::start(|_| Says::status(403).body("X-Signature")).await;
    let location = format!("http://{}/blob?X-Signature=1", storage.registry());
    let fake = Fake::start(move |_| Says::status(307).header("location", location.as_str())).await;
    let error = fetch(&fake, Credentials::none()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("`{}` answers with 403 Forbidden", storage.registry()));
    // Storage cannot ask who we are, either.
    let storage = Fake::start(|_| Says::status(401).header("www-authenticate", "Basic realm=\"x\"")).await;
    let location = format!("http://{}/blob", storage.registry());
    let fake = Fake::start(move |_| Says::status(307).header("location", location.as_str())).await;
    let (_folder, credentials) = known_to(&fake.registry(), PASSWORD);
    let error = fetch(&fake, credentials).await.unwrap_err();
    assert_eq!(error.to_string(), format!("`{}` answers with 401 Unauthorized", storage.registry()));
    assert_eq!(storage.asked().len(), 1);
}

#[tokio::test]
async fn a_wrong_password_is_told_from_none() {
    let fake =
        Fake::start(|_| Says::status(401).header("www-authenticate", "Basic realm=\"registry\"")).await;
    let (_folder, credentials) = known_to(&fake.registry(), PASSWORD);
    let error = fetch(&fake, credentials).await.unwrap_err();
    assert!(error.to_string().ends_with("with the credentials that were sent"), "{error}");
    let (_folder, credentials) = known_to(&fake.registry(), IDENTITY);
    let error = fetch(&fake, credentials).await.unwrap_err();
    assert!(
        error.to_string().ends_with("it wants a password, and there is an identity token for it"),
        "{error}"
    );
}

/// A registry that wants a token of another server.
async fn token_registry(realm: &Fake) -> Fake {
    let challenge = format!(
        "Basic realm=\"registry\", Bearer realm=\"http://{}/token?account=x\",service=\"a registry\"",
        realm.registry()
    );
    Fake::start(move |asked| match asked.authorization.as_deref() {
        Some("Bearer s3cr3t-t0ken") => Says::bytes(WANTED),
        _ => Says::status(401).header("www-authenticate", challenge.as_str()),
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
        let realm = Fake::start(move |_| Says::bytes(answer)).await;
        let fake = token_registry(&realm).await;
        let (_folder, credentials) = known_to(&fake.registry(), entry);
        assert_eq!(fetch(&fake, credentials).await.unwrap(), WANTED);
        let authorization = authorization.map(str::to_owned);
        assert_eq!(realm.asked(), [Asked { what: what.clone(), authorization, body: body.to_owned() }]);
    }
}

#[tokio::test]
async fn no_bad_token_is_used() {
    let none = "does not answer as a registry does: its token is none";
    for (answer, text, may_pass) in [
        (Says::status(401), "with the credentials that were sent", false),
        (Says::status(403).body("hunter2"), "with the credentials that were sent", false),
        (Says::status(500).body("hunter2"), "answers with 500 Internal Server Error", true),
        (Says::status(429), "answers with 429 Too Many Requests", true),
        (Says::status(307).header("location", "/token"), "answers with 307 Temporary Redirect", false),
        (Says::bytes("hunter2"), none, false),
        (Says::bytes("{}"), none, false),
        (Says::bytes(r#"{ "token": "" }"#), none, false),
        // A header cannot hold it.
        (Says::bytes(r#"{ "token": "s3cr3t-t0ken\r\nx: y" }"#), none, false),
        (Says::status(200).without_end(), "sends more than 65536 bytes", false),
        (Says::bytes(r#"{ "token": "another" }"#), "with the credentials that were sent", false),
    ] {
        let realm = Fake::start(move |_| answer.clone()).await;
        let fake = token_registry(&realm).await;
        let (_folder, credentials) = known_to(&fake.registry(), PASSWORD);
        let error = fetch(&fake, credentials).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.may_pass(), may_pass, "{error}");
        assert_eq!(realm.asked().len(), 1);
    }
}

#[tokio::test]
async fn credentials_go_nowhere_without_encryption() {
    let challenge = "Bearer realm=\"http://auth.example/token\"";
    let fake = Fake::start(move |_| Says::status(401).header("www-authenticate", challenge)).await;
    let (_folder, credentials) = known_to(&fake.registry(), PASSWORD);
    let error = fetch(&fake, credentials).await.unwrap_err();
    assert!(
        error.to_string().ends_with("it wants to know who we are at a place that is not encrypted"),
        "{error}"
    );
}

#[tokio::test]
async fn only_what_is_allowed_is_asked() {
    let fake = Fake::start(|_| Says::bytes(WANTED)).await;
    let (host, other) = (fake.registry(), format!("{}/other", fake.registry()));
    for allowed in [vec![], vec![other.clone()], vec!["ghcr.io".to_owned(), other]] {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        // Not even the credentials are looked at.
        let registries = Registries::new(allowed, Credentials::file("nowhere".into()));
        let error = fetch_with(&fake, registries).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`{host}/acme/quorum` is not among the registries that may be asked: add it to COUNTERSIGN_REGISTRIES"
            )
        );
    }
    assert_eq!(fake.asked(), []);
    let allowed = vec!["ghcr.io".parse().unwrap(), format!("{host}/acme").parse().unwrap()];
    assert_eq!(fetch_with(&fake, Registries::new(allowed, Credentials::none())).await.unwrap(), WANTED);
}

#[tokio::test]
async fn credentials_are_read_for_each_call() {
    let fake = Fake::start(|asked| match asked.authorization.as_deref() {
        Some("Basic dXNlcjpodW50ZXIy") => Says::bytes(WANTED),
        _ => Says::status(401).header("www-authenticate", "Basic realm=\"registry\""),
    })
    .await;
    let (folder, credentials) = known_to(&fake.registry(), r#"{ "username": "user", "password": "old" }"#);
    let registries = Registries::any(credentials);
    assert!(fetch_with(&fake, registries.clone()).await.is_err());
    let new = format!(r#"{{ "auths": {{ "{}": {PASSWORD} }} }}"#, fake.registry());
    std::fs::write(folder.path().join("config.json"), new).unwrap();
    assert_eq!(fetch_with(&fake, registries).await.unwrap(), WANTED);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_not_waited_for() {
    let (short, long) = (Duration::from_millis(50), Duration::from_secs(600));
    for patience in [
        Patience { connect: long, read: short, whole: long },
        Patience { connect: long, read: long, whole: short },
    ] {
        let fake = Fake::start(|_| Says::status(200).stalling()).await;
        let registries = Registries { patience, ..Registries::any(Credentials::none()) };
        let error = fetch_with(&fake, registries).await.unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` does not answer in time", fake.registry()));
        assert!(error.may_pass());
    }
    // Nobody listens there any more.
    let fake = Fake::start(|_| Says::status(200)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = repository(&format!("{}/acme/quorum", listener.local_addr().unwrap()));
    drop((listener, fake));
    let error = Registries::any(Credentials::none()).fetch(&gone, &wanted(), MOST).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached: ") && error.may_pass(), "{error}");
}
