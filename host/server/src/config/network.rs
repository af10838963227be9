//! Where the gateway listens, and how much it accepts.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use countersign_access::ClientHeader;
use ipnet::IpNet;

/// Where the gateway listens, and how much it accepts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// The address to listen on; with port 0 the system chooses a free one.
    #[arg(long, value_name = "COUNTERSIGN_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The address for probes, metrics and admins; without it they are served where callers are.
    #[arg(long, value_name = "COUNTERSIGN_OPS_LISTEN")]
    pub ops_listen: Option<SocketAddr>,
    /// The address for Slack's interactions and what CI systems deliver; without it they are served where callers are.
    #[arg(long, value_name = "COUNTERSIGN_SLACK_LISTEN")]
    pub slack_listen: Option<SocketAddr>,
    /// The most connections of callers at once; by default as many as file descriptors allow. One address may have half
    /// of them, unless it is a trusted proxy's.
    #[arg(long, value_name = "COUNTERSIGN_MAX_CONNECTIONS")]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub max_connections: Option<u32>,
    /// The networks of proxies in front of the gateway, separated by commas: only they are believed when they say whom
    /// they were called by.
    #[arg(long, value_name = "COUNTERSIGN_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which those proxies say so.
    #[arg(long, value_name = "COUNTERSIGN_CLIENT_HEADER", default_value = "x-forwarded-for")]
    pub client_header: ClientHeader,
    /// The largest request body, in bytes.
    #[arg(long, value_name = "COUNTERSIGN_BODY_LIMIT_BYTES", default_value = "262144")]
    #[arg(value_parser = clap::value_parser!(u32).range(1024..=16 * 1024 * 1024))]
    pub body_limit_bytes: u32,
    /// How many requests of one action each caller may have open, unless the access file says otherwise for it. Without an
    /// access file all callers are one.
    #[arg(long, value_name = "COUNTERSIGN_MAX_OPEN_REQUESTS", default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub max_open_requests: u32,
    /// How many event streams may be open at once.
    #[arg(long, value_name = "SSE_MAX_CONNECTIONS", default_value = "20000")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub sse_max_connections: u32,
    /// How long an event stream is silent at most, in seconds; shorter than what any proxy in front of the gateway waits.
    #[arg(long, value_name = "SSE_HEARTBEAT_SEC", default_value = "20")]
    #[arg(value_parser = clap::value_parser!(u32).range(5..=60))]
    pub sse_heartbeat_sec: u32,
}

impl Network {
    /// The variables of what [`Network::check`] looks at.
    pub(super) const CHECKED: [&str; 3] =
        ["COUNTERSIGN_LISTEN", "COUNTERSIGN_OPS_LISTEN", "COUNTERSIGN_SLACK_LISTEN"];

    /// A sentence for each two listeners that would need the same address.
    pub(crate) fn check(&self) -> Vec<String> {
        let listeners = [Some(self.listen), self.ops_listen, self.slack_listen];
        let mut listeners =
            Self::CHECKED.into_iter().zip(listeners).filter_map(|(name, listen)| Some((name, listen?)));
        let mut wrong = Vec::new();
        while let Some((one, address)) = listeners.next() {
            for (other, _) in listeners.clone().filter(|(_, its)| is_same(address, *its)) {
                wrong.push(format!(
                    "`{one}` and `{other}` are the same address `{address}`: each needs its own"
                ));
            }
        }
        wrong
    }
}

/// Whether two sockets could not listen there at once. A port that the system chooses is another one each time.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let is_shared = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_shared
}

/// A network such as `10.0.0.0/8`, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| "this is a network such as `10.0.0.0/8`, or an address".to_owned())?;
    if network.prefix_len() == 0 {
        return Err("everybody would be believed".to_owned());
    }
    Ok(network.trunc())
}
