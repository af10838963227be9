//! The texts of ephemeral messages: why an interaction had no effect, and the current state of the request.
//!
//! The texts are `mrkdwn` in which everything from outside is inline code; they fit into a section.

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Reason, Request, Timestamp};
use countersign_core::record::PolicyEntry;

use super::progress::{self, Roster, packed};
use super::text::{self, code};
use super::time::date;

/// The most reasons that are listed.
const MOST_REASONS: usize = 5;

/// The widths of a reason, of the detail and of the progress.
const REASON: usize = 220;
const DETAIL: usize = 300;
const PROGRESS: usize = 700;

/// Why an interaction had no effect, with the policies' reasons, and the state of the request at `now`.
///
/// `error_code` and `detail` are those of the refusal; `request` is there with its rules, if it may be shown.
#[must_use]
pub fn refusal(
    error_code: &str,
    detail: &str,
    reasons: &[Reason],
    request: Option<(&Request, &PolicyEntry)>,
    directory: &Directory,
    now: Timestamp,
) -> String {
    let mut lines = Vec::new();
    match explanation(error_code) {
        Some((text, false)) => lines.push(format!(":no_entry_sign: {text}")),
        Some((text, true)) => lines.push(format!(":no_entry_sign: {text} {}", code(detail, DETAIL))),
        None => lines.push(format!(":no_entry_sign: That was not done. {}", code(detail, DETAIL))),
    }
    lines.extend(
        reasons.iter().take(MOST_REASONS).map(|reason| format!("• {}", code(&reason.message, REASON))),
    );
    if reasons.len() > MOST_REASONS {
        lines.push(format!("• and {}", text::counted(reasons.len() - MOST_REASONS, "more reason")));
    }
    if let Some((request, entry)) = request {
        let action = code(&request.submission.action, 150);
        lines.push(format!("*How it stands now:* {action}"));
        lines.push(progress::status(request, now));
        let progress = progress::lines(request, Roster { entry, directory, now });
        if !progress.is_empty() {
            lines.push(packed(&progress, PROGRESS));
        }
    }
    lines.join("\n")
}

/// Confirms a re-request; `request` is the new one.
#[must_use]
pub fn rerequested(request: &Request) -> String {
    let submission = &request.submission;
    let action = code(&submission.action, 150);
    let number = text::grouped(usize::try_from(submission.depth).unwrap_or(usize::MAX).saturating_add(1));
    let until = date(submission.expires_at);
    format!(
        ":repeat: You asked for {action} again: `{}`, request {number} of its lineage, open until {until}.",
        request.id
    )
}

/// A press is kept until the store takes it.
#[must_use]
pub fn recorded() -> String {
    ":hourglass: What you did is recorded, and will be applied as soon as the gateway's database answers again. If it does \
     not count then, you will be told why."
        .to_owned()
}

/// The next page of a dialog came later than Slack waits for it.
#[must_use]
pub fn page_too_late() -> String {
    ":hourglass: The next page did not open in time. Nothing was approved by it; please press the button in the message \
     again."
        .to_owned()
}

/// The explanation of an error code, and whether the detail is shown after it.
fn explanation(error_code: &str) -> Option<(&'static str, bool)> {
    Some(match error_code {
        "already_decided" => ("This request has ended already, so nothing was changed.", false),
        "expired" => ("The time to decide is over, so nothing was changed.", false),
        "duplicate_approval" => ("Your approval counts already; it counts once.", false),
        "duplicate_acknowledgement" => ("This persona is acknowledged already.", false),
        "nothing_to_withdraw" => ("You have no approval or acknowledgement here to take back.", false),
        "foreign_workspace" => {
            ("This request belongs to another Slack workspace than yours, so nothing was changed.", false)
        }
        "unauthorized" => ("You are not entitled to do this.", false),
        "refused" => ("A policy objects to this.", false),
        "key_not_allowed" => ("That was not approved:", true),
        "parameters_changed" => {
            ("The parameters were changed since you looked. Please look again, and decide on these.", false)
        }
        "not_reviewed" => (
            "This did not count: not all of this request was shown where you pressed. Please press *Review* in its current \
             message, and decide on the last page; if there is no *Review*, that message shows everything.",
            false,
        ),
        "taken_back" => (
            "You took this back, or denied, after you had pressed, so what was recorded while the gateway's database was away \
             is not applied. Please press again if you agree now.",
            false,
        ),
        "not_recorded" => (
            "Something that you did here before is recorded and not applied yet, and this could not be recorded after it, so \
             nothing was changed. Please press again.",
            false,
        ),
        "too_large_to_review" => (
            "This would be too large for people to read in full, so nothing was changed. It can be denied.",
            false,
        ),
        "no_modal" => ("No dialog was opened:", true),
        "policy_failure" => (
            "A policy gave no usable answer, so nothing was changed. Please tell whoever runs Countersign.",
            false,
        ),
        "salt_lost" => ("The key that protects the hash of the parameters is gone:", true),
        "history_full" => ("Too much has happened to this request: it takes no more than its expiry.", false),
        "overloaded" => (
            "There is too much to judge for this action just now, so nothing was changed. Please try again.",
            false,
        ),
        "contended" => ("Others acted on this request at the same moment. Please try again.", false),
        "too_late" => {
            ("This was recorded while the gateway's database was away, for too long to count.", false)
        }
        "store_unavailable" | "store_timeout" => (
            "The gateway's database did not answer, so it is not known whether this was stored. Please look at the message, \
                 and press again if it does not show what you did: it counts once.",
            false,
        ),
        "store_full" => (
            "The gateway has no room to store anything, so nothing was changed. Please tell whoever runs it, and try again.",
            false,
        ),
        "internal" => (
            "Something is wrong on our side, so nothing was changed. Please tell whoever runs Countersign.",
            false,
        ),
        "duplicate_delivery" => (
            "Slack delivered this again after it was refused, so nothing was changed. Please press again.",
            false,
        ),
        "unknown_interaction" => {
            ("This gateway does not know this button or dialog, so nothing was changed.", false)
        }
        "invalid_hash" => (
            "This button or dialog does not say which parameters it showed, so nothing was changed. Please use the current \
             message of the request.",
            false,
        ),
        "not_found" => ("There is no such request any more.", false),
        "not_allowed" => ("This is not allowed:", true),
        "caller_not_allowed" | "too_many_open" => ("The request was not made again:", true),
        "policy_denied" => ("The policies of this action do not allow it.", false),
        "unsatisfiable" => (
            "The request was not made again, since nobody could ever approve it: it needs more people than can act on it.",
            false,
        ),
        "cooldown" | "rate_limited" => ("Not yet:", true),
        _ => return None,
    })
}
