//! Where requests are stored.

use std::path::PathBuf;

use clap::Args;
use countersign_store::StoreUrl;

/// Where requests are stored.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct Storage {
    /// The store: `sqlite:PATH`.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = "sqlite:countersign.db")]
    pub store: StoreUrl,
    /// The file of the keys that receipts are signed with; without it `PATH.receipts.key` beside the database `PATH`.
    #[arg(long, value_name = "COUNTERSIGN_RECEIPT_KEYS")]
    pub receipt_keys: Option<PathBuf>,
}
