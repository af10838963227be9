//! Modules that a set pins in a registry: fetched before anything waits for them, and once, since the store keeps them.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use countersign_core::lifecycle::Digest;
use countersign_core::record::Signature;
use countersign_policy::{Engine, LoadErrors, PolicySet, Signed, Source};
use countersign_registry::{Pinned, Registries, RegistryError};
use countersign_store::{Store, StoreError};

/// How many modules are fetched at the same time.
const AT_ONCE: usize = 4;

/// Where modules come from that are not in the folder of a set.
pub struct Fetcher<'a> {
    /// What was fetched before is here, if there is a store.
    pub store: Option<&'a dyn Store>,
    /// The registries that may be asked.
    pub registries: &'a Registries,
    /// What loads the modules.
    pub engine: &'a Engine,
}

/// Loads the set in a folder as a gateway would that has nothing in its store. Blocks.
///
/// # Errors
/// Where what it pins in registries cannot even be asked for; what is wrong with the set is told within.
pub fn load(
    folder: &Path,
    engine: &Engine,
    registries: &Registries,
) -> anyhow::Result<Result<PolicySet, LoadErrors>> {
    let mut source = match Source::read(folder, engine.limits()) {
        Ok(source) => source,
        Err(errors) => return Ok(Err(errors)),
    };
    let elsewhere = elsewhere(&source);
    if !elsewhere.is_empty() {
        wait(Fetcher { store: None, registries, engine }.complete(&mut source, elsewhere))?;
    }
    Ok(PolicySet::build(&source, engine))
}

/// What `source` pins in registries and has no file of. Blocks to parse it.
#[must_use]
pub fn elsewhere(source: &Source) -> Vec<Pinned> {
    let here: Vec<Digest> = source.modules.iter().map(|(_, bytes)| Digest::of(bytes)).collect();
    let pinned = PolicySet::pinned(&source.text).into_iter().filter(|(digest, _)| !here.contains(digest));
    pinned.filter_map(|(digest, repository)| Some(Pinned { repository: repository?, digest })).collect()
}

/// Waits for calls over the network: on a thread of its own, for this one may be one that must not be blocked.
pub fn wait<T: Send, E: Into<anyhow::Error> + Send>(
    calling: impl Future<Output = Result<T, E>> + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let called = runtime.block_on(calling).map_err(Into::into);
            // A helper that never ends must not keep us.
            runtime.shutdown_background();
            called
        });
        waiting.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the call has panicked")))
    })
}

/// Modules that were fetched, and why others were not.
#[derive(Debug, Default)]
pub struct Fetched(BTreeMap<Digest, Result<Module, RegistryError>>);

#[derive(Debug)]
struct Module {
    bytes: Vec<u8>,
    signatures: Vec<Signature>,
}

impl Fetcher<'_> {
    /// Adds to `source` what it pins `elsewhere`.
    ///
    /// # Errors
    /// Where the store does not answer. What a registry does not give is told in `source`.
    pub async fn complete(&self, source: &mut Source, elsewhere: Vec<Pinned>) -> Result<(), StoreError> {
        let mut fetched = Fetched::default();
        self.fetch(elsewhere.clone(), &source.signatures, &mut fetched).await?;
        fetched.add_to(source, &elsewhere);
        Ok(())
    }

    /// Fetches these, with signatures if those `at_hand` do not do.
    pub async fn fetch(
        &self,
        lacking: Vec<Pinned>,
        at_hand: &[Signature],
        fetched: &mut Fetched,
    ) -> Result<(), StoreError> {
        let found = lacking.into_iter().map(|pinned| async move {
            let found = self.module(&pinned, at_hand).await?;
            Ok::<_, StoreError>((pinned.digest, found))
        });
        let found: Vec<_> = stream::iter(found).buffer_unordered(AT_ONCE).try_collect().await?;
        fetched.0.extend(found);
        Ok(())
    }

    async fn module(
        &self,
        Pinned { repository, digest }: &Pinned,
        at_hand: &[Signature],
    ) -> Result<Result<Module, RegistryError>, StoreError> {
        let (mut stored, mut signatures) = (None, Vec::new());
        if let Some(store) = self.store {
            stored = store.module(*digest).await?;
            signatures = store.signatures(*digest).await?;
        }
        let bytes = match stored {
            Some(bytes) => bytes,
            None => {
                match self.registries.fetch(repository, digest, self.engine.limits().module_bytes).await {
                    Ok(bytes) => bytes,
                    Err(error) => return Ok(Err(error)),
                }
            }
        };
        let (engine, digest) = (self.engine.clone(), *digest);
        let both = [at_hand.to_vec(), signatures.clone()];
        let verified = tokio::task::spawn_blocking(move || {
            both.iter().any(|signatures| engine.trust().verify(Signed::Module, &digest, signatures).is_ok())
        });
        // What was not verified is fetched, and verified when the module is loaded.
        if !verified.await.unwrap_or_default() {
            match self.registries.signatures(repository, &digest).await {
                // Whether they do is seen when the module is loaded.
                Ok(text) => match Signature::read_all(&text.unwrap_or_default()) {
                    Ok(read) => signatures.extend(read),
                    Err((line, wrong)) => {
                        tracing::warn!(%repository, %digest, line, wrong, "the signatures in a registry cannot be read");
                    }
                },
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(Module { bytes, signatures }))
    }
}

impl Fetched {
    /// What of this was not tried before.
    pub fn lacking(&self, elsewhere: &[Pinned]) -> Vec<Pinned> {
        elsewhere.iter().filter(|pinned| !self.0.contains_key(&pinned.digest)).cloned().collect()
    }

    /// Adds the modules to those of `source`, and the errors, as far as it pins them `elsewhere`: a folder may have changed
    /// since.
    pub fn add_to(self, source: &mut Source, elsewhere: &[Pinned]) {
        let pinned = |digest: &Digest| elsewhere.iter().any(|pinned| pinned.digest == *digest);
        for (digest, found) in self.0.into_iter().filter(|(digest, _)| pinned(digest)) {
            match found {
                Ok(Module { bytes, signatures }) => {
                    source.modules.push((format!("sha256:{digest}"), bytes));
                    source.signatures.extend(signatures);
                }
                Err(error) => drop(source.unfetched.insert(digest, error)),
            }
        }
    }
}
