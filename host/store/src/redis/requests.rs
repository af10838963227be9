//! Requests: creating and committing them, and finding them by id, key, lineage and due time.

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, Request, RequestId, Timestamp};
use redis::Value;

use super::RedisStore;
use super::call::Call;
use super::dispatches::append_dispatches;
use super::outbox::append_effects;
use super::quota::Quota;
use super::records::{Records, append_nonce};
use super::reply::{Place, json, limit as sent_limit, millis};
use super::request_row::{FIELDS, StoredRequest, append_indexed};
use super::script::{COMMIT, CREATE, DUE, IDEMPOTENT, LINEAGE, NEWEST, RECENT};
use crate::projection::Projection;
use crate::{Commit, Committed, Create, Created, Due, Requests, StoreError};

/// An answer about a create or commit, for error messages.
const ANSWER: Place<'static> = Place { table: "answer", key: &"a write" };

/// What became of a create.
fn created(answer: Value) -> Result<Created, StoreError> {
    if let Value::Array(known) = answer {
        let [_, fingerprint, row @ ..]: [Value; 8] =
            known.try_into().map_err(|_| ANSWER.corrupt("known", "it is no request"))?;
        let fingerprint = ANSWER.digest("fingerprint", fingerprint)?;
        return Ok(Created::Known(fingerprint, Box::new(StoredRequest::of(row)?.parse()?)));
    }
    Ok(match ANSWER.text("created", answer)?.as_str() {
        "new" => Created::New,
        "conflict" => Created::LineageConflict,
        "full" => Created::TooManyOpen,
        "repeated" => Created::Repeated,
        other => return Err(ANSWER.corrupt("created", format_args!("it is `{other}`"))),
    })
}

#[async_trait]
impl Requests for RedisStore {
    async fn create(&self, new: Create) -> Result<Created, StoreError> {
        let Create { request, idempotency, most_open, nonce, audit, effects, dispatches, counts } = new;
        let space = &self.space;
        let projection = Projection::of(&request);
        let records = Records::of(&audit, &counts)?;
        let channels = space.channels_of(projection.policy_hash, &effects).await?;
        let body = json(&request)?;
        let mut quota = space.quota(&projection, most_open).await?;
        for key in projection.contests() {
            space.list_superseding(&key, request.id).await?;
        }

        let tag = space.tag_of(request.id);
        let write = async |quota: &Quota| {
            let mut call = space.lasting(&CREATE, &tag).text(&request.id.to_string()).text(&space.origin);
            call = append_nonce(call.number(millis(projection.submitted_at)), nonce.as_ref());
            call = match &idempotency {
                Some(it) => {
                    call.text(&it.key.to_string()).text(&it.fingerprint.to_string()).number(millis(it.until))
                }
                None => call.text(""),
            };
            call = quota
                .append(call)
                .text(&projection.lineage.to_string())
                .number(projection.depth)
                .number(projection.version)
                .text(&body);
            call = match &request.submission.salt {
                Some(salt) => call.text(&salt.key).bytes(salt.sealed.as_slice()),
                None => call.text("").text(""),
            };
            call = append_effects(append_indexed(call, &projection)?, &request, &effects, &channels);
            call = append_dispatches(call, &dispatches);
            created(space.durable(records.append(call)).await?)
        };
        let mut created = write(&quota).await?;
        if created == Created::TooManyOpen
            && let Quota::Here { limits, .. } = quota
        {
            // Some that are counted may not be open, or give way to it.
            quota = space.reserve(&projection, limits).await?;
            if !matches!(quota, Quota::Full) {
                created = write(&quota).await?;
            }
        }
        let is_open = created == Created::New && projection.due_at.is_some();
        if !is_open && matches!(quota, Quota::Reserved) {
            space.release_later(projection.caller, request.id);
        }
        if created == Created::New {
            space.confirm(&tag, request.id, request.version).await;
        } else {
            // Unless it is there: it is created again.
            if created != Created::LineageConflict {
                for key in projection.contests() {
                    space.drop_superseding_later(key, request.id);
                }
            }
        }
        Ok(created)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let Commit { request, nonce, audit, effects, dispatches, counts } = commit;
        let space = &self.space;
        let projection = Projection::of(&request);
        let records = Records::of(&audit, &counts)?;
        let channels = space.channels_of(projection.policy_hash, &effects).await?;

        let tag = space.tag_of(request.id);
        let call = space.lasting(&COMMIT, &tag).text(&request.id.to_string()).text(&space.origin);
        let call = append_nonce(call, nonce.as_ref()).number(projection.version).text(&json(&request)?);
        let call = append_indexed(call, &projection)?;
        let call = match space.counts_with_writes() {
            true => {
                let caller = projection.caller.unwrap_or_default();
                call.text(space.home_of(caller).as_str()).text(caller)
            }
            false => call.text("").text(""),
        };
        let call = append_effects(call, &request, &effects, &channels);
        let call = append_dispatches(call, &dispatches);
        let answer = space.durable(records.append(call)).await?;
        let (committed, released) = match ANSWER.text("committed", answer)?.as_str() {
            "done" => (Committed::Done, false),
            "released" => (Committed::Done, true),
            "conflict" => (Committed::Conflict, false),
            "repeated" => (Committed::Repeated, false),
            other => return Err(ANSWER.corrupt("committed", format_args!("it is `{other}`"))),
        };
        if committed == Committed::Done {
            space.confirm(&tag, request.id, request.version).await;
        }
        if released && !space.counts_with_writes() {
            space.release_later(projection.caller, request.id);
        }
        let is_over = committed == Committed::Done && projection.due_at.is_none();
        if is_over {
            for key in projection.contests() {
                space.drop_superseding_later(key, request.id);
            }
        }
        Ok(committed)
    }

    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        let tag = self.space.tag_of(id);
        let select = Call::command("HMGET", &tag, format_args!("r:{id}"));
        let select = FIELDS.iter().fold(select, |call, field| call.text(field));
        let place = Place { table: "r", key: &id };
        let [version, confirmed, body, salt_key, salt] = place.row(self.space.link.call(select).await?)?;
        if version == Value::Nil {
            return Ok(None);
        }
        let key = Value::BulkString(id.to_string().into_bytes());
        let stored = StoredRequest::of([key, version, confirmed, body, salt_key, salt])?;
        Ok(self.space.tell(&tag, vec![stored]).await?.pop())
    }

    async fn idempotent(
        &self,
        shard: u16,
        key: &Digest,
        now: Timestamp,
    ) -> Result<Option<(Digest, Request)>, StoreError> {
        let tag = self.space.tag(shard);
        let find = Call::script(&IDEMPOTENT, &tag).text(&key.to_string()).number(millis(now));
        let found = self.space.link.call(find).await?;
        if found == Value::Nil {
            return Ok(None);
        }
        let place = Place { table: "idem", key };
        let [_, fingerprint, row @ ..]: [Value; 8] = place.row(found)?;
        let fingerprint = place.digest("fingerprint", fingerprint)?;
        let request = self.space.tell(&tag, vec![StoredRequest::of(row)?]).await?.pop();
        Ok(request.map(|request| (fingerprint, request)))
    }

    async fn lineage(&self, lineage: RequestId, from: u32, limit: usize) -> Result<Vec<Request>, StoreError> {
        let tag = self.space.tag_of(lineage);
        let select = Call::script(&LINEAGE, &tag).text(&lineage.to_string());
        let rows = self.space.link.call(select.number(from).number(sent_limit(limit))).await?;
        let place = Place { table: "lin", key: &lineage };
        let stored = place.list(rows)?.into_iter().map(|row| StoredRequest::of(place.row(row)?));
        self.space.tell(&tag, stored.collect::<Result<_, _>>()?).await
    }

    async fn newest_of_lineage(&self, lineage: RequestId) -> Result<Option<Request>, StoreError> {
        let tag = self.space.tag_of(lineage);
        let row = self.space.link.call(Call::script(&NEWEST, &tag).text(&lineage.to_string())).await?;
        if row == Value::Nil {
            return Ok(None);
        }
        let place = Place { table: "lin", key: &lineage };
        Ok(self.space.tell(&tag, vec![StoredRequest::of(place.row(row)?)?]).await?.pop())
    }

    async fn recent_in_lineage(
        &self,
        lineage: RequestId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timestamp>, StoreError> {
        let select = Call::script(&RECENT, &self.space.tag_of(lineage)).text(&lineage.to_string());
        let select = select.number(millis(since)).number(sent_limit(limit));
        let place = Place { table: "lin", key: &lineage };
        let times = place.list(self.space.link.call(select).await?)?;
        times.into_iter().map(|time| place.time("at", time)).collect()
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RequestId)>,
        limit: usize,
    ) -> Result<Due, StoreError> {
        // An id has at least one letter, so that every request comes after an empty one.
        let (from, id) = after.map_or((0, String::new()), |(at, id)| (millis(at), id.to_string()));
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| {
            Call::script(&DUE, tag).number(millis(now)).number(from).text(&id).number(sent_limit(limit))
        });
        let mut due = Due::default();
        for (tag, found) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "due", key: &tag.as_str() };
            let mut found = place.list(found)?.into_iter();
            while let (Some(id), Some(at)) = (found.next(), found.next()) {
                match place.request_id("id", id).and_then(|id| Ok((id, place.time("due", at)?))) {
                    Ok(request) => due.requests.push(request),
                    Err(error) => due.unreadable.push(error),
                }
            }
        }
        due.requests.sort_unstable_by_key(|(id, at)| (*at, *id));
        due.requests.truncate(limit);
        Ok(due)
    }

    async fn next_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| {
            let first = Call::command("ZRANGEBYSCORE", tag, "due").text(&format!("({}", millis(after)));
            first.text("+inf").text("WITHSCORES").text("LIMIT").number(0_u64).number(1_u64)
        });
        let mut next = None;
        for (tag, found) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "due", key: &tag.as_str() };
            if let Some(at) = place.list(found)?.into_iter().nth(1) {
                let at = place.time("due", at)?;
                next = Some(next.map_or(at, |next: Timestamp| next.min(at)));
            }
        }
        Ok(next)
    }

    async fn newest(&self, before: Option<RequestId>, limit: usize) -> Result<Vec<RequestId>, StoreError> {
        let below = before.map_or("+".to_owned(), |before| format!("({before}"));
        let tags = self.space.tags();
        let select = tags.iter().map(|tag| {
            let range = Call::command("ZREVRANGEBYLEX", tag, "ids").text(&below).text("-");
            range.text("LIMIT").number(0_u64).number(sent_limit(limit))
        });
        let mut ids = Vec::new();
        for (tag, found) in tags.iter().zip(self.space.link.calls(select.collect()).await?) {
            let place = Place { table: "ids", key: &tag.as_str() };
            for id in place.list(found)? {
                ids.push(place.request_id("id", id)?);
            }
        }
        // Each partition has told its newest ones. Those of all partitions that are the newest are wanted.
        ids.sort_unstable_by(|one, other| other.cmp(one));
        ids.truncate(limit);
        Ok(ids)
    }

    async fn with_supersede_key(
        &self,
        key: &Digest,
        request: Option<RequestId>,
    ) -> Result<Vec<RequestId>, StoreError> {
        // It was listed before it was created. Should that be lost it is listed now, so that of two requests one at least
        // finds the other.
        if let Some(request) = request {
            self.space.list_superseding(key, request).await?;
        }
        self.space.listed_superseding(key).await
    }
}
