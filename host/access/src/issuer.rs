//! An issuer of tokens, and where its keys come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use countersign_core::clock::{Moment, Monotonic};
use countersign_core::lifecycle::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::caller::claim_text;
use crate::fetch::{self, KeyUrl};
use crate::jwk::{self, PublicKey};
use crate::provider::Provider;
use crate::token::{Token, TokenError};

/// How old keys may be before they are fetched again, in milliseconds.
const REFRESH_MS: u64 = 60 * 60 * 1000;

/// How long to leave an issuer alone after a fetch that failed, or that was for a token with an unknown key, in
/// milliseconds: what strangers send must not become calls of ours, and an issuer that is down must not be hammered.
const COOL_DOWN_MS: u64 = 60 * 1000;

/// How long keys count that cannot be fetched again, unless the file says otherwise, in milliseconds.
const KEEP_MS: u64 = 24 * 60 * 60 * 1000;

/// An issuer of tokens.
#[derive(Debug)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` of tokens that are for this gateway.
    pub audience: String,
    /// The CI system that it is of, if that is known.
    pub(crate) provider: Option<Provider>,
    source: Keys,
    /// How long keys count that cannot be fetched again.
    keep_ms: u64,
    known: ArcSwapOption<KnownKeys>,
    /// When the last fetch was that a cool-down follows. Locked during each fetch, so there is one at a time.
    cools_since: Mutex<Option<Monotonic>>,
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// From this file.
    File(PathBuf),
    /// From this URL.
    Url(KeyUrl),
    /// From the URL that this document names: `/.well-known/openid-configuration` of the issuer.
    Discovery(KeyUrl),
}

/// Keys, and when they were fetched.
#[derive(Debug)]
pub(crate) struct KnownKeys {
    keys: Vec<PublicKey>,
    at: Moment,
}

impl KnownKeys {
    pub(crate) fn are_fresh(&self, now: Moment) -> bool {
        now.since(self.at) < REFRESH_MS
    }

    /// Those with this `kid`; a token that names none needs an issuer with one key alone.
    fn named(&self, kid: Option<&str>) -> Option<Vec<PublicKey>> {
        let found: Vec<PublicKey> = match kid {
            Some(kid) => self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).cloned().collect(),
            None if self.keys.len() == 1 => self.keys.clone(),
            None => Vec::new(),
        };
        (!found.is_empty()).then_some(found)
    }
}

/// A token that counts.
#[derive(Debug)]
pub(crate) struct VerifiedToken {
    pub(crate) claims: Map<String, Value>,
    /// When it ends.
    pub(crate) until: Timestamp,
    /// The issuer's keys that it was verified with.
    pub(crate) keys: Arc<KnownKeys>,
}

impl Keys {
    /// What `jwks` of the access file names: a URL, a file, or nothing for what the issuer says of itself. A relative
    /// path begins at `folder`.
    ///
    /// # Errors
    /// If it is a URL that is neither `https` nor of this machine, or a file without keys. Blocks to read the file.
    pub fn new(jwks: Option<&str>, issuer: &str, folder: &Path) -> Result<Keys, String> {
        match jwks {
            None => {
                let issuer = issuer.trim_end_matches('/');
                Ok(Keys::Discovery(KeyUrl::new(&format!("{issuer}/.well-known/openid-configuration"))?))
            }
            Some(url) if url.contains("://") => Ok(Keys::Url(KeyUrl::new(url)?)),
            Some(file) => {
                let path = folder.join(file);
                // Only checked: the keys are read when the first token comes, like those of any other source.
                read_file(&path)?;
                Ok(Keys::File(path))
            }
        }
    }

    async fn read(&self) -> Result<Vec<PublicKey>, String> {
        let text = match self {
            Keys::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                return read.map_err(|error| error.to_string())?;
            }
            Keys::Url(url) => fetch::get(url).await?,
            Keys::Discovery(url) => {
                let document = fetch::get(url).await?;
                let named = serde_json::from_slice::<Map<String, Value>>(&document).ok();
                let named = named.as_ref().and_then(|document| document.get("jwks_uri")?.as_str());
                let named = named.ok_or("its configuration names no `jwks_uri`")?;
                fetch::get(&KeyUrl::new(named)?).await?
            }
        };
        jwk::read(&text).map_err(str::to_owned)
    }
}

/// The keys in a file. Blocks.
fn read_file(path: &Path) -> Result<Vec<PublicKey>, String> {
    let text = fetch::file(path)?;
    jwk::read(&text).map_err(|why| format!("`{}` cannot be used: {why}", path.display()))
}

impl Issuer {
    /// An issuer whose keys are not known yet.
    #[must_use]
    pub fn new(issuer: String, audience: String, source: Keys, keep_ms: Option<u64>) -> Issuer {
        let keep_ms = keep_ms.unwrap_or(KEEP_MS);
        let provider = Provider::of(&issuer).map(|(provider, _)| provider);
        let (known, cools_since) = (ArcSwapOption::empty(), Mutex::new(None));
        Issuer { issuer, audience, provider, source, keep_ms, known, cools_since }
    }

    /// One of its tokens, if it counts.
    pub(crate) async fn verify(
        self: &Arc<Self>,
        token: Token<'_>,
        now: Moment,
    ) -> Result<VerifiedToken, TokenError> {
        let (keys, named) = self.keys(token.kid.as_deref(), now).await?;
        let (claims, until) = token.verify(&named, &self.issuer, &self.audience, now.wall)?;
        self.trusts(&claims)?;
        Ok(VerifiedToken { claims, until, keys })
    }

    /// Whether no other keys were fetched since these.
    pub(crate) fn still_has(&self, keys: &Arc<KnownKeys>) -> bool {
        self.known.load().as_ref().is_some_and(|known| Arc::ptr_eq(known, keys))
    }

    /// The keys that are known, and those that a token with this `kid` may be signed with.
    async fn keys(
        self: &Arc<Self>,
        kid: Option<&str>,
        now: Moment,
    ) -> Result<(Arc<KnownKeys>, Vec<PublicKey>), TokenError> {
        let seen = self.known.load_full();
        if let Some(known) = &seen
            && known.are_fresh(now)
            && let Some(named) = known.named(kid)
        {
            return Ok((Arc::clone(known), named));
        }
        // In a task of its own: a caller that hangs up must not end the fetch that others wait for.
        if let Err(error) = tokio::spawn(Arc::clone(self).refresh(seen, now)).await {
            tracing::error!(issuer = self.issuer, %error, "the fetch of an issuer's keys has ended early");
        }
        let known = self.known.load_full().filter(|known| now.since(known.at) < self.keep_ms);
        let known = known.ok_or(TokenError::Keys)?;
        let named = known.named(kid).ok_or(TokenError::Key)?;
        Ok((known, named))
    }

    /// Fetches the keys on account of a token for which those that were `seen` did not do, unless others were fetched
    /// since, or the issuer is left alone.
    async fn refresh(self: Arc<Self>, seen: Option<Arc<KnownKeys>>, now: Moment) {
        let mut cools_since = self.cools_since.lock().await;
        let others = match &seen {
            Some(seen) => !self.still_has(seen),
            None => self.known.load().is_some(),
        };
        if others || cools_since.is_some_and(|at| now.monotonic.since(at) < COOL_DOWN_MS) {
            return;
        }
        // Anybody can make up a token with an unknown key, but nobody can make keys missing or old.
        if seen.is_some_and(|seen| seen.are_fresh(now)) {
            *cools_since = Some(now.monotonic);
        }
        match self.source.read().await {
            Ok(keys) => self.known.store(Some(Arc::new(KnownKeys { keys, at: now }))),
            Err(error) => {
                *cools_since = Some(now.monotonic);
                tracing::warn!(
                    issuer = self.issuer,
                    error,
                    "cannot fetch the keys of an issuer; the last ones count"
                );
            }
        }
    }

    /// Refuses pipelines that run what strangers wrote, whatever a caller's rule says.
    pub(crate) fn trusts(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let claim = |name: &str| claims.get(name).and_then(claim_text);
        if claim("event_name").as_deref() == Some("pull_request_target") {
            return Err(TokenError::Untrusted(
                "`pull_request_target` runs with the rights of the base repository",
            ));
        }
        // Of GitLab: a merge request of a fork runs in the project that it goes to, and anybody who may push a branch
        // writes what runs on it.
        if let Some(project) = claim("project_id") {
            if claim("job_project_id") != Some(project) {
                return Err(TokenError::Untrusted("the job is of another project than the pipeline"));
            }
            if claim("ref_protected").as_deref() != Some("true") {
                return Err(TokenError::Untrusted("the pipeline's branch or tag is not protected"));
            }
        }
        Ok(())
    }
}
