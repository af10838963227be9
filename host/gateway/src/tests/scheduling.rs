//! The scheduler when something goes wrong: with the store, with a policy, in the gateway itself.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use countersign_core::lifecycle::{FailureKind, PolicyFailure};
use countersign_store::{AuditCursor, StoreError, StoreFault};

use super::*;
use crate::scheduler::Wake;

/// What a test makes of a due request: `None` leaves it to the gateway.
type Instead = Option<Result<Arc<Request>, GatewayError>>;

/// A scheduler over the gateway of `house` in which `instead` is asked first what becomes of a due request.
fn scheduler(house: &House, instead: impl Fn(&Request) -> Instead + Send + Sync + 'static) -> Scheduler {
    let (gateway, instead) = (Arc::clone(&house.gateway), Arc::new(instead));
    let wake: Wake = Arc::new(move |request| {
        let (gateway, instead) = (Arc::clone(&gateway), Arc::clone(&instead));
        async move {
            match instead(&request) {
                Some(result) => result,
                None => gateway.wake_loaded(request).await,
            }
        }
        .boxed()
    });
    Scheduler::waking(Arc::clone(&house.gateway), 60 * MINUTE, wake)
}

fn policy_failure() -> GatewayError {
    let failure = PolicyFailure { policy: "quorum".into(), kind: FailureKind::Trap, detail: String::new() };
    Refusal::PolicyFailed(vec![failure]).into()
}

fn outage() -> GatewayError {
    let fault = StoreFault::Full;
    StoreError::Unavailable { backend: "sqlite", fault, detail: "the disk is full".into() }.into()
}

impl House {
    async fn status(&self, id: RequestId) -> Status {
        self.gateway.request(id).await.expect("it is there").status()
    }

    async fn count(&self, event: &str) -> usize {
        self.events().await.iter().filter(|it| *it == event).count()
    }

    fn quarantined(&self) -> i64 {
        self.gateway.metrics.quarantined.get()
    }
}

#[tokio::test]
async fn a_request_that_breaks_the_gateway_is_left_alone_and_stops_nothing_else() {
    let house = House::ready().await;
    let (bad, good) = (house.ask("double").await.request, house.ask("double").await.request);
    let tried = Arc::new(AtomicUsize::new(0));
    let (clock, counted, id) = (Arc::clone(&house.clock), Arc::clone(&tried), bad.id);
    let mut scheduler = scheduler(&house, move |request| {
        if request.id == id && clock.now() < request.submission.expires_at {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("broken on purpose");
        }
        None
    });
    house.clock.advance(6 * MINUTE);
    let next = scheduler.turn().await;
    // Each has a task of its own, so the order of the two is open.
    let mut events = house.events().await;
    events.sort();
    assert_eq!(events, ["created", "created", "escalated", "request_quarantined"].map(str::to_owned));
    assert_eq!(house.quarantined(), 1);
    assert_eq!(next, good.submission.expires_at, "neither is looked at before");
    let audit = house.gateway.store().audit(&AuditCursor::default(), 10).await.expect("readable").entries;
    let entry = audit.iter().find(|entry| entry.event == "request_quarantined").expect("it is there");
    assert_eq!((entry.request, entry.action.as_str()), (Some(bad.id), "double"));
    assert_eq!(entry.detail["why"], "broken on purpose");

    house.clock.advance(3 * MINUTE);
    scheduler.turn().await;
    assert_eq!(tried.load(Ordering::Relaxed), 1);
    // Its expiry needs no policy, and breaks nothing.
    house.clock.advance(MINUTE);
    scheduler.turn().await;
    for id in [bad.id, good.id] {
        assert_eq!(house.status(id).await, Status::Expired);
    }
    scheduler.turn().await;
    assert_eq!((house.count("request_quarantined").await, house.quarantined()), (1, 0));
}

#[tokio::test]
async fn even_an_expiry_that_breaks_the_gateway_is_tried_again_after_an_hour_and_audited_once() {
    let house = House::ready().await;
    let bad = house.ask("double").await.request;
    let (tried, mended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, is_mended) = (Arc::clone(&tried), Arc::clone(&mended));
    let mut scheduler = scheduler(&house, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        let text = format!("a secret {}", 7);
        if !is_mended.load(Ordering::Relaxed) {
            panic!("{text}");
        }
        None
    });
    house.clock.advance(10 * MINUTE);
    for hours in 1..=3 {
        let next = scheduler.turn().await;
        assert_eq!(next, house.clock.now().plus(60 * MINUTE));
        assert_eq!(tried.load(Ordering::Relaxed), hours);
        house.clock.advance(60 * MINUTE - 1);
        scheduler.turn().await;
        assert_eq!(tried.load(Ordering::Relaxed), hours, "it is left alone");
        house.clock.advance(1);
    }
    let audit = house.gateway.store().audit(&AuditCursor::default(), 10).await.expect("readable").entries;
    let why: Vec<_> = audit.iter().filter_map(|entry| entry.detail.get("why")).collect();
    assert_eq!(
        why,
        ["a panic; the standard error says where"],
        "a text that was made at run time is not kept"
    );
    mended.store(true, Ordering::Relaxed);
    scheduler.turn().await;
    assert_eq!(house.status(bad.id).await, Status::Expired);
}

#[tokio::test]
async fn after_an_outage_of_the_store_everything_expires_within_a_second() {
    let house = House::ready().await;
    let requests = join_all((0..40).map(|_| house.ask("double"))).await;
    let (down, tried) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (is_down, counted) = (Arc::clone(&down), Arc::clone(&tried));
    let mut scheduler = scheduler(&house, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        is_down.load(Ordering::Relaxed).then(|| Err(outage()))
    });
    house.clock.advance(6 * MINUTE);
    // Long enough for any backoff to have reached its limit.
    for _ in 0..300 {
        let next = scheduler.turn().await;
        assert!(next <= house.clock.now().plus(1000), "it waits longer than a second");
        assert!(next > house.clock.now(), "it does not wait");
        house.clock.advance(1000);
    }
    let before = tried.load(Ordering::Relaxed);
    assert!(before >= 300, "{before}");
    house.clock.advance(4 * MINUTE);
    down.store(false, Ordering::Relaxed);
    scheduler.turn().await;
    house.clock.advance(1000);
    scheduler.turn().await;
    for receipt in &requests {
        assert_eq!(house.status(receipt.request.id).await, Status::Expired);
    }
    assert_eq!(house.count("escalated").await, 0);
}

#[tokio::test]
async fn a_policy_that_fails_is_asked_less_and_less_often_and_delays_no_expiry() {
    let house = House::ready().await;
    let request = house.ask("double").await.request;
    let tried = Arc::new(Mutex::new(Vec::new()));
    let (clock, at) = (Arc::clone(&house.clock), Arc::clone(&tried));
    let mut scheduler = scheduler(&house, move |request| {
        let now = clock.now();
        (now < request.submission.expires_at).then(|| {
            at.lock().unwrap().push(now.since(START));
            Err(policy_failure())
        })
    });
    house.clock.advance(6 * MINUTE);
    while house.status(request.id).await != Status::Expired {
        let next = scheduler.turn().await;
        assert!(next > house.clock.now(), "it does not wait");
        house.clock.advance(next.since(house.clock.now()));
    }
    let tried = tried.lock().unwrap().clone();
    let waits: Vec<u64> = tried.windows(2).map(|two| (two[1] - two[0]) / 1000).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60], "and then it expires");
    let stored = house.gateway.request(request.id).await.expect("there");
    assert_eq!(stored.decided_at(), Some(request.submission.expires_at));
}

#[tokio::test]
async fn what_stays_due_although_nothing_is_left_to_do_is_not_tried_without_a_pause() {
    for answer in ["done", "not due", "ended"] {
        let house = House::ready().await;
        house.ask("double").await;
        let tried = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tried);
        let mut scheduler = scheduler(&house, move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(match answer {
                "done" => Ok(Arc::new(request.clone())),
                "not due" => Err(Refusal::NotDue.into()),
                _ => Err(Refusal::Ended(Status::Expired).into()),
            })
        });
        house.clock.advance(6 * MINUTE);
        for tries in 1..4 {
            let next = scheduler.turn().await;
            scheduler.turn().await;
            assert_eq!(tried.load(Ordering::Relaxed), tries, "{answer}");
            assert!(next > house.clock.now(), "{answer}: it does not wait");
            house.clock.advance(next.since(house.clock.now()));
        }
    }
}

#[tokio::test]
async fn many_that_fail_keep_nobody_behind_them_from_expiring() {
    let house = House::ready().await;
    let failing = join_all((0..600).map(|_| house.ask("double"))).await;
    let failing: BTreeSet<RequestId> = failing.iter().map(|receipt| receipt.request.id).collect();
    house.clock.advance(1);
    // All of them are more overdue than this one, when its time comes.
    let last = house.ask("single").await.request;
    let mut scheduler =
        scheduler(&house, move |request| failing.contains(&request.id).then(|| Err(policy_failure())));
    house.clock.advance(10 * MINUTE - 1);
    scheduler.turn().await;
    assert_ne!(house.status(last.id).await, Status::Expired);
    house.clock.advance(1);
    scheduler.turn().await;
    assert_eq!(house.status(last.id).await, Status::Expired);
}

#[tokio::test]
async fn a_request_that_takes_for_ever_holds_up_neither_others_nor_its_own_expiry() {
    let house = House::ready().await;
    let (stuck, other) = (house.ask("double").await.request, house.ask("double").await.request);
    let begun = Arc::new(Notify::new());
    let (gateway, begins, id, clock) =
        (Arc::clone(&house.gateway), Arc::clone(&begun), stuck.id, Arc::clone(&house.clock));
    let wake: Wake = Arc::new(move |request| {
        let (gateway, begins, clock) = (Arc::clone(&gateway), Arc::clone(&begins), Arc::clone(&clock));
        async move {
            if request.id == id && clock.now() < request.submission.expires_at {
                begins.notify_one();
                pending::<()>().await;
            }
            gateway.wake_loaded(request).await
        }
        .boxed()
    });
    let mut watches = [stuck.id, other.id].map(|id| house.gateway.watchers().watch(id));
    let running = tokio::spawn(Scheduler::waking(Arc::clone(&house.gateway), 60 * MINUTE, wake).run());
    house.clock.advance(6 * MINUTE);
    begun.notified().await;
    let Seen::Version(escalated) = watches[1].next().await else { panic!("nothing was missed") };
    assert_eq!(escalated.history.last().map(|event| event.act.name()), Some("escalated"));
    house.clock.advance(4 * MINUTE);
    for watch in &mut watches {
        let Seen::Version(expired) = watch.next().await else { panic!("nothing was missed") };
        assert_eq!(expired.status(), Status::Expired);
    }
    running.abort();
}
