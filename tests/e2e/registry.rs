//! A policy author pushes a module to a registry; the tests read it back over plain HTTP, and with the library that tools for
//! WebAssembly use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use countersign_tests::{
    Home, REGISTRY_PASSWORD, REGISTRY_USER, Registry, countersign, countersign_with, digest, install_script,
};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde_json::{Value, json};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A folder with the module `quorum.wasm` in it.
struct Author(TempDir);

impl Author {
    fn new() -> Author {
        let author = Author(tempfile::tempdir().expect("there is room for a temporary folder"));
        author.write("quorum.wasm", &Home::built("quorum"));
        author
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).expect("a temporary folder can be written to");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn push(&self, file: &str, to: &str, options: &[&str]) -> Output {
        let file = self.path(file).display().to_string();
        countersign(["policy", "push", &file, to].iter().chain(options))
    }

    /// Pushes, and reads the report.
    fn pushed(&self, file: &str, to: &str, options: &[&str]) -> Value {
        let output = self.push(file, to, &[options, &["--format", "json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Fails to push, and returns the error, without the folder.
    fn not_pushed(&self, file: &str, to: &str, options: &[&str]) -> String {
        let output = self.push(file, to, options);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{output:?}");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        said.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// The tags in a repository, in order; none if there is no such repository.
async fn tags(registry: &Registry, path: &str) -> Vec<String> {
    let listed = registry.get(&format!("/v2/{path}/tags/list")).await.json();
    let mut tags: Vec<String> = serde_json::from_value(listed["tags"].clone()).unwrap_or_default();
    tags.sort();
    tags
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test]
async fn a_module_is_pushed_and_pinned() {
    let (registry, author) = (Registry::start().await, Author::new());
    let to = registry.repository("acme/policies/quorum");
    let output = author.push("quorum.wasm", &to, &[]);
    assert!(output.status.success(), "{output:?}");
    let bytes = Home::built("quorum");
    let pin = digest(&bytes);
    let manifest = registry.get("/v2/acme/policies/quorum/manifests/0.1.0").await;
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(
        said,
        format!(
            "quorum 0.1.0\n\
             pushed to   {to}:0.1.0\n\
             digest      {pin}\n\
             size        {} bytes\n\
             signatures  none\n\
             manifest    {}\n\
             \n\
             in a policy set, under `modules`\n\
             \x20 quorum: {to}@{pin}\n",
            bytes.len(),
            digest(&manifest.body),
        )
    );
    // What is pinned is the blob itself.
    assert_eq!(registry.get(&format!("/v2/acme/policies/quorum/blobs/{pin}")).await.body, bytes);
}

#[tokio::test]
async fn the_same_module_has_the_same_manifest_each_time() {
    let (registry, author) = (Registry::start().await, Author::new());
    let to = registry.repository("acme/quorum");
    let first = author.pushed("quorum.wasm", &to, &[]);
    assert_eq!(
        first,
        json!({
            "name": "quorum",
            "version": "0.1.0",
            "reference": format!("{to}:0.1.0"),
            "pin": format!("{to}@{}", digest(&Home::built("quorum"))),
            "digest": digest(&Home::built("quorum")),
            "bytes": Home::built("quorum").len(),
            "manifest": digest(&registry.get("/v2/acme/quorum/manifests/0.1.0").await.body),
            "signatures": null,
        })
    );
    assert_eq!(author.pushed("quorum.wasm", &to, &[]), first);
    // A tag is a name, and names nothing that is part of the artifact.
    let named = author.pushed("quorum.wasm", &format!("{to}:stable"), &[]);
    assert_eq!(named["manifest"], first["manifest"]);
    assert_eq!(named["reference"], format!("{to}:stable"));
    assert_eq!(tags(&registry, "acme/quorum").await, ["0.1.0", "stable"]);
}

#[tokio::test]
async fn registries_and_other_tools_know_it_for_a_component() {
    let (registry, author) = (Registry::start().await, Author::new());
    let pushed = author.pushed("quorum.wasm", &registry.repository("acme/quorum"), &[]);
    let reply = registry.get("/v2/acme/quorum/manifests/0.1.0").await;
    assert_eq!(reply.header("content-type"), Some(MANIFEST));
    let manifest = reply.json();
    assert_eq!(
        manifest["annotations"],
        json!({
            "org.opencontainers.image.title": "quorum",
            "org.opencontainers.image.version": "0.1.0",
            "org.opencontainers.image.description": "Approval by enough of the listed approvers, each counted once.",
        })
    );
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(1));
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(
        manifest["layers"][0]["annotations"],
        json!({"org.opencontainers.image.title": "quorum.wasm"})
    );

    // As `wkg oci pull` does it.
    let client = client(&registry);
    let reference = reference(&registry, "acme/quorum", "0.1.0");
    let image = client.pull(&reference, &RegistryAuth::Anonymous, vec!["application/wasm"]).await;
    let image = image.expect("it can be pulled");
    assert_eq!(image.digest.as_deref(), pushed["manifest"].as_str());
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.layers[0].data, Home::built("quorum"));
    let config: Value = serde_json::from_slice(&image.config.data).expect("JSON");
    assert_eq!(
        config,
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [pushed["digest"]],
            "component": {
                "exports": ["countersign:policy/policy@0.2.0"],
                "imports": [],
                "target": "countersign:policy/policy-module@0.2.0",
            },
        })
    );
}

#[tokio::test]
async fn signatures_beside_a_module_are_pushed_with_it() {
    let (registry, author) = (Registry::start().await, Author::new());
    let to = registry.repository("acme/quorum");
    let pin = digest(&Home::built("quorum"));
    let place = format!("/v2/acme/quorum/manifests/{}.sig", pin.replace(':', "-"));
    author.pushed("quorum.wasm", &to, &[]);
    assert_eq!(registry.get(&place).await.status(), 404);
    // Whether they are by anybody's key is for gateways to see.
    let line = |letter: &str| format!("{}==\n", letter.repeat(86));
    for signatures in [line("A"), format!("# others, in their place\n{}{}", line("Q"), line("g"))] {
        author.write("quorum.wasm.sig", signatures.as_bytes());
        let pushed = author.pushed("quorum.wasm", &to, &[]);
        assert_eq!(pushed["signatures"], text(&author.path("quorum.wasm.sig")));
        let manifest = registry.get(&place).await;
        assert_eq!(manifest.header("content-type"), Some(MANIFEST));
        let manifest = manifest.json();
        assert_eq!(manifest["artifactType"], "application/vnd.countersign.signatures.v1");
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
        assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(1));
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.countersign.signatures.v1");
        let blob = manifest["layers"][0]["digest"].as_str().expect("a digest");
        let blob = registry.get(&format!("/v2/acme/quorum/blobs/{blob}")).await;
        assert_eq!(blob.text(), signatures);
    }
    let said = String::from_utf8(author.push("quorum.wasm", &to, &[]).stdout).expect("UTF-8");
    let line = format!("\nsignatures  {}\n", text(&author.path("quorum.wasm.sig")));
    assert!(said.contains(&line), "{said}");

    // A malformed signature file stops the push.
    let other = registry.repository("acme/other");
    for (signatures, why) in [
        (b"\xff".to_vec(), "it is not UTF-8 text"),
        (vec![b'x'; 16 * 1024 + 1], "it has more than 16384 bytes"),
    ] {
        author.write("quorum.wasm.sig", &signatures);
        let said = author.not_pushed("quorum.wasm", &other, &[]);
        assert_eq!(said, format!("cannot read the signatures `quorum.wasm.sig`: {why}\n"));
    }
    author.write("quorum.wasm.sig", b"\nnonsense\n");
    let said = author.not_pushed("quorum.wasm", &other, &[]);
    assert!(said.starts_with("quorum.wasm.sig:2: this is no signature"), "{said}");
    assert!(tags(&registry, "acme/other").await.is_empty());
}

#[tokio::test]
async fn a_registry_that_wants_a_password_gets_it_from_a_file() {
    let (registry, author) = (Registry::start_with_password().await, Author::new());
    let to = registry.repository("acme/quorum");
    let at = format!("{}/acme/quorum", registry.address());
    let refused = |file: &str| author.not_pushed("quorum.wasm", &to, &["--auth-file", file]);

    assert_eq!(
        author.not_pushed("quorum.wasm", &to, &[]),
        format!(
            "`{at}` may not be read or written without credentials, and there are none for this registry\n"
        )
    );
    assert_eq!(
        refused(text(&registry.credentials("a wrong one"))),
        format!("`{at}` may not be read or written with the credentials that were sent\n")
    );
    let missing = author.path("missing.json");
    assert_eq!(
        refused(text(&missing)),
        format!(
            "cannot read the credentials for `{}` from `missing.json`: the file cannot be read\n",
            registry.address()
        )
    );
    author.write("config.json", format!("{REGISTRY_USER}:{REGISTRY_PASSWORD}").as_bytes());
    let said = refused(text(&author.path("config.json")));
    assert!(said.contains("the file is not in the format of Docker's `config.json`"), "{said}");
    assert!(!said.contains(REGISTRY_PASSWORD), "{said}");
    assert!(tags(&registry, "acme/quorum").await.is_empty());

    let right = registry.credentials(REGISTRY_PASSWORD);
    author.pushed("quorum.wasm", &format!("{to}:named"), &["--auth-file", text(&right)]);
    // The file of `docker login` is found without a flag.
    let folder = right.parent().expect("a file is in a folder").to_owned();
    let arguments =
        ["policy", "push", text(&author.path("quorum.wasm")), &format!("{to}:found")].map(str::to_owned);
    let output = countersign_with([("DOCKER_CONFIG", folder)], &arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(tags(&registry, "acme/quorum").await, ["found", "named"]);
}

#[tokio::test]
async fn a_helper_may_keep_the_password() {
    let (registry, author) = (Registry::start_with_password().await, Author::new());
    let to = registry.repository("acme/quorum");
    author.write("config.json", br#"{"credsStore": "test"}"#);
    let helper = author.path("docker-credential-test");
    let push = |says: &str| {
        install_script(&helper, &format!("#!/bin/sh\nread server\n{says}\n"));
        let (module, auth) = (author.path("quorum.wasm"), author.path("config.json"));
        let arguments = ["policy", "push", text(&module), &to, "--auth-file", text(&auth)];
        let output = countersign_with([("PATH", author.path("."))], arguments);
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(!said.contains(REGISTRY_PASSWORD), "{said}");
        (output.status.code(), said)
    };
    // It is asked for this registry.
    let (code, said) = push(&format!(
        "test \"$server\" = {} && echo '{}'",
        registry.address(),
        json!({"ServerURL": "", "Username": REGISTRY_USER, "Secret": REGISTRY_PASSWORD})
    ));
    assert_eq!(code, Some(0), "{said}");
    for (says, why) in [
        // What Docker's helpers print if they have no password for a registry.
        (
            "echo credentials not found in native keychain; exit 1".to_owned(),
            "there are none for this registry",
        ),
        (format!("echo {REGISTRY_PASSWORD} | tee /dev/stderr; exit 1"), "the credential helper failed"),
        (format!("echo {REGISTRY_PASSWORD}"), "the credential helper printed an invalid answer"),
    ] {
        let (code, said) = push(&says);
        assert!(code == Some(2) && said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_module_that_cannot_be_pushed_is_an_error() {
    let (registry, author) = (Registry::start().await, Author::new());
    let to = registry.repository("acme/quorum");
    author.write("text.wasm", b"not a module");
    author.write("imports.wasm", &wat::parse_str(r#"(component (import "a:b/c" (instance)))"#).expect("WAT"));
    // A `+` is in versions, and in no tag.
    author.write(
        "version.wasm",
        &replaced(Home::built("quorum"), b"quorum0.1.0Approval", b"quorum0+1.0Approval"),
    );

    for (file, to, said) in [
        ("missing.wasm", to.as_str(), "cannot read the module `missing.wasm`: No such file or directory"),
        ("text.wasm", &to, "`text.wasm` is not a policy module: it is no WebAssembly"),
        ("imports.wasm", &to, "`imports.wasm` is not a policy module: it imports `a:b/c`"),
        (
            "version.wasm",
            &to,
            "the module's version, `0+1.0`, is not a valid tag: name one, `oci://127.0.0.1:",
        ),
        ("quorum.wasm", "ghcr.io/acme/quorum", "`ghcr.io/acme/quorum` does not begin with `oci://`"),
        ("quorum.wasm", "oci://quorum", "`quorum` names no repository"),
        ("quorum.wasm", "oci://ghcr.io/Acme/quorum", "`Acme/quorum` is not a valid repository"),
        ("quorum.wasm", &format!("{to}:"), "`` is not a valid tag"),
        ("quorum.wasm", &format!("{to}@sha256:00"), "a push sets a tag"),
    ] {
        let shown = author.not_pushed(file, to, &[]);
        assert!(shown.contains(said), "{shown}");
    }
    assert_eq!(registry.get("/v2/_catalog").await.json(), json!({"repositories": []}));
    author.pushed("version.wasm", &format!("{to}:named"), &[]);

    let host = registry.address();
    registry.stop();
    let shown = author.not_pushed("quorum.wasm", &to, &[]);
    assert!(shown.starts_with(&format!("`{host}` cannot be reached: ")), "{shown}");
    let shown = author.not_pushed("quorum.wasm", "oci://registry.invalid/quorum", &[]);
    assert!(shown.starts_with("`registry.invalid` cannot be reached: "), "{shown}");
}

fn replaced(mut bytes: Vec<u8>, part: &[u8], by: &[u8]) -> Vec<u8> {
    let at = bytes.windows(part.len()).position(|window| window == part).expect("it is there");
    bytes[at..at + by.len()].copy_from_slice(by);
    bytes
}

fn client(registry: &Registry) -> Client {
    // It wants one, even if nothing is encrypted; another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let protocol = ClientProtocol::HttpsExcept(vec![registry.address().to_string()]);
    Client::new(ClientConfig { protocol, ..ClientConfig::default() })
}

fn reference(registry: &Registry, path: &str, tag: &str) -> Reference {
    Reference::with_tag(registry.address().to_string(), path.to_owned(), tag.to_owned())
}
