//! Who may ask.

use std::path::PathBuf;

use clap::Args;

use super::Network;

/// Who may ask.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessSettings {
    /// The access file: callers, issuers of tokens, and people. Without it anybody on this machine may ask.
    #[arg(long = "access", value_name = "COUNTERSIGN_ACCESS")]
    pub file: Option<PathBuf>,
    /// Whether anybody who reaches the address may ask, although there is no access file.
    #[arg(long, value_name = "COUNTERSIGN_INSECURE_ANONYMOUS", default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub insecure_anonymous: bool,
}

impl AccessSettings {
    /// The variables of what [`AccessSettings::check`] looks at.
    pub(super) const CHECKED: [&str; 4] = [
        "COUNTERSIGN_ACCESS",
        "COUNTERSIGN_INSECURE_ANONYMOUS",
        "COUNTERSIGN_LISTEN",
        "COUNTERSIGN_OPS_LISTEN",
    ];

    /// What is wrong with these settings, together with the address to listen on.
    pub(crate) fn check(&self, network: &Network) -> Option<String> {
        if self.file.is_some() && self.insecure_anonymous {
            return Some(
                "`--insecure-anonymous` lets anybody ask, and `--access` says who may: give one of them"
                    .to_owned(),
            );
        }
        if self.file.is_some() || self.insecure_anonymous {
            return None;
        }
        // Slack's listener is not looked at: it serves signed calls alone.
        let mut listeners = std::iter::once(network.listen).chain(network.ops_listen);
        let open = listeners.find(|listen| !listen.ip().is_loopback());
        open.map(|listen| {
            format!(
                "`{listen}` can be reached from other machines, and without an access file anybody could ask: \
                 give `--access FILE` (COUNTERSIGN_ACCESS), or say `--insecure-anonymous`"
            )
        })
    }
}
