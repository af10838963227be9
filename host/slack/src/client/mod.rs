//! The methods of Slack's Web API that are used. Each call is made once, has a time limit, is counted, and returns an
//! error that says whether Slack may have done it all the same.
//!
//! It neither repeats a call nor waits for a rate limit: that is for the caller, who knows what else waits.

mod api_url;
mod call;
pub(crate) mod metrics;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::lifecycle::Timestamp;
use countersign_core::record::Mark;
use countersign_core::secret::Secret;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use serde_json::json;
use slack_morphism::prelude::{
    SlackApiToken, SlackApiTokenValue, SlackClientHyperConnector, SlackModalView, SlackView,
};

use crate::message::Message;
pub use api_url::{ApiUrlError, DEFAULT_API_URL, api_url};
pub use call::CallError;
use call::{CALL_TIMEOUT, CONNECT_TIMEOUT, Link, TRIGGER_TIMEOUT};
use metrics::CallMetrics;
use wire::{Content, Empty, Ephemeral, History, Permalink, Post, Socket, Update, UserGroupMembers, UserInfo};

/// How many messages of a channel's history one page has. More could come to some megabytes.
const PAGE: u32 = 200;

/// A client of Slack's Web API.
pub struct SlackClient {
    link: Link,
    token: SlackApiToken,
    calls: CallMetrics,
    /// What `auth.test` answered last.
    identity: Mutex<Option<Arc<Identity>>>,
}

/// A message that Slack has accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Posted {
    /// The channel's id, even if the call named the channel.
    pub channel: String,
    /// The message's `ts`, which identifies it in its channel.
    pub ts: String,
}

/// Whom the bot token belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Identity {
    /// The workspace's id.
    #[serde(default)]
    pub team_id: Option<String>,
    /// The id of the Enterprise organization that the workspace is part of.
    #[serde(default)]
    pub enterprise_id: Option<String>,
    /// The user id of the bot.
    pub user_id: String,
    /// The bot's id.
    #[serde(default)]
    pub bot_id: Option<String>,
}

/// Where to search for a message of ours.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The channel's id.
    pub channel: &'a str,
    /// The `ts` of the thread, if the message would be in one.
    pub thread: Option<&'a str>,
    /// The earliest time at which it can have been posted.
    pub from: Timestamp,
    /// The latest time at which it can have been posted.
    pub to: Timestamp,
    /// The mark in its metadata.
    pub mark: &'a Mark,
    /// The cursor of the page to read; `None` for the first one.
    pub cursor: Option<&'a str>,
}

/// The result of searching one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchResult {
    /// The message exists, with this `ts`.
    Found(String),
    /// It is not on this page; the next one has this cursor.
    NextPage(String),
    /// It does not exist.
    NotFound,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL of the Web API is not acceptable.
    #[error(transparent)]
    Url(#[from] ApiUrlError),
    /// The token is not text.
    #[error("the token is not UTF-8")]
    Token,
    /// The system has no root certificates to verify Slack's with.
    #[error("the system's certificates cannot be read: {0}")]
    Certificates(std::io::Error),
}

impl SlackClient {
    /// A client that uses this bot token, at `url` or at [`DEFAULT_API_URL`].
    ///
    /// # Errors
    /// If the token or the URL is malformed, or the system's root certificates cannot be read.
    pub fn new(token: &Secret, url: Option<&str>, calls: CallMetrics) -> Result<SlackClient, ClientError> {
        let url = api_url(url.unwrap_or(DEFAULT_API_URL))?;
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_keepalive(Some(Duration::from_secs(60)));
        let link = if url.starts_with("http:") {
            let connector = SlackClientHyperConnector::with_connector(http).with_slack_api_url(&url);
            Link::Plain(slack_morphism::SlackClient::new(connector))
        } else {
            http.enforce_http(false);
            let connector = HttpsConnectorBuilder::new()
                .with_native_roots()
                .map_err(ClientError::Certificates)?
                .https_only()
                // Not HTTP/2, which has one connection for all calls: if that were to hang, every call would fail
                // until the system gives the connection up, minutes later. Here a timeout closes its own connection.
                .enable_http1()
                .wrap_connector(http);
            let connector = SlackClientHyperConnector::with_connector(connector).with_slack_api_url(&url);
            Link::Encrypted(slack_morphism::SlackClient::new(connector))
        };
        Ok(SlackClient { link, token: api_token(token)?, calls, identity: Mutex::new(None) })
    }

    /// A client of a Slack in this process.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    pub fn in_process(slack: crate::fake::InProcess, calls: CallMetrics) -> SlackClient {
        let token = SlackApiToken::new(SlackApiTokenValue("xoxb".to_owned()));
        SlackClient { link: Link::InProcess(slack), token, calls, identity: Mutex::new(None) }
    }

    /// Posts a message: `chat.postMessage`.
    ///
    /// # Errors
    /// If Slack refuses or does not answer; in the latter case [`SlackClient::find`] says whether it was posted.
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
            content: Content::new(message, mark),
            unfurl_links: false,
            unfurl_media: false,
        };
        self.post("chat.postMessage", &body).await
    }

    /// Replaces what a message shows: `chat.update`.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn update(
        &self,
        channel: &str,
        ts: &str,
        message: &Message,
        mark: &Mark,
    ) -> Result<(), CallError> {
        let body = Update { channel, ts, content: Content::new(message, mark) };
        self.post("chat.update", &body).await.map(|Empty {}| ())
    }

    /// Posts a message that only one person sees: `chat.postEphemeral`. `text` is escaped `mrkdwn`.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn post_ephemeral(
        &self,
        channel: &str,
        user: &str,
        thread: Option<&str>,
        text: &str,
    ) -> Result<(), CallError> {
        let body = Ephemeral { channel, user, thread_ts: thread, text, link_names: false, parse: "none" };
        self.post("chat.postEphemeral", &body).await.map(|Empty {}| ())
    }

    /// Opens a modal: `views.open`, within 3 s of the interaction that the `trigger_id` is from.
    ///
    /// A trigger opens one modal. If it has, this interaction was delivered before, and nothing is left to do.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn open_view(&self, trigger_id: &str, view: &SlackModalView) -> Result<(), CallError> {
        let body = json!({ "trigger_id": trigger_id, "view": SlackView::Modal(view.clone()) });
        match self.post_as(&self.token, TRIGGER_TIMEOUT, "views.open", &body).await {
            Ok(Empty {}) => Ok(()),
            Err(CallError::Rejected { code }) if code == "exchanged_trigger_id" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Replaces an open modal: `views.update`; with a hash, only if the modal still has that hash.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
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
        self.post("views.update", &body).await.map(|Empty {}| ())
    }

    /// Searches one page for a message of ours: `conversations.history`, or `conversations.replies` in a thread.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn find(&self, search: Search<'_>) -> Result<SearchResult, CallError> {
        let Search { channel, thread, from, to, mark, cursor } = search;
        let (oldest, latest, page) = (slack_timestamp(from), slack_timestamp(to), PAGE.to_string());
        let method = if thread.is_some() { "conversations.replies" } else { "conversations.history" };
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
        let History { messages, response_metadata } = self.get(method, &parameters).await?;
        if let Some(message) = messages.into_iter().find(|message| message.has(mark)) {
            return Ok(SearchResult::Found(message.ts));
        }
        let next = response_metadata.and_then(|it| it.next_cursor).filter(|cursor| !cursor.is_empty());
        Ok(next.map_or(SearchResult::NotFound, SearchResult::NextPage))
    }

    /// The URL at which people can read a message: `chat.getPermalink`.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn permalink(&self, channel: &str, ts: &str) -> Result<String, CallError> {
        let parameters = [("channel", Some(channel)), ("message_ts", Some(ts))];
        let answer: Permalink = self.get("chat.getPermalink", &parameters).await?;
        Ok(answer.permalink)
    }

    /// The user ids of the members of a user group: `usergroups.users.list`.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn usergroup_members(&self, usergroup: &str) -> Result<Vec<String>, CallError> {
        let parameters = [("usergroup", Some(usergroup))];
        let answer: UserGroupMembers = self.get("usergroups.users.list", &parameters).await?;
        Ok(answer.users)
    }

    /// Whether a user was deactivated, or no user has this id: `users.info`.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn is_gone(&self, user: &str) -> Result<bool, CallError> {
        match self.get::<UserInfo>("users.info", &[("user", Some(user))]).await {
            Ok(answer) => Ok(answer.user.deleted),
            Err(CallError::Rejected { code }) if code == "user_not_found" => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whom the token belongs to: `auth.test`. [`SlackClient::identity`] is that answer from then on.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn auth_test(&self) -> Result<Arc<Identity>, CallError> {
        let identity: Identity = self.post("auth.test", &json!({})).await?;
        let identity = Arc::new(identity);
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&identity));
        Ok(identity)
    }

    /// What [`SlackClient::auth_test`] answered last; `None` before its first answer.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The URL of a new WebSocket: `apps.connections.open`. The URL holds a ticket: it must not be logged.
    ///
    /// # Errors
    /// If Slack refuses or does not answer.
    pub async fn open_socket(&self, app_token: &Secret) -> Result<String, CallError> {
        let Ok(token) = api_token(app_token) else {
            return Err(CallError::Rejected { code: "invalid_auth".to_owned() });
        };
        let answer: Socket = self.post_as(&token, CALL_TIMEOUT, "apps.connections.open", &json!({})).await?;
        Ok(answer.url)
    }
}

impl fmt::Debug for SlackClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlackClient")
    }
}

fn api_token(token: &Secret) -> Result<SlackApiToken, ClientError> {
    let token = std::str::from_utf8(token.expose()).map_err(|_| ClientError::Token)?;
    Ok(SlackApiToken::new(SlackApiTokenValue(token.to_owned())))
}

/// A timestamp as Slack writes it: seconds with six decimal places.
fn slack_timestamp(at: Timestamp) -> String {
    let millis = at.as_millis();
    format!("{}.{:03}000", millis / 1000, millis % 1000)
}
