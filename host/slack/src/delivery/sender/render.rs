//! Renders a message from the stored request.

use countersign_core::lifecycle::RequestId;
use countersign_core::record::Slot;
use slack_morphism::prelude::SlackBlock;

use super::{ActiveJob, Sender};
use crate::delivery::Rendering;
use crate::delivery::step::TrackedMessage;
use crate::{Message, Place, mentions};

/// A message as it is to be shown now.
pub(super) struct Rendered {
    pub(super) message: Message,
    /// Whether the message of a newer request, to which this one is to lead, is not there yet.
    pub(super) lacks_link: bool,
}

impl From<Message> for Rendered {
    fn from(message: Message) -> Rendered {
        Rendered { message, lacks_link: false }
    }
}

impl Sender {
    /// The message as it is posted, and whether an update will look different although nothing changes until then.
    pub(super) async fn render_new(
        &self,
        active: &ActiveJob<'_>,
        tracked: &TrackedMessage,
    ) -> (Rendered, bool) {
        let Rendered { message: updated, lacks_link } = self.render(active, tracked).await;
        if tracked.mark.slot != Slot::Main {
            return (updated.into(), false);
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
        (Rendered { message: posted, lacks_link }, is_provisional)
    }

    pub(super) async fn render(&self, active: &ActiveJob<'_>, tracked: &TrackedMessage) -> Rendered {
        let ActiveJob { request, entry, .. } = active;
        let now = self.clock.now();
        let is_minimal = tracked.post.minimal == Some(request.version);
        let Rendering { message, minimal, escalation, replaced, succeeded } = self.rendering;
        let notice = match tracked.mark.slot {
            Slot::Main => {
                let message = match is_minimal {
                    true => minimal(request, entry, now),
                    false => message(request, entry, &self.directory, now),
                };
                return match self.successor(active).await {
                    Some(link) => succeeded(message, request, &link).into(),
                    None => Rendered { message, lacks_link: request.superseded_by().is_some() },
                };
            }
            Slot::EscalationThread | Slot::EscalationChannel => {
                let permalink = self.permalink(request.id).await;
                let is_in_thread = tracked.mark.slot == Slot::EscalationThread;
                let place = if is_in_thread { Place::Thread } else { Place::Channel };
                escalation(request, entry, &self.directory, now, place, permalink.as_deref())
            }
            Slot::Replaced(seq) => {
                let permalink = self.permalink(request.id).await;
                let replacements = request.replacements();
                let replacement = replacements.iter().find(|replacement| replacement.seq == seq);
                let is_first = tracked.post.ts().is_none();
                match replacement {
                    Some(edit) => replaced(request, edit, &self.directory, permalink.as_deref(), is_first),
                    // The history is never shortened, so there is one.
                    None => Message { blocks: Vec::new(), ..minimal(request, entry, now) },
                }
            }
        };
        let notice = if is_minimal { Message { blocks: Vec::new(), ..notice } } else { notice };
        notice.into()
    }

    /// The URL of the message of the request that was made in place of this one, or has superseded it.
    async fn successor(&self, active: &ActiveJob<'_>) -> Option<String> {
        let ActiveJob { request, entry, .. } = active;
        if let Some(newer) = request.superseded_by() {
            return self.permalink(newer).await;
        }
        if !request.status().is_terminal() || entry.rerequest.is_none() {
            return None;
        }
        let depth = request.submission.depth.checked_add(1)?;
        let at_depth = self.store.lineage(request.submission.lineage, depth, 1).await.ok()?;
        self.permalink(at_depth.first()?.id).await
    }

    /// The URL of the request's message, if Slack gives it: a notice is useful without it.
    async fn permalink(&self, request: RequestId) -> Option<String> {
        let main = self.store.slack_post(request, Slot::Main).await.ok()??;
        self.client.permalink(&main.channel, main.ts()?).await.ok()
    }
}
