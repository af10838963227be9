//! Manifests, which list the blobs of an artifact. They are written in the format of the OCI image specification and
//! the [Wasm OCI artifact layout](https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact), and parsed only
//! as far as needed to find a blob.

use countersign_core::lifecycle::{Digest, canonical};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Artifact;

/// The media type of the manifests that are written.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The media types of all manifests, one of whose digests may be pinned by mistake.
pub(super) const ANY_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// The media type of a module.
const WASM: &str = "application/wasm";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// The media type of signatures, both of the artifact and of its only blob.
const SIGNATURES: &str = "application/vnd.countersign.signatures.v1";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The parts of an artifact; `manifest` lists the other two.
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
    /// Parses a manifest; `None` if the bytes are something else.
    pub(super) fn read(bytes: &[u8]) -> Option<Manifest> {
        let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
        let lists = manifest.layers.is_some() || manifest.manifests.is_some();
        (manifest.schema_version == 2 && lists).then_some(manifest)
    }

    /// The module that the manifest lists, if it lists exactly one blob.
    pub(super) fn module(&self) -> Option<Digest> {
        self.only_layer(WASM).and_then(Layer::digest)
    }

    /// The signatures that the manifest lists, if it lists exactly one blob.
    pub(super) fn signatures(&self) -> Option<&Layer> {
        self.only_layer(SIGNATURES)
    }

    fn only_layer(&self, media_type: &str) -> Option<&Layer> {
        match self.layers.as_deref() {
            Some([layer]) if layer.media_type == media_type => Some(layer),
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
    /// The parts for a module, in the layout that WebAssembly tools expect. The same module has the same parts.
    pub(super) fn of_module(artifact: &Artifact<'a>) -> Parts<'a> {
        let Artifact { module, name, version, summary, exports, world } = *artifact;
        let digest = format!("sha256:{}", Digest::of(module));
        let config = canonical(&json!({
            // Required by readers. A real time would change the manifest's digest with each push.
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            // The layout's value for components, also for those that import nothing of WASI.
            "os": "wasip2",
            "layerDigests": [digest],
            "component": { "exports": exports, "imports": [], "target": world },
        }));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": listed(WASM_CONFIG, config.as_bytes()),
            // Tools use a layer's title as the file name when they pull it.
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

    /// The parts for signatures.
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

/// A manifest's entry for a blob.
fn listed(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", Digest::of(bytes)), "size": bytes.len() })
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
    object
}
