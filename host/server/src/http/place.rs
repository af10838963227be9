//! Where people see a request, or why nobody does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::lifecycle::Request;
use countersign_core::record::{SlackPost, Slot};
use countersign_store::StoreError;
use serde::Serialize;

use crate::state::App;
use crate::telemetry::log_failure;

/// Where people see a request, as far as is known when it is asked.
#[derive(Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audience {
    /// Where its message is, or will be soon; empty if nobody sees it.
    r#where: Vec<Place>,
    /// Why nobody sees it: `no_channel`, if its action has none; `slack_not_configured`, if the gateway has no token for
    /// Slack; or the code with which Slack refuses its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    undeliverable: Option<String>,
}

/// A place where people see a request.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Place {
    /// The channel: Slack's id once the message was posted, and before as the policy set names it.
    channel: String,
    /// The URL of the message, once it was posted and asked for before.
    #[serde(skip_serializing_if = "Option::is_none")]
    permalink: Option<String>,
}

impl Audience {
    /// Of a request that was just made: nothing can have been posted yet.
    pub(super) async fn of_new(app: &App, request: &Request) -> Option<Audience> {
        Audience::with(app, request, None).await
    }

    /// `None` if the store cannot say, or the rules of the request are not there; the log says so.
    pub(super) async fn of(app: &Arc<App>, request: &Request) -> Option<Audience> {
        let post = app.gateway.store().slack_post(request.id, Slot::Main).await;
        let log = |error: &StoreError| {
            tracing::warn!(
                request = %request.id,
                trace = request.trace_id(),
                %error,
                "cannot read where a request is shown"
            );
        };
        let post = post.inspect_err(log).ok()?;
        if let Some((post, ts)) = post.as_ref().and_then(|post| Some((post, post.ts()?))) {
            let permalink = permalink(app, &post.channel, ts);
            let place = Place { channel: post.channel.clone(), permalink };
            return Some(Audience { r#where: vec![place], undeliverable: None });
        }
        Audience::with(app, request, post).await
    }

    /// Of a request that was not posted yet.
    async fn with(app: &App, request: &Request, post: Option<SlackPost>) -> Option<Audience> {
        let entry = app
            .gateway
            .entry_of(request)
            .await
            .inspect_err(|error| log_failure(error, Some(request.id)))
            .ok()?;
        let nobody = |why: &str| Audience { r#where: Vec::new(), undeliverable: Some(why.to_owned()) };
        let Some(channel) = &entry.channel else { return Some(nobody("no_channel")) };
        let Some(outgoing) = &app.outgoing else { return Some(nobody("slack_not_configured")) };
        let refused = post.and_then(|post| post.failed).or_else(|| outgoing.health.refusal_of(channel));
        Some(match refused {
            Some(code) => nobody(&code),
            None => Audience {
                r#where: vec![Place { channel: channel.clone(), permalink: None }],
                undeliverable: None,
            },
        })
    }
}

/// How many URLs are remembered.
const MOST: usize = 1024;

/// The URLs of messages that were asked for. Slack makes them, and a call that waits for Slack would wait for long if
/// Slack is slow; so each is fetched once, beside the call, and told from the next one on.
#[derive(Debug, Default)]
pub(crate) struct Permalinks {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By channel and name of the message, oldest first.
    urls: VecDeque<((String, String), String)>,
    /// Whether one is being fetched: one at a time, since Slack limits such calls for all of us together.
    is_fetching: bool,
}

fn permalink(app: &Arc<App>, channel: &str, ts: &str) -> Option<String> {
    let of = (channel.to_owned(), ts.to_owned());
    let mut known = app.permalinks.known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, url)) = known.urls.iter().find(|(other, _)| *other == of) {
        return Some(url.clone());
    }
    let client = Arc::clone(&app.outgoing.as_ref()?.client);
    if std::mem::replace(&mut known.is_fetching, true) {
        return None;
    }
    drop(known);
    let shared = Arc::clone(app);
    app.background.spawn(async move {
        let url = tokio::select! {
            url = client.permalink(&of.0, &of.1) => url.ok(),
            () = shared.shutdown.cancelled() => None,
        };
        let mut known = shared.permalinks.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.is_fetching = false;
        known.urls.extend(url.map(|url| (of, url)));
        if known.urls.len() > MOST {
            known.urls.pop_front();
        }
    });
    None
}
