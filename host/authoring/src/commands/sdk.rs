//! `countersign policy sdk`: writes the policy SDK of this version of the gateway into a policy's crate.
//!
//! The SDK is not published to a registry, and its version must match the gateway's.
//! So the program embeds its sources and the contract, and a policy's crate depends on a copy in its own folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::Answer;

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folder of the SDK in a policy's crate.
pub(super) const FOLDER: &str = "sdk";

const WORKSPACE: &str = include_str!("../../../../Cargo.toml");
const MANIFEST: &str = include_str!("../../../../policy-sdk/Cargo.toml");
const README: &str = include_str!("new/template/sdk.md.in");

/// Files that are copied verbatim, by their path in the folder. The SDK's build reads the contract at `../wit`.
const FILES: [(&str, &str); 19] = [
    ("LICENSE", include_str!("../../../../LICENSE")),
    ("wit/policy.wit", include_str!("../../../../wit/policy.wit")),
    ("policy-sdk/src/actor.rs", include_str!("../../../../policy-sdk/src/actor.rs")),
    ("policy-sdk/src/bump.rs", include_str!("../../../../policy-sdk/src/bump.rs")),
    ("policy-sdk/src/event.rs", include_str!("../../../../policy-sdk/src/event.rs")),
    ("policy-sdk/src/export.rs", include_str!("../../../../policy-sdk/src/export.rs")),
    ("policy-sdk/src/history.rs", include_str!("../../../../policy-sdk/src/history.rs")),
    ("policy-sdk/src/lib.rs", include_str!("../../../../policy-sdk/src/lib.rs")),
    ("policy-sdk/src/policy.rs", include_str!("../../../../policy-sdk/src/policy.rs")),
    ("policy-sdk/src/request.rs", include_str!("../../../../policy-sdk/src/request.rs")),
    ("policy-sdk/src/ruling.rs", include_str!("../../../../policy-sdk/src/ruling.rs")),
    ("policy-sdk/src/scenario.rs", include_str!("../../../../policy-sdk/src/scenario.rs")),
    (
        "policy-sdk/src/scenario/assertions.rs",
        include_str!("../../../../policy-sdk/src/scenario/assertions.rs"),
    ),
    ("policy-sdk/src/scenario/config.rs", include_str!("../../../../policy-sdk/src/scenario/config.rs")),
    ("policy-sdk/src/scenario/describe.rs", include_str!("../../../../policy-sdk/src/scenario/describe.rs")),
    ("policy-sdk/src/scenario/events.rs", include_str!("../../../../policy-sdk/src/scenario/events.rs")),
    ("policy-sdk/src/scenario/run.rs", include_str!("../../../../policy-sdk/src/scenario/run.rs")),
    ("policy-sdk/src/scenario/setting.rs", include_str!("../../../../policy-sdk/src/scenario/setting.rs")),
    ("policy-sdk/src/time.rs", include_str!("../../../../policy-sdk/src/time.rs")),
];

/// Replace the policy SDK in a crate with the one of this version.
#[derive(Debug, Args)]
pub struct Sdk {
    /// The crate's folder; its subfolder `sdk` is replaced.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

pub(crate) fn run(sdk: &Sdk) -> Result<Answer> {
    let folder = sdk.folder.join(FOLDER);
    ensure!(
        sdk.folder.join("Cargo.toml").is_file(),
        "there is no `Cargo.toml` in `{}`: pass the folder of the policy's crate",
        sdk.folder.display()
    );
    if folder.exists() {
        // The folder is deleted, so it must be one that this command wrote.
        let mark = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        let ours = mark.starts_with(README.lines().next().unwrap_or_default());
        ensure!(ours, "`{}` was not written by this command, and is left unchanged", folder.display());
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    for (path, content) in files() {
        write(&folder.join(path), &content)?;
    }
    let text =
        format!("`{}` now has the policy SDK {VERSION}; build and test the policy\n", folder.display());
    Ok(Answer::lines(&text, true))
}

/// The SDK's files, by their path in its folder.
pub(super) fn files() -> Vec<(&'static str, String)> {
    let mut files: Vec<(&str, String)> =
        FILES.iter().map(|(path, content)| (*path, (*content).to_owned())).collect();
    files.push(("README.md", README.replace("{{version}}", VERSION)));
    files.push(("policy-sdk/Cargo.toml", standalone(MANIFEST)));
    files
}

/// Writes a file, and creates its parent folders.
pub(super) fn write(path: &Path, content: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, content))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// A manifest of this workspace with the inherited settings filled in, so that it works outside of the workspace.
fn standalone(manifest: &str) -> String {
    let mut text = String::new();
    let mut table = "";
    for line in manifest.lines() {
        match line.strip_suffix(".workspace = true") {
            Some(key) if table == "[package]" => text.push_str(&setting("[workspace.package]", key)),
            Some(key) => text.push_str(&setting("[workspace.dependencies]", key)),
            None if line == "[lints]" || line == "workspace = true" => {}
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
        if line.starts_with('[') {
            table = line;
        }
    }
    for lints in ["lints.rust", "lints.clippy"] {
        text.push_str(&format!("[{lints}]\n{}\n", section(&format!("[workspace.{lints}]"))));
    }
    text
}

/// The line of `key` in a table of the workspace's manifest.
fn setting(table: &str, key: &str) -> String {
    let section = section(table);
    let line = section.lines().find(|line| line.split(" = ").next() == Some(key));
    line.map(|line| format!("{line}\n")).unwrap_or_default()
}

/// The lines of a table of the workspace's manifest.
pub(super) fn section(table: &str) -> String {
    let lines = WORKSPACE.lines().skip_while(|line| *line != table).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// One value of `[workspace.package]`, without its quotes.
pub(super) fn package_value(key: &str) -> String {
    let line = setting("[workspace.package]", key);
    line.split_once(" = ").map(|(_, value)| value.trim().trim_matches('"').to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::walk;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn every_file_of_the_sdk_is_embedded() {
        let sources = walk(&root().join("policy-sdk/src"), "policy-sdk/src/");
        let embedded: Vec<&str> =
            FILES.iter().map(|(path, _)| *path).filter(|path| path.starts_with("policy-sdk/src")).collect();
        assert_eq!(embedded, sources);
    }

    #[test]
    fn the_manifest_stands_alone() {
        let manifest = standalone(MANIFEST);
        assert!(!manifest.contains("workspace"), "{manifest}");
        for line in [
            "name = \"countersign-policy-sdk\"",
            &format!("version = \"{VERSION}\""),
            "edition = \"2024\"",
            "publish = false",
            "unsafe_code = \"deny\"",
            "[target.'cfg(not(target_arch = \"wasm32\"))'.dependencies]",
        ] {
            assert!(manifest.lines().any(|found| found == line), "`{line}` is not in:\n{manifest}");
        }
        for dependency in ["serde", "serde_json", "wit-bindgen", "jsonschema"] {
            let begin = format!("{dependency} = ");
            assert!(manifest.lines().any(|line| line.starts_with(&begin)), "{dependency}:\n{manifest}");
        }
    }

    #[test]
    fn only_what_this_command_wrote_is_replaced() {
        let crate_folder = tempfile::tempdir().unwrap();
        let sdk = Sdk { folder: crate_folder.path().to_owned() };
        let error = |sdk: &Sdk| run(sdk).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error(&sdk).contains("there is no `Cargo.toml`"));
        fs::write(crate_folder.path().join("Cargo.toml"), "").unwrap();
        assert!(run(&sdk).unwrap().good);
        let stale = crate_folder.path().join("sdk/policy-sdk/src/stale.rs");
        fs::write(&stale, "").unwrap();
        assert!(run(&sdk).unwrap().good);
        assert!(!stale.exists());
        fs::write(crate_folder.path().join("sdk/README.md"), "# Mine\n").unwrap();
        assert!(error(&sdk).contains("is left unchanged"));
        assert!(crate_folder.path().join("sdk/policy-sdk/src/lib.rs").exists());
    }
}
