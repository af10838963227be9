//! Tests of the worker over a real store, with a clock that the test moves.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use countersign_core::clock::{Clock, ManualClock};
use countersign_core::lifecycle::{Milestone, Request};
use countersign_store::fixtures::{self, at, request};
use countersign_store::{Commit, Committed, Create, Created, NewDispatch, Settled, SqliteStore, Store};
use prometheus::Registry;
use tokio::sync::Semaphore;

use crate::{Answer, DispatchMetrics, Parts, Target, Targets, Telling, What, Worker, drop_removed};

/// A target that answers as it is told to, and notes what it was told.
#[derive(Default)]
struct Noting {
    told: Mutex<Vec<(String, String)>>,
    answers: Mutex<Vec<Answer>>,
    again: bool,
    only: Option<Milestone>,
}

#[async_trait]
impl Target for Noting {
    fn wants(&self, _: &Request, milestone: Milestone) -> bool {
        self.only.is_none_or(|only| only == milestone)
    }

    async fn tell(&self, telling: &Telling<'_>) -> Answer {
        let what = match telling.what {
            What::Reached(milestone, _) => milestone.as_str(),
            What::Again => "again",
        };
        let answer = self.answers.lock().unwrap().pop().unwrap_or(Answer::Told);
        let note = format!("{what}{}", if answer == Answer::Told { "" } else { "?" });
        self.told.lock().unwrap().push((telling.id(), note));
        answer
    }

    fn again_after_ms(&self, request: &Request) -> Option<u64> {
        (self.again && !request.status().is_terminal()).then_some(60_000)
    }
}

struct House {
    _folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    targets: Targets,
    metrics: DispatchMetrics,
    worker: Worker,
}

impl House {
    async fn new(targets: &[(&str, Arc<Noting>)]) -> House {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
        let clock = Arc::new(ManualClock::at(at(0)));
        let known = Targets::default();
        let those = targets
            .iter()
            .map(|(name, target)| (format!("note:{name}"), Arc::clone(target) as Arc<dyn Target>));
        known.replace("note", those);
        let metrics = DispatchMetrics::new(&Registry::new()).unwrap();
        let worker = worker(&store, &clock, &known, &metrics);
        House { _folder: folder, store, clock, targets: known, metrics, worker }
    }

    /// The worker of another gateway over the same store.
    fn other_worker(&self) -> Worker {
        worker(&self.store, &self.clock, &self.targets, &self.metrics)
    }

    fn dispatches(&self, before: usize, request: &Request) -> Vec<NewDispatch> {
        let new: Vec<Milestone> = request.milestones().into_iter().skip(before).map(|it| it.0).collect();
        let targets = self.targets.of(request, &new).into_iter();
        targets.map(|target| NewDispatch { target, position: before as u32 }).collect()
    }

    async fn create(&self, request: &Request) {
        let dispatches = self.dispatches(0, request);
        let created = self.store.create(Create { dispatches, ..fixtures::new(request) }).await.unwrap();
        assert_eq!(created, Created::New);
    }

    async fn commit(&self, before: &Request, request: &Request) {
        let dispatches = self.dispatches(before.milestones().len(), request);
        let commit = Commit { dispatches, ..fixtures::change(request) };
        assert_eq!(self.store.commit(commit).await.unwrap(), Committed::Done);
    }

    /// Tells until there is nothing to tell now.
    async fn drain(&mut self) {
        while self.worker.look().await.unwrap() > 0 {
            self.worker.finish().await;
        }
    }
}

fn worker(
    store: &Arc<dyn Store>,
    clock: &Arc<ManualClock>,
    targets: &Targets,
    metrics: &DispatchMetrics,
) -> Worker {
    Worker::new(Parts {
        store: Arc::clone(store),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        targets: targets.clone(),
        notify: Arc::default(),
        metrics: metrics.clone(),
    })
}

fn told(target: &Noting) -> Vec<String> {
    std::mem::take(&mut *target.told.lock().unwrap()).into_iter().map(|(_, what)| what).collect()
}

fn approved_and_used(first: &Request) -> [Request; 2] {
    let approved = fixtures::next(first, at(5), |it| it.state = fixtures::approved(at(5)));
    let used = fixtures::consumed(&approved, at(6));
    [approved, used]
}

#[tokio::test]
async fn a_target_that_is_away_gets_everything_in_order() {
    let target = Arc::new(Noting::default());
    let mut house = House::new(&[("a", Arc::clone(&target))]).await;
    target.answers.lock().unwrap().extend(vec![Answer::failed("away"); 3]);
    let first = request(1);
    house.create(&first).await;
    house.drain().await;
    assert_eq!(told(&target), ["created?"]);
    let [approved, used] = approved_and_used(&first);
    house.commit(&first, &approved).await;
    house.commit(&approved, &used).await;
    house.drain().await;
    assert_eq!(told(&target), [""; 0], "it keeps its schedule, and nothing overtakes");
    for minutes in [1, 6, 30] {
        house.clock.advance(minutes * 60_000);
        house.drain().await;
    }
    assert_eq!(told(&target), ["created?", "created?"]);
    house.clock.advance(10 * 60_000);
    house.drain().await;
    assert_eq!(told(&target), ["created", "decided", "consumed"]);
    assert_eq!(house.store.dispatch_depth().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_told_again_has_the_same_id() {
    let target = Arc::new(Noting::default());
    let mut house = House::new(&[("a", Arc::clone(&target))]).await;
    target.answers.lock().unwrap().push(Answer::failed("away"));
    house.create(&request(1)).await;
    house.drain().await;
    house.clock.advance(10_000);
    house.drain().await;
    let told = target.told.lock().unwrap().clone();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].0, told[1].0);
    assert_eq!(told[0].0, format!("{}-0-{}-note-a", request(1).id, at(0).as_millis()));
}

/// A store that was restored, or whose newest writes were lost, has the same request with another decision.
#[tokio::test]
async fn what_a_restored_store_decides_otherwise_has_another_id() {
    let first = request(1);
    let [approved, _] = approved_and_used(&first);
    let denied = fixtures::next(&first, at(6), |it| it.state = fixtures::denied(at(6)));
    let mut ids = Vec::new();
    for decided in [approved, denied] {
        let target = Arc::new(Noting { only: Some(Milestone::Decided), ..Noting::default() });
        let mut house = House::new(&[("a", Arc::clone(&target))]).await;
        house.create(&first).await;
        house.commit(&first, &decided).await;
        house.drain().await;
        let [(id, _)] = target.told.lock().unwrap().clone().try_into().unwrap();
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn after_the_last_attempt_it_is_a_dead_letter() {
    let target = Arc::new(Noting::default());
    let mut house = House::new(&[("a", Arc::clone(&target))]).await;
    target.answers.lock().unwrap().extend(vec![Answer::failed("status 500"); 10]);
    house.create(&request(1)).await;
    for _ in 0..20 {
        house.drain().await;
        house.clock.advance(26 * 3_600_000);
    }
    assert_eq!(told(&target).len(), 10);
    let dead = house.store.dead_letters("note:a", 9).await.unwrap();
    assert_eq!((dead.len(), dead[0].failure.as_str(), dead[0].position), (1, "status 500", 0));
    // Sent again, it has all its attempts again.
    let audit = fixtures::audit(&request(1), "webhook_resent");
    assert!(house.store.revive_dispatch(request(1).id, "note:a", house.clock.now(), audit).await.unwrap());
    house.drain().await;
    assert_eq!(told(&target), ["created"]);
}

#[tokio::test]
async fn what_is_refused_is_dead_at_once_and_hinders_nobody_else() {
    let (refusing, other) = (Arc::new(Noting::default()), Arc::new(Noting::default()));
    let mut house = House::new(&[("a", Arc::clone(&refusing)), ("b", Arc::clone(&other))]).await;
    refusing.answers.lock().unwrap().push(Answer::Refused { why: "gone".into() });
    let first = request(1);
    house.create(&first).await;
    house.drain().await;
    let [approved, _] = approved_and_used(&first);
    house.commit(&first, &approved).await;
    house.drain().await;
    assert_eq!(told(&refusing), ["created?"], "what is later waits behind the dead letter");
    assert_eq!(told(&other), ["created", "decided"]);
    assert_eq!(house.store.dead_letters("note:a", 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_target_is_told_again_while_it_asks_for_it() {
    let target = Arc::new(Noting { again: true, ..Noting::default() });
    let mut house = House::new(&[("a", Arc::clone(&target))]).await;
    let first = request(1);
    house.create(&first).await;
    house.drain().await;
    assert_eq!(told(&target), ["created"]);
    for _ in 0..2 {
        house.clock.advance(59_999);
        house.drain().await;
        assert_eq!(told(&target), [""; 0]);
        house.clock.advance(1);
        house.drain().await;
        assert_eq!(told(&target), ["again"]);
    }
    let [approved, _] = approved_and_used(&first);
    house.commit(&first, &approved).await;
    house.drain().await;
    assert_eq!(told(&target), ["decided"], "at once");
    assert_eq!(house.store.dispatch_depth().await.unwrap(), []);
}

#[tokio::test]
async fn a_target_is_told_of_what_it_wants() {
    let target = Arc::new(Noting { only: Some(Milestone::Consumed), ..Noting::default() });
    let mut house = House::new(&[("a", Arc::clone(&target))]).await;
    let first = request(1);
    let [approved, used] = approved_and_used(&first);
    house.create(&first).await;
    house.commit(&first, &approved).await;
    assert_eq!(house.store.dispatch_depth().await.unwrap(), []);
    house.commit(&approved, &used).await;
    house.drain().await;
    assert_eq!(told(&target), ["consumed"]);
    assert_eq!(house.store.dispatch_depth().await.unwrap(), []);
}

#[tokio::test]
async fn what_a_removed_target_was_not_told_is_dropped() {
    let (gone, stays) = (Arc::new(Noting::default()), Arc::new(Noting::default()));
    let mut house = House::new(&[("gone", Arc::clone(&gone)), ("stays", Arc::clone(&stays))]).await;
    house.create(&request(1)).await;
    let stays_alone = ("note:stays".to_owned(), Arc::clone(&stays) as Arc<dyn Target>);
    assert_eq!(house.targets.replace("note", [stays_alone]), ["note:gone"]);
    house.drain().await;
    assert_eq!(told(&gone), [""; 0]);
    let (store, targets, metrics) = (house.store.as_ref(), &house.targets, &house.metrics);
    assert_eq!(drop_removed(store, "other", targets, metrics).await.unwrap(), 0, "it is of another kind");
    assert_eq!(drop_removed(store, "note", targets, metrics).await.unwrap(), 1);
    assert_eq!(house.store.dispatch_depth().await.unwrap(), []);
    assert_eq!(told(&stays), ["created"]);
}

#[tokio::test]
async fn a_target_that_hangs_holds_up_no_other() {
    struct Hanging;
    #[async_trait]
    impl Target for Hanging {
        fn wants(&self, _: &Request, _: Milestone) -> bool {
            true
        }

        async fn tell(&self, _: &Telling<'_>) -> Answer {
            std::future::pending().await
        }
    }
    let target = Arc::new(Noting::default());
    let mut house = House::new(&[]).await;
    house.targets.replace(
        "note",
        [
            ("note:hangs".to_owned(), Arc::new(Hanging) as Arc<dyn Target>),
            ("note:works".to_owned(), Arc::clone(&target) as Arc<dyn Target>),
        ],
    );
    for number in 1..=20 {
        house.create(&request(number)).await;
    }
    let mut told_of = 0;
    while told_of < 20 {
        house.worker.look().await.unwrap();
        tokio::task::yield_now().await;
        told_of += told(&target).len();
    }
    let depth = house.store.dispatch_depth().await.unwrap();
    let left = depth.iter().find(|depth| depth.target == "note:hangs").map(|depth| depth.waiting);
    assert_eq!(left, Some(20));
}

/// A target that answers once a test says so, each call after the other.
struct Slow {
    called: Semaphore,
    answers: Semaphore,
}

impl Default for Slow {
    fn default() -> Slow {
        Slow { called: Semaphore::new(0), answers: Semaphore::new(0) }
    }
}

impl Slow {
    async fn is_called(&self) {
        self.called.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl Target for Slow {
    fn wants(&self, _: &Request, milestone: Milestone) -> bool {
        milestone == Milestone::Created
    }

    async fn tell(&self, _: &Telling<'_>) -> Answer {
        self.called.add_permits(1);
        self.answers.acquire().await.unwrap().forget();
        Answer::Told
    }
}

/// A worker that has begun to tell a slow target of a request.
async fn slowly() -> (House, Arc<Slow>) {
    let mut house = House::new(&[]).await;
    let slow = Arc::new(Slow::default());
    house.targets.replace("note", [("note:slow".to_owned(), Arc::clone(&slow) as Arc<dyn Target>)]);
    house.create(&request(1)).await;
    assert_eq!(house.worker.look().await.unwrap(), 1);
    slow.is_called().await;
    (house, slow)
}

/// Whether the claim of the only dispatch lasts for so long from now on.
async fn is_claimed_for(house: &House, millis: u64) -> bool {
    house.store.ready_dispatches(house.clock.now().plus(millis), 9).await.unwrap().is_empty()
}

#[tokio::test]
async fn what_a_gateway_that_died_was_telling_is_told_ten_seconds_later() {
    let (mut house, slow) = slowly().await;
    // It dies in the middle of its call.
    house.worker = house.other_worker();
    slow.answers.add_permits(1);
    house.clock.advance(9_999);
    assert_eq!(house.worker.look().await.unwrap(), 0, "it is claimed");
    house.clock.advance(1);
    house.drain().await;
    slow.is_called().await;
    assert_eq!(house.store.dispatch_depth().await.unwrap(), []);
}

#[tokio::test]
async fn a_call_that_takes_long_keeps_its_claim() {
    let (mut house, slow) = slowly().await;
    let mut other = house.other_worker();
    for _ in 0..10 {
        house.clock.advance(3_000);
        while !is_claimed_for(&house, 9_000).await {
            tokio::task::yield_now().await;
        }
        assert_eq!(other.look().await.unwrap(), 0);
    }
    slow.answers.add_permits(1);
    house.worker.finish().await;
    assert_eq!(house.store.dispatch_depth().await.unwrap(), []);
}

#[tokio::test]
async fn a_call_whose_claim_is_lost_is_given_up_and_stores_nothing() {
    let (mut house, slow) = slowly().await;
    // Its process stands still for so long that another worker has the dispatch.
    let taken = fixtures::claim(house.clock.now().plus(60_000), house.clock.now().plus(90_000));
    let taken = house.store.claim_dispatch(request(1).id, "note:slow", taken).await.unwrap().unwrap();
    slow.answers.add_permits(1);
    house.clock.advance(60_000);
    house.worker.finish().await;
    assert_eq!(house.store.dispatch_depth().await.unwrap()[0].waiting, 1, "it is not told");
    assert!(is_claimed_for(&house, 29_000).await, "the other worker still has it");
    house.store.settle_dispatch(&taken, house.clock.now(), Settled::Dropped).await.unwrap();
    assert_eq!(house.store.dispatch_depth().await.unwrap(), []);
}

#[tokio::test]
async fn a_renewal_that_finds_another_claim_ends_the_call() {
    let (mut house, _slow) = slowly().await;
    let taken = fixtures::claim(house.clock.now().plus(60_000), house.clock.now().plus(90_000));
    assert!(house.store.claim_dispatch(request(1).id, "note:slow", taken).await.unwrap().is_some());
    house.clock.advance(3_000);
    // The call itself is never answered.
    house.worker.finish().await;
    assert!(is_claimed_for(&house, 86_000).await, "the other worker still has it");
}
