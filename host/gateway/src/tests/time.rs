//! What happens by the time: expiry, escalation, what a policy asked for; also by a clock that is set ahead or back.

use tokio::task::JoinHandle;

use super::*;

impl House {
    /// Starts the scheduler, which sleeps once this returns. Also returns what tells of the versions of a request.
    async fn running(&self, request: RequestId) -> (JoinHandle<()>, Watch) {
        let running = tokio::spawn(Scheduler::new(Arc::clone(&self.gateway), 1000).run());
        let watch = self.gateway.watchers().watch(request);
        while self.clock.sleeping() == 0 {
            tokio::task::yield_now().await;
        }
        (running, watch)
    }
}

#[tokio::test]
async fn escalates_then_expires_each_once_and_on_time() {
    let house = House::ready().await;
    let request = house.ask("double").await.request;
    assert_eq!(house.turn().await, START.plus(1000), "it looks again within the interval");
    assert_eq!(house.events().await, ["created"]);

    house.clock.advance(6 * MINUTE);
    house.turn().await;
    house.turn().await;
    assert_eq!(house.events().await, ["created", "escalated"]);
    let outbox = house.gateway.store().ready_outbox(house.clock.now(), 10);
    let mut effects: Vec<Effect> = outbox.await.expect("readable").iter().map(|entry| entry.effect).collect();
    effects.sort_unstable();
    assert_eq!(effects, [Effect::ShowRequest, Effect::NotifyEscalation]);
    let escalated = house.gateway.store().request(request.id).await.expect("readable").expect("there");
    assert_eq!(escalated.needs.approvals, [3, 0], "more must approve after the escalation");

    house.clock.advance(4 * MINUTE);
    house.turn().await;
    house.turn().await;
    assert_eq!(house.events().await, ["created", "escalated", "expired"]);
    assert!(house.approve(request.id, "U1").await.is_err());
}

/// How far the wall clock is set, in milliseconds.
const JUMPS: [i64; 4] = [-3_600_000, -20_000, 20_000, 3_600_000];

#[tokio::test]
async fn the_events_of_a_request_never_go_back_in_time() {
    for jump in [-3_600_000, -20_000, -1] {
        let house = House::ready().await;
        let [decided, cancelled, expired] =
            [house.ask("double").await, house.ask("double").await, house.ask("double").await]
                .map(|receipt| receipt.request.id);
        house.approve(decided, "U1").await.expect("counts");
        house.clock.jump(jump);
        house.approve(decided, "U9").await.expect_err("not an approver");
        house
            .gateway
            .check(decided, "U9", &Intent::approve(), None, None)
            .await
            .expect_err("not an approver");
        house.gateway.refuse(decided, "U2", Intent::approve(), Refusal::ParametersChanged, None).await;
        house.approve(decided, "U2").await.expect("counts although the clock is behind");
        house.gateway.cancel(cancelled, None).await.expect("it is open");
        let due = i128::from(MINUTE) * 10 - i128::from(jump);
        house.clock.advance(u64::try_from(due).expect("ahead"));
        house.turn().await;

        let audit =
            house.gateway.store().audit(&AuditCursor::default(), 1000).await.expect("readable").entries;
        for id in [decided, cancelled, expired] {
            let request = house.gateway.store().request(id).await.expect("readable").expect("there");
            let ended = request.decided_at().expect("it has ended");
            let history = request.history.iter().map(|event| event.at).chain([ended]);
            assert!(history.is_sorted(), "{jump}: {request:?}");
            let entries = audit.iter().filter(|entry| entry.request == Some(id));
            let times: Vec<Timestamp> = entries.map(|entry| entry.at).collect();
            assert!(times.len() >= 2 && times.is_sorted(), "{jump}: {times:?}");
        }
    }
}

#[tokio::test]
async fn a_request_expires_and_escalates_by_the_wall_clock_as_announced() {
    for jump in JUMPS {
        let house = House::ready().await;
        let request = house.ask("double").await.request;
        let expires_at = request.submission.expires_at;
        let escalate_at = request.submission.escalate_at.expect("it escalates");
        house.clock.jump(jump);
        house.turn().await;
        let passed = [("created", true), ("escalated", house.clock.now() >= escalate_at), ("expired", false)];
        if house.clock.now() >= expires_at {
            assert_eq!(house.events().await, ["created", "expired"], "{jump}: at once, and no notice");
            // What is made now has its whole time.
            let other = house.ask("double").await.request;
            house.clock.advance(10 * MINUTE - 1);
            house.turn().await;
            let stored = house.gateway.store().request(other.id).await.expect("readable").expect("there");
            assert!(!stored.status().is_terminal(), "{jump}");
            continue;
        }
        let names = passed.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
        assert_eq!(house.events().await, names.collect::<Vec<_>>(), "{jump}");
        for (at, event) in [(escalate_at, "escalated"), (expires_at, "expired")] {
            house.clock.advance(at.minus(1).since(house.clock.now()));
            house.turn().await;
            assert_ne!(house.events().await.last().map(String::as_str), Some(event), "{jump}");
            house.clock.advance(1);
            house.turn().await;
            assert_eq!(house.events().await.last().map(String::as_str), Some(event), "{jump}");
        }
    }
}

#[tokio::test]
async fn the_scheduler_sees_a_clock_that_was_set_ahead_within_its_interval() {
    let house = House::ready().await;
    let request = house.ask("single").await.request;
    let (running, mut watch) = house.running(request.id).await;
    house.clock.jump(3_600_000);
    house.clock.advance(1000);
    let Seen::Version(expired) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!(expired.status(), Status::Expired);
    running.abort();
}

#[tokio::test]
async fn the_scheduler_does_not_sleep_longer_for_a_clock_that_was_set_back() {
    for jump in [-3_600_000, -20_000] {
        let house = House::ready().await;
        let request = house.ask("single").await.request;
        let (running, mut watch) = house.running(request.id).await;
        house.clock.jump(jump);
        // A second of waiting is over after a second, and then the scheduler looks at a clock that was mended.
        house.clock.advance(999);
        tokio::task::yield_now().await;
        house.clock.jump(10 * 60_000 - jump);
        house.clock.advance(1);
        let Seen::Version(expired) = watch.next().await else { panic!("nothing was missed") };
        assert_eq!(expired.status(), Status::Expired, "{jump}");
        running.abort();
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_nobody_wait_longer_to_ask_again() {
    for jump in JUMPS {
        let house = House::ready().await;
        let first = house.ask("double").await.request;
        house.gateway.act(first.id, "U1", &Intent::Deny { reason: None }).await.expect("counts");
        house.clock.jump(jump);
        house.clock.advance(5 * MINUTE);
        let actor = Party { id: "U4".into(), source: "slack".into(), display: None };
        let again = Again { who: Who::of(&actor), party: actor };
        let made = house.gateway.rerequest(first.id, again.clone(), None, MostOpen::default(), None).await;
        // By 20 s, the cool-down is longer by as much at most.
        match made {
            Err(GatewayError::Cooldown { retry_after_ms }) => {
                assert_eq!((jump, retry_after_ms), (-20_000, 20_000));
            }
            made => assert!(made.is_ok(), "{jump}"),
        }
    }
}

#[tokio::test]
async fn a_turn_of_the_scheduler_does_not_wake_the_scheduler() {
    let house = House::ready().await;
    house.ask("double").await;
    let alarm = Arc::clone(house.gateway.alarm());
    assert_eq!(alarm.nearer().now_or_never(), Some(()), "the new request did");
    house.turn().await;
    assert_eq!(alarm.nearer().now_or_never(), None);
}

#[tokio::test]
async fn the_scheduler_wakes_for_what_is_nearer_than_it_knew() {
    let house = House::ready().await;
    let scheduler = Scheduler::new(Arc::clone(&house.gateway), 24 * 60 * MINUTE);
    let running = tokio::spawn(scheduler.run());
    let request = house.ask("double").await.request;
    let mut watch = house.gateway.watchers().watch(request.id);
    house.clock.advance(6 * MINUTE);
    let Seen::Version(escalated) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!(escalated.history.last().map(|event| event.act.name()), Some("escalated"));
    house.clock.advance(4 * MINUTE);
    let Seen::Version(expired) = watch.next().await else { panic!("nothing was missed") };
    assert_eq!(expired.status(), Status::Expired);
    running.abort();
}

#[tokio::test]
async fn a_policy_can_ask_to_be_woken() {
    let house = House::ready().await;
    let request = house.ask("window").await.request;
    assert_eq!(request.due_at(), Some(START.plus(2 * MINUTE)));
    house.clock.advance(2 * MINUTE);
    house.turn().await;
    let stored = house.gateway.store().request(request.id).await.expect("readable").expect("there");
    assert_eq!(stored.status(), Status::Approved);
}

#[tokio::test]
async fn what_came_due_while_the_gateway_was_down_happens_once() {
    let house = House::ready().await;
    let (first, second) = (house.ask("double").await.request, house.ask("single").await.request);
    house.clock.advance(11 * MINUTE);
    let house = house.restarted(ACTIONS).await;
    house.turn().await;
    for id in [first.id, second.id] {
        let stored = house.gateway.store().request(id).await.expect("readable").expect("there");
        assert_eq!(stored.status(), Status::Expired);
    }
    let events = house.events().await;
    assert_eq!(events.iter().filter(|event| *event == "expired").count(), 2);
    assert!(!events.contains(&"escalated".to_owned()), "a notice about an expired request helps nobody");
}
