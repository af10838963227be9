//! What is kept of the audit log outside of the store.

use std::path::PathBuf;

use clap::Args;

/// What is kept of the audit log outside of the store.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Audit")]
pub struct Audit {
    /// A file that every audit entry is appended to, as NDJSON. It may be renamed while the gateway runs. Beside it lie
    /// `FILE.position` and `FILE.lock`.
    #[arg(long = "audit-file", value_name = "AUDIT_FILE")]
    pub audit_file: Option<PathBuf>,
    /// A file that every signed checkpoint of the audit log is appended to; keep it where whoever owns the database cannot
    /// change it. Without it `FILE.checkpoints` beside the audit file, if there is one.
    #[arg(long = "audit-checkpoint-file", value_name = "COUNTERSIGN_AUDIT_CHECKPOINT_FILE")]
    audit_checkpoint_file: Option<PathBuf>,
    /// How often a checkpoint is signed if there are new entries, in seconds.
    #[arg(
        long = "audit-checkpoint-sec",
        value_name = "COUNTERSIGN_AUDIT_CHECKPOINT_SEC",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    pub audit_checkpoint_sec: u32,
}

impl Default for Audit {
    /// Nothing.
    fn default() -> Audit {
        Audit { audit_file: None, audit_checkpoint_file: None, audit_checkpoint_sec: 10 }
    }
}

impl Audit {
    /// The file of checkpoints, if there is one.
    #[must_use]
    pub fn checkpoint_file(&self) -> Option<PathBuf> {
        let beside = || self.audit_file.as_ref().map(|file| super::beside(file, ".checkpoints"));
        self.audit_checkpoint_file.clone().or_else(beside)
    }
}
