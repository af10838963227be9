//! The files of a policy set, read once, so that what is checked is what is loaded.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::manifest::{Manifest, at_hand};
use crate::yaml::document::Place;
use crate::yaml::error::{Errors, LoadErrors};
use crate::{Limits, files};
use countersign_core::lifecycle::Digest;
use countersign_core::record::{SIGNATURES_BYTES, Signature};
use countersign_registry::RegistryError;

const MAX_SET_BYTES: u64 = 1 << 20;
const MAX_SCHEMA_BYTES: u64 = 256 << 10;

/// The most entries of `modules` and of `schemas`, and the most bytes that all files may have: a folder that is not one of
/// a policy set is not read to its end.
const MOST_FILES: usize = 4096;
const MOST_BYTES: usize = 256 << 20;

/// The most signatures that a folder may have: each may have to be looked at for each module.
const MOST_SIGNATURES: usize = 256;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A policy set's files, wherever they came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// What errors call the set's own file.
    pub name: String,
    /// The set's own file.
    pub text: String,
    /// What errors call each module file, and its bytes.
    pub modules: Vec<(String, Vec<u8>)>,
    /// The action, what errors call the file, and its bytes.
    pub schemas: Vec<(String, String, Vec<u8>)>,
    /// Detached signatures, of modules or of the set. Which is of what, they tell themselves: file names mean nothing.
    pub signatures: Vec<Signature>,
    /// Why modules that should come from a registry are not among them.
    pub unfetched: BTreeMap<Digest, RegistryError>,
    /// Where the modules are, for the error that misses one.
    pub kept: Kept,
    /// What `policy-set.yaml.sha256` says of the files, if there is one.
    pub manifest: Option<Manifest>,
}

/// Where the modules of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Files beside the set's own.
    InFolder,
    /// In the gateway's store.
    InStore,
}

impl Source {
    /// The folder of a policy set that somebody names by its folder, or by its own file.
    pub fn folder(named: &Path) -> &Path {
        match named.parent() {
            Some(parent) if named.ends_with("policy-set.yaml") => {
                if parent.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    parent
                }
            }
            _ => named,
        }
    }

    /// Reads `policy-set.yaml`, `modules/*.wasm` and `schemas/*.json` in `dir`, the signatures beside them, which are
    /// `modules/*.sig` and `policy-set.yaml.sig`, and `policy-set.yaml.sha256`. Blocks.
    ///
    /// # Errors
    /// What cannot be read, or is too large.
    pub fn read(dir: &Path, limits: &Limits) -> Result<Source, LoadErrors> {
        let path = dir.join("policy-set.yaml");
        let name = path.display().to_string();
        let mut errors = Errors::about(&name);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) => {
                errors.add(Place::default(), format!("cannot be read: {error}"));
                String::new()
            }
        };
        // One byte more than a module may have is enough to see that it has too many.
        let module_bytes = u64::try_from(limits.module_bytes).unwrap_or(u64::MAX).saturating_add(1);
        let modules = read_all(&dir.join("modules"), "wasm", module_bytes, &mut errors);
        let schemas = read_all(&dir.join("schemas"), "json", MAX_SCHEMA_BYTES, &mut errors);
        let signatures = read_signatures(dir, &mut errors);
        let files = at_hand(dir, &text, modules.iter().chain(&schemas));
        let manifest = match Manifest::read(&path, &files) {
            Ok(manifest) => manifest,
            Err((name, error)) => {
                errors.add_in(&name, format!("cannot be read: {error}"));
                None
            }
        };
        errors.into_result()?;
        let modules = modules.into_iter().map(|(_, name, bytes)| (name, bytes)).collect();
        // JSON has no byte order mark, but editors write one.
        let unmarked = |bytes: Vec<u8>| match bytes.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) => rest.to_vec(),
            None => bytes,
        };
        let schemas =
            schemas.into_iter().map(|(action, name, bytes)| (action, name, unmarked(bytes))).collect();
        Ok(Source {
            name,
            text,
            modules,
            schemas,
            signatures,
            unfetched: BTreeMap::new(),
            kept: Kept::InFolder,
            manifest,
        })
    }

    /// What is odd about the files, and no fault of the set; `is_signed` says whether it has a valid signature, which proves
    /// all of it. Blocks.
    pub(super) fn oddities(&self, is_signed: bool) -> Vec<String> {
        let mut oddities = Vec::new();
        if let Some(Manifest { fits: Err(why), .. }) = self.manifest.as_ref().filter(|_| !is_signed) {
            oddities.push(format!(
                "`{}.sha256` does not fit, so a running gateway does not take this set from its folder: {why}",
                self.name
            ));
        }
        let ignored = self.ignored_schemas();
        oddities.extend(ignored.map(|path| {
            format!("`{}` is not read: a schema is called `ACTION.json`, in lower case", path.display())
        }));
        oddities
    }

    /// What is beside the schemas and not called like one, hidden files apart.
    fn ignored_schemas(&self) -> impl Iterator<Item = PathBuf> {
        let folder = Path::new(&self.name).with_file_name("schemas");
        let paths = match self.kept {
            Kept::InFolder => files::list(&folder, MOST_FILES).unwrap_or_default(),
            Kept::InStore => Vec::new(),
        };
        let is_hidden =
            |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        paths.into_iter().filter(move |path| !has_extension(path, "json") && !is_hidden(path))
    }

    /// A digest of everything in it: two sources with the same one are the same, whatever they are called.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let named = |files: &mut dyn Iterator<Item = (&str, &[u8])>| -> Vec<(String, Digest)> {
            let mut files: Vec<_> =
                files.map(|(name, bytes)| (file_name(name).to_owned(), Digest::of(bytes))).collect();
            files.sort();
            files
        };
        let modules = named(&mut self.modules.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
        let schemas =
            named(&mut self.schemas.iter().map(|(_, name, bytes)| (name.as_str(), bytes.as_slice())));
        let signatures: Vec<String> = self.signatures.iter().map(Signature::to_string).collect();
        let mut parts =
            vec![json!(Digest::of(self.text.as_bytes())), json!(modules), json!(schemas), json!(signatures)];
        // A folder without one keeps the digest that it had before there were manifests.
        parts.extend(self.manifest.as_ref().map(|manifest| json!(manifest.digest)));
        Digest::of_json(&json!(parts))
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The signatures of the set and of its modules.
fn read_signatures(dir: &Path, errors: &mut Errors) -> Vec<Signature> {
    // One byte more than there may be is enough to see that there are too many.
    let limit = u64::try_from(SIGNATURES_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut found = read_all(&dir.join("modules"), "sig", limit, errors);
    let own = dir.join("policy-set.yaml.sig");
    match files::read(&own, limit) {
        Ok(bytes) => found.push((String::new(), own.display().to_string(), bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => errors.add_in(&own.display().to_string(), format!("cannot be read: {error}")),
    }
    let mut signatures = Vec::new();
    for (_, name, bytes) in found {
        if bytes.len() > SIGNATURES_BYTES {
            errors.add_in(&name, format!("it has more than {SIGNATURES_BYTES} bytes"));
            continue;
        }
        match Signature::read_all(&String::from_utf8_lossy(&bytes)) {
            Ok(read) => signatures.extend(read),
            Err((line, wrong)) => errors.add_in_line(&name, line, wrong),
        }
    }
    signatures.sort_unstable();
    signatures.dedup();
    if signatures.len() > MOST_SIGNATURES {
        let folder = dir.display().to_string();
        errors.add_in(&folder, format!("it has more than {MOST_SIGNATURES} signatures"));
    }
    signatures
}

fn read_text(path: &Path) -> io::Result<String> {
    let bytes = files::read(path, MAX_SET_BYTES + 1)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_SET_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_SET_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The files in `dir` with this extension, in order: stem, path and bytes. No folder, no files.
fn read_all(dir: &Path, extension: &str, limit: u64, errors: &mut Errors) -> Vec<(String, String, Vec<u8>)> {
    let mut paths = match files::list(dir, MOST_FILES) {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            errors.add_in(&dir.display().to_string(), format!("cannot be read: {error}"));
            Vec::new()
        }
    };
    paths.retain(|path| has_extension(path, extension));
    let (mut read, mut room) = (Vec::new(), MOST_BYTES);
    for path in paths {
        let name = path.display().to_string();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
            errors.add_in(&name, "its name is not UTF-8 text");
            continue;
        };
        match files::read(&path, limit) {
            Ok(bytes) if bytes.len() > room => {
                let folder = dir.display().to_string();
                errors.add_in(&folder, format!("its files have more than {MOST_BYTES} bytes"));
                break;
            }
            Ok(bytes) => {
                room -= bytes.len();
                read.push((stem.to_owned(), name, bytes));
            }
            Err(error) => errors.add_in(&name, format!("cannot be read: {error}")),
        }
    }
    read
}
