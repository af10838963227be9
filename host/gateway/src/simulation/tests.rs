//! The shadow and the replay over real policies, where time matters and where things go wrong.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::replay::Replayer;
use super::shadow::Held;
use super::*;
use crate::scheduler::Scheduler;
use crate::{Ask, Gateway, SaltKeys, Tokens, Who};
use countersign_core::clock::{Clock, ManualClock};
use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Digest, Origin, Party};
use countersign_policy::{Engine, Kept, Limits, Pins, Policies, PolicySet, Source, Trust};
use countersign_store::{MostOpen, SqliteStore, Store};

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);
const MINUTE: u64 = 60_000;

const ACTIONS: &str = "
  double:
    timeout: 10m
    escalate: { before: 4m }
    redact: { hide: [secret] }
    policies:
      - use: quorum
        with: { approvers: [U1, U2, U3], approvals: 1, escalated_approvals: 2 }
  tuned:
    timeout: 10m
    redact: { hide: [secret] }
    policies:
      - use: quorum
        with: { approvers: [U1, U2, U3], approvals: 2 }
      - use: override-guard
        with: { keys: [ref], max_keys: 1, max_chars: 10 }
  window:
    timeout: 10m
    unattended: true
    policies:
      - use: misbehaving
        with: { at: judge, do: wake, wake_after_ms: 120000 }
      - use: quorum
        with: { approvers: [U1, U2] }
";

const MODULES: [&str; 3] = ["quorum", "override-guard", "misbehaving"];

struct House {
    _folder: TempDir,
    clock: Arc<ManualClock>,
    gateway: Arc<Gateway>,
}

impl House {
    async fn new() -> House {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
        let set = set(ACTIONS);
        let Pins { entries, modules, .. } = set.pins();
        store.pin(entries, modules).await.unwrap();
        let policies = Arc::new(Policies::new(engine(), set));
        let timed: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let gateway = Arc::new(Gateway::new(
            store,
            policies,
            timed,
            Tokens::new([7; 32], Vec::new()),
            SaltKeys::fixed(),
        ));
        House { _folder: folder, clock, gateway }
    }

    /// With the same actions in the shadow, but for one text.
    async fn beside(from: &str, to: &str) -> House {
        let house = House::new().await;
        assert!(from.is_empty() || ACTIONS.contains(from), "{from}");
        let candidate = Arc::new(set(&ACTIONS.replacen(from, to, 1)));
        let directory = Arc::clone(house.gateway.directory());
        let beside = house.gateway.policies().active().hash();
        house.gateway.shadow().start(candidate, beside, directory, (None, START)).unwrap();
        house
    }

    /// With the same actions in a shadow that judges only when it is told to.
    async fn held() -> (House, Held) {
        let house = House::new().await;
        let directory = Arc::clone(house.gateway.directory());
        let beside = house.gateway.policies().active().hash();
        let held = house.gateway.shadow().start_held(Arc::new(set(ACTIONS)), beside, directory);
        (house, held)
    }

    async fn ask(&self, action: &str) -> RequestId {
        self.gateway.create(ask(action), None, MostOpen::default()).await.unwrap().request.id
    }

    async fn approve(&self, id: RequestId, actor: &str) -> Result<Status, GatewayError> {
        let intent = Intent::Approve { edits: BTreeMap::new() };
        self.gateway.act(id, actor, &intent).await.map(|request| request.status())
    }

    /// What is due happens.
    async fn turn(&self) {
        Scheduler::new(Arc::clone(&self.gateway), 1000).turn().await;
    }

    /// Waits until the shadow is done with so much, and says the differences.
    async fn differences(&self, done: u64) -> Vec<String> {
        let standing = self.standing(done).await;
        standing
            .differences
            .iter()
            .map(|found| format!("{} {} x{}", found.action, found.kind, found.count))
            .collect()
    }

    async fn standing(&self, done: u64) -> Standing {
        let wait = async {
            loop {
                let standing = self.gateway.shadow().standing().unwrap();
                if standing.same + standing.different + standing.unjudged >= done {
                    return standing;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it judges")
    }

    /// How a request ends under the same actions, but for one text; and how it has ended.
    async fn replayed(&self, id: RequestId, from: &str, to: &str) -> (String, String) {
        let request = self.gateway.store().request(id).await.unwrap().unwrap();
        let original = self.gateway.store().policy_entry(request.submission.policy_hash).await.unwrap();
        assert!(from.is_empty() || ACTIONS.contains(from), "{from}");
        let stage =
            Replayer::new(set(&ACTIONS.replacen(from, to, 1)), Directory::default(), self.clock.now());
        stage.told(&request, original.as_ref())
    }
}

fn engine() -> Engine {
    static SHARED: OnceLock<(Engine, Vec<Arc<countersign_policy::Module>>)> = OnceLock::new();
    let (engine, _) = SHARED.get_or_init(|| {
        // A busy machine takes longer than the default allows, and what is stopped then is judged otherwise.
        let limits = Limits { deadline_ms: 60_000, ..Limits::default() };
        let engine = Engine::new(limits, None, Trust::default()).unwrap();
        let modules = MODULES.map(|name| engine.load(&module(name), &[]).unwrap());
        (engine, modules.into())
    });
    engine.clone()
}

fn module(name: &str) -> Vec<u8> {
    countersign_test_modules::bytes(name)
}

fn set(actions: &str) -> PolicySet {
    let modules = MODULES.map(|name| (name.to_owned(), module(name)));
    let pins = modules.iter().map(|(name, bytes)| format!("  {name}: sha256:{}\n", Digest::of(bytes)));
    let text = format!("version: 1\nmodules:\n{}actions:{actions}", pins.collect::<String>());
    let source = Source {
        name: "set".into(),
        text,
        modules: modules.into(),
        schemas: vec![],
        signatures: vec![],
        unfetched: Default::default(),
        kept: Kept::InFolder,
        manifest: None,
    };
    PolicySet::build(&source, &engine()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn ask(action: &str) -> Ask {
    Ask {
        action: action.into(),
        params: json!({"ref": "v1", "secret": "hunter2"}).as_object().unwrap().clone(),
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

/// The scheduler is a little late, and somebody acts meanwhile: that is no difference.
#[tokio::test]
async fn what_comes_late_live_comes_late_in_the_shadow() {
    let house = House::beside("", "").await;
    let (double, window) = (house.ask("double").await, house.ask("window").await);
    house.clock.advance(2 * MINUTE + 500);
    house.turn().await;
    assert_eq!(house.approve(window, "U1").await.unwrap(), Status::Approved);
    house.clock.advance(4 * MINUTE);
    assert_eq!(house.approve(double, "U1").await.unwrap(), Status::Approved, "it is not escalated yet");
    assert_eq!(house.differences(5).await, [""; 0]);
    for id in [double, window] {
        let (before, after) = house.replayed(id, "", "").await;
        assert_eq!((before.as_str(), after.as_str()), ("approved", "approved"));
    }
}

#[tokio::test]
async fn another_escalation_is_a_difference() {
    let house = House::beside("    escalate: { before: 4m }\n", "").await;
    let id = house.ask("double").await;
    house.clock.advance(6 * MINUTE);
    house.turn().await;
    house.approve(id, "U1").await.unwrap();
    let expected = [
        "double approve: counted(ready_for_approval) -> counted(approved) x1",
        "double escalated: counted(ready_for_approval) -> refused(not_due) x1",
    ];
    assert_eq!(house.differences(3).await, expected);
    // Once one of the two has ended there is nothing more to compare.
    house.approve(id, "U2").await.unwrap();
    let standing = house.standing(4).await;
    assert_eq!((standing.same, standing.different, standing.unjudged), (1, 2, 1));

    // It escalates earlier by itself, and so it needs more votes.
    for (change, ending) in [("before: 4m", "approved"), ("before: 9m", "waiting")] {
        let id = house.ask("double").await;
        house.clock.advance(2 * MINUTE);
        house.approve(id, "U1").await.unwrap();
        let (before, after) = house.replayed(id, "before: 4m", change).await;
        assert_eq!((before.as_str(), after.as_str()), ("approved", ending), "{change}");
    }
}

#[tokio::test]
async fn another_time_to_live_is_a_difference() {
    let house = House::beside("timeout: 10m", "timeout: 20m").await;
    let id = house.ask("double").await;
    house.clock.advance(6 * MINUTE);
    house.turn().await;
    house.clock.advance(4 * MINUTE);
    house.turn().await;
    let expected = [
        "double escalated: counted(ready_for_approval) -> refused(not_due) x1",
        "double expired: counted(expired) -> refused(not_due) x1",
    ];
    assert_eq!(house.differences(3).await, expected);
    assert_eq!(house.replayed(id, "timeout: 10m", "timeout: 20m").await.1, "expired", "nobody ever decided");

    let id = house.ask("double").await;
    house.clock.advance(5 * MINUTE);
    house.approve(id, "U1").await.unwrap();
    let shorter = "timeout: 5m\n    escalate: { before: 1m }";
    let (before, after) = house.replayed(id, "timeout: 10m\n    escalate: { before: 4m }", shorter).await;
    assert_eq!((before.as_str(), after.as_str()), ("approved", "expired"));
}

#[tokio::test]
async fn a_policy_that_fails_and_an_action_that_is_gone_are_differences() {
    let fails = "      - use: misbehaving\n        with: { at: vote, do: trap, requester: U9 }\n      - use: quorum\n        with: { approvers: [U1, U2, U3],";
    let house = House::beside("      - use: quorum\n        with: { approvers: [U1, U2, U3],", fails).await;
    let id = house.ask("double").await;
    house.approve(id, "U8").await.unwrap_err();
    house.approve(id, "U1").await.unwrap();
    let expected = [
        "double approve: counted(approved) -> failed(trap) x1",
        "double approve: refused(unauthorized) -> failed(trap) x1",
    ];
    assert_eq!(house.differences(3).await, expected);
    assert_eq!(house.replayed(id, "approvers: [U1, U2, U3],", "approvers: [U2, U3],").await.1, "waiting");

    let house = House::beside("  window:", "  another:").await;
    house.ask("window").await;
    house.gateway.create(ask("another"), None, MostOpen::default()).await.unwrap_err();
    let expected = [
        "* admission: denied(unknown_action) -> admitted(pending) x1",
        "window admission: admitted(pending) -> denied(unknown_action) x1",
    ];
    assert_eq!(house.differences(2).await, expected);
    assert_eq!(
        house.replayed(house.ask("window").await, "  window:", "  another:").await.1,
        "denied (unknown action)"
    );
}

/// What hidden parameters decide is not known; all else is.
#[tokio::test]
async fn a_policy_that_fails_at_the_admission_is_a_change_unless_it_missed_what_is_hidden() {
    let house = House::new().await;
    let window = "      - use: misbehaving\n        with: { at: judge, do: wake, wake_after_ms: 120000 }\n";
    let fails = "      - use: misbehaving\n        with: { at: admit, do: trap, requester: U9 }\n";
    let id = house.ask("window").await;
    assert_eq!(house.replayed(id, window, fails).await.1, "hidden_parameters");
    let open =
        house.gateway.create(Ask { params: Default::default(), ..ask("window") }, None, MostOpen::default());
    let id = open.await.unwrap().request.id;
    let (before, after) = house.replayed(id, window, fails).await;
    assert_eq!((before.as_str(), after.as_str()), ("waiting", "not admitted (a policy failed)"));
}

fn stranger(request: RequestId, version: u64, reason: &str) -> Observed {
    Observed {
        request,
        action: "double".into(),
        at: START,
        outcome: Outcome::Refused(vec!["unauthorized".into()]),
        what: Observation::Event {
            version,
            cause: Cause {
                intent: Intent::Deny { reason: Some(reason.to_owned()) },
                by: Some("U8".into()),
                seen: None,
                commitments: BTreeMap::new(),
            },
            timers: Timers::default(),
        },
    }
}

/// Whoever tells of something never waits. What was missed of a request makes the rest of it unjudged.
#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted() {
    let (house, mut held) = House::held().await;
    let id = house.ask("double").await;
    held.judge();
    let shadow = house.gateway.shadow();
    (0..5000).for_each(|_| shadow.observe(|| stranger(id, 1, "")));
    assert_eq!(shadow.standing().unwrap().dropped, 5000 - 4096);
    held.judge();
    let standing = shadow.standing().unwrap();
    assert_eq!((standing.same, standing.dropped, held.bytes().0), (4097, 904, 0));

    // A version was missed.
    shadow.observe(|| stranger(id, 2, ""));
    shadow.observe(|| stranger(id, 1, ""));
    held.judge();
    assert_eq!(shadow.standing().unwrap().unjudged, 2);
}

#[tokio::test]
async fn what_waits_and_what_is_followed_take_no_more_memory_than_is_set_aside() {
    const MIB: usize = 1 << 20;
    let (house, mut held) = House::held().await;
    let id = house.ask("double").await;
    held.judge();
    let (shadow, long) = (house.gateway.shadow(), "x".repeat(MIB));
    (0..40).for_each(|_| shadow.observe(|| stranger(id, 1, &long)));
    // Each takes a little more than its text.
    assert_eq!(shadow.standing().unwrap().dropped, 40 - 31);
    assert!((31 * MIB..=32 * MIB).contains(&held.bytes().0));
    held.judge();
    assert_eq!((shadow.standing().unwrap().same, held.bytes().0), (32, 0));

    let mut large = Vec::new();
    for _ in 0..35 {
        let mut ask = ask("double");
        ask.params.insert("text".to_owned(), json!(long));
        large.push(house.gateway.create(ask, None, MostOpen::default()).await.unwrap().request.id);
        held.judge();
    }
    assert_eq!(
        (held.followed(), shadow.standing().unwrap().same),
        (32, 67),
        "the one before, and 31 of these"
    );
    assert!((31 * MIB..=32 * MIB).contains(&held.bytes().1));
    // One that ends makes room for another one.
    house.approve(large[0], "U1").await.unwrap();
    house.approve(large[34], "U1").await.unwrap();
    held.judge();
    assert_eq!((held.followed(), shadow.standing().unwrap().unjudged), (31, 1));
    house.ask("double").await;
    held.judge();
    assert_eq!(held.followed(), 32);
}

#[tokio::test]
async fn the_shadow_goes_on_after_a_panic() {
    let (house, mut held) = House::held().await;
    let (bad, good) = (house.ask("double").await, house.ask("double").await);
    held.judge();
    held.break_on(bad);
    assert_eq!(held.followed(), 1);
    for id in [bad, good] {
        house.approve(id, "U1").await.unwrap();
    }
    held.judge();
    let standing = house.gateway.shadow().standing().unwrap();
    assert_eq!((standing.same, standing.unjudged, standing.dropped), (3, 2, 0));
}

/// Neither the shadow nor a replay decrypts a salt, and both have the payload hash that people have seen.
#[tokio::test]
async fn edits_are_the_same_in_the_shadow_and_in_a_replay() {
    let house = House::beside("", "").await;
    let id = house.ask("tuned").await;
    let edits = BTreeMap::from([("ref".to_owned(), Some(json!("v2")))]);
    let before = house.gateway.request(id).await.unwrap().payload_hash();
    let edit = Intent::Approve { edits };
    let edited = house.gateway.act_on(id, "U1", &edit, Some(before), None).await.unwrap();
    let stale = house.gateway.act_on(id, "U2", &Intent::approve(), Some(before), None).await;
    assert!(matches!(stale, Err(GatewayError::Refused(Refusal::ParametersChanged))), "{stale:?}");
    let seen = Some(edited.payload_hash());
    let approved = house.gateway.act_on(id, "U2", &Intent::approve(), seen, None).await.unwrap();
    assert_eq!(approved.status(), Status::Approved);
    assert_eq!(house.differences(4).await, [] as [&str; 0]);
    assert_eq!(house.standing(4).await.same, 4);
    assert_eq!(house.replayed(id, "", "").await, ("approved".into(), "approved".into()));
    // A replay of the second approval alone would wait: the edit is what it counts after.
    assert_eq!(house.replayed(id, "keys: [ref]", "keys: [other]").await.1, "waiting");
}

#[tokio::test]
async fn what_is_hidden_is_neither_told_nor_needed_where_it_is_remembered() {
    let house = House::beside("approvals: 1,", "approvals: 2,").await;
    let id = house.ask("double").await;
    house.approve(id, "U1").await.unwrap();
    let standing = house.standing(2).await;
    assert_eq!(standing.different, 1);
    assert!(!format!("{standing:?}").contains("hunter2"));
    assert_eq!(house.replayed(id, "approvals: 1,", "approvals: 2,").await.1, "waiting");
}
