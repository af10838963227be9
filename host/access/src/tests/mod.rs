//! What an access file, a key and a token are taken for.

mod admins;
mod authenticating;
mod certificates;
mod docs;
mod explaining;
mod gates;
mod issuer;
mod reading;
mod requesters;
mod webhooks;

use std::path::Path;

use countersign_core::clock::{Moment, Monotonic};
use countersign_core::lifecycle::Timestamp;
use serde_json::{Map, Value, json};

use super::*;

/// Noon of 1 March 2026, UTC.
const NOW: Timestamp = Timestamp::from_millis(1_772_366_400_000);

/// The clocks when the wall clock shows `wall`, if it was never set.
fn at(wall: Timestamp) -> Moment {
    Moment { wall, monotonic: Monotonic::from_millis(wall.as_millis()) }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("no object: {other}"),
    }
}

#[track_caller]
fn read(text: &str) -> Access {
    Access::read(Path::new("access.yaml"), text).unwrap_or_else(|errors| panic!("{errors}"))
}
