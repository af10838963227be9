//! The person who acted, and where in Slack only they can be shown something.

use countersign_core::lifecycle::RequestId;
use countersign_gateway::GatewayError;
use countersign_slack::{Interaction, Source};

use crate::state::App;

/// The person who acted.
pub(super) struct Person {
    user: String,
    request: RequestId,
    source: Source,
}

impl Person {
    pub(super) fn of(interaction: &Interaction) -> Person {
        let Interaction { user, request, source, .. } = interaction;
        Person { user: user.clone(), request: *request, source: source.clone() }
    }

    /// Sends an ephemeral message: in the channel where they acted, or, from a modal, in that of the request's message.
    pub(super) async fn send_ephemeral(self, app: &App, text: String) {
        let Some(outgoing) = &app.outgoing else { return };
        let Person { user, request, source } = self;
        let channel = match source.channel {
            Some(channel) => Some(channel),
            None => channel_of(app, request).await.unwrap_or_default(),
        };
        if let Some(channel) = channel {
            outgoing.ephemerals.send(&channel, &user, source.thread.as_deref(), text);
        }
    }
}

async fn channel_of(app: &App, id: RequestId) -> Result<Option<String>, GatewayError> {
    let Some(request) = app.gateway.store().request(id).await? else { return Ok(None) };
    Ok(app.gateway.rules_of(request.submission.policy_hash).await?.entry().channel.clone())
}
