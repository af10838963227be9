//! What is stored and not yet confirmed is told to nobody but its writer.
//!
//! A version of a request is confirmed once as many replicas, or disks, have it as configured. Its writer waits for that, and
//! so does a reader that meets a version of which nobody has said so yet.

use countersign_core::lifecycle::{Request, RequestId};

use super::Space;
use super::call::{Call, Tag};
use super::request_row::StoredRequest;
use super::script::CONFIRM;
use crate::StoreError;

impl Space {
    /// Says that a version is confirmed, to readers and to other instances. Whoever does not hear it waits for itself.
    pub(super) async fn confirm(&self, tag: &Tag, request: RequestId, version: u64) {
        if !self.durability.waits() {
            return;
        }
        let confirm =
            Call::script(&CONFIRM, tag).text(&request.to_string()).text(&self.origin).number(version);
        if let Err(error) = self.link.call(confirm).await {
            tracing::debug!(%error, "cannot say that a version is confirmed");
        }
    }

    /// Parses requests of one partition, after their versions are confirmed.
    pub(super) async fn tell(
        &self,
        tag: &Tag,
        stored: Vec<StoredRequest>,
    ) -> Result<Vec<Request>, StoreError> {
        if self.durability.waits() {
            let unconfirmed = || stored.iter().filter(|request| !request.is_confirmed());
            if unconfirmed().next().is_some() {
                self.link.confirmed(tag).await?;
            }
            for request in unconfirmed() {
                self.confirm(tag, request.id, request.version).await;
            }
        }
        stored.into_iter().map(StoredRequest::parse).collect()
    }
}
