//! `policy-set.yaml.sha256`: which files a policy set's folder has once it is all there, as `sha256sum` writes it. The same
//! for a file alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::files;
use countersign_core::lifecycle::Digest;

const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The set's own file, and the folder of the others that must be listed; modules need not be, since the set pins them.
const SET: &str = "policy-set.yaml";
const SCHEMAS: &str = "schemas/";

/// What `policy-set.yaml.sha256` says of the files beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// SHA-256 of the manifest itself.
    pub digest: Digest,
    /// Whether every file that it lists is there as it lists it, and it lists the file itself and every schema; else what differs.
    pub fits: Result<(), String>,
}

/// The files of a folder by the names that a manifest has for them.
pub(super) fn at_hand<'a>(
    dir: &Path,
    text: &str,
    others: impl Iterator<Item = &'a (String, String, Vec<u8>)>,
) -> BTreeMap<String, Digest> {
    let others = others.map(|(_, path, bytes)| {
        let name = Path::new(path).strip_prefix(dir).unwrap_or(Path::new(path));
        (name.display().to_string(), Digest::of(bytes))
    });
    others.chain([(SET.to_owned(), Digest::of(text.as_bytes()))]).collect()
}

impl Manifest {
    /// Reads the manifest beside a file with this text, if there is one. Blocks.
    ///
    /// # Errors
    /// If it cannot be read: its name, and why.
    pub fn of_file(path: &Path, text: &str) -> Result<Option<Manifest>, (String, io::Error)> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Manifest::read(path, &BTreeMap::from([(name, Digest::of(text.as_bytes()))]))
    }

    /// Reads the manifest beside a file, if there is one, and compares it with these files. Blocks.
    pub(super) fn read(
        file: &Path,
        files: &BTreeMap<String, Digest>,
    ) -> Result<Option<Manifest>, (String, io::Error)> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".sha256");
        let path = file.with_file_name(name);
        match files::read(&path, MAX_MANIFEST_BYTES) {
            Ok(bytes) => {
                let fits = compare(&String::from_utf8_lossy(&bytes), files);
                Ok(Some(Manifest { digest: Digest::of(&bytes), fits }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err((path.display().to_string(), error)),
        }
    }
}

fn compare(text: &str, files: &BTreeMap<String, Digest>) -> Result<(), String> {
    let mut listed = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let entry = line.split_once(' ').and_then(|(digest, name)| {
            let name = name.strip_prefix([' ', '*']).unwrap_or(name);
            Some((digest.parse::<Digest>().ok()?, name.strip_prefix("./").unwrap_or(name)))
        });
        let Some((digest, name)) = entry else {
            return Err(format!("line {number} is not a line of `sha256sum`"));
        };
        match files.get(name) {
            Some(found) if *found == digest => listed.push(name),
            // What a signature is worth is seen when it is verified.
            None if name.ends_with(".sig") => {}
            Some(_) => return Err(format!("`{name}` has other bytes than it lists")),
            None => return Err(format!("it lists `{name}`, which is not among the files")),
        }
    }
    let mut needed = files.keys().filter(|name| !name.contains('/') || name.starts_with(SCHEMAS));
    match needed.find(|name| !listed.contains(&name.as_str())) {
        Some(missing) => Err(format!("it does not list `{missing}`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_fits_if_every_file_is_there_as_it_is_listed() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let files: BTreeMap<_, _> =
            [("policy-set.yaml", "set"), ("schemas/deploy.json", "{}"), ("modules/q.wasm", "q")]
                .map(|(name, text)| (name.to_owned(), digest(text)))
                .into();
        let (set, schema, module) = (digest("set"), digest("{}"), digest("q"));
        for fits in [
            format!("{set}  policy-set.yaml\n{schema}  schemas/deploy.json\n"),
            format!("{schema} *./schemas/deploy.json\n{set}  policy-set.yaml\n{module}  modules/q.wasm"),
            format!("{schema}  schemas/deploy.json\n{set}  policy-set.yaml\n{set}  policy-set.yaml.sig"),
        ] {
            assert_eq!(compare(&fits, &files), Ok(()), "{fits}");
        }
        for (text, wrong) in [
            (String::new(), "it does not list `policy-set.yaml`"),
            (format!("{set}  policy-set.yaml"), "it does not list `schemas/deploy.json`"),
            (format!("{schema}  policy-set.yaml"), "`policy-set.yaml` has other bytes than it lists"),
            (format!("{set}  other.yaml"), "it lists `other.yaml`, which is not among the files"),
            (format!("\n{set}"), "line 2 is not a line of `sha256sum`"),
            ("set  policy-set.yaml".to_owned(), "line 1 is not a line of `sha256sum`"),
        ] {
            assert_eq!(compare(&text, &files), Err(wrong.to_owned()), "{text}");
        }
    }
}
