//! Reads the answers of Redis. A value that cannot be read is reported with its table, column and key.

use std::fmt::Display;
use std::str::FromStr;

use countersign_core::lifecycle::{Digest, RequestId, Timestamp};
use redis::Value;
use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer};

use super::fault::unavailable;
use crate::{StoreError, StoreFault};

/// Scores are floating-point numbers, which are exact up to here. What is beyond is stored as this; its order no longer
/// matters.
pub(super) const LARGEST: u64 = 1 << 53;

/// A time as it is sent.
pub(super) fn millis(at: Timestamp) -> u64 {
    at.as_millis().min(LARGEST)
}

/// A limit as it is sent.
pub(super) fn limit(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(LARGEST).min(1_000_000_000)
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| unavailable(StoreFault::Other, error))
}

/// What is being read, for error messages.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) table: &'static str,
    pub(super) key: &'a (dyn Display + Sync),
}

impl Place<'_> {
    pub(super) fn corrupt(self, column: &'static str, detail: impl Display) -> StoreError {
        let Place { table, key } = self;
        StoreError::Corrupt { table, column, key: key.to_string(), detail: detail.to_string() }
    }

    pub(super) fn optional_bytes(
        self,
        column: &'static str,
        value: Value,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match value {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::SimpleString(text) => Ok(Some(text.into_bytes())),
            Value::Int(number) => Ok(Some(number.to_string().into_bytes())),
            Value::Okay => Ok(Some(b"OK".to_vec())),
            _ => Err(self.corrupt(column, "it is no text")),
        }
    }

    pub(super) fn bytes(self, column: &'static str, value: Value) -> Result<Vec<u8>, StoreError> {
        self.optional_bytes(column, value)?.ok_or_else(|| self.corrupt(column, "it is missing"))
    }

    pub(super) fn text(self, column: &'static str, value: Value) -> Result<String, StoreError> {
        String::from_utf8(self.bytes(column, value)?).map_err(|error| self.corrupt(column, error))
    }

    /// A value that is stored as its text.
    pub(super) fn parsed<T>(self, column: &'static str, value: Value) -> Result<T, StoreError>
    where
        T: FromStr<Err: Display>,
    {
        self.text(column, value)?.parse().map_err(|error| self.corrupt(column, error))
    }

    pub(super) fn number(self, column: &'static str, value: Value) -> Result<u64, StoreError> {
        self.parsed(column, value)
    }

    pub(super) fn time(self, column: &'static str, value: Value) -> Result<Timestamp, StoreError> {
        self.number(column, value).map(Timestamp::from_millis)
    }

    pub(super) fn request_id(self, column: &'static str, value: Value) -> Result<RequestId, StoreError> {
        self.parsed(column, value)
    }

    pub(super) fn digest(self, column: &'static str, value: Value) -> Result<Digest, StoreError> {
        self.parsed(column, value)
    }

    /// A value of an enum that is stored as its name.
    pub(super) fn variant<T: DeserializeOwned>(
        self,
        column: &'static str,
        name: &str,
    ) -> Result<T, StoreError> {
        let parsed: Result<T, serde::de::value::Error> = T::deserialize(name.into_deserializer());
        parsed.map_err(|error| self.corrupt(column, error))
    }

    pub(super) fn json<T: DeserializeOwned>(
        self,
        column: &'static str,
        text: &[u8],
    ) -> Result<T, StoreError> {
        serde_json::from_slice(text).map_err(|error| self.corrupt(column, error))
    }

    /// The items of a list; none if there is no list.
    pub(super) fn list(self, value: Value) -> Result<Vec<Value>, StoreError> {
        match value {
            Value::Array(items) | Value::Set(items) => Ok(items),
            Value::Nil => Ok(Vec::new()),
            _ => Err(self.corrupt("list", "it is no list")),
        }
    }

    /// A list of so many items.
    pub(super) fn row<const N: usize>(self, value: Value) -> Result<[Value; N], StoreError> {
        self.list(value)?.try_into().map_err(|_| self.corrupt("list", format_args!("it has not {N} items")))
    }
}
