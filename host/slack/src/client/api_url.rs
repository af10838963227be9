//! The base URL of the Web API.

use countersign_core::loopback::is_loopback;
use hyper::Uri;

/// The base URL of Slack's Web API.
pub const DEFAULT_API_URL: &str = "https://slack.com/api";

/// Why a URL cannot be the base URL of the Web API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiUrlError {
    /// It is not a URL such as `https://slack.com/api`.
    #[error("this is a URL such as `https://slack.com/api`, without a query")]
    Malformed,
    /// The token would be sent in the clear.
    #[error(
        "`http` would send the token in the clear; it is for a simulator on this machine only: use `https`"
    )]
    Unencrypted,
}

/// Parses the base URL of the Web API, and removes slashes at its end.
///
/// # Errors
/// If it is malformed, or `http` to another machine.
pub fn api_url(text: &str) -> Result<String, ApiUrlError> {
    let uri: Uri = text.parse().map_err(|_| ApiUrlError::Malformed)?;
    let authority = uri.authority().ok_or(ApiUrlError::Malformed)?;
    if uri.query().is_some() || text.contains('#') || authority.as_str().contains('@') {
        return Err(ApiUrlError::Malformed);
    }
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(authority.host()) => {}
        Some("http") => return Err(ApiUrlError::Unencrypted),
        _ => return Err(ApiUrlError::Malformed),
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_allowed_to_this_machine_only() {
        for (url, expected) in [
            ("https://slack.com/api", Ok("https://slack.com/api")),
            ("https://slack.com/api/", Ok("https://slack.com/api")),
            ("http://127.0.0.1:4000", Ok("http://127.0.0.1:4000")),
            ("http://127.9.9.9:4000/api", Ok("http://127.9.9.9:4000/api")),
            ("http://[::1]:4000/api", Ok("http://[::1]:4000/api")),
            ("http://LOCALHOST/api", Ok("http://LOCALHOST/api")),
            ("http://slack.com/api", Err(ApiUrlError::Unencrypted)),
            ("http://localhost.evil.test/api", Err(ApiUrlError::Unencrypted)),
            ("http://127.0.0.1.evil.test/api", Err(ApiUrlError::Unencrypted)),
            ("http://0.0.0.0:80/api", Err(ApiUrlError::Unencrypted)),
            ("http://127.0.0.1@evil.test/api", Err(ApiUrlError::Malformed)),
            ("https://slack.com/api?token=1", Err(ApiUrlError::Malformed)),
            ("https://slack.com/api#x", Err(ApiUrlError::Malformed)),
            ("ws://127.0.0.1/api", Err(ApiUrlError::Malformed)),
            ("127.0.0.1:4000", Err(ApiUrlError::Malformed)),
            ("/api", Err(ApiUrlError::Malformed)),
            ("", Err(ApiUrlError::Malformed)),
        ] {
            assert_eq!(api_url(url), expected.map(str::to_owned), "{url}");
        }
    }
}
