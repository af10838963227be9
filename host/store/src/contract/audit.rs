//! Promises of the port `Audit`.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::lifecycle::{AuditEntry, Digest, Request, RequestId, Timestamp};
use serde_json::json;

use super::Backend;
use super::harness::{at_once, create, opened};
use crate::fixtures::*;
use crate::{AuditCursor, AuditPage, AuditRange, Committed, Created, KeptCheckpoint, LogEntry, Store};

pub(crate) async fn audit_entries_stay_in_order<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let request = request(1);
    let mut written = Vec::new();
    for number in 0..7_u64 {
        let mut entry = audit(&request, &format!("event {number}"));
        // The order is that of the writes, not of the times.
        entry.at = at(100 - number);
        if number == 3 {
            (entry.request, entry.status, entry.actor) = (None, None, Some("U1".into()));
        }
        entry.detail.insert("approvers".into(), json!(["U1", { "deep": [1.5, null] }]));
        written.push(entry);
    }
    store.append(written[..3].to_vec(), vec![]).await.unwrap();
    store.append(vec![], vec![]).await.unwrap();
    store.append(written[3..4].to_vec(), vec![]).await.unwrap();
    store.append(written[4..].to_vec(), vec![]).await.unwrap();

    let page = async |after: &AuditCursor, limit| store.audit(after, limit).await.unwrap();
    let start = AuditCursor::default();
    let all = page(&start, 100).await;
    assert_eq!(about(&all.entries, Some(request.id)), about(&written, Some(request.id)));
    assert_eq!(about(&all.entries, None), about(&written, None));
    assert_eq!(all.entries.len(), written.len());
    assert_eq!(page(&all.next, 100).await, AuditPage { entries: vec![], next: all.next.clone() });
    let mut paged = Vec::new();
    let mut after = start.clone();
    loop {
        let AuditPage { entries, next } = page(&after, 2).await;
        assert!(entries.len() <= 2);
        if entries.is_empty() {
            break;
        }
        paged.extend(entries);
        after = next;
    }
    assert_eq!(paged.len(), written.len());
    assert_eq!(about(&paged, Some(request.id)), about(&written, Some(request.id)));
    assert_eq!(page(&start, 0).await.entries, []);

    // Whoever has read everything hears of what is written afterwards, whatever it is about.
    for number in 1..40 {
        let later = audit(&self::request(number), "later");
        store.append(vec![later.clone()], vec![]).await.unwrap();
        let AuditPage { entries, next } = page(&after, 9).await;
        assert_eq!(entries, [later]);
        after = next;
    }
    for broken in ["no place", "-", "1;2"] {
        assert!(store.audit(&AuditCursor(broken.to_owned()), 9).await.is_err(), "{broken}");
    }
}

/// Whatever is stored at once, and whatever is refused: each partition has the numbers from 1 on, each once.
pub(crate) async fn entries_are_numbered_without_gaps<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let partitions = store.audit_sizes().await.unwrap().len();
    assert_eq!(store.audit_sizes().await.unwrap(), vec![0; partitions]);
    at_once(40, |number| {
        let store = Arc::clone(&store);
        async move {
            let request = request_in(u16::try_from(number % 20).unwrap(), number);
            create(store.as_ref(), &request).await;
            // Refused, so it leaves nothing.
            assert_ne!(store.create(new(&request)).await.unwrap(), Created::New);
            let about_none = AuditEntry { request: None, ..audit(&request, "none") };
            store.append(vec![about_none.clone(), about_none], vec![]).await.unwrap();
            store.append(vec![audit(&request, "more"), audit(&request, "most")], vec![]).await.unwrap();
        }
    })
    .await;
    let read = async |store: &dyn Store| {
        let mut entries = Vec::new();
        let mut after = AuditCursor::default();
        loop {
            let page = store.audit_log(AuditRange::default(), &after, 7).await.unwrap();
            entries.extend(page.entries);
            after = page.next;
            if page.is_last {
                return entries;
            }
        }
    };
    let entries = read(store.as_ref()).await;
    assert_eq!(entries.len(), 40 * 5);
    let sizes = store.audit_sizes().await.unwrap();
    let mut seen = vec![0; partitions];
    for LogEntry { partition, number, digest, body, .. } in &entries {
        seen[usize::from(*partition)] += 1;
        assert_eq!(*number, seen[usize::from(*partition)], "of partition {partition}");
        assert_eq!(*digest, Digest::of(body.as_bytes()));
    }
    assert_eq!(seen, sizes);
    assert_eq!(sizes[partitions - 1], 80, "what is about no request is in the last one");
    for entry in &entries {
        let about = entry.entry().unwrap();
        // The bytes are canonical, so that the digest is that of the entry, whoever computes it.
        assert_eq!(about.digest(), entry.digest);
        let shard = about.request.map(|request| usize::from(request.shard()) % (partitions - 1));
        assert_eq!(usize::from(entry.partition), shard.unwrap_or(partitions - 1));
    }
    let at_the_end = store.audit_entries_at(&sizes).await.unwrap();
    if let Some(at_the_end) = at_the_end {
        for (partition, entry) in (0..).zip(at_the_end) {
            let last = entries.iter().rfind(|entry| entry.partition == partition);
            assert_eq!(entry.as_ref(), last);
        }
    }
    let mut after = AuditCursor::default();
    assert_eq!(store.audit_before(&after).await.unwrap(), []);
    let mut last = BTreeMap::new();
    loop {
        let page = store.audit_log(AuditRange::default(), &after, 7).await.unwrap();
        last.extend(page.entries.into_iter().map(|entry| (entry.partition, entry)));
        after = page.next;
        let before = store.audit_before(&after).await.unwrap();
        assert!(!before.is_empty());
        for entry in before {
            assert_eq!(last.get(&entry.partition), Some(&entry));
        }
        if page.is_last {
            break;
        }
    }
    drop(store);
    let store = backend.open().await;
    create(store.as_ref(), &request(7)).await;
    assert_eq!(store.audit_sizes().await.unwrap().iter().sum::<u64>(), 201);
    assert_eq!(read(store.as_ref()).await.len(), 201);
}

pub(crate) async fn entries_about_a_request_are_found<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let (one, other) = (request_in(3, 1), request_in(3, 2));
    for number in 0..5 {
        for request in [&one, &other] {
            let entry = AuditEntry { at: at(number), ..audit(request, &format!("event {number}")) };
            store.append(vec![entry], vec![]).await.unwrap();
        }
    }
    let read = async |request: RequestId, period, limit| {
        let (mut found, mut after) = (Vec::new(), AuditCursor::default());
        loop {
            let range = AuditRange { request: Some(request), period };
            let page = store.audit_log(range, &after, limit).await.unwrap();
            assert!(page.entries.len() <= limit);
            found.extend(page.entries.iter().map(|entry| entry.entry().unwrap()));
            after = page.next;
            if page.is_last {
                break found;
            }
        }
    };
    for limit in [1, 2, 5, 100] {
        let found = read(other.id, None, limit).await;
        let events: Vec<&str> = found.iter().map(|entry| entry.event.as_str()).collect();
        assert_eq!(events, ["event 0", "event 1", "event 2", "event 3", "event 4"]);
        assert!(found.iter().all(|entry| entry.request == Some(other.id)));
        let found = read(one.id, Some((at(1), at(3))), limit).await;
        assert_eq!(found.iter().map(|entry| entry.at).collect::<Vec<_>>(), [at(1), at(2)]);
    }
    assert_eq!(read(id_in(3, 9), None, 10).await, []);
}

/// Also if a clock was set: by the time that entries have, not by when they were stored.
pub(crate) async fn entries_of_a_period_are_found<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let mut times = Vec::new();
    for number in 0..700_u64 {
        // It is set back for a while, in the midst.
        let time = if number < 300 { number } else { number - 250 };
        let request = request_in(u16::try_from(number % 2).unwrap(), 1);
        let mut entry = AuditEntry { at: at(time), ..audit(&request, "timed") };
        if number % 5 == 0 {
            entry.request = None;
        }
        times.push(entry.at);
        store.append(vec![entry], vec![]).await.unwrap();
    }
    times.sort_unstable();
    let read = async |from, to, limit| {
        let (mut found, mut after) = (Vec::new(), AuditCursor::default());
        for _ in 0..2000 {
            let range = AuditRange { request: None, period: Some((from, to)) };
            let page = store.audit_log(range, &after, limit).await.unwrap();
            assert!(page.entries.len() <= limit);
            found.extend(page.entries.iter().map(|entry| entry.entry().unwrap().at));
            after = page.next;
            if page.is_last {
                break;
            }
        }
        found.sort_unstable();
        found
    };
    for (from, to, limit) in [(0, 1000, 1000), (0, 1000, 13), (120, 130, 3), (299, 300, 10), (440, 450, 100)]
    {
        let expected: Vec<Timestamp> =
            times.iter().copied().filter(|time| (at(from)..at(to)).contains(time)).collect();
        assert!(!expected.is_empty() || from > 449);
        assert_eq!(read(at(from), at(to), limit).await, expected, "{from} to {to}");
    }
    assert_eq!(read(at(800), at(900), 10).await, []);
    // Whoever has read to the end of a period that is not over hears of what comes later.
    let range = AuditRange { request: None, period: Some((at(440), at(10_000))) };
    let page = store.audit_log(range, &AuditCursor::default(), 1000).await.unwrap();
    assert!(page.is_last);
    let later = AuditEntry { at: at(2000), ..audit(&request_in(1, 1), "later") };
    store.append(vec![later.clone()], vec![]).await.unwrap();
    let page = store.audit_log(range, &page.next, 1000).await.unwrap();
    assert_eq!(page.entries.iter().map(|entry| entry.entry().unwrap()).collect::<Vec<_>>(), [later]);
    // A place in one range is none in another.
    let place = AuditCursor("1;2".into());
    assert!(store.audit_log(range, &place, 9).await.is_err());
}

pub(crate) async fn a_checkpoint_follows_the_one_before_it<B: Backend>() {
    let (backend, store) = opened::<B>().await;
    let checkpoint = |sequence: u64, note: &str| KeptCheckpoint {
        sequence,
        note: format!("{note}\n\n\u{2014} key sig\n"),
        state: format!("state of {note}"),
    };
    let keep = async |sequence, note| store.keep_audit_checkpoint(checkpoint(sequence, note)).await.unwrap();
    assert_eq!(store.audit_checkpoint().await.unwrap(), None);
    assert_eq!(keep(2, "too late").await, Committed::Conflict);
    assert_eq!(keep(1, "first").await, Committed::Done);
    assert_eq!(keep(1, "again").await, Committed::Conflict);
    assert_eq!(keep(3, "too late").await, Committed::Conflict);
    assert_eq!(keep(2, "second").await, Committed::Done);
    assert_eq!(store.audit_checkpoint().await.unwrap(), Some(checkpoint(2, "second")));
    let wins = at_once(8, |number| {
        let (store, next) = (Arc::clone(&store), checkpoint(3, &format!("{number}")));
        async move { store.keep_audit_checkpoint(next).await.unwrap() == Committed::Done }
    });
    assert_eq!(wins.await.into_iter().filter(|won| *won).count(), 1);
    drop(store);
    assert_eq!(backend.open().await.audit_checkpoint().await.unwrap().unwrap().sequence, 3);
}

/// The entries about this request, or about none.
fn about(entries: &[AuditEntry], request: Option<RequestId>) -> Vec<AuditEntry> {
    entries.iter().filter(|entry| entry.request == request).cloned().collect()
}

fn entry_at(request: &Request, number: u64) -> AuditEntry {
    AuditEntry { at: at(number), ..audit(request, &format!("event {number}")) }
}

pub(crate) async fn the_oldest_entries_of_a_partition_are_removed<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    let [first, second] = [request_in(3, 1), request_in(3, 2)];
    let other = request_in(4, 3);
    // More than a block of an index.
    for number in 0..300 {
        let about = if number % 3 == 0 { &first } else { &second };
        store.append(vec![entry_at(about, number)], vec![]).await.unwrap();
    }
    store.append(vec![entry_at(&other, 5)], vec![]).await.unwrap();
    let mut about_none = entry_at(&first, 400);
    about_none.request = None;
    assert_eq!(store.append_to(3, about_none.clone()).await.unwrap(), 301);
    let sizes = store.audit_sizes().await.unwrap();
    let numbers = async |range: AuditRange| {
        let page = store.audit_log(range, &AuditCursor::default(), 1000).await.unwrap();
        page.entries.iter().filter(|it| it.partition == 3).map(|it| it.number).collect::<Vec<u64>>()
    };
    for through in [100, 100, 270] {
        store.remove_audit(3, through).await.unwrap();
        assert_eq!(numbers(AuditRange::default()).await, (through + 1..=301).collect::<Vec<_>>());
        let period = Some((at(0), at(290)));
        assert_eq!(
            numbers(AuditRange { request: None, period }).await,
            (through + 1..=290).collect::<Vec<_>>()
        );
        let of_first = AuditRange { request: Some(first.id), period: None };
        let expected: Vec<u64> = (through + 1..=300).filter(|number| number % 3 == 1).collect();
        assert_eq!(numbers(of_first).await, expected);
    }
    assert_eq!(store.audit_sizes().await.unwrap(), sizes, "the numbers go on");
    store.append(vec![entry_at(&first, 500)], vec![]).await.unwrap();
    assert_eq!(numbers(AuditRange::default()).await.last(), Some(&302));
    let page = store.audit_log(AuditRange::default(), &AuditCursor::default(), 1000).await.unwrap();
    assert!(page.entries.iter().any(|it| it.partition == 4), "other partitions stay");
    assert!(page.entries.iter().any(|it| it.entry().unwrap() == about_none));
}
