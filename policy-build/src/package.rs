//! The package in a folder, as cargo reads it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::{BuildError, output};

/// A package that makes a module.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// As cargo's messages name it, and as `--package` takes it.
    pub(crate) id: String,
    pub(crate) workspace_root: PathBuf,
    /// Folders of its path dependencies outside of the workspace.
    pub(crate) outside: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Found>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Found {
    name: String,
    version: String,
    id: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    kind: Option<String>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

impl Package {
    /// The package whose manifest is in `folder`.
    pub(crate) fn find(folder: &Path) -> Result<Package, BuildError> {
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(BuildError::NoManifest(folder.to_owned()));
        }
        // Symbolic links are resolved, since cargo runs in the folder and compares paths as text.
        let read = |error| BuildError::Read(manifest.clone(), error);
        let folder = folder.canonicalize().map_err(read)?;
        let manifest = folder.join("Cargo.toml");
        let text = output(
            "cargo",
            Command::new("cargo")
                .args(["metadata", "--no-deps", "--format-version", "1"])
                .arg("--manifest-path")
                .arg(&manifest)
                .current_dir(&folder),
        )?;
        let Metadata { packages, workspace_root } =
            serde_json::from_str(&text).map_err(|error| BuildError::Output("cargo", error.to_string()))?;
        let found = packages.into_iter().find(|package| package.manifest_path == manifest);
        let Some(found) = found else { return Err(BuildError::NoPackage(folder)) };
        if !found.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "cdylib")) {
            return Err(BuildError::NoModule(found.name));
        }
        let paths = found.dependencies.into_iter().filter(|dependency| dependency.kind.is_none());
        let outside = paths.filter_map(|dependency| dependency.path);
        let outside = outside.filter(|path| !path.starts_with(&workspace_root)).collect();
        let Found { name, version, id, .. } = found;
        Ok(Package { name, version, id, workspace_root, outside })
    }
}
