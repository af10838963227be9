//! How many requests a caller has open. The module's own documentation says how they are counted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::lifecycle::{Digest, RequestId};
use tokio::time::Instant;

use super::Space;
use super::call::{Call, Tag};
use super::reply::Place;
use super::script::{RELEASE, RESERVE, RESERVED};
use super::supersede::{Stands, UNUSED_SECS};
use crate::projection::Projection;
use crate::{MostOpen, StoreError};

/// Whether a new request may be open.
#[derive(Clone, Debug)]
pub(super) enum Quota {
    /// There is no limit.
    Free,
    /// Its own write counts it, if there is room.
    Here {
        /// The partition that its caller's name leads to.
        home: Tag,
        caller: String,
        limits: Limits,
    },
    /// It counts as open from now on.
    Reserved,
    /// It counted as open before: it is created again.
    Had,
    /// There are too many.
    Full,
}

impl Quota {
    /// Appends it, as the script `create` reads it.
    pub(super) fn append(&self, call: Call) -> Call {
        match self {
            Quota::Free => call.text("free"),
            Quota::Here { home, caller, limits } => {
                limits.append(call.text("here").text(home.as_str()).text(caller))
            }
            Quota::Reserved | Quota::Had => call.text("reserved"),
            Quota::Full => call.text("full"),
        }
    }
}

/// How many requests a caller may have open, and of which action one more is wanted.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) action: String,
    pub(super) most: MostOpen,
}

impl Limits {
    /// Appends them, as scripts read them.
    fn append(&self, call: Call) -> Call {
        let MostOpen { in_all, of_action } = self.most;
        call.text(&self.action).optional(in_all.map(u64::from)).optional(of_action.map(u64::from))
    }
}

/// A new request that is to be counted as open.
#[derive(Clone, Debug)]
pub(super) struct NewOpen {
    pub(super) id: RequestId,
    pub(super) limits: Limits,
    /// Open requests that give way to it, and do not count.
    pub(super) gives_way: Vec<RequestId>,
}

impl NewOpen {
    /// Appends it, as the script `reserve` reads it.
    pub(super) fn append(call: Call, NewOpen { id, limits, gives_way }: &NewOpen) -> Call {
        limits.append(call.text(&id.to_string())).each(gives_way, |call, id| call.text(&id.to_string()))
    }
}

/// How long after a look at a list that had no other than open requests it is not looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Looks at the lists of callers that are full: one at a time of each, and not again and again.
#[derive(Debug, Default)]
pub(super) struct Full(Mutex<HashMap<String, Look>>);

#[derive(Debug, Default)]
struct Look {
    turn: Arc<tokio::sync::Mutex<()>>,
    began: Option<Instant>,
}

impl Look {
    fn is_recent(&self) -> bool {
        self.began.is_some_and(|began| began.elapsed() < LOOK_AGAIN)
    }
}

impl Full {
    /// Whoever has the turn of a caller may look.
    fn turn(&self, caller: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut looks = self.lock();
        looks.retain(|_, look| look.is_recent() || Arc::strong_count(&look.turn) > 1);
        Arc::clone(&looks.entry(caller.to_owned()).or_default().turn)
    }

    /// False if the list was looked at lately, and none of the caller's requests has ended since.
    fn begins(&self, caller: &str) -> bool {
        let mut looks = self.lock();
        let look = looks.entry(caller.to_owned()).or_default();
        let is_due = !look.is_recent();
        if is_due {
            look.began = Some(Instant::now());
        }
        is_due
    }

    /// One of its requests has ended, and is taken off the list only after that.
    fn ended(&self, caller: &str) {
        if let Some(look) = self.lock().get_mut(caller) {
            look.began = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space {
    /// How a new request is to be counted among the open ones of its caller.
    pub(super) async fn quota(
        self: &Arc<Space>,
        projection: &Projection<'_>,
        most: MostOpen,
    ) -> Result<Quota, StoreError> {
        if most == MostOpen::default() {
            return Ok(Quota::Free);
        }
        let limits = Limits { action: projection.action.to_owned(), most };
        match self.counts_with_writes() {
            false => self.reserve(projection, limits).await,
            true => {
                let caller = projection.caller.unwrap_or_default().to_owned();
                Ok(Quota::Here { home: self.home_of(&caller), caller, limits })
            }
        }
    }

    /// Whether the write of a request can also count it: one server has all partitions.
    pub(super) fn counts_with_writes(&self) -> bool {
        !self.link.connector().url().is_cluster()
    }

    /// Counts a new request among the open ones of its caller, after those that are not open any more have been taken off
    /// the list if it is full.
    pub(super) async fn reserve(
        self: &Arc<Space>,
        projection: &Projection<'_>,
        limits: Limits,
    ) -> Result<Quota, StoreError> {
        let caller = projection.caller.unwrap_or_default();
        let new = NewOpen { id: projection.id, limits, gives_way: Vec::new() };
        let reserved = async |new: &NewOpen| {
            let (space, caller) = (Arc::clone(self), caller.to_owned());
            let key = caller.clone();
            let carry_out = move |those: Vec<NewOpen>| {
                let (space, caller) = (Arc::clone(&space), caller.clone());
                async move { space.reserve_all(&caller, &those).await }
            };
            self.reserving.ask(key, new.clone(), carry_out).await
        };
        if let Some(quota) = reserved(&new).await? {
            return Ok(quota);
        }
        // Else those that give way to it would stand because of it.
        let gives_way = self.giving_way(projection).await?;
        let new = NewOpen { gives_way, ..new };
        if !new.gives_way.is_empty()
            && let Some(quota) = reserved(&new).await?
        {
            return Ok(quota);
        }
        let turn = self.full.turn(caller);
        let (turn, has_waited) = match turn.try_lock() {
            Ok(turn) => (turn, false),
            Err(_) => (turn.lock().await, true),
        };
        // Whoever looked meanwhile may have found room.
        if has_waited && let Some(quota) = reserved(&new).await? {
            return Ok(quota);
        }
        if !self.full.begins(caller) {
            return Ok(Quota::Full);
        }
        let action = match new.limits.most.in_all {
            Some(_) => "",
            None => projection.action,
        };
        self.release_closed(caller, action).await?;
        drop(turn);
        // Also if none was found: one may have ended meanwhile, and been taken off by whoever has ended it.
        Ok(reserved(&new).await?.unwrap_or(Quota::Full))
    }

    /// The open requests that give way to a new one.
    async fn giving_way(
        self: &Arc<Space>,
        projection: &Projection<'_>,
    ) -> Result<Vec<RequestId>, StoreError> {
        let mut gives_way = BTreeSet::new();
        if projection.due_at.is_some() {
            for key in projection.contests() {
                gives_way.extend(self.listed_superseding(&key).await?);
            }
        }
        Ok(gives_way.into_iter().collect())
    }

    /// Counts new requests of a caller, those for which there is room. `None` for others.
    async fn reserve_all(&self, caller: &str, those: &[NewOpen]) -> Result<Vec<Option<Quota>>, StoreError> {
        let reserve = Call::script(&RESERVE, &self.home_of(caller)).text(caller).each(those, NewOpen::append);
        let place = Place { table: "quota", key: &caller };
        let answers = place.list(self.write(reserve).await?)?.into_iter().map(|answer| {
            Ok(match place.text("reserved", answer)?.as_str() {
                "new" => Some(Quota::Reserved),
                "had" => Some(Quota::Had),
                _ => None,
            })
        });
        answers.collect()
    }

    /// Takes requests of an action, or of all, that are not open off the list of their caller.
    async fn release_closed(&self, caller: &str, action: &str) -> Result<(), StoreError> {
        let place = Place { table: "quota", key: &caller };
        let list = Call::script(&RESERVED, &self.home_of(caller)).text(caller).text(action);
        let listed = place.list(self.link.call(list).await?)?;
        let (mut ids, mut ages) = (Vec::new(), Vec::new());
        for row in listed {
            let [id, age] = place.row(row)?;
            ids.push(place.request_id("id", id)?);
            ages.push(place.number("since", age)?);
        }
        let states = self.states_of(&ids).await?;
        let is_closed = |(_, (age, state)): &(RequestId, (u64, Stands))| match state {
            Stands::Open => false,
            Stands::Ended => true,
            Stands::Unknown => *age > UNUSED_SECS,
        };
        let listed = ids.into_iter().zip(ages.into_iter().zip(states));
        let closed: Vec<RequestId> = listed.filter(is_closed).map(|(id, _)| id).collect();
        if closed.is_empty() {
            return Ok(());
        }
        self.confirm_all(&closed).await?;
        self.release(caller, &closed).await
    }

    /// Takes requests off the list of their caller.
    async fn release(&self, caller: &str, requests: &[RequestId]) -> Result<(), StoreError> {
        let release = Call::script(&RELEASE, &self.home_of(caller)).text(caller);
        self.link.call(release.each(requests, |call, id| call.text(&id.to_string()))).await.map(drop)
    }

    /// Takes one off without waiting. If it fails, the request is found when the list is full.
    pub(super) fn release_later(self: &Arc<Space>, caller: Option<&str>, request: RequestId) {
        self.full.ended(caller.unwrap_or_default());
        let (space, caller) = (Arc::clone(self), caller.unwrap_or_default().to_owned());
        tokio::spawn(async move {
            let releasing = Arc::clone(&space);
            let key = caller.clone();
            let carry_out = move |those: Vec<RequestId>| {
                let (space, caller) = (Arc::clone(&releasing), caller.clone());
                async move { space.release(&caller, &those).await.map(|()| vec![(); those.len()]) }
            };
            if let Err(error) = space.releasing.ask(key, request, carry_out).await {
                tracing::debug!(%error, "cannot release the place of a request that is not open");
            }
        });
    }

    /// The partition that a name leads to.
    pub(super) fn home_of(&self, name: &str) -> Tag {
        let [high, low, ..] = *Digest::of(name.as_bytes()).as_bytes();
        self.tag(u16::from_be_bytes([high, low]))
    }
}
