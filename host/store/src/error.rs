//! Why a store could not answer.

/// Why the store could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or written to now; the caller may try again.
    #[error("the {backend} store is unavailable: {detail}")]
    Unavailable {
        /// The backend's name.
        backend: &'static str,
        /// What is wrong with it.
        fault: StoreFault,
        /// The backend's own message.
        detail: String,
    },
    /// A stored value cannot be read.
    #[error("cannot read `{column}` of `{table}` where its key is `{key}`: {detail}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        key: String,
        /// What is wrong with the value.
        detail: String,
    },
    /// A place in the audit log that is not this store's.
    #[error("`{0}` is no place in the audit log of this store")]
    Cursor(String),
}

impl StoreError {
    /// What is wrong with the store; `None` if a single value is.
    #[must_use]
    pub fn fault(&self) -> Option<StoreFault> {
        match self {
            StoreError::Unavailable { fault, .. } => Some(*fault),
            StoreError::Corrupt { .. } | StoreError::Cursor(_) => None,
        }
    }
}

/// What is wrong with a store that is unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreFault {
    /// There is no space left. Nothing was stored.
    Full,
    /// It can be read, and not written to. Nothing was stored.
    ReadOnly,
    /// The disk reports an error. Nothing was stored.
    Io,
    /// Another program holds it, or too many writes are waiting. Nothing was stored.
    Busy,
    /// It did not answer in time. A write may still be stored.
    Slow,
    /// Anything else. Nothing was stored.
    Other,
}

impl StoreFault {
    /// Its name in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            StoreFault::Full => "full",
            StoreFault::ReadOnly => "read_only",
            StoreFault::Io => "io_error",
            StoreFault::Busy => "busy",
            StoreFault::Slow => "slow",
            StoreFault::Other => "other",
        }
    }
}
