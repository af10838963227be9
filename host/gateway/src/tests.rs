//! The gateway over real policies and the real embedded store, with a clock that the tests move.

mod bundle;
mod instances;
mod once;
mod operate;
mod retention;
mod scheduling;
mod supersede;
mod time;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::scheduler::Scheduler;
use countersign_core::clock::ManualClock;
use countersign_core::lifecycle::{self, Digest, Effect, Origin, Party, Refusal, Status, Timestamp};
use countersign_policy::{Engine, Limits, Pins, PolicySet, Trust};
use countersign_store::{AuditCursor, MostOpen, SqliteStore};

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);
const MINUTE: u64 = 60_000;

const ACTIONS: &str = r#"
  single:
    description: One of two
    timeout: 10m
    redact: { hide: [secret] }
    policies:
      - use: quorum
        with: { approvers: [U1, U2] }
  double:
    description: Two of three, then three
    timeout: 10m
    escalate: { before: 4m, channel: C0ONCALL }
    redact: { show: [replicas] }
    rerequest: { cooldown: 5m, limit: 3, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U1, U2, U3], approvals: 2, escalated_approvals: 3 }
      - use: override-guard
        with: { keys: [replicas], max_keys: 1, max_chars: 10 }
  personas:
    description: Two personas, then one
    timeout: 10m
    policies:
      - use: persona-gate
        with: { personas: { security: [U7], release: [U8] } }
      - use: quorum
        with: { approvers: [U1] }
  window:
    description: Approved by the clock
    timeout: 10m
    unattended: true
    policies:
      - use: misbehaving
        with: { at: judge, do: wake, wake_after_ms: 120000 }
"#;

/// A gateway in a folder of its own. Start another on the same folder, and it finds what was stored.
struct House {
    folder: TempDir,
    clock: Arc<ManualClock>,
    gateway: Arc<Gateway>,
}

impl House {
    fn new() -> House {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(START));
        let gateway = open(folder.path(), ACTIONS, &clock);
        House { folder, clock, gateway }
    }

    /// Closes the store and opens it again, under these actions.
    async fn restarted(self, actions: &str) -> House {
        let House { folder, clock, gateway } = self;
        drop(gateway);
        let gateway = open(folder.path(), actions, &clock);
        pin(&gateway).await;
        House { folder, clock, gateway }
    }

    async fn ready() -> House {
        let house = House::new();
        pin(&house.gateway).await;
        house
    }

    async fn ask(&self, action: &str) -> Made {
        self.gateway.create(ask(action), None, MostOpen::default()).await.expect("the request is admitted")
    }

    async fn approve(&self, id: RequestId, actor: &str) -> Result<Arc<Request>, GatewayError> {
        self.gateway.act(id, actor, &Intent::Approve { edits: BTreeMap::new() }).await
    }

    async fn events(&self) -> Vec<String> {
        let audit = self
            .gateway
            .store()
            .audit(&AuditCursor::default(), 1000)
            .await
            .expect("the audit log can be read")
            .entries;
        audit.into_iter().map(|entry| entry.event).collect()
    }

    async fn turn(&self) -> Timestamp {
        Scheduler::new(Arc::clone(&self.gateway), 1000).turn().await
    }
}

fn open(folder: &Path, actions: &str, clock: &Arc<ManualClock>) -> Arc<Gateway> {
    let engine = engine();
    let set = PolicySet::load(&policies(folder, actions), &engine).expect("the set is sound");
    let store = SqliteStore::open(&folder.join("store.db")).expect("the store opens");
    let policies = Arc::new(Policies::new(engine, set));
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    Arc::new(Gateway::new(
        Arc::new(store),
        policies,
        clock,
        Tokens::new([7; 32], Vec::new()),
        SaltKeys::fixed(),
    ))
}

/// One engine for all tests, with the modules kept loaded: compiling them is what takes time.
fn engine() -> Engine {
    static SHARED: OnceLock<(Engine, PolicySet, TempDir)> = OnceLock::new();
    let (engine, _, _) = SHARED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        // How busy this machine is says nothing of a policy.
        let limits = Limits { deadline_ms: 60_000, ..Limits::default() };
        let engine = Engine::new(limits, None, Trust::default()).expect("an engine");
        let set = PolicySet::load(&policies(folder.path(), ACTIONS), &engine).expect("the set is sound");
        (engine, set, folder)
    });
    engine.clone()
}

async fn pin(gateway: &Gateway) {
    let Pins { entries, modules, .. } = gateway.policies().active().pins();
    gateway.store().pin(entries, modules).await.expect("the set is pinned");
}

/// Writes a policy set over the modules of this workspace.
fn policies(folder: &Path, actions: &str) -> PathBuf {
    let set = folder.join("policies");
    std::fs::create_dir_all(set.join("modules")).expect("a folder");
    let mut text = "version: 1\nmodules:\n".to_owned();
    for name in ["quorum", "persona-gate", "override-guard", "misbehaving"] {
        let bytes = countersign_test_modules::bytes(name);
        text += &format!("  {name}: sha256:{}\n", Digest::of(&bytes));
        std::fs::write(set.join("modules").join(format!("{name}.wasm")), bytes).expect("written");
    }
    text += &format!("defaults: {{ timeout: 10m, channel: C0X, unknown_action: deny }}\nactions:{actions}");
    std::fs::write(set.join("policy-set.yaml"), text).expect("written");
    set
}

fn ask(action: &str) -> Ask {
    let params = json!({"replicas": 3, "secret": "hunter2"});
    Ask {
        action: action.into(),
        params: params.as_object().cloned().unwrap_or_default(),
        origin: Origin { repo: "acme/web".into(), branch: None, pr: None, run_id: None },
        requester: Party { id: "U9".into(), source: "slack".into(), display: None },
        who: Who::asserted("U9"),
        caller: None,
        justification: "a release".into(),
        links: Vec::new(),
        policy_hints: None,
        gate: None,
    }
}

#[tokio::test]
async fn a_watcher_hears_of_a_decision_that_is_stored() {
    let house = House::ready().await;
    let Made { request, token, .. } = house.ask("single").await;
    assert_eq!(request.status(), Status::ReadyForApproval);
    let mut watch = house.gateway.watchers().watch(request.id);
    house.approve(request.id, "U1").await.expect("the vote counts");
    let Seen::Version(heard) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!((heard.status(), heard.version), (Status::Approved, 2));
    assert_eq!(house.gateway.opened_by(token.reveal()).await.expect("it opens"), heard);
    drop(watch);
    assert_eq!(house.gateway.watchers().watched(), 0);
}

#[tokio::test]
async fn watchers_hear_of_a_decision_even_where_the_approver_hung_up() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    let mut watch = house.gateway.watchers().watch(request.id);
    // The vote is on its way to the store, by a task of its own, when its connection, and with it the future, is dropped.
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    let mut vote = Box::pin(house.approve(request.id, "U1"));
    loop {
        assert!((&mut vote).now_or_never().is_none());
        // Before the task has run: it may be done when this thread comes back to it.
        if tasks.num_alive_tasks() > before {
            break;
        }
        tokio::task::yield_now().await;
    }
    drop(vote);
    let Seen::Version(heard) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!(heard.status(), Status::Approved);
}

#[tokio::test]
async fn watchers_hear_of_every_version_in_order_whoever_is_faster_to_tell_of_it() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    let watchers = Watchers::default();
    let mut watch = watchers.watch(request.id);
    watch.read(1);
    let version = |number| Arc::new(Request { version: number, ..Request::clone(&request) });
    for number in [4, 3, 2, 3] {
        watchers.publish(&version(number));
    }
    // What another instance stored is told of by nobody here, and is not waited for for long.
    watchers.publish(&version(7));
    watchers.publish(&version(6));
    let mut heard = Vec::new();
    while heard.len() < 5 {
        let Seen::Version(request) = watch.next().await else { panic!("nothing was missed") };
        heard.push(request.version);
    }
    assert_eq!(heard, [2, 3, 4, 6, 7]);
}

#[tokio::test]
async fn a_stranger_changes_nothing_but_the_audit_log() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    let refused = house.approve(request.id, "U9").await.expect_err("not an approver");
    assert!(matches!(refused, GatewayError::Refused(Refusal::Unauthorized(_))), "{refused}");
    let stored = house.gateway.store().request(request.id).await.expect("readable").expect("there");
    assert_eq!(stored, *request);
    assert_eq!(house.events().await, ["created", "unauthorized_attempt"]);
}

#[tokio::test]
async fn personas_come_before_approvals_and_a_denial_may_come_at_any_time() {
    let house = House::ready().await;
    let acknowledge = |persona: &str| Intent::Acknowledge { persona: persona.into() };
    let request = house.ask("personas").await.request;
    assert_eq!(request.status(), Status::AwaitingPersonas);
    let early = house.approve(request.id, "U1").await.expect_err("personas are pending");
    let GatewayError::Refused(Refusal::Objected(reasons)) = early else { panic!("{early}") };
    assert_eq!(reasons.first().map(|reason| reason.code.as_str()), Some("personas_pending"));
    house.gateway.act(request.id, "U7", &acknowledge("security")).await.expect("counts");
    let ready = house.gateway.act(request.id, "U8", &acknowledge("release")).await.expect("counts");
    assert_eq!(ready.status(), Status::ReadyForApproval);
    assert_eq!(house.approve(request.id, "U1").await.expect("counts").status(), Status::Approved);

    let other = house.ask("personas").await.request;
    let denied = house.gateway.act(other.id, "U1", &Intent::Deny { reason: None }).await.expect("counts");
    assert_eq!(denied.status(), Status::Denied);
}

#[tokio::test]
async fn a_hundred_votes_at_once_make_one_decision() {
    let house = House::ready().await;
    let request = house.ask("double").await.request;
    let voters = ["U1", "U2", "U3"];
    let votes = (0..100).map(|n| house.approve(request.id, voters[n % 3]));
    let counted = join_all(votes).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(counted, 2);
    let decisions = house.events().await.into_iter().filter(|event| event == "approved").count();
    assert_eq!(decisions, 1);
}

#[tokio::test]
async fn edits_reach_the_decision_and_the_payload_hash() {
    let house = House::ready().await;
    let Made { request, salt, .. } = house.ask("double").await;
    let salt = salt.expect("a new request has one");
    house.approve(request.id, "U1").await.expect("counts");
    let edit =
        |key: &str, value: Value| Intent::Approve { edits: BTreeMap::from([(key.to_owned(), Some(value))]) };
    let edited = house.gateway.act(request.id, "U2", &edit("replicas", json!(5))).await.expect("counts");
    assert_eq!((edited.status(), edited.approvers()), (Status::ReadyForApproval, vec!["U2"]));
    let approved = house.approve(request.id, "U1").await.expect("agrees to the edit");
    assert_eq!(approved.status(), Status::Approved);
    let ran = [("replicas", json!(5)), ("secret", json!("hunter2"))];
    let commitments = ran.map(|(key, value)| (key.to_owned(), salt.commit(&value)));
    assert_eq!(approved.payload_hash(), lifecycle::payload_hash(&commitments.into()));

    let other = house.ask("double").await.request;
    for (key, value) in [("secret", json!("x")), ("replicas", json!("0123456789")), ("other", json!(1))] {
        house.gateway.act(other.id, "U1", &edit(key, value)).await.expect_err("this edit is not allowed");
    }
    assert_eq!(house.gateway.store().request(other.id).await.expect("readable"), Some((*other).clone()));
}

#[tokio::test]
async fn a_request_is_judged_by_the_rules_that_it_was_made_under_even_after_a_restart() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    let house = house.restarted(&ACTIONS.replace("approvers: [U1, U2]", "approvers: [U5]")).await;
    assert!(house.approve(request.id, "U5").await.is_err(), "the new rules do not count");
    assert_eq!(house.approve(request.id, "U1").await.expect("the old ones do").status(), Status::Approved);
    let newer = house.ask("single").await.request;
    assert_ne!(newer.submission.policy_hash, request.submission.policy_hash);
    assert_eq!(house.approve(newer.id, "U5").await.expect("counts").status(), Status::Approved);
}

#[tokio::test]
async fn an_idempotency_key_gives_one_request_however_often_and_however_fast() {
    let house = House::ready().await;
    let key =
        IdempotencyKey { key: Digest::of(b"key"), fingerprint: Digest::of(b"body"), earlier: [None; 2] };
    let receipts =
        join_all((0..20).map(|_| house.gateway.create(ask("single"), Some(key), MostOpen::default()))).await;
    let receipts: Vec<Made> = receipts.into_iter().collect::<Result<_, _>>().expect("all are answered");
    let first = receipts.first().expect("there are some");
    assert!(
        receipts.iter().all(|receipt| receipt.request.id == first.request.id && receipt.token == first.token)
    );
    assert_eq!(house.events().await, ["created"]);

    let other = IdempotencyKey { fingerprint: Digest::of(b"another body"), ..key };
    let reused = house.gateway.create(ask("single"), Some(other), MostOpen::default()).await;
    assert!(matches!(reused, Err(GatewayError::KeyReused)));
    // A day after the time of the request is over, and not before: it would be made twice, side by side.
    house.clock.advance((24 * 60 + 10) * MINUTE - 1);
    assert!(matches!(
        house.gateway.create(ask("single"), Some(other), MostOpen::default()).await,
        Err(GatewayError::KeyReused)
    ));
    let same = house
        .gateway
        .create(ask("single"), Some(key), MostOpen::default())
        .await
        .expect("it is the first one");
    assert_eq!(same.request.id, first.request.id);
    house.clock.advance(1);
    let later = house
        .gateway
        .create(ask("single"), Some(other), MostOpen::default())
        .await
        .expect("the key is free again");
    assert_ne!(later.request.id, first.request.id);
}

#[tokio::test]
async fn a_request_can_be_made_again_after_a_while_and_not_too_often() {
    let house = House::ready().await;
    let again = |id| {
        let actor = Party { id: "U4".into(), source: "slack".into(), display: None };
        house.gateway.rerequest(
            id,
            Again { who: Who::of(&actor), party: actor },
            None,
            MostOpen::default(),
            None,
        )
    };
    let first = house.ask("double").await.request;
    assert!(matches!(again(first.id).await, Err(GatewayError::NotAllowed(_))), "it is still open");
    house.gateway.act(first.id, "U1", &Intent::Deny { reason: None }).await.expect("counts");
    let early = again(first.id).await.expect_err("the cooldown");
    assert!(
        matches!(early, GatewayError::Cooldown { retry_after_ms } if retry_after_ms == 5 * MINUTE),
        "{early}"
    );

    house.clock.advance(5 * MINUTE);
    let made = join_all((0..5).map(|_| again(first.id))).await;
    let mut made: Vec<Made> = made.into_iter().filter_map(Result::ok).collect();
    assert_eq!(made.len(), 1, "of several at once, one is made");
    let Made { request: second, salt, .. } = made.remove(0);
    let expected = house.gateway.salt_of(&first).expect("it has one");
    assert_eq!(
        salt.expect("it is the same").expose(),
        expected.expose(),
        "nobody has the hidden value any more"
    );
    assert_ne!(second.submission.salt, first.submission.salt, "it is encrypted for each of them");
    assert_eq!((second.submission.lineage, second.submission.depth), (first.id, 1));
    assert_eq!(second.id.shard(), first.id.shard());
    assert_eq!(second.submission.requester.id, "U9", "whoever asked first is still the requester");
    assert_eq!(second.payload_hash(), first.payload_hash());

    house.clock.advance(10 * MINUTE);
    house.turn().await;
    house.clock.advance(5 * MINUTE);
    let third = again(first.id).await.expect("by the first id, too").request;
    house.gateway.act(third.id, "U1", &Intent::Deny { reason: None }).await.expect("counts");
    house.clock.advance(5 * MINUTE);
    let limited = again(third.id).await.expect_err("three within the window");
    let GatewayError::LineageLimit { limit: 3, retry_after_ms } = limited else { panic!("{limited}") };
    house.clock.advance(retry_after_ms);
    assert!(again(third.id).await.is_ok());
    let lineage = house.gateway.store().lineage(first.id, 0, 100).await.expect("readable");
    assert_eq!(lineage.iter().map(|request| request.submission.depth).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_request_that_is_made_again_has_a_salt_of_its_own_if_nothing_is_hidden() {
    let house = House::ready().await;
    let params = json!({"replicas": 3});
    let ask = Ask { params: params.as_object().expect("an object").clone(), ..ask("double") };
    let first = house.gateway.create(ask, None, MostOpen::default()).await.expect("admitted");
    let again = |id| {
        let actor = Party { id: "U4".into(), source: "slack".into(), display: None };
        house.gateway.rerequest(
            id,
            Again { who: Who::of(&actor), party: actor },
            None,
            MostOpen::default(),
            None,
        )
    };
    house.gateway.act(first.request.id, "U1", &Intent::Deny { reason: None }).await.expect("counts");
    house.clock.advance(5 * MINUTE);
    let second = again(first.request.id).await.expect("made again");
    assert_ne!(second.salt.expect("it has one").expose(), first.salt.expect("it has one").expose());
    assert_ne!(second.request.payload_hash(), first.request.payload_hash());
}

/// With another secret, as after `keys accept-loss`.
#[tokio::test]
async fn a_request_whose_salt_is_lost_can_be_decided_but_not_edited() {
    let house = House::ready().await;
    let request = house.ask("double").await.request;
    let other = house.ask("double").await.request;
    let policies = Arc::clone(house.gateway.policies());
    let clock = Arc::clone(house.gateway.clock());
    let salts = SaltKeys::new(SaltKey::new("other".to_owned(), &[9; 32]), None);
    let store = Arc::clone(house.gateway.store());
    let gateway = Gateway::new(store, policies, clock, Tokens::new([7; 32], Vec::new()), salts);
    assert!(gateway.salt_of(&request).is_none());
    let edits = BTreeMap::from([("replicas".to_owned(), Some(json!(5)))]);
    let refused = gateway.act(request.id, "U1", &Intent::Approve { edits }).await.expect_err("no commitment");
    assert!(matches!(refused, GatewayError::Refused(Refusal::SaltLost)), "{refused}");
    let unchanged = BTreeMap::from([("replicas".to_owned(), Some(json!(3)))]);
    gateway.act(request.id, "U1", &Intent::Approve { edits: unchanged }).await.expect("no edit at all");
    let approved = gateway.act(request.id, "U2", &Intent::approve()).await.expect("it counts");
    assert_eq!((approved.status(), approved.payload_hash()), (Status::Approved, request.payload_hash()));

    gateway.act(other.id, "U1", &Intent::Deny { reason: None }).await.expect("it counts");
    house.clock.advance(5 * MINUTE);
    let actor = Party { id: "U4".into(), source: "slack".into(), display: None };
    let again = Again { who: Who::of(&actor), party: actor };
    let refused = gateway
        .rerequest(other.id, again, None, MostOpen::default(), None)
        .await
        .expect_err("it has a hidden value");
    assert!(matches!(refused, GatewayError::SaltLost), "{refused}");
}

#[tokio::test]
async fn a_caller_takes_its_request_back_once() {
    let house = House::ready().await;
    let Made { request, token, .. } = house.ask("single").await;
    let cancelled = house.gateway.cancel(request.id, Some("not needed".into())).await.expect("it is open");
    assert_eq!(cancelled.status(), Status::Cancelled);
    assert!(matches!(
        house.gateway.cancel(request.id, None).await,
        Err(GatewayError::Refused(Refusal::Ended(_)))
    ));
    assert!(house.approve(request.id, "U1").await.is_err());
    let (forged, other) = (token.reveal().replace('.', ".A"), house.ask("single").await.token);
    let swapped = format!("{}.{}", request.id, other.reveal().split_once('.').expect("two parts").1);
    for broken in [forged.as_str(), swapped.as_str(), "", "req_x.y"] {
        assert!(matches!(house.gateway.opened_by(broken).await, Err(GatewayError::NotFound)), "{broken}");
    }
}

#[tokio::test]
async fn a_hidden_value_is_in_no_file() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    house.approve(request.id, "U1").await.expect("counts");
    let again = house.restarted(ACTIONS).await;
    for file in std::fs::read_dir(again.folder.path()).expect("a folder").filter_map(Result::ok) {
        if file.path().is_file() {
            let bytes = std::fs::read(file.path()).expect("readable");
            assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{}", file.path().display());
        }
    }
}

#[tokio::test]
async fn what_people_could_not_read_is_neither_asked_nor_made_by_an_edit() {
    let House { folder, clock, gateway } = House::ready().await;
    let gateway = Arc::into_inner(gateway).expect("nobody else has it");
    let gateway = Arc::new(gateway.reading(|request, _| request.params().get("replicas") != Some(&json!(9))));
    let house = House { folder, clock, gateway };
    let mut large = ask("single");
    large.params.insert("replicas".into(), json!(9));
    let refused = house.gateway.create(large, None, MostOpen::default()).await.expect_err("too large");
    assert_eq!(refused.code(), "too_large_to_review");
    assert_eq!(house.events().await, ["too_large_to_review"]);

    let request = house.ask("double").await.request;
    let edit =
        |replicas: u32| Intent::Approve { edits: [("replicas".to_owned(), Some(json!(replicas)))].into() };
    let refused = house.gateway.act(request.id, "U1", &edit(9)).await.expect_err("too large");
    assert_eq!(refused.code(), "too_large_to_review");
    assert_eq!(house.gateway.request(request.id).await.expect("there").version, request.version);
    assert_eq!(house.events().await.last().map(String::as_str), Some("override_rejected"));
    house.gateway.act(request.id, "U1", &edit(8)).await.expect("counts");
}

#[tokio::test]
async fn what_no_policy_admits_is_refused_and_audited() {
    let house = House::ready().await;
    let unknown = house.gateway.create(ask("drop_database"), None, MostOpen::default()).await;
    assert!(matches!(unknown, Err(GatewayError::UnknownAction(action)) if action == "drop_database"));
    assert_eq!(house.events().await, ["unknown_action"]);
}

fn acknowledged(persona: &str) -> Intent {
    Intent::Acknowledge { persona: persona.to_owned() }
}
