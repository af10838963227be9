//! Documents: small values under a key, such as cached user groups and the history of the access file.

use async_trait::async_trait;

use crate::StoreError;

/// The prefixes of document keys, one for each part of the gateway that stores documents.
pub const DOCUMENT_PREFIXES: [&str; 4] = ["usergroup:", "access:", "key:", "policy-set:"];

/// Stores small documents by key.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Stores a document, and replaces the one with the same key, if any.
    ///
    /// A key begins with one of [`DOCUMENT_PREFIXES`].
    async fn keep(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError>;

    /// The document with this key.
    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;
}
