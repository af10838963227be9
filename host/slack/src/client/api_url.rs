//! Where Slack may be called at.

use hyper::Uri;

use countersign_core::loopback::is_loopback;

/// Where Slack is.
pub const DEFAULT_API_URL: &str = "https://slack.com/api";

/// Why a URL is none that Slack could be called at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadApiUrl {
    /// It is no such URL.
    #[error("this is a URL such as `https://slack.com/api`, without a query")]
    Malformed,
    /// The token would cross a network for everybody to read.
    #[error(
        "`http` would send the token in the clear; it is for a simulator on this machine only: use `https`"
    )]
    Unencrypted,
}

/// The URL, without a slash at its end, where the Web API may be called at it.
///
/// # Errors
/// Where it is malformed, or would send the token over a network in the clear.
pub fn api_url(text: &str) -> Result<String, BadApiUrl> {
    let uri: Uri = text.parse().map_err(|_| BadApiUrl::Malformed)?;
    let authority = uri.authority().ok_or(BadApiUrl::Malformed)?;
    if uri.query().is_some() || text.contains('#') || authority.as_str().contains('@') {
        return Err(BadApiUrl::Malformed);
    }
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(authority.host()) => {}
        Some("http") => return Err(BadApiUrl::Unencrypted),
        _ => return Err(BadApiUrl::Malformed),
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_over_no_network_in_the_clear() {
        for (url, expected) in [
            ("https://slack.com/api", Ok("https://slack.com/api")),
            ("https://slack.com/api/", Ok("https://slack.com/api")),
            ("http://127.0.0.1:4000", Ok("http://127.0.0.1:4000")),
            ("http://127.9.9.9:4000/api", Ok("http://127.9.9.9:4000/api")),
            ("http://[::1]:4000/api", Ok("http://[::1]:4000/api")),
            ("http://LOCALHOST/api", Ok("http://LOCALHOST/api")),
            ("http://slack.com/api", Err(BadApiUrl::Unencrypted)),
            ("http://localhost.evil.test/api", Err(BadApiUrl::Unencrypted)),
            ("http://127.0.0.1.evil.test/api", Err(BadApiUrl::Unencrypted)),
            ("http://0.0.0.0:80/api", Err(BadApiUrl::Unencrypted)),
            ("http://127.0.0.1@evil.test/api", Err(BadApiUrl::Malformed)),
            ("https://slack.com/api?token=1", Err(BadApiUrl::Malformed)),
            ("https://slack.com/api#x", Err(BadApiUrl::Malformed)),
            ("ws://127.0.0.1/api", Err(BadApiUrl::Malformed)),
            ("127.0.0.1:4000", Err(BadApiUrl::Malformed)),
            ("/api", Err(BadApiUrl::Malformed)),
            ("", Err(BadApiUrl::Malformed)),
        ] {
            assert_eq!(api_url(url), expected.map(str::to_owned), "{url}");
        }
    }
}
