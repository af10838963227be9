//! A token of an identity provider: a JSON Web Token (RFC 7519) in its compact form, signed.
//!
//! What is read here is believed only once [`Token::verify`] has said so. Our own rather than a library's: those that
//! are kept up read the machine's clock, ignore `crit`, and pass tokens without `aud` or `iss` unless told otherwise,
//! while the signatures are ring's and the JSON is read by the strict reader that everything else is read by.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::json;
use countersign_core::lifecycle::Timestamp;
use serde_json::{Map, Value};

use crate::jwk::{Algorithm, PublicKey};

/// The longest token, in bytes.
pub(crate) const TOKEN_BYTES: usize = 16 << 10;

/// How far clocks may differ, in milliseconds.
const LEEWAY_MS: u64 = 30_000;

/// A token that was taken apart. Nothing of it is believed yet.
pub(crate) struct Token<'a> {
    algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    claims: Map<String, Value>,
    /// Header and claims as they were signed.
    message: &'a [u8],
    signature: Vec<u8>,
}

/// Why a token does not count. None of it holds anything of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no signed token.
    #[error("it is no signed JSON Web Token")]
    Malformed,
    /// It is signed in a way that does not count, or not at all.
    #[error("it is not signed with an algorithm that counts here")]
    Algorithm,
    /// Its header asks for something that is not understood.
    #[error("its header has `crit`, which asks for what is not understood here")]
    Critical,
    /// Nobody here knows its issuer.
    #[error("its issuer is not one of the access file's")]
    Issuer,
    /// Its key is not one of the issuer's.
    #[error("its issuer has no such key")]
    Key,
    /// The issuer's keys cannot be had.
    #[error("the keys of its issuer cannot be fetched")]
    Keys,
    /// The signature is not its key's.
    #[error("its signature is wrong")]
    Signature,
    /// It lacks a claim that it must have.
    #[error("it lacks the claim `{0}`, or has it in another form")]
    Claim(&'static str),
    /// It is for somebody else.
    #[error("it is for another audience")]
    Audience,
    /// It has ended.
    #[error("it has expired")]
    Expired,
    /// It does not count yet.
    #[error("it is from the future")]
    Future,
    /// It is of a pipeline that runs what strangers wrote.
    #[error("it is of a pipeline that anybody could have started: {0}")]
    Untrusted(&'static str),
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub(crate) fn read(text: &'a str) -> Result<Token<'a>, TokenError> {
        if text.len() > TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        if claims.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = object(header)?;
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::of);
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(TokenError::Malformed),
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        Ok(Token { algorithm, kid, claims: object(claims)?, message: message.as_bytes(), signature })
    }

    /// Who says that it issued the token; only to find the keys by.
    pub(crate) fn issuer(&self) -> Result<&str, TokenError> {
        self.claims.get("iss").and_then(Value::as_str).ok_or(TokenError::Claim("iss"))
    }

    /// The claims, if one of `keys` has signed them, they are for `audience`, and they count now.
    pub(crate) fn verify(
        self,
        keys: &[PublicKey],
        issuer: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<(Map<String, Value>, Timestamp), TokenError> {
        let signed = |key: &PublicKey| key.verify(self.algorithm, self.message, &self.signature);
        if !keys.iter().any(signed) {
            return Err(TokenError::Signature);
        }
        let until = self.counts(issuer, audience, now)?;
        Ok((self.claims, until))
    }

    /// What it claims, whoever has signed it.
    pub(crate) fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// When it ends by what it claims, if it does.
    pub(crate) fn ends(&self) -> Result<Option<Timestamp>, TokenError> {
        self.instant("exp")
    }

    /// Until when it counts, if it is of `issuer`, for `audience`, and counts now, whoever has signed it.
    pub(crate) fn counts(
        &self,
        issuer: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<Timestamp, TokenError> {
        if self.issuer()? != issuer {
            return Err(TokenError::Issuer);
        }
        let is_for_us = match self.claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(audience)),
            _ => return Err(TokenError::Claim("aud")),
        };
        if !is_for_us {
            return Err(TokenError::Audience);
        }
        let ends = self.ends()?.ok_or(TokenError::Claim("exp"))?;
        if now >= ends.plus(LEEWAY_MS) {
            return Err(TokenError::Expired);
        }
        for begins in ["nbf", "iat"] {
            if self.instant(begins)?.is_some_and(|begins| begins > now.plus(LEEWAY_MS)) {
                return Err(TokenError::Future);
            }
        }
        Ok(ends.plus(LEEWAY_MS))
    }

    /// A claim in seconds since the Unix epoch.
    fn instant(&self, claim: &'static str) -> Result<Option<Timestamp>, TokenError> {
        let Some(value) = self.claims.get(claim) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0 && *seconds < 1e12);
        let seconds = seconds.ok_or(TokenError::Claim(claim))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within bounds")]
        Ok(Some(Timestamp::from_millis((seconds * 1000.0) as u64)))
    }
}

fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let text = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    match json::parse(&text) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(TokenError::Malformed),
    }
}
