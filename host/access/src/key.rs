//! API keys: what a caller shows that has no token of an identity provider.

use std::fmt;

use countersign_core::lifecycle::Digest;
use zeroize::Zeroizing;

/// What every key begins with, so that secret scanners find one that was committed: `cs_` and 64 hexadecimal digits.
pub const PREFIX: &str = "cs_";

const SECRET_BYTES: usize = 32;

/// An API key. It is shown once, when it is made; what is kept of it is its digest.
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// A new key of 256 random bits.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn generate() -> Result<ApiKey, getrandom::Error> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut *secret)?;
        Ok(ApiKey(Zeroizing::new(format!("{PREFIX}{}", *Zeroizing::new(hex::encode(*secret))))))
    }

    /// Whether a bearer token has the form of a key. It says nothing of whether it is one.
    #[must_use]
    pub fn is_one(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// The key itself, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the access file keeps of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// SHA-256 of a key. A key has 256 random bits, so its digest cannot be turned back by trying.
#[must_use]
pub(crate) fn digest(key: &str) -> Digest {
    Digest::of(key.as_bytes())
}

/// A text without what could be a key or its digest: runs of as many hexadecimal digits.
#[must_use]
pub(crate) fn hidden(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_hex = first.is_ascii_hexdigit();
        let end = rest.find(|c: char| c.is_ascii_hexdigit() != is_hex).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        shown.push_str(if is_hex && run.len() >= 2 * SECRET_BYTES { "…" } else { run });
        rest = after;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_be_found_by_scanners_and_is_not_logged() {
        let key = ApiKey::generate().unwrap();
        let secret = key.reveal().strip_prefix("cs_").unwrap();
        assert!(secret.len() == 64 && secret.bytes().all(|digit| digit.is_ascii_hexdigit()), "{secret}");
        assert_eq!(format!("{key:?}"), "ApiKey(…)");
        assert_eq!(key.digest(), Digest::of(key.reveal().as_bytes()));
        assert_ne!(ApiKey::generate().unwrap().reveal(), key.reveal());
    }

    #[test]
    fn a_key_and_its_digest_are_hidden_in_a_text() {
        let key = ApiKey::generate().unwrap();
        let text = format!("`{}` and {} are not “shown”, deadbeef is", key.reveal(), key.digest());
        assert_eq!(hidden(&text), "`cs_…` and … are not “shown”, deadbeef is");
        for text in ["", "é", "abc", "…"] {
            assert_eq!(hidden(text), text);
        }
    }

    #[test]
    fn a_bearer_is_told_apart_by_its_form() {
        for (token, expected) in
            [("cs_00", true), ("req_00.x", false), ("eyJhbGciOi.x.y", false), ("", false)]
        {
            assert_eq!(ApiKey::is_one(token), expected, "{token}");
        }
    }
}
