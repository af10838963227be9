//! Manifests: what lists the blobs of an artifact. Written as the OCI image specification has them, and as the
//! [Wasm OCI artifact layout](https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact) has those of
//! components; read as far as it takes to find a blob.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Artifact;
use countersign_core::lifecycle::{Digest, canonical};

/// The kind of a manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The kinds of manifests that somebody may have copied a digest of.
pub(super) const ANY_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// The kind of a module's bytes.
const WASM: &str = "application/wasm";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// The kind of signatures, both of the artifact and of its only blob.
const SIGNATURES: &str = "application/vnd.countersign.signatures.v1";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// What to store in a registry, so that `manifest` lists all of it.
pub(super) struct Parts<'a> {
    pub(super) config: String,
    pub(super) blob: &'a [u8],
    pub(super) manifest: String,
}

/// A manifest, or a list of manifests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u8,
    #[serde(default)]
    layers: Option<Vec<Layer>>,
    #[serde(default)]
    manifests: Option<Vec<Value>>,
}

/// A blob that a manifest lists.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Layer {
    media_type: String,
    digest: String,
    pub(super) size: usize,
}

impl Manifest {
    /// The manifest that these bytes are, if they are one.
    pub(super) fn read(bytes: &[u8]) -> Option<Manifest> {
        let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
        let lists = manifest.layers.is_some() || manifest.manifests.is_some();
        (manifest.schema_version == 2 && lists).then_some(manifest)
    }

    /// The only module that it lists.
    pub(super) fn module(&self) -> Option<Digest> {
        self.only(WASM).and_then(Layer::digest)
    }

    /// Where the signatures are, where these are some.
    pub(super) fn signatures(&self) -> Option<&Layer> {
        self.only(SIGNATURES)
    }

    fn only(&self, kind: &str) -> Option<&Layer> {
        match self.layers.as_deref() {
            Some([layer]) if layer.media_type == kind => Some(layer),
            _ => None,
        }
    }
}

impl Layer {
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok())
    }
}

impl<'a> Parts<'a> {
    /// A module, as tools for WebAssembly expect it. The same module makes the same bytes at any time.
    pub(super) fn of_module(artifact: &Artifact<'a>) -> Parts<'a> {
        let Artifact { module, name, version, summary, exports, world } = *artifact;
        let digest = format!("sha256:{}", Digest::of(module));
        let config = canonical(&json!({
            // Readers want one, and a real one would make another artifact of the same module each time.
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            // What the layout has for components, also for those that import nothing of WASI.
            "os": "wasip2",
            "layerDigests": [digest],
            "component": { "exports": exports, "imports": [], "target": world },
        }));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": listed(WASM_CONFIG, config.as_bytes()),
            // The title of a layer is the name of the file that it is pulled to.
            "layers": [with(listed(WASM, module), "annotations", json!({
                "org.opencontainers.image.title": format!("{name}.wasm"),
            }))],
            "annotations": {
                "org.opencontainers.image.title": name,
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.description": summary,
            },
        });
        Parts { config, blob: module, manifest: canonical(&manifest) }
    }

    /// Signatures.
    pub(super) fn of_signatures(text: &'a str) -> Parts<'a> {
        let config = "{}".to_owned();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": SIGNATURES,
            "config": listed(EMPTY, config.as_bytes()),
            "layers": [listed(SIGNATURES, text.as_bytes())],
        });
        Parts { config, blob: text.as_bytes(), manifest: canonical(&manifest) }
    }
}

/// A blob, as a manifest lists it.
fn listed(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{}", Digest::of(bytes)), "size": bytes.len() })
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
    object
}
