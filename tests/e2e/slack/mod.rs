//! People decide in Slack: the real gateway against a simulator of Slack.

mod clock;
mod consent;
mod crash;
mod decide;
mod edits;
mod escalation;
mod hostile;
mod personas;
mod refusals;
mod rerequest;

mod delivery;
mod socket;
mod usergroups;
mod waiting_for;

use std::ops::Deref;
use std::time::Duration;

use countersign_tests::{Gateway, Home, Receipt, Slack};
use slack_simulator::{Message, Outcome, Simulator, Submitted};

/// A gateway and its Slack simulator.
pub(crate) struct Setup {
    pub(crate) slack: Slack,
    pub(crate) gateway: Gateway,
}

impl Setup {
    /// Starts both, with a policy set of these actions.
    pub(crate) async fn open(actions: &str) -> Setup {
        Setup::at(Home::new(actions)).await
    }

    /// Starts both, with the gateway in `home` and interactions over HTTP.
    pub(crate) async fn at(home: Home) -> Setup {
        let slack = Slack::start().await;
        let gateway = slack.gateway(home).await;
        Setup { slack, gateway }
    }

    /// Waits until the message of a request contains `words`, and returns it.
    pub(crate) async fn shows(&self, request: &Receipt, words: &str) -> Message {
        let find = |slack: &Simulator| {
            main_messages(slack, &request.id).into_iter().find(|found| found.shown().contains(words))
        };
        match tokio::time::timeout(countersign_tests::PATIENCE, self.slack.until(find)).await {
            Ok(found) => found,
            Err(_) => panic!("no message contains `{words}`: {:#?}", main_messages(&self.slack, &request.id)),
        }
    }

    /// Waits until the gateway has stored that Slack was told everything.
    pub(crate) async fn delivered(&self) {
        let all = async {
            while self.metrics().await.count("outbox_depth", &[]) > 0 {
                tokio::task::yield_now().await;
            }
        };
        countersign_tests::within("the outbox to be empty", all).await;
    }

    /// Waits for an ephemeral message to `user` that contains `words`, and returns its text.
    pub(crate) async fn ephemeral(&self, user: &str, words: &str) -> String {
        let find = |slack: &Simulator| {
            let ephemerals = slack.person(user).ephemerals();
            ephemerals.into_iter().map(|ephemeral| ephemeral.shown()).find(|shown| shown.contains(words))
        };
        match tokio::time::timeout(countersign_tests::PATIENCE, self.slack.until(find)).await {
            Ok(found) => found,
            Err(_) => panic!(
                "{user} has no ephemeral message with `{words}`: {:#?}",
                self.slack.person(user).ephemerals()
            ),
        }
    }
}

impl Deref for Setup {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// Whether a modal was closed before the gateway knew what comes of it, as it is after two seconds, since Slack waits no
/// longer than three. What is wrong then comes in an ephemeral message.
pub(crate) fn is_late(submitted: &Submitted) -> bool {
    submitted.outcome == Outcome::Closed && submitted.took >= Duration::from_secs(2)
}

/// The messages that show a request; there should be one.
pub(crate) fn main_messages(slack: &Simulator, request: &str) -> Vec<Message> {
    let shows = |message: &Message| {
        message.mark("request_id") == Some(request) && message.mark("slot") == Some("main")
    };
    slack.messages().into_iter().filter(shows).collect()
}
