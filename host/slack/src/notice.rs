//! The notices of an escalation: in the thread of the request's message, and in the escalation channel.
//!
//! A notice mentions whom the policy set names for escalations, once, and nobody else: requirements are listed without
//! names. The notice of a request that has ended since mentions nobody.

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Request, State, Timestamp};
use countersign_core::record::PolicyEntry;

use super::blocks::{heading, line, quote, rich, section};
use super::links::target;
use super::message::{Message, requester_name};
use super::progress::{self, Roster, packed};
use super::text::{self, code};
use super::time::{date, left};

/// The most members of a group that are mentioned.
const MOST_MENTIONED: usize = 20;

/// The width of the progress.
const PROGRESS: usize = 1200;

/// The width of the justification in the escalation channel.
const JUSTIFICATION: usize = 500;

/// Where a notice is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In the thread of the request's message.
    Thread,
    /// In the escalation channel.
    Channel {
        /// The URL of the request's message, if it is known.
        permalink: Option<&'a str>,
    },
}

/// The notice that a request escalated, with its state at `now`.
#[must_use]
pub fn escalation(
    request: &Request,
    entry: &PolicyEntry,
    directory: &Directory,
    now: Timestamp,
    place: Place<'_>,
) -> Message {
    let submission = &request.submission;
    let action = code(&submission.action, 150);
    let State::Open(open) = &request.state else {
        let (emoji, word) = progress::status_label(request);
        let text = format!("{emoji} {action} was escalated, and has ended since: *{word}*");
        return Message { text: text.clone(), blocks: vec![section(text)] };
    };
    let mention = entry.escalate.as_ref().and_then(|escalate| escalate.mention.as_deref());
    let call = mention.map_or(String::new(), |mention| {
        format!("{} ", mention_of(mention, Roster { entry, directory, now }))
    });
    let (missing, end) = (progress::missing(open), submission.expires_at);
    let time = format!("*{}*, until {}", left(now, end), date(end));
    let needs = match place {
        Place::Thread => format!(":rotating_light: {call}*This needs a decision*: {time}"),
        Place::Channel { .. } => format!(":rotating_light: {call}{action} *needs a decision*: {time}"),
    };
    let progress = packed(&progress::lines_without_names(request), PROGRESS);
    let waits = format!("Waiting for {missing}");
    let mut blocks = vec![section(needs)];
    if let Place::Channel { .. } = place {
        let repo = code(&submission.origin.repo, 120);
        let who = requester_name(submission);
        blocks.push(section(format!("*Requested by* {who} for {repo}")));
        let mut why = vec![line(vec![heading("Why")])];
        why.extend(quote(&submission.justification, 6, JUSTIFICATION).0);
        blocks.push(rich(why));
    }
    blocks.push(section(if progress.is_empty() { waits.clone() } else { format!("{waits}\n{progress}") }));
    if let Place::Channel { permalink: Some(link) } = place
        && target(link).is_some()
        && link.len() <= 1000
    {
        // Slack would parse a `&` as the start of an escaped character.
        let link = link.replace('&', "&amp;");
        blocks.push(section(format!("<{link}|Open the request to decide>")));
    }
    // Without the mention, which would notify people a second time.
    let text = format!(":rotating_light: {action} needs a decision: {}. {waits}", left(now, end));
    Message { text, blocks }
}

/// The mention of whom the policy set names: a person, a user group of Slack, or each member of a group.
fn mention_of(mention: &str, roster: Roster<'_>) -> String {
    if text::is_user_group(mention) {
        return format!("<!subteam^{mention}>");
    }
    let Some(group) = mention.strip_prefix('@') else { return roster.person(mention) };
    let name = text::group(group, 80);
    let members = roster.entry.groups.get(group).into_iter().flatten();
    let mentions: Vec<String> = members
        .filter_map(|id| match id {
            id if text::is_user_group(id) => Some(format!("<!subteam^{id}>")),
            // Somebody without a Slack id cannot be notified.
            id => Some(roster.person(id)).filter(|shown| shown.starts_with("<@")),
        })
        .collect();
    match mentions.len() {
        0 => name,
        count if count > MOST_MENTIONED => {
            let first: Vec<String> = mentions.into_iter().take(MOST_MENTIONED).collect();
            format!("{} and {} more ({name})", first.join(" "), text::grouped(count - MOST_MENTIONED))
        }
        _ => format!("{} ({name})", mentions.join(" ")),
    }
}
