//! What instances need of each other: what others have changed, leases, who lives, and rate buckets.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::backoff::Backoff;
use countersign_core::lifecycle::Timestamp;
use redis::{Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::broadcast;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::call::Call;
use super::connect::Connection;
use super::reply::{Place, limit as sent_limit};
use super::script::{AUDIT_FILES, GIVE_BACK, LEASE, LIVE, TAKE};
use super::{RedisStore, Space};
use crate::{Change, Rate, Shared, StoreError};

/// How many changes a receiver may be behind.
const CAPACITY: usize = 4096;

/// How often this instance announces something to itself, to see that it arrives.
const HEARTBEAT: Duration = Duration::from_secs(5);

const RECONNECT: Backoff = Backoff::new(50, 2_000);

#[async_trait]
impl Shared for RedisStore {
    fn changes(&self) -> broadcast::Receiver<Change> {
        self.feed.changes.subscribe()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let time = self.space.link.call(Call::routed("TIME", &self.space.meta())).await?;
        let place = Place { table: "time", key: &"the server's" };
        let [seconds, micros] = place.row(time)?;
        let (seconds, micros) = (place.number("seconds", seconds)?, place.number("micros", micros)?);
        Ok(Timestamp::from_millis(seconds.saturating_mul(1000).saturating_add(micros / 1000)))
    }

    async fn lease(&self, name: &str, holder: u64, ttl_ms: u64) -> Result<bool, StoreError> {
        let take = Call::script(&LEASE, &self.space.meta()).text(name).number(holder).number(ttl_ms.max(1));
        let place = Place { table: "lease", key: &name };
        Ok(place.number("taken", self.space.write(take).await?)? == 1)
    }

    async fn lease_holder(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let get = Call::command("GET", &self.space.meta(), format_args!("lease:{name}"));
        let place = Place { table: "lease", key: &name };
        match self.space.link.call(get).await? {
            Value::Nil => Ok(None),
            holder => place.number("holder", holder).map(Some),
        }
    }

    async fn release(&self, name: &str, holder: u64) -> Result<(), StoreError> {
        let give_back = Call::script(&GIVE_BACK, &self.space.meta()).text(name).number(holder);
        self.space.write(give_back).await.map(drop)
    }

    async fn announce(&self, instance: u64, ttl_ms: u64) -> Result<Vec<u64>, StoreError> {
        let live = Call::script(&LIVE, &self.space.meta()).number(instance).number(ttl_ms);
        let place = Place { table: "instances", key: &"an instance" };
        let found = place.list(self.space.write(live).await?)?.into_iter();
        let mut instances =
            found.map(|it| place.number("instance", it)).collect::<Result<Vec<_>, StoreError>>()?;
        instances.sort_unstable();
        Ok(instances)
    }

    async fn announce_audit_file(
        &self,
        instance: u64,
        entries: &[u64],
        ttl_ms: u64,
    ) -> Result<(), StoreError> {
        let entries: Vec<String> = entries.iter().map(u64::to_string).collect();
        let say = Call::script(&AUDIT_FILES, &self.space.meta()).number(instance).number(ttl_ms);
        self.space.write(say.text(&entries.join(","))).await.map(drop)
    }

    async fn audit_files(&self) -> Result<Vec<Vec<u64>>, StoreError> {
        let place = Place { table: "audit:files", key: &"an instance" };
        let ask = Call::script(&AUDIT_FILES, &self.space.meta()).text("");
        let found = place.list(self.space.write(ask).await?)?.into_iter().map(|entries| {
            let entries = place.text("entries", entries)?;
            let numbers = entries.split(',').filter(|number| !number.is_empty());
            numbers
                .map(|number| number.parse().map_err(|error| place.corrupt("entries", error)))
                .collect::<Result<Vec<u64>, StoreError>>()
        });
        found.collect()
    }

    async fn take(&self, bucket: &str, rate: Rate) -> Result<Option<u64>, StoreError> {
        let (space, bucket) = (Arc::clone(&self.space), Bucket::new(bucket, rate));
        let carry_out = {
            let bucket = bucket.clone();
            move |those: Vec<()>| {
                let (space, bucket) = (Arc::clone(&space), bucket.clone());
                async move { space.take(&bucket.name, rate, those.len()).await }
            }
        };
        self.space.taking.ask(bucket, (), carry_out).await
    }
}

/// A rate bucket, and what it was said to hold and get.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    name: String,
    rate: (u32, u64),
}

impl Bucket {
    fn new(name: &str, rate: Rate) -> Bucket {
        Bucket { name: name.to_owned(), rate: (rate.capacity, rate.per_sec.to_bits()) }
    }
}

impl Space {
    /// Takes as many tokens out of a bucket: of each whether there was one, and if not, after how many milliseconds there
    /// will be one.
    async fn take(&self, bucket: &str, rate: Rate, tokens: usize) -> Result<Vec<Option<u64>>, StoreError> {
        // One that is sent again takes more tokens, which nobody misses.
        let take = Call::script(&TAKE, &self.home_of(bucket)).text(bucket).number(rate.capacity);
        let take = take.text(&rate.per_sec.to_string()).number(sent_limit(tokens));
        let place = Place { table: "rate", key: &bucket };
        let [taken, wait] = place.row(self.write(take).await?)?;
        let (taken, wait): (usize, u64) = (place.parsed("taken", taken)?, place.number("wait", wait)?);
        Ok((0..tokens).map(|place| (place >= taken).then_some(wait)).collect())
    }

    /// Tells other instances of a change that concerns no request, if the script has not.
    pub(super) async fn announce_meta(&self, change: &str) {
        if !self.durability.waits() {
            return;
        }
        let message = format!("{} {change}", self.origin);
        if let Err(error) = self.link.call(Call::of_tag("SPUBLISH", &self.meta()).text(&message)).await {
            tracing::debug!(%error, "cannot announce a change");
        }
    }
}

/// Passes on what other instances announce.
pub(super) struct Feed {
    changes: broadcast::Sender<Change>,
    task: JoinHandle<()>,
}

impl Feed {
    pub(super) fn start(space: Arc<Space>) -> Feed {
        let (changes, _) = broadcast::channel(CAPACITY);
        let task = tokio::spawn(follow(space, changes.clone()));
        Feed { changes, task }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Subscribes, again and again.
async fn follow(space: Arc<Space>, changes: broadcast::Sender<Change>) {
    let mut failures = 0;
    loop {
        let (pushed, received) = unbounded_channel();
        match subscribe(&space, pushed).await {
            Ok(connection) => {
                failures = 0;
                // What was announced while there was no subscription is not told again.
                tell(&changes, Change::Missed);
                pass_on(&space, connection, received, &changes).await;
                tracing::debug!("the subscription to changes has ended");
            }
            Err(error) => tracing::debug!(%error, "cannot subscribe to changes"),
        }
        let wait = RECONNECT.around(failures, &mut fastrand::Rng::new());
        tokio::time::sleep(Duration::from_millis(wait)).await;
        failures += 1;
    }
}

fn tell(changes: &broadcast::Sender<Change>, change: Change) {
    // Without a receiver it concerns nobody.
    let _received = changes.send(change);
}

async fn subscribe(space: &Space, pushed: UnboundedSender<PushInfo>) -> RedisResult<Connection> {
    let patience = space.link.patience();
    let subscribing = async {
        let mut connection = space.link.connector().connect(Some(pushed)).await?;
        let tags = space.all_tags();
        match &mut connection {
            Connection::Cluster(cluster) => {
                for tag in &tags {
                    cluster.ssubscribe(tag.as_str()).await?;
                }
            }
            Connection::Server(_) => {
                let mut pipeline = Pipeline::with_capacity(tags.len());
                for tag in &tags {
                    pipeline.cmd("SSUBSCRIBE").arg(tag.as_str());
                }
                for answer in connection.pipeline(pipeline, &space.meta()).await? {
                    answer.extract_error()?;
                }
            }
        }
        Ok(connection)
    };
    tokio::time::timeout(patience, subscribing).await.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> RedisError {
    (redis::ErrorKind::Io, "no answer in time").into()
}

/// Until the connection ends, or something that was announced to this instance itself does not arrive.
async fn pass_on(
    space: &Space,
    connection: Connection,
    mut received: UnboundedReceiver<PushInfo>,
    changes: &broadcast::Sender<Change>,
) {
    let tags = space.all_tags();
    let mut unheard: HashSet<String> = HashSet::new();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let push = tokio::select! {
            push = received.recv() => push,
            _ = heartbeat.tick() => {
                if !unheard.is_empty() {
                    return;
                }
                unheard.extend(tags.iter().map(|tag| tag.as_str().to_owned()));
                let message = format!("{} heartbeat", space.origin);
                let beats = tags.iter().map(|tag| Call::of_tag("SPUBLISH", tag).text(&message));
                // Those that do not get out do not arrive.
                let _sent = space.link.calls(beats.collect()).await;
                continue;
            }
        };
        let Some(PushInfo { kind, data }) = push else { return };
        match kind {
            PushKind::SMessage => match message_of(&data) {
                Some((channel, from, _)) if from == space.origin => {
                    unheard.remove(channel);
                }
                Some((_, _, "heartbeat")) => {}
                Some((_, _, change)) => tell(changes, change_of(change)),
                None => tell(changes, Change::Missed),
            },
            PushKind::Disconnection if !connection.is_cluster() => return,
            // In a Cluster the client subscribes again by itself.
            PushKind::Disconnection | PushKind::SSubscribe if connection.is_cluster() => {
                tell(changes, Change::Missed);
            }
            _ => {}
        }
    }
}

/// The channel of a message, who has sent it, and what it says.
fn message_of(data: &[Value]) -> Option<(&str, &str, &str)> {
    let [Value::BulkString(channel), Value::BulkString(message)] = data else { return None };
    let (from, change) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    Some((std::str::from_utf8(channel).ok()?, from, change))
}

/// What is not understood may be anything.
fn change_of(change: &str) -> Change {
    let mut words = change.splitn(3, ' ');
    let told = match (words.next(), words.next(), words.next()) {
        (Some("request"), Some(id), Some(version)) => {
            id.parse().ok().and_then(|id| Some(Change::Request { id, version: version.parse().ok()? }))
        }
        (Some("policy"), None, None) => Some(Change::PolicyInForce),
        (Some("document"), Some(key), None) => Some(Change::Document { key: key.to_owned() }),
        _ => None,
    };
    told.unwrap_or(Change::Missed)
}
