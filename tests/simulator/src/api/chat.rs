//! `chat.*`.

use serde_json::{Value, json};

use super::{Addresses, Answer, Arguments, Refusal};
use crate::blocks::{self, MESSAGE_ROOM};
use crate::clock;
use crate::message::{Author, Ephemeral, Message};
use crate::world::{Channel, World};

/// The longest text of a new message, in characters.
const TEXT_CHARACTERS: usize = 40_000;

/// The longest text of an update, in bytes: Slack counts other things there, and allows less.
const UPDATE_BYTES: usize = 4_000;

pub(super) fn post_message(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let channel = writable(world, arguments)?.profile.id.clone();
    let content = content(world, arguments)?;
    refuse(world, &content)?;
    let metadata = metadata(arguments)?;
    let thread = thread(world, arguments, &channel)?;
    let message = world.post(Message {
        channel: channel.clone(),
        ts: String::new(),
        broadcast: thread.is_some() && arguments.flag("reply_broadcast"),
        thread,
        author: Author::App,
        text: content.text.unwrap_or_default(),
        blocks: content.blocks.unwrap_or_default(),
        metadata,
        updates: 0,
    });
    let json = message.json(&world.workspace.team, true);
    Ok(json!({"channel": channel, "ts": message.ts, "message": json}))
}

pub(super) fn update(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let channel = visible(world, arguments)?;
    let (id, archived) = (channel.profile.id.clone(), channel.profile.archived);
    if archived {
        return Err("is_inactive".into());
    }
    let ts = arguments.need("ts")?;
    let message = world.message(&id, &ts).ok_or("message_not_found")?;
    if message.author != Author::App {
        return Err("cant_update_message".into());
    }
    let content = content(world, arguments)?;
    if content.text.as_ref().is_some_and(|text| text.len() > UPDATE_BYTES) {
        return Err("msg_too_long".into());
    }
    refuse(world, &content)?;
    let metadata = metadata(arguments)?;
    let team = world.workspace.team.clone();
    let message = world.message_mut(&id, &ts).ok_or("message_not_found")?;
    // Without blocks in the call, they stay if it has no text either, and are removed if it has.
    match (content.text, content.blocks) {
        (text, Some(blocks)) => {
            message.blocks = blocks;
            message.text = text.unwrap_or_default();
        }
        (Some(text), None) => {
            message.blocks = Vec::new();
            message.text = text;
        }
        (None, None) => {}
    }
    // Without metadata in the call, it stays.
    if metadata.is_some() {
        message.metadata = metadata;
    }
    message.updates += 1;
    let json = message.json(&team, true);
    Ok(json!({"channel": id, "ts": ts, "text": message.text, "message": json}))
}

pub(super) fn post_ephemeral(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let profile = writable(world, arguments)?.profile.clone();
    let user = arguments.need("user")?;
    if world.workspace.person(&user).is_none() {
        return Err("user_not_found".into());
    }
    if profile.members.is_some_and(|members| !members.contains(&user)) {
        return Err("user_not_in_channel".into());
    }
    let content = content(world, arguments)?;
    let thread = thread(world, arguments, &profile.id)?;
    let ts = clock::ts(world.next_ts());
    world.ephemerals.push(Ephemeral {
        user,
        channel: profile.id,
        thread,
        ts: ts.clone(),
        text: content.text.unwrap_or_default(),
        blocks: content.blocks.unwrap_or_default(),
    });
    Ok(json!({"message_ts": ts}))
}

/// Refuses blocks that the faults in force say so of.
fn refuse(world: &World, content: &Content) -> Result<(), Refusal> {
    let Some(text) = &world.chance.faults().invalid_blocks_with else { return Ok(()) };
    let blocks = content.blocks.iter().flatten().map(ToString::to_string);
    if blocks.into_iter().any(|block| block.contains(text.as_str())) {
        return Err("invalid_blocks".into());
    }
    Ok(())
}

pub(super) fn permalink(world: &mut World, arguments: &Arguments, _: &Addresses) -> Answer {
    let channel = visible(world, arguments)?.profile.id.clone();
    let ts = arguments.need("message_ts")?;
    let message = world.message(&channel, &ts).ok_or("message_not_found")?;
    let link = permalink_of(world, message);
    Ok(json!({"channel": channel, "permalink": link}))
}

fn permalink_of(world: &World, message: &Message) -> String {
    let domain = &world.workspace.team.domain;
    let digits = message.ts.replace('.', "");
    let thread = match &message.thread {
        Some(thread) => format!("?thread_ts={thread}&cid={}", message.channel),
        None => String::new(),
    };
    format!("https://{domain}.slack.com/archives/{}/p{digits}{thread}", message.channel)
}

/// The channel, if the app can see it: a private one only if it was invited.
pub(super) fn visible<'a>(world: &'a World, arguments: &Arguments) -> Result<&'a Channel, Refusal> {
    let channel = world.channels.get(&arguments.need("channel")?);
    let seen = channel.filter(|channel| !channel.profile.private || channel.profile.bot_is_member);
    seen.ok_or_else(|| "channel_not_found".into())
}

/// The channel, if the app can write in it.
fn writable<'a>(world: &'a World, arguments: &Arguments) -> Result<&'a Channel, Refusal> {
    let channel = visible(world, arguments)?;
    if channel.profile.archived {
        return Err("is_archived".into());
    }
    if !channel.profile.bot_is_member && !world.scopes.contains("chat:write.public") {
        return Err("not_in_channel".into());
    }
    Ok(channel)
}

/// The content of a message: its text and its blocks, if they were sent.
struct Content {
    text: Option<String>,
    blocks: Option<Vec<Value>>,
}

fn content(world: &mut World, arguments: &Arguments) -> Result<Content, Refusal> {
    let blocks = arguments.json("blocks").map_err(|()| Refusal::from("invalid_blocks_format"))?;
    if blocks.as_ref().is_some_and(|blocks| !blocks.is_array()) {
        return Err("invalid_blocks_format".into());
    }
    let text = arguments.text("text");
    let of_text = text.as_deref().map_or(0, blocks::width);
    let mut of_blocks = 0;
    let blocks = match blocks {
        None => None,
        Some(mut blocks) => {
            let problems = blocks::check_message(&blocks);
            if !problems.is_empty() {
                return Err(Refusal::because("invalid_blocks", problems));
            }
            // Counted as they were sent: the cost of each block includes the id that it gets here.
            of_blocks = blocks.as_array().map_or(0, |blocks| blocks::cost(blocks));
            world.name_blocks(&mut blocks);
            blocks.as_array().cloned()
        }
    };
    if of_text == 0 && of_blocks == 0 {
        return Err("no_text".into());
    }
    if of_blocks > MESSAGE_ROOM {
        return Err("msg_blocks_too_long".into());
    }
    if of_text > TEXT_CHARACTERS || of_blocks > 0 && of_text + of_blocks > MESSAGE_ROOM {
        return Err("msg_too_long".into());
    }
    Ok(Content { text, blocks })
}

fn metadata(arguments: &Arguments) -> Result<Option<Value>, Refusal> {
    let metadata = arguments.json("metadata").map_err(|()| Refusal::from("invalid_metadata_format"))?;
    let Some(metadata) = metadata else { return Ok(None) };
    let kind = metadata["event_type"].as_str().unwrap_or_default();
    let named = !kind.is_empty()
        && kind.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && metadata["event_payload"].is_object();
    if named { Ok(Some(metadata)) } else { Err("invalid_metadata_format".into()) }
}

/// The thread that a message goes into, which must be there.
fn thread(world: &World, arguments: &Arguments, channel: &str) -> Result<Option<String>, Refusal> {
    let Some(ts) = arguments.text("thread_ts").filter(|ts| !ts.is_empty()) else { return Ok(None) };
    if clock::parse_ts(&ts).is_none() {
        return Err("invalid_thread_ts".into());
    }
    let parent = world.message(channel, &ts).ok_or("thread_not_found")?;
    if parent.thread.is_some() {
        return Err("cannot_reply_to_message".into());
    }
    Ok(Some(ts))
}
