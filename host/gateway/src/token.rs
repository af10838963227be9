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

    /// Keys for another purpose, derived from those that tokens are made with: the current one, and the earlier ones. None
    /// is a part of a token, since tokens are made of ids.
    pub(super) fn derived(&self, purpose: &str) -> ([u8; 32], Vec<[u8; 32]>) {
        let derive = |key: &[u8; 32]| hmac(key, purpose.as_bytes());
        (derive(&self.current), self.earlier.iter().map(derive).collect())
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

    /// Whatever byte of a token is another one, it opens nothing, and nothing panics.
    #[test]
    fn a_changed_token_opens_nothing() {
        let mut request = countersign_store::fixtures::request(1);
        let token = Tokens::new([1; 32], Vec::new()).of(request.id);
        std::sync::Arc::make_mut(&mut request.submission).token_hash = token.hash();
        assert!(Tokens::opens(token.reveal(), &request));
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..5_000 {
            let mut bytes = token.reveal().as_bytes().to_vec();
            for _ in 0..rng.usize(1..4) {
                let place = rng.usize(..bytes.len());
                match rng.u8(..3) {
                    0 => bytes[place] ^= 1 << rng.u8(..8),
                    1 => bytes.insert(place, rng.u8(..)),
                    _ => drop(bytes.remove(place)),
                }
            }
            let changed = String::from_utf8_lossy(&bytes);
            if changed == token.reveal() {
                continue;
            }
            assert!(!Tokens::opens(&changed, &request), "seed {seed}: {changed}");
            // It may name its request, or another one, which it opens as little.
            let _ = Tokens::names(&changed);
        }
    }

    #[test]
    fn a_broken_token_names_nothing() {
        for text in ["", ".", "req_", "req_0000.x", "é.é", &".".repeat(10_000)] {
            assert_eq!(Tokens::names(text), None, "{text}");
        }
    }
}
