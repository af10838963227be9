//! Does what an interaction asks for: acts on the request, makes it again, or opens a modal that asks for more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::json;
use countersign_core::lifecycle::{Digest, Party, Reason, Refusal, Request, RequestId, State};
use countersign_gateway::{Again, GatewayError, Intent, Once, Who};
use countersign_slack::{
    CallError, Interaction, InteractionKind, Outgoing, Page, Seen, SlackModalView, SlackView, Source, modal,
    review,
};
use serde_json::Value;

use super::consent::{self, Approval, Basis};
use super::workspace;
use crate::caller_rights::{self, CallerRefusal};
use crate::state::App;

/// What was done.
pub(super) enum Performed {
    /// The request was changed.
    Changed(Arc<Request>),
    /// It was made again, as this request.
    Rerequested(Arc<Request>),
    /// A modal was opened.
    ModalOpened,
    /// This page of a dialog takes the place of the one before it.
    NextPage(Box<SlackView>),
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum PerformError {
    /// The gateway refuses.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The caller of the request may not ask for it again.
    #[error(transparent)]
    Caller(#[from] CallerRefusal),
    /// The person belongs to another workspace.
    #[error("this request belongs to another Slack workspace than yours")]
    ForeignWorkspace,
    /// There is no bot token to open a modal with.
    #[error("this gateway has no bot token, so it cannot open a dialog")]
    NoBotToken,
    /// Slack did not open the modal.
    #[error("Slack did not open the dialog; please press the button again")]
    ModalFailed,
    /// Slack did not open the review, so the request can only be denied.
    #[error(
        "Slack did not open the review, so you cannot approve this request; you can press Review again, or deny it"
    )]
    ReviewFailed,
    /// The policies do not allow any parameter to be edited.
    #[error("nothing of this request can be edited")]
    NothingEditable,
    /// What was typed for a parameter is JSON that does not mean the same to everybody.
    #[error("`{key}` was given a value that is not taken: {wrong}")]
    BadValue {
        /// The parameter.
        key: String,
        /// What is wrong.
        wrong: json::Refused,
    },
}

impl PerformError {
    /// The stable code.
    pub(super) fn code(&self) -> &'static str {
        match self {
            PerformError::Gateway(error) => error.code(),
            PerformError::Caller(refusal) => refusal.code(),
            PerformError::ForeignWorkspace => "foreign_workspace",
            PerformError::NoBotToken | PerformError::ModalFailed | PerformError::ReviewFailed => "no_modal",
            PerformError::NothingEditable => "key_not_allowed",
            PerformError::BadValue { .. } => "invalid_payload",
        }
    }

    /// What the person may read of why, for each parameter that it concerns.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        match self {
            PerformError::Gateway(error) => error.reasons(),
            PerformError::BadValue { key, wrong } => vec![Reason {
                code: self.code().to_owned(),
                message: wrong.to_string(),
                path: Some(key.clone()),
            }],
            _ => Vec::new(),
        }
    }

    /// What the person may read.
    pub(super) fn public_message(&self) -> String {
        match self {
            // The person knows of no caller.
            PerformError::Gateway(GatewayError::TooManyOpen) => {
                "whoever made this request has as many open requests as it may have".to_owned()
            }
            PerformError::Caller(CallerRefusal::NotAllowed) => {
                "whoever made this request may not ask for this action any more".to_owned()
            }
            PerformError::Caller(CallerRefusal::QuotaUsedUp { retry_after_ms }) => format!(
                "whoever made this request asks too often; press again in {} s",
                retry_after_ms.div_ceil(1000).max(1)
            ),
            PerformError::Gateway(error) => error.public_message(),
            error => error.to_string(),
        }
    }
}

/// Does what an interaction asks for. What is stored of it is stored once, however often it is delivered; the rest, opening
/// a dialog or turning a page, does no harm twice. `basis` is what was read for it already.
pub(super) async fn perform(
    app: &App,
    interaction: Interaction,
    once: Option<Once>,
    basis: Option<Basis>,
) -> Result<Performed, PerformError> {
    workspace::check(app, &interaction)?;
    let Interaction { user, request, kind, seen, source, workspace: _ } = interaction;
    let approval = Approval { request, user: &user, seen, once };
    let intent = match kind {
        InteractionKind::Approve => Intent::approve(),
        InteractionKind::Review => {
            open_review(app, request, &source).await?;
            return Ok(Performed::ModalOpened);
        }
        InteractionKind::ReviewPage => match seen {
            Seen::Page(payload, page) if !page.is_last() => {
                let view = next_page(app, request, payload, page).await?;
                return Ok(Performed::NextPage(Box::new(view)));
            }
            _ => Intent::approve(),
        },
        InteractionKind::ShowAll => {
            open_reading(app, request, &source).await?;
            return Ok(Performed::ModalOpened);
        }
        InteractionKind::ReadingPage(page) => {
            let request = app.gateway.request(request).await?;
            let view = next(&request, page, review::reading_page)?;
            return Ok(Performed::NextPage(Box::new(view)));
        }
        InteractionKind::Acknowledge(persona) => Intent::Acknowledge { persona },
        InteractionKind::Withdraw => Intent::Withdraw,
        InteractionKind::DenyBecause(reason) | InteractionKind::Deny(reason @ Some(_)) => {
            Intent::Deny { reason }
        }
        InteractionKind::Deny(None) => {
            let intent = Intent::Deny { reason: None };
            if open_deny_modal(app, request, (&user, once), &intent, &source).await? {
                return Ok(Performed::ModalOpened);
            }
            // A denial counts without a reason, too.
            intent
        }
        InteractionKind::Overrides { inputs, clearable } => {
            Intent::Approve { edits: edits(app, request, inputs, clearable).await? }
        }
        InteractionKind::ApproveEdit => {
            open_override_modal(app, approval, &source).await?;
            return Ok(Performed::ModalOpened);
        }
        InteractionKind::Rerequest => {
            let original = app.gateway.request(request).await?;
            if !app.gateway.may_rerequest(&original, &user).await? {
                let why = "only its requester and its approvers may have it made again";
                return Err(GatewayError::NotAllowed(why).into());
            }
            // After the person's right, and once for each press: nobody must use up the caller's quota for nothing.
            if let Some(once) = once
                && app.gateway.has_counted(request, once).await?
            {
                return Err(GatewayError::Repeated.into());
            }
            let caller = caller_rights::check_rerequest(app, &original)?;
            app.gateway.check_again(&original, None).await?;
            if let Some(caller) = &caller {
                caller_rights::take_quota(app, caller).await?;
            }
            let who = Who { authenticated: true, ..Who::asserted(&user) };
            let party = Party { id: user, source: "slack".into(), display: None };
            let again = Again { party, who };
            return Ok(Performed::Rerequested(
                app.gateway
                    .rerequest(request, again, None, caller_rights::most_open(app, caller.as_deref()), once)
                    .await?
                    .request,
            ));
        }
    };
    let request = match &intent {
        Intent::Approve { .. } | Intent::Acknowledge { .. } => {
            let (request, payload) = consent::check(app, approval, &intent, basis).await?;
            app.gateway.act_on_loaded(request, &user, &intent, Some(payload), once).await?
        }
        _ => app.gateway.act_on(request, &user, &intent, seen.payload(), once).await?,
    };
    if let (Seen::Page(_, page), Intent::Acknowledge { .. }) = (seen, &intent) {
        show_page_again(app, &request, page, &source).await;
    }
    Ok(Performed::Changed(request))
}

/// Shows the page of a review as it is after an act on it: the button is gone, and it may be possible to approve by now.
async fn show_page_again(app: &App, request: &Request, page: Page, source: &Source) {
    let (Some(Outgoing { client, .. }), Some(view)) = (&app.outgoing, &source.view) else { return };
    let Some(page) = review::page(request, page.number) else { return };
    // A page that stays as it was can do no harm: what is pressed on it is judged anew.
    if let Err(error) = client.update_view(view, None, &page).await {
        tracing::warn!(%error, request = %request.id, trace = request.trace_id(), "cannot update the page of a review");
    }
}

/// Opens the first page of the review. Everybody may read it who sees the message; only the last page asks who they are.
async fn open_review(app: &App, request: RequestId, source: &Source) -> Result<(), PerformError> {
    let (Some(Outgoing { client, .. }), Some(trigger)) = (&app.outgoing, &source.trigger) else {
        return Err(PerformError::NoBotToken);
    };
    let request = app.gateway.request(request).await?;
    if request.status().is_terminal() {
        return Err(GatewayError::from(Refusal::Ended(request.status())).into());
    }
    let view = review::page(&request, 1).ok_or(GatewayError::from(Refusal::TooLargeToReview))?;
    client.open_view(trigger, &view).await.map_err(|error| {
        tracing::warn!(%error, request = %request.id, trace = request.trace_id(), "cannot open review");
        PerformError::ReviewFailed
    })
}

/// The page after this one, as long as the review is still of what the request asks for.
async fn next_page(
    app: &App,
    request: RequestId,
    payload: Digest,
    page: Page,
) -> Result<SlackView, PerformError> {
    let request = app.gateway.request(request).await?;
    if request.status().is_terminal() {
        return Err(GatewayError::from(Refusal::Ended(request.status())).into());
    }
    if payload != request.payload_hash() {
        return Err(GatewayError::from(Refusal::ParametersChanged).into());
    }
    next(&request, page, review::page)
}

/// The page after this one, as `pages` shows the request, unless there are more or fewer of them by now.
fn next(
    request: &Request,
    page: Page,
    pages: fn(&Request, usize) -> Option<SlackModalView>,
) -> Result<SlackView, PerformError> {
    let view = pages(request, page.number + 1).filter(|_| page.of == review::count(request));
    Ok(SlackView::Modal(view.ok_or(GatewayError::from(Refusal::ParametersChanged))?))
}

/// Opens the first page of all that was asked, to be read alone, by everybody who sees the message.
async fn open_reading(app: &App, request: RequestId, source: &Source) -> Result<(), PerformError> {
    let (Some(Outgoing { client, .. }), Some(trigger)) = (&app.outgoing, &source.trigger) else {
        return Err(PerformError::NoBotToken);
    };
    let request = app.gateway.request(request).await?;
    // Each request has a first page.
    let view = review::reading_page(&request, 1).ok_or(GatewayError::NotFound)?;
    client.open_view(trigger, &view).await.map_err(|error| {
        tracing::warn!(%error, request = %request.id, trace = request.trace_id(), "cannot open dialog that shows all of a request");
        PerformError::ModalFailed
    })
}

/// Opens the modal that asks why somebody denies. False if it cannot be opened, so that they deny without a reason.
///
/// # Errors
/// If the denial would not count, and if the press is too old to open a modal: it may be one that is delivered again, and
/// opened the modal then. Whoever cancels that must not find the request denied.
async fn open_deny_modal(
    app: &App,
    request: RequestId,
    (user, once): (&str, Option<Once>),
    intent: &Intent,
    source: &Source,
) -> Result<bool, PerformError> {
    let (Some(Outgoing { client, .. }), Some(trigger)) = (&app.outgoing, &source.trigger) else {
        return Ok(false);
    };
    let request = app.gateway.check(request, user, intent, None, once).await?;
    let opened = client.open_view(trigger, &modal::deny(&request)).await;
    match opened {
        Ok(()) => Ok(true),
        Err(CallError::Rejected { code }) if code == "expired_trigger_id" => {
            tracing::warn!(request = %request.id, trace = request.trace_id(), "cannot open deny modal; the press is too old");
            Err(PerformError::ModalFailed)
        }
        Err(error) => {
            tracing::warn!(%error, request = %request.id, trace = request.trace_id(), "cannot open deny modal; denying without a reason");
            Ok(false)
        }
    }
}

/// Opens the modal in which parameters are edited.
async fn open_override_modal(app: &App, approval: Approval<'_>, source: &Source) -> Result<(), PerformError> {
    let (Some(Outgoing { client, .. }), Some(trigger)) = (&app.outgoing, &source.trigger) else {
        return Err(PerformError::NoBotToken);
    };
    let Approval { request, user, seen, once } = approval;
    let (_, payload) = consent::check(app, approval, &Intent::approve(), None).await?;
    let request = app.gateway.check(request, user, &Intent::approve(), Some(payload), once).await?;
    let rules = app.gateway.rules_of(request.submission.policy_hash).await?;
    let page = match seen {
        Seen::Page(_, page) => Some(page),
        Seen::Payload(_) | Seen::Unsaid | Seen::Foreign => None,
    };
    let can_go = |key: &String| rules.check_edits(&request, &[(key.clone(), None)].into()).is_empty();
    let removable = modal::clearable(&request, rules.entry()).into_iter().filter(can_go).collect();
    let view = modal::overrides(&request, rules.entry(), &removable, page);
    let view = view.ok_or(PerformError::NothingEditable)?;
    let opened = match (page, &source.view) {
        // In place of the review that it was pressed in.
        (Some(_), Some(review)) => client.update_view(review, None, &view).await,
        _ => client.open_view(trigger, &view).await,
    };
    opened.map_err(|error| {
        tracing::warn!(%error, request = %request.id, trace = request.trace_id(), "cannot open override modal");
        PerformError::ModalFailed
    })
}

/// What a modal's inputs stand for: new values, and nothing for the parameters that go, whose inputs were cleared. Inputs
/// that were empty before change nothing.
async fn edits(
    app: &App,
    id: RequestId,
    inputs: BTreeMap<String, Option<String>>,
    told: Option<Digest>,
) -> Result<BTreeMap<String, Option<Value>>, PerformError> {
    let request = app.gateway.request(id).await?;
    let rules = app.gateway.rules_of(request.submission.policy_hash).await?;
    let params = request.params();
    let clearable = match told {
        Some(told) => {
            let clearable = modal::clearable(&request, rules.entry());
            let is_open = matches!(request.state, State::Open(_));
            if is_open && inputs.values().any(Option::is_none) && !modal::is_as_told(&clearable, told) {
                return Err(GatewayError::Refused(Refusal::ParametersChanged).into());
            }
            clearable
        }
        None => BTreeSet::new(),
    };
    let edits = inputs.into_iter().filter_map(|(key, text)| {
        let Some(text) = text else { return clearable.contains(&key).then_some(Ok((key, None))) };
        // What is not JSON stays a string, for the schema and the policies to evaluate.
        let value = if modal::reads_as_text(rules.schema(), &key, params.get(&key)) {
            Value::String(text)
        } else {
            match json::parse_or_text(&text) {
                Ok(value) => value,
                Err(wrong) => return Some(Err(PerformError::BadValue { key, wrong })),
            }
        };
        Some(Ok((key, Some(value))))
    });
    edits.collect()
}
