//! The outbox: enqueuing effects with a request, and claiming, finishing and postponing its entries.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Effect, Request, RequestId, Timestamp};
use redis::Value;

use super::call::Call;
use super::reply::{Place, limit as sent_limit, millis};
use super::script::{CLAIM, FINISH, POSTPONE, READY, RENEW, RETRY};
use super::{RedisStore, Space};
use crate::{Claim, Outbox, OutboxEntry, ReadyEntry, StoreError, Urgency};

/// How long an unreadable entry is postponed, in milliseconds.
const UNREADABLE_MS: u64 = 10 * 60 * 1000;

#[async_trait]
impl Outbox for RedisStore {
    async fn ready_outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<ReadyEntry>, StoreError> {
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| {
            let ready = Call::script(&READY, tag).number(millis(now)).text(self.space.time.as_str());
            ready.number(sent_limit(limit))
        });
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for (tag, rows) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "ob", key: &tag.as_str() };
            for row in place.list(rows)? {
                let [range, at, key, urgency, channel, revision, since] = place.row(row)?;
                let postpone = Call::script(&POSTPONE, tag)
                    .number(millis(now))
                    .text(self.space.time.as_str())
                    .bytes(place.bytes("key", key.clone())?)
                    .bytes(place.bytes("urgency", urgency.clone())?)
                    .bytes(place.bytes("channel", channel.clone())?)
                    .number(UNREADABLE_MS);
                match Ready::of(place, [range, at, key, urgency, channel, revision, since]) {
                    Ok(ready) => found.push(ready),
                    Err(error) => {
                        tracing::error!(%error, "outbox entry is unreadable; postponed");
                        unreadable.push(postpone);
                    }
                }
            }
        }
        // Otherwise they would take up the limit and block the readable ones.
        self.space.link.calls(unreadable).await?;
        // Each partition has told its first ones. Those of all partitions that come first are wanted.
        found.sort_unstable_by(|one, other| one.order().cmp(&other.order()));
        let mut place = (None, 0);
        found.retain(|ready| {
            let its = Some((ready.entry.urgency, ready.entry.channel.clone(), ready.range));
            place = if place.0 == its { (its, place.1 + 1) } else { (its, 1) };
            place.1 <= limit
        });
        let mut ready: Vec<_> = found.into_iter().map(|ready| ready.entry).collect();
        ready.sort_by_key(|entry| (entry.urgency, entry.since));
        Ok(ready)
    }

    async fn claim_outbox(
        &self,
        request: RequestId,
        effect: Effect,
        claim: Claim,
    ) -> Result<Option<OutboxEntry>, StoreError> {
        let key = key_of(request, effect);
        let call = self.space.once(&CLAIM, &self.space.tag_of(request)).number(millis(claim.now));
        let call = call.text(self.space.time.as_str()).text(&key).number(claim.id);
        let answer = self.space.write(call.number(millis(claim.until))).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let place = Place { table: "ob", key: &key };
        let text = place.text("claimed", answer)?;
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let (Some(Ok(revision)), Some(Ok(attempts)), Some(Ok(since)), Some(Ok(taken_over))) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(
                place.corrupt("revision", format_args!("revision, attempts, since and so on are `{text}`"))
            );
        };
        Ok(Some(OutboxEntry {
            request,
            effect,
            revision,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            since: Timestamp::from_millis(since),
            claim: claim.id,
            taken_over: taken_over == 1,
        }))
    }

    async fn renew_outbox(
        &self,
        request: RequestId,
        effect: Effect,
        claim: Claim,
    ) -> Result<bool, StoreError> {
        let key = key_of(request, effect);
        let call = Call::script(&RENEW, &self.space.tag_of(request)).number(millis(claim.now));
        let call = call.text(self.space.time.as_str()).text(&key).number(claim.id);
        let answer = self.space.write(call.number(millis(claim.until))).await?;
        Ok(Place { table: "ob", key: &key }.number("renewed", answer)? == 1)
    }

    async fn finish_outbox(&self, entry: &OutboxEntry, delivered: u64) -> Result<(), StoreError> {
        let call = self.space.once(&FINISH, &self.space.tag_of(entry.request));
        let call = call.text(&key_of(entry.request, entry.effect)).number(entry.claim).number(delivered);
        self.space.write(call).await.map(drop)
    }

    async fn retry_outbox(
        &self,
        entry: &OutboxEntry,
        now: Timestamp,
        at: Timestamp,
        failed: bool,
    ) -> Result<(), StoreError> {
        let call = self.space.once(&RETRY, &self.space.tag_of(entry.request)).number(millis(now));
        let call = call.text(self.space.time.as_str()).text(&key_of(entry.request, entry.effect));
        self.space.write(call.number(entry.claim).number(millis(at)).number(failed)).await.map(drop)
    }
}

fn key_of(request: RequestId, effect: Effect) -> String {
    format!("{request}:{}", effect.as_str())
}

/// Appends the effects of a version of a request.
pub(super) fn append_effects(
    call: Call,
    request: &Request,
    effects: &[Effect],
    channels: &PolicyChannels,
) -> Call {
    call.each(effects, |call, effect| {
        call.text(effect.as_str())
            .number(Urgency::of(request, *effect).rank())
            .text(channels.of(*effect).unwrap_or_default())
    })
}

/// An entry as a partition tells it.
struct Ready {
    /// Whether it was neither claimed nor postponed before, or was, or waits for too long.
    range: u64,
    at: u64,
    entry: ReadyEntry,
}

impl Ready {
    fn of(place: Place<'_>, row: [Value; 7]) -> Result<Ready, StoreError> {
        let [range, at, key, urgency, channel, revision, since] = row;
        let key = place.text("key", key)?;
        let place = Place { table: "ob", key: &key };
        let (request, effect) =
            key.split_once(':').ok_or_else(|| place.corrupt("key", "it has no effect"))?;
        let rank = place.number("urgency", urgency)?;
        let urgency = Urgency::ALL.into_iter().find(|urgency| u64::from(urgency.rank()) == rank);
        Ok(Ready {
            range: place.number("range", range)?,
            at: place.number("ready_at", at)?,
            entry: ReadyEntry {
                request: request.parse().map_err(|error| place.corrupt("key", error))?,
                effect: place.variant("effect", effect)?,
                urgency: urgency.ok_or_else(|| place.corrupt("urgency", format_args!("it is {rank}")))?,
                channel: place.text("channel", channel)?,
                revision: place.number("revision", revision)?,
                since: place.time("since", since)?,
            },
        })
    }

    fn order(&self) -> (Urgency, &str, u64, u64, RequestId, Effect) {
        let ReadyEntry { request, effect, urgency, channel, .. } = &self.entry;
        (*urgency, channel, self.range, self.at, *request, *effect)
    }
}

/// The channels that policy entries name. An entry never changes, so neither does what is known of it.
#[derive(Debug, Default)]
pub(super) struct Channels(Mutex<HashMap<Digest, PolicyChannels>>);

/// The channels that a policy entry names.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyChannels {
    channel: Option<String>,
    escalation: Option<String>,
}

impl PolicyChannels {
    fn of(&self, effect: Effect) -> Option<&str> {
        let channel = match effect {
            Effect::NotifyEscalation => self.escalation.as_ref().or(self.channel.as_ref()),
            Effect::ShowRequest | Effect::NotifyReplaced => self.channel.as_ref(),
        };
        channel.map(String::as_str)
    }
}

/// How many policy entries are remembered.
const MOST_KNOWN: usize = 10_000;

impl Space {
    /// The channels that these effects of a request are delivered to; none if there are no effects, or no such policy entry.
    pub(super) async fn channels_of(
        &self,
        policy: Digest,
        effects: &[Effect],
    ) -> Result<PolicyChannels, StoreError> {
        if effects.is_empty() {
            return Ok(PolicyChannels::default());
        }
        let known = self.channels.0.lock().unwrap_or_else(PoisonError::into_inner).get(&policy).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let Some(entry) = self.policy_entry(policy).await? else { return Ok(PolicyChannels::default()) };
        let escalation = entry.escalate.and_then(|escalate| escalate.channel);
        let channels = PolicyChannels { channel: entry.channel, escalation };
        let mut known = self.channels.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(policy, channels.clone());
        Ok(channels)
    }
}
