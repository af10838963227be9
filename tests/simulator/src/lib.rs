//! A simulator of the parts of Slack that Countersign uses: the Web API with its rules, people, faults, Socket Mode, and a
//! page to click in. Tests start one of their own in process; the demo starts it as a program.
//!
//! It is written from Slack's documentation, and from reports of how Slack behaves, without the code that it tests. Where
//! the documentation is silent, it behaves in the strictest likely way. It keeps everything in memory, and listens on
//! loopback only.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use slack_simulator::{Options, Simulator};
//!
//! let slack = Simulator::start(Options::default()).await?;
//! // Start a gateway with SLACK_API_URL = slack.api_url(), and then:
//! slack.set_gateway("http://127.0.0.1:8080");
//! let message = slack.until(|slack| slack.messages().into_iter().next()).await;
//! let clicked = slack.person("U0ALICE").click(&message, "approve").await;
//! assert_eq!(clicked.warning, None);
//! # Ok(()) }
//! ```
//!
//! Not simulated: users' own clients, events, slash commands, files, attachments, scheduled and deleted messages,
//! buttons in modals and in ephemeral messages, `response_url`, and the elements of Block Kit that this project
//! does not use.

mod simulator;

mod message;
mod view;
mod workspace;
mod world;

mod interaction;

mod blocks;

mod api;
mod rates;

mod counts;
mod faults;

mod delivery;
mod signature;
mod sockets;

mod page;
mod server;
mod shared;

mod clock;
mod random;

pub use counts::Counts;
pub use delivery::Delivered;
pub use faults::Faults;
pub use interaction::{Clicked, Outcome, Submitted};
pub use message::{Author, Button, Ephemeral, Message};
pub use shared::Route;
pub use signature::signature;
pub use simulator::{Options, Person, Simulator};
pub use sockets::Disconnect;
pub use view::{Entry, View};
pub use workspace::{ChannelProfile, Profile, Team, UserGroup, Workspace};
pub use world::Warning;
