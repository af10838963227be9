//! The machine around the tests: its clock and its environment. Nothing else here reads either.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time now, in seconds since the epoch, as in the timestamps of Slack's calls.
///
/// # Panics
/// If the clock is before 1970.
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

/// The variable that says where a program with counters writes them (`cargo xtask coverage`), for the programs that are
/// started with no environment.
#[must_use]
pub fn counters() -> Option<(&'static str, String)> {
    let name = "LLVM_PROFILE_FILE";
    Some((name, variable(name)?))
}

/// The gateway's program: the one that `COUNTERSIGN_BIN` names, else the one beside this program, which is built first.
///
/// # Panics
/// If it does not exist, or does not build.
#[must_use]
pub fn binary() -> PathBuf {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match variable("COUNTERSIGN_BIN").map(PathBuf::from) {
        Some(named) if named.is_file() => Ok(named),
        Some(named) => Err(format!("COUNTERSIGN_BIN names `{}`, which is not a file", named.display())),
        None => build_binary(),
    });
    built.clone().unwrap_or_else(|problem| panic!("{problem}"))
}

/// Builds the gateway's program in the profile and the target folder of this program, so that what is tested is never
/// older than its sources.
fn build_binary() -> Result<PathBuf, String> {
    let program = std::env::current_exe().expect("a program knows its own path");
    let folder = program.parent().expect("a program is in a folder");
    // Tests are one folder further down.
    let folder = folder.parent().filter(|_| folder.ends_with("deps")).unwrap_or(folder);
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--package", "countersign", "--profile", profile, "--target-dir"])
        .arg(folder.parent().expect("a profile's folder is in the target folder"))
        .current_dir(root())
        .status();
    match built {
        Ok(status) if status.success() => {
            Ok(folder.join(format!("countersign{}", std::env::consts::EXE_SUFFIX)))
        }
        Ok(status) => {
            Err(format!("the gateway does not build (see above): `cargo build` ended with {status}"))
        }
        Err(error) => Err(format!("cannot build the gateway: `{}`: {error}", env!("CARGO"))),
    }
}

/// The browser: the one that is named, else the first of its usual names on the path.
///
/// # Panics
/// If there is none.
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
/// If there is none.
pub(crate) fn docker_registry() -> PathBuf {
    let found = program(&["docker-registry"]);
    found.expect("there is no docker-registry: `apt-get install docker-registry`")
}

/// The proxy that tests call through.
///
/// # Panics
/// If there is none.
pub(crate) fn nginx() -> PathBuf {
    let found = program(&["nginx", "/usr/sbin/nginx"]);
    found.expect("there is no nginx: `apt-get install nginx`")
}

/// The library that shows a program another time: what the program `faketime` has others load.
///
/// # Panics
/// If there is none.
pub(crate) fn libfaketime() -> String {
    let program = program(&["faketime"]).expect("there is no faketime: `apt-get install faketime`");
    let shown = Command::new(program).args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let shown = shown.expect("faketime can be run");
    let library = String::from_utf8(shown.stdout).expect("a path").trim().to_owned();
    assert!(!library.is_empty(), "faketime loads no library");
    library
}

/// The first program on the path that has one of these names.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    let named = |folder: PathBuf| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>();
    std::env::split_paths(&path).flat_map(named).find(|file| file.is_file())
}

/// Saves a screenshot for the documents, if `COUNTERSIGN_SCREENSHOTS` is 1.
///
/// # Panics
/// If it cannot be written.
pub fn keep_screenshot(name: &str, png: &[u8]) {
    if variable("COUNTERSIGN_SCREENSHOTS").is_none_or(|asked| asked != "1") {
        return;
    }
    let folder = root().join("docs/images");
    std::fs::create_dir_all(&folder).expect("docs/ can be written to");
    std::fs::write(folder.join(name), png).expect("docs/images/ can be written to");
}

/// The folder of the policy modules of this workspace.
#[must_use]
pub fn modules() -> PathBuf {
    countersign_test_modules::folder().join("modules")
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

/// The folder of compiled modules that gateways share, so that each module is compiled once.
pub(crate) fn cache() -> PathBuf {
    target().join("e2e-cache")
}

fn target() -> PathBuf {
    root().join("target")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is a folder of the workspace")
}
