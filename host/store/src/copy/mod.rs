//! Copies a whole store into another one: between backends, or like to like.
//!
//! A copy reads the source as records, a page at a time, and writes each where the destination keeps it. It tallies what it
//! wrote, reads the destination back, and compares. Until that agrees the destination has a mark, by which it is not opened
//! as a store; the mark is removed last.
//!
//! **Nothing is forgotten.** Each backend lists the tables, or keys, that it knows of. A copy is refused if the source has
//! another one, so whoever adds one says here what becomes of it.
//!
//! What is not copied is what no longer holds, or is derived: claims of outbox entries, leases, living instances, rate
//! buckets, the outcomes of single writes, and every index and gauge, which the destination makes anew.

mod record;
mod tally;

use std::pin::Pin;

use crate::redis::copy::{RedisReader, RedisSource, RedisTarget};
use crate::redis::{RedisOpenError, RedisOptions};
use crate::sqlite::copy::{PARTITIONS, SqliteReader};
use crate::{Documents as _, OpenError, SqliteStore, StoreError, StoreOpenError, StoreUrl};

pub(crate) use record::{AuditRecord, DispatchRecord, Home, Kind, OutboxRecord, Outcome, Record};
pub(crate) use tally::Tally;

/// How often the destination is read back before it counts as another one: a scan of Redis may meet a key twice while Redis
/// resizes its table.
const READS: usize = 3;

/// A store to copy from or to, and how a Redis is used.
pub struct CopyEnd<'a> {
    /// Where it is.
    pub url: &'a StoreUrl,
    /// The options of a Redis. The number of partitions is that of the destination; a source says its own.
    pub redis: Box<dyn Fn(RedisOptions) -> RedisOptions + Send + Sync + 'a>,
}

impl CopyEnd<'_> {
    fn redis_options(&self) -> Option<RedisOptions> {
        match self.url {
            StoreUrl::Redis(url) => Some((self.redis)(RedisOptions::new(url.as_ref().clone()))),
            StoreUrl::Sqlite(_) | StoreUrl::Memory => None,
        }
    }

    /// How many partitions a store has that is made here.
    fn partitions(&self) -> u16 {
        self.redis_options().map_or(PARTITIONS, |options| options.partitions)
    }
}

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A store cannot be opened; the first is which.
    #[error("cannot open the {0}: {1}")]
    Open(&'static str, StoreOpenError),
    /// There is nothing to copy.
    #[error("there is no store `{0}`")]
    NoSource(String),
    /// A gateway uses it.
    #[error(
        "the {0} is in use by a gateway: stop all of them first (one that was killed is forgotten after some seconds)"
    )]
    InUse(&'static str),
    /// Another copy reads it, or writes it.
    #[error(
        "another copy from or to the {0} is running; if it was killed, its lease ends within a minute, and then it can be \
        copied again"
    )]
    Busy(&'static str),
    /// Another server answers than the one that did when the copy began. It may lack something, and a scan that was begun
    /// on the one before it means nothing there.
    #[error("another Redis server took over the {0} while it was copied: copy again")]
    Failover(&'static str),
    /// Something was stored there while it was copied.
    #[error("the source was changed while it was copied: stop all gateways that use it, and copy again")]
    Changed,
    /// The audit log is signed by its partitions, so it cannot be kept in others.
    #[error(
        "the destination has {there} partitions, and the source {here}: the audit log keeps its partitions"
    )]
    Partitions {
        /// Of requests, in the source.
        here: u16,
        /// In the destination.
        there: u16,
    },
    /// The destination has something in it.
    #[error("the destination is not empty: it has {0}")]
    NotEmpty(String),
    /// The destination has a part of a store.
    #[error(
        "the destination has a copy that was interrupted; with `--restart` what it has is removed, and the copy begins anew"
    )]
    Interrupted,
    /// The source has something that this version does not know how to copy.
    #[error("the source has {0}, which this version does not know how to copy")]
    Unknown(String),
    /// The source has two records of one name, which the destination cannot both keep.
    #[error("two different {kind} of the source have the name `{key}`")]
    Clash {
        /// What they are.
        kind: &'static str,
        /// Their name.
        key: String,
    },
    /// The indexes of a store do not agree with what it holds.
    #[error("the {which} has {found} {kind}, and its own index has {listed}: some are lost")]
    Index {
        /// Which store.
        which: &'static str,
        /// What they are.
        kind: &'static str,
        /// How many there are.
        found: u64,
        /// How many are listed.
        listed: u64,
    },
    /// What was read back is not what was written.
    #[error(
        "the copy is not what was copied: {kind}, of which {written} were written and {found} are there; the destination cannot \
        be used"
    )]
    Unequal {
        /// What differs.
        kind: &'static str,
        /// How many were written.
        written: u64,
        /// How many are there.
        found: u64,
    },
    /// A document of the source is not what whoever copies expects of it.
    #[error("the document `{key}` of the source is `{found}`")]
    Document {
        /// Its key.
        key: String,
        /// What it is; text.
        found: String,
    },
    /// A store does not answer, or has a value that cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a store is copied.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Whether what an interrupted copy has left in the destination is removed first.
    pub restart: bool,
    /// The key of a document of the source, if it has that one, and the values that it may have.
    pub expected: Option<(String, Vec<Vec<u8>>)>,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// Whether the destination is being read back.
    pub verifying: bool,
    /// How many records were written, or read back.
    pub records: u64,
}

/// Copies everything that is in `from` into `to`, which must be empty, and verifies it. Both must not be in use.
///
/// `progress` is called after each page. Returns how many records of each kind there are.
///
/// # Errors
/// If a store cannot be opened, is in use, or has what cannot be copied, if the destination has anything in it, or if what
/// is read back differs.
pub async fn copy(
    from: CopyEnd<'_>,
    to: CopyEnd<'_>,
    options: CopyOptions,
    progress: &mut (dyn FnMut(CopyProgress) + Send),
) -> Result<Vec<(&'static str, u64)>, CopyError> {
    let source = Source::open(&from).await?;
    let copied = copy_from(&source, &to, options, progress).await;
    source.release().await;
    copied
}

async fn copy_from(
    source: &Source,
    to: &CopyEnd<'_>,
    options: CopyOptions,
    progress: &mut (dyn FnMut(CopyProgress) + Send),
) -> Result<Vec<(&'static str, u64)>, CopyError> {
    if let Some((key, values)) = options.expected
        && let Some(found) = source.recall(&key).await?
        && !values.contains(&found)
    {
        return Err(CopyError::Document { key, found: String::from_utf8_lossy(&found).into_owned() });
    }
    let (here, there) = (source.partitions(), to.partitions());
    if here != there {
        return Err(CopyError::Partitions { here, there });
    }
    let mut target = Target::open(to, options.restart).await?;
    let copied = copy_to(source, &mut target, progress).await;
    target.release().await;
    copied
}

async fn copy_to(
    source: &Source,
    target: &mut Target,
    progress: &mut (dyn FnMut(CopyProgress) + Send),
) -> Result<Vec<(&'static str, u64)>, CopyError> {
    target.prepare().await?;
    let mut written = Tally::default();
    let mut reader = source.reader();
    while let Some(page) = reader.next().await? {
        keep_others_out(source, target).await?;
        let placed = target.place(page);
        for (record, outcome) in placed.iter().zip(target.write(&placed).await?) {
            match outcome {
                Outcome::New => written.add(record),
                Outcome::Same => {}
                Outcome::Replaced(before) => {
                    written.remove(&before);
                    written.add(record);
                }
                Outcome::Clash => {
                    return Err(CopyError::Clash { kind: record.kind().name(), key: record.key() });
                }
            }
        }
        progress(CopyProgress { verifying: false, records: written.records() });
    }
    keep_others_out(source, target).await?;
    reader.check("source", &written).await?;
    verify(source, target, &written, progress).await?;
    // Last, so that a change during the verification is noticed, too.
    keep_others_out(source, target).await?;
    source.unchanged().await?;
    target.finish().await?;
    Ok(written.counts())
}

/// Reads the destination back, and compares it with what was written.
async fn verify(
    source: &Source,
    target: &Target,
    written: &Tally,
    progress: &mut (dyn FnMut(CopyProgress) + Send),
) -> Result<(), CopyError> {
    let mut differs = Ok(());
    for _ in 0..READS {
        let mut found = Tally::default();
        let mut reader = target.reader();
        while let Some(page) = reader.next().await? {
            keep_others_out(source, target).await?;
            page.iter().for_each(|record| found.add(record));
            progress(CopyProgress { verifying: true, records: found.records() });
        }
        differs = match written.difference(&found) {
            None => return reader.check("destination", &found).await,
            Some((kind, written, found)) => Err(CopyError::Unequal { kind: kind.name(), written, found }),
        };
    }
    differs
}

/// Renews the leases of both stores, and checks that the servers are still those with which the copy began.
async fn keep_others_out(source: &Source, target: &Target) -> Result<(), CopyError> {
    // A database is locked as long as it is open.
    if let Source::Redis(source) = source {
        source.keep_others_out().await?;
    }
    match target {
        Target::Redis(target) => target.keep_others_out().await,
        Target::Sqlite(_) => Ok(()),
    }
}

/// Where records come from.
enum Source {
    Sqlite(SqliteStore),
    Redis(RedisSource),
}

/// Where they go.
enum Target {
    Sqlite(Box<SqliteStore>),
    Redis(RedisTarget),
}

/// Reads a store from its beginning to its end.
enum Reader {
    Sqlite(SqliteReader),
    Redis(RedisReader),
}

impl Source {
    async fn open(end: &CopyEnd<'_>) -> Result<Source, CopyError> {
        match (end.url, end.redis_options()) {
            (StoreUrl::Redis(_), Some(options)) => {
                let opened: Boxed<'_, _> = Box::pin(RedisSource::open(options));
                Ok(Source::Redis(opened.await?))
            }
            (url, _) => {
                let path = url.file().map(ToOwned::to_owned).unwrap_or_default();
                if !path.exists() {
                    return Err(CopyError::NoSource(url.to_string()));
                }
                let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path)).await;
                let store = opened.map_err(|_| open_error("source", StoreOpenError::Stopped))?;
                let store = store.map_err(|error| sqlite_error("source", error))?;
                store.can_be_copied().await?;
                Ok(Source::Sqlite(store))
            }
        }
    }

    fn partitions(&self) -> u16 {
        match self {
            Source::Sqlite(_) => PARTITIONS,
            Source::Redis(source) => source.partitions(),
        }
    }

    fn reader(&self) -> Reader {
        match self {
            Source::Sqlite(store) => Reader::Sqlite(store.copy_reader()),
            Source::Redis(source) => Reader::Redis(source.reader()),
        }
    }

    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Source::Sqlite(store) => store.recall(key).await,
            Source::Redis(source) => source.recall(key).await,
        }
    }

    async fn unchanged(&self) -> Result<(), CopyError> {
        match self {
            Source::Sqlite(_) => Ok(()),
            Source::Redis(source) => source.unchanged().await,
        }
    }

    async fn release(&self) {
        if let Source::Redis(source) = self {
            source.release().await;
        }
    }
}

impl Target {
    async fn open(end: &CopyEnd<'_>, restart: bool) -> Result<Target, CopyError> {
        match (end.url, end.redis_options()) {
            (StoreUrl::Redis(_), Some(options)) => {
                let opened: Boxed<'_, _> = Box::pin(RedisTarget::open(options, restart));
                Ok(Target::Redis(opened.await?))
            }
            (url, _) => {
                let path = url.file().map(ToOwned::to_owned).unwrap_or_default();
                let opened =
                    tokio::task::spawn_blocking(move || SqliteStore::open_target(&path, restart)).await;
                let store = opened.map_err(|_| open_error("destination", StoreOpenError::Stopped))?;
                Ok(Target::Sqlite(Box::new(store?)))
            }
        }
    }

    /// Marks the destination as a part of a store, after a check that it is empty.
    async fn prepare(&mut self) -> Result<(), CopyError> {
        match self {
            Target::Sqlite(store) => store.begin_copy().await,
            Target::Redis(target) => target.prepare().await,
        }
    }

    /// The records as they will be kept: one may be kept in several places.
    fn place(&self, page: Vec<Record>) -> Vec<Record> {
        match self {
            Target::Sqlite(_) => page.into_iter().map(Record::whole).collect(),
            Target::Redis(target) => target.place(page),
        }
    }

    async fn write(&self, placed: &[Record]) -> Result<Vec<Outcome>, StoreError> {
        match self {
            Target::Sqlite(store) => store.write_copied(placed.to_vec()).await,
            Target::Redis(target) => target.write(placed).await,
        }
    }

    fn reader(&self) -> Reader {
        match self {
            Target::Sqlite(store) => Reader::Sqlite(store.copy_reader()),
            Target::Redis(target) => Reader::Redis(target.reader()),
        }
    }

    /// Removes the mark.
    async fn finish(&self) -> Result<(), CopyError> {
        match self {
            Target::Sqlite(store) => Ok(store.finish_copy().await?),
            Target::Redis(target) => Ok(target.finish().await?),
        }
    }

    async fn release(&self) {
        if let Target::Redis(target) = self {
            target.release().await;
        }
    }
}

impl Reader {
    /// The next page; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Record>>, CopyError> {
        match self {
            Reader::Sqlite(reader) => Ok(reader.next().await?),
            Reader::Redis(reader) => {
                let next: Boxed<'_, _> = Box::pin(reader.next());
                next.await
            }
        }
    }

    /// Compares what was read with the store's own indexes.
    async fn check(&self, which: &'static str, read: &Tally) -> Result<(), CopyError> {
        let (sizes, indexed) = match self {
            Reader::Sqlite(reader) => (reader.audit_sizes().await?, Vec::new()),
            Reader::Redis(reader) => (reader.audit_sizes().await?, reader.indexed().await?),
        };
        let counted = indexed.into_iter().map(|(kind, listed)| (kind, read.count(kind), listed));
        let differs = counted.into_iter().find(|(_, found, listed)| found != listed);
        let entries = read.audit_difference(&sizes).map(|(found, listed)| (Kind::Audit, found, listed));
        match differs.or(entries) {
            None => Ok(()),
            Some((kind, found, listed)) => Err(CopyError::Index { which, kind: kind.name(), found, listed }),
        }
    }
}

/// A future whose type is not known.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, CopyError>> + Send + 'a>>;

fn open_error(which: &'static str, error: StoreOpenError) -> CopyError {
    CopyError::Open(which, error)
}

pub(crate) fn sqlite_error(which: &'static str, error: OpenError) -> CopyError {
    match error {
        OpenError::InUse { .. } => CopyError::InUse(which),
        error => open_error(which, error.into()),
    }
}

pub(crate) fn redis_error(which: &'static str, error: RedisOpenError) -> CopyError {
    open_error(which, error.into())
}
