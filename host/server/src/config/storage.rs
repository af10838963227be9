//! Where requests are stored.

use clap::Args;
use countersign_store::StoreUrl;

/// Where requests are stored.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct Storage {
    /// The store: `sqlite:PATH`.
    #[arg(long, value_name = "COUNTERSIGN_STORE", default_value = "sqlite:countersign.db")]
    pub store: StoreUrl,
}
