//! `conversations.*`.

use serde_json::{Map, Value, json};

use super::chat::visible;
use super::{Addresses, Answer, Arguments, Refusal};
use crate::clock;
use crate::message::Message;
use crate::world::World;

/// The messages of a channel, the newest first; replies only if they are shown in the channel too.
pub(super) fn history(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let channel = readable(world, arguments)?;
    let window = Window::read(arguments)?;
    let inside = world.channels.get(&channel).into_iter().flat_map(|channel| channel.messages.iter().rev());
    let shown = inside
        .filter(|(at, _)| window.has(**at))
        .map(|(_, message)| message)
        .filter(|message| message.thread.is_none() || message.broadcast)
        .collect();
    let mut page = page(world, arguments, shown)?;
    page.insert("pin_count".into(), json!(0));
    Ok(Value::Object(page))
}

/// The messages of a thread, the oldest first; the first message always.
pub(super) fn replies(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let channel = readable(world, arguments)?;
    let window = Window::read(arguments)?;
    let ts = arguments.need("ts")?;
    let found = world.message(&channel, &ts).ok_or("thread_not_found")?;
    let root = match &found.thread {
        Some(root) => world.message(&channel, root).ok_or("thread_not_found")?,
        None => found,
    };
    let replies = world.replies(&channel, &root.ts).into_iter();
    let inside = replies.filter(|reply| clock::parse_ts(&reply.ts).is_some_and(|at| window.has(at)));
    let shown = std::iter::once(root).chain(inside).collect();
    Ok(Value::Object(page(world, arguments, shown)?))
}

/// The channel, if the app can read it.
fn readable(world: &World, arguments: &Arguments) -> Result<String, Refusal> {
    let channel = visible(world, arguments)?;
    if !channel.profile.bot_is_member {
        return Err("not_in_channel".into());
    }
    Ok(channel.profile.id.clone())
}

/// The times that are asked for, in microseconds.
struct Window {
    oldest: u64,
    latest: u64,
    inclusive: bool,
}

impl Window {
    fn read(arguments: &Arguments) -> Result<Window, Refusal> {
        let bound = |key: &str, code: &'static str, otherwise: u64| match arguments.text(key) {
            None => Ok(otherwise),
            Some(text) if text.is_empty() || text == "now" => Ok(otherwise),
            Some(text) => clock::parse_ts(&text).ok_or(Refusal::from(code)),
        };
        Ok(Window {
            oldest: bound("oldest", "invalid_ts_oldest", 0)?,
            latest: bound("latest", "invalid_ts_latest", u64::MAX)?,
            inclusive: arguments.flag("inclusive"),
        })
    }

    fn has(&self, at: u64) -> bool {
        self.oldest < at && at < self.latest || self.inclusive && (at == self.oldest || at == self.latest)
    }
}

const CURSOR: &str = "after:";

/// One page of these, and the cursor of the next one.
fn page(world: &World, arguments: &Arguments, all: Vec<&Message>) -> Result<Map<String, Value>, Refusal> {
    let limit = arguments.number("limit").unwrap_or(100);
    if !(1..=999).contains(&limit) {
        return Err("invalid_limit".into());
    }
    let limit = usize::try_from(limit).unwrap_or(100);
    // The cursor names the last message of the page before, so that new ones do not shift what follows.
    let start = match arguments.text("cursor").filter(|cursor| !cursor.is_empty()) {
        None => 0,
        Some(cursor) => {
            let last = cursor.strip_prefix(CURSOR).ok_or(Refusal::from("invalid_cursor"))?;
            let position = all.iter().position(|message| message.ts == last);
            position.ok_or(Refusal::from("invalid_cursor"))? + 1
        }
    };
    let with_metadata = arguments.flag("include_all_metadata");
    let shown: Vec<&Message> = all.iter().copied().skip(start).take(limit).collect();
    let has_more = start + shown.len() < all.len();
    let messages = shown.iter().map(|message| {
        let mut json = message.json(&world.workspace.team, with_metadata);
        let replies = world.replies(&message.channel, &message.ts);
        if let Some(last) = replies.last() {
            json.insert("thread_ts".into(), json!(message.ts));
            json.insert("reply_count".into(), json!(replies.len()));
            json.insert("latest_reply".into(), json!(last.ts));
        }
        Value::Object(json)
    });
    let mut page = Map::new();
    page.insert("messages".into(), messages.collect());
    page.insert("has_more".into(), json!(has_more));
    let next = shown.last().filter(|_| has_more).map(|last| format!("{CURSOR}{}", last.ts));
    page.insert("response_metadata".into(), json!({"next_cursor": next.unwrap_or_default()}));
    Ok(page)
}
