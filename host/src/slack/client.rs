//! Slack's Web API, as far as it is called: each call once, with a time limit, counted, and with an error
//! that says whether Slack may have done it all the same.
//!
//! It neither repeats a call nor waits for a rate limit; whoever calls knows what else is to be done meanwhile.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::error::Error;
use std::fmt;
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use slack_morphism::errors::SlackClientError;
use slack_morphism::prelude::{
    SlackApiToken, SlackApiTokenValue, SlackBlock, SlackClientHyperConnector, SlackClientHyperHttpsConnector,
    SlackModalView, SlackView,
};

use super::message::Message;
use super::post::Mark;
use crate::lifecycle::Timestamp;
use crate::loopback::is_loopback;
use crate::secret::Secret;
use crate::telemetry::{CallMetrics, CallOutcome};

/// Where Slack is.
pub const DEFAULT_API_URL: &str = "https://slack.com/api";

/// How long Slack may take to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// How long it may take to connect to it: less, so that another address of the same name has its turn.
const WITHIN_CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to open a modal: after 3 s it would not.
const WITHIN_TRIGGER: Duration = Duration::from_millis(2500);

/// How long to keep away where Slack says that it is too much, and not for how long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

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

enum Link {
    Encrypted(slack_morphism::SlackClient<SlackClientHyperHttpsConnector>),
    /// On this machine only.
    Plain(slack_morphism::SlackClient<SlackClientHyperConnector<HttpConnector>>),
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Too many calls. Nothing was done.
    #[error("Slack takes no more of these calls for {} ms", retry_after.as_millis())]
    RateLimited {
        /// When to call again.
        retry_after: Duration,
    },
    /// Slack says no. Nothing was done.
    #[error("Slack refuses: {code}")]
    Rejected {
        /// Slack's code.
        code: String,
    },
    /// No usable answer: a timeout, a reset, a 5xx, something that is not from Slack. It may have been done.
    #[error("Slack does not answer: {detail}")]
    Unanswered {
        /// What happened. It holds nothing of what was sent or answered.
        detail: String,
    },
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

/// Why a URL is none that Slack could be called at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadApiUrl {
    /// It is no such URL.
    #[error("this is a URL such as `https://slack.com/api`, without a query")]
    Malformed,
    /// The token would cross a network for everybody to read.
    #[error(
        "`http` would send the token in the clear; it is for a simulator on this machine only: use `https`"
    )]
    Unencrypted,
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

/// The URL, without a slash at its end, where the Web API may be called at it.
///
/// # Errors
/// Where it is malformed, or would send the token over a network in the clear.
pub fn api_url(text: &str) -> Result<String, BadApiUrl> {
    let uri: Uri = text.parse().map_err(|_| BadApiUrl::Malformed)?;
    let authority = uri.authority().ok_or(BadApiUrl::Malformed)?;
    if uri.query().is_some() || text.contains('#') || authority.as_str().contains('@') {
        return Err(BadApiUrl::Malformed);
    }
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(authority.host()) => {}
        Some("http") => return Err(BadApiUrl::Unencrypted),
        _ => return Err(BadApiUrl::Malformed),
    }
    Ok(text.trim_end_matches('/').to_owned())
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

    async fn post<R: DeserializeOwned + Send>(
        &self,
        method: &'static str,
        body: &(impl Serialize + Send + Sync),
    ) -> Result<R, CallError> {
        self.post_as(&self.token, WITHIN, method, body).await
    }

    async fn post_as<R: DeserializeOwned + Send>(
        &self,
        token: &SlackApiToken,
        within: Duration,
        method: &'static str,
        body: &(impl Serialize + Send + Sync),
    ) -> Result<R, CallError> {
        let calling = async {
            match &self.link {
                Link::Encrypted(client) => {
                    client.open_session(token).http_session_api.http_post(method, body, None).await
                }
                Link::Plain(client) => {
                    client.open_session(token).http_session_api.http_post(method, body, None).await
                }
            }
        };
        self.conclude(method, within, tokio::time::timeout(within, calling).await)
    }

    /// The methods that read take no JSON.
    async fn get<R: DeserializeOwned + Send>(
        &self,
        method: &'static str,
        parameters: &[(&'static str, Option<&str>)],
    ) -> Result<R, CallError> {
        let parameters = parameters.to_vec();
        let calling = async {
            match &self.link {
                Link::Encrypted(client) => {
                    client
                        .open_session(&self.token)
                        .http_session_api
                        .http_get(method, &parameters, None)
                        .await
                }
                Link::Plain(client) => {
                    client
                        .open_session(&self.token)
                        .http_session_api
                        .http_get(method, &parameters, None)
                        .await
                }
            }
        };
        self.conclude(method, WITHIN, tokio::time::timeout(WITHIN, calling).await)
    }

    fn conclude<R>(
        &self,
        method: &'static str,
        within: Duration,
        answered: Result<Result<Answer<R>, SlackClientError>, tokio::time::error::Elapsed>,
    ) -> Result<R, CallError> {
        let unanswered = |detail: String| Err(CallError::Unanswered { detail });
        let result = match answered {
            Ok(Ok(Answer { ok: true, said })) => Ok(said),
            Ok(Ok(Answer { ok: false, .. })) => unanswered("`ok` is false, and there is no error".to_owned()),
            Ok(Err(error)) => Err(call_error(&error)),
            Err(_) => unanswered(format!("no answer within {} ms", within.as_millis())),
        };
        let outcome = match &result {
            Ok(_) => CallOutcome::Ok,
            Err(CallError::RateLimited { .. }) => CallOutcome::RateLimited,
            Err(CallError::Rejected { .. } | CallError::Unanswered { .. }) => CallOutcome::Error,
        };
        self.calls.count(method, outcome);
        result
    }
}

impl fmt::Debug for SlackClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlackClient")
    }
}

/// The method that reads where a message would be.
#[must_use]
pub(super) const fn history(thread: Option<&str>) -> &'static str {
    match thread {
        None => "conversations.history",
        Some(_) => "conversations.replies",
    }
}

fn api_token(token: &Secret) -> Result<SlackApiToken, BadClient> {
    let token = std::str::from_utf8(token.expose()).map_err(|_| BadClient::Token)?;
    Ok(SlackApiToken::new(SlackApiTokenValue(token.to_owned())))
}

/// What an error means for the caller, without the bodies that the library's own texts hold.
fn call_error(error: &SlackClientError) -> CallError {
    let unanswered = |detail: String| CallError::Unanswered { detail };
    match error {
        SlackClientError::ApiError(error) => refusal(&error.code),
        SlackClientError::RateLimitError(error) => {
            CallError::RateLimited { retry_after: error.retry_after.unwrap_or(RETRY_AFTER) }
        }
        SlackClientError::HttpError(error) => unanswered(format!("HTTP {}", error.status_code.as_u16())),
        SlackClientError::HttpProtocolError(error) => unanswered(causes(error.cause.as_deref())),
        SlackClientError::SystemError(error) => unanswered(causes(error.cause.as_deref())),
        SlackClientError::ProtocolError(_) => unanswered("the answer is none of Slack's".to_owned()),
        SlackClientError::EndOfStream(_) | SlackClientError::SocketModeProtocolError(_) => {
            unanswered("the connection ended".to_owned())
        }
    }
}

/// What a code means. Slack says of some that a part may have been done.
fn refusal(code: &str) -> CallError {
    match code {
        "ratelimited" | "rate_limited" => CallError::RateLimited { retry_after: RETRY_AFTER },
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" => {
            CallError::Unanswered { detail: code.to_owned() }
        }
        _ => {
            let readable = |code: &&str| {
                let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                !code.is_empty() && code.len() <= 64 && code.bytes().all(known)
            };
            // It is going to be logged, stored and shown.
            let code = Some(code).filter(readable).unwrap_or("unreadable_code");
            CallError::Rejected { code: code.to_owned() }
        }
    }
}

fn causes(error: Option<&(dyn Error + Send + Sync)>) -> String {
    let mut next = error.map(|error| error as &dyn Error);
    let mut causes = Vec::new();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    if causes.is_empty() { "the connection failed".to_owned() } else { causes.join(": ") }
}

/// A point in time as Slack writes it: seconds, with six places.
fn timestamp(at: Timestamp) -> String {
    let millis = at.as_millis();
    format!("{}.{:03}000", millis / 1000, millis % 1000)
}

fn nothing(_: Nothing) {}

/// `ok`, and what only this method says. Whole messages are not read: an answer that cannot be read
/// after a message was posted would look like a failure.
#[derive(Deserialize)]
struct Answer<R> {
    ok: bool,
    #[serde(flatten)]
    said: R,
}

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::lifecycle::RequestId;
    use crate::slack::Slot;
    use crate::slack::fake::{FakeSlack, Fate, TOKEN};

    const START: Timestamp = Timestamp::from_millis(1_780_000_000_007);

    async fn slack() -> FakeSlack {
        FakeSlack::start(Arc::new(ManualClock::at(START))).await
    }

    fn mark(slot: Slot) -> Mark {
        Mark { request: RequestId::new(START, 0, 1), slot }
    }

    fn message(text: &str) -> Message {
        Message { text: text.to_owned(), blocks: Vec::new() }
    }

    fn view() -> SlackModalView {
        serde_json::from_value(json!({"title": {"type": "plain_text", "text": "Edit"}, "blocks": []}))
            .unwrap()
    }

    #[test]
    fn a_token_is_sent_over_no_network_in_the_clear() {
        for (url, expected) in [
            ("https://slack.com/api", Ok("https://slack.com/api")),
            ("https://slack.com/api/", Ok("https://slack.com/api")),
            ("http://127.0.0.1:4000", Ok("http://127.0.0.1:4000")),
            ("http://127.9.9.9:4000/api", Ok("http://127.9.9.9:4000/api")),
            ("http://[::1]:4000/api", Ok("http://[::1]:4000/api")),
            ("http://LOCALHOST/api", Ok("http://LOCALHOST/api")),
            ("http://slack.com/api", Err(BadApiUrl::Unencrypted)),
            ("http://localhost.evil.test/api", Err(BadApiUrl::Unencrypted)),
            ("http://127.0.0.1.evil.test/api", Err(BadApiUrl::Unencrypted)),
            ("http://0.0.0.0:80/api", Err(BadApiUrl::Unencrypted)),
            ("http://127.0.0.1@evil.test/api", Err(BadApiUrl::Malformed)),
            ("https://slack.com/api?token=1", Err(BadApiUrl::Malformed)),
            ("https://slack.com/api#x", Err(BadApiUrl::Malformed)),
            ("ws://127.0.0.1/api", Err(BadApiUrl::Malformed)),
            ("127.0.0.1:4000", Err(BadApiUrl::Malformed)),
            ("/api", Err(BadApiUrl::Malformed)),
            ("", Err(BadApiUrl::Malformed)),
        ] {
            assert_eq!(api_url(url), expected.map(str::to_owned), "{url}");
        }
    }

    #[tokio::test]
    async fn messages_are_sent_as_slack_wants_them() {
        let slack = slack().await;
        let client = slack.client();
        let posted = client.post_message("C1", None, &message("one"), &mark(Slot::Main)).await.unwrap();
        let (reply, replies) = (message("two"), mark(Slot::EscalationThread));
        client.post_message("C1", Some(&posted.ts), &reply, &replies).await.unwrap();
        client.update("C1", &posted.ts, &message("three"), &mark(Slot::Main)).await.unwrap();
        client.post_ephemeral("C1", "U1", Some("1.2"), "only you").await.unwrap();
        client.open_view("trigger", &view()).await.unwrap();
        client.update_view("V1", Some("hash"), &view()).await.unwrap();
        let calls = slack.calls();
        assert!(calls.iter().all(|call| call.token == format!("Bearer {TOKEN}")));
        let sent: Vec<Value> = calls.into_iter().map(|call| json!({ call.method: call.body })).collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&sent).unwrap());
    }

    #[tokio::test]
    async fn what_is_asked_for_is_read_out_of_what_is_answered() {
        let slack = slack().await;
        let client = slack.client();
        slack.say("usergroups.users.list", json!({"users": ["U1", "U2"], "more": {"to": "come"}}));
        slack.say("apps.connections.open", json!({"url": "wss://slack.test/link?ticket=1"}));
        assert_eq!(client.usergroup_members("S1").await.unwrap(), ["U1", "U2"]);
        let socket = client.open_socket(&Secret::new("xapp-1")).await.unwrap();
        assert_eq!(socket, "wss://slack.test/link?ticket=1");
        assert_eq!(client.permalink("C1", "1.2").await.unwrap(), "https://slack.test/C1/1.2");
        let identity = client.auth_test().await.unwrap();
        assert_eq!((identity.team_id.as_str(), identity.user_id.as_str()), ("T1", "UBOT"));
        let tokens: Vec<String> = slack.calls().into_iter().map(|call| call.token).collect();
        assert_eq!(tokens[1], "Bearer xapp-1", "the socket has a token of its own");
        assert_eq!(tokens[0], format!("Bearer {TOKEN}"));
    }

    #[tokio::test]
    async fn errors_say_whether_it_may_have_been_done() {
        let slack = slack().await;
        let client = slack.client();
        let limited = |seconds| CallError::RateLimited { retry_after: Duration::from_secs(seconds) };
        let rejected = |code: &str| CallError::Rejected { code: code.to_owned() };
        let unanswered = |detail: &str| CallError::Unanswered { detail: detail.to_owned() };
        for (fate, expected) in [
            (Fate::Limited(7), limited(7)),
            (Fate::Refused("ratelimited"), limited(5)),
            (Fate::Refused("channel_not_found"), rejected("channel_not_found")),
            (Fate::Refused("<script>"), rejected("unreadable_code")),
            (Fate::Refused("internal_error"), unanswered("internal_error")),
            (Fate::Refused("fatal_error"), unanswered("fatal_error")),
            (Fate::Failed(502), unanswered("HTTP 502")),
            (Fate::Failed(404), unanswered("HTTP 404")),
            (Fate::DoneAndGarbled, unanswered("the answer is none of Slack's")),
        ] {
            slack.decide(move |_, _| fate);
            let error =
                client.post_message("C1", None, &message("one"), &mark(Slot::Main)).await.unwrap_err();
            assert_eq!(error, expected, "{fate:?}");
        }
        for fate in [Fate::Cut, Fate::DoneAndCut] {
            slack.decide(move |_, _| fate);
            let error =
                client.post_message("C1", None, &message("one"), &mark(Slot::Main)).await.unwrap_err();
            assert!(matches!(error, CallError::Unanswered { .. }), "{fate:?}: {error}");
        }
        // A message was posted whether or not the answer could be read.
        assert_eq!(slack.messages().len(), 2);
        let gone =
            SlackClient::new(&Secret::new(TOKEN), Some("http://127.0.0.1:9/api"), client.calls.clone());
        let error = gone.unwrap().auth_test().await.unwrap_err().to_string();
        assert!(error.starts_with("Slack does not answer: ") && error.contains("refused"), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
        let calls = |outcome| client.calls.counted("chat.postMessage", outcome);
        assert_eq!(
            (calls(CallOutcome::Ok), calls(CallOutcome::RateLimited), calls(CallOutcome::Error)),
            (0, 2, 9)
        );
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_not_waited_for() {
        let slack = slack().await;
        // Connected beforehand: time passes by itself once there is nothing left to do but wait.
        let (modals, others) = (slack.client(), slack.client());
        for client in [&modals, &others] {
            client.auth_test().await.unwrap();
        }
        slack.decide(|_, _| Fate::Hangs);
        tokio::time::pause();
        let error = modals.open_view("trigger", &view()).await.unwrap_err();
        assert_eq!(error, CallError::Unanswered { detail: "no answer within 2500 ms".to_owned() });
        let error = others.auth_test().await.unwrap_err();
        assert_eq!(error, CallError::Unanswered { detail: "no answer within 10000 ms".to_owned() });
    }

    #[tokio::test]
    async fn a_message_is_found_by_its_mark() {
        let slack = slack().await;
        let client = slack.client();
        let other = Mark { request: RequestId::new(START, 0, 2), slot: Slot::Main };
        let main = client.post_message("C1", None, &message("ours"), &mark(Slot::Main)).await.unwrap();
        let (reply, replies) = (message("reply"), mark(Slot::EscalationThread));
        let thread = client.post_message("C1", Some(&main.ts), &reply, &replies).await.unwrap();
        for text in ["later", "and later", "and latest"] {
            client.post_message("C1", None, &message(text), &other).await.unwrap();
        }
        let within = (START.minus(1000), START.plus(1000));
        let find = async |thread: Option<&str>, mark: &Mark, (from, to): (Timestamp, Timestamp)| {
            let mut cursor: Option<String> = None;
            for pages in 1.. {
                let search = Search { channel: "C1", thread, from, to, mark, cursor: cursor.as_deref() };
                match client.find(search).await.unwrap() {
                    Found::At(ts) => return (Some(ts), pages),
                    Found::Nowhere => return (None, pages),
                    Found::NotYet(next) => cursor = Some(next),
                }
            }
            (None, 0)
        };
        assert_eq!(find(None, &mark(Slot::Main), within).await, (Some(main.ts.clone()), 2));
        assert_eq!(find(None, &mark(Slot::EscalationThread), within).await, (None, 2));
        let found = find(Some(&main.ts), &mark(Slot::EscalationThread), within).await;
        assert_eq!(found, (Some(thread.ts), 1));
        let later = (START.plus(5000), START.plus(9000));
        assert_eq!(find(None, &mark(Slot::Main), later).await, (None, 1));
    }
}
