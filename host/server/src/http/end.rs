//! What is said of a request that has ended, beside its state: the proof of its decision, and what took its place.

use countersign_core::lifecycle::{Request, RequestId};
use serde::Serialize;

use crate::state::App;
use crate::telemetry::log_failure;

/// What is said of a request that has ended; nothing while it is open.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct End {
    /// The signed receipt of the decision (docs/RECEIPTS.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    /// The request that was made in its place, or has superseded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<SuccessorView>,
}

/// The request that was made in the place of one that has ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SuccessorView {
    request_id: RequestId,
    /// Its wait token, for whoever holds the wait token of the one that has ended; if it has superseded that one, only if
    /// an authenticated caller made both. Keep it secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl End {
    /// `with_token` says whether whoever asks holds the wait token of the request.
    pub(super) async fn of(app: &App, request: &Request, with_token: bool) -> End {
        if !request.status().is_terminal() {
            return End::default();
        }
        // The successor is read on another thread while this one signs.
        let (successor, receipt) =
            tokio::join!(SuccessorView::of(app, request, with_token), app.gateway.receipt(request));
        End { receipt, successor }
    }
}

impl SuccessorView {
    /// `None` if there is none, and if the store cannot say, which the log does: how the request ended is told all the
    /// same.
    pub(super) async fn of(app: &App, request: &Request, with_token: bool) -> Option<SuccessorView> {
        let successor = app.gateway.successor(request).await;
        let successor = successor.inspect_err(|error| log_failure(error, Some(request.id))).ok()??;
        let is_told = with_token && is_theirs(app, request, &successor).await;
        let token = is_told.then(|| app.gateway.token_again(&successor)).flatten();
        Some(SuccessorView { request_id: successor.id, token: token.map(|token| token.reveal().to_owned()) })
    }
}

/// Whether whoever holds the wait token of a request may have that of its successor.
async fn is_theirs(app: &App, request: &Request, successor: &Request) -> bool {
    let (old, new) = (&request.submission, &successor.submission);
    if request.superseded_by().is_none() {
        return old.caller == new.caller;
    }
    // INVARIANT: a request that supersedes another one was made by somebody who did not need the token of that one. Only
    // an authenticated caller shows that it was the same; two requests that no caller made may be of two people, and so
    // may two of one caller that name two requesters. With the token comes the salt of hidden values, which the holder of
    // the old one has only if the two requests agree in them.
    let is_same =
        old.caller.is_some() && old.caller == new.caller && old.requester_id() == new.requester_id();
    if !is_same || new.redacted.is_empty() {
        return is_same;
    }
    let rules = app.gateway.rules_of(new.policy_hash).await;
    let rules = rules.inspect_err(|error| log_failure(error, Some(successor.id)));
    rules.is_ok_and(|rules| new.redacted.is_subset(&rules.entry().supersede))
}
