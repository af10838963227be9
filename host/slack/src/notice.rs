//! The notices of a request: of its escalation, in the thread of the request's message and in the escalation channel; and
//! to those whose approvals an edit has replaced, in that thread.
//!
//! A notice mentions those whom it is for, once, and nobody else: whom the policy set names for escalations, or whose
//! approvals were replaced. It is updated once, when its request ends: then it says how that ended, leads to the request's
//! message, and mentions nobody.

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Actor, Replacement, Request, State, Timestamp};
use countersign_core::record::PolicyEntry;
use slack_morphism::prelude::SlackBlock;

use super::blocks::{cost, heading, line, quote, rich, section};
use super::links::target;
use super::message::{MESSAGE_ROOM, Message};
use super::parameters::replaced_values;
use super::progress::{self, Roster, packed};
use super::requester::requester_name;
use super::text::{self, code, counted, person};
use super::time::{date, left};

/// The most members of a group that are mentioned.
const MOST_MENTIONED: usize = 20;

/// The width of the progress.
const PROGRESS: usize = 1200;

/// The width of the justification in the escalation channel.
const JUSTIFICATION: usize = 500;

/// The width of a name.
const NAME: usize = 80;

/// Where the notice of an escalation is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the thread of the request's message.
    Thread,
    /// In the escalation channel.
    Channel,
}

/// The notice that a request escalated, with its state at `now`. `permalink` is the URL of the request's message, if it is
/// known.
#[must_use]
pub fn escalation(
    request: &Request,
    entry: &PolicyEntry,
    directory: &Directory,
    now: Timestamp,
    place: Place,
    permalink: Option<&str>,
) -> Message {
    let submission = &request.submission;
    let action = code(&submission.action, 150);
    let State::Open(open) = &request.state else {
        let (emoji, word) = progress::status_label(request);
        let text = format!("{emoji} {action} was escalated, and has ended since: *{word}*");
        let link = link(permalink, "Open the request");
        return Message { text: text.clone(), blocks: [section(text)].into_iter().chain(link).collect() };
    };
    let mention = entry.escalate.as_ref().and_then(|escalate| escalate.mention.as_deref());
    let call = mention.map_or(String::new(), |mention| {
        format!("{} ", mention_of(mention, Roster { entry, directory, now }))
    });
    let (missing, end) = (progress::missing(open), submission.expires_at);
    let time = format!("*{}*, until {}", left(now, end), date(end));
    let needs = match place {
        Place::Thread => format!(":rotating_light: {call}*This needs a decision*: {time}"),
        Place::Channel => format!(":rotating_light: {call}{action} *needs a decision*: {time}"),
    };
    let progress = packed(&progress::lines_without_names(request), PROGRESS);
    let waits = format!("Waiting for {missing}");
    let mut blocks = vec![section(needs)];
    if place == Place::Channel {
        let repo = code(&submission.origin.repo, 120);
        let who = requester_name(submission);
        blocks.push(section(format!("*Requested by* {who} for {repo}")));
        let mut why = vec![line(vec![heading("Why")])];
        why.extend(quote(&submission.justification, 6, JUSTIFICATION).0);
        blocks.push(rich(why));
    }
    blocks.push(section(if progress.is_empty() { waits.clone() } else { format!("{waits}\n{progress}") }));
    if place == Place::Channel {
        blocks.extend(link(permalink, "Open the request to decide"));
    }
    // Without the mention, which would notify people a second time.
    let text = format!(":rotating_light: {action} needs a decision: {}. {waits}", left(now, end));
    Message { text, blocks }
}

/// The notice to those whose approvals an edit has replaced. `mentions` says whether it mentions them: only the first
/// version does.
#[must_use]
pub fn replaced(
    request: &Request,
    replacement: &Replacement<'_>,
    directory: &Directory,
    permalink: Option<&str>,
    mentions: bool,
) -> Message {
    let action = code(&request.submission.action, 150);
    let editor = name(replacement.by, directory);
    let count = replacement.replaced.len();
    let theirs = if count == 1 { "our approval no longer counts" } else { "our approvals no longer count" };
    let why = format!("{editor} approved {action} with other parameters");
    let mentioned: Vec<String> = replacement.replaced.iter().map(|actor| mention(actor)).collect();
    let mut blocks = Vec::new();
    let text = if mentions {
        // A paragraph has its own limit, and everybody must be mentioned.
        for some in mentioned.chunks(MOST_MENTIONED) {
            blocks.push(section(format!(":pencil2: {}", some.join(", "))));
        }
        blocks.push(section(format!("*Y{theirs}*: {why}.")));
        let first = mentioned.iter().take(MOST_MENTIONED).cloned().collect::<Vec<_>>().join(", ");
        format!(":pencil2: {first}: y{theirs}, because {why}")
    } else {
        let whose = counted(count, "approval");
        let were = if count == 1 { "was" } else { "were" };
        let text = format!(":pencil2: {whose} {were} replaced, because {why}");
        blocks.push(section(format!("{text}.")));
        text
    };
    let (end, label) = match &request.state {
        State::Open(_) => {
            let agree = match permalink {
                Some(_) => "Read what is asked now, and approve again if you agree.",
                None => "Read in the message above what is asked now, and approve again if you agree.",
            };
            (agree.to_owned(), "Open the request to approve again")
        }
        _ => {
            let (emoji, word) = progress::status_label(request);
            (format!("{emoji} The request has ended since: *{word}*"), "Open the request")
        }
    };
    let end: Vec<SlackBlock> = [section(end)].into_iter().chain(link(permalink, label)).collect();
    let taken = text::width(&text) + blocks.iter().chain(&end).map(cost).sum::<usize>();
    let hidden = &request.submission.redacted;
    blocks.extend(replaced_values(replacement.edits, hidden, MESSAGE_ROOM.saturating_sub(taken)));
    blocks.extend(end);
    Message { text, blocks }
}

/// The message of an ended request with a link to that of the request that was made in its place, or has superseded it, as
/// long as there is room.
#[must_use]
pub fn succeeded(mut message: Message, request: &Request, permalink: &str) -> Message {
    let taken = text::width(&message.text) + message.blocks.iter().map(cost).sum::<usize>();
    let label = match request.superseded_by() {
        Some(_) => ":fast_forward: It was superseded: open the newer request",
        None => ":repeat: It was made again: open the new request",
    };
    let link = link(Some(permalink), label);
    message.blocks.extend(link.filter(|link| taken + cost(link) <= MESSAGE_ROOM));
    message
}

/// A link to a message, if it is one that can be made.
fn link(permalink: Option<&str>, label: &str) -> Option<SlackBlock> {
    const LONGEST: usize = 1000;
    let link = permalink.filter(|link| target(link).is_some() && link.len() <= LONGEST)?;
    // Slack would parse a `&` as the start of an escaped character.
    let link = link.replace('&', "&amp;");
    Some(section(format!("<{link}|{label}>")))
}

/// The mention of somebody who acted.
fn mention(actor: &Actor) -> String {
    person(actor.alias.as_deref().filter(|alias| text::is_user(alias)).unwrap_or(&actor.id), NAME)
}

/// The name of somebody who acted: no mention, since it would notify them.
fn name(actor: &Actor, directory: &Directory) -> String {
    let people = directory.people();
    code(people.find(&actor.id).map_or(&actor.id, |person| &person.name), NAME)
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
