//! Compiled modules on disk, so that a start does not compile them again.
//!
//! Native code is believed only if it carries a MAC that needs the server's secret: who can write into
//! the folder, but does not know the secret, can make a start slower and nothing else.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use zeroize::Zeroizing;

use countersign_core::lifecycle::Digest;

type HmacSha256 = Hmac<Sha256>;

/// Tells this use of the server's secret from every other.
const LABEL: &[u8] = b"countersign compile cache v1";
const MAC_BYTES: usize = 32;
/// Far above what a module of the largest size compiles to.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// How long a file is kept that nobody loads: longer than a gateway runs between two starts, as a rule.
const UNUSED: Duration = Duration::from_secs(90 * 86_400);

/// A folder of compiled modules, by the digest of what they were compiled from.
pub struct CompileCache {
    dir: PathBuf,
    key: Zeroizing<[u8; 32]>,
}

impl CompileCache {
    /// A cache in `dir`, which is made when the first module is kept, under a key derived from `secret`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, secret: &[u8; 32]) -> CompileCache {
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&mac(secret, &[LABEL]).finalize().into_bytes());
        CompileCache { dir: dir.into(), key }
    }

    /// The compiled module, if it is here and can be believed. Whatever is wrong with it is logged once.
    pub(super) fn load(&self, wasm: &wasmtime::Engine, module: &Digest) -> Option<Component> {
        let path = self.path(module);
        let file = match read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%module, %error, "a compiled policy module cannot be read; compiling it again");
                return None;
            }
        };
        let believed = file
            .split_at_checked(MAC_BYTES)
            .filter(|(tag, artifact)| self.mac(wasm, module, artifact).verify_slice(tag).is_ok());
        let Some((_, artifact)) = believed else {
            tracing::warn!(%module, "a compiled policy module is not what was kept; compiling it again");
            return None;
        };
        match deserialize(wasm, artifact) {
            Ok(component) => {
                #[expect(clippy::disallowed_methods, reason = "the ages of files go by the machine's clock")]
                let now = SystemTime::now();
                // By this it is known to be in use. Where that cannot be written, it is compiled again after some time.
                let _ = fs::File::open(&path).and_then(|file| file.set_modified(now));
                Some(component)
            }
            Err(error) => {
                tracing::warn!(%module, %error, "a compiled policy module cannot be used; compiling it again");
                None
            }
        }
    }

    /// Keeps the compiled module. A cache that cannot be written to costs time, so it is logged, not returned.
    pub(super) fn keep(&self, wasm: &wasmtime::Engine, module: &Digest, component: &Component) {
        let kept = component.serialize().map_err(io::Error::other).and_then(|artifact| {
            let tag = self.mac(wasm, module, &artifact).finalize().into_bytes();
            self.write(module, &[tag.as_slice(), &artifact])
        });
        if let Err(error) = kept {
            tracing::warn!(%module, %error, "a compiled policy module cannot be kept");
        } else if let Err(error) = self.remove_unused() {
            tracing::warn!(%error, "compiled policy modules that nobody uses cannot be removed");
        }
    }

    /// Removes what nobody has loaded for long, and what a gateway that was killed has left unfinished.
    fn remove_unused(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let is_ours = entry.file_name().to_str().is_some_and(is_ours);
            let metadata = entry.metadata()?;
            let is_old = metadata.modified()?.elapsed().is_ok_and(|unused| unused > UNUSED);
            if is_ours && is_old && metadata.is_file() {
                match fs::remove_file(entry.path()) {
                    // Another gateway was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed?,
                }
            }
        }
        Ok(())
    }

    fn mac(&self, wasm: &wasmtime::Engine, module: &Digest, artifact: &[u8]) -> HmacSha256 {
        let mut compatibility = Sha256Hasher(Sha256::new());
        wasm.precompile_compatibility_hash().hash(&mut compatibility);
        // The first two have a fixed length, so that no other split of the same bytes has this MAC.
        mac(&self.key, &[module.as_bytes(), &compatibility.0.finalize(), artifact])
    }

    fn write(&self, module: &Digest, parts: &[&[u8]]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
        // Renamed into place, so that a reader sees all of it or none.
        let unique = format!(".{module}.{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let temporary = self.dir.join(unique);
        let written = write_all(&temporary, parts).and_then(|()| fs::rename(&temporary, self.path(module)));
        if written.is_err() {
            // What is left of it is of no use; that it cannot be removed either changes nothing.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn path(&self, module: &Digest) -> PathBuf {
        self.dir.join(format!("{module}.cwasm"))
    }
}

/// Whether a file of this name is a compiled module, or the beginning of one.
fn is_ours(name: &str) -> bool {
    let digest = name.strip_suffix(".cwasm").or_else(|| name.strip_prefix('.')?.split('.').next());
    digest.is_some_and(|digest| digest.parse::<Digest>().is_ok())
}

impl std::fmt::Debug for CompileCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompileCache").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> HmacSha256 {
    // A key that is shorter than a block is filled up with zeros, which is what HMAC itself does.
    let mut block = Zeroizing::new([0; 64]);
    for (byte, of_key) in block.iter_mut().zip(key) {
        *byte = *of_key;
    }
    let mut mac = HmacSha256::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Longer than the limit means truncated, hence not believed.
    fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_all(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

#[expect(unsafe_code, reason = "wasmtime cannot check native code; the MAC says whose it is")]
fn deserialize(wasm: &wasmtime::Engine, artifact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `artifact` must be what `Component::serialize` returned, unchanged. The only caller has verified
    // a MAC over it under a key derived from the server's secret, and only `keep` makes such a MAC. The MAC
    // also covers the engine's compatibility hash, so it is code for this engine and processor.
    unsafe { Component::deserialize(wasm, artifact) }
}

/// Takes a `Hash` into SHA-256, all of which is used rather than the 64 bits that `Hasher` returns.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
