//! The way to Redis: connections that are made again when they break, and calls that are tried again.
//!
//! Reads and small changes share one connection. Writes that wait for replicas have connections of their own, since `WAIT`
//! holds up all that comes after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use countersign_core::backoff::Backoff;
use redis::{Pipeline, RedisError, RedisResult, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::address::RedisUrl;
use super::breaker::Breaker;
use super::call::{Call, Tag};
use super::connect::{Connection, Connector};
use super::fault::{Failure, Remedy, code, unavailable};
use super::options::{Durability, RedisOptions};
use crate::{StoreError, StoreFault};

const BACKOFF: Backoff = Backoff::new(10, 500);

/// After how many calls in a row without an answer the connection is made anew.
const TIMEOUTS: u64 = 3;

pub(super) struct Link {
    connector: Connector,
    durability: Durability,
    connect_timeout: Duration,
    response_timeout: Duration,
    deadline: Duration,
    breakers: Breakers,
    shared: Shared,
    waiting: Waiting,
}

/// The connection that calls share, with its number. Connections are numbered as they are made.
#[derive(Default)]
struct Shared {
    current: RwLock<Option<(u64, Connection)>>,
    /// Held by who makes one; with why the last one could not be made.
    connecting: tokio::sync::Mutex<String>,
    attempts: AtomicU64,
    made: AtomicU64,
    timeouts: AtomicU64,
}

/// Connections that a call has for itself.
struct Waiting {
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// What is to be done.
#[derive(Clone, Copy)]
enum Work<'a> {
    /// Calls on the shared connection.
    Shared(&'a [Call]),
    /// A change, with a `WAIT` behind it.
    Waiting(&'a Call),
}

/// The circuit breakers. A Cluster has one for each partition, since a server that is away takes only its own partitions with
/// it.
struct Breakers {
    common: Arc<Breaker>,
    by_partition: Option<Mutex<HashMap<Tag, Arc<Breaker>>>>,
}

impl Breakers {
    fn of(url: &RedisUrl) -> Breakers {
        Breakers { common: Arc::default(), by_partition: url.is_cluster().then(Mutex::default) }
    }

    fn for_work(&self, work: Work<'_>) -> Arc<Breaker> {
        let call = match work {
            Work::Shared([call]) | Work::Waiting(call) => call,
            Work::Shared(_) => return Arc::clone(&self.common),
        };
        let Some(breakers) = &self.by_partition else { return Arc::clone(&self.common) };
        let mut breakers = breakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(breakers.entry(call.tag().clone()).or_default())
    }
}

impl Link {
    pub(super) fn new(options: &RedisOptions) -> Link {
        Link {
            connector: Connector::of(options),
            durability: options.durability,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
            deadline: options.deadline,
            breakers: Breakers::of(&options.url),
            shared: Shared::default(),
            waiting: Waiting {
                idle: Mutex::default(),
                permits: Semaphore::new(options.waiting_writes.clamp(1, Semaphore::MAX_PERMITS)),
            },
        }
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// How long it may take to connect and to be answered.
    pub(super) fn patience(&self) -> Duration {
        self.connect_timeout * 3 + self.response_timeout
    }

    /// Carries out a call that may be carried out twice.
    pub(super) async fn call(&self, call: Call) -> Result<Value, StoreError> {
        let answers = self.calls(vec![call]).await?;
        answers.into_iter().next().ok_or_else(|| unavailable(StoreFault::Other, "there is no answer"))
    }

    /// Carries out calls that may be carried out twice, in any order.
    pub(super) async fn calls(&self, calls: Vec<Call>) -> Result<Vec<Value>, StoreError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        self.repeated(Work::Shared(&calls)).await
    }

    /// Carries out a change, and waits until it is as durable as configured.
    ///
    /// # Errors
    /// Also if it is stored, and not confirmed.
    pub(super) async fn durable(&self, call: Call) -> Result<Value, StoreError> {
        if !self.durability.waits() {
            return self.call(call).await;
        }
        let answers = self.repeated(Work::Waiting(&call)).await?;
        answers.into_iter().next().ok_or_else(|| unavailable(StoreFault::Other, "there is no answer"))
    }

    /// Waits until what is stored in a partition is as durable as configured, whoever has stored it.
    pub(super) async fn confirmed(&self, tag: &Tag) -> Result<(), StoreError> {
        // `WAIT` waits for what its connection has written.
        self.durable(Call::command("SET", tag, "mark").text("1")).await.map(drop)
    }

    /// Tries until there is an answer, nothing helps, or the deadline has passed.
    async fn repeated(&self, work: Work<'_>) -> Result<Vec<Value>, StoreError> {
        let deadline = Instant::now() + self.deadline;
        let breaker = self.breakers.for_work(work);
        let (mut failures, mut may_be_stored, mut last) = (0, false, None);
        loop {
            let tried = match work {
                _ if !breaker.admits(Instant::now()) => Err(Failure::Suspended),
                Work::Shared(calls) => self.try_shared(calls, deadline).await.map(Ok),
                Work::Waiting(call) => self.try_waiting(call, deadline).await,
            };
            let failure = match tried {
                Ok(answers) => {
                    breaker.answered();
                    return answers;
                }
                Err(failure) => failure,
            };
            match failure.is_of_the_link() {
                true => breaker.failed(Instant::now()),
                false if !matches!(failure, Failure::Suspended) => breaker.answered(),
                false => {}
            }
            may_be_stored |= failure.leaves_doubt();
            // Whoever has sent nothing yet need not wait for what has just been found to be away.
            let gives_up = matches!(failure, Failure::Suspended) && !may_be_stored;
            let wait = Duration::from_millis(BACKOFF.around(failures, &mut fastrand::Rng::new()));
            if gives_up || failure.remedy() == Remedy::None || Instant::now() + wait >= deadline {
                // That none is tried says less than why the last one failed.
                let failure = match failure {
                    Failure::Suspended => last.unwrap_or(failure),
                    failure => failure,
                };
                return Err(failure.into_error(may_be_stored));
            }
            if !matches!(failure, Failure::Suspended) {
                last = Some(failure);
            }
            failures += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends calls on the shared connection.
    async fn try_shared(&self, calls: &[Call], deadline: Instant) -> Result<Vec<Value>, Failure> {
        let (number, connection) = self.shared(deadline).await?;
        let sent_at = Instant::now();
        let until = deadline.min(sent_at + self.response_timeout);
        let sent = tokio::time::timeout_at(until, send_all(connection, calls)).await;
        let outcome = match sent {
            Ok(answers) => answers.map_err(failure_of),
            Err(_) => Err(Failure::Silent(sent_at.elapsed())),
        };
        match &outcome {
            Ok(_) => self.shared.timeouts.store(0, Ordering::Relaxed),
            Err(failure) if failure.remedy() == Remedy::Reconnect => {
                // Others that share the connection may still get their answers.
                let is_silent = matches!(failure, Failure::Silent(_));
                if !is_silent || self.shared.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS {
                    self.discard(number);
                }
            }
            Err(_) => {}
        }
        outcome
    }

    async fn shared(&self, deadline: Instant) -> Result<(u64, Connection), Failure> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let attempts = self.shared.attempts.load(Ordering::Acquire);
        let waiting = tokio::time::timeout_at(deadline, self.shared.connecting.lock()).await;
        let mut last = waiting.map_err(|_| Failure::Unreachable("cannot connect in time".to_owned()))?;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        // What somebody else has just found need not be found again by each that waits.
        if self.shared.attempts.load(Ordering::Acquire) != attempts {
            return Err(Failure::Unreachable(last.clone()));
        }
        let connected = self.connect(deadline).await;
        self.shared.attempts.fetch_add(1, Ordering::Release);
        if let Err(Failure::Unreachable(detail)) = &connected {
            last.clone_from(detail);
        }
        let connection = connected?;
        let number = self.shared.made.fetch_add(1, Ordering::Relaxed);
        let mut current = self.shared.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some((number, connection.clone()));
        Ok((number, connection))
    }

    fn current(&self) -> Option<(u64, Connection)> {
        self.shared.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the next call connect anew, unless somebody has done so since this connection was made.
    fn discard(&self, number: u64) {
        let mut current = self.shared.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|(made, _)| *made == number) {
            *current = None;
        }
        self.waiting.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.timeouts.store(0, Ordering::Relaxed);
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection, Failure> {
        // Finding a primary or a Cluster takes several connections.
        let patience = self.connect_timeout * 3;
        let until = deadline.min(Instant::now() + patience);
        match tokio::time::timeout_at(until, self.connector.connect(None)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                Err(Failure::Unreachable(format!("cannot connect to {}: {error}", self.connector.url())))
            }
            Err(_) => {
                let detail = format!("cannot connect to {} within {patience:?}", self.connector.url());
                Err(Failure::Unreachable(detail))
            }
        }
    }

    /// Sends a change on a connection of its own, with a `WAIT` behind it. The inner error is that it is not confirmed.
    async fn try_waiting(
        &self,
        call: &Call,
        deadline: Instant,
    ) -> Result<Result<Vec<Value>, StoreError>, Failure> {
        let permit = tokio::time::timeout_at(deadline, self.waiting.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Ok(Err(unavailable(StoreFault::Busy, "too many writes wait for replicas")));
        };
        let idle = self.waiting.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect(deadline).await?,
        };
        let outcome = self.change_and_wait(&mut connection, call, deadline).await;
        if outcome.as_ref().map_or_else(|failure| failure.remedy() != Remedy::Reconnect, |_| true) {
            self.waiting.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        } else {
            // The others lead to the same server.
            self.waiting.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        outcome
    }

    async fn change_and_wait(
        &self,
        connection: &mut Connection,
        call: &Call,
        deadline: Instant,
    ) -> Result<Result<Vec<Value>, StoreError>, Failure> {
        let (mut answer, mut confirmed) = (None, false);
        let mut by_source = false;
        while !confirmed {
            let mut pipeline = Pipeline::new();
            if answer.is_none() {
                pipeline.add_command(call.to_command(by_source));
            }
            let timeout = self.add_wait(&mut pipeline);
            let sent = connection.pipeline(pipeline, call.tag());
            let patience = self.response_timeout + timeout;
            // One that was sent before the deadline is waited for: what becomes of it is worth knowing.
            let answers = match tokio::time::timeout(patience, sent).await {
                Ok(answers) => answers.map_err(failure_of)?,
                Err(_) => return Err(Failure::Silent(patience)),
            };
            let mut answers = answers.into_iter();
            if answer.is_none() {
                match answers.next().unwrap_or_default().extract_error() {
                    Err(error) if code(&error) == "NOSCRIPT" && !by_source => {
                        by_source = true;
                        continue;
                    }
                    Err(error) => return Err(failure_of(error)),
                    Ok(value) => answer = Some(value),
                }
            }
            // The change is carried out by now: a server that was demoted meanwhile refuses the `WAIT` alone.
            let waited = answers.next().unwrap_or_default().extract_error();
            let waited = waited.map_err(|error| Failure::Lost(error.to_string()))?;
            confirmed = self.is_enough(&waited);
            if !confirmed && Instant::now() >= deadline {
                let detail = "it is stored, and not confirmed: too few replicas, or disks, have it; it may still be lost";
                return Ok(Err(unavailable(StoreFault::Slow, detail)));
            }
        }
        Ok(Ok(answer.into_iter().collect()))
    }

    /// Appends the `WAIT` that is configured, and returns how long it may take.
    fn add_wait(&self, pipeline: &mut Pipeline) -> Duration {
        let millis = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        match self.durability {
            Durability::Primary => Duration::ZERO,
            Durability::Replicas { replicas, timeout } => {
                pipeline.cmd("WAIT").arg(replicas).arg(millis(timeout));
                timeout
            }
            Durability::Disks { local, replicas, timeout } => {
                pipeline.cmd("WAITAOF").arg(u8::from(local)).arg(replicas).arg(millis(timeout));
                timeout
            }
        }
    }

    fn is_enough(&self, waited: &Value) -> bool {
        match (self.durability, waited) {
            (Durability::Primary, _) => true,
            (Durability::Replicas { replicas, .. }, Value::Int(have)) => *have >= i64::from(replicas),
            (Durability::Disks { local, replicas, .. }, Value::Array(have)) => {
                matches!(have.as_slice(), [Value::Int(own), Value::Int(others)]
                    if *own >= i64::from(local) && *others >= i64::from(replicas))
            }
            _ => false,
        }
    }
}

/// Sends calls together, and those scripts that Redis does not know once more, with their source.
async fn send_all(mut connection: Connection, calls: &[Call]) -> RedisResult<Vec<Value>> {
    let mut answers = if let [call] = calls
        && call.is_routed()
    {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(call.to_command(false));
        connection.pipeline(pipeline, call.tag()).await?.into_iter().map(Value::extract_error).collect()
    } else if let [call] = calls {
        vec![connection.command(&call.to_command(false)).await.and_then(Value::extract_error)]
    } else if connection.is_cluster() {
        // Each goes to the server that has its partition.
        let sent = calls.iter().map(|call| {
            let (mut connection, command) = (connection.clone(), call.to_command(false));
            async move { connection.command(&command).await.and_then(Value::extract_error) }
        });
        futures_util::future::join_all(sent).await
    } else {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.to_command(false));
        }
        let tag = calls.first().map(Call::tag).ok_or((redis::ErrorKind::Client, "there is no call"))?;
        connection.pipeline(pipeline, tag).await?.into_iter().map(Value::extract_error).collect()
    };
    for (call, answer) in calls.iter().zip(&mut answers) {
        if answer.as_ref().is_err_and(|error| code(error) == "NOSCRIPT") {
            *answer = connection.command(&call.to_command(true)).await.and_then(Value::extract_error);
        }
    }
    answers.into_iter().collect()
}

/// What an error says: an answer of Redis, or that there is none.
fn failure_of(error: RedisError) -> Failure {
    match error.kind() {
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => Failure::Refused(error),
        _ => Failure::Lost(error.to_string()),
    }
}
