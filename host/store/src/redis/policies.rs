//! Policy entries, modules, signatures, policy sets, and the changes of the set in force.

use std::collections::BTreeMap;

use async_trait::async_trait;
use countersign_core::lifecycle::{Digest, canonical};
use countersign_core::record::{PolicyChange, PolicyEntry, Signature};
use redis::Value;
use serde::Serialize;

use super::call::Call;
use super::fault::unavailable;
use super::records::Records;
use super::reply::{Place, json, limit as sent_limit, millis};
use super::script::{CHANGE_POLICY, CHANGES, IN_FORCE, KEEP_SET, KEEP_SIGNATURES, PIN, REMOVE_SET, SETS};
use super::{RedisStore, Space};
use crate::{
    ChangePolicy, Committed, OpenPolicy, Policies, RemovePolicySet, StoreError, StoreFault, StoredSet,
    policy_set_use,
};

#[async_trait]
impl Policies for RedisStore {
    async fn pin(&self, entries: Vec<PolicyEntry>, modules: Vec<Vec<u8>>) -> Result<(), StoreError> {
        // Modules are megabytes: hashing them would block the runtime.
        let prepare = move || -> Result<_, StoreError> {
            let entries = entries.iter().map(|entry| {
                let body = canonical_json(entry)?;
                Ok((Digest::of(body.as_bytes()), body))
            });
            let entries = entries.collect::<Result<Vec<_>, StoreError>>()?;
            let modules: Vec<_> = modules.into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect();
            Ok((entries, modules))
        };
        let (entries, modules) = tokio::task::spawn_blocking(prepare).await.map_err(other)??;
        let call = self.space.lasting(&PIN, &self.space.meta());
        let call = call.each(&entries, |call, (hash, body)| call.text(&hash.to_string()).text(body));
        let call = call
            .each(&modules, |call, (digest, bytes)| call.text(&digest.to_string()).bytes(bytes.as_slice()));
        self.space.durable(call).await.map(drop)
    }

    async fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
        self.space.policy_entry(hash).await
    }

    async fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.space.module(digest).await
    }

    async fn modules(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let select = Call::command("HGETALL", &self.space.meta(), "modules");
        let place = Place { table: "modules", key: &"a module" };
        let mut found = place.list(self.space.link.call(select).await?)?.into_iter();
        let mut modules = Vec::new();
        while let (Some(digest), Some(size)) = (found.next(), found.next()) {
            modules.push((place.digest("digest", digest)?, place.number("bytes", size)?));
        }
        modules.sort_unstable();
        Ok(modules)
    }

    async fn keep_signatures(&self, signatures: Vec<(Digest, Signature)>) -> Result<(), StoreError> {
        if signatures.is_empty() {
            return Ok(());
        }
        let call = self.space.lasting(&KEEP_SIGNATURES, &self.space.meta());
        let call = call.each(&signatures, |call, (digest, signature)| {
            call.text(&digest.to_string()).bytes(signature.as_bytes().as_slice())
        });
        self.space.durable(call).await.map(drop)
    }

    async fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError> {
        self.space.signatures(digest).await
    }

    async fn keep_policy_set(&self, set: StoredSet, document: String) -> Result<(), StoreError> {
        let entries = canonical_json(&set.entries)?;
        let call = self.space.lasting(&KEEP_SET, &self.space.meta()).text(&set.hash.to_string());
        self.space.durable(call.number(millis(set.stored_at)).text(&entries).text(&document)).await.map(drop)
    }

    async fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
        self.space.policy_set(hash).await
    }

    async fn policy_document(&self, hash: Digest) -> Result<Option<String>, StoreError> {
        let select = Call::command("HGET", &self.space.meta(), format_args!("set:{hash}")).text("document");
        match self.space.link.call(select).await? {
            Value::Nil => Ok(None),
            document => Place { table: "set", key: &hash }.text("document", document).map(Some),
        }
    }

    async fn policy_sets(&self) -> Result<Vec<StoredSet>, StoreError> {
        let place = Place { table: "sets", key: &"a set" };
        let found = place.list(self.space.link.call(Call::script(&SETS, &self.space.meta())).await?)?;
        let sets = found.into_iter().map(|row| {
            let [hash, stored_at, entries] = place.row(row)?;
            stored_set(place.digest("hash", hash)?, stored_at, entries)
        });
        sets.collect()
    }

    async fn change_policy(&self, change: ChangePolicy) -> Result<Committed, StoreError> {
        let ChangePolicy { change, audit, counts } = change;
        let records = Records::of(&audit, &counts)?;
        let in_force = change.in_force();
        let text = |digest: Option<Digest>| digest.map(|digest| digest.to_string()).unwrap_or_default();
        let call = self.space.lasting(&CHANGE_POLICY, &self.space.meta()).text(&self.space.origin);
        let call = call.number(in_force.is_some()).text(&text(change.from)).text(&text(in_force));
        let answer = self.space.durable(records.append(call.text(&json(&change)?))).await?;
        if (Place { table: "changes", key: &"the last" }).text("stored", answer)? != "done" {
            return Ok(Committed::Conflict);
        }
        self.space.announce_meta("policy").await;
        Ok(Committed::Done)
    }

    async fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError> {
        self.space.policy_in_force().await
    }

    async fn policy_changes(
        &self,
        before: u64,
        limit: usize,
    ) -> Result<Vec<(u64, PolicyChange)>, StoreError> {
        let before = before.min(1 << 53);
        let select = Call::script(&CHANGES, &self.space.meta()).number(before).number(sent_limit(limit));
        let place = Place { table: "changes", key: &"a change" };
        let found = place.list(self.space.link.call(select).await?)?;
        found.into_iter().map(policy_change).collect()
    }

    async fn remove_policy_set(&self, removal: RemovePolicySet) -> Result<Committed, StoreError> {
        let RemovePolicySet { hash, sets, documents, entries, modules, audit, counts } = removal;
        let records = Records::of(&audit, &counts)?;
        let digests = |call: Call, digests: &[Digest]| {
            call.each(digests, |call, digest| call.text(&digest.to_string()))
        };
        let call = self.space.lasting(&REMOVE_SET, &self.space.meta()).text(&hash.to_string());
        let call = digests(call, &sets).text(&policy_set_use(hash));
        let call = call.each(&documents, |call, (key, value)| {
            call.text(key).number(value.is_some()).bytes(value.clone().unwrap_or_default())
        });
        let call = records.append(digests(digests(call, &entries), &modules));
        let answer = self.space.durable(call).await?;
        let removed = Place { table: "set", key: &hash }.text("removed", answer)? == "done";
        Ok(if removed { Committed::Done } else { Committed::Conflict })
    }

    async fn open_policies(&self) -> Result<Vec<OpenPolicy>, StoreError> {
        let mut counts: BTreeMap<(Digest, String), u64> = BTreeMap::new();
        for open in self.space.open_kinds().await? {
            *counts.entry((open.kind.policy, open.kind.action)).or_default() += open.count;
        }
        let open = counts.into_iter().map(|((policy, action), count)| OpenPolicy { policy, action, count });
        Ok(open.collect())
    }
}

impl Space {
    pub(super) async fn policy_entry(&self, hash: Digest) -> Result<Option<PolicyEntry>, StoreError> {
        let place = Place { table: "entry", key: &hash };
        let body = self.by_digest(place, "body", hash).await?;
        body.map(|body| place.json("body", &body)).transpose()
    }

    pub(super) async fn module(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.by_digest(Place { table: "module", key: &digest }, "bytes", digest).await
    }

    pub(super) async fn signatures(&self, digest: Digest) -> Result<Vec<Signature>, StoreError> {
        let select = Call::command("SMEMBERS", &self.meta(), format_args!("sig:{digest}"));
        let place = Place { table: "sig", key: &digest };
        let found = place.list(self.link.call(select).await?)?.into_iter();
        let bytes = found.map(|signature| {
            let bytes = place.bytes("signature", signature)?;
            bytes.try_into().map_err(|_| place.corrupt("signature", "it is not 64 bytes long"))
        });
        let mut bytes = bytes.collect::<Result<Vec<[u8; 64]>, _>>()?;
        bytes.sort_unstable();
        Ok(bytes.into_iter().map(Signature::from_bytes).collect())
    }

    pub(super) async fn policy_set(&self, hash: Digest) -> Result<Option<StoredSet>, StoreError> {
        let select = Call::command("HMGET", &self.meta(), format_args!("set:{hash}"));
        let found = self.link.call(select.text("at").text("entries")).await?;
        let [stored_at, entries] = Place { table: "set", key: &hash }.row(found)?;
        match entries {
            Value::Nil => Ok(None),
            entries => stored_set(hash, stored_at, entries).map(Some),
        }
    }

    pub(super) async fn policy_in_force(&self) -> Result<Option<(u64, PolicyChange)>, StoreError> {
        match self.link.call(Call::script(&IN_FORCE, &self.meta())).await? {
            Value::Nil => Ok(None),
            row => policy_change(row).map(Some),
        }
    }

    /// The value of the key that names its digest, after a check that it still has that digest.
    async fn by_digest(
        &self,
        place: Place<'_>,
        column: &'static str,
        digest: Digest,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let get = Call::command("GET", &self.meta(), format_args!("{}:{digest}", place.table));
        let Some(bytes) = place.optional_bytes(column, self.link.call(get).await?)? else { return Ok(None) };
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(place.corrupt(column, format_args!("its digest is {found}")));
        }
        Ok(Some(bytes))
    }
}

fn canonical_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(canonical(&serde_json::to_value(value).map_err(other)?))
}

fn other(error: impl std::fmt::Display) -> StoreError {
    unavailable(StoreFault::Other, error)
}

/// Checks that the entries still have that hash.
fn stored_set(hash: Digest, stored_at: Value, entries: Value) -> Result<StoredSet, StoreError> {
    let place = Place { table: "set", key: &hash };
    let entries = place.bytes("entries", entries)?;
    let found = Digest::of(&entries);
    if found != hash {
        return Err(place.corrupt("entries", format_args!("their digest is {found}")));
    }
    let stored_at = place.time("at", stored_at)?;
    Ok(StoredSet { hash, entries: place.json("entries", &entries)?, stored_at })
}

/// From a change's number and body.
fn policy_change(row: Value) -> Result<(u64, PolicyChange), StoreError> {
    let place = Place { table: "changes", key: &"a change" };
    let [number, body] = place.row(row)?;
    let number = place.number("number", number)?;
    let place = Place { table: "changes", key: &number };
    Ok((number, place.json("body", &place.bytes("body", body)?)?))
}
