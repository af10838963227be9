//! What admins do to requests.

use std::sync::Arc;

use countersign_core::lifecycle::{AdminActor, AdminEnd, Intent, Request, RequestId};
use countersign_core::record::Slot;
use countersign_store::{Committed, KeepPost};

use crate::event::Cause;
use crate::{Gateway, GatewayError, MOST_CONFLICTS};

impl Gateway {
    /// An admin ends a request. No policy is asked, so that it can be done even if its rules cannot be loaded.
    ///
    /// # Errors
    /// If there is no such request, or it has ended.
    pub async fn end(&self, id: RequestId, end: AdminEnd) -> Result<Arc<Request>, GatewayError> {
        self.change(id, None, &Cause::by_itself(Intent::End(end))).await
    }

    /// An admin has the messages of an open request delivered again, now: one that Slack refused is tried again, one that
    /// is there is sent again, and one that somebody deleted is posted anew. It never leads to a second message: what is
    /// delivered is up to the same steps as ever.
    ///
    /// # Errors
    /// If there is no such request, or it has ended.
    pub async fn show_again(&self, id: RequestId, by: &AdminActor) -> Result<Arc<Request>, GatewayError> {
        for _ in 0..MOST_CONFLICTS {
            let request = self.request(id).await?;
            let step = request.show_again(self.clock.now(), by)?;
            // Before the effect is stored: whoever delivers it must not find that the message shows all of it already.
            self.forget_looks(id).await?;
            if let Some(stored) = self.commit(&request, step, None).await? {
                self.observe_note(&request);
                return Ok(stored);
            }
        }
        Err(GatewayError::Contended)
    }

    /// Forgets how the message of a request looks and that it failed, so that it is sent whatever it shows. That Slack refused
    /// it is not forgotten: until Slack takes all of it, nobody may approve by it.
    async fn forget_looks(&self, request: RequestId) -> Result<(), GatewayError> {
        for _ in 0..MOST_CONFLICTS {
            let Some(mut post) = self.store.slack_post(request, Slot::Main).await? else { return Ok(()) };
            post.revision += 1;
            (post.looks, post.failed) = (None, None);
            let keep = KeepPost { request, slot: Slot::Main, post, audit: Vec::new(), counts: Vec::new() };
            if self.store.keep_slack_post(keep).await? == Committed::Done {
                return Ok(());
            }
        }
        Err(GatewayError::Contended)
    }
}
