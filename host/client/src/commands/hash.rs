//! `countersign hash`: the payload hash of parameters.

use std::path::PathBuf;

use clap::Args;
use countersign_console::{note, say};
use countersign_core::lifecycle::{PayloadHashVersion, Salt, payload_hash_of};

use super::exit::{Ended, Exit};
use super::parameters::Parameters;

/// Print the payload hash of parameters, to compare it with that of an answer or a receipt.
#[derive(Debug, Args)]
pub struct HashCommand {
    #[command(flatten)]
    parameters: Parameters,
    /// The salt of the request (`payloadSalt`); in a file, since whoever has it can find short hidden values.
    #[arg(long, value_name = "FILE", required_unless_present = "unsalted", conflicts_with = "unsalted")]
    salt_file: Option<PathBuf>,
    /// The hash of version 1, which has no salt.
    #[arg(long)]
    unsalted: bool,
}

impl HashCommand {
    /// Prints it.
    #[must_use]
    pub fn run(&self) -> Exit {
        match self.hash() {
            Ok(hash) => {
                say!("{hash}");
                Exit::Approved
            }
            Err(Ended { exit, why }) => {
                note!("error: {why}");
                exit
            }
        }
    }

    fn hash(&self) -> Result<String, Ended> {
        let salt = self.salt_file.as_ref().map(|path| {
            let shown = path.display();
            let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
            let text = text.map_err(|error| Ended::usage(format!("cannot read `{shown}`: {error}")))?;
            text.trim().parse::<Salt>().map_err(|error| Ended::usage(format!("`{shown}`: {error}")))
        });
        let salt = salt.transpose()?;
        let version = if self.unsalted { PayloadHashVersion::One } else { PayloadHashVersion::Two };
        let hash = payload_hash_of(&self.parameters.read()?, version, salt.as_ref());
        hash.map(|hash| hash.to_string()).ok_or_else(|| Ended::usage("the salt is missing"))
    }
}
