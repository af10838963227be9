//! Where a gateway is.

use std::fmt;

use countersign_core::loopback::is_loopback;
use hyper::Uri;
use hyper::http::uri::{Authority, Scheme};

/// The URL of a gateway: `https`, or `http` of this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct GatewayUrl {
    scheme: Scheme,
    authority: Authority,
    /// What comes before `/api/…`: empty, or a path that begins with `/` and does not end with one.
    prefix: String,
}

/// Why a text is no URL of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no URL, or one with parts that the URL of a gateway does not have.
    #[error("`{0}` is not the URL of a gateway, such as `https://gateway.example`")]
    Malformed(String),
    /// Credentials and decisions would be sent in clear.
    #[error(
        "`{0}` is not encrypted: whoever is on the way reads the credentials and can approve; use `https`, or \
        `--insecure-http` on a network in which you trust everybody"
    )]
    NotEncrypted(String),
}

impl GatewayUrl {
    /// Reads a URL. `insecure` allows `http` to other machines.
    ///
    /// # Errors
    /// If it is malformed, or not encrypted although it has to be.
    pub fn new(text: &str, insecure: bool) -> Result<GatewayUrl, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(malformed());
        };
        let path = parts.path_and_query.filter(|path| path.as_str() != "/");
        let prefix = path.as_ref().map_or("", |path| path.path()).trim_end_matches('/');
        let has_query = path.as_ref().is_some_and(|path| path.query().is_some());
        if authority.as_str().contains('@') || authority.host().is_empty() || has_query || text.contains('#')
        {
            return Err(malformed());
        }
        let url = GatewayUrl { prefix: prefix.to_owned(), scheme, authority };
        if url.scheme == Scheme::HTTPS || (url.scheme == Scheme::HTTP && (insecure || url.is_here())) {
            return Ok(url);
        }
        Err(if url.scheme == Scheme::HTTP {
            AddressError::NotEncrypted(text.to_owned())
        } else {
            malformed()
        })
    }

    /// Whether it is this machine.
    #[must_use]
    pub fn is_here(&self) -> bool {
        is_loopback(self.authority.host())
    }

    /// Whether nobody on the way reads what is sent.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The URL of a route; `None` if it cannot be one.
    pub(crate) fn route(&self, path_and_query: &str) -> Option<Uri> {
        let path = format!("{}{path_and_query}", self.prefix);
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .ok()
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

impl fmt::Debug for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sent_in_clear_to_this_machine_alone() {
        let read = |text, insecure| match GatewayUrl::new(text, insecure) {
            Ok(_) => "ok",
            Err(AddressError::Malformed(_)) => "malformed",
            Err(AddressError::NotEncrypted(_)) => "not encrypted",
        };
        for (text, by_default, insecure) in [
            ("https://gateway.example", "ok", "ok"),
            ("https://gateway.example/gate/", "ok", "ok"),
            ("http://127.0.0.1:8080", "ok", "ok"),
            ("http://[::1]:8080/", "ok", "ok"),
            ("http://localhost", "ok", "ok"),
            ("http://gateway.example", "not encrypted", "ok"),
            ("http://127.0.0.1.example", "not encrypted", "ok"),
            ("http://localhost@gateway.example", "malformed", "malformed"),
            ("https://gateway.example/?a=b", "malformed", "malformed"),
            ("https://gateway.example/#a", "malformed", "malformed"),
            ("ftp://127.0.0.1", "malformed", "malformed"),
            ("127.0.0.1:8080", "malformed", "malformed"),
            ("https://", "malformed", "malformed"),
            ("", "malformed", "malformed"),
        ] {
            assert_eq!((read(text, false), read(text, true)), (by_default, insecure), "{text}");
        }
    }

    #[test]
    fn routes_are_below_the_url() {
        for (text, expected) in [
            ("https://gateway.example", "https://gateway.example/api/guard/wait?timeoutSec=50"),
            ("https://gateway.example/gate/", "https://gateway.example/gate/api/guard/wait?timeoutSec=50"),
        ] {
            let route = GatewayUrl::new(text, false).unwrap().route("/api/guard/wait?timeoutSec=50");
            assert_eq!(route.unwrap().to_string(), expected);
        }
    }
}
