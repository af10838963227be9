//! What is stored in a registry, and signatures that are read back.

use serde_json::{Value, json};

use super::super::manifest::Parts;
use super::hostile::{Fake, Says};
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

/// What is answered to a request for signatures, by the place of the request: a manifest, and a blob.
fn signed(manifest: &str, blob: Says) -> impl Fn(&super::hostile::Asked) -> Says + Send + Sync + 'static {
    let manifest = manifest.to_owned();
    move |asked| {
        if asked.what.contains("/manifests/sha256-") && asked.what.ends_with(".sig") {
            Says::bytes(manifest.clone())
        } else {
            blob.clone()
        }
    }
}

async fn signatures(fake: &Fake) -> Result<Option<String>, RegistryError> {
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
    let fake = Fake::start(signed(&manifest, Says::bytes(TEXT))).await;
    assert_eq!(signatures(&fake).await, Ok(Some(TEXT.to_owned())));
    let fake = Fake::start(|_| Says::status(404)).await;
    assert_eq!(signatures(&fake).await, Ok(None));
}

#[tokio::test]
async fn what_is_no_signatures_is_not_taken_for_some() {
    let manifest = Parts::of_signatures(TEXT).manifest;
    let unusable = "what it has in the place of signatures is something else";
    let smaller = manifest.replace(&format!("\"size\":{}", TEXT.len()), "\"size\":3");
    let other_kind = manifest.replace("application/vnd.countersign.signatures.v1", "text/plain");
    let latin = Says::bytes(&b"\xe9"[..]);
    let latin_manifest = manifest
        .replace(&Digest::of(TEXT.as_bytes()).to_string(), &Digest::of(b"\xe9").to_string())
        .replace(&format!("\"size\":{}", TEXT.len()), "\"size\":1");
    let module = Parts::of_module(&ARTIFACT).manifest;
    for (manifest, blob, text) in [
        (manifest.as_str(), Says::bytes("another text"), "sends bytes that do not have the digest"),
        (&manifest, Says::status(404), unusable),
        (&manifest, Says::status(200).without_end(), "sends more than 16384 bytes"),
        (&manifest, Says::status(500), "answers with 500"),
        (&smaller, Says::bytes(TEXT), unusable),
        (&other_kind, Says::bytes(TEXT), unusable),
        (&latin_manifest, latin, unusable),
        (&module, Says::bytes(ARTIFACT.module), unusable),
        ("{}", Says::bytes(TEXT), unusable),
        ("no JSON", Says::bytes(TEXT), unusable),
    ] {
        let fake = Fake::start(signed(manifest, blob)).await;
        let error = signatures(&fake).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_blob_is_put_where_the_registry_says_and_a_password_is_not() {
    let storage = Fake::start(|_| Says::status(201)).await;
    let location = format!("http://{}/upload?_state=1", storage.registry());
    let fake = Fake::start(move |asked| match asked.authorization.as_deref() {
        None => Says::status(401).header("www-authenticate", "Basic realm=\"registry\""),
        Some(_) if asked.what.starts_with("POST") => Says::status(202).header("location", location.as_str()),
        Some(_) => Says::status(201),
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
    let [module, config] = storage.asked().try_into().unwrap();
    assert_eq!(module.what, format!("PUT /upload?_state=1&digest=sha256:{}", pushed.module));
    assert_eq!(module.body.as_bytes(), ARTIFACT.module);
    assert_eq!((module.authorization, config.authorization), (None, None));
    let manifest = fake.asked().pop().unwrap();
    assert_eq!(manifest.what, "PUT /v2/acme/quorum/manifests/1.2.3");
    assert_eq!(Digest::of(manifest.body.as_bytes()), pushed.manifest);
}

#[tokio::test]
async fn a_registry_that_takes_nothing_says_why() {
    for (post, put, text) in [
        (Says::status(202), Says::status(201), "it sends us on, and does not say where"),
        (
            Says::status(202).header("location", "http://storage.example/"),
            Says::status(201),
            "it sends us to a place that is not encrypted",
        ),
        (Says::status(202).header("location", "/here"), Says::status(500), "answers with 500"),
        (
            Says::status(202).header("location", "/here"),
            Says::status(400).body(r#"{ "errors": [{ "code": "MANIFEST_INVALID" }] }"#),
            "answers with 400 Bad Request (MANIFEST_INVALID)",
        ),
        (Says::status(403), Says::status(201), "without credentials"),
    ] {
        let fake =
            Fake::start(move |asked| if asked.what.starts_with("POST") { post.clone() } else { put.clone() })
                .await;
        let registries = Registries::any(Credentials::none());
        let repository = repository(&format!("{}/acme/quorum", fake.registry()));
        let error = registries.push_signatures(&repository, &Digest::of(b""), TEXT).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}
