//! People decide in Slack: the real gateway against a simulator that keeps Slack's rules.

mod decide;
mod edits;
mod escalation;
mod hostile;
mod personas;
mod refusals;
mod rerequest;

mod delivery;
mod socket;
mod storm;
mod usergroups;

use std::ops::Deref;

use countersign_tests::{Gateway, Home, Receipt, Slack};
use slack_simulator::{Message, Simulator};

/// A gateway and the Slack that its people are in.
pub(crate) struct Office {
    pub(crate) slack: Slack,
    pub(crate) gateway: Gateway,
}

impl Office {
    /// With a policy set of these actions.
    pub(crate) async fn open(actions: &str) -> Office {
        Office::at(Home::new(actions)).await
    }

    /// With a gateway that starts in `home`, and interactions over HTTP.
    pub(crate) async fn at(home: Home) -> Office {
        let slack = Slack::start().await;
        let gateway = slack.gateway(home).await;
        Office { slack, gateway }
    }

    /// The message of a request, once it says `words`.
    pub(crate) async fn says(&self, request: &Receipt, words: &str) -> Message {
        let find = |slack: &Simulator| {
            main_messages(slack, &request.id).into_iter().find(|found| found.shown().contains(words))
        };
        match tokio::time::timeout(countersign_tests::PATIENCE, self.slack.until(find)).await {
            Ok(found) => found,
            Err(_) => panic!("no message says `{words}`: {:#?}", main_messages(&self.slack, &request.id)),
        }
    }

    /// What `user` is told, and nobody else, once it contains `words`.
    pub(crate) async fn told(&self, user: &str, words: &str) -> String {
        let find = |slack: &Simulator| {
            let told = slack.person(user).ephemerals();
            told.into_iter().map(|ephemeral| ephemeral.shown()).find(|shown| shown.contains(words))
        };
        match tokio::time::timeout(countersign_tests::PATIENCE, self.slack.until(find)).await {
            Ok(found) => found,
            Err(_) => panic!("{user} was not told `{words}`: {:#?}", self.slack.person(user).ephemerals()),
        }
    }
}

impl Deref for Office {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// The messages that show a request: one, or something is wrong.
pub(crate) fn main_messages(slack: &Simulator, request: &str) -> Vec<Message> {
    let shows = |message: &Message| {
        message.mark("request_id") == Some(request) && message.mark("slot") == Some("main")
    };
    slack.messages().into_iter().filter(shows).collect()
}
