//! The policy set, and what its modules may use.

use std::path::PathBuf;

use clap::Args;
use countersign_policy::settings::{PolicyLimits, Supply};

/// The policy set, and what its modules may use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policies")]
pub struct Policies {
    /// The directory of the policy set: `policy-set.yaml`, `modules` and `schemas`.
    #[arg(long = "policies", value_name = "COUNTERSIGN_POLICIES", required = true)]
    pub directory: PathBuf,
    /// The directory for compiled policy modules, which are kept between starts; by default beside the SQLite file.
    #[arg(long, value_name = "COUNTERSIGN_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Whether to reload the policy set when its directory changes.
    #[arg(long = "policy-watch", value_name = "COUNTERSIGN_POLICY_WATCH", default_value = "true")]
    #[arg(action = clap::ArgAction::Set)]
    pub watch: bool,
    /// Whose signatures are trusted, and where modules may be fetched from.
    #[command(flatten)]
    pub supply: Supply,
    /// What one call of a policy may use.
    #[command(flatten)]
    pub limits: PolicyLimits,
}
