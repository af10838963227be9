//! For how long what has ended is kept.

use std::path::PathBuf;

use clap::Args;

/// For how long what has ended is kept.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Retention")]
pub struct Retention {
    /// For how many seconds a request is kept after it has ended. Without it requests are kept for ever.
    #[arg(
        long = "request-retention-sec",
        value_name = "REQUEST_RETENTION_SEC",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub request_retention_sec: Option<u32>,
    /// How often requests, audit entries and policy sets that need not be kept any longer are looked for, in seconds.
    #[arg(
        long = "request-retention-sweep-sec",
        value_name = "REQUEST_RETENTION_SWEEP_SEC",
        default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    pub sweep_sec: u32,
    /// For how many seconds audit entries are kept. Without it they are kept for ever.
    #[arg(
        long = "audit-retention-sec",
        value_name = "AUDIT_RETENTION_SEC",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub audit_retention_sec: Option<u32>,
    /// For how many seconds a policy set is kept after it was last used, and longer while a request is stored that may have
    /// been made under it. Without it policy sets are kept for ever.
    #[arg(
        long = "policy-retention-sec",
        value_name = "POLICY_RETENTION_SEC",
        value_parser = clap::value_parser!(u32).range(3600..)
    )]
    pub policy_retention_sec: Option<u32>,
    /// A file that each request is appended to, as NDJSON, before it is removed from the store; with gzip if its name ends in
    /// `.gz`. It may be renamed while the gateway runs. Beside it lie `FILE.lock` and, for moments, `FILE.batch`. Without it
    /// requests are removed for good.
    #[arg(long = "request-archive-file", value_name = "REQUEST_ARCHIVE_FILE")]
    pub archive_file: Option<PathBuf>,
}

impl Retention {
    /// What does not fit together, one sentence each.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.archive_file.is_some() && self.request_retention_sec.is_none() {
            wrong.push(
                "the variable `REQUEST_ARCHIVE_FILE` is set, but not `REQUEST_RETENTION_SEC`: nothing would be archived"
                    .to_owned(),
            );
        }
        if let Some(audit) = self.audit_retention_sec
            && self.request_retention_sec.is_none_or(|requests| audit < requests)
        {
            wrong.push(
                "the variable `AUDIT_RETENTION_SEC` needs a `REQUEST_RETENTION_SEC` that is no longer: requests would be kept \
                 without what the audit log says of them"
                    .to_owned(),
            );
        }
        wrong
    }
}
