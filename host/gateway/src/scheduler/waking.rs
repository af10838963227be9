//! One due request, done on a task of its own.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::clock::Clock;
use countersign_core::lifecycle::{AuditEntry, AuditEvent, Request, RequestId, Timestamp};
use countersign_store::StoreError;
use futures_util::FutureExt as _;
use serde_json::{Map, json};

use super::Wake;
use crate::{Gateway, GatewayError};

/// What a task needs.
pub(super) struct Waking {
    pub(super) gateway: Arc<Gateway>,
    pub(super) wake: Wake,
    /// Whether the audit log says already that the request is in quarantine.
    pub(super) is_audited: bool,
}

/// What came of a due request.
pub(super) struct Woken {
    pub(super) id: RequestId,
    /// The due time that it was listed with.
    pub(super) due_at: Timestamp,
    /// When it expires; `None` if it could not be loaded.
    pub(super) expires_at: Option<Timestamp>,
    pub(super) outcome: Outcome,
}

/// How it went.
pub(super) enum Outcome {
    /// What was due has happened.
    Done,
    /// It has not.
    Failed(GatewayError),
    /// Something in the gateway broke, and may break again.
    Broken(&'static str),
}

impl Waking {
    pub(super) async fn run(self, id: RequestId, due_at: Timestamp) -> Woken {
        let mut loaded = None;
        let work = AssertUnwindSafe(async {
            let request = self.gateway.request(id).await?;
            loaded = Some(Arc::clone(&request));
            self.wake(request).await
        });
        let outcome = match work.catch_unwind().await {
            Ok(Ok(_)) => Outcome::Done,
            // No later try finds anything else in the row.
            Ok(Err(GatewayError::Store(StoreError::Corrupt { .. }))) if loaded.is_none() => {
                Outcome::Broken("what is stored of it cannot be read")
            }
            Ok(Err(error)) => Outcome::Failed(error),
            Err(panic) => Outcome::Broken(message(&*panic)),
        };
        if let (Outcome::Broken(why), false) = (&outcome, self.is_audited) {
            self.audit(id, loaded.as_deref(), why).await;
        }
        Woken { id, due_at, expires_at: loaded.map(|request| request.submission.expires_at), outcome }
    }

    /// Does what is due. Policies that take until the expiry are not waited for any longer: it needs none.
    async fn wake(&self, request: Arc<Request>) -> Result<Arc<Request>, GatewayError> {
        let (id, expires_at) = (request.id, request.submission.expires_at);
        let clock = self.gateway.clock();
        if clock.now() >= expires_at {
            return (self.wake)(request).await;
        }
        tokio::select! {
            woken = (self.wake)(request) => woken,
            () = until(clock.as_ref(), expires_at) => (self.wake)(self.gateway.request(id).await?).await,
        }
    }

    async fn audit(&self, id: RequestId, request: Option<&Request>, why: &str) {
        let entry = AuditEntry {
            at: self.gateway.clock().now(),
            event: AuditEvent::RequestQuarantined.as_str().to_owned(),
            action: request.map(|request| request.submission.action.clone()).unwrap_or_default(),
            request: Some(id),
            status: request.map(Request::status),
            actor: None,
            policy_hash: request.map(|request| request.submission.policy_hash),
            payload_hash: None,
            detail: Map::from_iter([("why".to_owned(), json!(why))]),
        };
        if let Err(error) = self.gateway.store().append(vec![entry], Vec::new()).await {
            tracing::error!(request = %id, %error, "cannot audit that a request is in quarantine");
        }
    }
}

/// Returns once the wall clock shows `at`; it may be set meanwhile, so it is looked at again and again.
async fn until(clock: &dyn Clock, at: Timestamp) {
    loop {
        let left_ms = at.since(clock.now());
        if left_ms == 0 {
            return;
        }
        clock.sleep(Duration::from_millis(left_ms.min(super::PAUSE_MS))).await;
    }
}

/// What a panic says, if that was written in the source. A text that was made as it ran may hold parameters; the panic
/// hook prints where it was, and leaves it out, too.
fn message(panic: &(dyn Any + Send)) -> &'static str {
    panic.downcast_ref::<&'static str>().copied().unwrap_or("a panic; the standard error says where")
}
