//! `countersign policy new`: creates a crate that is a working policy, with tests that pass.

mod lock;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use countersign_policy_build as policy_build;

use super::sdk;
use crate::Answer;

/// Create the crate of a new policy that builds and passes its tests.
#[derive(Debug, Args)]
pub struct New {
    /// The policy's name: lower-case letters, digits and `-`.
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,
    /// The crate's folder, which must be empty or not exist [default: NAME].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Depend on the policy SDK in this folder, instead of a copy in the crate.
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// The crate's files except the SDK. Placeholders in double braces are filled in.
const TEMPLATE: [(&str, &str); 10] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    (".cargo/config.toml", include_str!("template/config.toml.in")),
    (".gitignore", include_str!("template/gitignore.in")),
    ("README.md", include_str!("template/README.md.in")),
    ("config.schema.json", include_str!("template/config.schema.json.in")),
    ("rust-toolchain.toml", include_str!("../../../../../rust-toolchain.toml")),
    // `cargo fmt` formats the SDK too, so the crate needs the SDK's settings.
    ("rustfmt.toml", include_str!("../../../../../rustfmt.toml")),
    ("scenarios.yaml", include_str!("template/scenarios.yaml.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("tests/scenarios.rs", include_str!("template/scenarios.rs.in")),
];

/// Names that a crate cannot have: Rust's keywords, crates of the template, and crates of Rust itself.
const RESERVED: [&str; 60] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "policy",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "serde-json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "countersign-policy-sdk",
];

pub(crate) fn run(new: &New) -> Result<Answer> {
    let folder = new.dir.clone().unwrap_or_else(|| PathBuf::from(&new.name));
    let shown = folder.display();
    if let Ok(mut entries) = fs::read_dir(&folder) {
        ensure!(entries.next().is_none(), "`{shown}` already exists and is not empty");
    } else {
        ensure!(!folder.exists(), "`{shown}` already exists and is not a folder");
    }
    for (path, content) in files(&new.name, new.sdk.as_deref())? {
        sdk::write(&folder.join(path), &content)?;
    }
    let name = &new.name;
    let text = format!(
        "created the policy `{name}` in `{shown}`; next steps:\n\n  \
         cd {shown}\n  \
         cargo test\n  \
         countersign policy build --out {name}.wasm\n  \
         countersign policy test {name}.wasm scenarios.yaml\n"
    );
    Ok(Answer::lines(&text, true))
}

/// The crate's files, by their path in it.
fn files(name: &str, sdk_folder: Option<&Path>) -> Result<Vec<(String, String)>> {
    let (sdk_path, about_sdk) = match sdk_folder {
        None => (
            "sdk/policy-sdk".to_owned(),
            format!(
                "The folder `sdk` is a copy of the policy SDK of Countersign {}. The SDK is not published to a registry; its \
                 version must match the gateway's.\n`countersign policy sdk` replaces it after an upgrade.",
                sdk::VERSION
            ),
        ),
        Some(folder) => (
            external_sdk(folder)?,
            "It depends on a policy SDK outside of this crate, so the module's bytes depend on that path."
                .to_owned(),
        ),
    };
    let profile = sdk::section("[profile.guest]").replace("inherits = \"release\"\n", "");
    let filled: [(&str, String); 11] = [
        ("name", name.to_owned()),
        ("crate", name.replace('-', "_")),
        ("Policy", type_name(name)),
        ("sdk", sdk_path),
        ("about-sdk", about_sdk),
        ("rust-version", sdk::package_value("rust-version")),
        ("profile", profile.trim_end().to_owned()),
        ("target", policy_build::TARGET.to_owned()),
        ("linker", policy_build::LINKER.to_owned()),
        ("stack", policy_build::STACK_BYTES.to_string()),
        ("version", sdk::VERSION.to_owned()),
    ];
    let fill = |text: &str| {
        filled
            .iter()
            .fold(text.to_owned(), |text, (key, value)| text.replace(&format!("{{{{{key}}}}}"), value))
    };
    let mut files: Vec<(String, String)> =
        TEMPLATE.iter().map(|(path, text)| ((*path).to_owned(), fill(text))).collect();
    files.push(("Cargo.lock".to_owned(), lock::of(name)));
    if sdk_folder.is_none() {
        let copied = sdk::files().into_iter();
        files.extend(copied.map(|(path, content)| (format!("{}/{path}", sdk::FOLDER), content)));
    }
    Ok(files)
}

/// The absolute path of an SDK's folder, for the manifest.
fn external_sdk(folder: &Path) -> Result<String> {
    let shown = folder.display();
    let path = folder.canonicalize().with_context(|| format!("cannot find the SDK in `{shown}`"))?;
    let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
    if !manifest.lines().any(|line| line == "name = \"countersign-policy-sdk\"") {
        bail!("`{shown}` is not the SDK: its `Cargo.toml` is not that of `countersign-policy-sdk`");
    }
    let path = path.to_str().with_context(|| format!("the path of `{shown}` is not UTF-8"))?;
    ensure!(!path.contains(['"', '\\']), "the path `{path}` cannot be written in a manifest");
    Ok(path.to_owned())
}

/// The name of the policy's type: `TwoOfThree` for `two-of-three`.
fn type_name(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    let capital = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        format!("{}{rest}", first.to_ascii_uppercase())
    };
    let name: String = words.map(capital).collect();
    // The template imports these names, so the policy's type needs another one.
    let imported = [
        "Act",
        "Actor",
        "BTreeMap",
        "Config",
        "Context",
        "Deserialize",
        "Policy",
        "Reason",
        "ReasonDoc",
        "Request",
        "Requirement",
        "Ruling",
        "Scenario",
        "Value",
    ];
    if imported.contains(&name.as_str()) { format!("{name}Policy") } else { name }
}

fn parse_name(text: &str) -> Result<String, String> {
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let starts = text.starts_with(|first: char| first.is_ascii_lowercase());
    if !starts || text.len() > 64 || !text.chars().all(allowed) || text.ends_with('-') || text.contains("--")
    {
        return Err(
            "a policy's name is 1 to 64 lower-case letters and digits, with single `-` between them, and \
                    begins with a letter"
                .to_owned(),
        );
    }
    if RESERVED.contains(&text) {
        return Err(format!("`{text}` is a reserved name in Rust"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn names() {
        for good in ["a", "two-of-three", "freeze2026", "x-1"] {
            assert_eq!(parse_name(good), Ok(good.to_owned()));
        }
        for bad in
            ["", "A", "1st", "-a", "a-", "a--b", "a_b", "a b", "é", "../x", "match", "std", &"a".repeat(65)]
        {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
        for (name, type_of) in
            [("quorum", "Quorum"), ("two-of-three", "TwoOfThree"), ("x-1", "X1"), ("config", "ConfigPolicy")]
        {
            assert_eq!(type_name(name), type_of);
        }
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        for (path, content) in files("two-of-three", None).unwrap() {
            assert!(path.starts_with("sdk/") || !content.contains("{{"), "{path}:\n{content}");
        }
    }

    /// What an author changes once is changed everywhere; and what a policy reads of a parameter needs nothing but the SDK.
    #[test]
    fn the_summary_is_in_one_place_and_parameters_need_no_dependency() {
        let files = files("mine", None).unwrap();
        let own = || files.iter().filter(|(path, _)| !path.starts_with("sdk/"));
        let text = |path: &str| &own().find(|(found, _)| found == path).unwrap().1;
        let manifest = text("Cargo.toml");
        let summary = manifest.lines().find_map(|line| line.strip_prefix("description = ")).unwrap();
        let words = summary.trim_matches('"').split(',').next().unwrap();
        let having: Vec<_> = own().filter(|(_, text)| text.contains(words)).map(|(path, _)| path).collect();
        assert_eq!(having, ["Cargo.toml"]);

        let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
        let names: Vec<_> = dependencies
            .lines()
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["countersign-policy-sdk", "serde"]);
        let source = text("src/lib.rs");
        assert!(source.contains("countersign_policy_sdk::serde_json::Value"), "{source}");
        assert!(!source.contains("use serde_json"), "{source}");
    }

    /// Cargo resolves no versions of its own; it only removes entries that are not needed.
    ///
    /// May download the locked packages, so it needs crates.io or a cargo home that has them.
    #[test]
    fn cargo_keeps_the_locked_versions() {
        let folder = tempfile::tempdir().unwrap();
        let new = New { name: "two-of-three".to_owned(), dir: Some(folder.path().join("a b")), sdk: None };
        assert!(run(&new).unwrap().good);
        let lock = || fs::read_to_string(folder.path().join("a b/Cargo.lock")).unwrap();
        let versions = |lock: &str| -> Vec<(String, String)> {
            let of = |line: &str, key: &str| line.strip_prefix(key).map(str::to_owned);
            let names = lock.lines().filter_map(|line| of(line, "name = "));
            // `version = 4` at the top is the file format's; it has no quotes.
            names.zip(lock.lines().filter_map(|line| of(line, "version = \""))).collect()
        };
        let before = versions(&lock());
        let metadata = Command::new("cargo")
            .args(["metadata", "--format-version", "1"])
            .current_dir(folder.path().join("a b"))
            .output()
            .unwrap();
        assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
        let after = versions(&lock());
        assert!(after.len() > 10);
        for package in after {
            assert!(before.contains(&package), "{package:?}");
        }
        let again = run(&new).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(again.contains("already exists and is not empty"), "{again}");
    }

    #[test]
    fn an_external_sdk_must_be_the_sdk() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let manifest = |files: Vec<(String, String)>| {
            files.into_iter().find(|(path, _)| path == "Cargo.toml").map(|(_, text)| text).unwrap()
        };
        let files_of = |sdk: &str| files("mine", Some(&root.join(sdk)));
        let text = manifest(files_of("policy-sdk").unwrap());
        assert!(text.contains("/policy-sdk\" }"), "{text}");
        for (sdk, said) in
            [("nowhere", "cannot find the SDK in"), ("host/core", "is not the SDK: its `Cargo.toml`")]
        {
            let error = files_of(sdk).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(said), "{error}");
        }
    }

    /// A crate that is built with plain cargo has the same build settings as this workspace.
    #[test]
    fn the_build_settings_are_this_workspaces() {
        let own = include_str!("../../../../../.cargo/config.toml");
        let files = files("mine", None).unwrap();
        let text = |path: &str| &files.iter().find(|(found, _)| found == path).unwrap().1;
        for line in text(".cargo/config.toml").lines().filter(|line| !line.starts_with('#')) {
            assert!(own.lines().any(|found| found == line), "{line}");
        }
        let manifest = text("Cargo.toml");
        for line in ["opt-level = 3", "lto = true", "codegen-units = 1", "panic = \"abort\"", "strip = true"]
        {
            assert!(manifest.lines().any(|found| found == line), "{line}:\n{manifest}");
        }
    }
}
