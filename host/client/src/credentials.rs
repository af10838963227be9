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
use crate::error::CallError;
use crate::http::{Call, Http, Trust, bearer, host};

/// The longest token that is read, in bytes; a gateway takes none of more than 16 KiB.
const MOST_BYTES: u64 = 64 * 1024;

const WITHIN: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nobody in particular, for a gateway without an access file; or a client certificate of a proxy on the way.
    None,
    /// The same, since none were found; and what would have given some, for whoever is asked for them.
    Missing(String),
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
        /// A variable with a proxy, which is not used.
        unused_proxy: Option<&'static str>,
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
                unused_proxy: environment.unused_proxy(),
            },
            _ => Credentials::Missing(missing(environment, audience)),
        }
    }

    /// An error of a call that was made with them: a refusal for want of credentials says what would have given some.
    pub(crate) fn hinted(&self, error: CallError) -> CallError {
        match (self, error) {
            (Credentials::Missing(hint), CallError::Refused(mut problem)) if problem.status == 401 => {
                problem.detail = format!("{}; {hint}", problem.detail);
                CallError::Refused(problem)
            }
            (_, error) => error,
        }
    }

    /// The header for one call.
    pub(crate) async fn header(&self) -> Result<Option<HeaderValue>, CredentialsError> {
        match self {
            Credentials::None | Credentials::Missing(_) => Ok(None),
            Credentials::Bearer(secret) => {
                bearer(secret.expose()).map(Some).ok_or(CredentialsError::Unsendable("API key or token"))
            }
            Credentials::File(path) => {
                let wrong =
                    |detail: String| CredentialsError::File { path: path.display().to_string(), detail };
                let token = read(path.clone()).await.map_err(wrong)?;
                bearer(token.expose()).map(Some).ok_or(CredentialsError::Unsendable("token in the file"))
            }
            Credentials::GitHub { url, request_token, audience, unused_proxy } => {
                let token = github(url, request_token, audience, *unused_proxy).await;
                let token = token.map_err(CredentialsError::GitHub)?;
                bearer(token.expose()).map(Some).ok_or(CredentialsError::Unsendable("token of GitHub"))
            }
        }
    }
}

/// What would have given credentials where there are none.
fn missing(environment: &Environment, audience: &str) -> String {
    const NEITHER: &str = "the job has neither `COUNTERSIGN_API_KEY` nor a token, for which it needs";
    if environment.get("GITHUB_ACTIONS").is_some() {
        return format!("{NEITHER} `permissions: {{ id-token: write }}`");
    }
    if environment.get("GITLAB_CI").is_some() {
        return format!("{NEITHER} `id_tokens: {{ COUNTERSIGN_ID_TOKEN: {{ aud: {audience} }} }}`");
    }
    "`COUNTERSIGN_API_KEY` is not set".to_owned()
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

async fn github(
    url: &str,
    request_token: &Secret,
    audience: &str,
    unused_proxy: Option<&'static str>,
) -> Result<Secret, String> {
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
    let http = tokio::task::spawn_blocking(move || Http::new(trust, unused_proxy)).await;
    let http = http.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
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
    use crate::error::Problem;

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
                Credentials::None | Credentials::Missing(_) => "none".to_owned(),
                Credentials::Bearer(secret) => String::from_utf8(secret.expose().to_vec()).unwrap(),
                Credentials::File(path) => path.display().to_string(),
                Credentials::GitHub { url, audience, .. } => format!("{url} {audience}"),
            }
        };
        let found: Vec<String> = (0..=all.len()).map(|n| of(&all[n..])).collect();
        assert_eq!(found, ["key", "token", "/file", "https://github.example/?a=b gate", "none", "none"]);
        assert_eq!(of(&[("COUNTERSIGN_API_KEY", ""), ("COUNTERSIGN_ID_TOKEN", "token\n")]), "token");
    }

    /// Only for whoever has sent none: other credentials are wrong for another reason.
    #[test]
    fn a_refusal_for_want_of_credentials_says_what_would_have_given_some() {
        let refused = |status| {
            CallError::Refused(Box::new(Problem {
                status,
                error: "unauthenticated".to_owned(),
                detail: "say who you are".to_owned(),
                errors: Vec::new(),
                reasons: Vec::new(),
                differing: Vec::new(),
            }))
        };
        let github = ("GITHUB_ACTIONS", "true");
        for (variables, status, expected) in [
            (&[github][..], 401, Some("`permissions: { id-token: write }`")),
            (&[("GITLAB_CI", "true")], 401, Some("`id_tokens: { COUNTERSIGN_ID_TOKEN: { aud: gate } }`")),
            (&[], 401, Some("`COUNTERSIGN_API_KEY` is not set")),
            (&[github], 403, None),
            (&[github, ("COUNTERSIGN_API_KEY", "cs_00")], 401, None),
            (&[github, ("COUNTERSIGN_ID_TOKEN", "a.b.c")], 401, None),
            (
                &[("ACTIONS_ID_TOKEN_REQUEST_URL", "https://x"), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "y")],
                401,
                None,
            ),
        ] {
            let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let credentials = Credentials::find(&Environment::new(owned.collect()), "gate");
            let said = credentials.hinted(refused(status)).to_string();
            match expected {
                Some(hint) => assert!(
                    said.starts_with("unauthenticated: say who you are; ") && said.ends_with(hint),
                    "{said}"
                ),
                None => assert_eq!(said, refused(status).to_string(), "{variables:?}"),
            }
        }
        let away = CallError::Nonsense("html".to_owned());
        assert_eq!(Credentials::Missing("hint".to_owned()).hinted(away.clone()), away);
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
