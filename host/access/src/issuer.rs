//! An issuer of tokens, and where its keys come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use countersign_core::lifecycle::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::caller::claim_text;
use crate::fetch::{self, KeyUrl};
use crate::jwk::{self, PublicKey};
use crate::token::{Token, TokenError};

/// GitHub Actions, as the issuer of its jobs' tokens.
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// The issuer of gitlab.com.
const GITLAB: &str = "https://gitlab.com";

/// How old keys may be before they are fetched again, in milliseconds.
const REFRESH_MS: u64 = 60 * 60 * 1000;

/// How long to leave an issuer alone after its keys were asked for, in milliseconds: tokens with keys that nobody knows
/// must not become calls of ours.
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
    source: Keys,
    /// How long keys count that cannot be fetched again.
    keep_ms: u64,
    known: ArcSwapOption<Known>,
    /// When they were asked for last; one who asks at a time.
    asked: Mutex<Option<Timestamp>>,
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

/// Keys, and when they were read.
#[derive(Debug)]
struct Known {
    keys: Vec<PublicKey>,
    at: Timestamp,
}

impl Keys {
    /// What `jwks` of the access file names: a URL, a file, or nothing for what the issuer says of itself.
    ///
    /// # Errors
    /// If it is a URL that is neither `https` nor of this machine.
    pub fn new(jwks: Option<&str>, issuer: &str) -> Result<Keys, String> {
        match jwks {
            None => {
                let issuer = issuer.trim_end_matches('/');
                Ok(Keys::Discovery(KeyUrl::new(&format!("{issuer}/.well-known/openid-configuration"))?))
            }
            Some(url) if url.contains("://") => Ok(Keys::Url(KeyUrl::new(url)?)),
            Some(file) => Ok(Keys::File(PathBuf::from(file))),
        }
    }

    async fn read(&self) -> Result<Vec<PublicKey>, String> {
        let text = match self {
            Keys::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || fetch::file(&path)).await;
                read.map_err(|error| error.to_string())??
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

impl Issuer {
    /// An issuer whose keys are not known yet.
    #[must_use]
    pub fn new(issuer: String, audience: String, source: Keys, keep_ms: Option<u64>) -> Issuer {
        let keep_ms = keep_ms.unwrap_or(KEEP_MS);
        Issuer { issuer, audience, source, keep_ms, known: ArcSwapOption::empty(), asked: Mutex::new(None) }
    }

    /// The claims of one of its tokens, and when they end.
    pub(crate) async fn verify(
        &self,
        token: Token<'_>,
        now: Timestamp,
    ) -> Result<(Map<String, Value>, Timestamp), TokenError> {
        let keys = self.keys(token.kid.as_deref(), now).await?;
        let verified = token.verify(&keys, &self.issuer, &self.audience, now)?;
        self.trusts(&verified.0)?;
        Ok(verified)
    }

    /// The keys that a token with this `kid` may be signed with.
    async fn keys(&self, kid: Option<&str>, now: Timestamp) -> Result<Vec<PublicKey>, TokenError> {
        let known = self.known.load_full();
        if let Some(known) = &known
            && now.since(known.at) < REFRESH_MS
            && let Some(keys) = named(&known.keys, kid)
        {
            return Ok(keys);
        }
        // One who asks at a time; whoever waited looks at what the one before has found.
        let mut asked = self.asked.lock().await;
        let newer = self.known.load_full();
        let found_meanwhile = newer.as_ref().map(|known| known.at) != known.as_ref().map(|known| known.at);
        let cools_down = asked.is_some_and(|at| now.since(at) < COOL_DOWN_MS);
        if !found_meanwhile && !cools_down {
            *asked = Some(now);
            match self.source.read().await {
                Ok(keys) => self.known.store(Some(Arc::new(Known { keys, at: now }))),
                Err(error) => {
                    tracing::warn!(
                        issuer = self.issuer,
                        error,
                        "cannot fetch the keys of an issuer; the last ones count"
                    );
                }
            }
        }
        drop(asked);
        match self.known.load_full() {
            Some(known) if now.since(known.at) < self.keep_ms => {
                named(&known.keys, kid).ok_or(TokenError::Key)
            }
            _ => Err(TokenError::Keys),
        }
    }

    /// Refuses pipelines that run what strangers wrote, whatever a caller's rule says.
    fn trusts(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
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

    /// What is wrong with a caller's rule on the tokens of this issuer, beyond its form.
    pub(crate) fn unsafe_rule(&self, claims: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.issuer == GITHUB {
            if claims.contains_key("sub") {
                wrong.push(
                    "`sub` of GitHub has changed its form before: match `repository_id`, `ref` and others"
                        .to_owned(),
                );
            }
            if !claims.contains_key("repository_id") && !claims.contains_key("repository_owner_id") {
                wrong.push(
                    "tokens of GitHub are anybody's: match `repository_id` or `repository_owner_id`"
                        .to_owned(),
                );
            }
            if claims.get("event_name").is_some_and(|events| events.contains("pull_request_target")) {
                wrong.push(
                    "`pull_request_target` runs what strangers wrote, and is refused always".to_owned(),
                );
            }
        }
        if self.issuer == GITLAB && !["project_id", "namespace_id"].iter().any(|id| claims.contains_key(*id))
        {
            wrong.push("tokens of GitLab are anybody's: match `project_id` or `namespace_id`".to_owned());
        }
        wrong
    }
}

/// The keys with this `kid`; a token that names none needs an issuer with one key alone.
fn named(keys: &[PublicKey], kid: Option<&str>) -> Option<Vec<PublicKey>> {
    let found: Vec<PublicKey> = match kid {
        Some(kid) => keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).cloned().collect(),
        None if keys.len() == 1 => keys.to_vec(),
        None => Vec::new(),
    };
    (!found.is_empty()).then_some(found)
}
