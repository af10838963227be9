//! Verifies that an HTTP request comes from Slack: its signature, and the signature's age.

use countersign_core::lifecycle::{Digest, Timestamp};
use countersign_core::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The largest difference between a signature's timestamp and our clock, in either direction, in milliseconds.
pub const MAX_SKEW_MS: u64 = 300_000;

/// How much longer a signature is remembered than it is valid, in milliseconds, in case a clock is wrong.
const REMEMBER_MS: u64 = 300_000;

/// Why a request does not count as one from Slack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signature is missing, malformed, or made with another secret.
    #[error("the request is not signed by Slack")]
    Bad,
    /// Its timestamp is more than 300 s from now.
    #[error("the request was signed more than 300 s from now")]
    Stale,
    /// The signature was used before.
    #[error("the request came before")]
    Replay,
}

impl SignatureError {
    /// A stable code for machines.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            SignatureError::Bad => "bad_signature",
            SignatureError::Stale => "stale_signature",
            SignatureError::Replay => "replay_detected",
        }
    }
}

/// Verifies signatures.
pub struct Verifier {
    key: Hmac<Sha256>,
}

/// A valid and recent signature. It may still be a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Identifies the signature.
    pub nonce: Digest,
    /// Until when it must be remembered, to detect a replay.
    pub remember_until: Timestamp,
}

impl Verifier {
    /// A verifier with Slack's signing secret. `None` if the secret cannot be a key.
    #[must_use]
    pub fn new(secret: &Secret) -> Option<Verifier> {
        // HMAC takes keys of any length, although the type says that it may refuse one.
        Some(Verifier { key: Hmac::new_from_slice(secret.expose()).ok()? })
    }

    /// Verifies the headers `X-Slack-Request-Timestamp` and `X-Slack-Signature` against the body as it was received.
    ///
    /// # Errors
    /// [`SignatureError::Bad`] before [`SignatureError::Stale`], so that nobody but Slack can probe our clock.
    pub fn check(
        &self,
        timestamp: Option<&str>,
        signature: Option<&str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Signed, SignatureError> {
        let timestamp = timestamp.ok_or(SignatureError::Bad)?;
        let digits = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let seconds: u64 = timestamp.parse().ok().filter(|_| digits).ok_or(SignatureError::Bad)?;
        let signature = decode(signature.ok_or(SignatureError::Bad)?).ok_or(SignatureError::Bad)?;
        let mac = absorb(self.key.clone(), timestamp, body);
        mac.verify_slice(&signature).map_err(|_| SignatureError::Bad)?;

        let signed_at = Timestamp::from_millis(seconds.saturating_mul(1000));
        if now.since(signed_at).max(signed_at.since(now)) > MAX_SKEW_MS {
            return Err(SignatureError::Stale);
        }
        Ok(Signed {
            nonce: Digest::of(&[b"slack signature ", signature.as_slice()].concat()),
            remember_until: signed_at.plus(MAX_SKEW_MS + REMEMBER_MS),
        })
    }
}

/// Signs a body as Slack does, for tests and for `countersign dev`. `None` if the secret cannot be a key.
#[must_use]
pub fn sign(secret: &Secret, timestamp: &str, body: &[u8]) -> Option<String> {
    let key = Hmac::<Sha256>::new_from_slice(secret.expose()).ok()?;
    Some(format!("v0={}", hex::encode(absorb(key, timestamp, body).finalize().into_bytes())))
}

fn absorb(mut mac: Hmac<Sha256>, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    for part in [b"v0:", timestamp.as_bytes(), b":", body] {
        mac.update(part);
    }
    mac
}

/// Decodes `v0=` and 64 lower-case hexadecimal digits.
fn decode(signature: &str) -> Option<[u8; 32]> {
    let digits = signature.strip_prefix("v0=")?;
    if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in Slack's documentation.
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const AT: &str = "1531420618";
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn check(at: &str, signature: &str, body: &str, now_s: u64) -> Result<Signed, SignatureError> {
        let verifier = Verifier::new(&Secret::new(SECRET)).unwrap();
        verifier.check(Some(at), Some(signature), body.as_bytes(), Timestamp::from_millis(now_s * 1000))
    }

    #[test]
    fn slacks_own_example_is_accepted() {
        assert!(check(AT, SIGNATURE, BODY, 1_531_420_618).is_ok());
        assert_eq!(sign(&Secret::new(SECRET), AT, BODY.as_bytes()).as_deref(), Some(SIGNATURE));
    }

    #[test]
    fn no_other_signature_is_accepted() {
        let upper = format!("v0={}", SIGNATURE["v0=".len()..].to_uppercase());
        let longer = format!("{SIGNATURE}00");
        let spaced = format!(" {SIGNATURE}");
        let signatures = ["", "v0=", &SIGNATURE[..66], &SIGNATURE[3..], &upper, &longer, &spaced, "v0=zz"];
        for signature in signatures {
            assert_eq!(check(AT, signature, BODY, 1_531_420_618), Err(SignatureError::Bad), "{signature}");
        }
        for at in ["", "1531420619", "+1531420618", " 1531420618", "1531420618.0", "99999999999999999999"] {
            assert_eq!(check(at, SIGNATURE, BODY, 1_531_420_618), Err(SignatureError::Bad), "{at}");
        }
        assert_eq!(check(AT, SIGNATURE, "payload=x", 1_531_420_618), Err(SignatureError::Bad));
        let verifier = Verifier::new(&Secret::new("another secret")).unwrap();
        let now = Timestamp::from_millis(1_531_420_618_000);
        assert_eq!(verifier.check(Some(AT), Some(SIGNATURE), BODY.as_bytes(), now), Err(SignatureError::Bad));
        assert_eq!(verifier.check(None, Some(SIGNATURE), BODY.as_bytes(), now), Err(SignatureError::Bad));
        assert_eq!(verifier.check(Some(AT), None, BODY.as_bytes(), now), Err(SignatureError::Bad));
    }

    #[test]
    fn a_signature_is_valid_for_five_minutes_either_way() {
        let at = 1_531_420_618;
        for now in [at - 300, at, at + 300] {
            let signed = check(AT, SIGNATURE, BODY, now).unwrap();
            // Remembered for longer than it is valid.
            assert!(signed.remember_until.as_millis() > (at + 300) * 1000);
        }
        for now in [at - 301, at + 301, 0] {
            assert_eq!(check(AT, SIGNATURE, BODY, now), Err(SignatureError::Stale), "{now}");
        }
        // The signature comes first: a stale forgery is a forgery.
        assert_eq!(check(AT, &SIGNATURE.replace('a', "b"), BODY, 0), Err(SignatureError::Bad));
    }
}
