//! Columns as values. What cannot be read says where it stands.

use std::fmt::Display;

use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::de::DeserializeOwned;

use crate::StoreError;
use countersign_core::lifecycle::{Digest, RequestId, Timestamp};

/// A row, for error messages.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The table.
    pub(super) table: &'static str,
    /// The row's key.
    pub(super) key: &'a dyn Display,
}

/// A column of a row: its index in the statement, and its name.
pub(super) type Column = (usize, &'static str);

impl Place<'_> {
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

    pub(super) fn json<T: DeserializeOwned>(
        self,
        column: &'static str,
        text: impl AsRef<[u8]>,
    ) -> Result<T, StoreError> {
        serde_json::from_slice(text.as_ref()).map_err(|error| self.corrupt(column, error))
    }

    pub(super) fn corrupt(self, column: &'static str, detail: impl Display) -> StoreError {
        let Place { table, key } = self;
        StoreError::Corrupt { table, column, key: key.to_string(), detail: detail.to_string() }
    }
}
