//! A running simulator, as its users and the tests see it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::{Addresses, Tokens};
use crate::counts::Counts;
use crate::delivery::interactions_url;
use crate::faults::Faults;
use crate::interaction::{self, Clicked, Submitted};
use crate::message::{Ephemeral, Message};
use crate::server;
use crate::shared::{Route, Shared};
use crate::sockets::Disconnect;
use crate::view::{Entry, View};
use crate::workspace::{ChannelProfile, Workspace};
use crate::world::{Warning, World};

/// How long somebody who wants to act in a modal waits for it. On a busy machine the app may be slow.
const OPENED_WITHIN: Duration = Duration::from_secs(30);

/// The options of a simulator.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on, on loopback. Port 0 finds a free one.
    pub listen: SocketAddr,
    /// The people, groups and channels.
    pub workspace: Workspace,
    /// The secret that signs interactions.
    pub signing_secret: String,
    /// The app's token for the Web API.
    pub bot_token: String,
    /// The app's token for Socket Mode.
    pub app_token: String,
    /// What the bot's token permits.
    pub scopes: Vec<String>,
    /// The factor of Slack's rate limits; infinity removes them.
    pub rate_factor: f64,
    /// The seed of the faults.
    pub seed: u64,
    /// Whether to keep what the app sends, for [`Simulator::received`].
    pub keeps_calls: bool,
}

impl Default for Options {
    /// The sample workspace on a free port, with Slack's own rate limits and all the scopes that the app asks for.
    fn default() -> Options {
        let scopes = ["chat:write", "usergroups:read", "channels:history", "groups:history", "users:read"];
        Options {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            workspace: Workspace::sample(),
            signing_secret: "8f742231b10e8888abcd99yyyzzz85a5".into(),
            bot_token: "xoxb-simulator-bot-token".into(),
            app_token: "xapp-simulator-app-token".into(),
            scopes: scopes.map(str::to_owned).to_vec(),
            rate_factor: 1.0,
            seed: 1,
            keeps_calls: false,
        }
    }
}

/// A simulator that runs until it is dropped.
pub struct Simulator {
    shared: Arc<Shared>,
    http: SocketAddr,
    /// Dropping it stops everything.
    _stop: watch::Sender<()>,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Simulator").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Simulator {
    /// Starts one, on the runtime that this is called on.
    ///
    /// # Errors
    /// If it cannot listen there, or is to listen elsewhere than on loopback.
    pub async fn start(options: Options) -> Result<Simulator> {
        ensure!(options.listen.ip().is_loopback(), "anybody can click here: it listens on loopback only");
        let http = TcpListener::bind(options.listen).await;
        let http = http.with_context(|| format!("cannot listen on {}", options.listen))?;
        let ws = TcpListener::bind(SocketAddr::new(options.listen.ip(), 0)).await.context("cannot listen")?;
        let (address, of_ws) = (http.local_addr()?, ws.local_addr()?);
        let addresses = Addresses { http: format!("http://{address}"), socket: format!("ws://{of_ws}") };
        let scopes = options.scopes.into_iter().collect();
        let world = World::new(options.workspace, scopes, options.rate_factor, options.seed);
        let tokens = Tokens { bot: options.bot_token, app: options.app_token };
        let shared = Shared::new(world, tokens, addresses, options.signing_secret);
        let shared = Arc::new(if options.keeps_calls { shared.keeping_calls() } else { shared });
        let (stop, stopped) = watch::channel(());
        server::serve(&shared, http, ws, &stopped);
        Ok(Simulator { shared, http: address, _stop: stop })
    }

    /// The URL that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// The page to click in.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The base URL of the Web API: `SLACK_API_URL`.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.http)
    }

    /// The app's token for the Web API: `SLACK_BOT_TOKEN`.
    #[must_use]
    pub fn bot_token(&self) -> &str {
        &self.shared.tokens.bot
    }

    /// The app's token for Socket Mode: `SLACK_APP_TOKEN`.
    #[must_use]
    pub fn app_token(&self) -> &str {
        &self.shared.tokens.app
    }

    /// The secret that signs interactions: `SLACK_SIGNING_SECRET`.
    #[must_use]
    pub fn signing_secret(&self) -> &str {
        &self.shared.signing_secret
    }

    /// Sends interactions to this gateway from now on: its URL, with or without the path of interactions.
    pub fn set_gateway(&self, url: &str) {
        self.shared.set_gateway(Some(interactions_url(url)));
    }

    /// The route of interactions from now on.
    pub fn set_route(&self, route: Route) {
        self.shared.set_route(route);
    }

    /// Waits until `look` returns something; it is called after every change.
    pub async fn until<T>(&self, mut look: impl FnMut(&Simulator) -> Option<T>) -> T {
        let mut changes = self.shared.watch();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            // It cannot be closed: this simulator holds the other end.
            let _ = changes.changed().await;
        }
    }

    /// Every message of every channel, as it is now, the oldest of each channel first.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.messages_that(|_| true)
    }

    /// Those of [`messages`](Simulator::messages) that `are`: the others are not copied. It must not look at the simulator.
    #[must_use]
    pub fn messages_that(&self, are: impl Fn(&Message) -> bool) -> Vec<Message> {
        self.shared.look(|world| {
            let all = world.channels.values().flat_map(|channel| channel.messages.values());
            all.filter(|message| are(message)).cloned().collect()
        })
    }

    /// The messages of one channel, those in threads too, the oldest first.
    #[must_use]
    pub fn messages_in(&self, channel: &str) -> Vec<Message> {
        self.shared.look(|world| {
            let channel = world.channels.get(channel);
            channel.into_iter().flat_map(|channel| channel.messages.values().cloned()).collect()
        })
    }

    /// A message as it is now.
    #[must_use]
    pub fn message(&self, channel: &str, ts: &str) -> Option<Message> {
        self.shared.look(|world| world.message(channel, ts).cloned())
    }

    /// The replies in the thread of a message, the oldest first.
    #[must_use]
    pub fn replies(&self, message: &Message) -> Vec<Message> {
        self.shared.look(|world| world.replies(&message.channel, &message.ts).into_iter().cloned().collect())
    }

    /// The person with this id, whether or not Slack knows them.
    #[must_use]
    pub fn person(&self, id: &str) -> Person<'_> {
        Person { simulator: self, id: id.to_owned() }
    }

    /// The calls so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.look(|world| world.counts.clone())
    }

    /// How many sockets are open.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.shared.sockets.count()
    }

    /// Every call of the app so far, in order: its method and query, and its body as it came. Its headers are left out.
    /// Empty unless the options say that calls are kept.
    #[must_use]
    pub fn received(&self) -> Vec<(String, Vec<u8>)> {
        self.shared.received()
    }

    /// Sets the faults from now on, in place of the earlier ones.
    ///
    /// # Panics
    /// If the probabilities are invalid.
    pub fn set_faults(&self, faults: Faults) {
        if let Some(mistake) = faults.mistake() {
            panic!("{mistake}: {faults:?}");
        }
        self.shared.set_faults(faults);
    }

    /// Slack restarts: every connection is lost and every call under way, no message is.
    pub fn restart(&self) {
        self.shared.restart();
    }

    /// Sends every socket a disconnect message, and closes it unless that is only a warning.
    pub fn disconnect_sockets(&self, why: Disconnect) {
        self.shared.sockets.disconnect(why);
    }

    /// Sets the factor of Slack's rate limits; infinity removes them.
    pub fn set_rate_factor(&self, factor: f64) {
        self.shared.change(|world| world.rates.set_factor(factor));
    }

    /// Changes what the bot's token permits.
    pub fn set_scopes(&self, scopes: &[&str]) {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.shared.change(|world| world.scopes = scopes);
    }

    /// Adds a channel, or changes one without its messages.
    pub fn set_channel(&self, profile: ChannelProfile) {
        self.shared.change(|world| match world.channels.get_mut(&profile.id) {
            Some(channel) => channel.profile = profile,
            None => world.add_channel(profile),
        });
    }

    /// A channel as it is now.
    #[must_use]
    pub fn channel(&self, id: &str) -> Option<ChannelProfile> {
        self.shared.look(|world| world.channels.get(id).map(|channel| channel.profile.clone()))
    }

    /// An admin deactivates somebody's account.
    ///
    /// # Panics
    /// If there is nobody with this id.
    pub fn deactivate(&self, id: &str) {
        self.shared.change(|world| {
            let person = world.workspace.people.iter_mut().find(|person| person.id == id);
            person.expect("somebody with this id").deactivated = true;
        });
    }

    /// Changes who is in a user group; a group that was not there is added.
    pub fn set_group(&self, id: &str, members: &[&str]) {
        let members: Vec<String> = members.iter().map(|member| (*member).to_owned()).collect();
        self.shared.change(|world| {
            if let Some(group) = world.workspace.groups.iter_mut().find(|group| group.id == id) {
                group.members = members;
            } else {
                let (id, handle) = (id.to_owned(), id.to_lowercase());
                let name = handle.clone();
                world.workspace.groups.push(crate::UserGroup { id, handle, name, members });
            }
        });
    }

    /// Somebody deletes a message. `None` if it was not there.
    pub fn delete(&self, message: &Message) -> Option<Message> {
        self.shared.change(|world| {
            let at = crate::clock::parse_ts(&message.ts)?;
            world.channels.get_mut(&message.channel)?.messages.remove(&at)
        })
    }
}

/// Somebody in the workspace.
#[derive(Clone, Debug)]
pub struct Person<'a> {
    simulator: &'a Simulator,
    id: String,
}

impl Person<'_> {
    /// Clicks on the button with this `action_id` of a message, as it is in `message`: an earlier copy lets them click
    /// on a button that is gone by now. Returns once the app has answered, or three seconds have passed.
    ///
    /// # Panics
    /// If the copy has no such button.
    pub async fn click(&self, message: &Message, action_id: &str) -> Clicked {
        self.click_with(message, action_id, &[]).await
    }

    /// As [`Person::click`], with this in the message's inputs, by `block_id`.
    ///
    /// # Panics
    /// If the copy has no such button.
    pub async fn click_with(&self, message: &Message, action_id: &str, entries: &[(&str, Entry)]) -> Clicked {
        let shared = &self.simulator.shared;
        let clicked = interaction::click(shared, &self.id, message, action_id, &owned(entries)).await;
        clicked.unwrap_or_else(|| panic!("no button `{action_id}`, only {:?}", message.actions()))
    }

    /// The modals on their screen, that on top last.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        self.simulator.shared.look(|world| world.views_of(&self.id).cloned().collect())
    }

    /// The modal on top of their screen.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.views().pop()
    }

    /// The modal on top of their screen, once there is one: the app may still be opening it.
    ///
    /// # Panics
    /// If none opens.
    async fn opened(&self) -> View {
        let opened = self.simulator.until(|_| self.view());
        let opened = tokio::time::timeout(OPENED_WITHIN, opened).await;
        opened.unwrap_or_else(|_| panic!("{} has no modal open", self.id))
    }

    /// Clicks on the button with this `action_id` in the modal on top. Returns as [`Person::click`] does.
    ///
    /// # Panics
    /// If there is no modal, or it has no such button.
    pub async fn press(&self, action_id: &str) -> Clicked {
        let view = self.opened().await;
        let pressed = interaction::press(&self.simulator.shared, &self.id, &view.id, action_id).await;
        pressed.unwrap_or_else(|| panic!("the modal has no button `{action_id}`: {}", view.view))
    }

    /// Submits the modal on top, with this in its inputs, by `block_id`; the others stay as they are. Returns once the
    /// app has answered, or three seconds have passed.
    ///
    /// # Panics
    /// If there is no modal, or it has no such input.
    pub async fn submit(&self, entries: &[(&str, Entry)]) -> Submitted {
        let view = self.opened().await;
        for (block, _) in entries {
            assert!(view.input(block).is_some(), "the modal has no input `{block}`: {}", view.view);
        }
        let submitted = interaction::submit(&self.simulator.shared, &self.id, &view.id, owned(entries)).await;
        submitted.unwrap_or_else(|| panic!("the modal closed meanwhile"))
    }

    /// Closes the modal on top, if there is one.
    pub async fn close(&self) {
        if let Some(view) = self.view() {
            interaction::close(&self.simulator.shared, &self.id, &view.id).await;
        }
    }

    /// Their ephemeral messages, the oldest first.
    #[must_use]
    pub fn ephemerals(&self) -> Vec<Ephemeral> {
        self.simulator.shared.look(|world| {
            world.ephemerals.iter().filter(|ephemeral| ephemeral.user == self.id).cloned().collect()
        })
    }

    /// Removes their ephemeral messages.
    pub fn dismiss_ephemerals(&self) {
        let id = &self.id;
        self.simulator.shared.change(|world| world.ephemerals.retain(|ephemeral| ephemeral.user != *id));
    }

    /// Slack's warnings to them about clicks that the app did not answer properly.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        self.simulator
            .shared
            .look(|world| world.warnings.iter().filter(|warning| warning.user == self.id).cloned().collect())
    }

    /// Posts a message in a channel, or in a thread of it.
    pub fn say(&self, channel: &str, thread: Option<&str>, text: &str) -> Message {
        self.simulator.shared.change(|world| world.say(&self.id, channel, thread, text))
    }
}

fn owned(entries: &[(&str, Entry)]) -> BTreeMap<String, Entry> {
    entries.iter().map(|(block, entry)| ((*block).to_owned(), entry.clone())).collect()
}
