//! What is made once for all schedules, and the gateway's process, which dies and starts again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use countersign_access::Proxies;
use countersign_core::clock::Clock;
use countersign_core::lifecycle::Digest;
use countersign_core::record::PolicyEntry;
use countersign_gateway::Gateway;
use countersign_gateway::policy_sets::PolicySets;
use countersign_gateway::scheduler::Scheduler;
use countersign_policy::{Engine, Limits, Policies, PolicySet, Trust};
use countersign_registry::{Credentials, Registries};
use countersign_slack::fake::InProcess;
use countersign_slack::{CallMetrics, Outgoing, SlackClient, identify, review};
use countersign_store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::expected::POLICY_SET;
use super::slack;
use super::world::World;
use crate::audit::keeper::Keeper;
use crate::build::tokens;
use crate::config::RateLimit;
use crate::hangups::Hangups;
use crate::http::{Fingerprints, Permalinks, Surface, router};
use crate::instances::ShowsStored;
use crate::interactions::SentEphemerals;
use crate::keys::{Keys, MasterKey};
use crate::rate_limit::{CallerQuotas, RateLimiter};
use crate::readiness::Readiness;
use crate::rejections::Rejections;
use crate::state::App;
use crate::streams::Streams;
use crate::supervisor::Supervisor;
use crate::telemetry::{Metrics, Scrapes};

/// How much fuel a call of a policy may use: enough for those that behave, and little for the one that runs for ever.
const FUEL: u64 = 2_000_000;

/// Longer than any run: only fuel ends a call, since it is the same on each machine.
const DEADLINE_MS: u64 = 24 * 60 * 60 * 1000;

/// How often the scheduler looks, in milliseconds: the default.
const INTERVAL_MS: u64 = 1_000;

/// What all schedules share.
pub(super) struct Installation {
    pub(super) policies: Arc<Policies>,
    pub(super) entries: Vec<PolicyEntry>,
    keys: Keys,
}

impl Installation {
    pub(super) fn new() -> Installation {
        let folder = tempfile::tempdir().expect("a folder");
        let write =
            |path: &str, bytes: &[u8]| std::fs::write(folder.path().join(path), bytes).expect("written");
        std::fs::create_dir_all(folder.path().join("modules")).expect("a folder");
        let mut text = "version: 1\nmodules:\n".to_owned();
        for name in ["quorum", "persona-gate", "override-guard", "misbehaving"] {
            let bytes = countersign_test_modules::bytes(name);
            writeln!(text, "  {name}: sha256:{}", Digest::of(&bytes)).expect("a text grows");
            write(&format!("modules/{name}.wasm"), &bytes);
        }
        write("policy-set.yaml", (text + POLICY_SET.trim_start()).as_bytes());
        let limits = Limits { fuel: FUEL, deadline_ms: DEADLINE_MS, ..Limits::default() };
        let engine = Engine::new(limits, None, Trust::default()).expect("a sandbox");
        let set = PolicySet::load(folder.path(), &engine).expect("the policy set is sound");
        let entries = set.policies().map(|policy| PolicyEntry::clone(policy.entry())).collect();
        let keys = Keys { current: MasterKey::new([7; 32]), previous: None };
        Installation { policies: Arc::new(Policies::new(engine, set)), entries, keys }
    }
}

/// A process of the gateway.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) app: Arc<App>,
    pub(super) router: Router,
}

impl Process {
    /// Starts a process on this runtime, whose end is the process's. Also returns what must not end before.
    pub(super) fn start(
        installation: &Installation,
        world: &Arc<World>,
        store: Arc<dyn Store>,
    ) -> (Process, [JoinHandle<()>; 2]) {
        let clock: Arc<dyn Clock> = world.process_starts();
        let keys = &installation.keys;
        let random = {
            let world = Arc::clone(world);
            move |bytes: &mut [u8]| {
                world.fill(bytes);
                Ok(())
            }
        };
        let policies = Arc::clone(&installation.policies);
        let gateway = Gateway::new(store, policies, Arc::clone(&clock), tokens(keys), keys.salts())
            .reading(review::is_possible)
            .drawing(Box::new(random))
            .judging_in_place();
        let gateway = Arc::new(gateway);
        let metrics = Metrics::new().expect("metrics");
        let streams = Streams::new(1_000, 20, metrics.registry()).expect("metrics");
        let calls = CallMetrics::new(metrics.registry()).expect("metrics");
        let answering = {
            let world = Arc::clone(world);
            move |method, body| slack::answer(Arc::clone(&world), method, body)
        };
        let client = SlackClient::in_process(InProcess::new(answering), calls);
        let outgoing = Outgoing::new(client, &clock, world.profile().rate_factor);
        let dispatching = crate::dispatching::Dispatching::new(metrics.registry()).expect("metrics");
        let shutdown = CancellationToken::new();
        let supervisor = Supervisor::new(metrics.registry(), shutdown.clone()).expect("metrics");
        let registries = Registries::any(Credentials::of_docker(|_| None));
        let folder = Digest::of(b"no folder");
        // Nothing is signed: the log is what is looked at.
        let audit = keys.audit().expect("keys");
        let nowhere = crate::config::Audit::default();
        let audit = Keeper::open(Arc::clone(gateway.store()), audit, 0, &nowhere, metrics.registry());
        let app = Arc::new(App {
            exporter: Default::default(),
            audit: audit.expect("no file is read"),
            retention: None,
            policy_sets: PolicySets::new(Arc::clone(&gateway), "unused".into(), registries, folder),
            gateway,
            admin_token: None,
            metrics,
            slack_verifier: None,
            outgoing: Some(outgoing),
            dispatching,
            gates: Arc::default(),
            spool: None,
            sent_ephemerals: SentEphemerals::default(),
            permalinks: Permalinks::default(),
            slack_team_ids: BTreeSet::new(),
            rate_limiter: RateLimiter::new(&RateLimit { capacity: 1_000_000, refill_per_sec: 1_000.0 }),
            access: None,
            insecure_anonymous: true,
            fingerprints: Fingerprints::new(keys),
            caller_quotas: CallerQuotas::default(),
            rejections: Rejections::default(),
            scrapes: Scrapes::regular(),
            scrapes_of_all: Scrapes::by_hand(),
            shows_stored: ShowsStored::default(),
            readiness: Readiness::new(),
            proxies: Proxies::default(),
            max_open_requests: 1_000,
            body_limit: 1 << 20,
            streams: Arc::new(streams),
            background: TaskTracker::new(),
            supervisor,
            hangups: Hangups::none(),
            shutdown: shutdown.clone(),
        });
        let gateway = Arc::clone(&app.gateway);
        let scheduler = tokio::spawn(Scheduler::new(Arc::clone(&gateway), INTERVAL_MS).run());
        let outgoing = app.outgoing.as_ref().expect("it was just made");
        let (store, directory) = (gateway.store(), gateway.directory());
        let worker = outgoing.worker(store, gateway.clock(), directory, gateway.outbox_bell());
        let delivery = tokio::spawn(worker.run(shutdown));
        tokio::spawn(identify(Arc::clone(&outgoing.client), clock));
        let router = router(Arc::clone(&app), Surface { callers: true, operations: false, slack: false });
        (Process { app, router }, [scheduler, delivery])
    }
}
