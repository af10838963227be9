//! The message of a request: who requests what and why, what is missing and how much time is left; at the end, who
//! decided.
//!
//! Pure: the time and who has left Slack are arguments, and the same ones always give the same message. Text from outside is made safe
//! as `text.rs` says: the justification, reasons and long parameters are literal text in quotes and boxes, the rest is
//! inline code within our own sentences.
//!
//! Slack takes about 13,000 characters a message, all blocks together. The parts that must be there come first: the
//! header, the status, the requester, the ids and the buttons, whose sizes are bounded. What people agree to shares the
//! room that is left, and says how much of it is not shown (`content.rs`). So no input can crowd out a button.
//!
//! Only a message that shows all that people agree to offers to approve it; any other one offers a review (`review.rs`).

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Digest, Request, State, Timestamp};
use countersign_core::record::PolicyEntry;
use serde::Serialize;
use slack_morphism::prelude::*;

use super::blocks::{cost, mrkdwn, plain, section, small_print};
use super::buttons::{self, acknowledge, decide};
use super::content::{Content, QUOTE_LINES, quoted};
use super::mentions;
use super::parameters::{edits, first_parameters};
use super::progress::{self, Roster, packed};
use super::requester::{requester, requester_alone, requester_name};
use super::review;
use super::text::{self, code};
use super::time::left;

/// A message in Slack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// The text of notifications, and of clients that cannot show blocks: `mrkdwn`, in which names are escaped.
    pub text: String,
    /// The blocks that the message shows.
    pub blocks: Vec<SlackBlock>,
}

/// The room of a message; Slack was seen to refuse messages from about 13,170 characters on.
pub(super) const MESSAGE_ROOM: usize = 12_900;

/// The most room that each part takes.
mod most {
    pub(super) const PERSONA_BUTTONS: usize = 6_500;
    pub(super) const REQUIREMENTS: usize = 2_200;
    /// The text of notifications, and the status of an open request.
    pub(super) const TEXT: usize = 700;
    pub(super) const STATUS: usize = 700;
}

/// The most that each part of an ended request's message takes.
mod brief {
    pub(super) const QUOTE: usize = 1_000;
    pub(super) const QUOTE_LINES: usize = 3;
    pub(super) const EDITS: usize = 1_800;
    pub(super) const REASON: usize = 1_500;
    pub(super) const REQUIREMENTS: usize = 1_000;
}

/// The room that is kept free for parts that come late.
mod least {
    pub(super) const PERSONA_BUTTONS: usize = 3_000;
    pub(super) const REQUIREMENTS: usize = 1_200;
}

/// What a message shows of what people agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Every character.
    Whole,
    /// Some of it.
    Part,
    /// None of it.
    Nothing,
}

impl Shown {
    /// Whether somebody who has read it may approve.
    pub(super) fn is_enough(self, entry: &PolicyEntry) -> bool {
        match self {
            Shown::Whole => true,
            Shown::Part => !entry.consent.is_whole(),
            Shown::Nothing => false,
        }
    }
}

/// The message of a request in its state at `now`. `directory` knows who has left Slack: nobody is told to wait for them.
#[must_use]
pub fn message(request: &Request, entry: &PolicyEntry, directory: &Directory, now: Timestamp) -> Message {
    let roster = Roster { entry, directory, now };
    if request.status().is_terminal() {
        return ended(request, roster);
    }
    let Layout { title, ids, requester, content, note, personas, buttons, mut room, .. } =
        Layout::of(request, entry);
    let status = section(progress::status(request, now));
    room.0 = (room.0 + most::STATUS).saturating_sub(cost(&status));
    let requirements = room.may(most::REQUIREMENTS, |most| requirements(request, roster, most));

    let Content { justification, edits, parameters, links, .. } = content;
    let agreed = [justification, requirements, edits, parameters, links, note];
    let shown = title.into_iter().chain([Some(status), Some(requester)]).chain(agreed).flatten();
    let blocks = shown.chain(personas).chain([buttons, ids]).collect();
    Message { text: fallback(request, entry, now), blocks }
}

/// The message of a request that has ended: how, by whom and when, and the beginning of what was asked. The whole is behind
/// a button. The size of each part is bounded, so that all of them fit.
fn ended(request: &Request, roster: Roster<'_>) -> Message {
    let Roster { entry, now, .. } = roster;
    let submission = &request.submission;
    let justification = quoted("Why", &submission.justification, brief::QUOTE_LINES, brief::QUOTE);
    let edits = edits(request, brief::EDITS);
    let parameters = Some(first_parameters(request));
    let (title, requester) = (title(request, entry), requester(request));
    let parts = [&justification, &edits, &parameters];
    let all_shown = title.whole && requester.whole && parts.into_iter().flatten().all(|part| part.whole);
    let is_short = !submission.links.is_empty() || !all_shown;
    let note =
        is_short.then(|| small_print(":mag: This is shortened. *Show all* opens all of what was asked."));
    let [justification, edits, parameters] =
        [justification, edits, parameters].map(|part| part.map(|part| part.block));
    let words = reason(request).or_else(|| report(request));
    let outcome = [Some(section(progress::status(request, now))), words, Some(requester.block)];
    let who = requirements(request, roster, brief::REQUIREMENTS);
    let asked = [justification, who, edits, parameters, note];
    let shown = title.blocks.into_iter().chain(outcome).chain(asked).flatten();
    let blocks = shown.chain([buttons::ended(request, entry), ids(request)]).collect();
    Message { text: fallback(request, entry, now), blocks }
}

/// Whether the message of a request shows every character of what people agree to: the action, who requests it and where
/// that comes from, its shown parameters, the names of the hidden ones, the justification, the links and the edits.
#[must_use]
pub fn is_whole(request: &Request, entry: &PolicyEntry) -> bool {
    Layout::of(request, entry).whole
}

/// The shortest message of a request, for when Slack refuses [`message`]. While the request is open, it shows nothing of what people agree to, so it
/// offers a review, and no approval.
#[must_use]
pub fn minimal(request: &Request, entry: &PolicyEntry, now: Timestamp) -> Message {
    let requester = requester_alone(&request.submission);
    let why = ":warning: Slack did not take the whole of this request, so its parameters are not shown here.";
    let head = [section(progress::status(request, now)), section(format!("{requester}\n{why}"))];
    let head = title(request, entry).blocks.into_iter().flatten().chain(head);
    let fits = review::fits(request);
    let note = note(request, entry, Shown::Nothing, fits);
    let buttons = if request.status().is_terminal() {
        buttons::ended(request, entry)
    } else {
        decide(request, entry, Shown::Nothing, fits)
    };
    let blocks = head.chain(note).chain([buttons]).collect();
    Message { text: fallback(request, entry, now), blocks }
}

/// What a message is made of that depends on no time, and on nobody but the request's own people.
struct Layout {
    title: [Option<SlackBlock>; 2],
    ids: SlackBlock,
    requester: SlackBlock,
    content: Content,
    /// Whether these show every character of what people agree to.
    whole: bool,
    note: Option<SlackBlock>,
    personas: Vec<SlackBlock>,
    buttons: SlackBlock,
    /// The room that is left.
    room: Room,
}

impl Layout {
    fn of(request: &Request, entry: &PolicyEntry) -> Layout {
        let mut room = Room(MESSAGE_ROOM - most::TEXT - most::STATUS - least::REQUIREMENTS);
        // Only the first message has it; what people agree to has the same room in all of them.
        room.0 -= if entry.notify { mentions::MOST_CALL } else { 0 };
        let (title, requester) = (title(request, entry), requester(request));
        let head_is_whole = title.whole && requester.whole;
        let title = title.blocks.map(|block| block.map(|block| room.must(block)));
        let ids = room.must(ids(request));
        let requester = room.must(requester.block);
        // Which of these it becomes is only known once the content is made.
        let fits = review::fits(request);
        let end = |shown| (note(request, entry, shown, fits), decide(request, entry, shown, fits));
        let takes = |(note, buttons): &(Option<SlackBlock>, SlackBlock)| {
            note.iter().chain([buttons]).map(cost).sum::<usize>()
        };
        let (end_of_whole, end_of_part) = (end(Shown::Whole), end(Shown::Part));
        room.0 = room.0.saturating_sub(takes(&end_of_whole).max(takes(&end_of_part)));
        let least: usize = acknowledge(request, least::PERSONA_BUTTONS).iter().map(cost).sum();

        let content = Content::of(request, entry, room.0.saturating_sub(least));
        room.0 = room.0.saturating_sub(content.takes);
        // With the least room they take what was kept free for them.
        let most = most::PERSONA_BUTTONS.min(room.0).max(least::PERSONA_BUTTONS);
        let whole = head_is_whole && content.whole;
        // An acknowledgement says that somebody has read the request.
        let shown = if whole { Shown::Whole } else { Shown::Part };
        let personas = if shown.is_enough(entry) { acknowledge(request, most) } else { Vec::new() };
        let personas = room.must_all(personas);
        let (note, buttons) = if whole { end_of_whole } else { end_of_part };
        room.0 += least::REQUIREMENTS;
        Layout { title, ids, requester, content, whole, note, personas, buttons, room }
    }
}

/// What people have to know before they approve or deny, if there is anything. `fits` says whether there is a review.
fn note(request: &Request, entry: &PolicyEntry, shown: Shown, fits: bool) -> Option<SlackBlock> {
    if request.status().is_terminal() {
        return None;
    }
    let words = match (shown, !entry.consent.is_whole(), fits) {
        (Shown::Whole, false, _) => return None,
        (Shown::Whole | Shown::Part, true, _) => {
            ":scissors: *People approve a summary*: its policy set lets this action be approved without all of it \
             having been read."
        }
        (Shown::Part, false, true) => {
            ":mag: *Not all of this request is shown here.* Press *Review* to read all of it and decide."
        }
        (Shown::Nothing, _, true) => ":mag: Press *Review* to read all of it and decide.",
        (Shown::Part | Shown::Nothing, _, false) => {
            ":no_entry_sign: *This is too large for people to read in full*, so it can only be denied."
        }
    };
    Some(section(words))
}

/// The room that is left in a message.
struct Room(usize);

impl Room {
    /// Takes the room of a part that must be there. Its size must be bounded.
    fn must(&mut self, block: SlackBlock) -> SlackBlock {
        self.0 = self.0.saturating_sub(cost(&block));
        block
    }

    fn must_all(&mut self, blocks: Vec<SlackBlock>) -> Vec<SlackBlock> {
        blocks.into_iter().map(|block| self.must(block)).collect()
    }

    /// Makes a part that fits into the room that is left, and takes that; leaves the part out if it does not fit.
    fn may(&mut self, most: usize, part: impl FnOnce(usize) -> Option<SlackBlock>) -> Option<SlackBlock> {
        let block = part(most.min(self.0))?;
        let takes = cost(&block);
        if takes > self.0 {
            return None;
        }
        self.0 -= takes;
        Some(block)
    }
}

/// The text of notifications.
fn fallback(request: &Request, entry: &PolicyEntry, now: Timestamp) -> String {
    const NAME: usize = 120;
    let submission = &request.submission;
    let (name, who) = (code(&submission.action, NAME), requester_name(submission));
    let action = described(entry).map_or(name.clone(), |words| format!("{} ({name})", code(words, NAME)));
    let repo = code(&submission.origin.repo, NAME);
    let about = format!("{action} for {repo}, requested by {who}");
    match &request.state {
        State::Open(open) => {
            let (missing, left) = (progress::missing(open), left(now, submission.expires_at));
            format!("Waiting for {missing}: {about}; {left}")
        }
        _ => format!("{}{}. {about}", progress::status_label(request).1, progress::ended_by(request)),
    }
}

/// The heading, and below it in small print what that leaves out.
struct Title {
    blocks: [Option<SlackBlock>; 2],
    /// Whether they show every character of the action's name. The description is the policy set's.
    whole: bool,
}

/// The heading is the action's description, with the machine name below it; an action that has none, such as one that
/// the policy set does not know, has its machine name as the heading.
fn title(request: &Request, entry: &PolicyEntry) -> Title {
    const HEADING: usize = 150;
    const DESCRIPTION: usize = 300;
    let header = |words: &str| Some(SlackHeaderBlock::new(plain(words, HEADING).into()).into());
    let action = &request.submission.action;
    let Some(description) = described(entry) else {
        // The name of an unknown action may be any sentence; quotes show that it is not ours.
        let quoted =
            if is_name(action) { format!("Request: {action}") } else { format!("Request: “{action}”") };
        let whole = text::inline(&quoted, HEADING).cut == 0;
        return Title { blocks: [header(&quoted), None], whole };
    };
    let name = text::code_and_cut(action, HEADING);
    let whole = name.cut == 0;
    let mut below = vec![mrkdwn(name.text).into()];
    if text::inline(description, HEADING).cut > 0 {
        below.push(plain(description, DESCRIPTION).into());
    }
    Title { blocks: [header(description), Some(SlackContextBlock::new(below).into())], whole }
}

/// What the policy set says that an action does.
fn described(entry: &PolicyEntry) -> Option<&str> {
    Some(entry.description.trim()).filter(|description| !description.is_empty())
}

fn ids(request: &Request) -> SlackBlock {
    let short = |digest: Digest| digest.to_string().chars().take(12).collect::<String>();
    let (policy, payload) = (short(request.submission.policy_hash), short(request.payload_hash()));
    small_print(format!("`{}` · policy `{policy}` · payload `{payload}`", request.id))
}

/// The reason with which the request ended.
fn reason(request: &Request) -> Option<SlackBlock> {
    quoted("Reason", progress::reason(request)?, QUOTE_LINES, brief::REASON).map(|part| part.block)
}

/// What the caller has said of the run. An approval has no reason, so it takes the room of one.
fn report(request: &Request) -> Option<SlackBlock> {
    let detail = request.consumption()?.report.as_ref()?.detail.as_deref()?;
    quoted("Outcome", detail, QUOTE_LINES, brief::REASON).map(|part| part.block)
}

fn requirements(request: &Request, roster: Roster<'_>, most: usize) -> Option<SlackBlock> {
    const AROUND: usize = 260;
    const LEAST: usize = 60;
    let lines = progress::lines(request, roster);
    let most = most.checked_sub(AROUND).filter(|most| *most >= LEAST)?;
    (!lines.is_empty()).then(|| section(packed(&lines, most)))
}

/// Whether a policy set allows an action of this name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_.:".contains(&letter))
}
