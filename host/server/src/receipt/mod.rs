//! `countersign receipt`: checks receipts and re-executes decisions offline, and rotates the keys that they are signed with.

mod inputs;
mod replay;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use countersign_authoring::StoreAddress;
use countersign_console::{note, say_text};
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::lifecycle::Timestamp;
use countersign_store::StoreUrl;

use crate::keys::receipts::{self, Done, Rotated};

pub use replay::Replay;
pub use verify::Verify;

/// Check receipts, and rotate the keys that they are signed with.
#[derive(Debug, Subcommand)]
pub enum ReceiptCommand {
    /// Check a receipt, without a network: who has agreed to what.
    #[command(after_long_help = verify::EXIT_CODES)]
    Verify(Verify),
    /// Re-execute a decision, without a network: the modules that made it must come to the same one.
    #[command(after_long_help = replay::EXIT_CODES)]
    Replay(Replay),
    /// Make a new key for receipts, which is published at once and signs later. Restart the gateway afterwards.
    RotateKeys(RotateKeys),
}

/// Which keys are rotated, and when the new one counts.
#[derive(Debug, Args)]
pub struct RotateKeys {
    /// The store whose keys lie beside it: `sqlite:PATH`.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = "sqlite:countersign.db", value_parser = StoreAddress)]
    store: StoreUrl,
    /// The file of keys, if it lies elsewhere. It is made if it is not there.
    #[arg(long, value_name = "COUNTERSIGN_RECEIPT_KEYS")]
    receipt_keys: Option<PathBuf>,
    /// In how many seconds the new key begins to sign; until then whoever keeps a copy of the published keys can fetch them
    /// again. The first key of a file signs at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    after_sec: u32,
    /// Only make the file, and leave one that is there as it is.
    #[arg(long)]
    if_missing: bool,
}

/// Runs a command, and returns the exit code.
#[must_use]
pub fn run(command: &ReceiptCommand) -> ExitCode {
    let now = SystemClock.now();
    match command {
        ReceiptCommand::Verify(verify) => verify.run(now),
        ReceiptCommand::Replay(replay) => replay.run(),
        ReceiptCommand::RotateKeys(rotate) => match rotate.run(now) {
            Ok(text) => {
                say_text(format_args!("{text}"));
                ExitCode::SUCCESS
            }
            Err(error) => {
                note!("error: {error:#}");
                ExitCode::from(2)
            }
        },
    }
}

impl RotateKeys {
    fn run(&self, now: Timestamp) -> anyhow::Result<String> {
        let path = self.path()?;
        let from = now.plus(u64::from(self.after_sec) * 1000);
        let Rotated { done, from, kids } = receipts::rotate(&path, from, now, self.if_missing)?;
        let shown = path.display();
        let mut text = match done {
            Done::Made => format!("`{shown}` was made\n"),
            Done::Rotated => format!("`{shown}` has a new key\n"),
            Done::Kept => format!("`{shown}` is there already, and stays as it is\n"),
        };
        for (index, kid) in kids.iter().enumerate() {
            text.push_str(&match index {
                0 if from > now => format!("{kid} signs what is decided from {from} on\n"),
                0 => format!("{kid} signs\n"),
                _ => format!("{kid} is published\n"),
            });
        }
        Ok(text)
    }

    /// The file that a gateway with these settings has its keys from. A typo in the name of the store would make keys that
    /// nobody uses, and leave those in use as they are.
    fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.receipt_keys {
            return Ok(path.clone());
        }
        let beside = receipts::default_file(&self.store);
        let path = beside.with_context(|| format!("there is no file beside `{}`: {NAME_IT}", self.store))?;
        let exists = self.store.file().is_some_and(Path::exists);
        ensure!(exists, "there is no store `{}` to lie beside: {NAME_IT}", self.store);
        Ok(path)
    }
}

const NAME_IT: &str = "name the file of keys with `--receipt-keys` (COUNTERSIGN_RECEIPT_KEYS)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::Environment;

    fn rotate(words: &[&str], variables: &[(&str, &str)]) -> Result<String, String> {
        let environment: Environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let words = ["countersign", "receipt", "rotate-keys"].iter().chain(words);
        let cli = Cli::read(words, &environment).map_err(|error| error.to_string())?;
        let Command::Receipt(ReceiptCommand::RotateKeys(rotate)) = cli.command else { panic!("{cli:?}") };
        rotate.run(Timestamp::from_millis(1_780_000_000_000)).map_err(|error| format!("{error:#}"))
    }

    /// What a gateway with the same variables reads is rotated, and no other file is made.
    #[test]
    fn the_keys_of_the_gateway_are_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (store, keys) = (format!("sqlite:{}", at("db")), at("elsewhere.key"));
        let files = || {
            let names = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        for words in [&["--store", &store][..], &["--store", "redis://127.0.0.1"], &[]] {
            let refused = rotate(words, &[("COUNTERSIGN_STORE", "sqlite:/nowhere/db")]).unwrap_err();
            assert!(refused.contains("--receipt-keys") && files().is_empty(), "{refused}");
        }
        std::fs::write(at("db"), "").unwrap();
        let beside = rotate(&[], &[("COUNTERSIGN_STORE", &store)]).unwrap();
        assert!(beside.starts_with(&format!("`{}` was made\n", at("db.receipts.key"))), "{beside}");
        let both = [("COUNTERSIGN_STORE", &*store), ("COUNTERSIGN_RECEIPT_KEYS", &*keys)];
        let made = rotate(&[], &both).unwrap();
        assert!(made.starts_with(&format!("`{keys}` was made\n")), "{made}");
        assert_eq!(files(), ["db", "db.receipts.key", "elsewhere.key"]);
        let first = made.lines().nth(1).unwrap().strip_suffix(" signs").unwrap();
        let rotated = rotate(&["--after-sec", "60"], &both).unwrap();
        let lines: Vec<&str> = rotated.lines().collect();
        assert_eq!(lines[0], format!("`{keys}` has a new key"));
        assert!(lines[1].ends_with(" signs what is decided from 2026-05-28T20:27:40.000Z on"), "{rotated}");
        assert_eq!(lines[2..], [format!("{first} is published")]);

        let typo = rotate(&[], &[("COUNTERSIGN_RECEIPT_KEY", "x")]).unwrap_err();
        assert!(typo.contains("`COUNTERSIGN_RECEIPT_KEY` is unknown"), "{typo}");
    }

    /// A block of commands that is carried out again changes nothing.
    #[test]
    fn a_file_is_made_only_once_if_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let words = ["--if-missing", "--receipt-keys", path.to_str().unwrap()];
        let made = rotate(&words, &[]).unwrap();
        let before = std::fs::read(&path).unwrap();
        let again = rotate(&words, &[]).unwrap();
        assert_eq!(again, made.replace("was made", "is there already, and stays as it is"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
