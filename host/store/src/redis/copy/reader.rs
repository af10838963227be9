//! Reads a store: first what has an order, then every key.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use countersign_core::lifecycle::{AuditEntry, Digest, RequestId};
use countersign_core::record::PolicyChange;
use redis::Value;

use super::Scan;
use super::keys::{Key, Use};
use crate::copy::{AuditRecord, CopyError, DispatchRecord, Home, Kind, OutboxRecord, Record};
use crate::redis::Space;
use crate::redis::audit::newest_checkpoint;
use crate::redis::call::{Call, Tag};
use crate::redis::reply::Place;
use crate::redis::request_row::{FIELDS, StoredRequest};
use crate::redis::script::LIST_SETS;
use crate::redis::supersede::Stands;
use crate::{KeptCheckpoint, StoreError};

/// How many entries of a list or a log are read at once.
const PAGE: u64 = 500;

/// How many keys are read at once. Values can be large.
const KEYS: usize = 100;

/// Reads a store page by page.
pub(crate) struct RedisReader {
    space: Arc<Space>,
    /// What is still to be read before the keys are looked for.
    steps: VecDeque<Step>,
    scan: Scan,
    /// Keys that were found and are not read yet.
    found: VecDeque<Key>,
    /// The supersede keys that were found, with where each is kept. They come last, when the requests are there.
    superseding: BTreeMap<String, Tag>,
}

/// A part of what has an order.
enum Step {
    /// The audit log of a part, from above this number.
    Audit(Tag, u16, u64),
    /// The newest checkpoint of the audit log.
    Checkpoint,
    /// The counters of a part.
    Counters(Tag),
    /// The policy sets, of which the hashes are still to be listed.
    ListSets,
    /// A policy set.
    Set(Digest),
    /// The changes from this place on.
    Changes(u64),
}

impl RedisReader {
    pub(super) fn of(space: Arc<Space>) -> RedisReader {
        let mut steps = VecDeque::from([Step::ListSets, Step::Changes(0)]);
        for partition in 0..space.partitions {
            steps.push_back(Step::Audit(space.tag(partition), partition, 0));
        }
        steps.push_back(Step::Audit(space.meta(), space.partitions, 0));
        steps.push_back(Step::Checkpoint);
        steps.extend(space.all_tags().into_iter().map(Step::Counters));
        let scan = Scan::of(&space);
        RedisReader { space, steps, scan, found: VecDeque::new(), superseding: BTreeMap::new() }
    }

    /// The next page; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Record>>, CopyError> {
        while let Some(step) = self.steps.pop_front() {
            let page = self.step(step).await?;
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        loop {
            if self.found.is_empty() {
                let Some(keys) = self.scan.next(&self.space.link).await? else {
                    return Ok(self.next_superseding().await?);
                };
                for key in keys {
                    let parsed = Key::parse(&key, &self.space.namespace, self.space.partitions);
                    let parsed = parsed.ok_or_else(|| CopyError::Unknown(format!("a key `{key}`")))?;
                    match parsed.used {
                        Use::Whole | Use::Derived | Use::Passing => {}
                        Use::Superseding => {
                            self.superseding.insert(parsed.about, parsed.tag);
                        }
                        _ => self.found.push_back(parsed),
                    }
                }
            }
            // A module is megabytes.
            let count = match self.found.front() {
                Some(Key { used: Use::Module, .. }) => 1,
                _ => KEYS.min(self.found.iter().take_while(|key| key.used != Use::Module).count()),
            };
            let keys: Vec<Key> = self.found.drain(..count).collect();
            let page = self.read(keys).await?;
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
    }

    /// The open requests with the next supersede keys.
    async fn next_superseding(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        while let Some((about, tag)) = self.superseding.pop_first() {
            let place = Place { table: "sup", key: &about };
            let listed = Call::command("ZRANGE", &tag, format_args!("sup:{about}")).text("0").text("-1");
            let listed = place.list(self.space.link.call(listed).await?)?.into_iter();
            let listed = listed.map(|id| place.request_id("id", id)).collect::<Result<Vec<_>, _>>()?;
            let states = self.space.states_of(&listed).await?;
            // One that has ended, or was not created, is now and then still listed.
            let open = listed.into_iter().zip(states).filter(|(_, state)| *state == Stands::Open);
            let requests: Vec<RequestId> = open.map(|(id, _)| id).collect();
            if !requests.is_empty() {
                return Ok(Some(vec![Record::Superseding { key: digest(place, &about)?, requests }]));
            }
        }
        Ok(None)
    }

    /// How many audit entries there are in each partition.
    pub(crate) async fn audit_sizes(&self) -> Result<Vec<u64>, StoreError> {
        self.space.audit_sizes().await
    }

    /// How many there are of some kinds, as the indexes list them.
    pub(crate) async fn indexed(&self) -> Result<Vec<(Kind, u64)>, StoreError> {
        let listed = |name: &'static str| async move {
            let tags = self.space.tags();
            let lengths = tags.iter().map(|tag| Call::command("ZCARD", tag, name));
            let mut sum = 0;
            for length in self.space.link.calls(lengths.collect()).await? {
                sum += Place { table: name, key: &"its length" }.number("length", length)?;
            }
            Ok::<u64, StoreError>(sum)
        };
        Ok(vec![(Kind::Request, listed("ids").await?), (Kind::Outbox, listed("waiting").await?)])
    }

    async fn step(&mut self, step: Step) -> Result<Vec<Record>, StoreError> {
        match step {
            Step::Audit(tag, partition, seen) => {
                let from = format!("({seen}-0");
                let range = Call::command("XRANGE", &tag, "audit").text(&from).text("+");
                let found = self.space.link.call(range.text("COUNT").number(PAGE)).await?;
                let place = Place { table: "audit", key: &tag.as_str() };
                let mut last = seen;
                let mut page = Vec::new();
                for entry in place.list(found)? {
                    let [id, fields] = place.row(entry)?;
                    let id = place.text("id", id)?;
                    let place = Place { table: "audit", key: &id };
                    let number = id.split('-').next().and_then(|number| number.parse().ok());
                    last = number.ok_or_else(|| place.corrupt("id", "it is no number"))?;
                    let [_, body, _, digest] = place.row(fields)?;
                    let (body, digest) = (place.text("body", body)?, place.digest("digest", digest)?);
                    let entry: AuditEntry = place.json("body", body.as_bytes())?;
                    let (at, request) = (entry.at.as_millis(), entry.request);
                    page.push(Record::Audit(AuditRecord {
                        row: None,
                        partition,
                        number: last,
                        at,
                        request,
                        digest,
                        body,
                    }));
                }
                if !page.is_empty() {
                    self.steps.push_front(Step::Audit(tag, partition, last));
                }
                Ok(page)
            }
            Step::Checkpoint => {
                let kept = newest_checkpoint(&self.space).await?;
                let record = kept.map(|KeptCheckpoint { sequence, note, state }| Record::Checkpoint {
                    sequence,
                    note,
                    state,
                });
                Ok(Vec::from_iter(record))
            }
            Step::Counters(tag) => {
                let found = self.space.link.call(Call::command("HGETALL", &tag, "cnt")).await?;
                let place = Place { table: "cnt", key: &tag.as_str() };
                let mut found = place.list(found)?.into_iter();
                let mut page = Vec::new();
                while let (Some(field), Some(value)) = (found.next(), found.next()) {
                    let field = place.text("counter", field)?;
                    let place = Place { table: "cnt", key: &field };
                    let (metric, labels): (String, std::collections::BTreeMap<String, String>) =
                        place.json("counter", field.as_bytes())?;
                    let labels = crate::redis::reply::json(&labels)?;
                    page.push(Record::Counter { metric, labels, value: place.number("value", value)? });
                }
                Ok(page)
            }
            Step::ListSets => {
                let found = self.space.link.call(Call::script(&LIST_SETS, &self.space.meta())).await?;
                let place = Place { table: "sets", key: &"a set" };
                let hashes = place.list(found)?.into_iter().map(|hash| place.digest("hash", hash));
                let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
                for hash in hashes.into_iter().rev() {
                    self.steps.push_front(Step::Set(hash));
                }
                Ok(Vec::new())
            }
            Step::Set(hash) => {
                let select = Call::command("HMGET", &self.space.meta(), format_args!("set:{hash}"));
                let select = select.text("at").text("entries").text("document");
                let place = Place { table: "set", key: &hash };
                let [stored_at, entries, document] = place.row(self.space.link.call(select).await?)?;
                let entries = place.text("entries", entries)?;
                checked(place, "entries", hash, entries.as_bytes())?;
                let document = place.text("document", document)?;
                let stored_at = place.number("at", stored_at)?;
                Ok(vec![Record::Set { hash, stored_at, entries, document }])
            }
            Step::Changes(from) => {
                let range = Call::command("LRANGE", &self.space.meta(), "changes").number(from);
                let found = self.space.link.call(range.number(from + PAGE - 1)).await?;
                let place = Place { table: "changes", key: &"a change" };
                let mut page = Vec::new();
                for body in place.list(found)? {
                    let body = place.text("body", body)?;
                    let change: PolicyChange = place.json("body", body.as_bytes())?;
                    page.push(Record::Change { in_force: change.in_force(), body });
                }
                if !page.is_empty() {
                    self.steps.push_front(Step::Changes(from + page.len() as u64));
                }
                Ok(page)
            }
        }
    }

    /// Reads what is under these keys. One that expired or was removed since it was found is left out.
    async fn read(&self, keys: Vec<Key>) -> Result<Vec<Record>, StoreError> {
        let ask = keys.iter().map(|Key { tag, used, about, .. }| match used {
            Use::Request => fields(Call::command("HMGET", tag, format_args!("r:{about}")), &FIELDS),
            Use::Idempotency => Call::command("GET", tag, format_args!("idem:{about}")),
            Use::Nonce => Call::command("GET", tag, format_args!("once:{about}")),
            Use::Outbox => fields(
                Call::command("HMGET", tag, format_args!("ob:{about}")),
                &["revision", "attempts", "since", "urgency", "channel"],
            ),
            Use::Dispatch => fields(
                Call::command("HMGET", tag, format_args!("disp:{about}")),
                &["position", "revision", "attempts", "since", "failure"],
            ),
            Use::Message => fields(
                Call::command("HMGET", tag, format_args!("post:{about}")),
                &["revision", "channel", "body"],
            ),
            Use::Entry => Call::command("GET", tag, format_args!("entry:{about}")),
            Use::Module => Call::command("GET", tag, format_args!("module:{about}")),
            Use::Signatures => Call::command("SMEMBERS", tag, format_args!("sig:{about}")),
            Use::Document | Use::Superseding | Use::Whole | Use::Derived | Use::Passing => {
                Call::command("GET", tag, format_args!("doc:{about}"))
            }
        });
        let answers = self.space.link.calls(ask.collect()).await?;
        let mut page = Vec::new();
        // What is in an index beside the value is asked for in a second step.
        let (mut indexed, mut ask_index) = (Vec::new(), Vec::new());
        for (key, answer) in keys.iter().zip(answers) {
            match record_of(key, answer)? {
                Found::Records(records) => page.extend(records),
                Found::Indexed(record, index) => {
                    ask_index.push(Call::command("ZSCORE", &key.tag, index).text(&key.about));
                    indexed.push(record);
                }
                Found::Gone => {}
            }
        }
        for (mut record, score) in indexed.into_iter().zip(self.space.link.calls(ask_index).await?) {
            let place = Place { table: "index", key: &"a time" };
            let score = match score {
                Value::Nil => None,
                score => Some(place.parsed::<f64>("score", score)?),
            };
            let score = score.map(|score| millis_of(place, score)).transpose()?;
            match &mut record {
                Record::Outbox(entry) => entry.ready_at = score.unwrap_or_default(),
                Record::Dispatch(dispatch) => dispatch.ready_at = score.unwrap_or_default(),
                Record::Message { refresh_at, .. } => *refresh_at = score,
                _ => {}
            }
            page.push(record);
        }
        Ok(page)
    }
}

enum Found {
    Records(Vec<Record>),
    /// The record lacks the score that it has in the index of this name.
    Indexed(Record, String),
    Gone,
}

fn record_of(key: &Key, answer: Value) -> Result<Found, StoreError> {
    let about = &key.about;
    let one = |record| Ok(Found::Records(vec![record]));
    match key.used {
        Use::Request => {
            let place = Place { table: "r", key: about };
            let [version, confirmed, body, salt_key, salt] = place.row(answer)?;
            if version == Value::Nil {
                return Ok(Found::Gone);
            }
            let id = Value::BulkString(about.clone().into_bytes());
            let stored = StoredRequest::of([id, version, confirmed, body, salt_key, salt])?;
            let (request, body) = stored.parse_with_body()?;
            one(Record::Request { request: Box::new(request), body })
        }
        Use::Idempotency => {
            let place = Place { table: "idem", key: about };
            let Some(value) = place.optional_bytes("value", answer)? else { return Ok(Found::Gone) };
            let value = String::from_utf8(value).map_err(|error| place.corrupt("value", error))?;
            let mut words = value.split(' ').map(|word| Value::BulkString(word.as_bytes().to_vec()));
            let mut word = || words.next().unwrap_or_default();
            let (until, fingerprint, request) = (word(), word(), word());
            one(Record::Idempotency {
                key: digest(place, about)?,
                fingerprint: place.digest("fingerprint", fingerprint)?,
                request: place.request_id("request", request)?,
                until: place.number("until", until)?,
            })
        }
        Use::Nonce => {
            let place = Place { table: "once", key: about };
            let home = key.partition.map_or(Home::Whole, Home::Partition);
            match answer {
                Value::Nil => Ok(Found::Gone),
                until => {
                    let until = place.number("until", until)?;
                    one(Record::Nonce { home, digest: digest(place, about)?, until })
                }
            }
        }
        Use::Outbox => {
            let place = Place { table: "ob", key: about };
            let [revision, attempts, since, urgency, channel] = place.row(answer)?;
            if revision == Value::Nil {
                return Ok(Found::Gone);
            }
            let (request, effect) =
                about.split_once(':').ok_or_else(|| place.corrupt("key", "it has no effect"))?;
            let entry = OutboxRecord {
                request: request.parse().map_err(|error| place.corrupt("key", error))?,
                effect: effect.to_owned(),
                revision: place.number("revision", revision)?,
                attempts: place.number("attempts", attempts)?,
                since: place.number("since", since)?,
                ready_at: 0,
                urgency: place.number("urgency", urgency)?,
                channel: place.text("channel", channel)?,
            };
            let index = format!("ready:{}:{}", entry.urgency, entry.channel);
            Ok(Found::Indexed(Record::Outbox(entry), index))
        }
        Use::Dispatch => {
            let place = Place { table: "disp", key: about };
            let [position, revision, attempts, since, failure] = place.row(answer)?;
            if position == Value::Nil {
                return Ok(Found::Gone);
            }
            let (request, target) =
                about.split_once(':').ok_or_else(|| place.corrupt("key", "it has no target"))?;
            let failure = place.optional_bytes("failure", failure)?.map(String::from_utf8).transpose();
            let dispatch = DispatchRecord {
                request: request.parse().map_err(|error| place.corrupt("key", error))?,
                target: target.to_owned(),
                position: place.number("position", position)?,
                revision: place.number("revision", revision)?,
                attempts: place.number("attempts", attempts)?,
                since: place.number("since", since)?,
                ready_at: 0,
                failure: failure.map_err(|error| place.corrupt("failure", error))?,
            };
            let index = if dispatch.failure.is_some() { "dispdead" } else { "dispready" };
            let index = format!("{index}:{target}");
            Ok(Found::Indexed(Record::Dispatch(dispatch), index))
        }
        Use::Message => {
            let place = Place { table: "post", key: about };
            let [revision, channel, body] = place.row(answer)?;
            if revision == Value::Nil {
                return Ok(Found::Gone);
            }
            let (request, slot) =
                about.split_once(':').ok_or_else(|| place.corrupt("key", "it has no slot"))?;
            let channel = place.text("channel", channel)?;
            let index = format!("refresh:{channel}");
            let record = Record::Message {
                request: request.parse().map_err(|error| place.corrupt("key", error))?,
                slot: slot.to_owned(),
                revision: place.number("revision", revision)?,
                channel,
                refresh_at: None,
                body: place.text("body", body)?,
            };
            Ok(Found::Indexed(record, index))
        }
        Use::Entry => {
            let place = Place { table: "entry", key: about };
            let hash = digest(place, about)?;
            let body = place.text("body", answer)?;
            checked(place, "body", hash, body.as_bytes())?;
            one(Record::Entry { hash, body })
        }
        Use::Module => {
            let place = Place { table: "module", key: about };
            let digest = digest(place, about)?;
            let bytes = place.bytes("bytes", answer)?;
            checked(place, "bytes", digest, &bytes)?;
            one(Record::Module { digest, bytes })
        }
        Use::Signatures => {
            let place = Place { table: "sig", key: about };
            let digest = digest(place, about)?;
            let signatures = place.list(answer)?.into_iter().map(|signature| {
                Ok(Record::Signature { digest, signature: place.bytes("signature", signature)? })
            });
            Ok(Found::Records(signatures.collect::<Result<_, StoreError>>()?))
        }
        Use::Document => {
            let place = Place { table: "doc", key: about };
            one(Record::Document { key: about.clone(), value: place.bytes("value", answer)? })
        }
        Use::Superseding | Use::Whole | Use::Derived | Use::Passing => Ok(Found::Gone),
    }
}

fn fields(call: Call, names: &[&str]) -> Call {
    names.iter().fold(call, |call, name| call.text(name))
}

fn digest(place: Place<'_>, text: &str) -> Result<Digest, StoreError> {
    text.parse().map_err(|error| place.corrupt("key", error))
}

/// Checks that a value still has the digest that it is stored under.
fn checked(place: Place<'_>, column: &'static str, digest: Digest, value: &[u8]) -> Result<(), StoreError> {
    let found = Digest::of(value);
    if found == digest { Ok(()) } else { Err(place.corrupt(column, format_args!("its digest is {found}"))) }
}

/// A score that is a time: a whole number, which may be written with an exponent.
fn millis_of(place: Place<'_>, score: f64) -> Result<u64, StoreError> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    if !(0.0..=LARGEST).contains(&score) || score.fract() != 0.0 {
        return Err(place.corrupt("score", format_args!("{score} is no time")));
    }
    format!("{score:.0}").parse().map_err(|error| place.corrupt("score", error))
}
