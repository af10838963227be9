//! The message of a request: who wants what and why, what is missing, how long is left; in the end, who decided.
//!
//! Pure: the time is an argument, and the same request always gives the same message, so it can be rendered whenever
//! it is sent. What comes from outside is made fit for Slack as [`super::text`] says: the justification, reasons and
//! long parameters are literal text in quotes and boxes, the rest is inline code amid our own words.
//!
//! Slack takes about 13,000 characters a message, all blocks together. What must be there is made first: the header,
//! the status, the ids and the buttons, whose sizes are bounded. What else there is takes, in the order of its
//! importance, from the room that is left, and says how much of it is not shown. So no input can crowd out a button.

use serde::Serialize;
use serde_json::Value;
use slack_morphism::prelude::*;

use super::blocks::{
    button, cost, heading, json_width, line, literal, plain, preformatted, quote, remark, rich, row, section,
    small_print, words,
};
use super::interaction::DECIDE_BLOCK;
use super::modal;
use super::progress::{self, changes, packed, pending_personas};
use super::text::{self, Lines, code, counted, grouped, person};
use super::time::left;
use crate::lifecycle::{Digest, Link, Party, Request, State, Status, Timestamp};
use crate::policy::PolicyEntry;

/// What people see.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// What notifications say, and whoever cannot show blocks: `mrkdwn`, in which names are escaped.
    pub text: String,
    /// What the message shows.
    pub blocks: Vec<SlackBlock>,
}

/// Slack was seen to refuse messages from about 13,170 characters on.
pub(super) const MESSAGE_ROOM: usize = 12_900;

/// The most that each part takes of a message's room.
mod most {
    pub(super) const PERSONA_BUTTONS: usize = 6_500;
    pub(super) const PERSONA_BUTTONS_MINIMAL: usize = 3_000;
    pub(super) const REASON: usize = 1_500;
    pub(super) const JUSTIFICATION: usize = 1_500;
    pub(super) const REQUESTER: usize = 1_100;
    pub(super) const REQUIREMENTS: usize = 2_200;
    pub(super) const EDITS: usize = 2_600;
    pub(super) const PARAMETERS: usize = 6_000;
    pub(super) const LINKS: usize = 1_600;
}

/// What is kept for parts that come late, and must not find all of the room taken.
mod least {
    pub(super) const PERSONA_BUTTONS: usize = 3_000;
    pub(super) const PARAMETERS: usize = 1_000;
}

/// How many lines a text may have, so that none pushes the buttons out of sight.
const QUOTE_LINES: usize = 12;
const VALUE_LINES: usize = 20;

/// The message of a request as it stands at `now`.
#[must_use]
pub fn message(request: &Request, entry: &PolicyEntry, now: Timestamp) -> Message {
    let mut room = Room(MESSAGE_ROOM - least::PERSONA_BUTTONS - least::PARAMETERS);
    let header = room.must(header(request));
    let status = room.must(section(progress::status(request, now)));
    let ids = room.must(ids(request));
    let buttons = room.must_all(decide(request, entry));

    let reason = room.may(most::REASON, |most| reason(request, most));
    let why = room.may(most::JUSTIFICATION, |most| justification(request, most));
    let who = room.may(most::REQUESTER, |_| Some(requester(request)));
    let requirements = room.may(most::REQUIREMENTS, |most| requirements(request, entry, most));
    let edits = room.may(most::EDITS, |most| edits(request, most));
    room.0 += least::PERSONA_BUTTONS;
    let personas = room.must_all(acknowledge(request, most::PERSONA_BUTTONS.min(room.0)));
    room.0 += least::PARAMETERS;
    let parameters = room.may(most::PARAMETERS, |most| parameters(request, most));
    let links = room.may(most::LINKS, |most| links(&request.submission.links, most));
    let description = room.may(most::REQUESTER, |_| description(entry));

    let parts = [description, Some(status), reason, who, why, requirements, edits, parameters, links];
    let shown = parts.into_iter().flatten();
    let blocks = std::iter::once(header).chain(shown).chain(personas).chain(buttons).chain([ids]).collect();
    Message { text: fallback(request, now), blocks }
}

/// The least that can be shown and decided on, where Slack finds the whole too long or malformed.
#[must_use]
pub fn minimal(request: &Request, entry: &PolicyEntry, now: Timestamp) -> Message {
    let said = requested_by(request);
    let note =
        ":warning: Slack did not take the whole of this request, so its parameters are not shown here.";
    let head = [header(request), section(progress::status(request, now)), section(format!("{said}\n{note}"))];
    let personas = acknowledge(request, most::PERSONA_BUTTONS_MINIMAL);
    let blocks = head.into_iter().chain(personas).chain(decide(request, entry)).collect();
    Message { text: fallback(request, now), blocks }
}

/// What is left of a message's room.
struct Room(usize);

impl Room {
    /// Takes a part that must be there, and whose size is bounded.
    fn must(&mut self, block: SlackBlock) -> SlackBlock {
        self.0 = self.0.saturating_sub(cost(&block));
        block
    }

    fn must_all(&mut self, blocks: Vec<SlackBlock>) -> Vec<SlackBlock> {
        blocks.into_iter().map(|block| self.must(block)).collect()
    }

    /// Takes a part that is made to fit in what is left, and leaves it out where it does not.
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

/// What a notification says.
fn fallback(request: &Request, now: Timestamp) -> String {
    let submission = &request.submission;
    let (action, who) = (code(&submission.action, 150), party(&submission.requester));
    let repo = code(&submission.origin.repo, 150);
    let about = format!("{action} for {repo}, requested by {who}");
    match &request.state {
        State::Open(open) => {
            let (missing, left) = (progress::missing(open), left(now, submission.expires_at));
            format!("Waiting for {missing}: {about}; {left}")
        }
        _ => format!("{}{}. {about}", progress::verdict(request).1, progress::how(request)),
    }
}

fn header(request: &Request) -> SlackBlock {
    const MOST: usize = 150;
    let action = &request.submission.action;
    // An action of an unknown name could be a sentence; in quotes it is not ours.
    let title =
        if is_name(action) { format!("Request: {action}") } else { format!("Request: “{action}”") };
    SlackHeaderBlock::new(plain(&title, MOST).into()).into()
}

fn description(entry: &PolicyEntry) -> Option<SlackBlock> {
    const MOST: usize = 300;
    let words = plain(&entry.description, MOST);
    let block = SlackContextBlock::new(vec![words.into()]);
    (!entry.description.trim().is_empty()).then(|| block.into())
}

fn ids(request: &Request) -> SlackBlock {
    let short = |digest: Digest| digest.to_string().chars().take(12).collect::<String>();
    let (policy, payload) = (short(request.submission.policy_hash), short(request.payload_hash()));
    small_print(format!("`{}` · policy `{policy}` · payload `{payload}`", request.id))
}

fn requester(request: &Request) -> SlackBlock {
    let origin = &request.submission.origin;
    let mut said = format!("{} for {}", requested_by(request), code(&origin.repo, 120));
    if let Some(branch) = &origin.branch {
        said.push_str(&format!(", branch {}", code(branch, 120)));
    }
    for (name, value) in [("PR", &origin.pr), ("run", &origin.run_id)] {
        if let Some(value) = value {
            said.push_str(&format!(", {name} {}", code(&words_of(value), 60)));
        }
    }
    if request.submission.depth > 0 {
        let number =
            grouped(usize::try_from(request.submission.depth).unwrap_or(usize::MAX).saturating_add(1));
        said.push_str(&format!("\n:repeat: request {number} of its lineage"));
        if let Some(by) = &request.submission.rerequested_by {
            said.push_str(&format!(", made again by {}", party(by)));
        }
    }
    section(said)
}

fn requested_by(request: &Request) -> String {
    format!("*Requested by* {}", party(&request.submission.requester))
}

/// A person or a program; mentioned where it is somebody in Slack.
pub(super) fn party(party: &Party) -> String {
    if party.source.eq_ignore_ascii_case("slack") && text::is_user(&party.id) {
        return person(&party.id, 80);
    }
    let id = code(&format!("{}:{}", party.source, party.id), 100);
    match &party.display {
        Some(display) => format!("{} ({id})", code(display, 80)),
        None => id,
    }
}

/// What people and policies said of it when it ended.
fn reason(request: &Request, most: usize) -> Option<SlackBlock> {
    let reason = match &request.state {
        State::Approved(decided) | State::Denied(decided) => decided.reason.as_deref(),
        State::Cancelled { reason, .. } => reason.as_deref(),
        State::Open(_) | State::Expired { .. } => None,
    };
    quoted("Reason", reason?, most)
}

fn justification(request: &Request, most: usize) -> Option<SlackBlock> {
    quoted("Why", &request.submission.justification, most)
}

fn quoted(title: &str, text: &str, most: usize) -> Option<SlackBlock> {
    // The heading, the quote around the text and what says that it was cut.
    const AROUND: usize = 620;
    let mut elements = vec![line(vec![heading(title)])];
    elements.extend(quote(text, QUOTE_LINES, most.checked_sub(AROUND)?));
    Some(rich(elements))
}

fn requirements(request: &Request, entry: &PolicyEntry, most: usize) -> Option<SlackBlock> {
    const AROUND: usize = 260;
    const LEAST: usize = 60;
    let lines = progress::lines(request, Some(&entry.groups));
    let most = most.checked_sub(AROUND).filter(|most| *most >= LEAST)?;
    (!lines.is_empty()).then(|| section(packed(&lines, most)))
}

fn edits(request: &Request, most: usize) -> Option<SlackBlock> {
    // The block, its heading, and what says how many edits are left out.
    const AROUND: usize = 450;
    // The elements of a line and their punctuation, without the words in them.
    const PER_LINE: usize = 420;
    const KEY: usize = 60;
    let changes = changes(request);
    let is_open = !request.status().is_terminal();
    let title = if is_open { "Edits so far" } else { "Edits" };
    let mut room = most.checked_sub(AROUND)?;
    let mut elements = vec![line(vec![heading(title)])];
    for (n, (key, before, after)) in changes.iter().enumerate() {
        let rest = changes.len() - n;
        // A few edits get as much as there is; of many, each gets as little as tells what it is.
        let value = ((room / rest).saturating_sub(PER_LINE + KEY) / 2).clamp(40, 500);
        let shown = |value: &Option<&Value>, nothing: &str, most| {
            value.map_or_else(|| vec![remark(nothing)], |value| literal(&words_of(value), most))
        };
        let mut parts = vec![
            SlackRichTextText::new(text::inline(&words_of_key(key), KEY).text).code().into(),
            words(": "),
        ];
        parts.extend(shown(before, "not there", value));
        parts.push(words(" → "));
        parts.extend(shown(after, "removed", value));
        let element = line(parts);
        let takes = json_width(&element);
        if takes > room {
            elements.push(line(vec![remark(format!("and {}", counted(rest, "more edit")))]));
            break;
        }
        room -= takes;
        elements.push(element);
    }
    (!changes.is_empty()).then(|| rich(elements))
}

/// The shown parameters as they stand, and the names of the redacted ones.
///
/// Those that are short stand together in one box, a line each; none can imitate another's line, since a line break
/// in a key or a value makes it a long one. Long ones have each a box of their own, with how much of it is shown.
fn parameters(request: &Request, most: usize) -> Option<SlackBlock> {
    const AROUND: usize = 600;
    const REDACTED: usize = 400;
    let redacted = &request.submission.redacted;
    let params = request.params();
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for (key, value) in params.iter().filter(|(key, _)| !redacted.contains(*key)) {
        match short_line(key, value) {
            Some(line) => short.push(line),
            None => long.push((key, words_of(value))),
        }
    }
    let mut room = most.checked_sub(AROUND)?;
    let hidden = redacted_names(redacted.iter().map(String::as_str), REDACTED);
    room = room.saturating_sub(hidden.as_ref().map_or(0, |_| REDACTED + 200));

    let mut elements = vec![line(vec![heading("Parameters")])];
    if params.is_empty() {
        elements = vec![line(vec![heading("Parameters"), words(": "), remark("none")])];
    }
    // Short ones tell most for their room; but they do not take all of it where there are long ones.
    let room_for_short = if long.is_empty() { room } else { room / 2 };
    let (text, shown) = short_lines(&short, room_for_short);
    room = room.saturating_sub(text::width(&text));
    if !text.is_empty() {
        elements.push(preformatted(text));
    }
    let boxes = long_boxes(&long, room);
    let left_out = short.len() - shown + long.len() - boxes.len();
    elements.extend(boxes.into_iter().flatten());
    let mut notes = Vec::new();
    notes.extend(hidden.map(line));
    if left_out > 0 {
        let count = counted(left_out, "more parameter");
        let verb = if left_out == 1 { "does" } else { "do" };
        let warning = SlackRichTextEmoji::new(SlackEmojiName("warning".into()));
        notes.push(line(vec![warning.into(), heading(format!(" {count} {verb} not fit here"))]));
    }
    elements.extend(notes);
    Some(rich(elements))
}

/// A parameter whose key and value fit on a line together, whole.
fn short_line(key: &str, value: &Value) -> Option<(String, String)> {
    const MOST: usize = 120;
    let key = text::inline(&words_of_key(key), MOST);
    let value = words_of(value);
    if key.cut > 0 || value.contains('\n') {
        return None;
    }
    let value = text::inline(&value, MOST);
    (value.cut == 0).then_some((key.text, value.text))
}

/// As many lines as there is room for, keys and values aligned, and how many those are.
fn short_lines(lines: &[(String, String)], room: usize) -> (String, usize) {
    const WIDEST: usize = 24;
    let widest = lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or_default().min(WIDEST) + 1;
    let (mut text, mut used) = (String::new(), 0);
    for (n, (key, value)) in lines.iter().enumerate() {
        let line = format!("{:<widest$} {value}", format!("{key}:"));
        used += text::width(&line) + 2;
        if used > room {
            return (text, n);
        }
        text.push_str(if n == 0 { "" } else { "\n" });
        text.push_str(&line);
    }
    (text, lines.len())
}

/// A box for each long parameter that there is room for, its heading first.
fn long_boxes(long: &[(&String, String)], room: usize) -> Vec<[SlackRichTextElement; 2]> {
    // The elements of a box, its key and what says how much is shown.
    const PER_BOX: usize = 480;
    const KEY: usize = 100;
    const LEAST: usize = 120;
    /// No longer text goes into one element.
    const LONGEST: usize = 3000;
    let count = long.len().min(room / (PER_BOX + LEAST));
    // As they are shown: what is spelt out is wider than what it stands for.
    let shown = |value: &str, most| text::literal(value, Lines::Most(VALUE_LINES), most);
    let widths: Vec<usize> =
        long.iter().take(count).map(|(_, value)| text::width(&shown(value, LONGEST).text)).collect();
    let most = fair(&widths, room - count * PER_BOX).min(LONGEST);
    let boxes = long.iter().take(count).map(|(key, value)| {
        let fitted = shown(value, most);
        let key = SlackRichTextText::new(text::inline(&words_of_key(key), KEY).text).code();
        let mut heading = vec![key.into()];
        if fitted.cut > 0 {
            let all = value.chars().count();
            let shown = grouped(all - fitted.cut);
            heading.push(remark(format!(" (the first {shown} of {})", counted(all, "character"))));
        }
        [line(heading), preformatted(fitted.text)]
    });
    boxes.collect()
}

/// The most that each may have, so that together they have no more than there is, and what one spares another gets.
fn fair(widths: &[usize], room: usize) -> usize {
    let mut sorted = widths.to_vec();
    sorted.sort_unstable();
    let mut left = room;
    for (n, width) in sorted.iter().enumerate() {
        let share = left / (sorted.len() - n);
        if *width > share {
            return share;
        }
        left -= width;
    }
    room
}

fn redacted_names<'a>(
    keys: impl Iterator<Item = &'a str>,
    most: usize,
) -> Option<Vec<SlackRichTextInlineElement>> {
    let mut names = Vec::new();
    let (mut used, mut rest) = (0, 0);
    for key in keys {
        let name = text::inline(&words_of_key(key), 80).text;
        used += text::width(&name) + 2;
        if used > most { rest += 1 } else { names.push(name) }
    }
    let lock = SlackRichTextEmoji::new(SlackEmojiName("lock".into()));
    let mut parts = vec![lock.into(), words(" redacted: ")];
    match (names.as_slice(), rest) {
        ([], 0) => return None,
        ([], rest) => parts.push(remark(counted(rest, "parameter"))),
        (names, rest) => {
            parts.push(SlackRichTextText::new(names.join(", ")).code().into());
            if rest > 0 {
                parts.push(remark(format!(" and {} more", grouped(rest))));
            }
        }
    }
    Some(parts)
}

fn links(links: &[Link], most: usize) -> Option<SlackBlock> {
    const AROUND: usize = 420;
    const LABEL: usize = 80;
    const HOST: usize = 60;
    let mut room = most.checked_sub(AROUND)?;
    let mut parts = vec![words("Links: ")];
    let mut left_out = 0;
    for link in links {
        let label = text::inline(&link.label, LABEL).text;
        let host = host(&link.url);
        let code = SlackRichTextStyle::new().with_code(true);
        let mut shown = Vec::new();
        if parts.len() > 1 {
            shown.push(words(" · "));
        }
        match host {
            Some(host) => {
                let url = SlackRelaxedUrl(link.url.clone());
                shown.push(SlackRichTextLink::new(url).with_text(label).with_style(code).into());
                // Whoever made the request chose the words: people must see where they lead.
                shown.push(words(format!(" ({})", text::inline(host, HOST).text)));
            }
            None => {
                shown.push(SlackRichTextText::new(label).code().into());
                shown.push(remark(" (not a web address)"));
            }
        }
        let takes = json_width(&shown);
        if takes > room || link.label.is_empty() {
            left_out += 1;
        } else {
            room -= takes;
            parts.extend(shown);
        }
    }
    if left_out > 0 {
        parts.push(remark(format!(" and {} left out", counted(left_out, "more link"))));
    }
    (!links.is_empty()).then(|| rich(vec![line(parts)]))
}

/// The host of a web address that is safe to make a link of.
pub(super) fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty() && !host.contains('@'))?;
    let odd = |c: char| c.is_whitespace() || "<>\"|\\`{}^".contains(c);
    (text::is_plain(url) && !url.contains(odd)).then_some(host)
}

/// The buttons that end a request, or begin it again.
fn decide(request: &Request, entry: &PolicyEntry) -> Vec<SlackBlock> {
    let id = request.id.to_string();
    let press = |action_id: &str, label: &str| button(action_id.to_owned(), label, &id);
    let State::Open(_) = &request.state else {
        let can_be_made_again = matches!(request.status(), Status::Expired | Status::Denied);
        let offer = can_be_made_again && entry.rerequest.is_some();
        return if offer { vec![row(vec![press("re_request", "Re-request")])] } else { Vec::new() };
    };
    let mut buttons = Vec::new();
    // Until every persona is acknowledged an approval would be refused.
    if request.status() != Status::AwaitingPersonas {
        buttons.push(press("approve", "Approve").with_style(SlackBlockButtonStyle::Primary));
        if modal::can_edit(request) {
            buttons.push(press("approve_edit", "Approve with edits"));
        }
    }
    buttons.push(press("deny", "Deny").with_style(SlackBlockButtonStyle::Danger));
    if !request.approvers().is_empty() || !request.acknowledgements().is_empty() {
        buttons.push(press("withdraw", "Withdraw"));
    }
    vec![decisions(request, buttons)]
}

/// The buttons that decide, in a block that says which parameters they are about.
fn decisions(request: &Request, buttons: Vec<SlackBlockButtonElement>) -> SlackBlock {
    let about = SlackBlockId(format!("{DECIDE_BLOCK}{}", request.payload_hash()));
    SlackActionsBlock::new(buttons.into_iter().map(Into::into).collect()).with_block_id(about).into()
}

/// A button for each pending persona, as far as there is room; what has none is said.
fn acknowledge(request: &Request, most: usize) -> Vec<SlackBlock> {
    // Two rows, and what says which personas have no button.
    const AROUND: usize = 600;
    const IN_A_ROW: usize = 25;
    const ACTION_ID: usize = 255;
    let id = request.id.to_string();
    let mut room = most.saturating_sub(AROUND);
    let mut buttons = Vec::new();
    let (mut too_long, mut later) = (0, 0);
    for persona in pending_personas(request) {
        let action_id = format!("persona_ack:{}", persona.label);
        // In UTF-16, as Slack counts; bytes could only be more, and would cost names in other scripts their button.
        if action_id.encode_utf16().count() > ACTION_ID || persona.label.is_empty() {
            too_long += 1;
            continue;
        }
        let button = button(action_id, &format!("Acknowledge {}", persona.label), &id);
        let takes = json_width(&button);
        if takes > room {
            later += 1;
        } else {
            room -= takes;
            buttons.push(button);
        }
    }
    let mut rows: Vec<SlackBlock> = Vec::new();
    let mut rest = buttons.into_iter().peekable();
    while rest.peek().is_some() {
        rows.push(row(rest.by_ref().take(IN_A_ROW).collect()));
    }
    let mut notes = Vec::new();
    if later > 0 {
        let count = counted(later, "more persona");
        notes.push(format!("{count} can be acknowledged once some of these are"));
    }
    if too_long > 0 {
        notes.push(format!("{} with too long a name for a button", counted(too_long, "persona")));
    }
    if !notes.is_empty() {
        rows.push(small_print(format!(":warning: {}", notes.join("; "))));
    }
    rows
}

/// A value as people read it: a text as it is, unless it could be taken for something else; the rest as JSON.
pub(super) fn words_of(value: &Value) -> String {
    const WIDEST: usize = 80;
    match value {
        Value::String(text) => {
            let misleading = text.trim() != text
                || text.is_empty()
                || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            if misleading { value.to_string() } else { text.clone() }
        }
        Value::Array(_) | Value::Object(_) => {
            let compact = value.to_string();
            if compact.len() <= WIDEST {
                return compact;
            }
            serde_json::to_string_pretty(value).unwrap_or(compact)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A key as people read it: in quotes where it is more than a name, so that it cannot pass for a key and its value.
fn words_of_key(key: &str) -> String {
    let is_name = !key.is_empty()
        && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '$'));
    if is_name { key.to_owned() } else { Value::from(key).to_string() }
}

/// What a policy set would let an action be called.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_.:".contains(&letter))
}
