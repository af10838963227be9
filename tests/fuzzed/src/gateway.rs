//! A gateway that is called without a listener.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use countersign::build::build;
use countersign::cli::{Cli, Command};
use countersign::config::Environment;
use countersign::http::{Surface, router};
use countersign_core::clock::ManualClock;
use countersign_store::fixtures;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How many calls one gateway gets: it keeps each denial in its audit log, which is in memory.
const CALLS: u32 = 10_000;

struct Gateway {
    runtime: Runtime,
    router: Router,
    calls: u32,
}

/// The folder of its policy set.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway")
}

/// Whether a body is that of a request that the policies may judge; they deny it.
///
/// # Panics
/// If the gateway answers anything but that, and that the body is wrong.
pub(crate) fn asks(body: &[u8]) -> bool {
    static GATEWAY: Mutex<Option<Gateway>> = Mutex::new(None);
    let mut found = GATEWAY.lock().unwrap_or_else(PoisonError::into_inner);
    let gateway = match found.take().filter(|gateway| gateway.calls < CALLS) {
        Some(gateway) => found.insert(gateway),
        None => found.insert(Gateway::new()),
    };
    gateway.calls += 1;
    let call = Request::post("/api/guard/request").header("content-type", "application/json");
    let call = call.body(Body::from(body.to_owned())).expect("a call");
    let answer = gateway.runtime.block_on(gateway.router.clone().oneshot(call)).expect("an answer");
    match answer.status() {
        StatusCode::FORBIDDEN => true,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => false,
        other => panic!("the gateway answers {other}"),
    }
}

impl Gateway {
    fn new() -> Gateway {
        let folder = folder().display().to_string();
        let variables = [
            ("COUNTERSIGN_POLICIES", folder.as_str()),
            ("COUNTERSIGN_STORE", "memory"),
            ("RATE_LIMIT_CAPACITY", "1000000"),
            ("RATE_LIMIT_REFILL_PER_SEC", "100000"),
        ];
        let variables: Environment =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let Ok(Cli { command: Command::Serve(config) }) = Cli::read(["countersign", "serve"], &variables)
        else {
            panic!("the settings are sound");
        };
        let runtime = super::runtime();
        let clock = Arc::new(ManualClock::at(fixtures::at(0)));
        let app = runtime.block_on(build(&config, clock, CancellationToken::new())).expect("it starts");
        Gateway { router: router(Arc::new(app), Surface::ALL), runtime, calls: 0 }
    }
}
