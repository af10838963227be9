//! `countersign receipt`: checks receipts and re-executes decisions offline, and rotates the keys that they are signed with.

mod inputs;
mod replay;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use countersign_authoring::StoreAddress;
use countersign_console::{note, say_text};
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::lifecycle::Timestamp;
use countersign_store::StoreUrl;

use crate::keys::receipts;

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
    #[arg(long, value_name = "URL", default_value = "sqlite:countersign.db", value_parser = StoreAddress)]
    store: StoreUrl,
    /// The file of keys, if it lies elsewhere.
    #[arg(long, value_name = "FILE")]
    receipt_keys: Option<PathBuf>,
    /// In how many seconds the new key begins to sign; until then whoever keeps a copy of the published keys can fetch them
    /// again.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    after_sec: u32,
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
        let path = self.receipt_keys.clone().or_else(|| receipts::default_file(&self.store));
        let path = path.context("this store has no file beside it: name the file with `--receipt-keys`")?;
        let from = now.plus(u64::from(self.after_sec) * 1000);
        let keys = receipts::rotate(&path, from, now)?;
        let kids = keys.published().keys.into_iter().filter_map(|key| key.kid);
        Ok(kids.map(|kid| format!("{kid}\n")).collect())
    }
}
