//! Stands in until the delivery is merged.

use std::sync::Arc;

use super::client::SlackClient;

/// Tells people things that only they see.
#[derive(Clone)]
pub struct Ephemerals(Arc<SlackClient>);

impl Ephemerals {
    /// Over a client.
    #[must_use]
    pub fn new(client: Arc<SlackClient>) -> Ephemerals {
        Ephemerals(client)
    }

    /// Tells.
    pub fn tell(&self, channel: String, user: String, thread: Option<String>, text: String) {
        let client = Arc::clone(&self.0);
        tokio::spawn(async move { client.post_ephemeral(&channel, &user, thread.as_deref(), &text).await });
    }
}
