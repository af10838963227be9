//! The machine around the tests: its clock and its environment. Nothing else here reads either.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time now, in seconds since the epoch: what Slack stamps its calls with.
///
/// # Panics
/// Where the clock is before 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "signatures carry the real time; the gateway checks it")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is what measures")]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A variable of the environment that the tests run in.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "it is the tests' configuration, not the gateway's")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The gateway's binary: the one that is named, else the one that was built beside this program.
///
/// # Panics
/// Where there is none.
pub(crate) fn binary() -> PathBuf {
    let path = variable("COUNTERSIGN_BIN").map(PathBuf::from).unwrap_or_else(|| {
        let program = std::env::current_exe().expect("a program knows its own path");
        let folder = program.parent().expect("a program is in a folder");
        // Tests are one folder further down.
        let folder = folder.parent().filter(|_| folder.ends_with("deps")).unwrap_or(folder);
        folder.join("countersign")
    });
    let release = path.parent().is_some_and(|folder| folder.ends_with("release"));
    let flag = if release { " --release" } else { "" };
    assert!(path.is_file(), "no `{}`: run `cargo build{flag} -p countersign` first", path.display());
    path
}

/// The browser: the one that is named, else the first of its usual names on the path.
///
/// # Panics
/// Where there is none.
pub(crate) fn chromium() -> PathBuf {
    if let Some(named) = variable("COUNTERSIGN_CHROMIUM") {
        return named.into();
    }
    let found = program(&["chromium", "chromium-browser", "google-chrome"]);
    found.expect("there is no Chromium: `apt-get install chromium`, or name one in COUNTERSIGN_CHROMIUM")
}

/// The registry that tests push to.
///
/// # Panics
/// Where there is none.
pub(crate) fn docker_registry() -> PathBuf {
    let found = program(&["docker-registry"]);
    found.expect("there is no docker-registry: `apt-get install docker-registry`")
}

/// The first program on the path that has one of these names.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    let named = |folder: PathBuf| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>();
    std::env::split_paths(&path).flat_map(named).find(|file| file.is_file())
}

/// Keeps a picture for the documents, where the environment asks for it.
///
/// # Panics
/// Where it cannot be written.
pub fn keep_screenshot(name: &str, png: &[u8]) {
    if variable("COUNTERSIGN_SCREENSHOTS").is_none_or(|asked| asked != "1") {
        return;
    }
    let folder = root().join("docs/images");
    std::fs::create_dir_all(&folder).expect("docs/ can be written to");
    std::fs::write(folder.join(name), png).expect("docs/images/ can be written to");
}

/// A policy module of this workspace.
///
/// # Panics
/// If there is none of that name.
pub(crate) fn module(name: &str) -> PathBuf {
    countersign_test_modules::path(name)
}

/// An entry of the cookbook.
///
/// # Panics
/// If there is none of that name.
pub(crate) fn example(name: &str) -> PathBuf {
    let folder = countersign_test_modules::folder().join("examples").join(name);
    assert!(folder.is_dir(), "the cookbook has no entry `{name}`");
    folder
}

/// A file or folder of the project, by its path.
#[must_use]
pub fn project(path: &str) -> PathBuf {
    root().join(path)
}

/// Where gateways keep compiled modules from one test to the next.
pub(crate) fn cache() -> PathBuf {
    target().join("e2e-cache")
}

fn target() -> PathBuf {
    root().join("target")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is a folder of the workspace")
}
