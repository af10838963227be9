//! Histories: what clients at once, on several instances, were answered, checked against what one request can do.
//!
//! A request is a register with a number, its version: a read returns it, and a commit moves it on by one if it is what
//! the client has read. A history is linearizable if each call can be placed at one moment between its start and its end
//! so that, one after the other, they give the answers that were given.
//!
//! Versions are unique and in order, so the moments need not be searched for. Each commit is placed as early as may be,
//! which is no loss: nothing asks a commit to be later than what makes it so here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::lifecycle::{Act, Event, Request};

use super::harness::{at_once, create, opened};
use super::{Backend, SharedBackend};
use crate::fixtures::*;
use crate::{Committed, Store};

/// How many requests are fought over, by how many clients, each with how many turns.
const REQUESTS: u64 = 3;
const CLIENTS: u64 = 12;
const TURNS: u64 = 25;

/// A call, and when it was made and answered by a clock that all clients share.
#[derive(Clone, Copy, Debug)]
struct Call {
    start: u64,
    end: u64,
    what: What,
}

/// What was called, and what was answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// The version, and who wrote it.
    Read { version: u64, by: u64 },
    /// A version by this writer was stored.
    Done { version: u64, by: u64 },
    /// A version was not stored, since another one was.
    Conflict { version: u64 },
}

/// Why a history is not linearizable; `None` if it is. It begins with version 1, by writer 0.
fn fault(history: &[Call]) -> Option<String> {
    let mut writes: BTreeMap<u64, Call> = BTreeMap::new();
    for call in history {
        if let What::Done { version, .. } = call.what
            && let Some(other) = writes.insert(version, *call)
        {
            return Some(format!("version {version} was stored twice: {other:?}, {call:?}"));
        }
    }
    // The moments of the commits, in order. Version 1 was there before everything.
    let (mut moment, mut writer, last) = (0, 0, writes.keys().next_back().copied().unwrap_or(1));
    for version in 1..=last + 1 {
        if version > 1 {
            let Some(write) = writes.get(&version) else { break };
            let What::Done { by, .. } = write.what else { break };
            // It comes after the version before it, after its call began, and after every call that still saw the one
            // before it began.
            let before =
                history.iter().filter(|call| call.what == What::Read { version: version - 1, by: writer });
            let reads = before.map(|call| call.start).max().unwrap_or_default();
            (moment, writer) = (moment.max(write.start).max(reads), by);
            if moment > write.end {
                return Some(format!(
                    "version {version} cannot have been stored within {write:?}: not before {moment}"
                ));
            }
        }
        for call in history {
            match call.what {
                What::Read { version: seen, by } if seen == version && by != writer => {
                    return Some(format!(
                        "{call:?} saw another version {version} than the one that was stored"
                    ));
                }
                What::Read { version: seen, .. } if seen == version && call.end < moment => {
                    return Some(format!("{call:?} saw version {version} before it was stored at {moment}"));
                }
                What::Conflict { version: lost } if lost == version && version > 1 && call.end < moment => {
                    return Some(format!(
                        "{call:?} lost to version {version} before it was stored at {moment}"
                    ));
                }
                _ => {}
            }
        }
    }
    let unknown = history.iter().find(|call| match call.what {
        What::Read { version, .. } | What::Conflict { version } => version > last,
        What::Done { .. } => false,
    });
    if let Some(call) = unknown {
        return Some(format!("{call:?} is about a version that nobody stored; the last one is {last}"));
    }
    let gap = writes.keys().zip(2..).find(|(version, expected)| **version != *expected);
    gap.map(|(_, expected)| format!("version {expected} was not stored, and a later one was"))
}

pub(crate) async fn a_history_is_linearizable<B: Backend>() {
    let (_backend, store) = opened::<B>().await;
    check(&[store]).await;
}

pub(crate) async fn a_history_of_several_instances_is_linearizable<B: SharedBackend>() {
    let backend = B::fresh().await;
    check(&[backend.open().await, backend.open().await, backend.open().await]).await;
}

/// Lets clients read and commit at once, and checks what they were answered.
async fn check(stores: &[Arc<dyn Store>]) {
    for number in 0..REQUESTS {
        create(&*stores[0], &written(&request(number), 0)).await;
    }
    let (clock, writers) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1)));
    let histories = at_once(CLIENTS, |client| {
        let store = Arc::clone(&stores[usize::try_from(client).unwrap() % stores.len()]);
        let (clock, writers) = (Arc::clone(&clock), Arc::clone(&writers));
        async move {
            let tick = || clock.fetch_add(1, Ordering::SeqCst);
            let mut calls = Vec::new();
            for turn in 0..TURNS {
                let number = (client + turn) % REQUESTS;
                let start = tick();
                let read = store.request(id(number)).await.unwrap().unwrap();
                let what = What::Read { version: read.version, by: writer(&read) };
                calls.push((number, Call { start, end: tick(), what }));

                let by = writers.fetch_add(1, Ordering::SeqCst);
                let changed = written(&next(&read, at(turn), |_| {}), by);
                let (version, start) = (changed.version, tick());
                let what = match store.commit(change(&changed)).await.unwrap() {
                    Committed::Done => What::Done { version, by },
                    Committed::Conflict => What::Conflict { version },
                    Committed::Repeated => unreachable!("there is no nonce"),
                };
                calls.push((number, Call { start, end: tick(), what }));
            }
            calls
        }
    });
    let calls: Vec<(u64, Call)> = histories.await.into_iter().flatten().collect();
    for number in 0..REQUESTS {
        let history: Vec<Call> =
            calls.iter().filter(|(of, _)| *of == number).map(|(_, call)| *call).collect();
        assert!(history.iter().any(|call| matches!(call.what, What::Done { .. })), "nobody could write");
        assert_eq!(fault(&history), None, "{history:#?}");
    }
}

/// The version, as this writer's.
fn written(request: &Request, by: u64) -> Request {
    let mut request = request.clone();
    let last = Event { seq: by.try_into().unwrap(), at: at(0), by: None, act: Act::Submitted };
    request.history = vec![last];
    request
}

fn writer(request: &Request) -> u64 {
    request.history[0].seq.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(start: u64, end: u64, what: What) -> Call {
        Call { start, end, what }
    }

    fn read(start: u64, end: u64, version: u64, by: u64) -> Call {
        call(start, end, What::Read { version, by })
    }

    fn done(start: u64, end: u64, version: u64, by: u64) -> Call {
        call(start, end, What::Done { version, by })
    }

    fn conflict(start: u64, end: u64, version: u64) -> Call {
        call(start, end, What::Conflict { version })
    }

    #[test]
    fn what_can_happen_is_accepted() {
        let histories = [
            vec![],
            vec![read(1, 2, 1, 0), done(3, 6, 2, 7), read(7, 8, 2, 7)],
            // At the same time either version may be seen, and a commit that lost may have begun before the one that won.
            vec![
                done(1, 10, 2, 7),
                read(2, 3, 1, 0),
                read(4, 5, 2, 7),
                conflict(1, 6, 2),
                read(11, 12, 2, 7),
            ],
            vec![done(1, 9, 2, 7), done(3, 8, 3, 9), read(4, 5, 2, 7), read(6, 7, 3, 9)],
        ];
        for history in histories {
            assert_eq!(fault(&history), None, "{history:?}");
        }
    }

    #[test]
    fn what_cannot_have_happened_is_refused() {
        let histories = [
            ("stored twice", vec![done(1, 2, 2, 7), done(3, 4, 2, 8)]),
            ("read an old version afterwards", vec![done(1, 2, 2, 7), read(3, 4, 1, 0)]),
            ("read before it was begun", vec![read(1, 2, 2, 7), done(3, 4, 2, 7)]),
            ("seen, and then not", vec![done(1, 10, 2, 7), read(2, 3, 2, 7), read(4, 5, 1, 0)]),
            ("in the wrong order", vec![done(5, 6, 2, 7), done(1, 2, 3, 8)]),
            ("of another writer", vec![done(1, 2, 2, 7), read(3, 4, 2, 8)]),
            ("never stored", vec![read(1, 2, 2, 7)]),
            ("lost to nobody", vec![conflict(1, 2, 2)]),
            ("lost before anybody won", vec![conflict(1, 2, 2), done(3, 4, 2, 7)]),
            ("with a gap", vec![done(1, 2, 3, 7)]),
            ("old on another instance", vec![done(1, 2, 2, 7), done(3, 4, 3, 8), read(5, 6, 2, 7)]),
        ];
        for (what, history) in histories {
            assert!(fault(&history).is_some(), "{what}: {history:?}");
        }
    }
}
