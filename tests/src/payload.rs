//! The payload hash, as a caller computes it from the published rule, independent of the gateway's code.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The payload hash, version 2, of `params`, with the salt in `answer`: SHA-256 of the canonical JSON that maps each key to
/// the HMAC-SHA-256 of its canonical value under the salt.
///
/// Only for values whose numbers are small integers and whose keys are ASCII: for these, the output of serde_json
/// with sorted keys is canonical (RFC 8785).
///
/// # Panics
/// If `params` is not an object, or the answer has no salt.
#[must_use]
pub fn payload_hash(answer: &Value, params: &Value) -> String {
    assert_eq!(answer["payloadHashVersion"], 2, "{answer}");
    let salt = answer["payloadSalt"].as_str().and_then(|salt| hex::decode(salt).ok());
    let salt = salt.unwrap_or_else(|| panic!("no salt: {answer}"));
    let params = params.as_object().expect("parameters are an object");
    let commit = |value: &Value| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&salt).expect("a key may have any length");
        mac.update(sorted(value).to_string().as_bytes());
        Value::from(hex::encode(mac.finalize().into_bytes()))
    };
    let commitments = params.iter().map(|(key, value)| (key.clone(), commit(value)));
    sha256(&sorted(&Value::Object(commitments.collect())))
}

/// The payload hash, version 1, of `params`: the same with the SHA-256 of each value, and no salt.
///
/// # Panics
/// As [`payload_hash`].
#[must_use]
pub fn unsalted_payload_hash(params: &Value) -> String {
    let params = params.as_object().expect("parameters are an object");
    let digests = params.iter().map(|(key, value)| (key.clone(), Value::from(sha256(&sorted(value)))));
    sha256(&sorted(&Value::Object(digests.collect())))
}

fn sha256(value: &Value) -> String {
    hex::encode(Sha256::digest(value.to_string().as_bytes()))
}

/// The same value with the keys of its objects in order, whether or not serde_json keeps them so by itself.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}
