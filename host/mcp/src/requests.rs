//! The requests that an agent has made: their wait tokens stay here, and it gets handles.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_client::commands::{Connection, Ended, Exit, decision};
use countersign_client::{
    Approval, Ask, Asked, CallError, Client, Created, Meta, News, Waited, Waiting, random_key,
};
use countersign_console::note;
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::json;
use countersign_core::lifecycle::{Origin, Party, RunResult, Timestamp, Usage, canonical};
use countersign_core::receipt::signed::KeySet;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::progress::Progress;

/// The most requests that are kept.
const MOST: usize = 256;

/// For how long a request is kept after it would have expired: an approval can be used for a while.
const KEPT: Duration = Duration::from_secs(86_400);

/// How long cancelling what is open may take when the server ends.
const CANCEL: Duration = Duration::from_secs(3);

/// Asks in the name of an agent.
pub(crate) struct Asker {
    client: Client,
    connection: Connection,
    keys: OnceCell<Option<KeySet>>,
    actions: Vec<String>,
    requester: Option<Party>,
    repo: String,
    open: Mutex<BTreeMap<String, Arc<Request>>>,
}

/// A request that the agent has made.
pub(crate) struct Request {
    pub(crate) created: Created,
    pub(crate) expires: Instant,
    /// When it was made.
    pub(crate) since: Timestamp,
    /// Whether a task waits for it.
    pub(crate) is_waited_for: AtomicBool,
    asked: Asked,
    /// Whether nothing more can come of it but a report.
    has_ended: AtomicBool,
    /// Whether its approval was consumed here; held while that is tried.
    consumed: tokio::sync::Mutex<Consumption>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Consumption {
    NotYet,
    /// It was tried, and what came of it is not known.
    Tried,
    Done,
}

/// An approval, and whether people have changed what was asked for.
pub(crate) struct Decided {
    pub(crate) waited: Waited,
    pub(crate) approval: Approval,
    pub(crate) edited: bool,
}

impl Asker {
    pub(crate) fn new(
        client: Client,
        connection: Connection,
        actions: Vec<String>,
        requester: Option<Party>,
        repo: String,
    ) -> Asker {
        let (keys, open) = (OnceCell::new(), Mutex::default());
        Asker { client, connection, keys, actions, requester, repo, open }
    }

    /// The actions that the agent may ask for; if there are none, any.
    pub(crate) fn actions(&self) -> &[String] {
        &self.actions
    }

    /// Makes a request; returns its handle.
    pub(crate) async fn ask(
        &self,
        action: &str,
        params: Map<String, Value>,
        why: &str,
    ) -> Result<(String, Arc<Request>), Ended> {
        if !self.actions.is_empty() && !self.actions.iter().any(|allowed| allowed == action) {
            return Err(Ended::new(Exit::Refused, "this server is not set up to ask for this action"));
        }
        let params = strict(params)?;
        // Before anybody is asked: what would fail after they have agreed.
        self.keys().await?;
        self.make_room()?;
        let origin = Origin { repo: self.repo.clone(), branch: None, pr: None, run_id: None };
        let justification = format!("An agent says: {why}");
        let meta = Meta { origin, requester: self.requester.clone(), justification, links: Vec::new() };
        let ask = Ask { action: action.to_owned(), params: params.clone(), meta };
        let since = SystemClock.now();
        let key = random_key().map_err(Ended::doubt)?;
        let handle = random_key().map_err(Ended::doubt)?;
        let created = self.client.create(&ask, &key).await.map_err(decision::not_asked)?;
        note!("asked for `{}`: {}", action.escape_debug(), created.request_id);
        let expires = Instant::now() + Duration::from_millis(created.time_left_ms(SystemClock.now()));
        let request = Arc::new(Request {
            asked: Asked::new(action, params, &created, Some(since)).map_err(Ended::doubt)?,
            created,
            expires,
            since,
            is_waited_for: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            consumed: tokio::sync::Mutex::new(Consumption::NotYet),
        });
        self.lock().insert(handle.clone(), Arc::clone(&request));
        Ok((handle, request))
    }

    /// The request with this handle.
    pub(crate) fn find(&self, handle: &str) -> Result<Arc<Request>, Ended> {
        self.lock().get(handle).cloned().ok_or_else(|| {
            let why = "this handle is not known: it is none of this server's, or the server was restarted since; \
                       nothing is approved, ask anew";
            Ended::new(Exit::Unusable, why)
        })
    }

    /// How it stands now.
    pub(crate) async fn look(&self, request: &Request) -> Result<Waited, Ended> {
        self.client.look(&request.created.token).await.map_err(Ended::doubt)
    }

    /// How it stands now, or once it has ended or this time is over. `progress` tells each change.
    pub(crate) async fn wait(
        &self,
        request: &Request,
        within: Duration,
        progress: Option<&Progress>,
    ) -> Result<Waited, Ended> {
        if within.is_zero() {
            return self.look(request).await;
        }
        let waiting = Waiting::start(&self.client, &request.created.token);
        let (until, mut waiting) = (Instant::now() + within, waiting);
        let (mut last, mut lost) = (None, None);
        while let Ok(heard) = tokio::time::timeout_at(until, waiting.next()).await {
            match heard {
                Some(News::State(waited)) => {
                    if let Some(progress) = progress {
                        progress.tell(request, &waited).await;
                    }
                    let is_terminal = waited.status.is_terminal();
                    last = Some(*waited);
                    if is_terminal {
                        break;
                    }
                }
                Some(News::Lost(error)) => lost = Some(error),
                Some(News::Back) => lost = None,
                Some(News::Refused(error)) => return Err(Ended::doubt(error)),
                None => break,
            }
        }
        match (last, lost) {
            (Some(waited), None) => Ok(waited),
            (Some(waited), Some(_)) if waited.status.is_terminal() => Ok(waited),
            (_, Some(error)) => Err(Ended::doubt(format!("the gateway is not heard of: {error}"))),
            (None, None) => Err(Ended::doubt("the gateway says nothing of this request")),
        }
    }

    /// The approval, if this is one that counts.
    pub(crate) async fn check(&self, request: &Request, waited: Waited) -> Result<Decided, Ended> {
        let approved = decision::approved(&waited);
        if approved.is_err() {
            request.has_ended.store(waited.status.is_terminal(), Ordering::Relaxed);
        }
        approved?;
        let keys = self.keys().await?;
        let approval = decision::check(&self.client, &request.asked, &waited, keys).await?;
        let edited = approval.params != request.asked.params;
        Ok(Decided { waited, approval, edited })
    }

    /// Uses the approval, for these parameters and once.
    pub(crate) async fn consume(
        self: Arc<Self>,
        request: Arc<Request>,
        params: Map<String, Value>,
    ) -> Result<Decided, Ended> {
        let params = strict(params)?;
        let consuming = async move {
            let mut consumed = request.consumed.lock().await;
            if *consumed != Consumption::NotYet {
                return Err(Ended::new(Exit::Unusable, "this approval was used before: it can be used once"));
            }
            let waited = self.look(&request).await?;
            if !waited.status.is_terminal() {
                return Err(Ended::new(Exit::Unusable, "nobody has decided yet"));
            }
            let decided = self.check(&request, waited).await?;
            let differing = differing(&params, &decided.approval.params);
            if !differing.is_empty() {
                let why =
                    format!("these parameters are not those that were approved: {}", differing.join(", "));
                return Err(Ended::new(Exit::Unusable, why));
            }
            *consumed = Consumption::Tried;
            decision::consume(&self.client, &request.created, &decided.approval).await?;
            *consumed = Consumption::Done;
            request.has_ended.store(true, Ordering::Relaxed);
            Ok(decided)
        };
        // In a task of its own: a client that gives the call up must not leave it half done.
        tokio::spawn(consuming).await.map_err(Ended::doubt)?
    }

    /// Says what came of an approval that was used here.
    pub(crate) async fn report(
        &self,
        request: &Request,
        result: RunResult,
        detail: &str,
    ) -> Result<(), Ended> {
        if *request.consumed.lock().await != Consumption::Done {
            return Err(Ended::new(Exit::Unusable, "this approval was not used: there is nothing to report"));
        }
        self.client.report(&request.created.token, result, detail).await.map_err(said)
    }

    /// Takes a request back.
    pub(crate) async fn cancel(&self, request: &Request, why: &str) -> Result<(), Ended> {
        let why = format!("the agent took it back: {why}");
        self.client.cancel(&request.created.token, &why).await.map_err(said)?;
        request.has_ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Takes back what is open: its handles end with this process, so nobody could use what people still decide.
    pub(crate) async fn cancel_open(&self) {
        let open: Vec<_> = std::mem::take(&mut *self.lock()).into_values().collect();
        let mut cancelling = JoinSet::new();
        for request in open {
            if request.has_ended.load(Ordering::Relaxed) {
                continue;
            }
            let client = self.client.clone();
            cancelling.spawn(async move {
                // It fails if the request has ended, or nobody answers: then it expires.
                let _ = client.cancel(&request.created.token, "the agent's session has ended").await;
            });
        }
        // What is not done by then expires.
        let _ = tokio::time::timeout(CANCEL, cancelling.join_all()).await;
    }

    async fn keys(&self) -> Result<Option<KeySet>, Ended> {
        let keys = self.keys.get_or_try_init(async || {
            let keys = self.connection.keys(&self.client).await?;
            if keys.as_ref().is_some_and(|keys| keys.keys.is_empty()) {
                return Err(Ended::usage("this gateway signs no receipts; `--no-receipt` does without"));
            }
            Ok(keys)
        });
        keys.await.cloned()
    }

    fn make_room(&self) -> Result<(), Ended> {
        let mut open = self.lock();
        if open.len() >= MOST {
            let now = Instant::now();
            open.retain(|_, request| {
                !request.has_ended.load(Ordering::Relaxed) && now < request.expires + KEPT
            });
        }
        if open.len() < MOST {
            return Ok(());
        }
        let why = format!("{MOST} requests are open; decide, use or cancel some first");
        Err(Ended::new(Exit::Refused, why))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Request>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    /// For how long it can still be decided.
    pub(crate) fn left(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }
}

impl Decided {
    /// Whether the gateway says that it was used.
    pub(crate) fn is_used(&self) -> bool {
        self.waited.usage == Some(Usage::Consumed)
    }
}

/// The same parameters, if a gateway can take them.
fn strict(params: Map<String, Value>) -> Result<Map<String, Value>, Ended> {
    match json::parse(Value::Object(params).to_string().as_bytes()) {
        Ok(Value::Object(params)) => Ok(params),
        Ok(_) => Err(Ended::usage("`params` is no object")),
        Err(refused) => Err(Ended::usage(format!("`params`: {refused}"))),
    }
}

/// The keys under which two sets of parameters differ, as payload hashes see it.
fn differing(ours: &Map<String, Value>, approved: &Map<String, Value>) -> Vec<String> {
    let shown = |params: &Map<String, Value>, key: &str| params.get(key).map(canonical);
    let keys: std::collections::BTreeSet<_> = ours.keys().chain(approved.keys()).collect();
    keys.into_iter().filter(|key| shown(ours, key) != shown(approved, key)).cloned().collect()
}

fn said(error: CallError) -> Ended {
    match error {
        CallError::Refused(problem) => Ended::new(Exit::Refused, problem),
        error => Ended::doubt(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn parameters_differ_as_their_hashes_do() {
        let approved = object(&json!({"ref": "v1", "replicas": 2, "note": null}));
        for (ours, expected) in [
            (json!({"ref": "v1", "replicas": 2, "note": null}), &[][..]),
            (json!({"ref": "v1", "replicas": 2.0, "note": null}), &[]),
            (json!({"ref": "v2", "replicas": 2, "note": null}), &["ref"]),
            (json!({"ref": "v1", "replicas": "2"}), &["note", "replicas"]),
            (json!({"ref": "v1", "replicas": 2, "note": null, "more": 1}), &["more"]),
        ] {
            assert_eq!(differing(&object(&ours), &approved), expected, "{ours}");
        }
    }

    #[test]
    fn numbers_that_lose_digits_are_refused() {
        assert!(strict(object(&json!({"n": 9_007_199_254_740_993_u64}))).is_err());
        assert!(strict(object(&json!({"n": 2}))).is_ok());
    }
}
