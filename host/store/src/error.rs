//! Why a store could not answer.

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or written to now; the caller may try again.
    #[error("the {backend} store is unavailable: {detail}")]
    Unavailable {
        /// The backend's name.
        backend: &'static str,
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
}
