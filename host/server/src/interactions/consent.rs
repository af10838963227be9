//! Whether an approval in Slack counts as consent: nobody approves what they could not read.
//!
//! An approval, with edits or without, from any block, dialog or old message, counts if the message of the request shows all
//! of it and Slack took that message, or if it ends a review of these very parameters. The same holds for an
//! acknowledgement, since there are policies that ask for nothing else. An action with `consent: summary`
//! takes responsibility for the rest, but not for a message that Slack refused.
//!
//! The payload hash that is handed on binds the approval to what was decided about here: if the parameters change before it
//! is stored, the gateway refuses it.

use std::sync::Arc;

use countersign_core::lifecycle::{Digest, Intent, Refusal, Request, RequestId, payload_hash};
use countersign_core::record::Slot;
use countersign_gateway::{GatewayError, Once};
use countersign_slack::{Seen, is_whole, review};

use crate::state::App;

/// Somebody approves or acknowledges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Approval<'a> {
    /// The request.
    pub(super) request: RequestId,
    /// Who, by their Slack id.
    pub(super) user: &'a str,
    /// What they had before them.
    pub(super) seen: Seen,
    /// Which act it is, if it may be delivered again.
    pub(super) once: Option<Once>,
}

/// What it takes to say whether an approval counts as consent, as it was read.
#[derive(Debug)]
pub(super) struct Basis {
    request: Arc<Request>,
    /// Whether Slack refused the request's message.
    was_refused: bool,
    /// Whether people may approve by its message alone.
    message_is_enough: bool,
}

impl Basis {
    /// Reads it for an act on a request.
    ///
    /// # Errors
    /// If there is no such request, or it cannot be read.
    pub(super) async fn read(app: &App, id: RequestId) -> Result<Basis, GatewayError> {
        // Side by side: a person waits.
        let (request, post) =
            tokio::join!(app.gateway.request(id), app.gateway.store().slack_post(id, Slot::Main));
        let (request, was_refused) = (request?, post?.is_some_and(|post| post.was_refused()));
        let rules = app.gateway.rules_of(request.submission.policy_hash).await?;
        let entry = rules.entry();
        let message_is_enough = !was_refused && (!entry.consent.is_whole() || is_whole(&request, entry));
        Ok(Basis { request, was_refused, message_is_enough })
    }
}

/// The request and the payload hash of what an approval is of, if it counts as consent. What was read for it `before` need
/// not be the newest, as long as it was read after the person acted.
///
/// # Errors
/// [`Refusal::Unread`] if it does not, unless the gateway has something else against it.
pub(super) async fn check(
    app: &App,
    approval: Approval<'_>,
    intent: &Intent,
    before: Option<Basis>,
) -> Result<(Arc<Request>, Digest), GatewayError> {
    let Approval { request: id, user, seen, once } = approval;
    let basis = match before {
        Some(basis) => basis,
        None => Basis::read(app, id).await?,
    };
    // A button that does not say which parameters it was beside was posted with those that were submitted.
    let payload = seen.payload().unwrap_or_else(|| payload_hash(&basis.request.submission.digests));
    if has_read(&basis, seen, intent) {
        return Ok((basis.request, payload));
    }
    let was_refused = basis.was_refused;
    // Whoever may not approve at all reads that first.
    app.gateway.check(id, user, intent, Some(payload), once).await?;
    tracing::info!(request = %id, was_refused, "approval without having read the request");
    Err(app.gateway.refuse(id, user, intent.clone(), Refusal::Unread, once).await)
}

fn has_read(basis: &Basis, seen: Seen, intent: &Intent) -> bool {
    match seen {
        Seen::Page(_, page) => {
            page.is_last() && page.of <= review::MOST_PAGES && page.of == review::count(&basis.request)
        }
        Seen::Payload(_) | Seen::Unsaid => basis.message_is_enough,
        // Older versions gave the rows of persona buttons no id, so Slack made one up.
        Seen::Foreign => matches!(intent, Intent::Acknowledge { .. }) && basis.message_is_enough,
    }
}
