//! Which open requests have the same supersede key. They are in any partition, so there is a list for each key, in the
//! partition that the key leads to.
//!
//! A request is put on it before it is created, and taken off after it has ended, or was not created. So the list has all
//! that are open, in the order in which they came, and now and then one that is not; whoever reads it takes those off.

use std::collections::HashSet;
use std::sync::Arc;

use countersign_core::lifecycle::{Digest, RequestId};
use futures_util::future::try_join_all;

use super::Space;
use super::call::{Call, Tag};
use super::reply::Place;
use super::script::{STATES, SUPERSEDE_ADD, SUPERSEDE_DROP, SUPERSEDE_LISTED};
use crate::StoreError;

/// For how long a listed request may not be there, in seconds. Longer than a create can take.
pub(super) const UNUSED_SECS: u64 = 60;

/// Whether a request is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    Open,
    Ended,
    /// There is none, or not yet.
    Unknown,
}

impl Space {
    /// Lists a request under its key, after all that are listed; nothing changes if it is.
    pub(super) async fn list_superseding(&self, key: &Digest, request: RequestId) -> Result<(), StoreError> {
        let add = self.lasting(&SUPERSEDE_ADD, &self.tag(key.shard()));
        self.durable(add.text(&key.to_string()).text(&request.to_string())).await.map(drop)
    }

    /// The open requests that are listed under a key, in their order.
    pub(super) async fn listed_superseding(
        self: &Arc<Space>,
        key: &Digest,
    ) -> Result<Vec<RequestId>, StoreError> {
        let place = Place { table: "sup", key };
        let listed = Call::script(&SUPERSEDE_LISTED, &self.tag(key.shard())).text(&key.to_string());
        let (mut ids, mut ages) = (Vec::new(), Vec::new());
        for row in place.list(self.link.call(listed).await?)? {
            let [id, age] = place.row(row)?;
            ids.push(place.request_id("id", id)?);
            ages.push(place.number("since", age)?);
        }
        let states = self.states_of(&ids).await?;
        let (mut open, mut gone) = (Vec::new(), Vec::new());
        for ((id, age), state) in ids.into_iter().zip(ages).zip(states) {
            match state {
                Stands::Open => open.push(id),
                Stands::Unknown if age <= UNUSED_SECS => {}
                Stands::Ended | Stands::Unknown => gone.push(id),
            }
        }
        if !gone.is_empty() {
            self.confirm_all(&gone).await?;
            self.drop_superseding(key, &gone).await?;
        }
        Ok(open)
    }

    /// Waits until what is stored of requests is as durable as configured: an end that a failover takes back must not have
    /// taken its request off a list.
    pub(super) async fn confirm_all(&self, requests: &[RequestId]) -> Result<(), StoreError> {
        if self.durability.waits() {
            let tags: HashSet<Tag> = requests.iter().map(|id| self.tag_of(*id)).collect();
            try_join_all(tags.iter().map(|tag| self.link.confirmed(tag))).await?;
        }
        Ok(())
    }

    /// Whether each of these requests is open, in their order.
    pub(super) async fn states_of(&self, requests: &[RequestId]) -> Result<Vec<Stands>, StoreError> {
        let mut by_partition: Vec<(Tag, Vec<usize>)> = Vec::new();
        for (index, id) in requests.iter().enumerate() {
            let tag = self.tag_of(*id);
            match by_partition.iter_mut().find(|(other, _)| *other == tag) {
                Some((_, indexes)) => indexes.push(index),
                None => by_partition.push((tag, vec![index])),
            }
        }
        let ask = by_partition.iter().map(|(tag, indexes)| {
            let ids: Vec<&RequestId> = indexes.iter().filter_map(|index| requests.get(*index)).collect();
            Call::script(&STATES, tag).each(&ids, |call, id| call.text(&id.to_string()))
        });
        let place = Place { table: "r", key: &"several requests" };
        let mut found = vec![Stands::Unknown; requests.len()];
        for ((_, indexes), states) in by_partition.iter().zip(self.link.calls(ask.collect()).await?) {
            for (index, state) in indexes.iter().zip(place.list(states)?) {
                let state = match place.text("state", state)?.as_str() {
                    "open" => Stands::Open,
                    "ended" => Stands::Ended,
                    _ => Stands::Unknown,
                };
                if let Some(found) = found.get_mut(*index) {
                    *found = state;
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn drop_superseding(
        &self,
        key: &Digest,
        requests: &[RequestId],
    ) -> Result<(), StoreError> {
        let drop_them = Call::script(&SUPERSEDE_DROP, &self.tag(key.shard())).text(&key.to_string());
        self.link.call(drop_them.each(requests, |call, id| call.text(&id.to_string()))).await.map(drop)
    }

    /// The same for one, without waiting. If it fails, whoever reads the list takes it off, or its removal does.
    pub(super) fn drop_superseding_later(self: &Arc<Space>, key: Digest, request: RequestId) {
        let space = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = space.drop_superseding(&key, &[request]).await {
                tracing::debug!(%error, "cannot take an ended request off the list of its supersede key");
            }
        });
    }
}
