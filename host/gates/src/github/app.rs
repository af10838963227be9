//! The App: its token, those of its installations, and the report of what was decided.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::lifecycle::{Deployment, Timestamp};
use countersign_core::secret::Secret;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use super::COMMENT_CHARS;
use crate::api_url::ApiUrl;
use crate::call::{CallError, Caller, secret_header};

/// How long before now a token of the App is issued, in milliseconds: GitHub's clock may be behind.
const ISSUED_BEFORE_MS: u64 = 60_000;

/// How long a token of the App counts from then on, in milliseconds. GitHub accepts ten minutes.
const APP_TOKEN_MS: u64 = 9 * 60_000;

/// How long before its end a token of an installation is not used any more, in milliseconds.
const SPARE_MS: u64 = 5 * 60_000;

/// The version of the API.
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-github-api-version"), HeaderValue::from_static("2022-11-28"));

/// The private key of an App.
pub struct AppKey(KeyPair);

/// Why a file holds no private key of an App.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has no private key in PEM.
    #[error("it holds no private key in PEM, as GitHub makes one for an App")]
    NotPem,
    /// The key is not one of RSA, or too small or too large.
    #[error("its key is no RSA key of 2048 to 4096 bits")]
    NotRsa,
}

impl AppKey {
    /// Reads a private key in PEM: PKCS#1, as GitHub makes them, or PKCS#8.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_pem(pem: &[u8]) -> Result<AppKey, KeyError> {
        let pair = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)? {
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(KeyError::NotRsa),
        };
        pair.map(AppKey).map_err(|_| KeyError::NotRsa)
    }
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

/// An App, and the tokens of its installations.
pub struct App {
    /// Its client id or its number, the `iss` of its tokens.
    id: String,
    key: AppKey,
    api: ApiUrl,
    caller: Caller,
    /// By installation and repository.
    tokens: Mutex<HashMap<(u64, u64), InstallationToken>>,
}

#[derive(Clone)]
struct InstallationToken {
    token: Secret,
    /// When it is not used any more.
    until: Timestamp,
}

#[derive(Deserialize)]
struct IssuedToken {
    token: String,
    /// In RFC 3339.
    expires_at: String,
}

impl App {
    /// The App with this client id or number.
    ///
    /// # Errors
    /// If the certificate authorities of the system cannot be read.
    pub fn new(id: String, key: AppKey, api: ApiUrl) -> std::io::Result<App> {
        Ok(App { id, key, api, caller: Caller::new()?, tokens: Mutex::default() })
    }

    /// The base URL of the API.
    #[must_use]
    pub fn api(&self) -> &ApiUrl {
        &self.api
    }

    /// Says that a deployment may go on or not, or with `decision` absent how it stands. What is longer than a comment may
    /// be is cut.
    ///
    /// # Errors
    /// If GitHub refuses, or cannot be reached.
    pub async fn report(
        &self,
        deployment: &Deployment,
        decision: Option<bool>,
        comment: &str,
        now: Timestamp,
    ) -> Result<(), CallError> {
        let url = report_url(&self.api, deployment).ok_or(CallError::Impossible)?;
        let comment: String = comment.chars().take(COMMENT_CHARS).collect();
        let mut body = json!({ "environment_name": deployment.environment, "comment": comment });
        if let (Some(approved), Some(members)) = (decision, body.as_object_mut()) {
            members.insert("state".into(), if approved { "approved" } else { "rejected" }.into());
        }
        let of = (deployment.installation, deployment.repository);
        let token = self.installation_token(of, now).await?;
        let sent = self.post(&url, &token, &body).await;
        if matches!(sent, Err(CallError::Refused { status: 401, .. })) {
            // It was revoked, or the installation has changed: the next attempt has another one.
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(&of);
        }
        sent.map(drop)
    }

    /// A token that may do one thing, in one repository.
    async fn installation_token(&self, of: (u64, u64), now: Timestamp) -> Result<Secret, CallError> {
        let known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&of).cloned();
        if let Some(known) = known.filter(|known| now < known.until) {
            return Ok(known.token);
        }
        let (installation, repository) = of;
        let path = ["app", "installations", &installation.to_string(), "access_tokens"];
        let url = self.api.with(&path).ok_or(CallError::Impossible)?;
        let body = json!({ "repository_ids": [repository], "permissions": { "deployments": "write" } });
        let answer = self.post(&url, &self.app_token(now)?, &body).await?;
        let issued: IssuedToken = serde_json::from_slice(&answer).map_err(|_| CallError::Unreadable)?;
        let ends: jiff::Timestamp = issued.expires_at.parse().map_err(|_| CallError::Unreadable)?;
        let ends = u64::try_from(ends.as_millisecond()).map_err(|_| CallError::Unreadable)?;
        let token = Secret::new(issued.token);
        let until = Timestamp::from_millis(ends).minus(SPARE_MS);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| now < token.until);
        tokens.insert(of, InstallationToken { token: token.clone(), until });
        Ok(token)
    }

    /// A token of the App itself: a JSON Web Token that it signs.
    fn app_token(&self, now: Timestamp) -> Result<Secret, CallError> {
        let issued = now.minus(ISSUED_BEFORE_MS);
        let seconds = |at: Timestamp| at.as_millis() / 1000;
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        let claims =
            json!({ "iss": self.id, "iat": seconds(issued), "exp": seconds(issued.plus(APP_TOKEN_MS)) });
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let AppKey(pair) = &self.key;
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| CallError::Impossible)?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }

    async fn post(&self, url: &Url, token: &Secret, body: &Value) -> Result<bytes::Bytes, CallError> {
        let token = std::str::from_utf8(token.expose()).map_err(|_| CallError::Impossible)?;
        let bearer = Zeroizing::new(format!("Bearer {token}"));
        let (version, number) = VERSION;
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, secret_header(&bearer)?),
            (ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
            (version, number),
        ]);
        self.caller.post(url, headers, body).await
    }
}

/// Where the report of a deployment goes.
pub(super) fn report_url(api: &ApiUrl, deployment: &Deployment) -> Option<Url> {
    let (owner, name) = deployment.name.split_once('/')?;
    let run = deployment.run.to_string();
    api.with(&["repos", owner, name, "actions", "runs", &run, "deployment_protection_rule"])
}
