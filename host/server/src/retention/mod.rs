//! Removes requests that nothing needs any more, after they are in the archive, if there is one.
//!
//! A sweep works in small batches, and rests after each, so that nobody who asks or decides waits for it. Over a store that
//! several gateways share, one of them at a time sweeps. That only saves work: each request is removed, and archived, by
//! whoever claims it first.

mod archive;
mod policies;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::lifecycle::{AuditEntry, AuditEvent, Request, RequestId, Timestamp};
use countersign_gateway::retention::{LATER_MS, Passed};
use countersign_store::{Removal, StoreError};
use futures_util::future::join_all;
use prometheus::{IntCounterVec, Opts, Registry};
use serde_json::Map;
use tokio::time::Instant;

pub(crate) use self::archive::Archive;
pub(crate) use self::policies::PolicySweeper;
use crate::config;
use crate::state::App;

/// How many requests are looked at, and removed, at once: at first, and at least and at most.
const BATCH: usize = 50;
const LEAST_BATCH: usize = 10;
const MOST_BATCH: usize = 400;

/// A batch whose write took less makes the next one twice as large, and one whose write took more half as large, so that
/// no write takes 50 ms.
const QUICK: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(25);

/// How many lines of the archive are made at once.
const LINES_AT_ONCE: usize = 8;

/// How many bytes of lines are appended at once, unless one alone is larger.
const BATCH_BYTES: usize = 4 << 20;

/// For how many times as long as the writes of a batch took, the next one waits: only they keep others waiting.
const REST: u32 = 3;

/// By how much this gateway's clock and that of a store which it shares may differ, in milliseconds.
const MOST_APART_MS: u64 = 10 * 60 * 1000;

/// The lease of the instance that sweeps, and how long it lasts beyond the time to the next sweep.
const LEASE: &str = "retention";
const LEASE_MS: u64 = 5_000;

/// How often what is wrong is logged while it stays the same.
const REMINDER: Duration = Duration::from_secs(60);

/// Why an archive cannot be written, for metrics that start at zero.
const REASONS: [&str; 3] = ["full", "io", "in_use"];

/// Removes what nothing needs.
pub(crate) struct Sweeper {
    retention_ms: u64,
    interval: Duration,
    /// How many requests the next batch has at most.
    batch: AtomicUsize,
    path: Option<PathBuf>,
    archive: Mutex<Option<Arc<Archive>>>,
    failures: IntCounterVec,
    failing: Mutex<Option<(String, Instant)>>,
}

/// Why a sweep ended before there was nothing left to remove.
enum Stopped {
    Store(StoreError),
    Archive(&'static str, String),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Stopped {
        Stopped::Store(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => "full",
            _ => "io",
        };
        Stopped::Archive(reason, error.to_string())
    }
}

impl Sweeper {
    /// `None` if requests are kept for ever.
    pub(crate) fn new(
        config: &config::Retention,
        registry: &Registry,
    ) -> prometheus::Result<Option<Sweeper>> {
        let failures = IntCounterVec::new(
            Opts::new("request_archive_failures_total", "Times that requests could not be archived."),
            &["reason"],
        )?;
        registry.register(Box::new(failures.clone()))?;
        for reason in REASONS {
            failures.with_label_values(&[reason]);
        }
        let Some(retention_sec) = config.request_retention_sec else { return Ok(None) };
        Ok(Some(Sweeper {
            retention_ms: u64::from(retention_sec).saturating_mul(1000),
            interval: Duration::from_secs(config.sweep_sec.into()),
            batch: AtomicUsize::new(BATCH),
            path: config.archive_file.clone(),
            archive: Mutex::default(),
            failures,
            failing: Mutex::default(),
        }))
    }

    /// Whether requests cannot be archived, so that none is removed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Removes all that can go now. Returns how much that was.
    pub(crate) async fn sweep(&self, app: &App) -> Removed {
        let mut removed = Removed::default();
        let swept = self.remove_all(app, &mut removed).await;
        if removed.requests > 0 {
            tracing::info!(
                requests = removed.requests,
                archived = removed.archived,
                "ended requests removed"
            );
            if let Err(error) = audit(app, &removed).await {
                tracing::warn!(%error, "the audit log does not say that requests were removed");
            }
        }
        match swept {
            Ok(()) => self.resolve(),
            // What is wrong with the store is logged already, and the next sweep goes on.
            Err(Stopped::Store(error @ StoreError::Unavailable { .. })) => {
                tracing::debug!(%error, "ended requests were not removed");
            }
            Err(Stopped::Store(error)) => {
                tracing::warn!(%error, "a stored value cannot be read, so ended requests were not removed");
            }
            Err(Stopped::Archive(reason, what)) => self.report(reason, what),
        }
        removed
    }

    async fn remove_all(&self, app: &App, removed: &mut Removed) -> Result<(), Stopped> {
        let archive = self.opened().await?;
        loop {
            let before = removed.writing;
            let Some(is_last) = self.remove_some(app, archive.as_ref(), removed).await? else {
                return Ok(());
            };
            if is_last {
                return Ok(());
            }
            tokio::time::sleep(removed.writing.saturating_sub(before) * REST).await;
        }
    }

    /// Removes a batch, and tells whether it was the last one; `None` if another instance sweeps, or if the clock cannot be
    /// relied upon.
    async fn remove_some(
        &self,
        app: &App,
        archive: Option<&Arc<Archive>>,
        removed: &mut Removed,
    ) -> Result<Option<bool>, Stopped> {
        let (gateway, store) = (&app.gateway, app.gateway.store());
        if !is_on_time(app).await? {
            return Ok(None);
        }
        if let Some(archive) = archive {
            let archive = Arc::clone(archive);
            let left = blocking({
                let archive = Arc::clone(&archive);
                move || archive.left_over()
            })
            .await?;
            if !left.is_empty() {
                self.remove(app, left, Some(&archive), removed).await?;
            }
        }
        if let Some(shared) = store.shared() {
            let ttl_ms =
                u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX).saturating_add(LEASE_MS);
            if !shared.lease(LEASE, gateway.instance(), ttl_ms).await? {
                return Ok(None);
            }
        }
        let found = gateway.passed(self.retention_ms, self.batch.load(Ordering::Relaxed)).await?;
        put_off(app, found.put_off, removed).await?;
        let mut waiting = found.passed.as_slice();
        while !waiting.is_empty() {
            let (removals, rest) = self.archived(app, archive, waiting, removed).await?;
            waiting = rest;
            if !removals.is_empty() {
                self.remove(app, removals, archive, removed).await?;
            }
        }
        Ok(Some(found.is_last))
    }

    /// Appends the first of these to the archive, if there is one. Returns what can be removed then, and the others.
    async fn archived<'a>(
        &self,
        app: &App,
        archive: Option<&Arc<Archive>>,
        passed: &'a [Passed],
        removed: &mut Removed,
    ) -> Result<(Vec<Removal>, &'a [Passed]), Stopped> {
        let Some(archive) = archive else {
            return Ok((passed.iter().filter_map(|passed| passed.removal(false)).collect(), &[]));
        };
        let store = app.gateway.store();
        let ids: Vec<RequestId> = passed.iter().flat_map(|it| it.requests.iter().map(|it| it.id)).collect();
        let own = store.claim_archival(&ids, archive.id(), app.gateway.clock().now()).await?;
        let (mut lines, mut removals) = (Vec::new(), Vec::new());
        let is_own = |next: &Passed| next.requests.iter().all(|request| own.contains(&request.id));
        let mut rest = passed;
        while !rest.is_empty() && lines.len() < BATCH_BYTES {
            let (next, others) = rest.split_at(rest.len().min(LINES_AT_ONCE));
            rest = others;
            let mut made = Vec::new();
            for passed in next {
                // Another archive has some of the others.
                let requests = if is_own(passed) { passed.requests.as_slice() } else { &[] };
                made.push(lines_of(app, requests));
            }
            for (passed, more) in next.iter().zip(join_all(made).await) {
                let more = match more {
                    Ok(more) => more,
                    Err(error @ StoreError::Unavailable { .. }) => return Err(error.into()),
                    Err(error) => {
                        let request =
                            passed.requests.first().map(|request| tracing::field::display(request.id));
                        tracing::warn!(request, %error, "an ended request cannot be archived, so it is not removed");
                        Vec::new()
                    }
                };
                if more.is_empty() {
                    let requests = passed.requests.iter().map(|request| request.id);
                    put_off(app, self.later(app, requests), removed).await?;
                    continue;
                }
                lines.extend(more);
                removals.extend(passed.removal(true));
            }
        }
        if removals.is_empty() {
            return Ok((removals, rest));
        }
        let (archive, noted) = (Arc::clone(archive), removals.clone());
        blocking(move || archive.append(&lines, &noted)).await?;
        Ok((removals, rest))
    }

    /// Removes requests from the store, and then forgets that they were to be removed.
    async fn remove(
        &self,
        app: &App,
        removals: Vec<Removal>,
        archive: Option<&Arc<Archive>>,
        removed: &mut Removed,
    ) -> Result<(), Stopped> {
        let requests: Vec<Vec<RequestId>> =
            removals.iter().map(|removal| removal.requests.iter().map(|it| it.id).collect()).collect();
        let begun = Instant::now();
        let done = app.gateway.store().remove(removals, archive.map(|archive| archive.id())).await?;
        let took = begun.elapsed();
        removed.writing += took;
        self.batch
            .store(next_batch(self.batch.load(Ordering::Relaxed), requests.len(), took), Ordering::Relaxed);
        let (gone, kept): (Vec<_>, Vec<_>) = requests.into_iter().zip(done).partition(|(_, done)| *done);
        let count = gone.iter().map(|(requests, _)| requests.len() as u64).sum::<u64>();
        removed.requests += count;
        let kept = kept.into_iter().flat_map(|(requests, _)| requests);
        put_off(app, self.later(app, kept), removed).await?;
        if let Some(archive) = archive {
            removed.archived += count;
            let archive = Arc::clone(archive);
            blocking(move || archive.forget()).await?;
        }
        Ok(())
    }

    /// These are looked at again later: they have changed, another archive has claimed them, or they cannot be archived.
    fn later(&self, app: &App, requests: impl Iterator<Item = RequestId>) -> Vec<(RequestId, Timestamp)> {
        let listed_at = app.gateway.clock().now().plus(LATER_MS).minus(self.retention_ms);
        requests.map(|request| (request, listed_at)).collect()
    }

    /// The archive, which is opened if it was not yet.
    async fn opened(&self) -> Result<Option<Arc<Archive>>, Stopped> {
        let Some(path) = self.path.clone() else { return Ok(None) };
        let known = self.archive.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_some() {
            return Ok(known);
        }
        let opened = blocking(move || Ok(Archive::open(&path))).await?;
        let opened = opened.map_err(|error| Stopped::Archive("in_use", format!("{error:#}")))?;
        let opened = Some(Arc::new(opened));
        self.archive.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&opened);
        Ok(opened)
    }

    /// What is wrong is logged when it changes, and once a minute.
    fn report(&self, reason: &'static str, what: String) {
        self.failures.with_label_values(&[reason]).inc();
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if failing
            .as_ref()
            .is_some_and(|(known, logged)| *known == what && now.duration_since(*logged) < REMINDER)
        {
            return;
        }
        tracing::error!(what, "requests cannot be archived, so none is removed");
        *failing = Some((what, now));
    }

    fn resolve(&self) {
        let resolved = self.failing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if resolved.is_some() {
            tracing::info!("requests are archived again");
        }
    }
}

/// Whether this gateway's clock can be relied upon to say what is old enough to go. Over a store that several gateways share it
/// is held against the store's: one that is ahead would remove what others still need.
pub(crate) async fn is_on_time(app: &App) -> Result<bool, StoreError> {
    let Some(shared) = app.gateway.store().shared() else { return Ok(true) };
    let of_store = shared.now().await?;
    let own = app.gateway.clock().now();
    if !are_near(own, of_store) {
        tracing::warn!(%own, %of_store, "this machine's clock differs from that of the store by more than ten minutes, so nothing is removed");
        return Ok(false);
    }
    Ok(true)
}

fn are_near(one: Timestamp, other: Timestamp) -> bool {
    one.since(other).max(other.since(one)) <= MOST_APART_MS
}

async fn put_off(
    app: &App,
    requests: Vec<(RequestId, Timestamp)>,
    removed: &mut Removed,
) -> Result<(), StoreError> {
    if requests.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    let done = app.gateway.store().put_off(requests).await;
    removed.writing += begun.elapsed();
    done
}

/// The lines of requests in an archive.
async fn lines_of(app: &App, requests: &[Request]) -> Result<Vec<u8>, StoreError> {
    let mut lines = Vec::new();
    for request in requests {
        lines.extend(app.gateway.archive_line(request).await?);
    }
    Ok(lines)
}

/// How much was removed.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    pub(crate) requests: u64,
    pub(crate) archived: u64,
    /// How long the writes took that removed requests or put them off.
    pub(crate) writing: Duration,
}

/// How many requests a batch has after one of at most `batch`, of which `removed` lineages were removed in this time.
fn next_batch(batch: usize, removed: usize, took: Duration) -> usize {
    if took > SLOW {
        batch.midpoint(0).max(LEAST_BATCH)
    } else if took < QUICK && removed >= batch.midpoint(0) {
        batch.saturating_mul(2).min(MOST_BATCH)
    } else {
        batch
    }
}

/// An entry for all that a sweep has removed.
async fn audit(app: &App, removed: &Removed) -> Result<(), StoreError> {
    let mut detail = Map::new();
    detail.insert("requests".to_owned(), removed.requests.into());
    detail.insert("archived".to_owned(), removed.archived.into());
    let entry = AuditEntry::of_admin(app.gateway.clock().now(), AuditEvent::RequestsRemoved, None, detail);
    app.gateway.store().append(vec![entry], Vec::new()).await
}

/// Sweeps again and again.
pub(crate) async fn keep_sweeping(app: Arc<App>) {
    let Some(sweeper) = &app.retention else { return std::future::pending().await };
    loop {
        sweeper.sweep(&app).await;
        tokio::time::sleep(sweeper.interval).await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Stopped> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.unwrap_or_else(|error| Err(io::Error::other(error)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_from_the_stores_is_not_relied_upon() {
        let at = |minutes: u64| Timestamp::from_millis(minutes * 60_000);
        for (own, of_store, expected) in
            [(100, 100, true), (110, 100, true), (90, 100, true), (111, 100, false), (89, 100, false)]
        {
            assert_eq!(are_near(at(own), at(of_store)), expected, "{own} {of_store}");
        }
    }

    #[test]
    fn a_batch_grows_while_its_write_is_quick_and_shrinks_once_it_is_not() {
        let ms = Duration::from_millis;
        assert_eq!(next_batch(50, 50, ms(9)), 100);
        assert_eq!(next_batch(50, 24, ms(1)), 50, "so few say little about a larger one");
        assert_eq!(next_batch(50, 50, ms(20)), 50);
        assert_eq!(next_batch(50, 1, ms(26)), 25);
        assert_eq!(next_batch(LEAST_BATCH, 9, ms(90)), LEAST_BATCH);
        assert_eq!(next_batch(300, 300, ms(1)), MOST_BATCH);
    }
}
