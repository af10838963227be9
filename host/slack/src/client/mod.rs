//! Slack's Web API, as far as it is called: each call once, with a time limit, counted, and with an error
//! that says whether Slack may have done it all the same.
//!
//! It neither repeats a call nor waits for a rate limit; whoever calls knows what else is to be done meanwhile.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod api_url;
mod call;
pub(crate) mod metrics;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use slack_morphism::prelude::{
    SlackApiToken, SlackApiTokenValue, SlackBlock, SlackClientHyperConnector, SlackModalView, SlackView,
};

pub use api_url::{BadApiUrl, DEFAULT_API_URL, api_url};
pub use call::CallError;
use call::{Link, WITHIN, WITHIN_CONNECT, WITHIN_TRIGGER};

use self::metrics::CallMetrics;
use super::message::Message;
use countersign_core::lifecycle::Timestamp;
use countersign_core::record::Mark;
use countersign_core::secret::Secret;

/// How many messages of a channel's history to read at once; more could come to some megabytes.
const PAGE: u32 = 200;

/// The kind of metadata that our messages have.
const MARKED: &str = "countersign_message";

/// A caller of Slack's Web API.
pub struct SlackClient {
    link: Link,
    token: SlackApiToken,
    calls: CallMetrics,
}

/// A message that Slack has taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Posted {
    /// The channel's id, however it was named.
    pub channel: String,
    /// The message's name in its channel.
    pub ts: String,
}

/// Whom the bot token belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Identity {
    /// The workspace.
    pub team_id: String,
    /// The bot's user.
    pub user_id: String,
    /// The bot.
    #[serde(default)]
    pub bot_id: Option<String>,
}

/// Where to look for a message whose posting was not answered.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The thread that it would be in.
    pub thread: Option<&'a str>,
    /// It was not posted before.
    pub from: Timestamp,
    /// It was not posted after.
    pub to: Timestamp,
    /// What it is known by.
    pub mark: &'a Mark,
    /// Which page to read: the first, or the one that [`Found::NotYet`] named.
    pub cursor: Option<&'a str>,
}

/// What a page of a channel's history shows of the message that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there, by this name.
    At(String),
    /// It is not on this page; the next one has this cursor.
    NotYet(String),
    /// It is not there.
    Nowhere,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum BadClient {
    /// It cannot be called there.
    #[error(transparent)]
    Url(#[from] BadApiUrl),
    /// The token is no text.
    #[error("the token is not UTF-8")]
    Token,
    /// The system has no certificates to check Slack's by.
    #[error("the system's certificates cannot be read: {0}")]
    Certificates(std::io::Error),
}

impl SlackClient {
    /// A client that calls with this bot token, at `url` or where Slack is.
    ///
    /// # Errors
    /// Where the token or the URL is malformed, or the system has no certificates.
    pub fn new(token: &Secret, url: Option<&str>, calls: CallMetrics) -> Result<SlackClient, BadClient> {
        let url = api_url(url.unwrap_or(DEFAULT_API_URL))?;
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(WITHIN_CONNECT));
        http.set_keepalive(Some(Duration::from_secs(60)));
        let link = if url.starts_with("http:") {
            let connector = SlackClientHyperConnector::with_connector(http).with_slack_api_url(&url);
            Link::Plain(slack_morphism::SlackClient::new(connector))
        } else {
            http.enforce_http(false);
            let connector = HttpsConnectorBuilder::new()
                .with_native_roots()
                .map_err(BadClient::Certificates)?
                .https_only()
                // Not 2: a call that times out closes its connection, and only that. One connection for all calls
                // that has died in silence would fail every call until the system gives it up, minutes later.
                .enable_http1()
                .wrap_connector(http);
            let connector = SlackClientHyperConnector::with_connector(connector).with_slack_api_url(&url);
            Link::Encrypted(slack_morphism::SlackClient::new(connector))
        };
        Ok(SlackClient { link, token: api_token(token)?, calls })
    }

    /// Posts a message: `chat.postMessage`.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer; then [`SlackClient::find`] tells whether it was posted.
    pub async fn post_message(
        &self,
        channel: &str,
        thread: Option<&str>,
        message: &Message,
        mark: &Mark,
    ) -> Result<Posted, CallError> {
        let body = Post {
            channel,
            thread_ts: thread,
            content: Content::of(message, mark),
            unfurl_links: false,
            unfurl_media: false,
        };
        self.post("chat.postMessage", &body).await
    }

    /// Replaces what a message shows: `chat.update`.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn update(
        &self,
        channel: &str,
        ts: &str,
        message: &Message,
        mark: &Mark,
    ) -> Result<(), CallError> {
        let body = Update { channel, ts, content: Content::of(message, mark) };
        self.post("chat.update", &body).await.map(nothing)
    }

    /// Tells one person something in a channel: `chat.postEphemeral`. `text` is escaped mrkdwn.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn post_ephemeral(
        &self,
        channel: &str,
        user: &str,
        thread: Option<&str>,
        text: &str,
    ) -> Result<(), CallError> {
        let body = Ephemeral { channel, user, thread_ts: thread, text, link_names: false, parse: "none" };
        self.post("chat.postEphemeral", &body).await.map(nothing)
    }

    /// Opens a modal: `views.open`. It must come within 3 s of the press that gave the trigger.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn open_view(&self, trigger_id: &str, view: &SlackModalView) -> Result<(), CallError> {
        let body = json!({ "trigger_id": trigger_id, "view": SlackView::Modal(view.clone()) });
        self.post_as(&self.token, WITHIN_TRIGGER, "views.open", &body).await.map(nothing)
    }

    /// Replaces an open modal: `views.update`; with a hash, only where it is still the one that had it.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn update_view(
        &self,
        view_id: &str,
        hash: Option<&str>,
        view: &SlackModalView,
    ) -> Result<(), CallError> {
        let mut body = json!({ "view_id": view_id, "view": SlackView::Modal(view.clone()) });
        if let (Some(hash), Some(body)) = (hash, body.as_object_mut()) {
            body.insert("hash".to_owned(), hash.into());
        }
        self.post("views.update", &body).await.map(nothing)
    }

    /// Looks for a message of ours, one page at a time: `conversations.history`, or `conversations.replies`.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn find(&self, search: Search<'_>) -> Result<Found, CallError> {
        let Search { channel, thread, from, to, mark, cursor } = search;
        let (oldest, latest, page) = (timestamp(from), timestamp(to), PAGE.to_string());
        let parameters = [
            ("channel", Some(channel)),
            ("ts", thread),
            ("oldest", Some(oldest.as_str())),
            ("latest", Some(latest.as_str())),
            ("inclusive", Some("true")),
            ("include_all_metadata", Some("true")),
            ("limit", Some(page.as_str())),
            ("cursor", cursor),
        ];
        let History { messages, response_metadata } = self.get(history(thread), &parameters).await?;
        if let Some(found) = messages.into_iter().find(|message| message.is(mark)) {
            return Ok(Found::At(found.ts));
        }
        let next = response_metadata.and_then(|it| it.next_cursor).filter(|cursor| !cursor.is_empty());
        Ok(next.map_or(Found::Nowhere, Found::NotYet))
    }

    /// Where a message can be read: `chat.getPermalink`.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn permalink(&self, channel: &str, ts: &str) -> Result<String, CallError> {
        let parameters = [("channel", Some(channel)), ("message_ts", Some(ts))];
        let answer: Permalink = self.get("chat.getPermalink", &parameters).await?;
        Ok(answer.permalink)
    }

    /// The ids of those who are in a user group: `usergroups.users.list`.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn usergroup_members(&self, usergroup: &str) -> Result<Vec<String>, CallError> {
        let answer: Members = self.get("usergroups.users.list", &[("usergroup", Some(usergroup))]).await?;
        Ok(answer.users)
    }

    /// Whom the token belongs to: `auth.test`.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn auth_test(&self) -> Result<Identity, CallError> {
        self.post("auth.test", &json!({})).await
    }

    /// Asks for a WebSocket: `apps.connections.open`. The URL holds a ticket: it must not be logged.
    ///
    /// # Errors
    /// Where Slack refuses or does not answer.
    pub async fn open_socket(&self, app_token: &Secret) -> Result<String, CallError> {
        let Ok(token) = api_token(app_token) else {
            return Err(CallError::Rejected { code: "invalid_auth".to_owned() });
        };
        let answer: Socket = self.post_as(&token, WITHIN, "apps.connections.open", &json!({})).await?;
        Ok(answer.url)
    }
}

impl fmt::Debug for SlackClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlackClient")
    }
}

/// The method that reads where a message would be.
const fn history(thread: Option<&str>) -> &'static str {
    match thread {
        None => "conversations.history",
        Some(_) => "conversations.replies",
    }
}

fn api_token(token: &Secret) -> Result<SlackApiToken, BadClient> {
    let token = std::str::from_utf8(token.expose()).map_err(|_| BadClient::Token)?;
    Ok(SlackApiToken::new(SlackApiTokenValue(token.to_owned())))
}

/// A point in time as Slack writes it: seconds, with six places.
fn timestamp(at: Timestamp) -> String {
    let millis = at.as_millis();
    format!("{}.{:03}000", millis / 1000, millis % 1000)
}

fn nothing(_: Nothing) {}

#[derive(Deserialize)]
struct Nothing {}

#[derive(Serialize)]
struct Post<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_ts: Option<&'a str>,
    #[serde(flatten)]
    content: Content<'a>,
    unfurl_links: bool,
    unfurl_media: bool,
}

#[derive(Serialize)]
struct Update<'a> {
    channel: &'a str,
    ts: &'a str,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
struct Content<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    blocks: &'a [SlackBlock],
    metadata: Value,
    link_names: bool,
    parse: &'static str,
}

impl<'a> Content<'a> {
    fn of(message: &'a Message, mark: &Mark) -> Content<'a> {
        let payload = json!({ "request_id": mark.request, "slot": mark.slot });
        Content {
            text: &message.text,
            blocks: &message.blocks,
            metadata: json!({ "event_type": MARKED, "event_payload": payload }),
            link_names: false,
            parse: "none",
        }
    }
}

#[derive(Serialize)]
struct Ephemeral<'a> {
    channel: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_ts: Option<&'a str>,
    text: &'a str,
    link_names: bool,
    parse: &'static str,
}

#[derive(Deserialize)]
struct History {
    messages: Vec<Seen>,
    #[serde(default)]
    response_metadata: Option<Next>,
}

#[derive(Deserialize)]
struct Next {
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Seen {
    #[serde(default)]
    ts: String,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    event_payload: Value,
}

impl Seen {
    /// Another app could give its message our mark. It would only make itself the message that we cannot update,
    /// which has us post our own.
    fn is(&self, mark: &Mark) -> bool {
        let Some(Metadata { event_type, event_payload }) = &self.metadata else { return false };
        let payload = |key| event_payload.get(key).and_then(Value::as_str);
        !self.ts.is_empty()
            && event_type == MARKED
            && payload("request_id") == Some(mark.request.to_string().as_str())
            && payload("slot") == Some(mark.slot.as_str())
    }
}

#[derive(Deserialize)]
struct Permalink {
    permalink: String,
}

#[derive(Deserialize)]
struct Members {
    users: Vec<String>,
}

#[derive(Deserialize)]
struct Socket {
    url: String,
}
