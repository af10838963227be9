//! Conversions between Rust values and columns. An unreadable value is reported with its table, column and key.

use std::fmt::Display;

use countersign_core::lifecycle::{Digest, RequestId, Timestamp};
use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row};
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};

use super::BACKEND;
use crate::{StoreError, StoreFault};

/// Which row is being read, for error messages.
#[derive(Clone, Copy)]
pub(super) struct RowContext<'a> {
    pub(super) table: &'static str,
    pub(super) key: &'a dyn Display,
}

/// A column of a row: its index in the statement, and its name.
pub(super) type Column = (usize, &'static str);

impl RowContext<'_> {
    pub(super) fn get<T: FromSql>(self, row: &Row<'_>, (index, name): Column) -> Result<T, StoreError> {
        T::column_result(row.get_ref(index)?).map_err(|error| self.corrupt(name, error))
    }

    pub(super) fn unsigned(self, row: &Row<'_>, column: Column) -> Result<u64, StoreError> {
        let value: i64 = self.get(row, column)?;
        u64::try_from(value).map_err(|error| self.corrupt(column.1, error))
    }

    pub(super) fn time(self, row: &Row<'_>, column: Column) -> Result<Timestamp, StoreError> {
        self.unsigned(row, column).map(Timestamp::from_millis)
    }

    pub(super) fn digest(self, row: &Row<'_>, column: Column) -> Result<Digest, StoreError> {
        self.get(row, column).map(Digest::from_bytes)
    }

    pub(super) fn request_id(self, row: &Row<'_>, column: Column) -> Result<RequestId, StoreError> {
        self.get(row, column).map(RequestId::from_bytes)
    }

    /// A value of an enum that is stored as its name.
    pub(super) fn variant<'n, T: Deserialize<'n>>(
        self,
        column: &'static str,
        name: &'n str,
    ) -> Result<T, StoreError> {
        let parsed: Result<T, serde::de::value::Error> = T::deserialize(name.into_deserializer());
        parsed.map_err(|error| self.corrupt(column, error))
    }

    pub(super) fn json<T: DeserializeOwned>(
        self,
        column: &'static str,
        text: impl AsRef<[u8]>,
    ) -> Result<T, StoreError> {
        serde_json::from_slice(text.as_ref()).map_err(|error| self.corrupt(column, error))
    }

    pub(super) fn corrupt(self, column: &'static str, detail: impl Display) -> StoreError {
        let RowContext { table, key } = self;
        StoreError::Corrupt { table, column, key: key.to_string(), detail: detail.to_string() }
    }
}

/// Selects the one column of the row that is stored under `digest`, and checks that it still has that digest.
pub(super) fn select_by_digest(
    db: &Connection,
    sql: &str,
    context: RowContext<'_>,
    column: &'static str,
    digest: Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut select = db.prepare_cached(sql)?;
    let bytes = select.query_row([digest.as_bytes()], |row| {
        // NULL has no digest, so the comparison below reports it.
        Ok(row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec())
    });
    let Some(bytes) = bytes.optional()? else { return Ok(None) };
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(context.corrupt(column, format_args!("its digest is {found}")));
    }
    Ok(Some(bytes))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(other)
}

/// SQLite's integers are signed. Values beyond `i64::MAX` are stored as that; their order no longer matters.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn millis(at: Timestamp) -> i64 {
    integer(at.as_millis())
}

pub(super) fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn unavailable(fault: StoreFault, detail: impl Display) -> StoreError {
    StoreError::Unavailable { backend: BACKEND, fault, detail: detail.to_string() }
}

pub(super) fn other(detail: impl Display) -> StoreError {
    unavailable(StoreFault::Other, detail)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        unavailable(fault(&error), error)
    }
}

/// What SQLite's error says of the store as a whole.
pub(super) fn fault(error: &rusqlite::Error) -> StoreFault {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreFault::Full,
        Some(ErrorCode::ReadOnly) => StoreFault::ReadOnly,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => StoreFault::Io,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreFault::Busy,
        _ => StoreFault::Other,
    }
}
