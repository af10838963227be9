//! From a bearer token to the caller who shows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use countersign_core::lifecycle::{Digest, Timestamp};
use serde_json::{Map, Value};

use crate::caller::Caller;
use crate::file::Access;
use crate::issuer::{Issuer, KnownKeys, VerifiedToken};
use crate::key::{self, ApiKey};
use crate::token::{Token, TokenError};

/// How many tokens that were verified are remembered.
const REMEMBERED: usize = 10_000;

/// Recognises callers by what the access file in force says.
#[derive(Debug, Default)]
pub struct Authenticator {
    access: ArcSwap<Access>,
    /// Tokens that were verified under that file, by their digests, until they end or their issuer's keys change.
    verified: Mutex<HashMap<Digest, Verified>>,
}

#[derive(Clone, Debug)]
struct Verified {
    identified: Identified,
    until: Timestamp,
    issuer: Arc<Issuer>,
    /// The keys of the issuer that it was verified with: once others are fetched it is verified again, since its own
    /// may have been withdrawn.
    keys: Arc<KnownKeys>,
    /// The access file that it was verified under.
    under: Option<Digest>,
}

/// A caller who was recognised.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who.
    pub caller: Arc<Caller>,
    /// The claims of its token, if it came with one.
    pub claims: Option<Arc<Map<String, Value>>>,
}

/// Why a bearer is nobody. None of it holds anything of what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// No caller has this API key.
    #[error("no caller has this API key")]
    UnknownKey,
    /// The API key has ended.
    #[error("this API key has ended")]
    KeyEnded,
    /// The token does not count.
    #[error("the token does not count: {0}")]
    Token(#[from] TokenError),
    /// The token counts, and is no caller's.
    #[error("the token counts, but its claims are those of no caller")]
    NoCaller,
    /// The token counts, and could be several callers'.
    #[error("the token counts, but its claims are those of several callers")]
    SeveralCallers,
}

impl Unauthenticated {
    /// The value of the metric label `type` in `security_events_total`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Unauthenticated::UnknownKey | Unauthenticated::KeyEnded => "bad_api_key",
            Unauthenticated::Token(_) | Unauthenticated::NoCaller | Unauthenticated::SeveralCallers => {
                "bad_token"
            }
        }
    }
}

impl Authenticator {
    /// Recognises the callers of `access`.
    #[must_use]
    pub fn new(access: Access) -> Authenticator {
        Authenticator { access: ArcSwap::from_pointee(access), verified: Mutex::default() }
    }

    /// What the access file in force says.
    #[must_use]
    pub fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Puts another access file in force. Tokens that were verified under the one before are verified again.
    pub fn replace(&self, access: Access) {
        self.access.store(Arc::new(access));
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The caller who shows this bearer token: an API key, or a token of an identity provider.
    ///
    /// # Errors
    /// If it is nobody's, or does not count now.
    pub async fn identify(&self, bearer: &str, now: Timestamp) -> Result<Identified, Unauthenticated> {
        let access = self.access.load_full();
        let digest = key::digest(bearer);
        if ApiKey::is_one(bearer) {
            // Found by its digest: how long that takes says nothing of the keys that there are.
            let entry = access.key(&digest).ok_or(Unauthenticated::UnknownKey)?;
            if entry.until.is_some_and(|until| now >= until) {
                return Err(Unauthenticated::KeyEnded);
            }
            return Ok(Identified { caller: Arc::clone(&entry.caller), claims: None });
        }
        if let Some(verified) = self.remembered(&digest, access.digest(), now) {
            return Ok(verified);
        }
        let token = Token::read(bearer)?;
        let named = token.issuer()?.to_owned();
        // INVARIANT: the issuer is one of the file's before anything is fetched on account of a token.
        let mut issuers = access.issuers().iter().filter(|(_, issuer)| issuer.issuer == named);
        let (name, issuer) = issuers.next().ok_or(TokenError::Issuer)?;
        let VerifiedToken { claims, until, keys } = issuer.verify(token, now).await?;
        let is_theirs = |caller: &&Arc<Caller>| {
            caller.tokens.as_ref().is_some_and(|tokens| tokens.matches(name, &claims))
        };
        let mut callers = access.callers().filter(is_theirs);
        let caller = Arc::clone(callers.next().ok_or(Unauthenticated::NoCaller)?);
        if callers.next().is_some() {
            return Err(Unauthenticated::SeveralCallers);
        }
        let identified = Identified { caller, claims: Some(Arc::new(claims)) };
        let (issuer, under) = (Arc::clone(issuer), access.digest());
        self.remember(digest, Verified { identified: identified.clone(), until, issuer, keys, under });
        Ok(identified)
    }

    fn remembered(&self, digest: &Digest, under: Option<Digest>, now: Timestamp) -> Option<Identified> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let found = verified.get(digest)?;
        let counts = found.under == under && now < found.until && found.issuer.still_has(&found.keys);
        counts.then(|| found.identified.clone())
    }

    fn remember(&self, digest: Digest, token: Verified) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(digest, token);
    }
}
