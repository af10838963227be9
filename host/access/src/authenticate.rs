//! From a bearer token or a client certificate to the caller or the admin who shows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use countersign_core::clock::Moment;
use countersign_core::lifecycle::{Digest, Timestamp};
use serde_json::{Map, Value};

use crate::admin::Admin;
use crate::caller::{Caller, TokenRule};
use crate::certificate::{CertificateError, CertificateName};
use crate::file::Access;
use crate::gate::GateSystem;
use crate::issuer::{Issuer, KnownKeys, VerifiedToken};
use crate::key::{self, ApiKey};
use crate::token::{Token, TokenError};

/// How many tokens that were verified are remembered.
const REMEMBERED: usize = 10_000;

/// Recognises callers and admins by what the access file in force says.
#[derive(Debug, Default)]
pub struct Authenticator {
    access: ArcSwap<Access>,
    /// Tokens that were verified under that file, by their digests, until they end or their issuer's keys change or grow old.
    verified: Mutex<HashMap<Digest, Verified>>,
}

#[derive(Clone, Debug)]
struct Verified {
    holder: Holder,
    until: Timestamp,
    issuer: Arc<Issuer>,
    /// The keys of the issuer that it was verified with: once others are fetched it is verified again, since its own
    /// may have been withdrawn.
    keys: Arc<KnownKeys>,
    /// The access file that it was verified under.
    under: Option<Digest>,
}

/// Whose credentials a bearer token or a client certificate is.
#[derive(Clone, Debug)]
pub enum Holder {
    /// A caller's.
    Caller(Identified),
    /// An admin's.
    Admin(Arc<Admin>),
}

impl Holder {
    /// The caller.
    ///
    /// # Errors
    /// If it is an admin.
    pub fn caller(self) -> Result<Identified, Unauthenticated> {
        match self {
            Holder::Caller(identified) => Ok(identified),
            Holder::Admin(_) => Err(Unauthenticated::NotACaller),
        }
    }

    /// The admin.
    ///
    /// # Errors
    /// If it is a caller.
    pub fn admin(self) -> Result<Arc<Admin>, Unauthenticated> {
        match self {
            Holder::Admin(admin) => Ok(admin),
            Holder::Caller(_) => Err(Unauthenticated::NotAnAdmin),
        }
    }

    /// A caller, without a token.
    pub(crate) fn of(caller: &Arc<Caller>) -> Holder {
        Holder::Caller(Identified { caller: Arc::clone(caller), claims: None })
    }

    /// Which tokens are its own.
    pub(crate) fn tokens(&self) -> Option<&TokenRule> {
        match self {
            Holder::Caller(Identified { caller, .. }) => caller.tokens.as_ref(),
            Holder::Admin(admin) => admin.tokens.as_ref(),
        }
    }

    /// Which deliveries of a CI system are its own.
    pub(crate) fn deliveries(&self) -> Option<&TokenRule> {
        match self {
            Holder::Caller(Identified { caller, .. }) => Some(&caller.gate.as_ref()?.deliveries),
            Holder::Admin(_) => None,
        }
    }

    /// As errors name it.
    pub(crate) fn described(&self) -> String {
        match self {
            Holder::Caller(Identified { caller, .. }) => format!("the caller `{}`", caller.name),
            Holder::Admin(admin) => format!("the admin `{}`", admin.name),
        }
    }
}

/// A caller who was recognised.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who.
    pub caller: Arc<Caller>,
    /// The claims of its token, if it came with one.
    pub claims: Option<Arc<Map<String, Value>>>,
}

/// Why a bearer token or a client certificate is nobody's. None of it holds anything of what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// Nobody in the access file has this API key.
    #[error("no caller and no admin has this API key")]
    UnknownKey,
    /// The API key has ended.
    #[error("this API key has ended")]
    KeyEnded,
    /// The token does not count.
    #[error("the token does not count: {0}")]
    Token(#[from] TokenError),
    /// The token counts, and is nobody's.
    #[error("the token counts, but its claims are those of no caller and no admin")]
    Nobody,
    /// The token counts, and could be several callers' or admins'.
    #[error("the token counts, but its claims are those of several callers or admins")]
    Several,
    /// Nobody in the access file has this client certificate.
    #[error("no caller and no admin has this client certificate")]
    UnknownCertificate,
    /// The client certificate names nobody.
    #[error("the client certificate names nobody: {0}")]
    Certificate(#[from] CertificateError),
    /// Only callers may make this call.
    #[error("these are the credentials of an admin, who is no caller")]
    NotACaller,
    /// Only admins may make this call.
    #[error("these are the credentials of a caller, who is no admin")]
    NotAnAdmin,
}

impl Unauthenticated {
    /// The kind of failure, as the audit log counts it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Unauthenticated::UnknownKey | Unauthenticated::KeyEnded => "bad_api_key",
            Unauthenticated::Token(_) | Unauthenticated::Nobody | Unauthenticated::Several => "bad_token",
            Unauthenticated::UnknownCertificate | Unauthenticated::Certificate(_) => "bad_certificate",
            Unauthenticated::NotACaller => "not_a_caller",
            Unauthenticated::NotAnAdmin => "not_an_admin",
        }
    }
}

impl Authenticator {
    /// Recognises the callers and admins of `access`.
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

    /// The caller or the admin whose client certificate has this name. The certificate itself was verified.
    ///
    /// # Errors
    /// If it is nobody's.
    pub fn certified(&self, name: &CertificateName) -> Result<Holder, Unauthenticated> {
        self.access.load().certified(name).cloned().ok_or(Unauthenticated::UnknownCertificate)
    }

    /// The caller whose delivery of a CI system this is. That it comes from there was verified. `None` if it is nobody's, or
    /// could be several callers'.
    #[must_use]
    pub fn delivered(&self, system: GateSystem, claims: &Arc<Map<String, Value>>) -> Option<Identified> {
        let access = self.access.load();
        let is_theirs =
            |caller: &&Arc<Caller>| caller.gate.as_ref().is_some_and(|gate| gate.matches(system, claims));
        let mut callers = access.callers().filter(is_theirs);
        let (first, second) = (callers.next(), callers.next());
        let caller = first.filter(|_| second.is_none())?;
        Some(Identified { caller: Arc::clone(caller), claims: Some(Arc::clone(claims)) })
    }

    /// The caller who shows this bearer token: an API key, or a token of an identity provider.
    ///
    /// # Errors
    /// If it is no caller's, or does not count now.
    pub async fn identify(&self, bearer: &str, now: Moment) -> Result<Identified, Unauthenticated> {
        self.holder(bearer, now).await?.caller()
    }

    /// The caller or the admin who shows this bearer token: an API key, or a token of an identity provider.
    ///
    /// # Errors
    /// If it is nobody's, or does not count now.
    pub async fn holder(&self, bearer: &str, now: Moment) -> Result<Holder, Unauthenticated> {
        let access = self.access.load_full();
        let digest = key::digest(bearer);
        if ApiKey::is_one(bearer) {
            // Found by its digest: how long that takes says nothing of the keys that there are.
            let entry = access.key(&digest).ok_or(Unauthenticated::UnknownKey)?;
            if entry.until.is_some_and(|until| now.wall >= until) {
                return Err(Unauthenticated::KeyEnded);
            }
            return Ok(entry.holder.clone());
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
        let claims = Arc::new(claims);
        let is_theirs =
            |tokens: &Option<TokenRule>| tokens.as_ref().is_some_and(|tokens| tokens.matches(name, &claims));
        let callers = access.callers().filter(|caller| is_theirs(&caller.tokens)).map(|caller| {
            Holder::Caller(Identified { caller: Arc::clone(caller), claims: Some(Arc::clone(&claims)) })
        });
        let admins =
            access.admins().filter(|admin| is_theirs(&admin.tokens)).map(Arc::clone).map(Holder::Admin);
        let mut holders = callers.chain(admins);
        let holder = holders.next().ok_or(Unauthenticated::Nobody)?;
        if holders.next().is_some() {
            return Err(Unauthenticated::Several);
        }
        let (issuer, under) = (Arc::clone(issuer), access.digest());
        self.remember(digest, Verified { holder: holder.clone(), until, issuer, keys, under });
        Ok(holder)
    }

    fn remembered(&self, digest: &Digest, under: Option<Digest>, now: Moment) -> Option<Holder> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let found = verified.get(digest)?;
        let counts = found.under == under
            && now.wall < found.until
            && found.keys.are_fresh(now)
            && found.issuer.still_has(&found.keys);
        counts.then(|| found.holder.clone())
    }

    fn remember(&self, digest: Digest, token: Verified) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(digest, token);
    }
}
