//! Documents: small values under a key, such as cached user groups and the history of the access file.

use async_trait::async_trait;

use crate::StoreError;

/// The prefixes of document keys, one for each part of the gateway that stores documents.
pub const DOCUMENT_PREFIXES: [&str; 5] = ["usergroup:", "user:", "access:", "key:", "policy-set:"];

/// Stores small documents by key.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Stores a document, and replaces the one with the same key, if any.
    ///
    /// A key begins with one of [`DOCUMENT_PREFIXES`].
    async fn keep(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError>;

    /// Stores a document if the one with the same key still is `before` (`None`: if there is none). False if it is not, and
    /// then nothing is stored.
    async fn replace(&self, key: &str, before: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StoreError>;

    /// The document with this key.
    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;
}
