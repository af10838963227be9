//! The commands as they are given on the command line, on real modules.

mod figures;
mod judging;
mod looking;
mod making;
mod signing;
mod stories;

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use tempfile::TempDir;

use clap::{Parser, Subcommand};
use countersign_policy::{Engine, Limits, Module, Signed, Trust};

const MODULES: [&str; 4] = ["quorum", "persona-gate", "override-guard", "misbehaving"];
const SCHEMA: &str = r#"{ "properties": { "replicas": { "type": "integer", "maximum": 20 } } }"#;

/// As much of the program's command line as these commands are in.
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

/// One engine for all tests, and the modules in it, so that each is compiled once.
fn engine() -> Engine {
    static ENGINE: LazyLock<(Engine, Vec<Arc<Module>>)> = LazyLock::new(|| {
        let engine = super::engine((Trust::default(), Limits::default())).unwrap();
        let modules = MODULES.iter().map(|name| engine.load(&bytes_of(name), &[]).unwrap()).collect();
        (engine, modules)
    });
    ENGINE.0.clone()
}

/// The engine for all tests, unless signatures count, or other limits.
fn engine_of((trust, limits): (Trust, Limits)) -> anyhow::Result<Engine> {
    let asks = [Signed::Module, Signed::PolicySet].iter().any(|signed| trust.asks_for(*signed));
    match asks || limits != Limits::default() {
        true => super::engine((trust, limits)),
        false => Ok(engine()),
    }
}

/// The bytes of a module of this workspace.
fn bytes_of(module: &str) -> Vec<u8> {
    countersign_test_modules::bytes(module)
}

/// A folder to work in: with the modules of this workspace in `modules`, and whatever a test writes.
struct Folder(TempDir);

/// What a command printed, and the code it exits with.
#[derive(Debug, PartialEq)]
struct Said {
    text: String,
    code: u8,
}

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
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

    /// A policy set with these actions, pinned to the modules of the folder.
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
            format!("version: 1\nmodules:\n{pins}groups:\n{groups}actions:\n{actions}"),
        );
    }

    /// Runs `countersign policy` with these words; those that begin with `./` are files of the folder.
    fn policy(&self, words: &[&str]) -> Said {
        let words = words.iter().map(|word| match word.strip_prefix("./") {
            Some(file) => self.0.path().join(file).display().to_string(),
            None => (*word).to_owned(),
        });
        let words = ["countersign".to_owned(), "policy".to_owned()].into_iter().chain(words);
        let policy = match Program::try_parse_from(words) {
            Ok(Program { command: Command::Policy(policy) }) => policy,
            Ok(other) => panic!("{other:?}"),
            Err(error) => return Said { text: self.shown(&error.to_string()), code: 2 },
        };
        match super::answer(&policy, engine_of) {
            Ok(answer) => Said { text: self.shown(&answer.text), code: u8::from(!answer.good) },
            Err(error) => Said { text: self.shown(&format!("{error:#}\n")), code: 2 },
        }
    }

    /// Without what differs from one run to the next: the folder, and digests.
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

/// That what was said has these parts, in any order.
#[track_caller]
fn has(said: &Said, code: u8, parts: &[&str]) {
    for part in parts {
        assert!(said.text.contains(part), "`{part}` is not in:\n{}", said.text);
    }
    assert_eq!(said.code, code, "{}", said.text);
}
