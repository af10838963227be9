//! SHA-256 digests, and canonical JSON to take them of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl utoipa::PartialSchema for Digest {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .description(Some("A SHA-256 digest, in hexadecimal."))
            .pattern(Some("^[0-9a-f]{64}$"))
            .examples(["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"])
            .into()
    }
}

impl utoipa::ToSchema for Digest {}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest of the canonical JSON (RFC 8785) of `value`.
    #[must_use]
    pub fn of_json(value: &Value) -> Digest {
        Digest::of(canonical(value).as_bytes())
    }

    /// A digest that was kept as raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The shard that something known by this digest alone belongs to, as a request does by its id.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        let [high, low, ..] = *self.as_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// Takes the digest of bytes that come in parts.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds a part.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all parts so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
    }
}

/// Canonical JSON (RFC 8785) of `value`.
#[must_use]
pub fn canonical(value: &Value) -> String {
    if is_written_canonically(value) {
        return value.to_string();
    }
    // A `Value` has string keys and finite numbers only, which is all that the serializer could refuse.
    serde_json_canonicalizer::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// Whether serde_json writes a value as RFC 8785 wants it, which most are: it escapes strings alike, so that leaves the order
/// of keys, and numbers that are not small integers. It writes a value several times as fast as what handles all of them.
fn is_written_canonically(value: &Value) -> bool {
    /// The largest integer that is the same in all implementations.
    const LARGEST: u64 = (1 << 53) - 1;
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => {
            number.as_i64().map(i64::unsigned_abs).or(number.as_u64()).is_some_and(|size| size <= LARGEST)
        }
        Value::Array(items) => items.iter().all(is_written_canonically),
        Value::Object(members) => {
            // The order of ASCII is the same in bytes and in UTF-16.
            members.keys().all(|key| key.is_ascii())
                && members.keys().is_sorted()
                && members.values().all(is_written_canonically)
        }
    }
}

/// The digest of each top-level parameter's canonical value: what version 1 of the payload hash is made of.
#[must_use]
pub fn parameter_digests(params: &Map<String, Value>) -> std::collections::BTreeMap<String, Digest> {
    params.iter().map(|(key, value)| (key.clone(), Digest::of_json(value))).collect()
}

/// The hash of a payload: SHA-256 of the canonical object that maps each top-level key to the hexadecimal digest that
/// stands for its value: in version 1 its SHA-256, in version 2 its commitment. It can be computed without knowing
/// redacted values.
#[must_use]
pub fn payload_hash(digests: &std::collections::BTreeMap<String, Digest>) -> Digest {
    let object =
        digests.iter().map(|(key, digest)| (key.clone(), Value::String(digest.to_string()))).collect();
    Digest::of_json(&Value::Object(object))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is no SHA-256 digest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 digest: it should be 64 hexadecimal digits in lower case")]
pub struct BadDigest;

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Digest, BadDigest> {
        if text.bytes().any(|letter| letter.is_ascii_uppercase()) {
            return Err(BadDigest);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| BadDigest)?;
        Ok(Digest(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_digest_has_one_spelling() {
        let text = Digest::of(b"").to_string();
        assert_eq!(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(text.parse(), Ok(Digest::of(b"")));
        for other in [text.to_uppercase(), text.replacen('e', "", 1), format!("sha256:{text}"), String::new()]
        {
            assert_eq!(other.parse::<Digest>(), Err(BadDigest), "{other}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let integer =
            prop_oneof![any::<i64>(), -9_007_199_254_740_993..=9_007_199_254_740_993_i64, -9..9_i64];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            integer.prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\\x00-\\x7f\u{e9}\u{2028}\u{ffff}\u{1f600}]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            let key = "[a-zA-Z\"\\\\\\x00-\\x1f\\x7f\u{e9}\u{e000}\u{1f600}]{0,4}";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_json_is_that_of_the_library(value in any_value()) {
            prop_assert_eq!(canonical(&value), serde_json_canonicalizer::to_string(&value).unwrap());
        }
    }

    #[test]
    fn what_serde_json_writes_otherwise_is_left_to_the_library() {
        for (value, written) in [
            (json!({ "\u{1f600}": 1, "\u{e000}": 2 }), "{\"\u{1f600}\":1,\"\u{e000}\":2}"),
            (json!(9_007_199_254_740_993_u64), "9007199254740992"),
            (json!(1e21), "1e+21"),
            (json!(-0.0), "0"),
            (json!(5.0), "5"),
            (json!({ "b": [-3, "\u{7f}\u{1f}/"], "a": null }), "{\"a\":null,\"b\":[-3,\"\u{7f}\\u001f/\"]}"),
        ] {
            assert_eq!(canonical(&value), written);
        }
    }
}
