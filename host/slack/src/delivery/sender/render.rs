//! Renders a message from the stored request.

use countersign_core::lifecycle::RequestId;
use countersign_core::record::Slot;
use slack_morphism::prelude::SlackBlock;

use super::{ActiveJob, Sender};
use crate::delivery::Rendering;
use crate::delivery::failure::Failure;
use crate::delivery::step::TrackedMessage;
use crate::{Message, Place, mentions};

/// A message as it is to be shown now.
pub(super) struct Rendered {
    pub(super) message: Message,
    pub(super) link: Link,
}

/// The link to another message that a message is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// It has it, or is to have none.
    Settled,
    /// The message of a newer request, to which it is to lead, is not there yet.
    Awaited,
    /// The store or Slack could not be asked for it.
    Unknown,
}

/// The store or Slack could not be asked for a link.
struct Unasked;

impl From<Message> for Rendered {
    fn from(message: Message) -> Rendered {
        Rendered { message, link: Link::Settled }
    }
}

impl Sender {
    /// The message as it is posted, and whether an update will look different although nothing changes until then.
    pub(super) async fn render_new(
        &self,
        active: &ActiveJob<'_>,
        tracked: &TrackedMessage,
    ) -> (Rendered, bool) {
        let Rendered { message: updated, link } = self.render(active, tracked).await;
        if tracked.mark.slot != Slot::Main {
            return (Rendered { message: updated, link }, false);
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
        (Rendered { message: posted, link }, is_provisional)
    }

    pub(super) async fn render(&self, active: &ActiveJob<'_>, tracked: &TrackedMessage) -> Rendered {
        let ActiveJob { request, entry, .. } = active;
        let now = self.clock.now();
        let is_minimal = tracked.post.minimal == Some(request.version);
        let Rendering { message, minimal, escalation, replaced, succeeded } = self.rendering;
        let (notice, link) = match tracked.mark.slot {
            Slot::Main => {
                let message = match is_minimal {
                    true => minimal(request, entry, now),
                    false => message(request, entry, &self.directory, now),
                };
                let link = match self.successor(active).await {
                    Ok(Some(link)) => return succeeded(message, request, &link).into(),
                    Ok(None) if request.superseded_by().is_some() => Link::Awaited,
                    Ok(None) => Link::Settled,
                    Err(Unasked) => Link::Unknown,
                };
                return Rendered { message, link };
            }
            Slot::EscalationThread | Slot::EscalationChannel => {
                let (permalink, link) = self.notice_link(request.id).await;
                let is_in_thread = tracked.mark.slot == Slot::EscalationThread;
                let place = if is_in_thread { Place::Thread } else { Place::Channel };
                (escalation(request, entry, &self.directory, now, place, permalink.as_deref()), link)
            }
            Slot::Replaced(seq) => {
                let (permalink, link) = self.notice_link(request.id).await;
                let replacements = request.replacements();
                let replacement = replacements.iter().find(|replacement| replacement.seq == seq);
                let is_first = tracked.post.ts().is_none();
                let notice = match replacement {
                    Some(edit) => replaced(request, edit, &self.directory, permalink.as_deref(), is_first),
                    // The history is never shortened, so there is one.
                    None => Message { blocks: Vec::new(), ..minimal(request, entry, now) },
                };
                (notice, link)
            }
        };
        let message = if is_minimal { Message { blocks: Vec::new(), ..notice } } else { notice };
        Rendered { message, link }
    }

    /// The URL of the request's message, for one of its notices.
    async fn notice_link(&self, request: RequestId) -> (Option<String>, Link) {
        match self.permalink(request).await {
            Ok(permalink) => (permalink, Link::Settled),
            Err(Unasked) => (None, Link::Unknown),
        }
    }

    /// The URL of the message of the request that was made in place of this one, or has superseded it; `None` if it is not
    /// there.
    async fn successor(&self, active: &ActiveJob<'_>) -> Result<Option<String>, Unasked> {
        let ActiveJob { request, entry, .. } = active;
        if let Some(newer) = request.superseded_by() {
            return self.permalink(newer).await;
        }
        if !request.status().is_terminal() || entry.rerequest.is_none() {
            return Ok(None);
        }
        let Some(depth) = request.submission.depth.checked_add(1) else { return Ok(None) };
        let at_depth = self.store.lineage(request.submission.lineage, depth, 1).await.map_err(|_| Unasked)?;
        match at_depth.first() {
            Some(next) => self.permalink(next.id).await,
            None => Ok(None),
        }
    }

    /// The URL of the request's message; `None` if there is no such message.
    async fn permalink(&self, request: RequestId) -> Result<Option<String>, Unasked> {
        let main = self.store.slack_post(request, Slot::Main).await.map_err(|_| Unasked)?;
        let Some((channel, ts)) = main.as_ref().and_then(|main| Some((&main.channel, main.ts()?))) else {
            return Ok(None);
        };
        match self.client.permalink(channel, ts).await {
            Ok(link) => Ok(Some(link)),
            Err(error) => match Failure::of(&error) {
                Failure::Gone | Failure::Channel => Ok(None),
                Failure::RateLimited(_)
                | Failure::Unanswered
                | Failure::Unauthorized
                | Failure::Content
                | Failure::Unknown => {
                    tracing::debug!(%request, %error, "cannot ask Slack for the link to a message; asking again");
                    Err(Unasked)
                }
            },
        }
    }
}
