//! The directories on the way to the files of a policy set, and which names in them matter.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use countersign_policy::{Known, files};

/// How many symbolic links a path may lead through.
const MOST_LINKS: usize = 64;

/// How many files of a directory are looked at for links.
const MOST_FILES: usize = 4096;

/// The files beside `modules` and `schemas`.
const FILES: [&str; 3] = ["policy-set.yaml", "policy-set.yaml.sig", "policy-set.yaml.sha256"];

/// The directories in which something is looked up when the policy set is read, and which names are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) directories: BTreeMap<PathBuf, Place>,
    /// What is looked up on the way to `policy-set.yaml`, and on the way to `schemas`.
    way: [BTreeSet<PathBuf>; 2],
    /// `policy-set.yaml` and `schemas`, after every link.
    ends: [PathBuf; 2],
}

/// A directory on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) names: Names,
    /// Whether files of the policy set are in it, rather than only what leads to them.
    pub(super) has_files: bool,
}

/// The names that matter in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    These(BTreeSet<OsString>),
    All,
}

impl Default for Names {
    fn default() -> Names {
        Names::These(BTreeSet::new())
    }
}

impl Places {
    /// Blocks.
    pub(super) fn of(directory: &Path) -> Places {
        let mut places = Places::default();
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let (found, _) = places.follow(&directory);
        let mut ends = FILES.map(|file| places.follow(&found.join(file))).into_iter();
        let (text, mut to_text) = ends.next().unwrap_or_default();
        for (end, _) in ends.chain([(text.clone(), Vec::new())]) {
            places.has_files(end.parent());
        }
        let (mut schemas, mut to_schemas) = Default::default();
        for part in ["modules", "schemas"] {
            (schemas, to_schemas) = places.follow(&found.join(part));
            // Files may be links as well.
            for file in files::list(&schemas, MOST_FILES).unwrap_or_default() {
                let (end, _) = places.follow(&file);
                places.has_files(end.parent());
            }
            places.directories.insert(schemas.clone(), Place { names: Names::All, has_files: true });
        }
        // How the folder itself is found leads to both.
        let (_, to_folder) = places.follow(&directory);
        to_text.extend(to_folder.iter().cloned());
        to_schemas.extend(to_folder);
        places.way = [to_text, to_schemas].map(BTreeSet::from_iter);
        places.ends = [text, schemas];
        places
    }

    /// Of a file alone. Blocks.
    pub(super) fn of_file(file: &Path) -> Places {
        let mut places = Places::default();
        let (text, way) = places.follow(&std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
        places.has_files(text.parent());
        let way = BTreeSet::from_iter(way);
        places.way = [way.clone(), way];
        places.ends = [text.clone(), text];
        places
    }

    fn has_files(&mut self, directory: Option<&Path>) {
        if let Some(place) = directory.and_then(|directory| self.directories.get_mut(directory)) {
            place.has_files = true;
        }
    }

    /// Goes the way that the system goes from the root to what `path` leads to, through every link, and notes each
    /// directory that it comes by. Returns where it ends, and what was looked up.
    fn follow(&mut self, path: &Path) -> (PathBuf, Vec<PathBuf>) {
        let mut links = 0;
        let mut at = PathBuf::from("/");
        let mut ahead: Vec<OsString> = steps(path);
        let mut way = Vec::new();
        while let Some(step) = ahead.pop() {
            if step == ".." {
                at.pop();
                continue;
            }
            if let Names::These(names) = &mut self.directories.entry(at.clone()).or_default().names {
                names.insert(step.clone());
            }
            let next = at.join(&step);
            way.push(next.clone());
            match fs::read_link(&next) {
                Ok(target) if links < MOST_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    ahead.extend(steps(&target));
                }
                _ => at = next,
            }
        }
        (at, way)
    }

    /// Whether a name in a directory matters.
    pub(super) fn concern(&self, directory: &Path, name: &OsStr) -> bool {
        match self.directories.get(directory).map(|place| &place.names) {
            Some(Names::All) => true,
            Some(Names::These(names)) => names.contains(name),
            None => false,
        }
    }

    /// What is known once `path` was put where it is in one step: all that it leads to came with it.
    pub(super) fn came_with(&self, path: &Path) -> Known {
        match self.way.each_ref().map(|way| way.contains(path)) {
            [true, true] => Known::Everything,
            [true, false] => Known::Text,
            [false, _] => Known::Nothing,
        }
    }

    /// How much of `known` still holds, if nothing that has changed after `moved` came with it. Blocks.
    pub(super) fn still(&self, known: Known, moved: Changed) -> Known {
        let [text, schemas] = &self.ends;
        // What a link leads to may have changed, or the link may lead elsewhere.
        let old = |path: &Path| {
            let looks: [fn(&Path) -> io::Result<fs::Metadata>; 2] =
                [|path| fs::symlink_metadata(path), |path| fs::metadata(path)];
            looks.into_iter().all(|look| match look(path) {
                Ok(metadata) => Changed::of(&metadata) <= moved,
                // There may be no schemas.
                Err(error) => error.kind() == io::ErrorKind::NotFound && path != text,
            })
        };
        if !old(text) {
            return Known::Nothing;
        }
        let files = files::list(schemas, MOST_FILES).unwrap_or_default();
        if old(schemas) && files.iter().all(|file| old(file)) { known } else { known.min(Known::Text) }
    }
}

/// When a file, a directory or a link was last made, changed or moved. The system alone sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Changed(i64, i64);

impl Changed {
    pub(super) fn of(metadata: &fs::Metadata) -> Changed {
        Changed(metadata.ctime(), metadata.ctime_nsec())
    }
}

/// The parts of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut steps: Vec<_> = steps.collect();
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// As Kubernetes mounts a ConfigMap.
    #[test]
    fn every_directory_on_the_way_is_noted() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (mount, version) = (root.join("mount"), root.join("mount/..2026"));
        fs::create_dir_all(version.join("modules")).unwrap();
        fs::write(version.join("policy-set.yaml"), "").unwrap();
        fs::write(version.join("modules/quorum.wasm"), "").unwrap();
        symlink("..2026", mount.join("..data")).unwrap();
        symlink("..data/policy-set.yaml", mount.join("policy-set.yaml")).unwrap();
        symlink("..data/modules", mount.join("modules")).unwrap();
        symlink("..data/schemas", mount.join("schemas")).unwrap();
        symlink(&mount, root.join("policies")).unwrap();

        let places = Places::of(&root.join("policies"));
        let names = |directory: &Path| match places.directories.get(directory).map(|place| &place.names) {
            Some(Names::These(names)) => names.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(),
            Some(Names::All) => vec!["*"],
            None => vec![],
        };
        assert_eq!(names(&root), ["mount", "policies"]);
        let in_mount = ["..2026", "..data", "modules", "policy-set.yaml"];
        assert_eq!(names(&mount)[..4], in_mount);
        assert_eq!(names(&version), ["modules", "policy-set.yaml", "schemas"]);
        assert_eq!(names(&version.join("modules")), ["*"]);
        assert_eq!(names(&version.join("schemas")), ["*"], "it may come");
        assert_eq!(names(Path::new("/")).len(), 1);
        let has_files = |directory: &Path| places.directories[directory].has_files;
        assert!(has_files(&version) && has_files(&version.join("modules")));
        assert!(!has_files(&root) && !has_files(Path::new("/")));

        for (path, known) in [
            ("policies", Known::Everything),
            ("mount/..data", Known::Everything),
            ("mount/..2026", Known::Everything),
            ("mount/policy-set.yaml", Known::Text),
            ("mount/..2026/policy-set.yaml", Known::Text),
            ("mount/schemas", Known::Nothing),
            ("mount/..2026/modules/quorum.wasm", Known::Nothing),
            ("unrelated", Known::Nothing),
        ] {
            assert_eq!(places.came_with(&root.join(path)), known, "{path}");
        }
        for (directory, name, matters) in [
            (&root, "policies", true),
            (&root, "countersign.db-wal", false),
            (&mount, "..data", true),
            (&mount, "..data_tmp", false),
            (&version.join("modules"), "other.wasm", true),
        ] {
            assert_eq!(places.concern(directory, OsStr::new(name)), matters, "{name}");
        }
    }

    #[test]
    fn links_in_a_circle_end() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        let places = Places::of(&root.path().join("a"));
        assert!(places.directories.contains_key(&root.path().canonicalize().unwrap()));
    }
}
