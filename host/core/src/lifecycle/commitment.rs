//! What stands for the values of parameters in a payload hash.
//!
//! In version 2 that is an HMAC under a salt that each request has for itself, so that whoever sees the hash cannot find
//! hidden values by trying them. docs/PAYLOAD-HASH.md is the definition.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::digest::{Digest, canonical, parameter_digests, payload_hash};
use crate::mac::hmac;

/// How a payload hash is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum PayloadHashVersion {
    /// From the SHA-256 of each value. Requests that were made before there were salts keep it to their end.
    #[default]
    One,
    /// From the HMAC-SHA-256 of each value under the request's salt.
    Two,
}

impl PayloadHashVersion {
    /// Whether it is the version of requests that say none.
    #[must_use]
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn is_first(&self) -> bool {
        *self == PayloadHashVersion::One
    }
}

impl From<PayloadHashVersion> for u8 {
    fn from(version: PayloadHashVersion) -> u8 {
        match version {
            PayloadHashVersion::One => 1,
            PayloadHashVersion::Two => 2,
        }
    }
}

/// A number that is no version of the payload hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no version of the payload hash: `{0}`")]
pub struct BadVersion(u8);

impl TryFrom<u8> for PayloadHashVersion {
    type Error = BadVersion;

    fn try_from(number: u8) -> Result<PayloadHashVersion, BadVersion> {
        match number {
            1 => Ok(PayloadHashVersion::One),
            2 => Ok(PayloadHashVersion::Two),
            other => Err(BadVersion(other)),
        }
    }
}

/// The salt of one request: with it, and only with it, values can be compared with their commitments.
#[derive(Clone)]
pub struct Salt(Zeroizing<[u8; 32]>);

impl Salt {
    /// A salt of these bytes, which must be random.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Salt {
        Salt(Zeroizing::new(bytes))
    }

    /// The commitment to a value: the HMAC-SHA-256 of its canonical JSON under the salt.
    #[must_use]
    pub fn commit(&self, value: &Value) -> Digest {
        Digest::from_bytes(hmac(&self.0, canonical(value).as_bytes()))
    }

    /// The bytes themselves, to encrypt them, and for the holder of the wait token.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A text that is no salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the salt is not 32 bytes in hexadecimal")]
pub struct BadSalt;

/// Reads a salt as callers are given it: 64 hexadecimal digits.
impl std::str::FromStr for Salt {
    type Err = BadSalt;

    fn from_str(text: &str) -> Result<Salt, BadSalt> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, bytes.as_mut()).map_err(|_| BadSalt)?;
        Ok(Salt(bytes))
    }
}

/// The payload hash of parameters that are all at hand; `None` if version 2 lacks its salt.
#[must_use]
pub fn payload_hash_of(
    params: &Map<String, Value>,
    version: PayloadHashVersion,
    salt: Option<&Salt>,
) -> Option<Digest> {
    let digests = match (version, salt) {
        (PayloadHashVersion::One, _) => parameter_digests(params),
        (PayloadHashVersion::Two, Some(salt)) => {
            params.iter().map(|(key, value)| (key.clone(), salt.commit(value))).collect()
        }
        (PayloadHashVersion::Two, None) => return None,
    };
    Some(payload_hash(&digests))
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// A salt as it is stored: encrypted under a key that is not in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedSalt {
    /// The id of the key, which says nothing of it.
    pub key: String,
    /// The encrypted salt, with all that it takes to decrypt it but the key.
    pub sealed: Vec<u8>,
}

/// What stands for the values of a new request's parameters, hidden ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commitments {
    /// How they were made.
    pub version: PayloadHashVersion,
    /// What stands for each value, by parameter.
    pub digests: BTreeMap<String, Digest>,
    /// The salt that they were made with.
    pub salt: Option<WrappedSalt>,
}

impl Commitments {
    /// Those of version 1, which need no salt.
    #[must_use]
    pub fn unsalted(params: &Map<String, Value>) -> Commitments {
        Commitments { version: PayloadHashVersion::One, digests: parameter_digests(params), salt: None }
    }

    /// Those of version 2. `wrapped` is the same salt, as it is to be stored.
    #[must_use]
    pub fn salted(params: &Map<String, Value>, salt: &Salt, wrapped: WrappedSalt) -> Commitments {
        Commitments {
            version: PayloadHashVersion::Two,
            digests: params.iter().map(|(key, value)| (key.clone(), salt.commit(value))).collect(),
            salt: Some(wrapped),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_salt_is_not_shown() {
        let salt = Salt::new([7; 32]);
        assert_eq!(format!("{salt:?}"), "Salt(…)");
    }

    #[test]
    fn commitments_depend_on_the_salt_and_on_the_value() {
        let (one, other) = (Salt::new([1; 32]), Salt::new([2; 32]));
        let value = json!({"b": 1, "a": 2});
        assert_eq!(one.commit(&value), one.commit(&json!({"a": 2, "b": 1})));
        assert_ne!(one.commit(&value), other.commit(&value));
        assert_ne!(one.commit(&value), one.commit(&json!({"a": 2})));
        assert_ne!(one.commit(&value), Digest::of_json(&value));
    }

    #[test]
    fn a_version_is_a_number() {
        for (version, text) in [(PayloadHashVersion::One, "1"), (PayloadHashVersion::Two, "2")] {
            assert_eq!(serde_json::to_string(&version).unwrap(), text);
            assert_eq!(serde_json::from_str::<PayloadHashVersion>(text).unwrap(), version);
        }
        for text in ["0", "3", "-1", "\"2\"", "null"] {
            assert!(serde_json::from_str::<PayloadHashVersion>(text).is_err(), "{text}");
        }
    }
}
