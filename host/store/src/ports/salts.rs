//! Salts: what the payload hashes of requests are made with, encrypted under a key that is not in the store.
//!
//! A salt is stored and read with its request. What is here is for the change of the key.

use async_trait::async_trait;
use countersign_core::lifecycle::{RequestId, WrappedSalt};

use crate::StoreError;

/// Reads the salts of all requests, and replaces them.
#[async_trait]
pub trait Salts: Send + Sync {
    /// Up to `limit` salts of requests with ids above `after`, ended requests included, in the order of the ids.
    async fn salts(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, WrappedSalt)>, StoreError>;

    /// Replaces those salts that are stored as they were read, and returns how many these were.
    ///
    /// Nothing else of their requests changes, their versions included, and no commit takes it back.
    async fn replace_salts(&self, replacements: Vec<NewSalt>) -> Result<usize, StoreError>;
}

/// A salt to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSalt {
    /// Whose it is.
    pub request: RequestId,
    /// As it was read.
    pub from: WrappedSalt,
    /// As it is to be stored.
    pub to: WrappedSalt,
}
