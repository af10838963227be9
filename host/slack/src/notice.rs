//! What people hear when a request escalates: in the thread of its message, and in the escalation channel.
//!
//! It calls the person or the group that the policy set names, once, and of the others nobody who could be spared:
//! the requirements are told without names. A request that has ended since calls nobody.

use super::blocks::{heading, line, quote, rich, section};
use super::links::host;
use super::message::{Message, party};
use super::progress::{self, Groups, packed};
use super::text::{self, code, person};
use super::time::{date, left};
use countersign_core::lifecycle::{Request, State, Timestamp};
use countersign_core::record::PolicyEntry;

/// How many members of a group are called by name.
const MOST_CALLED: usize = 20;

/// How much of the progress is told.
const PROGRESS: usize = 1200;

/// How much of the justification is told in the channel.
const JUSTIFICATION: usize = 500;

/// Where people hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Under the request's message.
    Thread,
    /// In the escalation channel, where nobody sees the message.
    Channel {
        /// Where the message is.
        permalink: Option<&'a str>,
    },
}

/// The notice that a request escalated, as it stands at `now`.
#[must_use]
pub fn escalation(request: &Request, entry: &PolicyEntry, now: Timestamp, place: Place<'_>) -> Message {
    let submission = &request.submission;
    let action = code(&submission.action, 150);
    let State::Open(open) = &request.state else {
        let (emoji, word) = progress::verdict(request);
        let said = format!("{emoji} {action} was escalated, and has ended since: *{word}*");
        return Message { text: said.clone(), blocks: vec![section(said)] };
    };
    let mention = entry.escalate.as_ref().and_then(|escalate| escalate.mention.as_deref());
    let call = mention.map_or(String::new(), |mention| format!("{} ", called(mention, &entry.groups)));
    let (missing, end) = (progress::missing(open), submission.expires_at);
    let time = format!("*{}*, until {}", left(now, end), date(end));
    let needs = match place {
        Place::Thread => format!(":rotating_light: {call}*This needs a decision*: {time}"),
        Place::Channel { .. } => format!(":rotating_light: {call}{action} *needs a decision*: {time}"),
    };
    let progress = packed(&progress::nameless(request), PROGRESS);
    let waits = format!("Waiting for {missing}");
    let mut blocks = vec![section(needs)];
    if let Place::Channel { .. } = place {
        let repo = code(&submission.origin.repo, 120);
        let who = party(&submission.requester);
        blocks.push(section(format!("*Requested by* {who} for {repo}")));
        let mut why = vec![line(vec![heading("Why")])];
        why.extend(quote(&submission.justification, 6, JUSTIFICATION));
        blocks.push(rich(why));
    }
    blocks.push(section(if progress.is_empty() { waits.clone() } else { format!("{waits}\n{progress}") }));
    if let Place::Channel { permalink: Some(link) } = place
        && host(link).is_some()
        && link.len() <= 1000
    {
        // A `&` would be read as the beginning of an escaped character.
        let link = link.replace('&', "&amp;");
        blocks.push(section(format!("<{link}|Open the request to decide>")));
    }
    // Without the call: who is called twice hears it twice.
    let text = format!(":rotating_light: {action} needs a decision: {}. {waits}", left(now, end));
    Message { text, blocks }
}

/// The mention of whom the policy set names: a person, a user group of Slack, or each member of a group.
fn called(mention: &str, groups: &Groups) -> String {
    if text::is_user_group(mention) {
        return format!("<!subteam^{mention}>");
    }
    let Some(group) = mention.strip_prefix('@') else { return person(mention, 80) };
    let name = text::group(group, 80);
    let members = groups.get(group).into_iter().flatten();
    let mentions: Vec<String> = members
        .filter_map(|id| match id {
            id if text::is_user(id) => Some(person(id, 80)),
            id if text::is_user_group(id) => Some(format!("<!subteam^{id}>")),
            // Of somebody whom Slack does not know, it cannot tell them.
            _ => None,
        })
        .collect();
    match mentions.len() {
        0 => name,
        count if count > MOST_CALLED => {
            let first: Vec<String> = mentions.into_iter().take(MOST_CALLED).collect();
            format!("{} and {} more ({name})", first.join(" "), text::grouped(count - MOST_CALLED))
        }
        _ => format!("{} ({name})", mentions.join(" ")),
    }
}
