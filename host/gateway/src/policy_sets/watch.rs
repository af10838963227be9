//! What sets a change off by itself: the folder changes, another instance changed the set, or SIGHUP comes.
//!
//! An event of the file system is only a hint to look; what the folder holds decides. So it does not matter which events an
//! editor or a mounted volume makes, or whether one is lost: a slow poll looks anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::{By, ChangeTrigger, PolicySets, blocking};

/// How long nothing must have happened before the folder is read: whoever writes it is done by then, as a rule.
const QUIET: Duration = Duration::from_millis(200);

/// How long a folder that is never quiet is waited for.
const RESTLESS: Duration = Duration::from_secs(5);

/// The most time between two looks at the folder and at the store.
pub const POLL: Duration = Duration::from_secs(30);

/// The least time between two looks at what is needed in memory.
const TIDY_APART: Duration = Duration::from_secs(2);

/// How many symbolic links a path may lead through.
const MOST_LINKS: usize = 64;

impl PolicySets {
    /// Looks at the folder if `files` says so, and at the store, whenever something may have changed; for ever.
    pub async fn watch(self: Arc<Self>, files: bool, poll: Duration) {
        let woken = Arc::new(Notify::new());
        let mut warned = false;
        loop {
            // Watched first and read after, so that nothing falls between the two. Anew each time: a folder that was
            // replaced is another one, of which the old watch says nothing.
            let watches = if files { self.watched(&woken, &mut warned).await } else { None };
            // What went wrong is in the log and the audit log already. First what needs no registry.
            let _ = self.follow().await;
            if files {
                let _ = self.reload_if_changed(By::itself(ChangeTrigger::File)).await;
            }
            tokio::select! {
                () = tokio::time::sleep(poll) => {}
                () = quiet_after(&woken) => {}
            }
            drop(watches);
        }
    }

    /// Drops what is needed no longer from memory: after a swap, and now and then, as requests end; for ever.
    pub async fn tidy(self: Arc<Self>) {
        loop {
            if let Err(error) = self.settle().await {
                tracing::warn!(%error, "policies that are needed no longer stay in memory for now");
            }
            // To look at every open request takes a while, so that many swaps in a row wait for one look.
            tokio::time::sleep(TIDY_APART).await;
            let _ = tokio::time::timeout(POLL, self.swapped.notified()).await;
        }
    }

    /// Reads the folder again at each SIGHUP that comes from now on, for as long as what it returns is polled.
    ///
    /// # Errors
    /// Where the signal cannot be listened for.
    pub fn on_hangup(self: &Arc<Self>) -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut hangup = signal(SignalKind::hangup())?;
        let sets = Arc::clone(self);
        Ok(async move {
            while hangup.recv().await.is_some() {
                tracing::info!(signal = "SIGHUP", "reading the policy set again");
                // What went wrong is in the log and the audit log already.
                let _ = sets.reload(By::itself(ChangeTrigger::Sighup)).await;
            }
        })
    }

    /// Watches, if that can be done; what keeps it from being done is logged once.
    async fn watched(self: &Arc<Self>, woken: &Arc<Notify>, warned: &mut bool) -> Option<RecommendedWatcher> {
        let (sets, woken) = (Arc::clone(self), Arc::clone(woken));
        let error = match blocking(move || sets.watches(&woken)).await {
            Ok(Ok(watches)) => return Some(watches),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if !std::mem::replace(warned, true) {
            tracing::warn!(error, "the policy folder cannot be watched; it is looked at now and then");
        }
        None
    }

    fn watches(&self, woken: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
        let places = Arc::new(Places::of(&self.directory));
        let (heard, woken) = (Arc::clone(&places), Arc::clone(woken));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // What cannot be told is looked at.
            if event.map_or(true, |event| heard.concern(&event)) {
                woken.notify_one();
            }
        })?;
        for directory in places.0.keys() {
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // It is not there yet, or no more; what it would be in is watched as well.
                Err(_) if !directory.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(watcher)
    }
}

/// Waits until something happened, and nothing more for a while.
async fn quiet_after(woken: &Notify) {
    woken.notified().await;
    let calm = async { while tokio::time::timeout(QUIET, woken.notified()).await.is_ok() {} };
    let _ = tokio::time::timeout(RESTLESS, calm).await;
}

/// The directories in which something is looked up when the policy set is read, and which names are.
#[derive(Debug, Default)]
struct Places(BTreeMap<PathBuf, Names>);

#[derive(Debug, PartialEq, Eq)]
enum Names {
    These(BTreeSet<OsString>),
    All,
}

impl Places {
    fn of(directory: &Path) -> Places {
        let mut places = Places::default();
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let found = places.follow(&directory);
        places.0.insert(found.clone(), Names::All);
        for file in ["policy-set.yaml", "policy-set.yaml.sig"] {
            places.follow(&found.join(file));
        }
        for part in ["modules", "schemas"] {
            let part = places.follow(&found.join(part));
            // Files may be links as well.
            for file in fs::read_dir(&part).into_iter().flatten().flatten() {
                places.follow(&file.path());
            }
            places.0.insert(part, Names::All);
        }
        places
    }

    /// Goes the way that the system goes from the root to what `path` leads to, through every link, and notes each
    /// directory that it comes by. Returns where it ends.
    fn follow(&mut self, path: &Path) -> PathBuf {
        let mut links = 0;
        let mut at = PathBuf::from("/");
        let mut ahead: Vec<OsString> = steps(path);
        while let Some(step) = ahead.pop() {
            if step == ".." {
                at.pop();
                continue;
            }
            if let Names::These(names) =
                self.0.entry(at.clone()).or_insert_with(|| Names::These(BTreeSet::new()))
            {
                names.insert(step.clone());
            }
            let next = at.join(&step);
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
        at
    }

    /// Whether what happened can mean that the policy set is another one.
    fn concern(&self, event: &notify::Event) -> bool {
        // Reading the folder makes events, too.
        let reading = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            EventKind::Access(_) => true,
            _ => false,
        };
        let ours = |path: &PathBuf| {
            let named = |parent: &Path, name: &OsStr| match self.0.get(parent) {
                Some(Names::All) => true,
                Some(Names::These(names)) => names.contains(name),
                None => false,
            };
            self.0.contains_key(path)
                || path.parent().zip(path.file_name()).is_some_and(|(parent, name)| named(parent, name))
        };
        !reading && (event.need_rescan() || event.paths.iter().any(ours))
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

    use notify::event::{CreateKind, ModifyKind, RenameMode};

    use super::*;

    /// As Kubernetes mounts a ConfigMap.
    #[test]
    fn every_directory_on_the_way_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (mount, version) = (root.join("mount"), root.join("mount/..2026"));
        fs::create_dir_all(version.join("modules")).unwrap();
        fs::write(version.join("policy-set.yaml"), "").unwrap();
        fs::write(version.join("modules/quorum.wasm"), "").unwrap();
        symlink("..2026", mount.join("..data")).unwrap();
        symlink("..data/policy-set.yaml", mount.join("policy-set.yaml")).unwrap();
        symlink("..data/modules", mount.join("modules")).unwrap();
        symlink(&mount, root.join("policies")).unwrap();

        let places = Places::of(&root.join("policies"));
        let names = |directory: &Path| match places.0.get(directory) {
            Some(Names::These(names)) => names.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(),
            Some(Names::All) => vec!["*"],
            None => vec![],
        };
        assert_eq!(names(&root), ["mount", "policies"]);
        assert_eq!(names(&mount), ["*"]);
        assert_eq!(names(&version), ["modules", "policy-set.yaml"]);
        assert_eq!(names(&version.join("modules")), ["*"]);
        assert_eq!(names(&mount.join("schemas")), ["*"], "it may come");
        assert_eq!(names(Path::new("/")).len(), 1);

        let event = |kind, path: &str| notify::Event::new(kind).add_path(root.join(path));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let created = EventKind::Create(CreateKind::File);
        for (path, concerns) in [
            ("mount/..data", true),
            ("policies", true),
            ("mount/..2026/modules/other.wasm", true),
            ("unrelated", false),
            ("mount/..2025/policy-set.yaml", false),
        ] {
            assert_eq!(places.concern(&event(renamed, path)), concerns, "{path}");
            assert_eq!(places.concern(&event(created, path)), concerns, "{path}");
            let read = EventKind::Access(AccessKind::Open(AccessMode::Any));
            assert!(!places.concern(&event(read, path)), "{path}");
        }
    }

    #[test]
    fn links_in_a_circle_end() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        let places = Places::of(&root.path().join("a"));
        assert!(places.0.contains_key(&root.path().canonicalize().unwrap()));
    }
}
