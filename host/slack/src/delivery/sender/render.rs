//! Renders a message from the stored request.

use countersign_core::lifecycle::RequestId;
use countersign_core::record::Slot;
use slack_morphism::prelude::SlackBlock;

use super::{ActiveJob, Sender};
use crate::delivery::Rendering;
use crate::delivery::step::TrackedMessage;
use crate::{Message, Place, mentions};

impl Sender {
    /// The message as it is posted, and whether an update will look different although nothing changes until then.
    pub(super) async fn render_new(
        &self,
        active: &ActiveJob<'_>,
        tracked: &TrackedMessage,
    ) -> (Message, bool) {
        let updated = self.render(active, tracked).await;
        if tracked.mark.slot != Slot::Main {
            return (updated, false);
        }
        let mut posted = mentions::without_mentions(updated.clone());
        // A message that is posted anew, since somebody deleted the first one, notifies nobody.
        let is_first = !tracked.post.has_called;
        let ActiveJob { request, entry, .. } = active;
        let call = mentions::call(request, entry, &self.directory, self.clock.now()).filter(|_| is_first);
        let below_title = posted.blocks.iter().position(|block| matches!(block, SlackBlock::Section(_)));
        let at = below_title.unwrap_or_default();
        posted.blocks.splice(at..at, call);
        let is_provisional = posted != updated;
        (posted, is_provisional)
    }

    pub(super) async fn render(&self, active: &ActiveJob<'_>, tracked: &TrackedMessage) -> Message {
        let ActiveJob { request, entry, .. } = active;
        let now = self.clock.now();
        let is_minimal = tracked.post.minimal == Some(request.version);
        let Rendering { message, minimal, escalation } = self.rendering;
        let notice = match tracked.mark.slot {
            Slot::Main if is_minimal => return minimal(request, entry, now),
            Slot::Main => return message(request, entry, &self.directory, now),
            Slot::EscalationThread => escalation(request, entry, &self.directory, now, Place::Thread),
            Slot::EscalationChannel => {
                let permalink = self.permalink(request.id).await;
                let place = Place::Channel { permalink: permalink.as_deref() };
                escalation(request, entry, &self.directory, now, place)
            }
        };
        if is_minimal { Message { blocks: Vec::new(), ..notice } } else { notice }
    }

    /// The URL of the request's message, if Slack gives it: a notice is useful without it.
    async fn permalink(&self, request: RequestId) -> Option<String> {
        let main = self.store.slack_post(request, Slot::Main).await.ok()??;
        self.client.permalink(&main.channel, main.ts()?).await.ok()
    }
}
