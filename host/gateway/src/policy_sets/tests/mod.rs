//! Sets that come and go, over real policies and the real embedded store.

mod fetching;
mod half_written;
mod removal;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;

use super::watch::Pace;
use super::*;
use crate::{Ask, SaltKeys, Tokens, Who};
use countersign_core::clock::{Clock, ManualClock};
use countersign_core::lifecycle::{Origin, Party, RequestId};
use countersign_core::record::PolicyEntry;
use countersign_policy::{Engine, Limits, Trust};
use countersign_registry::Credentials;
use countersign_store::{AuditCursor, MostOpen, SqliteStore, StoreUrl, StoredSet};

const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

/// A folder with a policy set and a store; any number of gateways may be started in it, one after the other.
struct House {
    folder: TempDir,
    clock: Arc<ManualClock>,
    store: Arc<dyn Store>,
    registries: Registries,
    sets: Arc<PolicySets>,
}

impl House {
    async fn new() -> House {
        House::with(nowhere()).await
    }

    /// That may ask these registries.
    async fn with(registries: Registries) -> House {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("policies"), &set(1));
        House::in_folder(folder, registries).await
    }

    async fn in_folder(folder: TempDir, registries: Registries) -> House {
        let clock = Arc::new(ManualClock::at(START));
        let store = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
        let store: Arc<dyn Store> = store;
        let sets = start(&store, &clock, &folder.path().join("policies"), &registries).await.unwrap();
        House { folder, clock, store, registries, sets }
    }

    /// Stopped, and started again; the folder is another one by then where `meanwhile` makes it so.
    async fn restarted(self, meanwhile: impl FnOnce(&Path)) -> House {
        let House { folder, store, registries, sets, .. } = self;
        drop((store, sets));
        meanwhile(&folder.path().join("policies"));
        House::in_folder(folder, registries).await
    }

    fn policies(&self) -> PathBuf {
        self.folder.path().join("policies")
    }

    fn write(&self, text: &str) {
        write(&self.policies(), text);
    }

    fn active(&self) -> Digest {
        self.sets.policies().active().hash()
    }

    /// How many approvals the set in force asks for.
    fn approvals(&self) -> u64 {
        let active = self.sets.policies().active();
        active.action("deploy").unwrap().entry().policies[0].config["approvals"].as_u64().unwrap()
    }

    async fn reload(&self) -> Result<Changed, ChangeError> {
        self.sets.reload(by(ChangeTrigger::Sighup)).await
    }

    /// What the watcher does once the folder is quiet, if so much is known of it.
    async fn look_again(&self, known: Known) -> Result<Option<Changed>, ChangeError> {
        match self.sets.found(known).await {
            Some(found) => self.sets.reload_found(found, known, by(ChangeTrigger::File)).await,
            None => Ok(None),
        }
    }

    /// Stores a set that asks for so many approvals.
    async fn stored(&self, approvals: u32) -> Digest {
        let sent = Sent { document: set(approvals), schemas: BTreeMap::new(), signatures: vec![] };
        self.sets.store_set(sent, by(ChangeTrigger::Api)).await.unwrap().hash
    }

    async fn activate(&self, hash: Digest) -> Changed {
        self.sets.activate(hash, self.active(), None, by(ChangeTrigger::Api)).await.unwrap()
    }

    /// What was tried, the first first: what, source and outcome.
    async fn history(&self) -> Vec<String> {
        let mut changes = self.store.policy_changes(u64::MAX, 100).await.unwrap();
        changes.reverse();
        let told = changes.iter().map(|(_, change)| {
            let PolicyChange { what, trigger, outcome, .. } = change;
            format!("{} {} {}", what.as_str(), trigger.as_str(), outcome.as_str())
        });
        told.collect()
    }

    async fn audited(&self) -> Vec<String> {
        let audit = self.store.audit(&AuditCursor::default(), 1000).await.unwrap().entries;
        audit.into_iter().map(|entry| entry.event).filter(|event| event.starts_with("policy_")).collect()
    }

    async fn counted(&self, trigger: ChangeTrigger, outcome: ChangeOutcome) -> u64 {
        let counter = PolicyChange::counter(trigger, outcome);
        self.store.counters().await.unwrap().get(&counter).copied().unwrap_or_default()
    }

    /// The gateway that makes requests under the set in force.
    fn gateway(&self) -> &Gateway {
        &self.sets.gateway
    }

    /// Waits until so many attempts have been made, and nothing is being changed.
    async fn attempts(&self, count: usize) {
        let made = async {
            while self.history().await.len() < count {}
            drop(self.sets.changing.lock().await);
        };
        tokio::time::timeout(Duration::from_secs(20), made).await.expect("the attempt is made");
    }
}

async fn start(
    store: &Arc<dyn Store>,
    clock: &Arc<ManualClock>,
    directory: &Path,
    registries: &Registries,
) -> Result<Arc<PolicySets>, crate::policy_sets::StartError> {
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    let (set, folder) = at_start(store, &engine(), &clock, directory.to_owned(), registries).await?;
    let policies = Arc::new(Policies::new(engine(), set));
    let gateway = Arc::new(Gateway::new(
        Arc::clone(store),
        policies,
        clock,
        Tokens::new([7; 32], Vec::new()),
        SaltKeys::fixed(),
    ));
    Ok(PolicySets::new(gateway, directory.to_owned(), registries.clone(), folder))
}

/// Looks so often, and waits for quiet no longer than the events of one write take.
fn pace(poll: Duration) -> Pace {
    let short = Duration::from_millis(200);
    Pace { poll, settle: short, quiet: short, ..Pace::default() }
}

/// No registry may be asked.
fn nowhere() -> Registries {
    Registries::new(vec![], Credentials::none())
}

/// One engine for all tests, with the module kept loaded: compiling it is what takes time.
fn engine() -> Engine {
    static SHARED: OnceLock<(Engine, Arc<countersign_policy::Module>)> = OnceLock::new();
    let (engine, _) = SHARED.get_or_init(|| {
        // A busy machine may take its time.
        let limits = Limits { deadline_ms: 60_000, ..Limits::default() };
        let engine = Engine::new(limits, None, Trust::default()).unwrap();
        let module = engine.load(&quorum(), &[]).unwrap();
        (engine, module)
    });
    engine.clone()
}

fn quorum() -> Vec<u8> {
    module("quorum")
}

fn module(name: &str) -> Vec<u8> {
    countersign_test_modules::bytes(name)
}

fn set(approvals: u32) -> String {
    format!(
        "version: 1
modules: {{ quorum: sha256:{} }}
actions:
  deploy:
    timeout: 10m
    policies:
      - use: quorum
        with: {{ approvers: [U1, U2, U3], approvals: {approvals} }}
",
        Digest::of(&quorum())
    )
}

fn write(folder: &Path, text: &str) {
    fs::create_dir_all(folder.join("modules")).unwrap();
    fs::write(folder.join("modules/quorum.wasm"), quorum()).unwrap();
    fs::write(folder.join("policy-set.yaml"), text).unwrap();
}

fn by(trigger: ChangeTrigger) -> By {
    By { actor: (trigger == ChangeTrigger::Api).then(|| "ada".to_owned()), ..By::itself(trigger) }
}

fn ask() -> Ask {
    Ask {
        action: "deploy".into(),
        params: json!({"ref": "v1"}).as_object().unwrap().clone(),
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
async fn a_reload_puts_the_folders_set_in_force() {
    let house = House::new().await;
    let first = house.active();
    house.write(&set(2));
    assert_eq!(house.approvals(), 1);
    house.clock.advance(5);
    let changed = house.reload().await.unwrap();
    assert_eq!((changed.outcome, changed.previous), (ChangeOutcome::Ok, first));
    assert_eq!((changed.hash, house.approvals()), (house.active(), 2));
    assert_eq!(changed.actions, ["deploy"]);
    assert_eq!(house.reload().await.unwrap().outcome, ChangeOutcome::Unchanged);
    // A comment is another text, and the same set.
    house.write(&format!("# nothing new\n{}", set(2)));
    assert_eq!(house.reload().await.unwrap().outcome, ChangeOutcome::Unchanged);

    let expected =
        ["start start ok", "reload sighup ok", "reload sighup unchanged", "reload sighup unchanged"];
    assert_eq!(house.history().await, expected);
    assert_eq!(house.audited().await, ["policy_reloaded"; 4]);
    assert_eq!(
        (
            house.counted(ChangeTrigger::Sighup, ChangeOutcome::Ok).await,
            house.counted(ChangeTrigger::Sighup, ChangeOutcome::Unchanged).await
        ),
        (1, 2)
    );
    let entry = house.store.audit(&AuditCursor::default(), 100).await.unwrap().entries.swap_remove(1);
    assert_eq!(entry.at, START.plus(5));
    assert_eq!(entry.detail["previousHash"], json!(first));
    assert_eq!(entry.detail["hash"], json!(changed.hash));
    assert_eq!(entry.detail["source"], "sighup");
}

#[tokio::test]
async fn a_failed_reload_changes_nothing_and_says_where() {
    let house = House::new().await;
    let first = house.active();
    house.write(&set(1).replace("timeout", "timout"));
    let error = house.sets.reload(by(ChangeTrigger::Api)).await.unwrap_err();
    let [fault] = &error.faults()[..] else { panic!("{error:?}") };
    assert!(fault.path.ends_with("policy-set.yaml:5:5"), "{fault}");
    assert!(fault.message.contains("did you mean `timeout`?"), "{fault}");
    assert_eq!(house.active(), first);
    assert_eq!(house.audited().await, ["policy_reloaded", "policy_reload_failed"]);
    assert_eq!(
        (
            house.counted(ChangeTrigger::Api, ChangeOutcome::Failed).await,
            house.counted(ChangeTrigger::Api, ChangeOutcome::Ok).await
        ),
        (1, 0)
    );
    let (_, change) = house.store.policy_changes(u64::MAX, 1).await.unwrap().swap_remove(0);
    assert_eq!((change.actor.as_deref(), change.from, change.to), (Some("ada"), Some(first), None));
    assert_eq!(change.faults, error.faults());

    // The folder is gone, and comes back.
    fs::rename(house.policies(), house.folder.path().join("away")).unwrap();
    let error = house.reload().await.unwrap_err();
    assert!(error.faults()[0].to_string().contains("policy-set.yaml: cannot be read"), "{error:?}");
    fs::rename(house.folder.path().join("away"), house.policies()).unwrap();
    house.write(&set(3));
    assert_eq!(house.reload().await.unwrap().outcome, ChangeOutcome::Ok);
}

#[tokio::test]
async fn what_is_stored_is_not_in_force_until_it_is_activated() {
    let house = House::new().await;
    let first = house.active();
    let two = house.stored(2).await;
    assert_eq!((house.active(), house.approvals()), (first, 1));
    let changed = house.activate(two).await;
    assert_eq!((changed.outcome, changed.hash, house.approvals()), (ChangeOutcome::Ok, two, 2));
    assert_eq!(house.activate(two).await.outcome, ChangeOutcome::Unchanged);
    assert_eq!(house.history().await, ["start start ok", "activate api ok", "activate api unchanged"]);
    let expected = ["policy_reloaded", "policy_set_stored", "policy_reloaded", "policy_reloaded"];
    assert_eq!(house.audited().await, expected);
    assert_eq!(house.store.policy_document(two).await.unwrap(), Some(set(2)));

    let unknown = Digest::of(b"unknown");
    let error = house.sets.activate(unknown, two, None, by(ChangeTrigger::Api)).await.unwrap_err();
    assert!(matches!(error, ChangeError::Unknown(hash) if hash == unknown), "{error}");
    assert_eq!(house.active(), two);
}

#[tokio::test]
async fn two_admins_do_not_overwrite_each_other() {
    let house = House::new().await;
    let first = house.active();
    let wanted = [house.stored(2).await, house.stored(3).await];
    let tried = wanted.map(|hash| house.sets.activate(hash, first, None, by(ChangeTrigger::Api)));
    let tried = join_all(tried).await;
    let won: Vec<_> = tried.iter().filter_map(|tried| tried.as_ref().ok()).collect();
    let lost: Vec<_> = tried.iter().filter_map(|tried| tried.as_ref().err()).collect();
    assert_eq!((won.len(), lost.len()), (1, 1));
    assert_eq!(won[0].hash, house.active());
    let ChangeError::Conflict { expected, current } = lost[0] else { panic!("{lost:?}") };
    assert_eq!((*expected, *current), (first, house.active()));
    assert_eq!(house.history().await.len(), 3);
    assert_eq!(
        (
            house.counted(ChangeTrigger::Api, ChangeOutcome::Ok).await,
            house.counted(ChangeTrigger::Api, ChangeOutcome::Conflict).await
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_rollback_goes_to_the_set_before() {
    let house = House::new().await;
    let first = house.active();
    let rollback = |expected| house.sets.rollback(expected, by(ChangeTrigger::Api));
    assert!(matches!(rollback(first).await, Err(ChangeError::NothingBefore)));
    let two = house.stored(2).await;
    house.activate(two).await;
    assert!(matches!(rollback(first).await, Err(ChangeError::Conflict { .. })));
    assert_eq!(house.active(), two);
    // The set before came from the folder, which has another one by now.
    house.write(&set(3));
    assert_eq!(rollback(two).await.unwrap().hash, first);
    assert_eq!((house.active(), house.approvals()), (first, 1));
    // And back again: that is the set before now.
    assert_eq!(rollback(first).await.unwrap().hash, two);
}

#[tokio::test]
async fn after_a_restart_the_newest_change_wins() {
    type Meanwhile = fn(&Path);
    let untouched: Meanwhile = |_| {};
    let rewritten: Meanwhile = |folder| write(folder, &set(1));
    let commented: Meanwhile = |folder| write(folder, &format!("# changed\n{}", set(1)));
    let changed: Meanwhile = |folder| write(folder, &set(3));
    for (what, meanwhile, approvals) in [
        ("untouched", untouched, 2),
        ("written as it was", rewritten, 2),
        ("changed in a comment", commented, 1),
        ("changed", changed, 3),
    ] {
        let house = House::new().await;
        let two = house.stored(2).await;
        house.activate(two).await;
        let house = house.restarted(meanwhile).await;
        assert_eq!(house.approvals(), approvals, "{what}");
        // So it goes on: the folder was reloaded since an admin chose, or it was not.
        let house = house.restarted(|_| {}).await;
        assert_eq!(house.approvals(), approvals, "{what}, once more");
        let before = house.sets.rollback(house.active(), by(ChangeTrigger::Api)).await.unwrap();
        assert_ne!(before.hash, before.previous, "{what}");
    }

    // The folder was changed and not read, and then an admin chose: that is newer.
    let house = House::new().await;
    house.write(&set(3));
    let two = house.stored(2).await;
    house.activate(two).await;
    let house = house.restarted(|_| {}).await;
    assert_eq!(house.approvals(), 2);
    // A reload is an admin's wish, too: the folder wins.
    house.reload().await.unwrap();
    let house = house.restarted(|_| {}).await;
    assert_eq!(house.approvals(), 3);
    assert_eq!(house.history().await.len(), 3, "a start that changes nothing is no change");
}

#[tokio::test]
async fn a_start_under_a_bad_folder_says_so() {
    let house = House::new().await;
    house.activate(house.stored(2).await).await;
    let House { folder, clock, store, registries, sets } = house;
    drop(sets);
    fs::write(folder.path().join("policies/policy-set.yaml"), "version: 2").unwrap();
    let Err(error) = start(&store, &clock, &folder.path().join("policies"), &registries).await else {
        panic!("it started")
    };
    assert!(error.to_string().contains("policy-set.yaml:1:10: the version must be 1"), "{error}");
    assert_eq!(store.policy_changes(u64::MAX, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_instance_follows_another() {
    let house = House::new().await;
    let other = start(&house.store, &house.clock, &house.policies(), &house.registries).await.unwrap();
    assert_eq!(house.history().await, ["start start ok"], "they agree");
    let (first, two) = (house.active(), house.stored(2).await);
    house.activate(two).await;
    assert_eq!(other.policies().active().hash(), first);
    // Whoever does not know yet cannot overwrite it.
    let error =
        other.activate(first, first, None, by(ChangeTrigger::Api)).await.map(|changed| changed.outcome);
    assert!(matches!(error, Ok(ChangeOutcome::Unchanged)), "{error:?}");
    let three = house.stored(3).await;
    let error = other.activate(three, first, None, by(ChangeTrigger::Api)).await.unwrap_err();
    assert!(matches!(error, ChangeError::Conflict { current, .. } if current == two), "{error}");
    assert_eq!(other.follow().await.unwrap().unwrap().hash, two);
    assert_eq!(other.policies().active().hash(), two);
    assert_eq!(other.follow().await.unwrap(), None);
    assert_eq!(house.sets.follow().await.unwrap(), None);
    assert_eq!(house.counted(ChangeTrigger::Store, ChangeOutcome::Ok).await, 0, "it is recorded once");
    assert_eq!(house.history().await.iter().filter(|it| *it == "activate api ok").count(), 1);
    assert_eq!(other.activate(three, two, None, by(ChangeTrigger::Api)).await.unwrap().hash, three);
}

#[tokio::test]
async fn what_open_requests_need_stays_in_memory_and_the_rest_in_the_store() {
    let house = House::new().await;
    let gateway = house.gateway();
    let open: RequestId = gateway.create(ask(), None, MostOpen::default()).await.unwrap().request.id;
    let rules = |approvals: u32| {
        let policies = house.sets.policies().in_memory();
        let of = |entry: &countersign_core::record::PolicyEntry| {
            entry.policies[0].config["approvals"] == approvals
        };
        policies.iter().any(|policy| of(policy.entry()))
    };
    house.activate(house.stored(2).await).await;
    house.activate(house.stored(3).await).await;
    assert!(rules(2), "nothing was dropped yet");
    house.sets.settle().await.unwrap();
    assert!(rules(1), "a request needs it");
    assert!(!rules(2), "nobody needs it");
    assert!(rules(3), "it is in force");
    let hash = house.store.request(open).await.unwrap().unwrap().submission.policy_hash;
    let counted = house.store.open_policies().await.unwrap();
    assert_eq!((counted[0].policy, counted[0].count), (hash, 1));

    gateway.cancel(open, None).await.unwrap();
    house.sets.settle().await.unwrap();
    assert!(!rules(1) && !house.sets.policies().has_earlier());
    assert_eq!(gateway.rules_of(hash).await.unwrap().hash(), hash, "the store has it");
    assert!(rules(1));
}

#[tokio::test]
async fn a_module_is_inspected_and_stored() {
    let house = House::new().await;
    let bytes = module("persona-gate");
    let inspection = house.sets.store_module(bytes.clone(), vec![], by(ChangeTrigger::Api)).await.unwrap();
    assert_eq!((inspection.digest, inspection.size), (Digest::of(&bytes), bytes.len()));
    assert_eq!(inspection.descriptor.name, "persona-gate");
    assert_eq!(house.store.module(inspection.digest).await.unwrap(), Some(bytes));
    let error = house
        .sets
        .store_module(b"\0asm\x01\0\0\0".to_vec(), vec![], by(ChangeTrigger::Api))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("core WebAssembly module"), "{error}");
    assert_eq!(house.store.modules().await.unwrap().len(), 2);
    assert_eq!(house.history().await, ["start start ok", "store_module api failed"]);
    assert_eq!(house.counted(ChangeTrigger::Api, ChangeOutcome::Failed).await, 1);
}

#[tokio::test]
async fn a_set_whose_module_is_not_stored_is_refused_with_its_place() {
    let house = House::new().await;
    let missing = Digest::of(b"missing");
    let document = set(1).replace(&Digest::of(&quorum()).to_string(), &missing.to_string());
    let sent = Sent { document, schemas: [("deploi".to_owned(), json!({}))].into(), signatures: vec![] };
    let error = house.sets.store_set(sent, by(ChangeTrigger::Api)).await.unwrap_err();
    let faults: Vec<_> = error.faults().iter().map(ChangeFault::to_string).collect();
    let expected = [
        format!(
            "document:2:20: the module `quorum`, sha256:{missing}, is not in the store: \
             send it with `PUT /api/admin/modules` first"
        ),
        "schemas.deploi: there is no action `deploi` to use this schema; did you mean `deploy`?".to_owned(),
    ];
    assert_eq!(faults, expected);
}

/// What keeps a set from being put in force without being wrong with it does not make it forgotten.
#[tokio::test]
async fn a_changed_folder_is_not_forgotten() {
    let house = House::new().await;
    let (first, two) = (house.active(), house.stored(2).await);
    house.write(&set(3));
    // An admin's call that fails says nothing of the folder.
    let error = house.sets.activate(two, two, None, by(ChangeTrigger::Api)).await.unwrap_err();
    assert!(matches!(error, ChangeError::Conflict { .. }), "{error}");
    // Another instance is faster.
    let other =
        start(&house.store, &house.clock, &house.folder.path().join("nowhere"), &house.registries).await;
    assert!(other.is_err(), "there is no folder");
    write(&house.folder.path().join("elsewhere"), &set(1));
    let other = start(&house.store, &house.clock, &house.folder.path().join("elsewhere"), &house.registries)
        .await
        .unwrap();
    other.activate(two, first, None, by(ChangeTrigger::Api)).await.unwrap();
    let error = house.look_again(Known::Nothing).await.unwrap_err();
    assert!(matches!(error, ChangeError::Conflict { current, .. } if current == two), "{error}");
    assert_eq!(house.active(), first);
    house.sets.follow().await.unwrap();
    assert_eq!(house.approvals(), 2);
    // It is still another one than was read last.
    let changed = house.look_again(Known::Nothing).await.unwrap().unwrap();
    assert_eq!((changed.outcome, house.approvals()), (ChangeOutcome::Ok, 3));
    assert_eq!(house.look_again(Known::Nothing).await.unwrap(), None);
}

/// A folder that changes under a watcher; each change is one attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // As Kubernetes mounts a ConfigMap: files link to `..data`, which links to one version of them.
    let mount = path("policies");
    let version = |name: &str, text: &str| {
        write(&mount.join(name), text);
        let (new, data) = (mount.join("..data_tmp"), mount.join("..data"));
        symlink(name, &new).unwrap();
        fs::rename(new, data).unwrap();
    };
    version("..1", &set(1));
    symlink("..data/policy-set.yaml", mount.join("policy-set.yaml")).unwrap();
    symlink("..data/modules", mount.join("modules")).unwrap();
    let house = House::in_folder(folder, nowhere()).await;
    let watcher = tokio::spawn(Arc::clone(&house.sets).watch_at(true, pace(Duration::from_secs(3600))));

    version("..2", &set(2));
    house.attempts(2).await;
    assert_eq!(house.approvals(), 2);
    fs::remove_dir_all(mount.join("..1")).unwrap();

    // An editor writes another file, and renames it into place: here over the link.
    fs::write(mount.join("policy-set.yaml~"), set(3)).unwrap();
    fs::rename(mount.join("policy-set.yaml~"), mount.join("policy-set.yaml")).unwrap();
    house.attempts(3).await;
    assert_eq!(house.approvals(), 3);

    // Half of it is there for so long that it is tried; then the rest.
    let text = set(1);
    let (half, rest) = text.split_at(text.find("policies:").unwrap());
    fs::write(mount.join("policy-set.yaml"), half).unwrap();
    house.attempts(4).await;
    assert_eq!(house.approvals(), 3);
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().append(true).open(mount.join("policy-set.yaml")).unwrap();
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    house.attempts(5).await;
    assert_eq!(house.approvals(), 1);

    // The folder goes away, and comes back as another one.
    fs::rename(&mount, path_in(&house, "away")).unwrap();
    house.attempts(6).await;
    assert_eq!(house.approvals(), 1);
    write(&path_in(&house, "other"), &set(2));
    fs::rename(path_in(&house, "other"), &mount).unwrap();
    house.attempts(7).await;
    assert_eq!(house.approvals(), 2);

    // And is a folder that is watched as before.
    fs::write(mount.join("policy-set.yaml"), set(3)).unwrap();
    house.attempts(8).await;
    assert_eq!(house.approvals(), 3);
    watcher.abort();
    let outcomes = ["ok", "ok", "failed", "ok", "failed", "ok", "ok"].map(|it| format!("reload file {it}"));
    assert_eq!(house.history().await[1..], outcomes);
    let counted = (
        house.counted(ChangeTrigger::File, ChangeOutcome::Ok).await,
        house.counted(ChangeTrigger::File, ChangeOutcome::Failed).await,
    );
    assert_eq!(counted, (5, 2));
}

fn path_in(house: &House, name: &str) -> PathBuf {
    house.folder.path().join(name)
}

/// Where nothing says that something has happened, it is seen all the same, and tried once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_sees_what_no_event_tells() {
    let house = House::new().await;
    let other = start(&house.store, &house.clock, &house.policies(), &house.registries).await.unwrap();
    let watcher = tokio::spawn(Arc::clone(&house.sets).watch_at(true, pace(Duration::from_millis(5))));
    let unwatched = tokio::spawn(Arc::clone(&other).watch_at(false, pace(Duration::from_millis(5))));
    let two = house.stored(2).await;
    other.activate(two, house.active(), None, by(ChangeTrigger::Api)).await.unwrap();
    let followed = async {
        while house.active() != two {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), followed).await.expect("it is followed");
    assert_eq!(house.history().await[1..], ["activate api ok"]);
    watcher.abort();
    unwatched.abort();
}

/// What is compared without the gateway is what the gateway would put in force.
#[tokio::test]
async fn a_stored_set_is_read_beside_the_gateway() {
    let house = House::new().await;
    let other = house.stored(2).await;
    let url = StoreUrl::Sqlite(house.folder.path().join("store.db"));
    let archive = url.open_for_reading(|options| options).unwrap();
    for hash in [house.active(), other] {
        let expected = stored::stored(&*house.store, hash).await.unwrap();
        assert_eq!(format!("{:?}", archived(&archive, hash).unwrap()), format!("{expected:?}"));
    }

    let says = |hash: Digest| archived(&archive, hash).unwrap_err().to_string();
    let unknown = Digest::of(b"unknown");
    assert_eq!(says(unknown), format!("no policy set with the hash {unknown} is stored"));
    // Sets of which something was lost.
    let mut entry = PolicyEntry::clone(house.sets.policies().active().action("deploy").unwrap().entry());
    let keep = async |entry: Digest| {
        let entries = BTreeMap::from([("deploy".to_owned(), entry)]);
        let set = StoredSet { hash: Digest::of_json(&json!(entries)), entries, stored_at: START };
        house.store.keep_policy_set(set.clone(), String::new()).await.unwrap();
        set.hash
    };
    let lost = keep(unknown).await;
    assert!(says(lost).ends_with(&format!("the entry {unknown} is not kept")), "{}", says(lost));
    entry.policies[0].digest = unknown;
    house.store.pin(vec![entry.clone()], vec![]).await.unwrap();
    let lost = keep(entry.hash()).await;
    assert!(says(lost).ends_with(&format!("the module {unknown} is not kept")), "{}", says(lost));
}
