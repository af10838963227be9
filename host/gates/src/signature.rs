//! Verifies that a call comes from a CI system: an HMAC-SHA256 of the body as it was received.

use countersign_core::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Verifies signatures of bodies.
pub struct Verifier {
    key: Hmac<Sha256>,
    /// What comes before the hexadecimal digits: `sha256=`, or nothing.
    prefix: &'static str,
}

impl Verifier {
    /// Verifies GitHub's `X-Hub-Signature-256`. `None` if the secret cannot be a key.
    #[must_use]
    pub fn github(secret: &Secret) -> Option<Verifier> {
        Verifier::new(secret, "sha256=")
    }

    /// Verifies GitLab's `X-Gitlab-Signature`. `None` if the secret cannot be a key.
    #[must_use]
    pub fn gitlab(secret: &Secret) -> Option<Verifier> {
        Verifier::new(secret, "")
    }

    fn new(secret: &Secret, prefix: &'static str) -> Option<Verifier> {
        // HMAC takes keys of any length, although the type says that it may refuse one.
        Some(Verifier { key: Hmac::new_from_slice(secret.expose()).ok()?, prefix })
    }

    /// Whether the signature is one of this body. The comparison takes the same time wherever they differ.
    #[must_use]
    pub fn accepts(&self, signature: Option<&str>, body: &[u8]) -> bool {
        let Some(digits) = signature.and_then(|signature| signature.strip_prefix(self.prefix)) else {
            return false;
        };
        let mut sent = [0; 32];
        if hex::decode_to_slice(digits, &mut sent).is_err() {
            return false;
        }
        let mut mac = self.key.clone();
        mac.update(body);
        mac.verify_slice(&sent).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GitHub's documentation.
    #[test]
    fn the_documented_example_is_accepted() {
        let verifier = Verifier::github(&Secret::new("It's a Secret to Everybody")).unwrap();
        let digits = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let good = format!("sha256={digits}");
        assert!(verifier.accepts(Some(&good), b"Hello, World!"));
        for (signature, body) in [
            (Some(good.as_str()), &b"Hello, World"[..]),
            (Some(digits), b"Hello, World!"),
            (Some("sha256="), b"Hello, World!"),
            (Some("sha1=757107ea0eb2509fc211221cce984b8a37570b6d"), b"Hello, World!"),
            (Some(&good[..good.len() - 2]), b"Hello, World!"),
            (Some(&good.replace('7', "8")), b"Hello, World!"),
            (Some(""), b"Hello, World!"),
            (None, b"Hello, World!"),
        ] {
            assert!(!verifier.accepts(signature, body), "{signature:?}");
        }
        let gitlab = Verifier::gitlab(&Secret::new("It's a Secret to Everybody")).unwrap();
        assert!(gitlab.accepts(Some(digits), b"Hello, World!"));
        assert!(!gitlab.accepts(Some(&good), b"Hello, World!"));
    }
}
