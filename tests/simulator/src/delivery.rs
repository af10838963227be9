//! Delivers interactions to the app: signed over HTTP, or over a socket.

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::clock;
use crate::shared::{Route, Shared};
use crate::signature::signature;
use crate::sockets::{self, ACKNOWLEDGED_WITHIN};

/// The outcome of one delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivered {
    /// The app answered over HTTP.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: String,
    },
    /// The app acknowledged over a socket.
    Acknowledged {
        /// The answer that came with it.
        payload: Option<Value>,
        /// How often it was delivered until then.
        attempts: u32,
        /// Whether that was within three seconds.
        in_time: bool,
    },
    /// Nothing came within three seconds.
    Late,
    /// The connection failed.
    Unreachable(String),
}

impl Delivered {
    /// Whether Slack accepts it.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(
            self,
            Delivered::Answered { status: 200, .. } | Delivered::Acknowledged { in_time: true, .. }
        )
    }

    /// The answer as JSON: null if there is none, `None` if it cannot be read.
    #[must_use]
    pub fn response(&self) -> Option<Value> {
        match self {
            Delivered::Answered { status: 200, body } if body.trim().is_empty() => Some(Value::Null),
            Delivered::Answered { status: 200, body } => serde_json::from_str(body).ok(),
            Delivered::Acknowledged { payload, in_time: true, .. } => {
                Some(payload.clone().unwrap_or(Value::Null))
            }
            _ => None,
        }
    }

    /// What the person reads if Slack does not accept it.
    pub(crate) fn complaint(&self) -> String {
        match self {
            Delivered::Answered { status, .. } => format!("This app responded with Status Code {status}."),
            _ => "This app is not responding. Try again in a moment.".into(),
        }
    }
}

/// Delivers an interaction, once or twice, by the current route. The first outcome is the one that counts for Slack.
pub(crate) async fn deliver(shared: &Shared, payload: &Value) -> Vec<Delivered> {
    let (gateway, route) = shared.delivery();
    let (twice, at_once, later) = shared.change(|world| {
        let twice = world.chance.duplicates();
        (twice, world.chance.random().coin(), world.chance.random().coin())
    });
    let over_socket = match route {
        Route::Http => false,
        Route::Socket | Route::Both => true,
        Route::Either => shared.sockets.count() > 0,
    };
    let over_http = route == Route::Both || !over_socket;
    let socket = async {
        match over_socket {
            true if twice => {
                let (one, other) = tokio::join!(to_socket(shared, payload), to_socket(shared, payload));
                vec![one, other]
            }
            true => vec![to_socket(shared, payload).await],
            false => Vec::new(),
        }
    };
    let http = async {
        if !over_http {
            return Vec::new();
        }
        // A duplicate has the same bytes, or is signed again a second later.
        let seconds = clock::micros() / 1_000_000;
        let once = post(shared, gateway.as_deref(), payload, seconds);
        if !twice {
            return vec![once.await];
        }
        let again = post(shared, gateway.as_deref(), payload, seconds + u64::from(later));
        if at_once {
            let (one, other) = tokio::join!(once, again);
            vec![one, other]
        } else {
            vec![once.await, again.await]
        }
    };
    let (mut delivered, over_http) = tokio::join!(socket, http);
    delivered.extend(over_http);
    // Of a duplicate, either may be the one that counts.
    delivered.sort_by_key(|delivered| !delivered.is_ok());
    delivered
}

async fn to_socket(shared: &Shared, payload: &Value) -> Delivered {
    match sockets::deliver(shared, payload).await {
        Some(sockets::Acknowledgement { payload, attempts, in_time }) => {
            Delivered::Acknowledged { payload, attempts, in_time }
        }
        None => Delivered::Late,
    }
}

async fn post(shared: &Shared, url: Option<&str>, payload: &Value, seconds: u64) -> Delivered {
    let Some(url) = url else { return Delivered::Unreachable("no gateway is set".into()) };
    let form = form_urlencoded::Serializer::new(String::new());
    let body = { form }.append_pair("payload", &payload.to_string()).finish();
    let signature = signature(&shared.signing_secret, seconds, &body);
    let call = call(url, seconds, &signature, body);
    match tokio::time::timeout(ACKNOWLEDGED_WITHIN, call).await {
        Err(_) => Delivered::Late,
        Ok(Err(error)) => Delivered::Unreachable(format!("{error:#}")),
        Ok(Ok((status, body))) => Delivered::Answered { status, body },
    }
}

async fn call(url: &str, timestamp: u64, signature: &str, body: String) -> Result<(u16, String)> {
    let rest = url.strip_prefix("http://").context("the gateway's URL starts with `http://`")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let stream =
        TcpStream::connect(authority).await.with_context(|| format!("nobody listens at {authority}"))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Its error is the error of the call.
    tokio::spawn(connection);
    let request = Request::post(format!("/{path}"))
        .header("host", authority)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("user-agent", "Slackbot 1.0 (+https://api.slack.com/robots)")
        .header("x-slack-request-timestamp", timestamp)
        .header("x-slack-signature", signature)
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await.context("the gateway did not answer")?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// The URL of interactions, if only the gateway's own was given.
pub(crate) fn interactions_url(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let has_path = url.strip_prefix("http://").is_some_and(|rest| rest.contains('/'));
    if has_path { url.to_owned() } else { format!("{url}/api/slack/interactions") }
}
