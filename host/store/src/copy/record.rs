//! What a store holds, as records that no backend is needed to understand.

use countersign_core::lifecycle::{Digest, Request, RequestId, WrappedSalt};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Request,
    Superseding,
    Idempotency,
    Nonce,
    Outbox,
    Dispatch,
    Message,
    Audit,
    Checkpoint,
    Counter,
    Entry,
    Module,
    Signature,
    Set,
    Change,
    Document,
}

impl Kind {
    /// Each after those that it needs to be there.
    pub(crate) const ALL: [Kind; 16] = [
        Kind::Entry,
        Kind::Module,
        Kind::Signature,
        Kind::Set,
        Kind::Change,
        Kind::Document,
        Kind::Request,
        Kind::Superseding,
        Kind::Idempotency,
        Kind::Nonce,
        Kind::Outbox,
        Kind::Dispatch,
        Kind::Message,
        Kind::Audit,
        Kind::Checkpoint,
        Kind::Counter,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Request => "requests",
            Kind::Superseding => "supersede keys",
            Kind::Idempotency => "idempotency keys",
            Kind::Nonce => "nonces",
            Kind::Outbox => "outbox entries",
            Kind::Dispatch => "dispatches",
            Kind::Message => "messages",
            Kind::Audit => "audit entries",
            Kind::Checkpoint => "checkpoints of the audit log",
            Kind::Counter => "counters",
            Kind::Entry => "policy entries",
            Kind::Module => "modules",
            Kind::Signature => "signatures",
            Kind::Set => "policy sets",
            Kind::Change => "policy changes",
            Kind::Document => "documents",
        }
    }

    /// Whether the records of the kind have an order that is kept.
    pub(crate) const fn is_ordered(self) -> bool {
        matches!(self, Kind::Set | Kind::Change)
    }
}

/// The part of a store that a record is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Home {
    /// The store has no parts.
    Whole,
    /// A partition of requests.
    Partition(u16),
}

/// A record. Times are in milliseconds since the epoch; bodies are kept as they were stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// A request with its salt. `body` is its JSON.
    Request { request: Box<Request>, body: String },
    /// The open requests with a supersede key, in the order in which they came.
    Superseding { key: Digest, requests: Vec<RequestId> },
    /// An idempotency key, which belongs to the shard of its request.
    Idempotency { key: Digest, fingerprint: Digest, request: RequestId, until: u64 },
    /// A nonce. Which shard it belongs to is known as far as its home says it.
    Nonce { home: Home, digest: Digest, until: u64 },
    /// An outbox entry, unclaimed: one that was claimed is ready when the claim ends.
    Outbox(OutboxRecord),
    /// A dispatch, unclaimed: one that was claimed is ready when the claim ends.
    Dispatch(DispatchRecord),
    /// The delivery state of a message. `refresh_at` may be later than its body says, if the refresh was claimed.
    Message {
        request: RequestId,
        slot: String,
        revision: u64,
        channel: String,
        refresh_at: Option<u64>,
        body: String,
    },
    /// An audit entry, with its place in the log and what is kept beside it. It says by itself where it belongs.
    Audit(AuditRecord),
    /// The newest checkpoint of the audit log.
    Checkpoint { sequence: u64, note: String, state: String },
    /// A counter's value, or a part of it. `labels` is JSON.
    Counter { metric: String, labels: String, value: u64 },
    /// A policy entry.
    Entry { hash: Digest, body: String },
    /// A module.
    Module { digest: Digest, bytes: Vec<u8> },
    /// A signature over a digest.
    Signature { digest: Digest, signature: Vec<u8> },
    /// A policy set.
    Set { hash: Digest, stored_at: u64, entries: String, document: String },
    /// A change of the policy set in force, with the set that it put in force, if any.
    Change { in_force: Option<Digest>, body: String },
    /// A document.
    Document { key: String, value: Vec<u8> },
}

/// An outbox entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutboxRecord {
    pub(crate) request: RequestId,
    pub(crate) effect: String,
    pub(crate) revision: u64,
    pub(crate) attempts: u64,
    pub(crate) since: u64,
    pub(crate) ready_at: u64,
    pub(crate) urgency: u64,
    pub(crate) channel: String,
}

/// A dispatch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DispatchRecord {
    pub(crate) request: RequestId,
    pub(crate) target: String,
    pub(crate) position: u64,
    pub(crate) revision: u64,
    pub(crate) attempts: u64,
    pub(crate) since: u64,
    /// Of a dead letter, when it died.
    pub(crate) ready_at: u64,
    /// Of a dead letter, why.
    pub(crate) failure: Option<String>,
}

/// An entry of the audit log, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AuditRecord {
    /// The number of its row, of which places in the log of a database are made; a Redis has none. It is kept from one
    /// database to another, so that places stay what they were, and is not compared.
    pub(crate) row: Option<i64>,
    pub(crate) partition: u16,
    pub(crate) number: u64,
    pub(crate) at: u64,
    pub(crate) request: Option<RequestId>,
    pub(crate) digest: Digest,
    pub(crate) body: String,
}

/// What became of a record that was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It is there now.
    New,
    /// It was there already: it was read twice.
    Same,
    /// It took the place of this one.
    Replaced(Box<Record>),
    /// Another one has its place.
    Clash,
}

impl Record {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Record::Request { .. } => Kind::Request,
            Record::Superseding { .. } => Kind::Superseding,
            Record::Idempotency { .. } => Kind::Idempotency,
            Record::Nonce { .. } => Kind::Nonce,
            Record::Outbox(_) => Kind::Outbox,
            Record::Dispatch(_) => Kind::Dispatch,
            Record::Message { .. } => Kind::Message,
            Record::Audit(_) => Kind::Audit,
            Record::Checkpoint { .. } => Kind::Checkpoint,
            Record::Counter { .. } => Kind::Counter,
            Record::Entry { .. } => Kind::Entry,
            Record::Module { .. } => Kind::Module,
            Record::Signature { .. } => Kind::Signature,
            Record::Set { .. } => Kind::Set,
            Record::Change { .. } => Kind::Change,
            Record::Document { .. } => Kind::Document,
        }
    }

    pub(crate) const fn home(&self) -> Home {
        match self {
            Record::Nonce { home, .. } => *home,
            _ => Home::Whole,
        }
    }

    /// The record in a store that has no parts.
    pub(crate) fn whole(mut self) -> Record {
        if let Record::Nonce { home, .. } = &mut self {
            *home = Home::Whole;
        }
        self
    }

    /// What it is known by, for error messages.
    pub(crate) fn key(&self) -> String {
        match self {
            Record::Request { request, .. } => request.id.to_string(),
            Record::Idempotency { key: digest, .. }
            | Record::Superseding { key: digest, .. }
            | Record::Nonce { digest, .. }
            | Record::Entry { hash: digest, .. }
            | Record::Module { digest, .. }
            | Record::Signature { digest, .. }
            | Record::Set { hash: digest, .. } => digest.to_string(),
            Record::Outbox(entry) => format!("{}:{}", entry.request, entry.effect),
            Record::Dispatch(entry) => format!("{}:{}", entry.request, entry.target),
            Record::Message { request, slot, .. } => format!("{request}:{slot}"),
            Record::Audit(AuditRecord { partition, number, .. }) => format!("{partition}/{number}"),
            Record::Checkpoint { sequence, .. } => sequence.to_string(),
            Record::Counter { metric, labels, .. } => format!("{metric} {labels}"),
            Record::Change { .. } => String::new(),
            Record::Document { key, .. } => key.clone(),
        }
    }

    /// All that is compared, each part with its length before it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut parts = Parts::default();
        parts.put(self.kind().name().as_bytes());
        match self.home() {
            Home::Whole => parts.put(b""),
            Home::Partition(partition) => parts.put(&partition.to_be_bytes()),
        }
        match self {
            Record::Request { request, body } => {
                parts.put(&request.id.to_bytes());
                parts.number(request.version);
                parts.put(body.as_bytes());
                if let Some(WrappedSalt { key, sealed }) = &request.submission.salt {
                    parts.put(key.as_bytes());
                    parts.put(sealed);
                }
            }
            Record::Superseding { key, requests } => {
                parts.put(key.as_bytes());
                requests.iter().for_each(|request| parts.put(&request.to_bytes()));
            }
            Record::Idempotency { key, fingerprint, request, until } => {
                parts.put(key.as_bytes());
                parts.put(fingerprint.as_bytes());
                parts.put(&request.to_bytes());
                parts.number(*until);
            }
            Record::Nonce { home: _, digest, until } => {
                parts.put(digest.as_bytes());
                parts.number(*until);
            }
            Record::Outbox(OutboxRecord {
                request,
                effect,
                revision,
                attempts,
                since,
                ready_at,
                urgency,
                channel,
            }) => {
                parts.put(&request.to_bytes());
                parts.put(effect.as_bytes());
                parts.put(channel.as_bytes());
                [revision, attempts, since, ready_at, urgency].into_iter().for_each(|it| parts.number(*it));
            }
            Record::Dispatch(DispatchRecord {
                request,
                target,
                position,
                revision,
                attempts,
                since,
                ready_at,
                failure,
            }) => {
                parts.put(&request.to_bytes());
                parts.put(target.as_bytes());
                [position, revision, attempts, since, ready_at].into_iter().for_each(|it| parts.number(*it));
                parts.put(if failure.is_some() { b"dead" } else { b"" });
                parts.put(failure.as_deref().unwrap_or_default().as_bytes());
            }
            Record::Message { request, slot, revision, channel, refresh_at, body } => {
                parts.put(&request.to_bytes());
                parts.put(slot.as_bytes());
                parts.number(*revision);
                parts.put(channel.as_bytes());
                parts.put(&refresh_at.map(u64::to_be_bytes).unwrap_or_default());
                parts.put(if refresh_at.is_some() { b"refreshed" } else { b"" });
                parts.put(body.as_bytes());
            }
            Record::Audit(AuditRecord { row: _, partition, number, at, request, digest, body }) => {
                parts.put(&partition.to_be_bytes());
                [number, at].into_iter().for_each(|it| parts.number(*it));
                parts.put(&request.map(RequestId::to_bytes).unwrap_or_default());
                parts.put(digest.as_bytes());
                parts.put(body.as_bytes());
            }
            Record::Checkpoint { sequence, note, state } => {
                parts.number(*sequence);
                parts.put(note.as_bytes());
                parts.put(state.as_bytes());
            }
            Record::Counter { metric, labels, value } => {
                parts.put(metric.as_bytes());
                parts.put(labels.as_bytes());
                parts.number(*value);
            }
            Record::Entry { hash, body } => {
                parts.put(hash.as_bytes());
                parts.put(body.as_bytes());
            }
            Record::Module { digest, bytes: value } | Record::Signature { digest, signature: value } => {
                parts.put(digest.as_bytes());
                parts.put(value);
            }
            Record::Set { hash, stored_at, entries, document } => {
                parts.put(hash.as_bytes());
                parts.number(*stored_at);
                parts.put(entries.as_bytes());
                parts.put(document.as_bytes());
            }
            Record::Change { in_force, body } => {
                parts.put(in_force.as_ref().map(|set| set.as_bytes().as_slice()).unwrap_or_default());
                parts.put(body.as_bytes());
            }
            Record::Document { key, value } => {
                parts.put(key.as_bytes());
                parts.put(value);
            }
        }
        parts.0
    }
}

#[derive(Default)]
struct Parts(Vec<u8>);

impl Parts {
    fn put(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
    }

    fn number(&mut self, number: u64) {
        self.put(&number.to_be_bytes());
    }
}
