//! The base URL of a CI system's API. Every call is made below it, whatever a delivery says.

use std::fmt;

use countersign_core::loopback::is_loopback;
use url::Url;

/// The base URL of an API, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUrl(String);

/// Why a URL cannot be the base URL of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiUrlError {
    /// It is not a URL such as `https://api.github.com`.
    #[error("this is a URL such as `https://api.github.com`, without a user, a query or a fragment")]
    Malformed,
    /// Credentials would be sent in the clear.
    #[error("`http` would send credentials in the clear; it is for this machine only: use `https`")]
    Unencrypted,
}

impl ApiUrl {
    /// Reads a base URL, and removes slashes at its end.
    ///
    /// # Errors
    /// If it is malformed, or `http` to another machine.
    pub fn new(text: &str) -> Result<ApiUrl, ApiUrlError> {
        let url: Url = text.parse().map_err(|_| ApiUrlError::Malformed)?;
        let host = url.host_str().ok_or(ApiUrlError::Malformed)?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            return Err(ApiUrlError::Malformed);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => return Err(ApiUrlError::Unencrypted),
            _ => return Err(ApiUrlError::Malformed),
        }
        Ok(ApiUrl(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The URL with these segments of a path added, each encoded. `None` if one of them is no name, so that the path would
    /// be another one.
    pub(crate) fn with(&self, segments: &[&str]) -> Option<Url> {
        if segments.iter().any(|it| it.is_empty() || matches!(*it, "." | "..")) {
            return None;
        }
        let mut url: Url = self.0.parse().ok()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
        Some(url)
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_allowed_to_this_machine_only() {
        for (url, expected) in [
            ("https://api.github.com", Ok("https://api.github.com")),
            ("https://github.acme.example/api/v3/", Ok("https://github.acme.example/api/v3")),
            ("http://127.0.0.1:4000", Ok("http://127.0.0.1:4000")),
            ("http://[::1]:4000/api/v4", Ok("http://[::1]:4000/api/v4")),
            ("http://gitlab.acme.example/api/v4", Err(ApiUrlError::Unencrypted)),
            ("http://127.0.0.1.evil.test", Err(ApiUrlError::Unencrypted)),
            ("http://127.0.0.1@evil.test", Err(ApiUrlError::Malformed)),
            ("https://api.github.com?x=1", Err(ApiUrlError::Malformed)),
            ("https://api.github.com#x", Err(ApiUrlError::Malformed)),
            ("ws://127.0.0.1", Err(ApiUrlError::Malformed)),
            ("api.github.com", Err(ApiUrlError::Malformed)),
            ("", Err(ApiUrlError::Malformed)),
        ] {
            assert_eq!(ApiUrl::new(url).map(|url| url.to_string()), expected.map(str::to_owned), "{url}");
        }
    }

    #[test]
    fn a_path_stays_below_the_base() {
        let base = ApiUrl::new("https://github.acme.example/api/v3").unwrap();
        let with = |segments: &[&str]| base.with(segments).map(String::from);
        let expected = "https://github.acme.example/api/v3/repos/acme/web";
        assert_eq!(with(&["repos", "acme", "web"]).as_deref(), Some(expected));
        let expected = "https://github.acme.example/api/v3/repos/a%2Fb%3Fc%23d";
        assert_eq!(with(&["repos", "a/b?c#d"]).as_deref(), Some(expected));
        for segments in [&["repos", ".."][..], &["."], &["", "x"]] {
            assert_eq!(with(segments), None, "{segments:?}");
        }
    }
}
