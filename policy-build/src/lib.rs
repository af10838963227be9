//! Builds a policy's crate to its module: runs cargo with the target, the linker and the flags that make the bytes depend
//! on the sources, the lock file and the toolchain alone.
//!
//! This is the one place for those flags: `countersign policy build` and `cargo xtask policies` both use it.
//! It does not inspect the module: the gateway checks it fully, and `cargo xtask` checks that it imports nothing.

mod package;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;

use package::Package;

/// The target that policies are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The linker that makes a component rather than a core module. It comes with rustc.
pub const LINKER: &str = "wasm-component-ld";

/// The size of a module's stack. A small stack keeps its memory at two pages, which makes a fresh sandbox for each call
/// cheap.
pub const STACK_BYTES: u32 = 65_536;

/// What to build, and how.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// The crate's folder: the one with its `Cargo.toml`.
    pub folder: &'a Path,
    /// The target folder; `None` is cargo's default.
    pub target_dir: Option<&'a Path>,
    /// Fail rather than change `Cargo.lock`.
    pub locked: bool,
    /// Hide cargo's progress. Errors and warnings are shown all the same.
    pub quiet: bool,
}

/// A module that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The package's name.
    pub package: String,
    /// The package's version.
    pub version: String,
    /// The profile that it was built with.
    pub profile: &'static str,
    /// The module's file in the target folder.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Folders of dependencies outside of the workspace. Their paths change the module's bytes.
    pub outside: Vec<PathBuf>,
}

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no crate in the folder.
    #[error("there is no `Cargo.toml` in `{0}`: say the folder of the policy's crate")]
    NoManifest(PathBuf),
    /// The manifest is of a workspace without a package.
    #[error("`{0}` is a workspace without a package of its own: say the folder of the policy's crate")]
    NoPackage(PathBuf),
    /// The crate makes no dynamic library, which a module has to be.
    #[error(
        "the package `{0}` makes no module: its `Cargo.toml` needs `crate-type = [\"cdylib\", \"rlib\"]` under `[lib]`"
    )]
    NoModule(String),
    /// The target is not installed, and could not be added.
    #[error("the Rust target `{TARGET}` is missing, and `rustup target add {TARGET}` {0}")]
    NoTarget(String),
    /// A program could not be started.
    #[error("cannot run `{0}`: {1}")]
    Run(&'static str, io::Error),
    /// A program failed, and has printed why.
    #[error("`{0}` {1}{2}")]
    Failed(String, ExitStatus, String),
    /// The output of a program has an unexpected format.
    #[error("cannot read the output of `{0}`: {1}")]
    Output(&'static str, String),
    /// A file could not be read.
    #[error("cannot read `{0}`: {1}")]
    Read(PathBuf, io::Error),
    /// Neither `CARGO_HOME` nor a home folder tells where cargo keeps the sources of dependencies.
    #[error("neither `CARGO_HOME` nor a home folder is known")]
    NoCargoHome,
}

/// Builds a policy's module.
///
/// # Errors
/// If there is no crate that makes one, the target is missing and cannot be added, or it does not compile.
pub fn build(build: &Build<'_>) -> Result<Built, BuildError> {
    let package = Package::find(build.folder)?;
    let root = &package.workspace_root;
    ensure_target(root)?;
    let profile = profile(root)?;
    let file = compile(build, &package, profile)?;
    let bytes = fs::read(&file).map_err(|error| BuildError::Read(file.clone(), error))?;
    let Package { name, version, outside, .. } = package;
    Ok(Built { package: name, version, profile, file, bytes, outside })
}

/// The host that rustc runs on, such as `x86_64-unknown-linux-gnu`.
///
/// A module's bytes depend on it: cargo identifies crates by hashes that cover their procedural macros, which are built
/// for the host, and the order of functions follows those hashes.
///
/// # Errors
/// If rustc cannot be run.
pub fn host(folder: &Path) -> Result<String, BuildError> {
    let version = rustc(folder, &["--version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    host.ok_or(BuildError::Output("rustc", version))
}

/// Adds the target, unless rustup has done so because of `rust-toolchain.toml`.
fn ensure_target(folder: &Path) -> Result<(), BuildError> {
    if Path::new(&rustc(folder, &["--print=target-libdir", "--target", TARGET])?).is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(folder).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(BuildError::NoTarget(format!("ended with {status}"))),
        Err(error) => Err(BuildError::NoTarget(format!("cannot be run: {error}"))),
    }
}

/// The profile `guest` if the workspace has one of that name, else `release`.
fn profile(workspace_root: &Path) -> Result<&'static str, BuildError> {
    let manifest = workspace_root.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|error| BuildError::Read(manifest, error))?;
    let guest = text.lines().any(|line| line.trim() == "[profile.guest]");
    Ok(if guest { "guest" } else { "release" })
}

/// Runs cargo, and returns the file that it reports.
fn compile(build: &Build<'_>, package: &Package, profile: &str) -> Result<PathBuf, BuildError> {
    let root = &package.workspace_root;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["build", "--package", &package.id, "--lib"]);
    cargo.args(["--profile", profile, "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    if build.quiet {
        cargo.arg("--quiet");
    }
    if build.locked {
        cargo.arg("--locked");
    }
    if let Some(target_dir) = build.target_dir {
        cargo.arg("--target-dir").arg(target_dir);
    }
    // This replaces every other source of flags, `.cargo/config.toml` included.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(root)?.join("\u{1f}"));
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER);
    // Profiles are part of the sources, so variables must not change them.
    cargo.env("CARGO_INCREMENTAL", "0");
    for name in profile_variables() {
        cargo.env_remove(name);
    }
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| BuildError::Run("cargo", error))?;
    if !output.status.success() {
        return Err(BuildError::Failed("cargo build".to_owned(), output.status, String::new()));
    }
    module(&String::from_utf8_lossy(&output.stdout), &package.id)
        .ok_or_else(|| BuildError::Output("cargo", format!("it reports no module of `{}`", package.name)))
}

/// A message of cargo about an artifact.
#[derive(Deserialize)]
struct Message<'a> {
    reason: &'a str,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The module of a package, among cargo's messages: one JSON object a line.
fn module(messages: &str, package: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message<'_>>(line).ok());
    let made =
        messages.filter(|message| message.reason == "compiler-artifact" && message.package_id == package);
    let mut files = made.flat_map(|message| message.filenames);
    files.find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

/// The flags that make a module: a small stack, and no path of this machine in it.
fn flags(workspace_root: &Path) -> Result<Vec<String>, BuildError> {
    let version = rustc(workspace_root, &["--version", "--verbose"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    let sysroot = rustc(workspace_root, &["--print=sysroot"])?;
    let mut flags = vec![format!("-Clink-arg=-zstack-size={STACK_BYTES}")];
    let mut remap =
        |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    // The last matching flag wins, and any of these folders may be inside an earlier one.
    remap(&cargo_home()?, "/cargo");
    remap(workspace_root, "/policy");
    remap(&Path::new(&sysroot).join("lib/rustlib/src/rust"), &format!("/rustc/{commit}"));
    Ok(flags)
}

fn rustc(folder: &Path, arguments: &[&str]) -> Result<String, BuildError> {
    output("rustc", Command::new("rustc").args(arguments).current_dir(folder))
}

/// The output of a program, without the line end.
fn output(program: &'static str, command: &mut Command) -> Result<String, BuildError> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| BuildError::Run(program, error))?;
    if !output.status.success() {
        let arguments = command.get_args().map(|argument| format!(" {}", argument.to_string_lossy()));
        let why = String::from_utf8_lossy(&output.stderr);
        let why = if why.trim().is_empty() { String::new() } else { format!(":\n{}", why.trim()) };
        return Err(BuildError::Failed(
            format!("{program}{}", arguments.collect::<String>()),
            output.status,
            why,
        ));
    }
    match String::from_utf8(output.stdout) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(_) => Err(BuildError::Output(program, "it is not UTF-8".to_owned())),
    }
}

/// Where cargo keeps the sources of dependencies.
#[expect(clippy::disallowed_methods, reason = "this reads cargo's configuration, not the gateway's")]
fn cargo_home() -> Result<PathBuf, BuildError> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(env::home_dir()?.join(".cargo"))).ok_or(BuildError::NoCargoHome)
}

/// Variables that change a profile.
#[expect(clippy::disallowed_methods, reason = "this reads cargo's configuration, not the gateway's")]
fn profile_variables() -> impl Iterator<Item = std::ffi::OsString> {
    let names = env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("CARGO_PROFILE_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_cargos_messages() {
        let messages = r#"not JSON
{"reason":"compiler-artifact","package_id":"sdk","filenames":["/t/libsdk.rlib"]}
{"reason":"compiler-artifact","package_id":"other","filenames":["/t/other.wasm"]}
{"reason":"compiler-artifact","package_id":"mine","filenames":["/t/libmine.rlib","/t/mine.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(module(messages, "mine"), Some(PathBuf::from("/t/mine.wasm")));
        assert_eq!(module(messages, "sdk"), None);
        assert_eq!(module("", "mine"), None);
    }

    #[test]
    fn other_folders_are_errors_that_say_why() {
        let check = |manifest: Option<&str>, parts: &[&str]| {
            let folder = tempfile::tempdir().expect("there is room");
            if let Some(manifest) = manifest {
                fs::write(folder.path().join("Cargo.toml"), manifest).expect("a file can be written");
                fs::create_dir_all(folder.path().join("src")).expect("a folder can be made");
                fs::write(folder.path().join("src/lib.rs"), "").expect("a file can be written");
            }
            let wanted = Build { folder: folder.path(), target_dir: None, locked: false, quiet: true };
            let error = build(&wanted).expect_err("it is refused").to_string();
            for part in parts {
                assert!(error.contains(part), "`{part}` is not in: {error}");
            }
        };
        let package = "[package]\nname = \"p\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
        check(None, &["no `Cargo.toml`"]);
        check(Some("[workspace]\nresolver = \"3\"\n"), &["workspace without a package"]);
        check(Some(package), &["the package `p` makes no module", "cdylib"]);
        check(Some("[package]\nname = 1\n"), &["cargo metadata", "name"]);
    }

    #[test]
    fn no_path_of_this_machine_is_left_unmapped() -> Result<(), BuildError> {
        let folder = tempfile::tempdir().expect("there is room");
        let flags = flags(folder.path())?;
        assert_eq!(flags.first().map(String::as_str), Some("-Clink-arg=-zstack-size=65536"));
        let own = format!("--remap-path-prefix={}=/policy", folder.path().display());
        assert!(flags.contains(&own), "{flags:?}");
        assert!(flags.iter().any(|flag| flag.ends_with("=/cargo")), "{flags:?}");
        Ok(())
    }
}
