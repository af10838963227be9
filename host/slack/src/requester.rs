//! Who requests an action, and where the request comes from, as messages, notices and the review say it.
//!
//! All of it comes from callers, so each text has a width. A message in which any of it was cut is not whole: then people
//! read it in the review, where none of it is cut.

use std::cell::Cell;

use countersign_core::lifecycle::{Identity, Known, Party, Request, Submission};
use serde_json::{Map, Value, json};

use super::blocks::{Part, section};
use super::parameters::value_line;
use super::progress::{MOST_NAMES, listed};
use super::review::bytes;
use super::text::{self, Fitted, grouped, person};

/// The most room of those who count as requesters too, and how many of them are named if they take more.
const OTHERS: usize = 240;
const FEW_OTHERS: usize = 3;

/// Writes texts in their widths, and notes whether any was cut.
#[derive(Default)]
struct Writer {
    has_cut: Cell<bool>,
}

impl Writer {
    fn code(&self, text: &str, most: usize) -> String {
        let Fitted { text, cut } = text::code_and_cut(text, most);
        self.note(cut > 0);
        text
    }

    fn note(&self, is_cut: bool) {
        self.has_cut.set(self.has_cut.get() || is_cut);
    }
}

/// Who requests it, where it comes from, and who made it again.
pub(super) fn requester(request: &Request) -> Part {
    let submission = &request.submission;
    let writer = Writer::default();
    let block = section(paragraph(submission, &writer));
    Part { block, whole: !writer.has_cut.get() }
}

/// Who requests it, without where it comes from.
pub(super) fn requester_alone(submission: &Submission) -> String {
    let writer = &Writer::default();
    let others = others(submission, writer).map_or(String::new(), |others| format!("\n{others}"));
    format!("{}{others}", requested_by(submission, writer))
}

/// The requester's name, and how it is known.
pub(super) fn requester_name(submission: &Submission) -> String {
    known_requester(submission, &Writer::default())
}

/// Which request of its lineage it is, and who made it again; `None` if it is the first one.
pub(super) fn lineage(submission: &Submission) -> Option<String> {
    made_again(submission, &Writer::default())
}

/// All that messages cut of it, and the action, to be shown in full.
pub(super) fn in_full(submission: &Submission) -> Value {
    let requester = shown_of(&submission.requester, submission.requester_is.as_ref());
    let mut all = Map::from_iter([
        ("action".to_owned(), json!(submission.action)),
        ("origin".to_owned(), json!(submission.origin)),
        ("requester".to_owned(), json!(requester)),
    ]);
    let mut add = |key: &str, value: Value| all.insert(key.to_owned(), value);
    if let Some(caller) = &submission.caller {
        add("caller", json!(caller));
    }
    let others: Vec<&str> = other_requesters(submission).collect();
    if !others.is_empty() {
        add("owners", json!(others));
    }
    if let Some(by) = &submission.rerequested_by {
        add("rerequestedBy", json!(shown_of(by, submission.rerequester_is.as_ref())));
    }
    Value::Object(all)
}

/// About as many bytes as [`in_full`] has, without making it: each request is asked for that as it is made.
pub(super) fn bytes_in_full(submission: &Submission) -> usize {
    /// The names of the members, and what is around each owner.
    const AROUND: usize = 200;
    const AROUND_OWNER: usize = 8;
    let Submission { action, origin, requester, caller, owners, rerequested_by, .. } = submission;
    let party =
        |party: &Party| party.source.len() + party.id.len() + party.display.as_ref().map_or(0, String::len);
    let numbers = [&origin.pr, &origin.run_id].into_iter().flatten();
    let numbers: usize = numbers.map(bytes).sum();
    let owners: usize = owners.iter().map(|owner| AROUND_OWNER + owner.len()).sum();
    AROUND
        + action.len()
        + origin.repo.len()
        + origin.branch.as_ref().map_or(0, String::len)
        + numbers
        + party(requester)
        + caller.as_ref().map_or(0, String::len)
        + owners
        + rerequested_by.as_ref().map_or(0, party)
}

fn paragraph(submission: &Submission, writer: &Writer) -> String {
    const ORIGIN: usize = 120;
    const NUMBER: usize = 60;
    let origin = &submission.origin;
    let mut said = format!("{} for {}", requested_by(submission, writer), writer.code(&origin.repo, ORIGIN));
    if let Some(branch) = &origin.branch {
        said.push_str(&format!(", branch {}", writer.code(branch, ORIGIN)));
    }
    for (name, value) in [("PR", &origin.pr), ("run", &origin.run_id)] {
        if let Some(value) = value {
            said.push_str(&format!(", {name} {}", writer.code(&value_line(value), NUMBER)));
        }
    }
    for line in [others(submission, writer), made_again(submission, writer)].into_iter().flatten() {
        said.push_str(&format!("\n{line}"));
    }
    said
}

fn requested_by(submission: &Submission, writer: &Writer) -> String {
    let owners = match owned_by(submission, writer) {
        Some(owners) => format!(", owned by {owners}"),
        None => String::new(),
    };
    format!("*Requested by* {}{owners}", known_requester(submission, writer))
}

/// The owners of a machine that asks.
fn owned_by(submission: &Submission, writer: &Writer) -> Option<String> {
    if is_owned(submission) { names_of_others(submission, writer) } else { None }
}

/// Who counts as a requester, too, unless they are the owners of a machine.
fn others(submission: &Submission, writer: &Writer) -> Option<String> {
    let names = if is_owned(submission) { None } else { names_of_others(submission, writer) };
    names.map(|names| format!("*Count as requesters too:* {names}"))
}

/// Whether those who count as requesters too are the owners of the machine that asks; of a gate's request, they have a part
/// in what waits there.
fn is_owned(submission: &Submission) -> bool {
    submission.gate.is_none()
        && submission.requester_is.as_ref().is_some_and(|identity| identity.known == Known::Machine)
}

fn other_requesters(submission: &Submission) -> impl Iterator<Item = &str> {
    submission.owners.iter().map(String::as_str).filter(|owner| *owner != submission.requester_id())
}

/// Without mentions, which would notify them: they are not asked for anything.
fn names_of_others(submission: &Submission, writer: &Writer) -> Option<String> {
    const NAME: usize = 60;
    let names: Vec<String> = other_requesters(submission).map(|name| writer.code(name, NAME)).collect();
    if names.is_empty() {
        return None;
    }
    let many = listed(names.clone(), MOST_NAMES);
    let shown = if text::width(&many) <= OTHERS { many } else { listed(names.clone(), FEW_OTHERS) };
    writer.note(shown != names.join(", "));
    Some(shown)
}

fn made_again(submission: &Submission, writer: &Writer) -> Option<String> {
    if submission.depth == 0 {
        return None;
    }
    let number = grouped(usize::try_from(submission.depth).unwrap_or(usize::MAX).saturating_add(1));
    let by = submission.rerequested_by.as_ref().map_or(String::new(), |by| {
        // No caller stands for the name: the wait token is enough to make a request again.
        format!(", made again by {}", known(by, submission.rerequester_is.as_ref(), None, writer))
    });
    Some(format!(":repeat: request {number} of its lineage{by}"))
}

fn known_requester(submission: &Submission, writer: &Writer) -> String {
    let Submission { requester, requester_is, caller, .. } = submission;
    known(requester, requester_is.as_ref(), caller.as_deref(), writer)
}

/// A person or a program, and whether somebody has proven the name. `caller` is the one that proves or asserts it.
fn known(party: &Party, identity: Option<&Identity>, caller: Option<&str>, writer: &Writer) -> String {
    const CALLER: usize = 60;
    let how = match (identity, caller) {
        (None, _) => String::new(),
        // A machine is the caller itself.
        (Some(identity), Some(_)) if identity.known == Known::Machine => String::new(),
        (Some(identity), Some(caller)) if identity.authenticated => {
            format!(" (verified, through {})", writer.code(caller, CALLER))
        }
        (Some(identity), None) if identity.authenticated => " (verified)".to_owned(),
        (Some(_), Some(caller)) => format!(" (as {} says)", writer.code(caller, CALLER)),
        (Some(_), None) => " (not verified)".to_owned(),
    };
    format!("{}{how}", name(party, identity, writer))
}

/// A person or a program; a mention if it is a Slack user who is known, since a mention notifies.
fn name(party: &Party, identity: Option<&Identity>, writer: &Writer) -> String {
    const NAME: usize = 80;
    const ID: usize = 100;
    if is_mentioned(party, identity) {
        return person(&party.id, NAME);
    }
    let id = writer.code(&format!("{}:{}", party.source, party.id), ID);
    match &party.display {
        Some(display) => format!("{} ({id})", writer.code(display, NAME)),
        None => id,
    }
}

/// What is shown of somebody: of whom Slack shows the name, no other one.
fn shown_of(party: &Party, identity: Option<&Identity>) -> Party {
    let display = party.display.clone().filter(|_| !is_mentioned(party, identity));
    Party { display, ..party.clone() }
}

fn is_mentioned(party: &Party, identity: Option<&Identity>) -> bool {
    let is_known = identity.is_some_and(|identity| identity.known == Known::Person || identity.authenticated);
    is_known && party.source.eq_ignore_ascii_case("slack") && text::is_user(&party.id)
}
