//! The hash of a request: written from the projection, and parsed from the body.

use std::sync::Arc;

use countersign_core::lifecycle::{Digest, Request, RequestId, Status, WrappedSalt};
use redis::Value;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::reply::{Place, json, millis};
use crate::StoreError;
use crate::projection::Projection;

/// The fields that a request is read from, in this order.
pub(super) const FIELDS: [&str; 5] = ["v", "c", "body", "sk", "salt"];

/// What open requests are counted by. Its JSON is a field of the gauges.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kind {
    pub(super) action: String,
    pub(super) status: String,
    pub(super) waits_for: Vec<String>,
    pub(super) policy: Digest,
}

/// Appends what of a version is indexed: its kind and due time, which are empty if it has ended, and when it came about; and
/// its status if it has ended, which it keeps.
pub(super) fn append_indexed(call: Call, projection: &Projection<'_>) -> Result<Call, StoreError> {
    let kind = match projection.due_at {
        Some(_) => {
            let waits_for = &projection.waits_for;
            json(&(projection.action, projection.status.as_str(), waits_for, projection.policy_hash))?
        }
        None => String::new(),
    };
    let ended = if projection.due_at.is_none() { projection.status.as_str() } else { "" };
    let call = call.text(&kind).optional(projection.due_at.map(millis));
    Ok(call.number(millis(projection.changed_at)).text(ended))
}

impl Kind {
    pub(super) fn parse(text: &str) -> Result<Kind, StoreError> {
        let place = Place { table: "open", key: &text };
        let (action, status, waits_for, policy) = place.json("kind", text.as_bytes())?;
        Ok(Kind { action, status, waits_for, policy })
    }

    pub(super) fn status(&self) -> Result<Status, StoreError> {
        Place { table: "open", key: &self.action }.variant("status", &self.status)
    }
}

/// A request as it was read, with its body unparsed.
pub(super) struct StoredRequest {
    pub(super) id: RequestId,
    pub(super) version: u64,
    confirmed: u64,
    body: Vec<u8>,
    salt: Option<WrappedSalt>,
}

impl StoredRequest {
    /// From the id and [`FIELDS`].
    pub(super) fn of(row: [Value; 6]) -> Result<StoredRequest, StoreError> {
        let [id, version, confirmed, body, salt_key, salt] = row;
        let id = Place { table: "r", key: &"a request" }.request_id("id", id)?;
        let place = Place { table: "r", key: &id };
        let confirmed = match confirmed {
            Value::Nil => 0,
            number => place.number("c", number)?,
        };
        Ok(StoredRequest {
            id,
            version: place.number("v", version)?,
            confirmed,
            body: place.bytes("body", body)?,
            salt: salt_of(place, salt_key, salt)?,
        })
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed >= self.version
    }

    /// As [`StoredRequest::parse`], with the body as it is stored.
    pub(super) fn parse_with_body(self) -> Result<(Request, String), StoreError> {
        let place = Place { table: "r", key: &self.id };
        let body = String::from_utf8(self.body.clone()).map_err(|error| place.corrupt("body", error))?;
        Ok((self.parse()?, body))
    }

    /// Parses the body, and checks that it belongs to the key.
    pub(super) fn parse(self) -> Result<Request, StoreError> {
        let place = Place { table: "r", key: &self.id };
        let mut request: Request = place.json("body", &self.body)?;
        if request.id != self.id {
            return Err(place.corrupt("body", format_args!("it is the request {}", request.id)));
        }
        if request.version != self.version {
            let detail = format_args!("it has version {}, and the key {}", request.version, self.version);
            return Err(place.corrupt("body", detail));
        }
        Arc::make_mut(&mut request.submission).salt = self.salt;
        Ok(request)
    }
}

/// The salt in the fields `sk` and `salt`, if there is one.
pub(super) fn salt_of(
    place: Place<'_>,
    key: Value,
    sealed: Value,
) -> Result<Option<WrappedSalt>, StoreError> {
    match (place.optional_bytes("sk", key)?, place.optional_bytes("salt", sealed)?) {
        (Some(key), Some(sealed)) => {
            let key = String::from_utf8(key).map_err(|error| place.corrupt("sk", error))?;
            Ok(Some(WrappedSalt { key, sealed }))
        }
        (None, None) => Ok(None),
        _ => Err(place.corrupt("salt", "there is only a part of it")),
    }
}
