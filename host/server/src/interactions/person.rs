//! The person who acted, and where in Slack only they can be shown something.

use countersign_core::lifecycle::{Digest, RequestId};
use countersign_gateway::GatewayError;
use countersign_slack::{Interaction, Outgoing, SlackView, Source, Unreadable, modal};
use serde_json::{Map, Value, json};

use super::answer::Ephemeral;
use crate::state::App;

/// The person who acted.
pub(super) struct Person {
    user: String,
    /// Unless what they pressed names none.
    pub(super) request: Option<RequestId>,
    source: Source,
    /// Whether they submitted a modal, whose answer can replace it.
    is_modal: bool,
    /// Identifies what they did, however often it is delivered.
    identity: Option<Digest>,
}

impl Person {
    /// `None` if the payload does not say who it was.
    pub(super) fn of(interaction: &Result<Interaction, Unreadable>) -> Option<Person> {
        match interaction {
            Ok(interaction) => Some(Person {
                user: interaction.user.clone(),
                request: Some(interaction.request),
                source: interaction.source.clone(),
                is_modal: interaction.kind.modal_blocks().is_some(),
                identity: interaction.identity(),
            }),
            Err(unreadable) => Some(Person {
                user: unreadable.user.clone()?,
                request: None,
                source: unreadable.source.clone(),
                is_modal: unreadable.is_modal,
                identity: unreadable.identity(),
            }),
        }
    }

    /// Sends an ephemeral message, once for each interaction and code: in the channel where they acted, or, from a modal, in that of
    /// the request's message. A modal of which no channel is known shows it itself: what is returned is added to the
    /// answer for that.
    pub(super) async fn send(self, app: &App, ephemeral: Ephemeral) -> Map<String, Value> {
        let Person { user, request, source, is_modal, identity } = self;
        let Ephemeral { code, text } = ephemeral;
        let channel = match (source.channel, request) {
            (Some(channel), _) => Some(channel),
            (None, Some(request)) => channel_of(app, request).await.unwrap_or_default(),
            (None, None) => None,
        };
        let Some(channel) = channel else {
            let notice = modal::notice("Not done", &text);
            if is_modal {
                let update = json!({"response_action": "update", "view": SlackView::Modal(notice)});
                return update.as_object().cloned().unwrap_or_default();
            }
            if let (Some(Outgoing { client, .. }), Some(view)) = (&app.outgoing, &source.view)
                && let Err(error) = client.update_view(view, None, &notice).await
            {
                let request = request.map(tracing::field::display);
                tracing::warn!(request, %error, code, "cannot show in a modal why an interaction had no effect");
            }
            return Map::new();
        };
        if let Some(outgoing) = &app.outgoing
            && identity.is_none_or(|identity| app.sent_ephemerals.is_first(identity, code))
        {
            outgoing.ephemerals.send(request, &channel, &user, source.thread.as_deref(), text);
        }
        Map::new()
    }
}

async fn channel_of(app: &App, id: RequestId) -> Result<Option<String>, GatewayError> {
    let Some(request) = app.gateway.store().request(id).await? else { return Ok(None) };
    Ok(app.gateway.rules_of(request.submission.policy_hash).await?.entry().channel.clone())
}
