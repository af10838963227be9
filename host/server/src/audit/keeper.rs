//! Keeps the audit log provable while the gateway runs: signs checkpoints, and appends them and the entries to files outside
//! of the store.
//!
//! Nothing waits for it. What goes wrong is in the log, in metrics and in `/readyz`, and is made up for later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use countersign_core::audit::checkpoint::Head;
use countersign_core::lifecycle::Timestamp;
use countersign_gateway::audit::{AuditKeys, AuditSigner, Part as Removal, SignError};
use countersign_store::{AuditCursor, AuditRange, Store, StoreError};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use tokio::task::JoinError;
use tokio::time::Instant;

use super::files::{Entries, Notes};
use crate::config;
use crate::retention::is_on_time;
use crate::state::App;

/// How often the audit file is looked after.
const MIRROR: Duration = Duration::from_secs(1);

/// How often the instances that share the store are told how far the audit file is, and for how long they heed it: an
/// instance that is away for longer may find that entries are gone that are not in its file.
const TOLD_APART: Duration = Duration::from_secs(30);
const TOLD_FOR_MS: u64 = 24 * 60 * 60 * 1000;

/// For how long they heed that nothing is known to be in it, which is said again each second: it keeps every entry, and an
/// instance that ends meanwhile comes back under another number.
const NOTHING_FOR_MS: u64 = 5 * 60 * 1000;

/// How many entries are appended to the audit file at once.
const PAGE: usize = 1000;

/// The lease of the instance that signs, and how long it lasts beyond the time to the next checkpoint.
const LEASE: &str = "audit_checkpoint";
const LEASE_MS: u64 = 5_000;

/// The lease of the instance that removes the oldest entries, and how long it lasts beyond the time to the next look.
const RETENTION_LEASE: &str = "audit_retention";

/// How often the log is read for what can be removed, in each period for which entries are kept.
const LOOKS: u32 = 16;

/// For how many times as long as a removal took the next one waits.
const REST: u32 = 3;

/// How often what is wrong is logged while it stays the same.
const REMINDER: Duration = Duration::from_secs(60);

/// Keeps the log of a store provable.
pub(crate) struct Keeper {
    signer: tokio::sync::Mutex<AuditSigner>,
    checkpoints: Option<Arc<Mutex<Notes>>>,
    entries: Option<Arc<Mutex<Entries>>>,
    troubles: Mutex<BTreeMap<Part, Trouble>>,
    metrics: Metrics,
    interval: Duration,
    /// For how long entries are kept, and how often is looked for older ones; `None` if for ever.
    retention: Option<(Duration, Duration)>,
    removing: tokio::sync::Mutex<Removing>,
    /// How many entries of each partition are in the audit file.
    mirrored: Mutex<Vec<u64>>,
}

/// What is being removed.
#[derive(Default)]
struct Removing {
    /// When the log was last read for what can be removed.
    looked: Option<Instant>,
    /// What can be removed once a checkpoint covers the entries that say so.
    parts: VecDeque<Removal>,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The log is not what was signed or cannot be read, so nothing is signed any more.
    Signing,
    /// The file of checkpoints cannot be written.
    CheckpointFile,
    /// The file of entries cannot be written, or the log cannot be read for it.
    File,
    /// The log is not what was signed or cannot be read, so that no entries are removed.
    Retention,
}

impl Part {
    const FILES: [Part; 2] = [Part::CheckpointFile, Part::File];

    /// Its name in metrics and in `/readyz`.
    const fn as_str(self) -> &'static str {
        match self {
            Part::Signing => "signing",
            Part::CheckpointFile => "checkpoint_file",
            Part::File => "file",
            Part::Retention => "retention",
        }
    }
}

struct Trouble {
    what: String,
    logged: Instant,
}

struct Metrics {
    signed: IntGauge,
    refused: IntGauge,
    failing: IntGaugeVec,
}

impl Metrics {
    fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            signed: IntGauge::new(
                "audit_signed_entries",
                "Audit entries that the newest checkpoint covers.",
            )?,
            refused: IntGauge::new(
                "audit_signing_refused",
                "1 if no checkpoint is signed because the audit log is not what was signed before.",
            )?,
            failing: IntGaugeVec::new(
                Opts::new("audit_file_failing", "1 if a file outside of the store cannot be written."),
                &["file"],
            )?,
        };
        registry.register(Box::new(metrics.signed.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.failing.clone()))?;
        for part in Part::FILES {
            metrics.failing.with_label_values(&[part.as_str()]).set(0);
        }
        Ok(metrics)
    }
}

impl Keeper {
    /// Reads how far the files are. `random` tells this log from others if it is new. Blocks.
    ///
    /// # Errors
    /// If a file cannot be read, or the last checkpoint of its file is not one of these keys.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        keys: AuditKeys,
        random: u64,
        config: &config::Audit,
        registry: &Registry,
    ) -> anyhow::Result<Keeper> {
        let checkpoints = config.checkpoint_file().map(|path| Notes::open(path, &keys)).transpose()?;
        let (checkpoints, known) = checkpoints.map_or((None, None), |(notes, known)| (Some(notes), known));
        let entries = config.audit_file.as_deref().map(Entries::open).transpose()?;
        Ok(Keeper {
            signer: AuditSigner::new(store, keys, random, known).into(),
            checkpoints: checkpoints.map(|notes| Arc::new(Mutex::new(notes))),
            entries: entries.map(|entries| Arc::new(Mutex::new(entries))),
            troubles: Mutex::default(),
            metrics: Metrics::new(registry).context("cannot register metrics")?,
            interval: Duration::from_secs(config.audit_checkpoint_sec.into()),
            retention: None,
            removing: tokio::sync::Mutex::default(),
            mirrored: Mutex::default(),
        })
    }

    /// The same, which removes entries after a time.
    pub(crate) fn removing_after(mut self, retention: &config::Retention) -> Keeper {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        self.retention =
            retention.audit_retention_sec.map(|kept| (seconds(kept), seconds(retention.sweep_sec)));
        self
    }

    /// The names of the parts that something is wrong with. What it is can name files, and is in the log alone.
    pub(crate) fn troubles(&self) -> Vec<&'static str> {
        lock(&self.troubles).keys().map(|part| part.as_str()).collect()
    }

    /// What is wrong with each, for admins.
    pub(crate) fn explained(&self) -> BTreeMap<&'static str, String> {
        let troubles = lock(&self.troubles);
        troubles.iter().map(|(part, trouble)| (part.as_str(), trouble.what.clone())).collect()
    }

    /// Signs what was added since the last checkpoint, if it is this instance's turn, and appends the newest one to its file.
    pub(crate) async fn sign(&self, app: &App) {
        let gateway = &app.gateway;
        let mut signer = self.signer.lock().await;
        let is_ours = match gateway.store().shared() {
            None => true,
            Some(shared) => {
                let ttl_ms =
                    u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX).saturating_add(LEASE_MS);
                shared.lease(LEASE, gateway.instance(), ttl_ms).await.unwrap_or(false)
            }
        };
        let newest =
            if is_ours { signer.sign(gateway.clock().now()).await.map(Some) } else { signer.newest().await };
        match newest {
            Ok(Some(signed)) => {
                self.resolve(Part::Signing);
                let entries = signed.checkpoint.entries();
                if signed.is_new {
                    tracing::debug!(entries, "audit checkpoint signed");
                }
                self.append_note(signed.note).await;
                self.metrics.signed.set(i64::try_from(entries).unwrap_or(i64::MAX));
            }
            Ok(None) => {}
            Err(error) => self.fail(Part::Signing, error),
        }
    }

    async fn append_note(&self, note: String) {
        let Some(notes) = self.checkpoints.clone() else { return };
        let append = move || lock(&notes).append(note);
        self.settle(Part::CheckpointFile, tokio::task::spawn_blocking(append).await);
    }

    /// Appends what was added to the log to the audit file.
    pub(crate) async fn mirror(&self, store: &dyn Store) {
        let Some(entries) = &self.entries else { return };
        loop {
            let after = lock(entries).after.clone();
            let read = async {
                // What was there before is in the file once its end was reached.
                let sizes = store.audit_sizes().await?;
                let page = store.audit_log(AuditRange::default(), &after, PAGE).await?;
                let is_compared = page.entries.is_empty() && lock(entries).is_compared;
                let before = match is_compared {
                    true => Vec::new(),
                    false => store.audit_before(&after).await?,
                };
                Ok((sizes, page, before))
            };
            let (sizes, page) = match read.await {
                Ok((sizes, page, before)) if lock(entries).goes_on(&sizes, &before, &page) => (sizes, page),
                // The store has lost entries, or is a copy of one of another kind: the file tells what it has already.
                Err(StoreError::Cursor(_)) | Ok(_) if !after.as_str().is_empty() => {
                    tracing::warn!(
                        "the audit log is not the one that the audit file was written from; reading all of it again"
                    );
                    // Until its end was reached again nobody may remove what the file may not have.
                    lock(&self.mirrored).clear();
                    let entries = Arc::clone(entries);
                    let start_again = move || lock(&entries).start_again();
                    if self.settle(Part::File, tokio::task::spawn_blocking(start_again).await) {
                        continue;
                    }
                    return;
                }
                Ok((sizes, page, _)) => (sizes, page),
                Err(error) => return self.fail(Part::File, SignError::Store(error)),
            };
            lock(entries).is_compared = true;
            if page.entries.is_empty() && page.is_last && lock(entries).is_noted() {
                *lock(&self.mirrored) = sizes;
                return self.resolve(Part::File);
            }
            let (entries, is_last) = (Arc::clone(entries), page.is_last);
            let before = sizes.clone();
            let append = move || lock(&entries).append(&page, &before);
            let is_done = self.settle(Part::File, tokio::task::spawn_blocking(append).await);
            if is_last || !is_done {
                if is_done {
                    *lock(&self.mirrored) = sizes;
                }
                return;
            }
        }
    }

    /// Removes entries that are old enough: writes entries that say so, and removes the old ones once a checkpoint covers
    /// these.
    async fn remove(&self, app: &App) -> Result<(), SignError> {
        let Some((kept, interval)) = self.retention else { return Ok(()) };
        let (gateway, store) = (&app.gateway, app.gateway.store());
        if let Some(shared) = store.shared() {
            let ttl_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).saturating_add(LEASE_MS);
            if !shared.lease(RETENTION_LEASE, gateway.instance(), ttl_ms).await? {
                return Ok(());
            }
        }
        let mut removing = self.removing.lock().await;
        let is_due = removing.looked.is_none_or(|looked| looked.elapsed() >= (kept / LOOKS).max(interval));
        if removing.parts.is_empty() && is_due {
            let now = gateway.clock().now();
            let before = now.minus(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX));
            let mut files: Vec<Vec<u64>> =
                self.entries.is_some().then(|| lock(&self.mirrored).clone()).into_iter().collect();
            if let Some(shared) = store.shared() {
                files.extend(shared.audit_files().await?);
            }
            let is_mirrored = files.iter().all(|file| !file.is_empty());
            let most = in_all(files);
            if is_mirrored && has_older(store.as_ref(), before).await? && is_on_time(app).await? {
                let parts = self.signer.lock().await.announce_trims(before, most.as_deref(), now).await?;
                removing.parts.extend(parts);
                removing.looked = Some(Instant::now());
            }
            if !removing.parts.is_empty() {
                self.sign(app).await;
            }
        }
        let heads: Vec<Head> = match removing.parts.is_empty() {
            true => return Ok(()),
            false => self.signer.lock().await.newest().await?.map_or(Vec::new(), |it| it.checkpoint.heads),
        };
        let mut removed = 0;
        while let Some(part) = removing.parts.front().copied().filter(|part| part.is_covered(&heads)) {
            let begun = Instant::now();
            store.remove_audit(part.partition, part.removed).await?;
            removing.parts.pop_front();
            removed += 1;
            tokio::time::sleep(begun.elapsed() * REST).await;
        }
        if removed > 0 {
            tracing::info!(parts = removed, "old audit entries removed");
        }
        Ok(())
    }

    /// Something was not done. That the store is away is logged already, and the next look makes up for it.
    fn fail(&self, part: Part, error: SignError) {
        match error {
            SignError::Store(error @ StoreError::Unavailable { .. }) => {
                tracing::debug!(part = part.as_str(), %error, "the audit log cannot be read or written to");
            }
            SignError::Store(error) => self.report(part, error.to_string()),
            SignError::Refused(refusal) => self.report(part, refusal.to_string()),
        }
    }

    /// False if a file could not be written.
    fn settle(&self, part: Part, appended: Result<Result<(), String>, JoinError>) -> bool {
        match appended.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => {
                self.resolve(part);
                true
            }
            Err(what) => {
                self.report(part, what);
                false
            }
        }
    }

    /// The gauge of a part; that entries are not removed is in `gateway_degraded` alone.
    fn gauge(&self, part: Part) -> Option<IntGauge> {
        match part {
            Part::Signing => Some(self.metrics.refused.clone()),
            Part::CheckpointFile | Part::File => {
                Some(self.metrics.failing.with_label_values(&[part.as_str()]))
            }
            Part::Retention => None,
        }
    }

    /// What is wrong is logged when it changes, and once a minute.
    fn report(&self, part: Part, what: String) {
        if let Some(gauge) = self.gauge(part) {
            gauge.set(1);
        }
        let mut troubles = lock(&self.troubles);
        let now = Instant::now();
        let known = troubles.get(&part);
        if known.is_some_and(|known| known.what == what && now.duration_since(known.logged) < REMINDER) {
            return;
        }
        match part {
            Part::Signing => tracing::error!(what, "the audit log is not what was signed before"),
            Part::Retention => tracing::error!(what, "no audit entries are removed"),
            part => {
                tracing::error!(file = part.as_str(), what, "audit file not written; it is made up for later")
            }
        }
        troubles.insert(part, Trouble { what, logged: now });
    }

    fn resolve(&self, part: Part) {
        if let Some(gauge) = self.gauge(part) {
            gauge.set(0);
        }
        let resolved = lock(&self.troubles).remove(&part);
        if resolved.is_some() {
            tracing::info!(part = part.as_str(), "the audit log is in order again");
        }
    }
}

/// Signs again and again.
pub(crate) async fn keep_signing(app: Arc<App>) {
    loop {
        app.audit.sign(&app).await;
        tokio::time::sleep(app.audit.interval).await;
    }
}

/// Keeps the audit file up to date, and tells the instances that share the store how far it is, also while it is written for
/// long.
pub(crate) async fn keep_mirroring(app: Arc<App>) {
    let mirroring = async {
        loop {
            app.audit.mirror(app.gateway.store().as_ref()).await;
            tokio::time::sleep(MIRROR).await;
        }
    };
    tokio::join!(keep_telling(&app), mirroring);
}

/// Tells the instances that share the store how far the audit file is, again and again.
async fn keep_telling(app: &App) {
    let Some(shared) = app.gateway.store().shared() else { return };
    let mut told: Option<Instant> = None;
    loop {
        let entries = lock(&app.audit.mirrored).clone();
        if entries.is_empty() || told.is_none_or(|told| told.elapsed() >= TOLD_APART) {
            match shared.announce_audit_file(app.gateway.instance(), &entries, told_for(&entries)).await {
                Ok(()) => told = (!entries.is_empty()).then(Instant::now),
                Err(error) => tracing::debug!(%error, "nobody knows how far the audit file is"),
            }
        }
        tokio::time::sleep(MIRROR).await;
    }
}

/// For how long it counts that so many entries of each partition are in an audit file, in milliseconds.
fn told_for(entries: &[u64]) -> u64 {
    if entries.is_empty() { NOTHING_FOR_MS } else { TOLD_FOR_MS }
}

/// How many entries of each partition are in all of these files; `None` if there is no file.
fn in_all(files: Vec<Vec<u64>>) -> Option<Vec<u64>> {
    files
        .into_iter()
        .reduce(|one, other| one.into_iter().zip(other).map(|(one, other)| one.min(other)).collect())
}

/// Removes entries that are old enough, again and again.
pub(crate) async fn keep_removing(app: Arc<App>) {
    let Some((_, interval)) = app.audit.retention else { return std::future::pending().await };
    loop {
        match app.audit.remove(&app).await {
            Ok(()) => app.audit.resolve(Part::Retention),
            Err(error) => app.audit.fail(Part::Retention, error),
        }
        tokio::time::sleep(interval).await;
    }
}

/// Whether there are entries from before a time.
async fn has_older(store: &dyn Store, before: Timestamp) -> Result<bool, StoreError> {
    let range = AuditRange { request: None, period: Some((Timestamp::EPOCH, before)) };
    let page = store.audit_log(range, &AuditCursor::default(), 1).await?;
    Ok(!page.entries.is_empty() || !page.is_last)
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use countersign_store::{Audit as _, SqliteStore, StoreFault, fixtures};

    use super::*;

    #[test]
    fn only_what_is_in_every_file_may_be_removed() {
        assert_eq!(in_all(vec![]), None);
        assert_eq!(in_all(vec![vec![3, 4]]), Some(vec![3, 4]));
        assert_eq!(in_all(vec![vec![3, 4], vec![5, 1], vec![9, 9]]), Some(vec![3, 1]));
    }

    /// It keeps the entries of all for as long, and is said again and again while it is so.
    #[test]
    fn that_nothing_is_in_a_file_counts_for_minutes() {
        assert!(
            told_for(&[]) <= 10 * 60 * 1000
                && told_for(&[]) > 60 * u64::try_from(MIRROR.as_millis()).unwrap()
        );
        assert_eq!(told_for(&[0, 3]), TOLD_FOR_MS);
    }

    fn keeper(store: Arc<dyn Store>, config: &config::Audit) -> Keeper {
        let keys = AuditKeys::new([&[1; 32]]).unwrap();
        Keeper::open(store, keys, 7, config, &Registry::new()).unwrap()
    }

    /// That the store is away is told elsewhere; anything else that keeps a part from its work is told, whatever part it is.
    #[test]
    fn what_is_wrong_is_told_of_each_part() {
        let keeper = keeper(Arc::new(SqliteStore::in_memory().unwrap()), &config::Audit::default());
        let away = StoreError::Unavailable { backend: "b", fault: StoreFault::Slow, detail: String::new() };
        let corrupt =
            StoreError::Corrupt { table: "audit", column: "body", key: "7".into(), detail: "x".into() };
        for part in [Part::Signing, Part::File, Part::Retention] {
            keeper.fail(part, away.clone().into());
            assert_eq!(keeper.troubles(), [""; 0]);
            for error in [corrupt.clone(), StoreError::Cursor("36".into())] {
                keeper.fail(part, error.clone().into());
                assert_eq!(keeper.explained(), BTreeMap::from([(part.as_str(), error.to_string())]));
            }
            keeper.resolve(part);
        }
    }

    /// As a copy by way of another kind of store may be: in another order, with more before the place that was read last.
    #[tokio::test]
    async fn an_audit_file_goes_on_with_the_log_of_a_copy_in_another_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit");
        let mut config = config::Audit::default();
        config.audit_file = Some(file.clone());
        // Partitions, in the order of the rows.
        for (rows, expected) in [(&[5, 3][..], &[5, 3][..]), (&[7, 5, 3], &[5, 3, 7])] {
            let store = Arc::new(SqliteStore::in_memory().unwrap());
            for shard in rows {
                let entry = fixtures::audit(&fixtures::request_in(*shard, 1), "event");
                store.append(vec![entry], Vec::new()).await.unwrap();
            }
            let keeper = keeper(Arc::<SqliteStore>::clone(&store), &config);
            keeper.mirror(store.as_ref()).await;
            assert_eq!((keeper.troubles(), lock(&keeper.mirrored).is_empty()), (vec![], false));
            let text = std::fs::read_to_string(&file).unwrap();
            let found: Vec<u16> =
                text.lines().filter_map(crate::audit::line::read).map(|line| line.partition).collect();
            assert_eq!(found, expected);
        }
    }
}
