//! Makes checkpoints: reads what was added to the log since the last one, goes on with the trees, and signs their heads.
//!
//! It never signs a log that is shorter than, or otherwise than one that was signed before; it refuses, and says why.

mod trim;

use std::sync::Arc;

use countersign_core::audit::checkpoint::{Checkpoint, Head, ORIGIN};
use countersign_core::audit::tree::Range;
use countersign_core::audit::{leaf, trim_entry};
use countersign_core::lifecycle::{AuditEntry, AuditEvent, Digest, Timestamp};
use countersign_store::{AuditCursor, AuditRange, Committed, KeptCheckpoint, LogEntry, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::{AuditKeys, verify};

pub use trim::Part;

/// The event of the entry that says that another line of checkpoints begins.
const RESTARTED: AuditEvent = AuditEvent::AuditRestarted;

/// How many entries are read at once.
const PAGE: usize = 1000;

/// Makes checkpoints of a store's audit log. One instance at a time should; if two do, one of them finds out.
pub struct AuditSigner {
    store: Arc<dyn Store>,
    keys: AuditKeys,
    /// Tells this log from others, if no checkpoint was made yet.
    new_origin: String,
    /// The newest checkpoint that is known outside of the store.
    known: Option<Checkpoint>,
    /// Whether the log was read from its beginning since what came after the kept place did not fit. A log that was changed
    /// is read so once.
    has_doubted: bool,
}

/// A checkpoint that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: String,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The store cannot be read or written to now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log is not what was signed before.
    #[error("no checkpoint of the audit log is signed: {0}")]
    Refused(#[from] Refusal),
}

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has become shorter.
    #[error("partition {partition} has {found} entries, and had {signed} when a checkpoint was signed")]
    Shorter {
        /// The partition.
        partition: usize,
        /// How many were signed.
        signed: u64,
        /// How many there are.
        found: u64,
    },
    /// An entry is not the one that was signed.
    #[error("entry {partition}/{number} is not the one that a checkpoint was signed over")]
    Changed {
        /// The partition.
        partition: usize,
        /// Its number.
        number: u64,
    },
    /// Entries are not the ones that were signed.
    #[error(
        "the first {size} entries of partition {partition} are not those that a checkpoint was signed over"
    )]
    Root {
        /// The partition.
        partition: usize,
        /// How many.
        size: u64,
    },
    /// An entry is missing.
    #[error("entry {partition}/{number} is missing")]
    Missing {
        /// The partition.
        partition: usize,
        /// Its number.
        number: u64,
    },
    /// An entry says that others were removed, and somebody else has written it.
    #[error("entry {partition}/{number} says that entries were removed, and no gateway has written it")]
    Trimmed {
        /// The partition.
        partition: usize,
        /// Its number.
        number: u64,
    },
    /// The stored checkpoint does not count.
    #[error("the newest checkpoint in the store does not count: {0}")]
    Stored(String),
    /// A checkpoint is of another log.
    #[error("the newest checkpoint in the store is of the log `{found}`, and this is `{known}`")]
    Origin {
        /// That of the store.
        found: String,
        /// The one that is known.
        known: String,
    },
}

/// What is kept with a checkpoint, to go on from it.
#[derive(Default, Serialize, Deserialize)]
struct State {
    /// Up to where the log was read.
    cursor: String,
    logs: Vec<Log>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Log {
    tree: Range,
    /// The leaf of the last entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Digest>,
}

impl AuditSigner {
    /// A signer of the log in a store. `random` tells the log from all others, if it is a new one. `known` is the newest
    /// checkpoint that is known outside of the store, if there is one.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        keys: AuditKeys,
        random: u64,
        known: Option<Checkpoint>,
    ) -> AuditSigner {
        AuditSigner { store, keys, new_origin: format!("{ORIGIN}{random:016x}"), known, has_doubted: false }
    }

    /// Signs what was added since the last checkpoint. If nothing was, and the current key has signed the last one, it is
    /// that one again.
    ///
    /// # Errors
    /// If the store is unavailable, or the log is not what was signed before.
    pub async fn sign(&mut self, now: Timestamp) -> Result<Signed, SignError> {
        let kept = self.store.audit_checkpoint().await?;
        let last = kept.as_ref().map(|kept| self.read(kept)).transpose()?;
        self.check_origin(last.as_ref())?;
        let mut state = match (&kept, &last) {
            (Some(kept), Some(last)) => state_of(kept, last)?,
            _ => State::default(),
        };
        let signed: Vec<Checkpoint> = last.iter().chain(&self.known).cloned().collect();
        let sizes = self.store.audit_sizes().await?;
        check_sizes(&signed, &sizes)?;
        self.check_ends(&state).await?;
        let covered: Vec<u64> = (0..sizes.len()).map(|partition| most_signed(&signed, partition)).collect();
        let folded = self.fold(&mut state, &sizes, &signed, &covered).await;
        // The place that was kept is no promise: the store may be a copy of one of another kind, or of a copy of that one. What
        // was signed is compared as it is read again.
        let is_read_again = match &folded {
            Err(SignError::Store(StoreError::Cursor(_))) => true,
            Err(SignError::Refused(_)) if kept.is_some() => !std::mem::replace(&mut self.has_doubted, true),
            _ => false,
        };
        if is_read_again {
            state = self.beginning(&covered).await?;
            self.fold(&mut state, &sizes, &signed, &covered).await?;
        } else {
            folded?;
        }

        let (Some(kept), Some(last)) = (kept, last) else {
            return self.keep(state, 1, self.origin(), now).await;
        };
        let has_new =
            !state.logs.iter().map(|log| log.tree.end()).eq(last.heads.iter().map(|head| head.size));
        // How far it was read is stored with a checkpoint, so it is made also if only that has changed. It is made after a
        // change of keys, too: else it would count no more once the key that has signed it is removed.
        if !has_new && !is_read_again && self.keys.current_has_signed(&kept.note) {
            return Ok(self.known_as(last, kept.note, false));
        }
        let at = now.max(last.at);
        self.keep(state, kept.sequence.saturating_add(1), last.origin, at).await
    }

    /// Begins another line of checkpoints, under another name, over what the log has now: once entries are lost, and
    /// somebody has decided to go on without them. An entry says so.
    ///
    /// # Errors
    /// If the store is unavailable, or entries are missing among others.
    pub async fn restart(&mut self, now: Timestamp) -> Result<Signed, SignError> {
        let kept = self.store.audit_checkpoint().await?;
        let mut detail = Map::new();
        if let Some(kept) = &kept {
            let before = kept.note.lines().next().unwrap_or_default();
            detail.insert("before".to_owned(), before.into());
            detail.insert("checkpoint".to_owned(), Digest::of(kept.note.as_bytes()).to_string().into());
        }
        let entry = AuditEntry::of_admin(now, RESTARTED, None, detail);
        self.store.append(vec![entry], Vec::new()).await?;
        self.known = None;
        let sizes = self.store.audit_sizes().await?;
        // What entries say about removed ones is taken as it is: the keys that have signed it may be lost, too.
        let covered = vec![u64::MAX; sizes.len()];
        let mut state = self.beginning(&covered).await?;
        self.fold(&mut state, &sizes, &[], &covered).await?;
        let sequence = kept.map_or(0, |kept| kept.sequence).saturating_add(1);
        self.keep(state, sequence, self.new_origin.clone(), now).await
    }

    /// The newest checkpoint in the store, if there is one.
    ///
    /// # Errors
    /// If the store is unavailable, or what it has does not count, or is older than one that is known.
    pub async fn newest(&mut self) -> Result<Option<Signed>, SignError> {
        let Some(kept) = self.store.audit_checkpoint().await? else { return Ok(None) };
        let last = self.read(&kept)?;
        self.check_origin(Some(&last))?;
        let known = self.known.as_ref().map_or(&[] as &[Head], |known| &known.heads);
        for (partition, (known, found)) in known.iter().zip(&last.heads).enumerate() {
            if found.size < known.size {
                let (signed, found) = (known.size, found.size);
                return Err(Refusal::Shorter { partition, signed, found }.into());
            }
            if found.size == known.size && found.root != known.root {
                return Err(Refusal::Root { partition, size: known.size }.into());
            }
        }
        Ok(Some(self.known_as(last, kept.note, false)))
    }

    /// Public keys, for the log with this origin.
    #[must_use]
    pub fn public(&self, origin: &str) -> Vec<countersign_core::audit::note::NoteKey> {
        self.keys.public(origin)
    }

    fn origin(&self) -> String {
        self.known.as_ref().map_or_else(|| self.new_origin.clone(), |known| known.origin.clone())
    }

    /// What a stored checkpoint says. It must be signed with these keys: whoever writes the store could have put it there.
    fn read(&self, kept: &KeptCheckpoint) -> Result<Checkpoint, Refusal> {
        let origin = kept.note.lines().next().unwrap_or_default();
        verify(&kept.note, &self.keys.public(origin)).map_err(|error| Refusal::Stored(error.to_string()))
    }

    fn check_origin(&self, last: Option<&Checkpoint>) -> Result<(), Refusal> {
        match (last, &self.known) {
            (Some(last), Some(known)) if last.origin != known.origin => {
                Err(Refusal::Origin { found: last.origin.clone(), known: known.origin.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The last entries that were signed are there: a store that has lost some may have others under their numbers.
    async fn check_ends(&self, state: &State) -> Result<(), SignError> {
        let numbers: Vec<u64> = state.logs.iter().map(|log| log.tree.end()).collect();
        let Some(found) = self.store.audit_entries_at(&numbers).await? else { return Ok(()) };
        for ((partition, log), found) in state.logs.iter().enumerate().zip(found) {
            let number = log.tree.end();
            let found = found.as_ref().map(leaf_of);
            if number > 0 && found != log.last {
                return Err(Refusal::Changed { partition, number }.into());
            }
        }
        Ok(())
    }

    /// Before the first entries that are still there. `covered` is as for [`AuditSigner::fold`].
    async fn beginning(&self, covered: &[u64]) -> Result<State, SignError> {
        let removed = self.removed(covered).await?.into_iter();
        Ok(State { cursor: String::new(), logs: removed.map(|tree| Log { tree, last: None }).collect() })
    }

    /// Reads what was added, at least up to these sizes, and compares it with what was signed. An entry that says that others
    /// were removed needs a signature only beyond `covered`, the number of entries of each partition that checkpoints cover:
    /// the key of its time may be gone.
    async fn fold(
        &self,
        state: &mut State,
        sizes: &[u64],
        signed: &[Checkpoint],
        covered: &[u64],
    ) -> Result<(), SignError> {
        state.logs.resize(sizes.len().max(state.logs.len()), Log::default());
        for (partition, log) in state.logs.iter().enumerate() {
            compare(signed, partition, log)?;
        }
        loop {
            let after = AuditCursor::parse(&state.cursor);
            let page = self.store.audit_log(AuditRange::default(), &after, PAGE).await?;
            for entry in &page.entries {
                let partition = usize::from(entry.partition);
                let Some(log) = state.logs.get_mut(partition) else {
                    return Err(Refusal::Missing { partition, number: 1 }.into());
                };
                let number = log.tree.end().saturating_add(1);
                if entry.number != number {
                    return Err(Refusal::Missing { partition, number }.into());
                }
                if number > covered.get(partition).copied().unwrap_or_default()
                    && trim_entry(&entry.body).is_some_and(|trim| !trim::is_signed(&self.keys, trim))
                {
                    return Err(Refusal::Trimmed { partition, number }.into());
                }
                let leaf = leaf_of(entry);
                log.tree.push(leaf);
                log.last = Some(leaf);
                compare(signed, partition, log)?;
            }
            page.next.as_str().clone_into(&mut state.cursor);
            let is_read = state.logs.iter().zip(sizes).all(|(log, size)| log.tree.end() >= *size);
            if page.is_last || is_read {
                break;
            }
        }
        for (partition, (log, size)) in state.logs.iter().zip(sizes).enumerate() {
            if log.tree.end() < *size {
                return Err(Refusal::Missing { partition, number: log.tree.end() + 1 }.into());
            }
        }
        Ok(())
    }

    /// Signs and stores. If another instance has stored one, it is that one.
    async fn keep(
        &mut self,
        state: State,
        sequence: u64,
        origin: String,
        at: Timestamp,
    ) -> Result<Signed, SignError> {
        let heads = state
            .logs
            .iter()
            .map(|log| Head { size: log.tree.end(), root: log.tree.root().unwrap_or(Head::empty().root) });
        let checkpoint = Checkpoint { origin, at, heads: heads.collect() };
        let note = self.keys.sign(&checkpoint).to_string();
        let text = serde_json::to_string(&state).unwrap_or_default();
        let kept = KeptCheckpoint { sequence, note: note.clone(), state: text };
        match self.store.keep_audit_checkpoint(kept).await? {
            Committed::Done => Ok(self.known_as(checkpoint, note, true)),
            Committed::Conflict | Committed::Repeated => match Box::pin(self.newest()).await? {
                Some(newest) => Ok(newest),
                None => Err(Refusal::Stored("it was there, and is gone".to_owned()).into()),
            },
        }
    }

    /// It is known from now on.
    fn known_as(&mut self, checkpoint: Checkpoint, note: String, is_new: bool) -> Signed {
        self.known = Some(checkpoint.clone());
        Signed { checkpoint, note, is_new }
    }
}

/// No partition has fewer entries than were signed.
fn check_sizes(signed: &[Checkpoint], sizes: &[u64]) -> Result<(), Refusal> {
    for checkpoint in signed {
        for (partition, head) in checkpoint.heads.iter().enumerate() {
            let (signed, found) = (head.size, sizes.get(partition).copied().unwrap_or_default());
            if found < signed {
                return Err(Refusal::Shorter { partition, signed, found });
            }
        }
    }
    Ok(())
}

/// How many entries of a partition were signed.
fn most_signed(signed: &[Checkpoint], partition: usize) -> u64 {
    let sizes = signed.iter().filter_map(|checkpoint| checkpoint.heads.get(partition)).map(|head| head.size);
    sizes.max().unwrap_or_default()
}

/// Where a checkpoint was signed over this length, its root is the same.
fn compare(signed: &[Checkpoint], partition: usize, log: &Log) -> Result<(), Refusal> {
    let size = log.tree.end();
    let mut heads = signed.iter().filter_map(|checkpoint| checkpoint.heads.get(partition));
    if heads.any(|head| head.size == size && log.tree.root() != Some(head.root)) {
        return Err(Refusal::Root { partition, size });
    }
    Ok(())
}

fn leaf_of(entry: &LogEntry) -> Digest {
    // By its bytes, and not by the digest that is stored beside them.
    leaf(entry.partition, entry.number, &Digest::of(entry.body.as_bytes()))
}

/// What was kept with a checkpoint. It is not signed, and need not be: it makes the roots that are.
fn state_of(kept: &KeptCheckpoint, last: &Checkpoint) -> Result<State, Refusal> {
    let wrong = || Refusal::Stored("what is stored beside it does not belong to it".to_owned());
    let state: State = serde_json::from_str(&kept.state).map_err(|_| wrong())?;
    let heads = state.logs.iter().map(|log| (log.tree.end(), log.tree.root()));
    let expected = last.heads.iter().map(|head| (head.size, Some(head.root)));
    if heads.eq(expected) { Ok(state) } else { Err(wrong()) }
}
