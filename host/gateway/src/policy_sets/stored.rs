//! Sets and modules in the store: how they get there, and how a set comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::removal::{storing_now, use_now};
use super::{By, ChangeError, ChangeFault, ChangeKind, PolicySets, blocking, build, whole};
use countersign_core::lifecycle::{AuditEntry, AuditEvent, Digest, Timestamp};
use countersign_core::record::{AdminCall, MOST_SIGNATURES, PolicyEntry, Signature};
use countersign_policy::{Descriptor, Kept, ModuleError, Pins, PolicySet, PublicKey, Signed, Source, Stored};
use countersign_registry::Pinned;
use countersign_store::{Archive, Store, StoreError, StoredSet};

/// What somebody sends to be stored as a set: its document, and schemas by action.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The document, as it would be in `policy-set.yaml`.
    pub document: String,
    /// JSON Schema of the parameters, by action.
    pub schemas: BTreeMap<String, Value>,
    /// Signatures of the set.
    pub signatures: Vec<Signature>,
}

/// A module that was checked, compiled, tried and stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: usize,
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// Whose valid signatures it has; none if none is required.
    pub signed_by: Vec<PublicKey>,
}

impl PolicySets {
    /// Checks a module and stores it, with its signatures. Nothing uses it yet.
    ///
    /// # Errors
    /// Where it is no policy module, or has no valid signature of a trusted key: then it is not stored.
    pub async fn store_module(
        self: &Arc<Self>,
        bytes: Vec<u8>,
        signatures: Vec<Signature>,
        by: By,
    ) -> Result<Inspection, ChangeError> {
        let sets = Arc::clone(self);
        whole(async move {
            let seen = sets.changing.lock().await;
            let size = bytes.len();
            let (digest, bytes) = blocking(move || (Digest::of(&bytes), bytes)).await?;
            let stored = sets.try_module(digest, bytes, signatures).await;
            match &stored {
                Ok((descriptor, signed_by)) => {
                    let detail = [
                        ("name", json!(descriptor.name)),
                        ("version", json!(descriptor.version)),
                        ("signedBy", json!(texts(signed_by))),
                    ];
                    sets.audit(AuditEvent::PolicyModuleStored, &by, digest, &detail).await?;
                }
                Err(error) => {
                    let at = format!("sha256:{digest}");
                    sets.audit_refusal(ChangeKind::StoreModule, by, seen.folder, error, Some(at)).await;
                }
            }
            drop(seen);
            let (descriptor, signed_by) = stored?;
            Ok(Inspection { digest, size, descriptor, signed_by })
        })
        .await
    }

    /// Checks a set and stores it. It is not put in force.
    ///
    /// # Errors
    /// Where it is wrong, or its modules are not stored: then it is not stored.
    pub async fn store_set(self: &Arc<Self>, sent: Sent, by: By) -> Result<PolicySetStored, ChangeError> {
        let sets = Arc::clone(self);
        whole(async move {
            let signatures = sent.signatures.clone();
            let source = sets.source(sent).await;
            let seen = sets.changing.lock().await;
            let stored = match source {
                Ok(source) => sets.try_set(source, signatures).await,
                Err(error) => Err(error),
            };
            match &stored {
                Ok(stored) => {
                    let detail = [("signedBy", json!(texts(&stored.signed_by)))];
                    sets.audit(AuditEvent::PolicySetStored, &by, stored.hash, &detail).await?;
                }
                Err(error) => sets.audit_refusal(ChangeKind::StoreSet, by, seen.folder, error, None).await,
            }
            drop(seen);
            stored
        })
        .await
    }

    async fn try_module(
        &self,
        digest: Digest,
        bytes: Vec<u8>,
        mut signatures: Vec<Signature>,
    ) -> Result<(Descriptor, Vec<PublicKey>), ChangeError> {
        signatures.extend(self.store().signatures(digest).await?);
        let engine = self.policies().engine().clone();
        let loaded = blocking(move || -> Result<_, ModuleError> {
            let module = engine.load(&bytes, &signatures)?;
            let verified = engine.trust().verify(Signed::Module, &digest, &signatures)?;
            Ok((module.descriptor().clone(), bytes, verified, signatures))
        });
        let (descriptor, bytes, verified, signatures) = loaded.await??;
        storing_now(self.store(), self.now()).await?;
        if self.policies().engine().trust().asks_for(Signed::Module) {
            let verified = verified.iter().map(|verified| (digest, verified.signature));
            self.store().keep_signatures(verified.collect()).await?;
        } else {
            self.keep_unread(digest, signatures).await?;
        }
        self.store().pin(Vec::new(), vec![bytes]).await?;
        Ok((descriptor, verified.into_iter().map(|verified| verified.key).collect()))
    }

    /// Keeps signatures that nobody asks for yet: they will count once somebody does. There is no telling what they are
    /// worth, so there are only so many of them.
    async fn keep_unread(&self, digest: Digest, signatures: Vec<Signature>) -> Result<(), StoreError> {
        let room = MOST_SIGNATURES.saturating_sub(self.store().signatures(digest).await?.len());
        let signatures = signatures.into_iter().take(room).map(|signature| (digest, signature));
        self.store().keep_signatures(signatures.collect()).await
    }

    /// The files of a set that was sent: the store has its modules, or a registry.
    async fn source(&self, sent: Sent) -> Result<Source, ChangeError> {
        let Sent { document, schemas, mut signatures } = sent;
        let parsing = self.parsing.acquire().await;
        let parse = move || {
            let schemas = schemas.into_iter().map(|(action, schema)| {
                let name = format!("schemas.{action}");
                (action, name, schema.to_string().into_bytes())
            });
            (PolicySet::pinned(&document), schemas.collect(), document)
        };
        let (pinned, schemas, text) = blocking(parse).await?;
        drop(parsing);
        let (mut modules, mut elsewhere) = (Vec::new(), Vec::new());
        for (digest, repository) in pinned {
            if let Some(bytes) = self.store().module(digest).await? {
                modules.push((format!("sha256:{digest}"), bytes));
                signatures.extend(self.store().signatures(digest).await?);
            } else if let Some(repository) = repository {
                elsewhere.push(Pinned { repository, digest });
            }
        }
        let mut source = Source {
            name: "document".to_owned(),
            text,
            modules,
            schemas,
            signatures,
            unfetched: BTreeMap::new(),
            kept: Kept::InStore,
            manifest: None,
        };
        self.fetcher().complete(&mut source, elsewhere).await?;
        Ok(source)
    }

    async fn try_set(
        &self,
        source: Source,
        signatures: Vec<Signature>,
    ) -> Result<PolicySetStored, ChangeError> {
        let engine = self.policies().engine().clone();
        let built = move || build(&source, &engine).map(|set| (set, source.text));
        let (set, document) = blocking(built).await??;
        if !self.policies().engine().trust().asks_for(Signed::PolicySet) {
            self.keep_unread(set.hash(), signatures).await?;
        }
        self.keep(&set, Some(document)).await?;
        let actions = set.actions().keys().cloned().collect();
        Ok(PolicySetStored { hash: set.hash(), actions, signed_by: set.signed_by() })
    }

    /// Keeps a set, whole, so that it can be restored whatever becomes of where it came from.
    pub(super) async fn keep(&self, set: &PolicySet, document: Option<String>) -> Result<(), StoreError> {
        keep(self.store(), set, document, self.now()).await
    }

    /// A stored set, loaded and tried again. Metrics call its policies what `measured_as` makes of their names.
    pub(super) async fn restored(
        &self,
        hash: Digest,
        measured_as: fn(&str) -> String,
    ) -> Result<PolicySet, ChangeError> {
        // Before it is read: from now on it is not removed.
        if self.store().policy_set(hash).await?.is_some() {
            self.use_now(hash).await?;
        }
        let stored = stored(self.store(), hash).await?;
        let engine = self.policies().engine().clone();
        let restore = move || PolicySet::restore(stored, &engine, &measured_as);
        blocking(restore).await?.map_err(ChangeError::Refused)
    }

    pub(super) async fn audit(
        &self,
        event: AuditEvent,
        by: &By,
        hash: Digest,
        detail: &[(&str, Value)],
    ) -> Result<(), StoreError> {
        let mut all =
            Map::from_iter([("hash".to_owned(), json!(hash)), ("source".to_owned(), json!(by.trigger))]);
        all.extend(detail.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        all.extend(by.call.iter().flat_map(AdminCall::audited));
        let entry = AuditEntry::of_admin(self.now(), event, by.actor.clone(), all);
        self.store().append(vec![entry], Vec::new()).await
    }

    async fn audit_refusal(
        &self,
        what: ChangeKind,
        by: By,
        folder: Digest,
        error: &ChangeError,
        path: Option<String>,
    ) {
        let told: Vec<String> = error.faults().iter().map(ChangeFault::to_string).collect();
        tracing::warn!(what = what.as_str(), %error, faults = told.join("; "), "what an admin sent is not stored");
        let change = self.attempt(what, by, Some(folder));
        let mut faults = error.faults();
        if let Some(path) = path {
            faults.iter_mut().for_each(|fault| fault.path.clone_from(&path));
        }
        self.record(change.failed(faults)).await;
    }
}

/// Keys, as the audit log tells them.
pub(super) fn texts(keys: &[PublicKey]) -> Vec<String> {
    keys.iter().map(PublicKey::to_string).collect()
}

/// A set that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySetStored {
    /// Its hash.
    pub hash: Digest,
    /// Its actions.
    pub actions: Vec<String>,
    /// Whose valid signatures it has; none if none is required.
    pub signed_by: Vec<PublicKey>,
}

/// Keeps the signatures of a set, its modules, then its entries, then itself: whatever is there has all that it needs.
pub(super) async fn keep(
    store: &dyn Store,
    set: &PolicySet,
    document: Option<String>,
    now: Timestamp,
) -> Result<(), StoreError> {
    // What came from the store is there.
    let Some(document) = document else { return Ok(()) };
    // Before anything of it is stored: from now on nothing of it is removed, if it is stored already.
    storing_now(store, now).await?;
    use_now(store, set.hash(), now).await?;
    let Pins { entries, modules, signatures } = set.pins();
    store.keep_signatures(signatures).await?;
    store.pin(entries, modules).await?;
    let stored = StoredSet { hash: set.hash(), entries: set.entries(), stored_at: now };
    store.keep_policy_set(stored, document).await
}

/// What a stored set is made of.
pub(super) async fn stored(store: &dyn Store, hash: Digest) -> Result<Stored, ChangeError> {
    let set = store.policy_set(hash).await?.ok_or(ChangeError::Unknown(hash))?;
    let mut parts = Parts::of(hash, store.signatures(hash).await?);
    for (action, policy) in set.entries {
        parts.add_entry(action, policy, store.policy_entry(policy).await?)?;
    }
    for digest in parts.digests() {
        parts.add_module(digest, store.module(digest).await?, store.signatures(digest).await?)?;
    }
    Ok(parts.all())
}

/// The same of a store that is open for reading only. Blocks.
///
/// # Errors
/// If no set with this hash is stored, something that it needs is missing, or the store does not answer.
pub fn archived(archive: &Archive, hash: Digest) -> Result<Stored, ChangeError> {
    let set = archive.policy_set(hash)?.ok_or(ChangeError::Unknown(hash))?;
    let mut parts = Parts::of(hash, archive.signatures(hash)?);
    for (action, policy) in set.entries {
        parts.add_entry(action, policy, archive.policy_entry(policy)?)?;
    }
    for digest in parts.digests() {
        parts.add_module(digest, archive.module(digest)?, archive.signatures(digest)?)?;
    }
    Ok(parts.all())
}

/// What was read of a stored set.
struct Parts {
    hash: Digest,
    entries: BTreeMap<String, PolicyEntry>,
    modules: Vec<Vec<u8>>,
    signatures: Vec<Signature>,
}

impl Parts {
    fn of(hash: Digest, signatures: Vec<Signature>) -> Parts {
        Parts { hash, entries: BTreeMap::new(), modules: Vec::new(), signatures }
    }

    fn add_entry(
        &mut self,
        action: String,
        policy: Digest,
        entry: Option<PolicyEntry>,
    ) -> Result<(), StoreError> {
        let entry = entry.ok_or_else(|| self.lost("entry", policy))?;
        self.entries.insert(action, entry);
        Ok(())
    }

    /// The modules of its entries.
    fn digests(&self) -> BTreeSet<Digest> {
        self.entries.values().flat_map(|entry| &entry.policies).map(|used| used.digest).collect()
    }

    fn add_module(
        &mut self,
        digest: Digest,
        module: Option<Vec<u8>>,
        signatures: Vec<Signature>,
    ) -> Result<(), StoreError> {
        self.modules.push(module.ok_or_else(|| self.lost("module", digest))?);
        self.signatures.extend(signatures);
        Ok(())
    }

    fn lost(&self, what: &str, digest: Digest) -> StoreError {
        StoreError::Corrupt {
            table: "policy_set",
            column: "entries",
            key: self.hash.to_string(),
            detail: format!("the {what} {digest} is not kept"),
        }
    }

    fn all(self) -> Stored {
        let Parts { hash, entries, modules, signatures } = self;
        let (name, entries) = (format!("policy set {hash}"), entries.into_values().collect());
        Stored { name, entries, modules, signatures }
    }
}
