//! Searching a channel for a message whose post was not answered: it is posted again only if it is not there.

use countersign_core::lifecycle::Timestamp;
use countersign_core::record::{Mark, PostState};

use super::{ActiveJob, CALL_MS, SendResult, Sender, StepError};
use crate::delivery::after_failure::Release;
use crate::delivery::step::TrackedMessage;
use crate::{CallError, MAX_SKEW_MS, Search, SearchResult};

/// How many pages of a channel's history are searched.
const PAGES: u32 = 20;

/// Where a search goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct SearchCursor {
    mark: Mark,
    /// Slack's cursor of the next page.
    next: String,
    /// The pages searched so far.
    pages: u32,
}

impl Sender {
    pub(super) async fn search(
        &self,
        active: &ActiveJob<'_>,
        mut tracked: TrackedMessage,
        since: Timestamp,
        cursor: Option<&SearchCursor>,
    ) -> Result<SendResult, StepError> {
        // A request has two notices, and the cursor may be of the other one's search.
        let cursor = cursor.filter(|cursor| cursor.mark == tracked.mark);
        let search = Search {
            channel: &tracked.channel,
            thread: tracked.thread.as_deref(),
            // Slack's clock may differ from ours, but by no more than signatures allow.
            from: since.minus(MAX_SKEW_MS),
            to: since.plus(MAX_SKEW_MS + CALL_MS),
            mark: &tracked.mark,
            cursor: cursor.map(|cursor| cursor.next.as_str()),
        };
        let pages = cursor.map_or(0, |cursor| cursor.pages) + 1;
        let request = tracked.mark.request;
        let (state, result) = match self.client.find(search).await {
            Ok(SearchResult::Found(ts)) => {
                (Some(PostState::Posted { ts }), SendResult::Searched { cursor: None })
            }
            Ok(SearchResult::NotFound) => (Some(PostState::Absent), SendResult::Searched { cursor: None }),
            Ok(SearchResult::NextPage(next)) if pages < PAGES => {
                let cursor = SearchCursor { mark: tracked.mark, next, pages };
                (None, SendResult::Searched { cursor: Some(cursor) })
            }
            Ok(SearchResult::NextPage(_)) => {
                tracing::warn!(%request, pages, "message not found after the most pages; posting it again");
                (Some(PostState::Absent), SendResult::Searched { cursor: None })
            }
            // The search starts over.
            Err(CallError::Rejected { code }) if cursor.is_some() && code == "invalid_cursor" => {
                (None, SendResult::Searched { cursor: None })
            }
            Err(CallError::Rejected { code }) if !is_token_void(&code) => {
                // A duplicate is better than a message that nobody sees.
                tracing::warn!(%request, code, "Slack does not allow searching for a message; posting it again");
                (Some(PostState::Absent), SendResult::SearchRefused { code })
            }
            Err(error) => {
                let stored = tracked.post.clone();
                return self.failed(active, tracked, &stored, &error).await;
            }
        };
        if let Some(state) = state {
            tracked.post.has_called |= matches!(state, PostState::Posted { .. });
            // What a found message shows is unknown, and may be outdated.
            (tracked.post.state, tracked.post.shown, tracked.post.looks) = (state, 0, None);
            self.save(active, &mut tracked, None).await?;
        }
        self.release(active, Release::DueAt(self.schedule.now())).await?;
        Ok(result)
    }
}

/// Whether the token is void altogether. Other codes may concern searching only, and posting may still work.
fn is_token_void(code: &str) -> bool {
    matches!(code, "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive")
}
