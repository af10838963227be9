//! Copies of stores: what is in one is in the other, and a gateway goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use countersign_core::lifecycle::{Digest, Effect, RequestId, SupersedeKey, Timestamp};
use countersign_core::record::{PostState, Signature, SlackPost, Slot};
use countersign_core::secret::Secret;
use tokio::sync::Notify;

use super::{cluster, options, raw, replicas, server};
use crate::copy::{CopyEnd, CopyError, CopyOptions, CopyProgress, copy};
use crate::fixtures::*;
use crate::redis::{Durability, RedisOpenError, RedisOptions, RedisStore};
use crate::{
    AuditCursor, AuditRange, Committed, Create, Created, Idempotency, KeepPost, KeptCheckpoint, LogEntry,
    MostOpen, NewDispatch, OpenError, OpenRequests, OutboxDepth, Settled, SqliteStore, Store, StoreUrl,
};

/// A store that can be copied, in a namespace or a file of its own.
#[derive(Clone)]
enum Place {
    Redis(Box<RedisOptions>),
    Sqlite(std::path::PathBuf),
}

impl Place {
    /// For somebody who may do what the documentation says that a copy needs.
    fn redis(partitions: u16) -> Place {
        let options = options(&server::SHARED.url());
        let url = options.url.with_login(Some("copier".into()), Some(Secret::new("secret")));
        Place::Redis(Box::new(RedisOptions { url, partitions, ..options }))
    }

    fn cluster(durability: Durability) -> Place {
        Place::Redis(Box::new(RedisOptions { durability, ..options(&cluster::SHARED.url()) }))
    }

    fn sqlite(folder: &Path, name: &str) -> Place {
        Place::Sqlite(folder.join(name))
    }

    fn url(&self) -> StoreUrl {
        match self {
            Place::Redis(options) => StoreUrl::Redis(Box::new(options.url.clone())),
            Place::Sqlite(path) => StoreUrl::Sqlite(path.clone()),
        }
    }

    async fn open(&self) -> Arc<dyn Store> {
        match self {
            Place::Redis(options) => Arc::new(RedisStore::open(options.as_ref().clone()).await.unwrap()),
            Place::Sqlite(path) => Arc::new(SqliteStore::open(path).unwrap()),
        }
    }

    fn end<'a>(&'a self, url: &'a StoreUrl) -> CopyEnd<'a> {
        let changed = move |options: RedisOptions| match self {
            Place::Redis(ours) => ours.as_ref().clone(),
            Place::Sqlite(_) => options,
        };
        CopyEnd { url, redis: Box::new(changed) }
    }

    async fn copy_to(&self, to: &Place) -> Result<BTreeMap<&'static str, u64>, CopyError> {
        self.copy_with(to, CopyOptions::default()).await
    }

    async fn copy_with(
        &self,
        to: &Place,
        options: CopyOptions,
    ) -> Result<BTreeMap<&'static str, u64>, CopyError> {
        self.copy_while(to, options, &mut |_| {}).await
    }

    async fn copy_while(
        &self,
        to: &Place,
        options: CopyOptions,
        progress: &mut (dyn FnMut(CopyProgress) + Send),
    ) -> Result<BTreeMap<&'static str, u64>, CopyError> {
        let (from_url, to_url) = (self.url(), to.url());
        let copied = copy(self.end(&from_url), to.end(&to_url), options, progress).await?;
        Ok(copied.into_iter().collect())
    }

    /// A command about a key of what concerns no request, of a Redis that tests share.
    async fn raw(&self, command: &str, key: &str, arguments: &[&str]) -> redis::Value {
        let Place::Redis(options) = self else { panic!("it is a Redis") };
        let mut sent = redis::cmd(command);
        sent.arg(format!("{{{}:{key}", options.namespace)).arg(arguments);
        raw(&server::SHARED, &sent).await
    }
}

/// What a copy waits for in the middle: what it calls cannot be awaited.
fn in_between<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

const RESTART: CopyOptions = CopyOptions { restart: true, expected: None };

const LEASE: &str = "meta}:lease:copy";

/// A request in this shard, of this caller.
fn asked(shard: u16, number: u64, caller: Option<&str>) -> countersign_core::lifecycle::Request {
    let mut request = request_in(shard, number);
    let submission = Arc::make_mut(&mut request.submission);
    submission.caller = caller.map(ToOwned::to_owned);
    submission.policy_hash = entry_with_channels().hash();
    request
}

const FAR: u64 = 1_000_000_000;

/// The number of the first supersede key.
const SUPERSEDE: u64 = 7000;

/// Stores something of everything that a store keeps.
async fn fill(store: &dyn Store) {
    let modules = [b"\0asm one".to_vec(), vec![0xff; 300_000]];
    store.pin(vec![entry_with_channels(), policy_entry("migrate")], modules.to_vec()).await.unwrap();
    let signatures = [1, 2].map(|byte| (Digest::of(&modules[0]), Signature::from_bytes([byte; 64])));
    store.keep_signatures(signatures.to_vec()).await.unwrap();
    // Two of one time, which come in the order in which they were stored.
    let sets = [(["b"], 5), (["a"], 5), (["c"], 4)].map(|(actions, time)| stored_set(&actions, at(time)));
    for set in &sets {
        store.keep_policy_set(set.clone(), format!("document of {}", set.hash)).await.unwrap();
    }
    for (number, from, to) in [(0, None, 0), (1, Some(0), 1)] {
        let change = change_of(number, from.map(|from: usize| sets[from].hash), sets[to].hash);
        assert_eq!(store.change_policy(changing(&change)).await.unwrap(), Committed::Done);
    }
    for (key, value) in [("usergroup:S1", "members"), ("access:1", "\0binary"), ("key:id", "0a1b2c3d")] {
        store.keep(key, value.as_bytes().to_vec()).await.unwrap();
    }
    // In an order that is not that of their ids.
    for number in (0..60_u16).map(|number| number * 37 % 60) {
        let caller = (number % 3 > 0).then(|| format!("caller-{}", number % 3));
        let mut request = asked(number, u64::from(number), caller.as_deref());
        if number % 2 == 0 {
            let key = key(SUPERSEDE + u64::from(number % 4));
            let supersede = SupersedeKey { by: vec!["ref".into()], key, earlier: Vec::new() };
            Arc::make_mut(&mut request.submission).supersede = Some(supersede);
        }
        let idempotency = Idempotency {
            key: key(u64::from(number)),
            fingerprint: fingerprint(&request),
            until: at(FAR + u64::from(number)),
        };
        let idempotency = (number % 2 == 0).then_some(idempotency);
        let targets = ["webhook:a", "webhook:b"].into_iter().filter(|_| number % 6 == 0);
        let dispatches = targets.map(|target| NewDispatch { target: target.into(), position: 0 }).collect();
        let made = store.create(Create { idempotency, dispatches, ..new(&request) }).await.unwrap();
        assert_eq!(made, Created::New);
        if number % 5 == 0 {
            let nonce = crate::Nonce { shard: number, ..nonce(u64::from(number), FAR) };
            let ended = next(&request, at(7), |request| request.state = approved(at(7)));
            let commit = crate::Commit { nonce: Some(nonce), ..change(&ended) };
            assert_eq!(store.commit(commit).await.unwrap(), Committed::Done);
            let used = consumed(&ended, at(8));
            assert_eq!(store.commit(change(&used)).await.unwrap(), Committed::Done);
        }
        if number % 7 == 0 {
            let again = again(&request, 1000 + u64::from(number), 1);
            assert_eq!(store.create(new(&again)).await.unwrap(), Created::New);
        }
        if number % 2 == 0 {
            for (slot, revisions) in [(Slot::Main, 2), (Slot::Replaced(1), 1)] {
                for revision in 1..=revisions {
                    let post = SlackPost {
                        revision,
                        state: PostState::Absent,
                        refresh_at: (number % 4 == 0).then(|| at(50 + u64::from(number))),
                        ..SlackPost::new(if number % 3 == 0 { "C1" } else { "C2" })
                    };
                    let keep = KeepPost { request: request.id, slot, post, audit: vec![], counts: vec![] };
                    assert_eq!(store.keep_slack_post(keep).await.unwrap(), Committed::Done);
                }
            }
        }
    }
    // A refresh that is claimed, an entry that is claimed, one that is put off after a failure, and one that is delivered.
    assert!(store.claim_refresh(id_in(0, 0), Slot::Main, at(60), at(90)).await.unwrap());
    for (number, given_back) in [(1, None), (2, Some(true)), (3, Some(false))] {
        let (id, claim) = (id_in(number, u64::from(number)), claim(at(10), at(40)));
        let entry = store.claim_outbox(id, Effect::ShowRequest, claim).await.unwrap().unwrap();
        match given_back {
            Some(true) => store.retry_outbox(&entry, at(10), at(70), true).await.unwrap(),
            Some(false) => store.finish_outbox(&entry, 1).await.unwrap(),
            None => {}
        }
    }
    // A dispatch that is tried again, one that is held, and a dead letter. A claim ends when an embedded store is opened.
    for (number, settled) in [
        (6, Settled::Retry { at: at(70) }),
        (12, Settled::Held { position: 1, version: 1, until: at(71) }),
        (18, Settled::Dead { failure: "gone".into() }),
    ] {
        let (id, claim) = (id_in(number, u64::from(number)), claim(at(10), at(40)));
        let dispatch = store.claim_dispatch(id, "webhook:a", claim).await.unwrap().unwrap();
        store.settle_dispatch(&dispatch, at(11), settled).await.unwrap();
    }
    assert!(store.claim_nonce(77, key(500), at(0), at(FAR)).await.unwrap());
    store.append(vec![change_of(9, None, sets[0].hash).audit()], vec![]).await.unwrap();
    for sequence in 1..=2 {
        let note = format!("the note {sequence}");
        let kept = KeptCheckpoint { sequence, note, state: "{}".to_owned() };
        assert_eq!(store.keep_audit_checkpoint(kept).await.unwrap(), Committed::Done);
    }
    // Retention has removed the oldest entries of two partitions.
    let last = u16::try_from(store.audit_sizes().await.unwrap().len() - 1).unwrap();
    for (partition, through) in [(2, 2), (last, 1)] {
        store.remove_audit(partition, through).await.unwrap();
    }
}

/// What a store answers to those who ask it.
#[derive(Debug, PartialEq)]
struct Answers {
    requests: Vec<Option<countersign_core::lifecycle::Request>>,
    keys: Vec<Option<(Digest, RequestId)>>,
    lineages: Vec<Vec<RequestId>>,
    due: Vec<(RequestId, Timestamp)>,
    next_due: Option<Timestamp>,
    open: BTreeMap<(String, &'static str), OpenRequests>,
    waiting: BTreeSet<(String, String, u64)>,
    depth: OutboxDepth,
    dispatches: Vec<BTreeSet<String>>,
    ready: Vec<BTreeSet<String>>,
    stale: BTreeSet<String>,
    posts: Vec<Option<SlackPost>>,
    salts: usize,
    counters: BTreeMap<countersign_core::lifecycle::Counter, u64>,
    nonces: Vec<bool>,
    sets: Vec<Digest>,
    documents: Vec<Option<String>>,
    kept: Vec<Option<Vec<u8>>>,
    in_force: Option<(u64, Option<Digest>)>,
    changes: usize,
    modules: Vec<(Digest, u64)>,
    signatures: usize,
    open_policies: usize,
    /// By their keys, in order.
    superseding: Vec<Vec<RequestId>>,
    /// By their partitions and numbers.
    audit: BTreeMap<(u16, u64), String>,
    audit_sizes: Vec<u64>,
    checkpoint: Option<KeptCheckpoint>,
}

async fn answers(store: &dyn Store) -> Answers {
    let ids: Vec<RequestId> = (0..60).map(|number| id_in(number, u64::from(number))).collect();
    let mut answers = Answers {
        requests: vec![],
        keys: vec![],
        lineages: vec![],
        due: store.due(Timestamp::from_millis(u64::MAX), None, 1000).await.unwrap().requests,
        next_due: store.next_due(at(0)).await.unwrap(),
        open: BTreeMap::new(),
        waiting: store.waiting_personas().await.unwrap().into_iter().collect(),
        depth: store.outbox_depth().await.unwrap(),
        dispatches: vec![],
        ready: vec![],
        stale: BTreeSet::new(),
        posts: vec![],
        salts: store.salts(None, 1000).await.unwrap().len(),
        counters: store.counters().await.unwrap(),
        nonces: vec![store.has_nonce(77, &key(500), at(1)).await.unwrap()],
        sets: store.policy_sets().await.unwrap().into_iter().map(|set| set.hash).collect(),
        documents: vec![],
        kept: vec![],
        in_force: None,
        changes: store.policy_changes(u64::MAX, 100).await.unwrap().len(),
        modules: store.modules().await.unwrap(),
        signatures: store.signatures(Digest::of(b"\0asm one")).await.unwrap().len(),
        open_policies: store.open_policies().await.unwrap().len(),
        superseding: vec![],
        audit: BTreeMap::new(),
        audit_sizes: Vec::new(),
        checkpoint: None,
    };
    for (number, id) in ids.iter().enumerate() {
        let shard = u16::try_from(number).unwrap();
        answers.requests.push(store.request(*id).await.unwrap());
        let known = store.idempotent(shard, &key(number as u64), at(5)).await.unwrap();
        answers.keys.push(known.map(|(fingerprint, request)| (fingerprint, request.id)));
        let lineage = store.lineage(*id, 0, 10).await.unwrap();
        answers.lineages.push(lineage.into_iter().map(|request| request.id).collect());
        for slot in [Slot::Main, Slot::Replaced(1)] {
            answers.posts.push(store.slack_post(*id, slot).await.unwrap());
        }
        answers.nonces.push(store.has_nonce(shard, &key(number as u64), at(1)).await.unwrap());
    }
    for group in store.open_requests().await.unwrap() {
        answers.open.insert((group.action.clone(), group.status.as_str()), group);
    }
    // What waits, before and after claims end and what was put off is ready.
    for now in [at(10), at(45), at(75)] {
        let ready = store.ready_outbox(now, 1000).await.unwrap();
        answers.ready.push(ready.into_iter().map(|entry| format!("{entry:?}")).collect());
        let ready = store.ready_dispatches(now, 1000).await.unwrap();
        answers.dispatches.push(ready.into_iter().map(|dispatch| format!("{dispatch:?}")).collect());
    }
    let dead = store.dead_letters("webhook:a", 1000).await.unwrap();
    let depth = store.dispatch_depth().await.unwrap();
    let told = dead.iter().map(|it| format!("{it:?}")).chain(depth.iter().map(|it| format!("{it:?}")));
    answers.dispatches.push(told.collect());
    for now in [at(60), at(95)] {
        let stale = store.stale_slack_posts(now, 1000).await.unwrap();
        answers.stale.extend(stale.into_iter().map(|post| format!("{now} {post:?}")));
    }
    for supersede in [SUPERSEDE, SUPERSEDE + 2] {
        answers.superseding.push(store.with_supersede_key(&key(supersede), None).await.unwrap());
    }
    for set in &answers.sets {
        answers.documents.push(store.policy_document(*set).await.unwrap());
    }
    for key in ["usergroup:S1", "access:1", "key:id", "key:other"] {
        answers.kept.push(store.recall(key).await.unwrap());
    }
    let in_force = store.policy_in_force().await.unwrap();
    answers.in_force = in_force.map(|(number, change)| (number, change.in_force()));
    let log = store.audit_log(AuditRange::default(), &AuditCursor::default(), 10_000).await.unwrap();
    for LogEntry { partition, number, digest, body, .. } in log.entries {
        answers.audit.insert((partition, number), format!("{digest} {body}"));
    }
    answers.audit_sizes = store.audit_sizes().await.unwrap();
    answers.checkpoint = store.audit_checkpoint().await.unwrap();
    answers
}

/// From each backend to each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_answers_as_the_original_does() {
    let folder = tempfile::tempdir().unwrap();
    for original in [Place::sqlite(folder.path(), "original"), Place::redis(16)] {
        let store = original.open().await;
        fill(&*store).await;
        let expected = answers(&*store).await;
        assert!(expected.superseding.iter().all(|ids| ids.len() > 5 && !ids.is_sorted()));
        store.close().await.unwrap();
        drop(store);
        let name = format!("{:016x}", fastrand::u64(..));
        let copies = [
            Place::redis(16),
            Place::sqlite(folder.path(), &format!("{name}-1")),
            Place::redis(16),
            Place::sqlite(folder.path(), &format!("{name}-2")),
            Place::sqlite(folder.path(), &format!("{name}-3")),
        ];
        let mut from = original;
        for to in copies {
            let counts = from.copy_to(&to).await.unwrap();
            assert_eq!(
                (counts["requests"], counts["policy sets"], counts["modules"]),
                (69, 3, 2),
                "{counts:?}"
            );
            assert_eq!((counts["idempotency keys"], counts["outbox entries"]), (30, 68), "{counts:?}");
            assert_eq!(counts["dispatches"], 20, "{counts:?}");
            let store = to.open().await;
            assert_eq!(answers(&*store).await, expected, "{} to {}", from.url(), to.url());
            store.close().await.unwrap();
            drop(store);
            from = to;
        }
        goes_on(&from).await;
        let last = Place::redis(16);
        from.copy_to(&last).await.unwrap();
        goes_on(&last).await;
    }
}

/// The audit log is signed by its partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_partitions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let original = Place::sqlite(folder.path(), "original");
    let store = original.open().await;
    fill(&*store).await;
    store.close().await.unwrap();
    drop(store);
    let other = Place::redis(5);
    let refused = original.copy_to(&other).await.unwrap_err();
    assert!(matches!(refused, CopyError::Partitions { here: 16, there: 5 }), "{refused}");
    other.open().await.close().await.unwrap();
    let refused = other.copy_to(&Place::sqlite(folder.path(), "copy")).await.unwrap_err();
    assert!(matches!(refused, CopyError::Partitions { here: 5, there: 16 }), "{refused}");
    assert!(!folder.path().join("copy").exists(), "nothing is done to the destination");
}

/// In a Cluster each partition is looked for where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts six servers"]
async fn a_cluster_is_copied_to_and_from() {
    let folder = tempfile::tempdir().unwrap();
    let original = Place::sqlite(folder.path(), "original");
    let store = original.open().await;
    fill(&*store).await;
    let expected = answers(&*store).await;
    store.close().await.unwrap();
    drop(store);
    let mut from = original;
    for to in [
        Place::cluster(Durability::Primary),
        Place::cluster(cluster::one_replica()),
        Place::redis(16),
        Place::cluster(Durability::Primary),
        Place::sqlite(folder.path(), "last"),
    ] {
        from.copy_to(&to).await.unwrap();
        let store = to.open().await;
        assert_eq!(answers(&*store).await, expected, "{} to {}", from.url(), to.url());
        store.close().await.unwrap();
        drop(store);
        from = to;
    }
}

/// What is stored next knows of what was copied.
async fn goes_on(place: &Place) {
    let store = place.open().await;
    // Callers have as many open as they had. The next request of each is one too many, or the last.
    let open = (0..60).filter(|number| number % 3 == 1 && number % 5 != 0).count() + again_of_caller(1);
    let open = u32::try_from(open).unwrap();
    let number = 2000 + u64::from(store.request(id_in(3, 2000)).await.unwrap().is_some());
    let made = |most| {
        let most_open = MostOpen { in_all: Some(most), of_action: None };
        Create { most_open, ..new(&asked(3, number, Some("caller-1"))) }
    };
    let had = open + u32::from(number > 2000);
    assert_eq!(store.create(made(had)).await.unwrap(), Created::TooManyOpen);
    assert_eq!(store.create(made(had + 1)).await.unwrap(), Created::New);
    // What was done already is not done again.
    let repeated = crate::Commit {
        nonce: Some(crate::Nonce { shard: 5, ..nonce(5, FAR) }),
        ..change(&next(&asked(5, 5, None), at(9), |_| {}))
    };
    assert_eq!(store.commit(repeated).await.unwrap(), Committed::Repeated);
    assert!(!store.claim_nonce(77, key(500), at(2), at(FAR)).await.unwrap());
    store.close().await.unwrap();
}

/// How many requests of a caller were made again and are open.
fn again_of_caller(caller: u64) -> usize {
    (0..60_u64).filter(|number| number % 7 == 0 && number % 3 == caller).count()
}

#[tokio::test]
async fn a_store_that_is_used_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let (file, redis) = (Place::sqlite(folder.path(), "db"), Place::redis(16));
    let (in_file, in_redis) = (file.open().await, redis.open().await);
    let error = file.copy_to(&Place::redis(16)).await.unwrap_err();
    assert!(matches!(error, CopyError::InUse("source")), "{error}");
    in_redis.shared().unwrap().announce(7, 60_000).await.unwrap();
    let error = redis.copy_to(&Place::sqlite(folder.path(), "other")).await.unwrap_err();
    assert!(matches!(error, CopyError::InUse("source")), "{error}");
    drop((in_file, in_redis));

    // What is stored by somebody who was not seen is noticed.
    let redis = Place::redis(16);
    let store = redis.open().await;
    store.create(new(&request(1))).await.unwrap();
    let (from, to) = (redis.url(), Place::sqlite(folder.path(), "third"));
    let to_url = to.url();
    let handle = tokio::runtime::Handle::current();
    let late = Arc::clone(&store);
    let mut wrote = None;
    let mut write = |_| {
        if wrote.is_none() {
            let late = Arc::clone(&late);
            wrote = Some(handle.spawn(async move { late.create(new(&request(2))).await.unwrap() }));
        }
    };
    let copied = copy(redis.end(&from), to.end(&to_url), CopyOptions::default(), &mut write).await;
    let error = copied.unwrap_err();
    assert!(matches!(error, CopyError::Changed | CopyError::Index { .. }), "{error}");
    assert_eq!(wrote.unwrap().await.unwrap(), Created::New);
}

/// Also one that comes so late that all has been read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_while_the_copy_is_read_back_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Place::redis(16);
    let store = redis.open().await;
    store.create(new(&request(1))).await.unwrap();
    let mut has_written = false;
    let mut write = |progress: CopyProgress| {
        if progress.verifying && !std::mem::replace(&mut has_written, true) {
            assert_eq!(in_between(store.create(new(&request(2)))).unwrap(), Created::New);
        }
    };
    let to = Place::sqlite(folder.path(), "to");
    let error = redis.copy_while(&to, CopyOptions::default(), &mut write).await.unwrap_err();
    assert!(matches!(error, CopyError::Changed), "{error}");
}

/// What was read of the log up to some place is not read again in the copy, and what comes after it is, also if retention has
/// removed what came before.
#[tokio::test]
async fn a_place_in_the_log_is_the_same_in_a_copy_of_the_same_kind() {
    let folder = tempfile::tempdir().unwrap();
    let places = [
        (Place::sqlite(folder.path(), "from"), Place::sqlite(folder.path(), "to")),
        (Place::redis(16), Place::redis(16)),
    ];
    for (from, to) in places {
        let store = from.open().await;
        fill(&*store).await;
        let sizes = store.audit_sizes().await.unwrap();
        for (partition, size) in (0..).zip(&sizes) {
            store.remove_audit(partition, size.saturating_sub(1)).await.unwrap();
        }
        let place = store.audit(&AuditCursor::default(), 10_000).await.unwrap().next;
        store.close().await.unwrap();
        drop(store);
        from.copy_to(&to).await.unwrap();
        let store = to.open().await;
        assert_eq!(store.audit_sizes().await.unwrap(), sizes);
        let after = async || store.audit(&place, 10_000).await.unwrap().entries;
        assert_eq!(after().await, []);
        let entry = audit(&request(3), "added");
        store.append(vec![entry.clone()], vec![]).await.unwrap();
        assert_eq!(after().await, [entry]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_last_while_the_copy_is_read_back() {
    let (from, to) = (Place::redis(16), Place::redis(16));
    fill(&*from.open().await).await;
    let has_lease = async |place: &Place| place.raw("EXISTS", LEASE, &[]).await == redis::Value::Int(1);
    let mut read_back = 0;
    let mut look = |progress: CopyProgress| {
        read_back += u32::from(progress.verifying);
        for place in [&from, &to] {
            assert!(in_between(has_lease(place)), "{progress:?}");
            // As if it had run out.
            in_between(place.raw("DEL", LEASE, &[]));
        }
    };
    from.copy_while(&to, CopyOptions::default(), &mut look).await.unwrap();
    assert!(read_back > 2, "{read_back}");
    // They are given back.
    drop((from.open().await, to.open().await));
}

/// What somebody else is writing is not removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_running_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| Place::sqlite(folder.path(), name));
    for original in [&one, &other] {
        fill(&*original.open().await).await;
    }
    for to in [Place::redis(16), Place::sqlite(folder.path(), "to")] {
        let mut pages = 0;
        let mut begin = |_| {
            pages += 1;
            if pages == 3 {
                let refused = in_between(other.copy_with(&to, RESTART)).unwrap_err();
                let is_refused = match to {
                    Place::Redis(_) => matches!(refused, CopyError::Busy("destination")),
                    Place::Sqlite(_) => matches!(refused, CopyError::InUse("destination")),
                };
                assert!(is_refused, "{refused}");
            }
        };
        one.copy_while(&to, CopyOptions::default(), &mut begin).await.unwrap();
        assert!(pages >= 3);
    }
}

/// Audit entries whose loss only the sizes of the partitions show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_log_without_its_end_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let (file, redis) = (Place::sqlite(folder.path(), "original"), Place::redis(16));
    for original in [&file, &redis] {
        fill(&*original.open().await).await;
    }
    // In the destination.
    let to = Place::redis(16);
    let mut is_longer = false;
    let mut lengthen = |progress: CopyProgress| {
        if progress.verifying && !std::mem::replace(&mut is_longer, true) {
            in_between(to.raw("INCR", "3}:audit:n", &[]));
        }
    };
    let error = file.copy_while(&to, CopyOptions::default(), &mut lengthen).await.unwrap_err();
    let is_lost = |error: &CopyError, lost: &str| {
        matches!(error, CopyError::Index { which, kind: "audit entries", found, listed }
            if *which == lost && *listed == found + 1)
    };
    assert!(is_lost(&error, "destination"), "{error}");

    // In the source.
    redis.raw("INCR", "3}:audit:n", &[]).await;
    let error = redis.copy_to(&Place::sqlite(folder.path(), "one")).await.unwrap_err();
    assert!(is_lost(&error, "source"), "{error}");
    let grow = |name: &str| {
        let database = rusqlite::Connection::open(folder.path().join(name)).unwrap();
        let grown = "UPDATE audit_partition SET size = size + 1 WHERE partition = 3";
        assert_eq!(database.execute(grown, []).unwrap(), 1);
    };
    grow("original");
    let error = file.copy_to(&Place::redis(16)).await.unwrap_err();
    assert!(is_lost(&error, "source"), "{error}");

    // Nor is anything copied to where there were some.
    let to = Place::sqlite(folder.path(), "empty");
    drop(to.open().await);
    grow("empty");
    let original = Place::redis(16);
    drop(original.open().await);
    let error = original.copy_to(&to).await.unwrap_err();
    assert!(matches!(&error, CopyError::NotEmpty(what) if what.contains("audit_partition")), "{error}");
}

/// A scan that goes on at another server may miss keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_over_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for which in ["source", "destination"] {
        let (primary, replica) = replicas::servers().await;
        // Where a gateway finds the primary.
        let socket = folder.path().join(which);
        let lead_to = |server: &server::Server| {
            let _none = std::fs::remove_file(&socket);
            std::os::unix::fs::symlink(server.directory.join("redis.sock"), &socket).unwrap();
        };
        lead_to(&primary);
        let moving = options(&format!("redis+unix://{}", socket.display()));
        let seen = format!("{{{}:meta}}:format", moving.namespace);
        let moving = Place::Redis(Box::new(moving));
        let (from, to) = match which {
            "source" => (moving, Place::redis(16)),
            _ => (Place::redis(16), moving),
        };
        from.open().await.create(new(&request(1))).await.unwrap();
        let mut primary = Some(primary);
        let mut fail_over = |_| {
            let Some(primary) = primary.take() else { return };
            let mut exists = redis::cmd("EXISTS");
            exists.arg(&seen);
            while in_between(raw(&replica, &exists)) != redis::Value::Int(1) {}
            let mut promote = redis::cmd("REPLICAOF");
            promote.arg(&["NO", "ONE"]);
            in_between(raw(&replica, &promote));
            lead_to(&replica);
            drop(primary);
        };
        let error = from.copy_while(&to, CopyOptions::default(), &mut fail_over).await.unwrap_err();
        assert!(matches!(error, CopyError::Failover(found) if found == which), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_copied_over_something() {
    let folder = tempfile::tempdir().unwrap();
    let original = Place::sqlite(folder.path(), "original");
    fill(&*original.open().await).await;
    for taken in [Place::sqlite(folder.path(), "taken"), Place::redis(16)] {
        let store = taken.open().await;
        store.keep("key:id", b"x".to_vec()).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let error = original.copy_to(&taken).await.unwrap_err();
        assert!(matches!(error, CopyError::NotEmpty(_)), "{error}");
        let error = original.copy_with(&taken, RESTART).await.unwrap_err();
        assert!(matches!(error, CopyError::NotEmpty(_)), "nor if it is begun anew: {error}");
        assert_eq!(taken.open().await.recall("key:id").await.unwrap(), Some(b"x".to_vec()));
    }
    for none in [Place::sqlite(folder.path(), "none"), Place::redis(16)] {
        let error = none.copy_to(&Place::redis(16)).await.unwrap_err();
        assert!(matches!(error, CopyError::NoSource(_)), "{error}");
    }
    let other_key =
        CopyOptions { expected: Some(("key:id".into(), vec![b"other".to_vec()])), ..CopyOptions::default() };
    let to = Place::sqlite(folder.path(), "to");
    let error = original.copy_with(&to, other_key).await.unwrap_err();
    assert!(matches!(&error, CopyError::Document { found, .. } if found == "0a1b2c3d"), "{error}");
}

/// An interrupted copy cannot be taken for a store, and is begun anew.
#[tokio::test]
async fn an_interrupted_copy_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let original = Place::sqlite(folder.path(), "original");
    let store = original.open().await;
    fill(&*store).await;
    let expected = answers(&*store).await;
    store.close().await.unwrap();
    drop(store);
    for to in [Place::sqlite(folder.path(), "to"), Place::redis(16)] {
        let (from_url, to_url) = (original.url(), to.url());
        let stop = Notify::new();
        let mut pages = 0;
        let mut progress = |_| {
            pages += 1;
            if pages == 5 {
                stop.notify_one();
            }
        };
        let copying = copy(original.end(&from_url), to.end(&to_url), CopyOptions::default(), &mut progress);
        tokio::select! {
            biased;
            () = stop.notified() => {}
            copied = copying => panic!("it was not interrupted: {copied:?}"),
        }
        match &to {
            Place::Sqlite(path) => {
                let refused = loop {
                    // Its thread ends after what it was given to write.
                    match SqliteStore::open(path) {
                        Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
                        other => break other.err(),
                    }
                };
                assert!(matches!(refused, Some(OpenError::Unfinished { .. })), "{refused:?}");
                assert!(crate::SqliteArchive::open(path).is_err());
            }
            Place::Redis(options) => {
                let refused = RedisStore::open(options.as_ref().clone()).await.err();
                assert!(matches!(refused, Some(RedisOpenError::Unfinished { .. })), "{refused:?}");
                let as_source = to.copy_to(&Place::redis(16)).await.unwrap_err();
                assert!(matches!(as_source, CopyError::Open("source", _)), "{as_source}");
                let too_soon = original.copy_with(&to, RESTART).await.unwrap_err();
                assert!(matches!(too_soon, CopyError::Busy("destination")), "{too_soon}");
                // It runs out.
                to.raw("DEL", LEASE, &[]).await;
            }
        }
        let again = original.copy_to(&to).await.unwrap_err();
        assert!(matches!(again, CopyError::Interrupted), "{again}");
        original.copy_with(&to, RESTART).await.unwrap();
        assert_eq!(answers(&*to.open().await).await, expected);
    }
}

/// While a store is copied no gateway starts on it, nor on the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_being_copied_is_not_opened() {
    let (from, to) = (Place::redis(16), Place::redis(16));
    from.open().await.create(new(&request(1))).await.unwrap();
    let (Place::Redis(source), Place::Redis(destination)) = (&from, &to) else {
        panic!("they are in a Redis")
    };
    let mut pages = 0;
    let mut open = |_| {
        pages += 1;
        let refused = in_between(RedisStore::open(source.as_ref().clone())).err();
        assert!(matches!(refused, Some(RedisOpenError::BeingCopied { .. })), "{refused:?}");
        let refused = in_between(RedisStore::open(destination.as_ref().clone())).err();
        assert!(matches!(refused, Some(RedisOpenError::Unfinished { .. })), "{refused:?}");
    };
    from.copy_while(&to, CopyOptions::default(), &mut open).await.unwrap();
    assert!(pages > 1, "{pages}");
    drop((from.open().await, to.open().await));
}

/// What a copy does not know of is not left out silently.
#[tokio::test]
async fn what_is_unknown_is_not_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Place::redis(16);
    let store = redis.open().await;
    store.create(new(&request(1))).await.unwrap();
    drop(store);
    let Place::Redis(options) = &redis else { panic!("it is a Redis") };
    let namespace = &options.namespace;
    let set = |key: &str, value: &str| {
        let mut set = redis::cmd("SET");
        set.arg(format!("{{{namespace}:{key}")).arg(value);
        set
    };
    raw(&server::SHARED, &set("3}:votes:x", "1")).await;
    let error = redis.copy_to(&Place::sqlite(folder.path(), "one")).await.unwrap_err();
    assert!(matches!(&error, CopyError::Unknown(what) if what.contains("votes:x")), "{error}");
    let mut delete = redis::cmd("DEL");
    delete.arg(format!("{{{namespace}:3}}:votes:x"));
    raw(&server::SHARED, &delete).await;

    let mut lose = redis::cmd("DEL");
    lose.arg(format!("{{{namespace}:0}}:r:{}", id(1)));
    raw(&server::SHARED, &lose).await;
    let error = redis.copy_to(&Place::sqlite(folder.path(), "two")).await.unwrap_err();
    assert!(matches!(error, CopyError::Index { kind: "requests", found: 0, listed: 1, .. }), "{error}");
}
