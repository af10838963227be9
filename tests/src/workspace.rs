//! The Slack simulator of a test's gateway, with waits for what people see in it.

use std::ops::Deref;

use slack_simulator::{Ephemeral, Message, Options, Simulator, View};

use crate::gateway::Gateway;
use crate::home::Home;
use crate::slack::SIGNING_SECRET;
use crate::within;

/// A simulator that runs until it is dropped. What it can do itself is in [`Simulator`].
#[derive(Debug)]
pub struct Slack {
    simulator: Simulator,
}

impl Slack {
    /// Starts one without rate limits; the test of the limits sets its own.
    pub async fn start() -> Slack {
        Slack::start_with(Options { rate_factor: f64::INFINITY, ..Options::default() }).await
    }

    /// Starts one with these options, except for the signing secret, which is the same in all tests.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_with(options: Options) -> Slack {
        let options = Options { signing_secret: SIGNING_SECRET.to_owned(), ..options };
        let simulator = Simulator::start(options).await;
        Slack { simulator: simulator.unwrap_or_else(|error| panic!("no simulator: {error:#}")) }
    }

    /// Starts a gateway in `home` that uses this Slack, and sends interactions to it from now on.
    pub async fn gateway(&self, home: Home) -> Gateway {
        let gateway = home.with_slack(self).start().await;
        self.set_gateway(&format!("http://{}", gateway.address()));
        gateway
    }

    /// The message of a request, once it is posted.
    pub async fn shown(&self, request: &str) -> Message {
        self.shown_when(request, "to be posted", |_| true).await
    }

    /// The message of a request, once `is` is true of it; `what` describes that in the error.
    ///
    /// # Panics
    /// If it never is, with the message as it is instead.
    pub async fn shown_when(&self, request: &str, what: &str, is: impl Fn(&Message) -> bool) -> Message {
        let found = self.until(|slack| {
            let messages = slack.messages_that(|message| is_of(message, request));
            messages.into_iter().find(|message| is(message))
        });
        match tokio::time::timeout(crate::PATIENCE, found).await {
            Ok(message) => message,
            Err(_) => {
                let of = self.messages_that(|message| is_of(message, request));
                let shown: Vec<String> = of.iter().map(Message::shown).collect();
                panic!("waited in vain for the message of {request} {what}; {shown:#?}")
            }
        }
    }

    /// All messages that were posted for a request, in any channel, in order.
    #[must_use]
    pub fn posted(&self, request: &str) -> Vec<Message> {
        self.messages_that(|message| message.mark("request_id") == Some(request))
    }

    /// The message in a slot of a request (`main`, `escalation_thread`, `escalation_channel`), once it is.
    pub async fn posted_in(&self, request: &str, slot: &str) -> Message {
        let found = self
            .until(|_| self.posted(request).into_iter().find(|message| message.mark("slot") == Some(slot)));
        within(&format!("`{slot}` of {request}"), found).await
    }

    /// The modal on a person's screen, once there is one.
    pub async fn asked(&self, user: &str) -> View {
        within(&format!("a modal for {user}"), self.until(|slack| slack.person(user).view())).await
    }

    /// The modal on a person's screen, once `is` is true of it.
    pub async fn asked_when(&self, user: &str, is: impl Fn(&View) -> bool) -> View {
        let found = self.until(|slack| slack.person(user).view().filter(|view| is(view)));
        within(&format!("another modal for {user}"), found).await
    }

    /// The `nth` ephemeral message to a person, counted from 1.
    pub async fn ephemeral(&self, user: &str, nth: usize) -> Ephemeral {
        let found = self.until(|slack| slack.person(user).ephemerals().into_iter().nth(nth - 1));
        within(&format!("ephemeral message {nth} to {user}"), found).await
    }
}

/// Whether this is the main message of a request.
fn is_of(message: &Message, request: &str) -> bool {
    message.mark("request_id") == Some(request) && message.mark("slot") == Some("main")
}

impl Deref for Slack {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        &self.simulator
    }
}

impl Home {
    /// With this Slack: its address, its tokens and its signing secret. The gateway limits no rates, since the
    /// simulator has limits only if its options say so.
    #[must_use]
    pub fn with_slack(self, slack: &Slack) -> Home {
        self.with("SLACK_API_URL", &slack.api_url())
            .with("SLACK_BOT_TOKEN", slack.bot_token())
            .with("SLACK_SIGNING_SECRET", slack.signing_secret())
            .with("SLACK_RATE_FACTOR", "1000")
    }

    /// With Socket Mode.
    #[must_use]
    pub fn with_socket_mode(self, slack: &Slack) -> Home {
        self.with("SLACK_APP_TOKEN", slack.app_token())
    }
}
