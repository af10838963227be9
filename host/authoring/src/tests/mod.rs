//! Runs the commands as the command line does, on the workspace's modules.

mod bench;
mod check;
mod diff;
mod inspect;
mod judging;
mod new;
mod scenarios;
mod sign;

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use clap::{Parser, Subcommand};
use countersign_policy::{Engine, Limits, Module, Signed, Trust};
use tempfile::TempDir;

const MODULES: [&str; 4] = ["quorum", "persona-gate", "override-guard", "misbehaving"];
const SCHEMA: &str = r#"{ "properties": { "ref": {}, "replicas": { "type": "integer", "maximum": 20 } } }"#;

/// The part of the program's command line that has these commands.
#[derive(Debug, Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(subcommand)]
    Policy(crate::Policy),
}

/// One engine for all tests. It keeps the modules, so that each is compiled once.
fn engine() -> Engine {
    static ENGINE: LazyLock<(Engine, Vec<Arc<Module>>)> = LazyLock::new(|| {
        let engine = super::engine((Trust::default(), Limits::default())).unwrap();
        let modules = MODULES.iter().map(|name| engine.load(&bytes_of(name), &[]).unwrap()).collect();
        (engine, modules)
    });
    ENGINE.0.clone()
}

/// The shared engine, unless a command verifies signatures or sets limits.
fn engine_of((trust, limits): (Trust, Limits)) -> anyhow::Result<Engine> {
    let verifies = [Signed::Module, Signed::PolicySet].iter().any(|signed| trust.asks_for(*signed));
    match verifies || limits != Limits::default() {
        true => super::engine((trust, limits)),
        false => Ok(engine()),
    }
}

/// A module of this Cargo workspace.
fn bytes_of(module: &str) -> Vec<u8> {
    countersign_test_modules::bytes(module)
}

/// A temporary folder with the modules in `modules`, and the files that a test writes.
struct Workspace(TempDir);

/// What a command prints, and its exit code.
#[derive(Debug, PartialEq)]
struct Output {
    text: String,
    code: u8,
}

impl Workspace {
    fn new() -> Workspace {
        let folder = Workspace(tempfile::tempdir().unwrap());
        for module in MODULES {
            folder.write(&format!("modules/{module}.wasm"), bytes_of(module));
        }
        folder
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes a policy set with these actions.
    fn write_set(&self, actions: &str) {
        let mut pins = String::new();
        for module in MODULES {
            let bytes = bytes_of(module);
            pins.push_str(&format!(
                "  {module}: sha256:{}\n",
                countersign_core::lifecycle::Digest::of(&bytes)
            ));
        }
        let groups = "  managers: [U0RM1, U0RM2]\n  team: [S0TEAM]\n  super-approvers: [U0ADMIN]\n";
        self.write(
            "policy-set.yaml",
            format!(
                "version: 1\nmodules:\n{pins}groups:\n{groups}actions:\n{}\ndefaults: {{ channel: C0DEPLOYS }}\n",
                actions.trim_end()
            ),
        );
    }

    /// Runs `countersign policy` with these arguments; `./` at the start of one is this folder.
    fn policy(&self, words: &[&str]) -> Output {
        let words = words.iter().map(|word| match word.strip_prefix("./") {
            Some(file) => self.0.path().join(file).display().to_string(),
            None => (*word).to_owned(),
        });
        let words = ["countersign".to_owned(), "policy".to_owned()].into_iter().chain(words);
        let policy = match Program::try_parse_from(words) {
            Ok(Program { command: Command::Policy(policy) }) => policy,
            Err(error) => return Output { text: self.shown(&error.to_string()), code: 2 },
        };
        match super::answer(&policy, engine_of) {
            Ok(answer) => Output { text: self.shown(&answer.text), code: u8::from(!answer.good) },
            Err(error) => Output { text: self.shown(&format!("{error:#}\n")), code: 2 },
        }
    }

    /// Removes what differs between runs: the folder's path, and digests.
    fn shown(&self, text: &str) -> String {
        let text = text.replace(&format!("{}/", self.0.path().display()), "");
        let mut shown = String::new();
        let mut digits = String::new();
        for letter in text.chars().chain(['\0']) {
            if letter.is_ascii_hexdigit() && !letter.is_ascii_uppercase() {
                digits.push(letter);
                continue;
            }
            shown.push_str(if digits.len() == 64 { "<digest>" } else { &digits });
            digits.clear();
            if letter != '\0' {
                shown.push(letter);
            }
        }
        shown
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Asserts the exit code, and that the output has these parts, in any order.
#[track_caller]
fn has(output: &Output, code: u8, parts: &[&str]) {
    for part in parts {
        assert!(output.text.contains(part), "`{part}` is not in:\n{}", output.text);
    }
    assert_eq!(output.code, code, "{}", output.text);
}

/// The paths of all files in a folder, relative to it.
pub(crate) fn walk(folder: &Path, prefix: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files.extend(walk(&entry.path(), &format!("{name}/")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}
