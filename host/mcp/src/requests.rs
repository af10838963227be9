//! The requests that an agent has made: their wait tokens stay here, and it gets handles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_client::commands::{Connection, Ended, Exit, decision};
use countersign_client::{
    Approval, Ask, Asked, CallError, Client, Created, Meta, News, Waited, Waiting, random_key,
};
use countersign_console::note;
use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::json;
use countersign_core::lifecycle::{Origin, Party, RunResult, Status, Timestamp, Usage, canonical};
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

/// After what time it is known what has come of a call that makes a request, or it never is.
const ASKING: Duration = Duration::from_secs(300);

/// How long a wait that has heard nothing may ask once more: with the longest wait, less than clients' 60 s.
const LAST_LOOK: Duration = Duration::from_secs(8);

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
    kept: Mutex<Kept>,
}

/// What was asked for, by handles.
#[derive(Default)]
struct Kept {
    entries: BTreeMap<String, Entry>,
    /// Whether the server ends, and nothing more is asked.
    is_closed: bool,
}

enum Entry {
    /// It is being made under this idempotency key, or whether it was made is not known.
    Asking {
        ask: Box<Ask>,
        key: String,
        until: Instant,
    },
    Made(Arc<Request>),
}

/// Whether one more can be kept.
enum Room {
    There,
    /// Perhaps if nothing can come any more of this one, which could be decided until now.
    Past(String, Arc<Request>),
    Full,
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
    stage: Mutex<Stage>,
    /// The idempotency key of its consumption: an answer that was lost is given again under it.
    consume_key: String,
    /// Whether its approval was consumed here; held while that is tried.
    consumed: tokio::sync::Mutex<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is open, or its approval can be used.
    Live,
    /// Its approval was used here, and what came of that was not reported.
    Used,
    /// Nothing more comes of it.
    Over,
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
        let (keys, kept) = (OnceCell::new(), Mutex::default());
        Asker { client, connection, keys, actions, requester, repo, kept }
    }

    /// The actions that the agent may ask for; if there are none, any.
    pub(crate) fn actions(&self) -> &[String] {
        &self.actions
    }

    /// Makes a request; returns its handle.
    pub(crate) async fn ask(
        self: Arc<Self>,
        action: String,
        params: Map<String, Value>,
        why: &str,
    ) -> Result<(String, Arc<Request>), Ended> {
        if !self.actions.is_empty() && !self.actions.contains(&action) {
            return Err(Ended::new(Exit::Refused, "this server is not set up to ask for this action"));
        }
        let params = strict(params)?;
        // Before anybody is asked: what would fail after they have agreed.
        self.keys().await?;
        self.make_room().await?;
        let origin = Origin { repo: self.repo.clone(), branch: None, pr: None, run_id: None };
        let justification = format!("An agent says: {why}");
        let meta = Meta { origin, requester: self.requester.clone(), justification, links: Vec::new() };
        let ask = Ask { action, params, meta };
        let key = random_key().map_err(Ended::doubt)?;
        let handle = random_key().map_err(Ended::doubt)?;
        let until = Instant::now() + ASKING;
        // Before it is made, so that it is taken back if the server ends meanwhile.
        let entry = Entry::Asking { ask: Box::new(ask.clone()), key: key.clone(), until };
        self.keep(&handle, entry)?;
        // In a task of its own: a client that gives the call up must not leave it half done.
        tokio::spawn(async move { self.make(handle, ask, &key).await }).await.map_err(Ended::doubt)?
    }

    async fn make(&self, handle: String, ask: Ask, key: &str) -> Result<(String, Arc<Request>), Ended> {
        let since = SystemClock.now();
        let created = match self.client.create(&ask, key).await {
            Ok(created) => created,
            Err(error) => {
                // What is not known may be open, and is taken back when the server ends.
                if matches!(error, CallError::Refused(_)) {
                    self.lock().entries.remove(&handle);
                }
                return Err(decision::not_asked(error));
            }
        };
        note!("asked for `{}`: {}", ask.action.escape_debug(), created.request_id);
        let expires = Instant::now() + Duration::from_millis(created.time_left_ms(SystemClock.now()));
        let request = Arc::new(Request {
            asked: Asked::new(&ask.action, ask.params, &created, Some(since)).map_err(Ended::doubt)?,
            created,
            expires,
            since,
            is_waited_for: AtomicBool::new(false),
            stage: Mutex::new(Stage::Live),
            consume_key: random_key().map_err(Ended::doubt)?,
            consumed: tokio::sync::Mutex::new(false),
        });
        self.keep(&handle, Entry::Made(Arc::clone(&request)))?;
        Ok((handle, request))
    }

    fn keep(&self, handle: &str, entry: Entry) -> Result<(), Ended> {
        let mut kept = self.lock();
        if kept.is_closed {
            return Err(Ended::new(Exit::Cancelled, "this server ends"));
        }
        kept.entries.insert(handle.to_owned(), entry);
        Ok(())
    }

    /// The request with this handle.
    pub(crate) fn find(&self, handle: &str) -> Result<Arc<Request>, Ended> {
        let request = match self.lock().entries.get(handle) {
            Some(Entry::Made(request)) => Some(Arc::clone(request)),
            Some(Entry::Asking { .. }) | None => None,
        };
        request.ok_or_else(|| {
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
        let (mut last, mut lost) = (None, false);
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
                Some(News::Lost(_)) => lost = true,
                Some(News::Back) => lost = false,
                Some(News::Refused(error)) => return Err(Ended::doubt(error)),
                None => break,
            }
        }
        match last {
            Some(waited) if !lost || waited.status.is_terminal() => Ok(waited),
            // A proxy may hold a stream back, and a long-poll may outlast this time.
            _ => match tokio::time::timeout_at(until + LAST_LOOK, self.look(request)).await {
                Ok(looked) => looked,
                Err(_) => Err(Ended::doubt("the gateway is not heard of")),
            },
        }
    }

    /// The approval, if this is one that counts.
    pub(crate) async fn check(&self, request: &Request, waited: Waited) -> Result<Decided, Ended> {
        if is_over(&waited) {
            request.enter(Stage::Over);
        }
        decision::approved(&waited)?;
        if waited.usage == Some(Usage::Lapsed) {
            decision::unused(&waited)?;
        }
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
            if *consumed {
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
            let (created, key) = (&request.created, &request.consume_key);
            decision::consume_under(&self.client, created, &decided.approval, key).await?;
            *consumed = true;
            request.enter(Stage::Used);
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
        if !*request.consumed.lock().await {
            return Err(Ended::new(Exit::Unusable, "this approval was not used: there is nothing to report"));
        }
        self.client.report(&request.created.token, result, detail).await.map_err(said)?;
        request.enter(Stage::Over);
        Ok(())
    }

    /// Takes a request back.
    pub(crate) async fn cancel(&self, request: &Request, why: &str) -> Result<(), Ended> {
        let why = format!("the agent took it back: {why}");
        self.client.cancel(&request.created.token, &why).await.map_err(said)?;
        request.enter(Stage::Over);
        Ok(())
    }

    /// Takes back what is open: its handles end with this process, so nobody could use what people still decide.
    pub(crate) async fn cancel_open(&self) {
        let kept = std::mem::replace(&mut *self.lock(), Kept { is_closed: true, ..Kept::default() });
        let mut cancelling = JoinSet::new();
        for entry in kept.entries.into_values() {
            let client = self.client.clone();
            cancelling.spawn(async move {
                let token = match entry {
                    Entry::Made(request) if request.stage() != Stage::Live => return,
                    Entry::Made(request) => request.created.token.clone(),
                    // Under the same key it is not made twice.
                    Entry::Asking { ask, key, .. } => match client.create(&ask, &key).await {
                        Ok(created) => created.token,
                        Err(_) => return,
                    },
                };
                // It fails if the request has ended, or nobody answers: then it expires.
                let _ = client.cancel(&token, "the agent's session has ended").await;
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

    /// Sees to it that one more can be kept.
    async fn make_room(&self) -> Result<(), Ended> {
        let mut looked_at = BTreeSet::new();
        loop {
            let room = self.lock().room(MOST, Instant::now(), &looked_at);
            let (handle, request) = match room {
                Room::There => return Ok(()),
                Room::Past(handle, request) => (handle, request),
                Room::Full => {
                    let why = format!("{MOST} requests are open; decide, use or cancel some first");
                    return Err(Ended::new(Exit::Refused, why));
                }
            };
            match self.client.look(&request.created.token).await {
                Ok(waited) if is_over(&waited) => request.enter(Stage::Over),
                Ok(_) => {}
                // The gateway knows it no longer.
                Err(CallError::Refused(_)) => request.enter(Stage::Over),
                Err(error) => return Err(Ended::doubt(error)),
            }
            looked_at.insert(handle);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Whether there is room for one more than these, without those that were looked at; makes some of what is of no use.
    /// What is open stays, and longest of the others what was used and not reported.
    fn room(&mut self, most: usize, now: Instant, looked_at: &BTreeSet<String>) -> Room {
        if self.entries.len() < most {
            return Room::There;
        }
        self.entries.retain(|_, entry| match entry {
            Entry::Made(request) => match request.stage() {
                Stage::Live => now < request.expires + KEPT,
                Stage::Used => true,
                Stage::Over => false,
            },
            Entry::Asking { .. } => true,
        });
        if self.entries.len() < most {
            return Room::There;
        }
        let past = self.entries.iter().filter_map(|(handle, entry)| match entry {
            Entry::Made(request) if request.stage() == Stage::Live && request.expires <= now => {
                (!looked_at.contains(handle)).then_some((request.expires, handle, request))
            }
            _ => None,
        });
        if let Some((_, handle, request)) = past.min_by_key(|(expires, ..)| *expires) {
            return Room::Past(handle.clone(), Arc::clone(request));
        }
        let least = self.entries.iter().filter_map(|(handle, entry)| match entry {
            Entry::Asking { until, .. } if *until <= now => Some((*until, handle)),
            Entry::Made(request) if request.stage() == Stage::Used => Some((request.expires, handle)),
            _ => None,
        });
        let Some((_, handle)) = least.min() else { return Room::Full };
        let handle = handle.clone();
        self.entries.remove(&handle);
        Room::There
    }
}

/// Whether nothing can come any more of a request that stands so, here or elsewhere.
fn is_over(waited: &Waited) -> bool {
    match waited.status {
        Status::Approved => !matches!(waited.usage, None | Some(Usage::Unused | Usage::Consumed)),
        status => status.is_terminal(),
    }
}

impl Request {
    fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// For how long it can still be decided.
    pub(crate) fn left(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }
}

impl Decided {
    /// Whether the gateway says that it was used, whatever has come of it.
    pub(crate) fn is_used(&self) -> bool {
        matches!(self.waited.usage, Some(Usage::Consumed | Usage::Succeeded | Usage::Failed))
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

    fn request(expires: Instant, stage: Stage) -> Arc<Request> {
        let created: Created = serde_json::from_value(json!({
            "token": "t", "requestId": "req_01ksr49200r08ry5v9acnt0bgb", "status": "pending",
            "expiresAt": "2026-05-28T20:26:40.000Z", "policy": {"minApprovals": 1, "timeoutSec": 60},
            "payloadHashVersion": 1,
        }))
        .unwrap();
        Arc::new(Request {
            asked: Asked::new("a", Map::new(), &created, None).unwrap(),
            created,
            expires,
            since: Timestamp::EPOCH,
            is_waited_for: AtomicBool::new(false),
            stage: Mutex::new(stage),
            consume_key: "k".to_owned(),
            consumed: tokio::sync::Mutex::new(stage == Stage::Used),
        })
    }

    /// What is open is kept, and what was used until it was reported, if there is anything else to give up.
    #[test]
    fn room_is_made_of_what_is_of_no_use() {
        let now = Instant::now() + 2 * KEPT;
        let made = |ago: u64, stage| Entry::Made(request(now - Duration::from_secs(ago), stage));
        let open = || Entry::Made(request(now + Duration::from_secs(60), Stage::Live));
        let asking = |until| {
            let origin = Origin { repo: "r".to_owned(), branch: None, pr: None, run_id: None };
            let meta = Meta { origin, requester: None, justification: "why".to_owned(), links: Vec::new() };
            let ask = Box::new(Ask { action: "a".to_owned(), params: Map::new(), meta });
            Entry::Asking { ask, key: "k".to_owned(), until }
        };
        let check = |entries: Vec<Entry>, expected: &str, left: &str| {
            let entries = entries.into_iter().zip('a'..).map(|(entry, handle)| (handle.to_string(), entry));
            let mut kept = Kept { entries: entries.collect(), is_closed: false };
            let most = kept.entries.len();
            let room = kept.room(most, now, &BTreeSet::from(["a".to_owned()]));
            let said = match room {
                Room::There => "there".to_owned(),
                Room::Past(handle, _) => format!("past {handle}"),
                Room::Full => "full".to_owned(),
            };
            let handles: String = kept.entries.into_keys().collect();
            assert_eq!((said.as_str(), handles.as_str()), (expected, left));
        };
        check(vec![open(), open()], "full", "ab");
        check(vec![made(1, Stage::Over), made(1, Stage::Used), open()], "there", "bc");
        // Nobody has looked whether they were decided; the first one was looked at.
        check(vec![made(9, Stage::Live), made(1, Stage::Live), made(2, Stage::Live)], "past c", "abc");
        check(vec![made(9, Stage::Live), open()], "full", "ab");
        check(vec![made(KEPT.as_secs(), Stage::Live), open()], "there", "b");
        check(vec![open(), made(1, Stage::Used), made(KEPT.as_secs(), Stage::Used)], "there", "ab");
        check(vec![made(9, Stage::Used), made(1, Stage::Live)], "past b", "ab");
        check(vec![open(), asking(now + ASKING)], "full", "ab");
        check(vec![open(), asking(now)], "there", "a");
    }

    #[test]
    fn numbers_that_lose_digits_are_refused() {
        assert!(strict(object(&json!({"n": 9_007_199_254_740_993_u64}))).is_err());
        assert!(strict(object(&json!({"n": 2}))).is_ok());
    }
}
