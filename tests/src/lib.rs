//! The harness of the black-box tests: it starts the real program in a folder of its own, and drives it over HTTP.
//!
//! Nothing here uses the gateway's code. Tests wait by asking the gateway, and never longer than [`PATIENCE`]; they share no
//! port, no folder and no order.

mod home;

mod gateway;

mod api;
mod metrics;
mod payload;
mod slack;
mod sse;
mod wire;

mod api_key;
mod authority;
mod issuer;

mod browser;
mod ci;
mod collector;
mod nginx;
mod prometheus;
mod receiver;
mod redis;
mod registry;
mod relay;
mod workspace;

mod ambient;
mod audit_fields;
mod client;
mod command;
mod printed;
mod random;
mod server_process;

use std::future::Future;
use std::time::Duration;

pub use ambient::{Stopwatch, binary, counters, keep_screenshot, modules, project, unix_seconds, variable};
pub use api::{Api, Ask, Problem, Receipt, millis};
pub use api_key::ApiKey;
pub use authority::{Authority, Certified, Name, TlsClient};
pub use browser::Page;
pub use ci::{GITHUB_KEY, GITHUB_SECRET, GITLAB_SECRET, GITLAB_TOKEN, Github, Gitlab, Review, StatusCall};
pub use client::{Ended, Running};
pub use collector::{Collected, Collector, Manner};
pub use command::{countersign, countersign_mounted, countersign_with, install_script, may_mount};
pub use gateway::{Exit, Failure, Gateway, Starting};
pub use home::{ADMIN_TOKEN, Home, deploy, digest};
pub use issuer::{AUDIENCE, Issuer, SigningKey, token_signed_by};
pub use metrics::Metrics;
pub use nginx::Nginx;
pub use payload::{payload_hash, unsalted_payload_hash};
pub use prometheus::{Prometheus, promtool};
pub use random::Random;
pub use receiver::{Answering, Delivered, Receiver};
pub use redis::Redis;
pub use registry::{REGISTRY_PASSWORD, REGISTRY_USER, Registry};
pub use relay::{Fault, Relay};
pub use slack::{Click, SIGNING_SECRET, Signed};
pub use sse::{Event, Stream};
pub use wire::{Call, Connection, Reply};
pub use workspace::Slack;

/// How long a test waits for something that must happen. It is long, since only a failure uses all of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`, up to [`PATIENCE`].
///
/// # Panics
/// If it takes longer than [`PATIENCE`]; the message says `what` was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Whether `bytes` hold these, anywhere.
#[must_use]
pub fn holds(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}
