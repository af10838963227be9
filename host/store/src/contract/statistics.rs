//! Promises of the port `Statistics`.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::lifecycle::{Count, Status};

use super::Backend;
use super::harness::{at_once, commit, create, opened};
use crate::OpenRequests;
use crate::fixtures::*;

pub(crate) async fn counters_add_up<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let one = |action| Count::one("denies_total", &[("action", action)]);
    let adding = at_once(30, |number| {
        let store = Arc::clone(&store);
        let counts = vec![one("a"), one("a"), Count::of("denies_total", &[("action", "b")], number)];
        async move { store.append(vec![], counts).await.unwrap() }
    });
    adding.await;
    store.append(vec![], vec![Count::of("plain_total", &[], 7)]).await.unwrap();
    store.append(vec![], vec![Count::one("two_total", &[("a", "x\"y"), ("b", "")])]).await.unwrap();
    let counter = |metric: &str, labels: &[(&str, &str)]| Count::one(metric, labels).counter;
    let expected = BTreeMap::from([
        (counter("denies_total", &[("action", "a")]), 60),
        (counter("denies_total", &[("action", "b")]), 435),
        (counter("plain_total", &[]), 7),
        (counter("two_total", &[("a", "x\"y"), ("b", "")]), 1),
    ]);
    assert_eq!(store.counters().await.unwrap(), expected);
    drop(store);
    assert_eq!(backend.open().await.counters().await.unwrap(), expected);
}

pub(crate) async fn open_requests_are_counted<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    assert_eq!(store.open_requests().await.unwrap(), []);
    let mut last = request(0);
    for (number, action, personas) in [(1, "b", 1), (2, "a", 0), (3, "a", 1), (4, "a", 1)] {
        last = request_at(number, at(number));
        Arc::make_mut(&mut last.submission).action = action.into();
        last.state = open(personas);
        create(&*store, &last).await;
    }
    let group = |action: &str, status, made: &[u64]| OpenRequests {
        action: action.to_owned(),
        status,
        count: made.len() as u64,
        oldest: at(made[0]),
        sum_submitted_ms: made.iter().map(|made| u128::from(at(*made).as_millis())).sum(),
    };
    let counted = async || {
        let mut groups = store.open_requests().await.unwrap();
        groups.sort_by_key(|group| (group.action.clone(), group.status));
        groups
    };
    let expected = [
        group("a", Status::AwaitingPersonas, &[3, 4]),
        group("a", Status::ReadyForApproval, &[2]),
        group("b", Status::AwaitingPersonas, &[1]),
    ];
    assert_eq!(counted().await, expected);
    commit(&*store, &next(&last, at(9), |request| request.state = open(0))).await;
    let moved = [
        group("a", Status::AwaitingPersonas, &[3]),
        group("a", Status::ReadyForApproval, &[2, 4]),
        group("b", Status::AwaitingPersonas, &[1]),
    ];
    assert_eq!(counted().await, moved);
}

pub(crate) async fn waiting_personas_are_counted<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let mut last = request(0);
    for (number, action, personas) in [(1, "a", 2), (2, "a", 1), (3, "b", 1), (4, "b", 0), (5, "a", 2)] {
        last = request(number);
        Arc::make_mut(&mut last.submission).action = action.into();
        last.state = open(personas);
        create(&*store, &last).await;
    }
    let waiting = async || {
        let mut waiting = store.waiting_personas().await.unwrap();
        waiting.sort();
        waiting
    };
    let row = |action: &str, persona: &str, count| (action.to_owned(), persona.to_owned(), count);
    assert_eq!(
        waiting().await,
        [row("a", "persona 0", 3), row("a", "persona 1", 2), row("b", "persona 0", 1)]
    );
    let acknowledged = next(&last, at(1), |request| request.state = open(1));
    commit(&*store, &acknowledged).await;
    assert_eq!(
        waiting().await,
        [row("a", "persona 0", 3), row("a", "persona 1", 1), row("b", "persona 0", 1)]
    );
    commit(&*store, &next(&acknowledged, at(2), |request| request.state = denied(at(2)))).await;
    assert_eq!(
        waiting().await,
        [row("a", "persona 0", 2), row("a", "persona 1", 1), row("b", "persona 0", 1)]
    );
}
