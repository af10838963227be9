//! A model of a store in the simplest terms; random operations must have the same results on both.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::lifecycle::{
    AuditEntry, Count, Counter, Digest, Effect, Open, Request, RequestId, RequirementKind, State, Submission,
    Timestamp,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Backend;
use super::harness::{Seen, opened, take};
use crate::fixtures::*;
use crate::{
    Commit, Committed, Create, Created, Idempotency, LONGEST_WAIT_MS, Nonce, OpenRequests, OutboxDepth,
    OutboxEntry, ReadyEntry, Store, Urgency,
};

pub(crate) async fn it_behaves_like_the_model<B: Backend>() {
    let config =
        Config { cases: Config::default().cases / 8, failure_persistence: None, ..Config::default() };
    let strategy = proptest::collection::vec(any_op(), 1..40);
    let runtime = tokio::runtime::Handle::current();
    let run = |ops: Vec<Op>| {
        runtime.block_on(async {
            let (backend, mut store) = opened::<B>().await;
            store.pin(vec![entry_with_channels()], vec![]).await.unwrap();
            let mut model = Model::default();
            for op in ops {
                if op == Op::Reopen {
                    drop(store);
                    store = backend.open().await;
                } else {
                    model.apply(&*store, &op).await;
                }
                model.compare(&*store, &op).await;
            }
        });
        Ok(())
    };
    let checked = tokio::task::block_in_place(|| TestRunner::new(config).run(&strategy, run));
    checked.unwrap_or_else(|error| panic!("{error}"));
}

/// The shards of the requests.
const SHARDS: u16 = 2;

/// An operation on a store.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    /// Slots 0 to 3 start a lineage, each second one in the same shard; 4 and 5 compete for depth 1 of slot 0's lineage.
    Create {
        slot: u64,
        key: Option<u64>,
    },
    /// Skips `skip` versions; any but 0 is a conflict.
    Commit {
        slot: u64,
        skip: u64,
        state: u8,
        effects: u8,
        /// A nonce that [`Op::Nonce`] claims too; the next one excludes it.
        nonce: Option<u8>,
    },
    Append {
        entries: usize,
        by: u64,
    },
    Claim {
        lease: u64,
    },
    /// `claimed` indexes all claims so far, newest first.
    Finish {
        claimed: usize,
        newer: u64,
    },
    Retry {
        claimed: usize,
        wait: u64,
        failed: bool,
    },
    Nonce {
        shard: u16,
        number: u8,
        lasts: u64,
    },
    Advance {
        by: u64,
    },
    Reopen,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..6_u64, proptest::option::of(0..3_u64)).prop_map(|(slot, key)| Op::Create { slot, key }),
        6 => (
            (0..6_u64, prop_oneof![8 => Just(0_u64), 1 => 1..3_u64], 0..8_u8, 0..4_u8),
            proptest::option::weighted(0.3, 0..3_u8),
        )
            .prop_map(|((slot, skip, state, effects), nonce)| {
                Op::Commit { slot, skip, state, effects, nonce }
            }),
        1 => (0..3_usize, 0..5_u64).prop_map(|(entries, by)| Op::Append { entries, by }),
        3 => (1..30_u64).prop_map(|lease| Op::Claim { lease }),
        3 => (0..3_usize, 0..2_u64).prop_map(|(claimed, newer)| Op::Finish { claimed, newer }),
        2 => (0..3_usize, 0..20_u64, any::<bool>())
            .prop_map(|(claimed, wait, failed)| Op::Retry { claimed, wait, failed }),
        1 => (0..SHARDS, 0..3_u8, 1..20_u64)
            .prop_map(|(shard, number, lasts)| Op::Nonce { shard, number, lasts }),
        3 => (1..15_u64).prop_map(|by| Op::Advance { by }),
        1 => Just(Op::Reopen),
    ]
}

/// The expected state.
#[derive(Default)]
struct Model {
    now: u64,
    requests: BTreeMap<RequestId, Request>,
    /// By shard and number.
    keys: BTreeMap<(u16, u64), (Idempotency, RequestId)>,
    outbox: BTreeMap<(RequestId, Effect), Waiting>,
    claimed: Vec<OutboxEntry>,
    audit: Vec<AuditEntry>,
    counters: BTreeMap<Counter, u64>,
    /// By shard and number.
    nonces: BTreeMap<(u16, u8), Timestamp>,
}

struct Waiting {
    urgency: Urgency,
    revision: u64,
    attempts: u32,
    since: Timestamp,
    ready_at: Timestamp,
    claim: Option<u64>,
}

/// The id of the request in this slot.
fn slot_id(slot: u64) -> RequestId {
    let shard = u16::try_from(slot).unwrap() % SHARDS;
    id_in(if slot < 4 { shard } else { 0 }, slot)
}

/// Nonces, like idempotency keys, are used in one shard alone.
fn nonce_digest(shard: u16, number: u8) -> Digest {
    Digest::of(&[number % 3, u8::try_from(shard).unwrap()])
}

fn shard_key(shard: u16, key: u64) -> u64 {
    key + 100 * u64::from(shard)
}

/// The first request of a lineage.
fn in_its_shard(slot: u64, made: Timestamp) -> Request {
    let id = slot_id(slot);
    let mut request = Request { id, ..request_at(slot, made) };
    Arc::make_mut(&mut request.submission).lineage = id;
    request
}

impl Waiting {
    fn is_ready(&self, now: Timestamp) -> bool {
        self.ready_at <= now || self.ready_at > now.plus(LONGEST_WAIT_MS)
    }
}

impl Model {
    /// Applies the operation to the store and to the model, and compares the results.
    async fn apply(&mut self, store: &dyn Store, op: &Op) {
        let now = at(self.now);
        match *op {
            Op::Create { slot, key } => {
                let request = self.slot(slot);
                let new = match key {
                    Some(key) => with_key(&request, shard_key(request.id.shard(), key), at(self.now + 20)),
                    None => new(&request),
                };
                let expected = self.create(&new, key);
                assert_eq!(store.create(new).await.unwrap(), expected, "{op:?}");
            }
            Op::Commit { slot, skip, state, effects, nonce } => {
                let stored = self.requests.get(&slot_id(slot)).cloned().unwrap_or_else(|| self.slot(slot));
                let changed = next(&stored, now, |request| {
                    request.version += skip;
                    request.state = match state {
                        0 => approved(now),
                        1 => State::Expired { at: now, by: None, reason: None },
                        wanted => open(wanted % 3),
                    };
                });
                let wanted =
                    [(1, Effect::ShowRequest), (2, Effect::NotifyEscalation), (4, Effect::NotifyReplaced)];
                let effects =
                    wanted.iter().filter(|(bit, _)| effects & bit != 0).map(|(_, effect)| *effect).collect();
                let shard = stored.id.shard();
                let digest = |number: u8| nonce_digest(shard, number);
                let commit = Commit {
                    effects,
                    nonce: nonce.map(|number| Nonce {
                        shard,
                        digest: digest(number),
                        excluded_by: digest(number + 1),
                        at: now,
                        until: at(self.now + 10),
                    }),
                    ..change(&changed)
                };
                let expected = self.commit(&commit, nonce);
                assert_eq!(store.commit(commit).await.unwrap(), expected, "{op:?}");
            }
            Op::Append { entries, by } => {
                let entries = vec![audit(&request(0), "appended"); entries];
                let counts = vec![Count::of("appended_total", &[], by); usize::from(by > 0)];
                self.keep(&entries, &counts);
                store.append(entries, counts).await.unwrap();
            }
            Op::Claim { lease } => {
                let until = at(self.now + lease);
                let mut ready = store.ready_outbox(now, 100).await.unwrap();
                ready.sort_by_key(|entry| (entry.request, entry.effect));
                assert_eq!(ready, self.ready(now), "{op:?}");
                let mut claimed = take(store, now, until, 100).await;
                claimed.sort_by_key(|entry| (entry.request, entry.effect));
                let ids = claimed.iter().map(|entry| entry.claim).collect();
                assert_eq!(claimed, self.claim(now, until, ids), "{op:?}");
                self.claimed.extend(claimed);
            }
            Op::Finish { claimed, newer } => {
                let Some(entry) = self.claimed.iter().rev().nth(claimed).cloned() else { return };
                let (key, delivered) = ((entry.request, entry.effect), entry.revision + newer);
                if self.outbox.get(&key).is_some_and(|waiting| waiting.revision <= delivered) {
                    self.outbox.remove(&key);
                } else if let Some(waiting) = self.held(&entry) {
                    (waiting.ready_at, waiting.claim) = (Timestamp::EPOCH, None);
                }
                store.finish_outbox(&entry, delivered).await.unwrap();
            }
            Op::Retry { claimed, wait, failed } => {
                let Some(entry) = self.claimed.iter().rev().nth(claimed).cloned() else { return };
                let ready_at = at(self.now + wait);
                if let Some(waiting) = self.held(&entry) {
                    (waiting.ready_at, waiting.claim) = (ready_at, None);
                    waiting.attempts += u32::from(failed);
                }
                store.retry_outbox(&entry, now, ready_at, failed).await.unwrap();
            }
            Op::Nonce { shard, number, lasts } => {
                let fresh = !self.has_nonce(shard, number);
                let digest = nonce_digest(shard, number);
                assert_eq!(store.has_nonce(shard, &digest, now).await.unwrap(), !fresh, "{op:?}");
                if fresh {
                    self.nonces.insert((shard, number), at(self.now + lasts));
                }
                let claimed = store.claim_nonce(shard, digest, now, at(self.now + lasts)).await;
                assert_eq!(claimed.unwrap(), fresh, "{op:?}");
            }
            Op::Advance { by } => self.now += by,
            Op::Reopen => {}
        }
    }

    /// The request of this slot, if it were created now.
    fn slot(&self, slot: u64) -> Request {
        let mut made = in_its_shard(slot, at(self.now));
        if slot % 2 == 1 {
            Arc::make_mut(&mut made.submission).policy_hash = entry_with_channels().hash();
        }
        match slot {
            0..4 => made,
            _ => again(&in_its_shard(0, at(self.now)), slot, 1),
        }
    }

    fn create(&mut self, new: &Create, key: Option<u64>) -> Created {
        let Create { request, idempotency, most_open: _, nonce: _, audit, effects, dispatches: _, counts } =
            new;
        let shard = request.id.shard();
        if let Some((known, id)) = key.and_then(|key| self.keys.get(&(shard, key)))
            && known.until > request.submission.submitted_at
        {
            return Created::Known(known.fingerprint, Box::new(self.requests[id].clone()));
        }
        let place = |it: &Request| (it.submission.lineage, it.submission.depth);
        if self.requests.values().any(|other| other.id == request.id || place(other) == place(request)) {
            return Created::LineageConflict;
        }
        let (lineage, depth) = place(request);
        if depth > 0 && !self.requests.values().any(|other| place(other) == (lineage, depth - 1)) {
            return Created::LineageConflict;
        }
        if let (Some(key), Some(idempotency)) = (key, idempotency) {
            self.keys.insert((shard, key), (*idempotency, request.id));
        }
        self.keep(audit, counts);
        self.ask(request, effects);
        self.requests.insert(request.id, request.clone());
        Created::New
    }

    fn has_nonce(&self, shard: u16, number: u8) -> bool {
        self.nonces.get(&(shard, number % 3)).is_some_and(|until| *until > at(self.now))
    }

    fn commit(&mut self, commit: &Commit, nonce: Option<u8>) -> Committed {
        let Commit { request, nonce: with, audit, effects, dispatches: _, counts } = commit;
        let shard = request.id.shard();
        if nonce.is_some_and(|number| self.has_nonce(shard, number) || self.has_nonce(shard, number + 1)) {
            return Committed::Repeated;
        }
        let keeps_its_end =
            |stored: &Request| !stored.status().is_terminal() || stored.status() == request.status();
        let fits = |stored: &Request| keeps_its_end(stored) && stored.version + 1 == request.version;
        if !self.requests.get(&request.id).is_some_and(fits) {
            return Committed::Conflict;
        }
        if let (Some(number), Some(with)) = (nonce, with) {
            self.nonces.insert((shard, number), with.until);
        }
        self.keep(audit, counts);
        self.ask(request, effects);
        self.requests.insert(request.id, request.clone());
        Committed::Done
    }

    fn keep(&mut self, audit: &[AuditEntry], counts: &[Count]) {
        self.audit.extend_from_slice(audit);
        for count in counts {
            *self.counters.entry(count.counter.clone()).or_default() += count.by;
        }
    }

    fn ask(&mut self, request: &Request, effects: &[Effect]) {
        let asked = request.history.last().unwrap().at;
        for effect in effects {
            let claimed = |waiting: &Waiting| waiting.claim.is_some();
            let urgency = match Urgency::of(request, *effect) {
                // The model posts nothing.
                Urgency::Ended if !self.outbox.get(&(request.id, *effect)).is_some_and(claimed) => {
                    Urgency::Unseen
                }
                other => other,
            };
            let waiting = self.outbox.entry((request.id, *effect)).or_insert(Waiting {
                urgency,
                revision: 0,
                attempts: 0,
                since: asked,
                ready_at: Timestamp::EPOCH,
                claim: None,
            });
            (waiting.revision, waiting.attempts) = (request.version, 0);
            waiting.urgency = if urgency == Urgency::Unseen { urgency } else { waiting.urgency.min(urgency) };
            if waiting.claim.is_none() {
                waiting.ready_at = Timestamp::EPOCH;
            }
        }
    }

    fn ready(&self, now: Timestamp) -> Vec<ReadyEntry> {
        let ready = self.outbox.iter().filter(|(_, waiting)| waiting.is_ready(now));
        let ready = ready.map(|(&(request, effect), waiting)| {
            let Waiting { urgency, revision, since, .. } = *waiting;
            let has_channels = self.requests[&request].submission.policy_hash == entry_with_channels().hash();
            let channel = match effect {
                _ if !has_channels => "",
                Effect::NotifyEscalation => "C9",
                Effect::ShowRequest | Effect::NotifyReplaced => "C1",
            };
            ReadyEntry { request, effect, urgency, channel: channel.to_owned(), revision, since }
        });
        ready.collect()
    }

    /// The entries that a claimer gets, whose claims have these ids.
    fn claim(&mut self, now: Timestamp, until: Timestamp, ids: Vec<u64>) -> Vec<OutboxEntry> {
        let ready = self.outbox.iter_mut().filter(|(_, waiting)| waiting.is_ready(now));
        let claimed = ready.zip(ids).map(|((&(request, effect), waiting), claim)| {
            let taken_over = waiting.claim.is_some();
            (waiting.ready_at, waiting.claim) = (until, Some(claim));
            let Waiting { revision, attempts, since, .. } = *waiting;
            OutboxEntry { request, effect, revision, attempts, since, claim, taken_over }
        });
        claimed.collect()
    }

    /// The entry, if this claim still holds it.
    fn held(&mut self, entry: &OutboxEntry) -> Option<&mut Waiting> {
        let waiting = self.outbox.get_mut(&(entry.request, entry.effect))?;
        (waiting.claim == Some(entry.claim)).then_some(waiting)
    }

    /// Compares everything that can be observed.
    async fn compare(&self, store: &dyn Store, op: &Op) {
        for slot in 0..6 {
            let id = slot_id(slot);
            let expected = self.requests.get(&id);
            assert_eq!(store.request(id).await.unwrap().as_ref(), expected, "{op:?}");
            let mut lineage: Vec<_> =
                self.requests.values().filter(|request| request.submission.lineage == id).collect();
            lineage.sort_by_key(|request| request.submission.depth);
            assert_eq!(
                store.lineage(id, 0, 100).await.unwrap().iter().collect::<Vec<_>>(),
                lineage,
                "{op:?}"
            );
        }
        for ((shard, key), (idempotency, request)) in &self.keys {
            let known = (at(self.now) < idempotency.until)
                .then(|| (idempotency.fingerprint, self.requests[request].clone()));
            let found =
                store.idempotent(*shard, &self::key(shard_key(*shard, *key)), at(self.now)).await.unwrap();
            assert_eq!(found, known, "{op:?}");
        }
        let seen = Seen::of(store).await;
        let mut audit = self.audit.clone();
        audit.sort_by_key(|entry| entry.request);
        assert_eq!(seen.audit, audit, "{op:?}");
        assert_eq!(seen.counters, self.counters, "{op:?}");
        let oldest = self.outbox.values().map(|waiting| waiting.since).min();
        assert_eq!(seen.depth, OutboxDepth { entries: self.outbox.len() as u64, oldest }, "{op:?}");

        let open = || self.requests.values().filter(|request| !request.status().is_terminal());
        let mut due: Vec<_> = open().map(|request| (request.due_at().unwrap(), request.id)).collect();
        due.sort_unstable();
        assert_eq!(seen.due, due, "{op:?}");
        let next = due.iter().map(|(due, _)| *due).find(|due| *due > at(self.now));
        assert_eq!(store.next_due(at(self.now)).await.unwrap(), next, "{op:?}");

        let mut groups: BTreeMap<_, Vec<Timestamp>> = BTreeMap::new();
        let mut waiting: BTreeMap<(String, String), u64> = BTreeMap::new();
        for request in open() {
            let Submission { action, submitted_at, .. } = &*request.submission;
            groups.entry((action.clone(), request.status())).or_default().push(*submitted_at);
            let State::Open(Open { requirements, .. }) = &request.state else { continue };
            for missing in requirements.iter().filter(|it| it.kind == RequirementKind::Acknowledgement) {
                *waiting.entry((action.clone(), missing.label.clone())).or_default() += 1;
            }
        }
        let groups = groups.into_iter().map(|((action, status), made)| OpenRequests {
            action,
            status,
            count: made.len() as u64,
            oldest: made.iter().min().copied().unwrap(),
            sum_submitted_ms: made.iter().map(|made| u128::from(made.as_millis())).sum(),
        });
        assert_eq!(seen.open, groups.collect::<Vec<_>>(), "{op:?}");
        let waiting = waiting.into_iter().map(|((action, persona), count)| (action, persona, count));
        assert_eq!(seen.waiting, waiting.collect::<Vec<_>>(), "{op:?}");
    }
}
