//! The buttons of a message. `interaction/parse.rs` reads the presses.

use countersign_core::lifecycle::{Request, Status};
use countersign_core::record::PolicyEntry;
use slack_morphism::prelude::*;

use super::blocks::{button, json_width, row, small_print};
use super::interaction::DECIDE_BLOCK;
use super::message::Shown;
use super::modal;
use super::progress::pending_personas;
use super::text::counted;

/// The buttons of an ended request: one that shows all of it, and one that makes it again.
pub(super) fn ended(request: &Request, entry: &PolicyEntry) -> SlackBlock {
    let id = request.id.to_string();
    let mut buttons = vec![button("show_all".to_owned(), "Show all", &id)];
    let can_be_made_again = matches!(request.status(), Status::Expired | Status::Denied);
    if can_be_made_again && entry.rerequest.is_some() {
        buttons.push(button("re_request".to_owned(), "Re-request", &id));
    }
    row(buttons)
}

/// The buttons for decisions, below a message that shows so much of an open request. `fits` says whether there is a review.
pub(super) fn decide(request: &Request, entry: &PolicyEntry, shown: Shown, fits: bool) -> SlackBlock {
    let id = request.id.to_string();
    let press = |action_id: &str, label: &str| button(action_id.to_owned(), label, &id);
    let mut buttons = Vec::new();
    let offers_approval = shown.is_enough(entry);
    // An approval is refused until every persona is acknowledged.
    if offers_approval && request.status() != Status::AwaitingPersonas {
        buttons.push(press("approve", "Approve").with_style(SlackBlockButtonStyle::Primary));
        if modal::can_edit(request) {
            buttons.push(press("approve_edit", "Approve with edits"));
        }
    }
    if shown != Shown::Whole && fits {
        let button = press("review", "Review");
        let leads_on = !offers_approval;
        buttons.push(if leads_on { button.with_style(SlackBlockButtonStyle::Primary) } else { button });
    }
    buttons.push(press("deny", "Deny").with_style(SlackBlockButtonStyle::Danger));
    if !request.approvers().is_empty() || !request.acknowledgements().is_empty() {
        buttons.push(press("withdraw", "Withdraw"));
    }
    decision_row(buttons, format!("{DECIDE_BLOCK}{}", request.payload_hash()))
}

/// A row of buttons for decisions. The payload hash in its block id lets a press on an outdated message be refused.
fn decision_row(buttons: Vec<SlackBlockButtonElement>, block_id: String) -> SlackBlock {
    let buttons = buttons.into_iter().map(Into::into).collect();
    SlackActionsBlock::new(buttons).with_block_id(SlackBlockId(block_id)).into()
}

/// A button for each pending persona as far as there is room, and a note about the others.
pub(super) fn acknowledge(request: &Request, most: usize) -> Vec<SlackBlock> {
    // Two rows with their block ids, and the note about personas without a button.
    const AROUND: usize = 800;
    const IN_A_ROW: usize = 25;
    const ACTION_ID: usize = 255;
    let id = request.id.to_string();
    let mut room = most.saturating_sub(AROUND);
    let mut buttons = Vec::new();
    let (mut too_long, mut later) = (0, 0);
    for persona in pending_personas(request) {
        let action_id = format!("persona_ack:{}", persona.label);
        // In UTF-16, as Slack counts. Bytes would be more, and deny a button to names in other scripts.
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
    let payload = request.payload_hash();
    while rest.peek().is_some() {
        let block_id = format!("{DECIDE_BLOCK}{payload}:{}", rows.len() + 1);
        rows.push(decision_row(rest.by_ref().take(IN_A_ROW).collect(), block_id));
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
