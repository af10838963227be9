//! Wait tokens: what a caller holds to learn, and to take back, its own request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use countersign_core::lifecycle::{Digest, Request, RequestId};
use countersign_core::mac::hmac;

/// Makes and checks wait tokens.
///
/// A token is `<request id>.<256 bits>`, the bits an HMAC of the id under a key of the gateway's.
/// So a repeated create can answer with the same token although only its SHA-256 is stored,
/// and a request is found by its id, not by trying tokens.
#[derive(Clone)]
pub struct Tokens {
    current: [u8; 32],
    earlier: Vec<[u8; 32]>,
}

/// A wait token. Shown to its caller once; neither logged nor stored.
#[derive(Clone, PartialEq, Eq)]
pub struct WaitToken(String);

impl Tokens {
    /// New tokens are made with `current`; tokens that were made with one of `earlier` can be made again.
    #[must_use]
    pub fn new(current: [u8; 32], earlier: Vec<[u8; 32]>) -> Tokens {
        Tokens { current, earlier }
    }

    /// The token of a new request.
    #[must_use]
    pub fn of(&self, id: RequestId) -> WaitToken {
        token(&self.current, id)
    }

    /// The token that a request was given; `None` if the key that it was made with is gone.
    #[must_use]
    pub fn again(&self, request: &Request) -> Option<WaitToken> {
        let keys = std::iter::once(&self.current).chain(&self.earlier);
        keys.map(|key| token(key, request.id)).find(|token| Tokens::opens(token.reveal(), request))
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

fn token(key: &[u8; 32], id: RequestId) -> WaitToken {
    WaitToken(format!("{id}.{}", URL_SAFE_NO_PAD.encode(hmac(key, id.to_string().as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_core::lifecycle::Timestamp;

    #[test]
    fn a_token_names_its_request_and_depends_on_the_secret() {
        let id = RequestId::new(Timestamp::from_millis(1_700_000_000_000), 7, 42);
        let token = Tokens::new([1; 32], Vec::new()).of(id);
        assert_eq!(Tokens::names(token.reveal()), Some(id));
        assert_eq!(token, Tokens::new([1; 32], Vec::new()).of(id));
        assert_ne!(token, Tokens::new([2; 32], Vec::new()).of(id));
        assert_eq!(format!("{token:?}"), "WaitToken(…)");
    }

    #[test]
    fn a_token_is_made_again_with_the_key_that_it_was_made_with() {
        let request = countersign_store::fixtures::request(1);
        let with = |key: u8| {
            let mut request = request.clone();
            let mut submission = countersign_core::lifecycle::Submission::clone(&request.submission);
            submission.token_hash = Tokens::new([key; 32], Vec::new()).of(request.id).hash();
            request.submission = std::sync::Arc::new(submission);
            request
        };
        let tokens = Tokens::new([2; 32], vec![[1; 32]]);
        assert_eq!(tokens.again(&with(2)), Some(tokens.of(request.id)));
        assert_eq!(tokens.again(&with(1)), Some(Tokens::new([1; 32], Vec::new()).of(request.id)));
        assert_eq!(tokens.again(&with(3)), None);
    }

    #[test]
    fn a_broken_token_names_nothing() {
        for text in ["", ".", "req_", "req_0000.x", "é.é", &".".repeat(10_000)] {
            assert_eq!(Tokens::names(text), None, "{text}");
        }
    }
}
