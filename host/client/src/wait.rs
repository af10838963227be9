//! Waiting for a decision, over cuts and restarts: by an event stream, or by long-polls where that does not get through.

use std::time::Duration;

use countersign_core::json;
use http_body_util::BodyExt as _;
use hyper::header::{HeaderMap, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::answer::Waited;
use crate::api::{Client, answer, failure, token_header};
use crate::error::CallError;
use crate::http::{Call, host, media_type, read};
use crate::patience::pause;
use crate::sse::Events;

/// The header in which a gateway says how often a heartbeat comes at least, in seconds.
const HEARTBEAT_SEC: &str = "countersign-heartbeat-sec";

/// How often one comes if the gateway does not say so, in seconds.
const DEFAULT_HEARTBEAT_SEC: u64 = 20;

/// How long the first event may take. A proxy that gathers the stream in a buffer sends none.
const FIRST: Duration = Duration::from_secs(10);

/// How long the gateway is asked to wait in one long-poll, in seconds.
const POLL_SEC: u64 = 50;

/// When to come back after a stream that said nothing of that. It also keeps whatever answers at once, again and again,
/// from being asked all the time.
const COME_BACK: Duration = Duration::from_secs(1);

/// What is heard of a request.
#[derive(Clone)]
pub enum News {
    /// How it stands, at first and after each change.
    State(Box<Waited>),
    /// Nothing is heard of the gateway at present, for this reason; it is tried again.
    Lost(CallError),
    /// It is heard of again.
    Back,
    /// The gateway refuses to say more. It is the last word.
    Refused(CallError),
}

/// Somebody waits for a request; dropping this ends that.
pub struct Waiting {
    news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Waiting {
    /// Waits for the request with this wait token.
    #[must_use]
    pub fn start(client: &Client, token: &str) -> Waiting {
        let (sender, news) = mpsc::channel(8);
        let waiter =
            Waiter { client: client.clone(), token: token.to_owned(), news: sender, seen: None, lost: false };
        Waiting { news, task: tokio::spawn(waiter.run()) }
    }

    /// The next that is heard; `None` after a request has ended, or the gateway has refused. Nothing is lost if the future
    /// is dropped.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Waiter {
    client: Client,
    token: String,
    news: mpsc::Sender<News>,
    /// The version that was seen last, as a stream names it.
    seen: Option<HeaderValue>,
    /// Whether nothing is heard at present.
    lost: bool,
}

/// How a stream or a long-poll came to its end.
enum End {
    /// The request has ended, or nobody listens any more.
    Done,
    /// It was heard of, and then the stream ended; it says when to come back.
    Heard(Duration),
    /// It was not heard of.
    Lost(CallError),
    /// Streams do not get through.
    NoStreams(CallError),
}

impl Waiter {
    async fn run(mut self) {
        let (mut by_stream, mut failures) = (true, 0);
        loop {
            let end = if by_stream { self.stream().await } else { self.poll().await };
            let wait = match end {
                End::Done => return,
                End::Heard(wait) => {
                    failures = 0;
                    wait
                }
                End::NoStreams(error) => {
                    by_stream = false;
                    if !self.lost(error).await {
                        return;
                    }
                    Duration::ZERO
                }
                End::Lost(error) => {
                    if matches!(error, CallError::Refused(_)) {
                        // Nobody to tell is as good as told.
                        let _ = self.news.send(News::Refused(error)).await;
                        return;
                    }
                    let least = match &error {
                        CallError::Unavailable { retry_after, .. } => retry_after.unwrap_or_default(),
                        _ => Duration::ZERO,
                    };
                    if !self.lost(error).await {
                        return;
                    }
                    failures += 1;
                    pause(failures - 1).max(least)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Tells that nothing is heard, once; returns whether anybody listens.
    async fn lost(&mut self, error: CallError) -> bool {
        let was_lost = std::mem::replace(&mut self.lost, true);
        was_lost || self.news.send(News::Lost(error)).await.is_ok()
    }

    /// Tells that it is heard of again, if nothing was; returns whether anybody listens.
    async fn back(&mut self) -> bool {
        !std::mem::take(&mut self.lost) || self.news.send(News::Back).await.is_ok()
    }

    /// Tells how the request stands; returns whether there is more to hear.
    async fn tell(&mut self, waited: Waited) -> bool {
        let has_ended = waited.status.is_terminal();
        self.back().await && self.news.send(News::State(Box::new(waited))).await.is_ok() && !has_ended
    }

    async fn poll(&mut self) -> End {
        let polled = async {
            // While nothing is heard, an answer at once shows that it is: somebody may be out of patience before a change.
            let wait_sec = if self.lost { 0 } else { POLL_SEC };
            let url = self.client.route(&format!("/api/guard/wait?timeoutSec={wait_sec}"))?;
            let authorization = Some(token_header(&self.token)?);
            let call = Call { url: &url, body: None, authorization, headers: Vec::new() };
            let within = Duration::from_secs(wait_sec + 15);
            answer::<Waited>(&self.client.shared.http.send(call, within).await?)
        };
        match polled.await {
            Ok(waited) => {
                if self.tell(waited).await {
                    End::Heard(COME_BACK)
                } else {
                    End::Done
                }
            }
            Err(error) => End::Lost(error),
        }
    }

    async fn stream(&mut self) -> End {
        let opened = async {
            let url = self.client.route("/api/guard/wait-sse")?;
            let authorization = Some(token_header(&self.token)?);
            let headers = self.seen.iter().map(|seen| ("last-event-id", seen.clone())).collect();
            let call = Call { url: &url, body: None, authorization, headers };
            let response = self.client.shared.http.open(call, FIRST).await?;
            Ok((response, host(&url)))
        };
        let (response, host) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return End::Lost(error),
        };
        if response.status().as_u16() != 200 || media_type(response.headers()) != "text/event-stream" {
            let reply = match tokio::time::timeout(FIRST, read(response, &host)).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(error)) => return End::Lost(error),
                Err(_) => return End::NoStreams(CallError::Nonsense("an endless answer".to_owned())),
            };
            return match failure(&reply) {
                error @ CallError::Refused(_) => End::Lost(error),
                // Too many streams are open, or something in between does not know them.
                error => End::NoStreams(error),
            };
        }
        let silence = silence(response.headers());
        self.events(response.into_body(), silence).await
    }

    async fn events(&mut self, mut body: hyper::body::Incoming, silence: Duration) -> End {
        let mut events = Events::default();
        let mut come_back = COME_BACK;
        let (mut heard, mut deadline) = (false, Instant::now() + FIRST);
        loop {
            let bytes = match tokio::time::timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(None) if heard => return End::Heard(come_back),
                Ok(None | Some(Err(_))) => return End::Lost(cut()),
                Err(_) if heard => return End::Lost(cut()),
                Err(_) => {
                    let why = "the event stream stays empty, as if something on the way held it back";
                    return End::NoStreams(CallError::Nonsense(why.to_owned()));
                }
            };
            if events.push(&bytes).is_err() {
                return End::NoStreams(CallError::Nonsense("an endless event".to_owned()));
            }
            while let Some(event) = events.next() {
                if let Some(retry_ms) = event.retry_ms {
                    come_back = Duration::from_millis(retry_ms.min(30_000));
                }
                // A stream that is resumed begins with a lone `retry`, and then may have nothing to say for long.
                if event.retry_ms.is_some() || event.name == "heartbeat" || event.name == "state" {
                    (heard, deadline) = (true, Instant::now() + silence);
                    if !self.back().await {
                        return End::Done;
                    }
                }
                if event.name != "state" {
                    continue;
                }
                let waited = json::parse(event.data.as_bytes()).and_then(json::typed::<Waited>);
                let waited = match waited {
                    Ok(waited) => waited,
                    Err(refused) => return End::NoStreams(CallError::Nonsense(refused.to_string())),
                };
                self.seen = event.id.and_then(|id| HeaderValue::from_str(&id).ok());
                if !self.tell(waited).await {
                    return End::Done;
                }
            }
        }
    }
}

/// How long a stream may be silent: longer than two of the gateway's heartbeats.
fn silence(headers: &HeaderMap) -> Duration {
    let said = headers.get(HEARTBEAT_SEC).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    Duration::from_secs(2 * said.unwrap_or(DEFAULT_HEARTBEAT_SEC).clamp(5, 60) + 5)
}

fn cut() -> CallError {
    crate::http::unavailable("the connection was cut".to_owned())
}
