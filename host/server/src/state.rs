//! What the routes and the answers to Slack share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use countersign_access::Proxies;
use countersign_core::secret::Secret;
use countersign_gateway::Gateway;
use countersign_gateway::policy_sets::PolicySets;
use countersign_slack::{Outgoing, Verifier};
use countersign_trace::Exporter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_control::AccessControl;
use crate::audit::keeper::Keeper;
use crate::dispatching::Dispatching;
use crate::gates::Gates;
use crate::hangups::Hangups;
use crate::http::{Fingerprints, Permalinks};
use crate::instances::ShowsStored;
use crate::interactions::SentEphemerals;
use crate::rate_limit::{CallerQuotas, RateLimiter};
use crate::readiness::Readiness;
use crate::rejections::Rejections;
use crate::retention::Sweeper;
use crate::spool::Spool;
use crate::streams::Streams;
use crate::supervisor::Supervisor;
use crate::telemetry::{Metrics, Scrapes};

/// What the routes and the answers to Slack share.
pub struct App {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) policy_sets: Arc<PolicySets>,
    /// Authenticates an admin who has every role. Without it, admins are those of the access file.
    pub(crate) admin_token: Option<Secret>,
    pub(crate) metrics: Metrics,
    /// Verifies interactions that come over HTTP. Without it there is no such route.
    pub(crate) slack_verifier: Option<Verifier>,
    /// Sends to Slack. Without it messages wait in the outbox.
    pub(crate) outgoing: Option<Outgoing>,
    /// Tells programs outside of requests.
    pub(crate) dispatching: Dispatching,
    /// The gates of CI systems.
    pub(crate) gates: Arc<Gates>,
    /// Where what people did is kept while the store cannot take it. Without it they are told to try again.
    pub(crate) spool: Option<Arc<Spool>>,
    /// Keeps the audit log provable.
    pub(crate) audit: Keeper,
    /// Removes requests that nothing needs any more. Without it they are kept for ever.
    pub(crate) retention: Option<Sweeper>,
    /// The newest ephemeral messages.
    pub(crate) sent_ephemerals: SentEphemerals,
    /// The URLs of messages that callers asked for.
    pub(crate) permalinks: Permalinks,
    /// The ids of other Slack workspaces and organizations whose people count.
    pub(crate) slack_team_ids: BTreeSet<String>,
    pub(crate) rate_limiter: RateLimiter,
    /// Recognises callers. Without an access file anybody who reaches the gateway may ask.
    pub(crate) access: Option<Arc<AccessControl>>,
    /// Whether anybody may ask from other machines, too.
    pub(crate) insecure_anonymous: bool,
    /// Makes fingerprints of bodies that come with an idempotency key.
    pub(crate) fingerprints: Fingerprints,
    /// How many requests a minute each caller may make.
    pub(crate) caller_quotas: CallerQuotas,
    /// What was rejected since it was last audited.
    pub(crate) rejections: Rejections,
    /// The newest answers of `/metrics`.
    pub(crate) scrapes: Scrapes,
    /// The same, with what the store counts in any case.
    pub(crate) scrapes_of_all: Scrapes,
    /// Whether this instance shows what the store counts.
    pub(crate) shows_stored: ShowsStored,
    /// Whether the store can be written to.
    pub(crate) readiness: Readiness,
    /// The proxies that are believed.
    pub(crate) proxies: Proxies,
    /// How many requests of one action each caller may have open, unless the access file says otherwise.
    pub(crate) max_open_requests: u32,
    /// The largest request body, in bytes.
    pub(crate) body_limit: usize,
    /// The open event streams.
    pub(crate) streams: Arc<Streams>,
    /// Tasks that go on after their caller was answered. They must end before the store is closed.
    pub(crate) background: TaskTracker,
    /// The SIGHUPs since the start began.
    pub(crate) hangups: Hangups,
    /// Ends the gateway, and everything that waits in it.
    pub(crate) shutdown: CancellationToken,
    /// Keeps the tasks of the process running.
    pub(crate) supervisor: Supervisor,
    /// Sends traces, until it is taken to send the last of them.
    pub(crate) exporter: Mutex<Option<Exporter>>,
}
