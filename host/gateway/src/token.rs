//! Wait tokens: what a caller holds to learn, and to take back, its own request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use countersign_core::lifecycle::{Digest, Request, RequestId};

/// Makes and checks wait tokens.
///
/// A token is `<request id>.<256 bits>`, the bits an HMAC of the id under the server secret.
/// So a repeated create can answer with the same token although only its SHA-256 is stored,
/// and a request is found by its id, not by trying tokens.
#[derive(Clone)]
pub struct Tokens {
    secret: [u8; 32],
}

/// A wait token. Shown to its caller once; neither logged nor stored.
#[derive(Clone, PartialEq, Eq)]
pub struct WaitToken(String);

impl Tokens {
    /// Tokens under this server secret.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Tokens {
        Tokens { secret }
    }

    /// The token of a request.
    #[must_use]
    pub fn of(&self, id: RequestId) -> WaitToken {
        let mac = keyed(&self.secret, b"countersign wait token", id.to_string().as_bytes());
        WaitToken(format!("{id}.{}", URL_SAFE_NO_PAD.encode(mac)))
    }

    /// The request that a token names. It says nothing yet of whether the token is the right one.
    #[must_use]
    pub fn names(token: &str) -> Option<RequestId> {
        token.split_once('.')?.0.parse().ok()
    }

    /// Whether `token` is the request's, in constant time.
    #[must_use]
    pub fn opens(token: &str, request: &Request) -> bool {
        Digest::of(token.as_bytes()).as_bytes().ct_eq(request.submission.token_hash.as_bytes()).into()
    }
}

impl WaitToken {
    /// The token as its caller gets it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl std::fmt::Debug for WaitToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WaitToken(…)")
    }
}

/// HMAC-SHA256 of `data` under a key derived from `secret` for the purpose `label`.
#[must_use]
pub fn keyed(secret: &[u8; 32], label: &[u8], data: &[u8]) -> [u8; 32] {
    let key = hmac(secret, label);
    hmac(&key, data)
}

fn hmac(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    // HMAC pads a key that is shorter than its block with zeros; padding it here leaves nothing that could fail.
    let block: [u8; 64] = std::array::from_fn(|n| key.get(n).copied().unwrap_or(0));
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(data);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_core::lifecycle::Timestamp;

    #[test]
    fn a_token_names_its_request_and_depends_on_the_secret() {
        let id = RequestId::new(Timestamp::from_millis(1_700_000_000_000), 7, 42);
        let token = Tokens::new([1; 32]).of(id);
        assert_eq!(Tokens::names(token.reveal()), Some(id));
        assert_eq!(token, Tokens::new([1; 32]).of(id));
        assert_ne!(token, Tokens::new([2; 32]).of(id));
        assert_eq!(format!("{token:?}"), "WaitToken(…)");
    }

    /// RFC 4231, test case 1 has a key of 20 bytes; zeros to 32 leave the HMAC as it is.
    #[test]
    fn the_hmac_is_the_standard_one() {
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex::encode(hmac(&key, b"Hi There")), expected);
    }

    #[test]
    fn a_broken_token_names_nothing() {
        for text in ["", ".", "req_", "req_0000.x", "é.é", &".".repeat(10_000)] {
            assert_eq!(Tokens::names(text), None, "{text}");
        }
    }
}
