//! The payload hash, as a caller computes it from the published rule, independent of the gateway's code.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// SHA-256 of the canonical JSON that maps each key of `params` to the SHA-256 of its canonical value.
///
/// Only for values whose numbers are small integers and whose keys are ASCII: for these, the output of serde_json
/// with sorted keys is canonical (RFC 8785).
///
/// # Panics
/// If `params` is not an object.
#[must_use]
pub fn payload_hash(params: &Value) -> String {
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
