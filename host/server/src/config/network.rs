//! Where the gateway listens, and how much it accepts.

use std::net::SocketAddr;

use clap::Args;

/// Where the gateway listens, and how much it accepts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// The address to listen on; with port 0 the system chooses a free one.
    #[arg(long, value_name = "COUNTERSIGN_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The largest request body, in bytes.
    #[arg(long, value_name = "COUNTERSIGN_BODY_LIMIT_BYTES", default_value = "262144")]
    #[arg(value_parser = clap::value_parser!(u32).range(1024..=16 * 1024 * 1024))]
    pub body_limit_bytes: u32,
    /// How many event streams may be open at once.
    #[arg(long, value_name = "SSE_MAX_CONNECTIONS", default_value = "20000")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub sse_max_connections: u32,
}
