//! The state of the simulated Slack, and its changes. It does no I/O, and does not wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::blocks;
use crate::clock;
use crate::counts::Counts;
use crate::faults::Chance;
use crate::message::{Author, Ephemeral, Message};
use crate::random::Random;
use crate::rates::Rates;
use crate::view::View;
use crate::workspace::{ChannelProfile, Workspace};

/// How long a trigger can be used, in microseconds.
const TRIGGER_LIFE: u64 = 3_000_000;

/// How long a ticket to a socket can be used, in microseconds.
const TICKET_LIFE: u64 = 30_000_000;

/// How many modals can be on top of each other.
const MOST_VIEWS: usize = 3;

/// A channel and its messages, by time in microseconds.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) profile: ChannelProfile,
    pub(crate) messages: BTreeMap<u64, Message>,
}

/// Slack's own warning to a person about an app that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Who reads it.
    pub user: String,
    /// The channel of the message that was clicked on.
    pub channel: String,
    /// The message that was clicked on.
    pub ts: String,
    /// Its text.
    pub text: String,
}

#[derive(Debug)]
struct Trigger {
    user: String,
    at: u64,
    used: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) workspace: Workspace,
    pub(crate) channels: BTreeMap<String, Channel>,
    pub(crate) ephemerals: Vec<Ephemeral>,
    /// Open modals, those on top last.
    pub(crate) views: Vec<View>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) scopes: BTreeSet<String>,
    pub(crate) counts: Counts,
    pub(crate) rates: Rates,
    pub(crate) chance: Chance,
    triggers: HashMap<String, Trigger>,
    /// Tickets for sockets, and when they were issued.
    tickets: HashMap<String, u64>,
    /// For ids; separate from the random generator of the faults, so that neither shifts the other.
    random: Random,
    last_ts: u64,
}

impl World {
    pub(crate) fn new(workspace: Workspace, scopes: BTreeSet<String>, rate_factor: f64, seed: u64) -> World {
        let mut world = World {
            workspace,
            channels: BTreeMap::new(),
            ephemerals: Vec::new(),
            views: Vec::new(),
            warnings: Vec::new(),
            scopes,
            counts: Counts::default(),
            rates: Rates::new(rate_factor),
            chance: Chance::new(seed),
            triggers: HashMap::new(),
            tickets: HashMap::new(),
            random: Random::new(seed ^ clock::micros()),
            last_ts: 0,
        };
        for profile in world.workspace.channels.clone() {
            world.add_channel(profile);
        }
        world
    }

    pub(crate) fn add_channel(&mut self, profile: ChannelProfile) {
        self.channels.insert(profile.id.clone(), Channel { profile, messages: BTreeMap::new() });
    }

    /// A time that was not used before.
    pub(crate) fn next_ts(&mut self) -> u64 {
        self.last_ts = clock::micros().max(self.last_ts + 1);
        self.last_ts
    }

    /// Random letters and digits for an id.
    pub(crate) fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}{:016X}", self.random.number())
    }

    /// A UUID, or what looks like one.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.random.number(), self.random.number());
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    }

    /// Gives every block and element an id that has none.
    pub(crate) fn name_blocks(&mut self, blocks: &mut Value) {
        blocks::name_all(blocks, || self.id("b")[..6].to_owned());
    }

    /// A person's trigger, which opens one modal within three seconds.
    pub(crate) fn trigger(&mut self, user: &str) -> String {
        let at = clock::micros();
        // Tests click often; triggers that expired long ago are kept only for the error code.
        self.triggers.retain(|_, trigger| at.saturating_sub(trigger.at) < 100 * TRIGGER_LIFE);
        let id = format!("{}.{}.{:016x}", self.next_ts(), "7000000001", self.random.number());
        self.triggers.insert(id.clone(), Trigger { user: user.to_owned(), at, used: false });
        id
    }

    /// The person of a trigger, or why it opens nothing.
    pub(crate) fn check_trigger(&self, id: &str, now: u64) -> Result<String, &'static str> {
        let trigger = self.triggers.get(id).ok_or("invalid_trigger_id")?;
        if trigger.used {
            return Err("exchanged_trigger_id");
        }
        if now.saturating_sub(trigger.at) > TRIGGER_LIFE {
            return Err("expired_trigger_id");
        }
        Ok(trigger.user.clone())
    }

    pub(crate) fn use_trigger(&mut self, id: &str) {
        if let Some(trigger) = self.triggers.get_mut(id) {
            trigger.used = true;
        }
    }

    pub(crate) fn ticket(&mut self) -> String {
        let ticket = format!("{}-{:016x}", self.uuid(), self.random.number());
        self.tickets.insert(ticket.clone(), clock::micros());
        ticket
    }

    /// Takes a ticket, which is good once.
    pub(crate) fn use_ticket(&mut self, ticket: &str, now: u64) -> bool {
        self.tickets.remove(ticket).is_some_and(|at| now.saturating_sub(at) <= TICKET_LIFE)
    }

    pub(crate) fn message(&self, channel: &str, ts: &str) -> Option<&Message> {
        self.channels.get(channel)?.messages.get(&clock::parse_ts(ts)?)
    }

    pub(crate) fn message_mut(&mut self, channel: &str, ts: &str) -> Option<&mut Message> {
        self.channels.get_mut(channel)?.messages.get_mut(&clock::parse_ts(ts)?)
    }

    /// Puts a message at the end of its channel, and returns it with its time.
    pub(crate) fn post(&mut self, mut message: Message) -> Message {
        let at = self.next_ts();
        message.ts = clock::ts(at);
        if let Some(channel) = self.channels.get_mut(&message.channel) {
            channel.messages.insert(at, message.clone());
        }
        message
    }

    /// A person posts a message.
    pub(crate) fn say(&mut self, user: &str, channel: &str, thread: Option<&str>, text: &str) -> Message {
        self.post(Message {
            channel: channel.to_owned(),
            ts: String::new(),
            thread: thread.map(str::to_owned),
            broadcast: false,
            author: Author::Person(user.to_owned()),
            text: text.to_owned(),
            blocks: Vec::new(),
            metadata: None,
            updates: 0,
        })
    }

    /// The replies of a thread.
    pub(crate) fn replies(&self, channel: &str, ts: &str) -> Vec<&Message> {
        let Some(channel) = self.channels.get(channel) else { return Vec::new() };
        channel.messages.values().filter(|message| message.thread.as_deref() == Some(ts)).collect()
    }

    pub(crate) fn views_of(&self, user: &str) -> impl Iterator<Item = &View> {
        self.views.iter().filter(move |view| view.user == user)
    }

    pub(crate) fn view_mut(&mut self, id: &str) -> Option<&mut View> {
        self.views.iter_mut().find(|view| view.id == id)
    }

    /// Puts a modal on top of a person's screen; `None` if there are too many already.
    pub(crate) fn open_view(&mut self, user: &str, view: Value) -> Option<View> {
        let below = self.views_of(user).last().map(|view| (view.id.clone(), view.root.clone()));
        if self.views_of(user).count() >= MOST_VIEWS {
            return None;
        }
        let id = self.id("V");
        let (previous, root) = match below {
            Some((previous, root)) => (Some(previous), root),
            None => (None, id.clone()),
        };
        let mut opened = View {
            id,
            user: user.to_owned(),
            hash: self.hash(),
            view,
            root,
            previous,
            errors: BTreeMap::new(),
            trouble: None,
            entries: BTreeMap::new(),
        };
        self.name_blocks(&mut opened.view["blocks"]);
        self.views.push(opened.clone());
        Some(opened)
    }

    /// Replaces the content of a modal. Inputs that stay keep their values.
    pub(crate) fn update_view(&mut self, id: &str, mut view: Value) -> Option<View> {
        self.name_blocks(&mut view["blocks"]);
        let hash = self.hash();
        let opened = self.view_mut(id)?;
        opened.view = view;
        opened.hash = hash;
        opened.errors.clear();
        opened.trouble = None;
        let mut entries = std::mem::take(&mut opened.entries);
        entries.retain(|block, _| opened.input(block).is_some());
        opened.entries = entries;
        Some(opened.clone())
    }

    fn hash(&mut self) -> String {
        let at = self.next_ts();
        format!("{}.{:08x}", at / 1_000_000, self.random.number() >> 32)
    }

    pub(crate) fn warn(&mut self, user: &str, channel: &str, ts: &str, text: &str) {
        self.warnings.push(Warning {
            user: user.to_owned(),
            channel: channel.to_owned(),
            ts: ts.to_owned(),
            text: text.to_owned(),
        });
    }

    /// A person, as interactions name them.
    pub(crate) fn user_json(&self, id: &str) -> Value {
        let handle = self.workspace.person(id).map_or(id, |person| &person.handle);
        json!({"id": id, "username": handle, "name": handle, "team_id": self.workspace.team.id})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        World::new(Workspace::sample(), BTreeSet::new(), 1.0, 7)
    }

    #[test]
    fn a_trigger_opens_once_and_for_three_seconds() {
        let mut world = world();
        let trigger = world.trigger("U0ALICE");
        let now = clock::micros();
        assert_eq!(world.check_trigger(&trigger, now), Ok("U0ALICE".to_owned()));
        assert_eq!(world.check_trigger(&trigger, now + 2_900_000), Ok("U0ALICE".to_owned()));
        assert_eq!(world.check_trigger(&trigger, now + 3_100_000), Err("expired_trigger_id"));
        world.use_trigger(&trigger);
        assert_eq!(world.check_trigger(&trigger, now), Err("exchanged_trigger_id"));
        assert_eq!(world.check_trigger(&trigger, now + 3_100_000), Err("exchanged_trigger_id"));
        assert_eq!(world.check_trigger("1.2.3", now), Err("invalid_trigger_id"));
    }

    #[test]
    fn a_ticket_is_good_once_and_not_for_long() {
        let mut world = world();
        let (one, other) = (world.ticket(), world.ticket());
        let now = clock::micros();
        assert!(world.use_ticket(&one, now));
        assert!(!world.use_ticket(&one, now));
        assert!(!world.use_ticket(&other, now + 31_000_000));
        assert!(!world.use_ticket("unknown", now));
    }

    #[test]
    fn times_never_repeat() {
        let mut world = world();
        let times: Vec<u64> = (0..1000).map(|_| world.next_ts()).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn three_modals_are_the_most_and_know_each_other() {
        let mut world = world();
        let view = || json!({"type": "modal", "blocks": []});
        let first = world.open_view("U0ALICE", view()).unwrap();
        let second = world.open_view("U0ALICE", view()).unwrap();
        assert_eq!((first.previous, first.root.as_str()), (None, first.id.as_str()));
        assert_eq!((second.previous, second.root), (Some(first.id.clone()), first.id));
        assert!(world.open_view("U0ALICE", view()).is_some());
        assert!(world.open_view("U0ALICE", view()).is_none());
        assert!(world.open_view("U0BOB", view()).is_some());
    }

    #[test]
    fn an_update_keeps_what_was_filled_in_where_the_input_stays() {
        let mut world = world();
        let input =
            |id: &str| json!({"type": "input", "block_id": id, "element": {"type": "plain_text_input"}});
        let view = |ids: &[&str]| json!({"type": "modal", "blocks": ids.iter().map(|id| input(id)).collect::<Vec<_>>()});
        let opened = world.open_view("U0ALICE", view(&["a", "b"])).unwrap();
        let entries = BTreeMap::from([("a".to_owned(), "1".into()), ("b".to_owned(), "2".into())]);
        world.view_mut(&opened.id).unwrap().fill(entries);
        let updated = world.update_view(&opened.id, view(&["b", "c"])).unwrap();
        assert_ne!(updated.hash, opened.hash);
        assert_eq!(updated.entries.keys().collect::<Vec<_>>(), ["b"]);
        assert!(world.update_view("V0", view(&[])).is_none());
    }
}
