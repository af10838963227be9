//! Who asks: an API key, or the token of a pipeline, which is found by itself where the CI system offers one.

use std::path::PathBuf;
use std::time::Duration;

use countersign_core::json;
use countersign_core::loopback::is_loopback;
use countersign_core::secret::Secret;
use form_urlencoded::byte_serialize;
use hyper::Uri;
use hyper::header::HeaderValue;

use crate::environment::Environment;
use crate::http::{Call, Http, Trust, bearer, host};

/// The longest token that is read, in bytes; a gateway takes none of more than 16 KiB.
const MOST_BYTES: u64 = 64 * 1024;

const WITHIN: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nobody in particular, for a gateway without an access file; or a client certificate of a proxy on the way.
    None,
    /// An API key, or a token that is at hand.
    Bearer(Secret),
    /// A file with a token, which somebody replaces before it ends: it is read for each call.
    File(PathBuf),
    /// GitHub Actions: a token is asked for before each call, since it ends after some minutes.
    GitHub {
        /// Where.
        url: String,
        /// The right to do so.
        request_token: Secret,
        /// For whom the token is.
        audience: String,
    },
}

/// Why there are no credentials to call with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// They hold characters that cannot be sent.
    #[error("the {0} cannot be sent: it has characters that no credential has")]
    Unsendable(&'static str),
    /// The file cannot be used.
    #[error("the token in `{path}` cannot be read: {detail}")]
    File {
        /// The file.
        path: String,
        /// Why.
        detail: String,
    },
    /// GitHub gives no token.
    #[error("GitHub Actions gives no token: {0}; the job needs `permissions: {{ id-token: write }}`")]
    GitHub(String),
}

impl Credentials {
    /// The first of: `COUNTERSIGN_API_KEY`; `COUNTERSIGN_ID_TOKEN`, as GitLab's `id_tokens` set it;
    /// `COUNTERSIGN_ID_TOKEN_FILE`; GitHub's token, where a job may have one.
    #[must_use]
    pub fn find(environment: &Environment, audience: &str) -> Credentials {
        for name in ["COUNTERSIGN_API_KEY", "COUNTERSIGN_ID_TOKEN"] {
            if let Some(value) = environment.get(name) {
                return Credentials::Bearer(Secret::new(value.trim()));
            }
        }
        if let Some(path) = environment.get("COUNTERSIGN_ID_TOKEN_FILE") {
            return Credentials::File(path.into());
        }
        let url = environment.get("ACTIONS_ID_TOKEN_REQUEST_URL");
        match (url, environment.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")) {
            (Some(url), Some(token)) => Credentials::GitHub {
                url: url.to_owned(),
                request_token: Secret::new(token),
                audience: audience.to_owned(),
            },
            _ => Credentials::None,
        }
    }

    /// The header for one call.
    pub(crate) async fn header(&self) -> Result<Option<HeaderValue>, CredentialsError> {
        match self {
            Credentials::None => Ok(None),
            Credentials::Bearer(secret) => {
                bearer(secret.expose()).map(Some).ok_or(CredentialsError::Unsendable("API key or token"))
            }
            Credentials::File(path) => {
                let wrong =
                    |detail: String| CredentialsError::File { path: path.display().to_string(), detail };
                let token = read(path.clone()).await.map_err(wrong)?;
                bearer(token.expose()).map(Some).ok_or(CredentialsError::Unsendable("token in the file"))
            }
            Credentials::GitHub { url, request_token, audience } => {
                let token = github(url, request_token, audience).await.map_err(CredentialsError::GitHub)?;
                bearer(token.expose()).map(Some).ok_or(CredentialsError::Unsendable("token of GitHub"))
            }
        }
    }
}

async fn read(path: PathBuf) -> Result<Secret, String> {
    let reading = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(MOST_BYTES).read_to_string(&mut text)?;
        std::io::Result::Ok(Secret::new(text.trim()))
    });
    reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

async fn github(url: &str, request_token: &Secret, audience: &str) -> Result<Secret, String> {
    let audience: String = byte_serialize(audience.as_bytes()).collect();
    let separator = if url.contains('?') { '&' } else { '?' };
    let uri: Uri = format!("{url}{separator}audience={audience}")
        .parse()
        .map_err(|_| "`ACTIONS_ID_TOKEN_REQUEST_URL` is no URL".to_owned())?;
    let trust = match (uri.scheme_str(), uri.host()) {
        (Some("https"), _) => Trust::System,
        (Some("http"), Some(host)) if is_loopback(host) => Trust::Nobody,
        _ => return Err("`ACTIONS_ID_TOKEN_REQUEST_URL` is not an `https` URL".to_owned()),
    };
    let http =
        tokio::task::spawn_blocking(move || Http::new(trust)).await.map_err(|error| error.to_string())?;
    let http = http.map_err(|error| error.to_string())?;
    let authorization = bearer(request_token.expose()).ok_or("its request token cannot be sent")?;
    let call = Call { url: &uri, body: None, authorization: Some(authorization), headers: Vec::new() };
    let reply = http.send(call, WITHIN).await.map_err(|error| error.to_string())?;
    if reply.status != 200 {
        return Err(format!("{} answers with {}", host(&uri), reply.status));
    }
    let answer = json::parse(&reply.body).map_err(|_| format!("{} answers with no JSON", host(&uri)))?;
    let token = answer.get("value").and_then(serde_json::Value::as_str);
    Ok(Secret::new(token.ok_or_else(|| format!("the answer of {} has no `value`", host(&uri)))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_in_this_order() {
        let all = [
            ("COUNTERSIGN_API_KEY", "key"),
            ("COUNTERSIGN_ID_TOKEN", "token"),
            ("COUNTERSIGN_ID_TOKEN_FILE", "/file"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://github.example/?a=b"),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "right"),
        ];
        let of = |variables: &[(&str, &str)]| {
            let variables =
                variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            match Credentials::find(&Environment::new(variables), "gate") {
                Credentials::None => "none".to_owned(),
                Credentials::Bearer(secret) => String::from_utf8(secret.expose().to_vec()).unwrap(),
                Credentials::File(path) => path.display().to_string(),
                Credentials::GitHub { url, audience, .. } => format!("{url} {audience}"),
            }
        };
        let found: Vec<String> = (0..=all.len()).map(|n| of(&all[n..])).collect();
        assert_eq!(found, ["key", "token", "/file", "https://github.example/?a=b gate", "none", "none"]);
        assert_eq!(of(&[("COUNTERSIGN_API_KEY", ""), ("COUNTERSIGN_ID_TOKEN", "token\n")]), "token");
    }

    #[tokio::test]
    async fn a_credential_that_would_change_the_call_is_not_sent() {
        for wrong in ["a\nb", "a\u{7f}"] {
            let credentials = Credentials::Bearer(Secret::new(wrong));
            assert!(matches!(credentials.header().await, Err(CredentialsError::Unsendable(_))), "{wrong:?}");
        }
        let missing = Credentials::File("/nonexistent/token".into());
        assert!(matches!(missing.header().await, Err(CredentialsError::File { .. })));
    }
}
