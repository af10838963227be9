//! `push` and `signatures`.

use serde_json::{Value, json};

use super::super::manifest::Parts;
use super::fake::{FakeRegistry, Reply};
use super::*;

const ARTIFACT: Artifact<'static> = Artifact {
    module: b"\0asm, more or less",
    name: "quorum",
    version: "1.2.3",
    summary: "Enough approvers.",
    exports: &["countersign:policy/policy@0.1.0"],
    world: "countersign:policy/policy-module@0.1.0",
};

const TEXT: &str = "a line\nand another\n";

/// Replies to requests for signatures: with this manifest, and with `blob` to everything else.
fn signed(manifest: &str, blob: Reply) -> impl Fn(&super::fake::Received) -> Reply + Send + Sync + 'static {
    let manifest = manifest.to_owned();
    move |received| {
        if received.line.contains("/manifests/sha256-") && received.line.ends_with(".sig") {
            Reply::bytes(manifest.clone())
        } else {
            blob.clone()
        }
    }
}

async fn signatures(fake: &FakeRegistry) -> Result<Option<String>, RegistryError> {
    let repository = repository(&format!("{}/acme/quorum", fake.registry()));
    let digest = Digest::of(ARTIFACT.module);
    Registries::any(Credentials::none()).signatures(&repository, &digest).await
}

#[test]
fn a_module_is_described_as_tools_for_webassembly_expect_it() {
    let parts = Parts::of_module(&ARTIFACT);
    let digest = format!("sha256:{}", Digest::of(ARTIFACT.module));
    let config: Value = serde_json::from_str(&parts.config).unwrap();
    assert_eq!(
        config,
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [digest],
            "component": {
                "exports": ["countersign:policy/policy@0.1.0"],
                "imports": [],
                "target": "countersign:policy/policy-module@0.1.0",
            },
        })
    );
    let manifest: Value = serde_json::from_str(&parts.manifest).unwrap();
    assert_eq!(
        manifest,
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.wasm.config.v0+json",
                "digest": format!("sha256:{}", Digest::of(parts.config.as_bytes())),
                "size": parts.config.len(),
            },
            "layers": [{
                "mediaType": "application/wasm",
                "digest": digest,
                "size": ARTIFACT.module.len(),
                "annotations": { "org.opencontainers.image.title": "quorum.wasm" },
            }],
            "annotations": {
                "org.opencontainers.image.title": "quorum",
                "org.opencontainers.image.version": "1.2.3",
                "org.opencontainers.image.description": "Enough approvers.",
            },
        })
    );
    assert_eq!(parts.manifest, Parts::of_module(&ARTIFACT).manifest);
}

#[tokio::test]
async fn signatures_are_read() {
    let manifest = Parts::of_signatures(TEXT).manifest;
    let fake = FakeRegistry::start(signed(&manifest, Reply::bytes(TEXT))).await;
    assert_eq!(signatures(&fake).await, Ok(Some(TEXT.to_owned())));
    let fake = FakeRegistry::start(|_| Reply::status(404)).await;
    assert_eq!(signatures(&fake).await, Ok(None));
}

#[tokio::test]
async fn what_is_no_signatures_is_not_taken_for_some() {
    let manifest = Parts::of_signatures(TEXT).manifest;
    let unusable = "the tag for signatures refers to something else";
    let smaller = manifest.replace(&format!("\"size\":{}", TEXT.len()), "\"size\":3");
    let other_kind = manifest.replace("application/vnd.countersign.signatures.v1", "text/plain");
    let latin = Reply::bytes(&b"\xe9"[..]);
    let latin_manifest = manifest
        .replace(&Digest::of(TEXT.as_bytes()).to_string(), &Digest::of(b"\xe9").to_string())
        .replace(&format!("\"size\":{}", TEXT.len()), "\"size\":1");
    let module = Parts::of_module(&ARTIFACT).manifest;
    for (manifest, blob, text) in [
        (manifest.as_str(), Reply::bytes("another text"), "sends bytes that do not have the digest"),
        (&manifest, Reply::status(404), unusable),
        (&manifest, Reply::status(200).without_end(), "sends more than 16384 bytes"),
        (&manifest, Reply::status(500), "answers with 500"),
        (&smaller, Reply::bytes(TEXT), unusable),
        (&other_kind, Reply::bytes(TEXT), unusable),
        (&latin_manifest, latin, unusable),
        (&module, Reply::bytes(ARTIFACT.module), unusable),
        ("{}", Reply::bytes(TEXT), unusable),
        ("no JSON", Reply::bytes(TEXT), unusable),
    ] {
        let fake = FakeRegistry::start(signed(manifest, blob)).await;
        let error = signatures(&fake).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_blob_is_put_where_the_registry_says_and_a_password_is_not() {
    let storage = FakeRegistry::start(|_| Reply::status(201)).await;
    let location = format!("http://{}/upload?_state=1", storage.registry());
    let fake = FakeRegistry::start(move |received| match received.authorization.as_deref() {
        None => Reply::status(401).header("www-authenticate", "Basic realm=\"registry\""),
        Some(_) if received.line.starts_with("POST") => {
            Reply::status(202).header("location", location.as_str())
        }
        Some(_) => Reply::status(201),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let entry = r#"{ "auth": "dXNlcjpodW50ZXIy" }"#;
    std::fs::write(&file, format!(r#"{{ "auths": {{ "{}": {entry} }} }}"#, fake.registry())).unwrap();
    let repository = repository(&format!("{}/acme/quorum", fake.registry()));
    let registries = Registries::any(Credentials::file(file));
    let pushed = registries.push(&repository, &"1.2.3".parse().unwrap(), &ARTIFACT).await.unwrap();
    assert_eq!(pushed.module, Digest::of(ARTIFACT.module));
    let [module, config] = storage.received().try_into().unwrap();
    assert_eq!(module.line, format!("PUT /upload?_state=1&digest=sha256:{}", pushed.module));
    assert_eq!(module.body.as_bytes(), ARTIFACT.module);
    assert_eq!((module.authorization, config.authorization), (None, None));
    let manifest = fake.received().pop().unwrap();
    assert_eq!(manifest.line, "PUT /v2/acme/quorum/manifests/1.2.3");
    assert_eq!(Digest::of(manifest.body.as_bytes()), pushed.manifest);
}

#[tokio::test]
async fn a_registry_that_takes_nothing_says_why() {
    for (post, put, text) in [
        (Reply::status(202), Reply::status(201), "no `Location` header"),
        (
            Reply::status(202).header("location", "http://storage.example/"),
            Reply::status(201),
            "its `Location` is not a secure URL",
        ),
        (Reply::status(202).header("location", "/here"), Reply::status(500), "answers with 500"),
        (
            Reply::status(202).header("location", "/here"),
            Reply::status(400).body(r#"{ "errors": [{ "code": "MANIFEST_INVALID" }] }"#),
            "answers with 400 Bad Request (MANIFEST_INVALID)",
        ),
        (Reply::status(403), Reply::status(201), "without credentials"),
    ] {
        let fake =
            FakeRegistry::start(
                move |received| if received.line.starts_with("POST") { post.clone() } else { put.clone() },
            )
            .await;
        let registries = Registries::any(Credentials::none());
        let repository = repository(&format!("{}/acme/quorum", fake.registry()));
        let error = registries.push_signatures(&repository, &Digest::of(b""), TEXT).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}
