//! What people agree to, as a message shows it: why, with which links, edits and parameters; and whether that is all of it.
//!
//! It depends on the request alone, and on no time: so a message that shows all of it does so for everybody, at any time,
//! and the server can ask here whether it does.

use countersign_core::lifecycle::Request;
use countersign_core::record::PolicyEntry;
use slack_morphism::prelude::*;

use super::blocks::{Part, cost, heading, line, quote, rich};
use super::links::links;
use super::parameters::{edits, parameters};

/// The most lines of a quote, so that none pushes the buttons out of sight.
pub(super) const QUOTE_LINES: usize = 12;

/// What people agree to.
pub(super) struct Content {
    pub(super) justification: Option<SlackBlock>,
    pub(super) edits: Option<SlackBlock>,
    pub(super) parameters: Option<SlackBlock>,
    pub(super) links: Option<SlackBlock>,
    /// Whether these blocks show every character of it.
    pub(super) whole: bool,
    /// The room that they take.
    pub(super) takes: usize,
}

impl Content {
    /// As much of it as fits into `room`. If that is not all, its four parts share the room, and what short ones leave goes
    /// to long ones.
    pub(super) fn of(request: &Request, entry: &PolicyEntry, room: usize) -> Content {
        let submission = &request.submission;
        let shows_none = entry.redact.shows_nothing();
        let parts: [&dyn Fn(usize) -> Option<Part>; 4] = [
            &|most| quoted("Why", &submission.justification, QUOTE_LINES, most),
            &|most| edits(request, most),
            &|most| parameters(request, shows_none, most),
            &|most| links(&submission.links, most),
        ];
        let is_there =
            [true, !super::progress::changes(request).is_empty(), true, !submission.links.is_empty()];
        let takes = |part: &Option<Part>| part.as_ref().map_or(0, |part| cost(&part.block));
        let all = parts.map(|part| part(room));
        let demands = all.each_ref().map(takes);
        let shares = shares(demands, room);
        let mut whole = true;
        let mut fitted = all;
        for (((fitted, part), is_there), share) in fitted.iter_mut().zip(parts).zip(is_there).zip(shares) {
            if takes(fitted) > share {
                // Sizes are estimated from above; if that ever fails, a part is left out rather than a button.
                *fitted = part(share).filter(|part| cost(&part.block) <= share);
            }
            whole &= fitted.as_ref().map_or(!is_there, |part| part.whole);
        }
        let takes = fitted.iter().map(takes).sum();
        let [justification, edits, parameters, links] = fitted.map(|part| part.map(|part| part.block));
        Content { justification, edits, parameters, links, whole, takes }
    }
}

/// The room of each part: what it demands, or its share of what others leave.
fn shares(demands: [usize; 4], room: usize) -> [usize; 4] {
    // There are many parameters, and they are what is agreed to.
    const WEIGHTS: [usize; 4] = [1, 1, 3, 1];
    let mut shares = [None; 4];
    loop {
        let taken: usize = shares.iter().flatten().sum();
        let open = shares.iter().zip(WEIGHTS).filter(|(share, _)| share.is_none());
        let weight: usize = open.map(|(_, weight)| weight).sum();
        let unit = room.saturating_sub(taken) / weight.max(1);
        let mut is_done = true;
        for ((share, demand), weight) in shares.iter_mut().zip(demands).zip(WEIGHTS) {
            if share.is_none() && demand <= unit * weight {
                *share = Some(demand);
                is_done = false;
            }
        }
        if is_done {
            let rest = WEIGHTS.map(|weight| unit * weight);
            let mut shares = shares.iter().zip(rest).map(|(share, rest)| share.unwrap_or(rest));
            return std::array::from_fn(|_| shares.next().unwrap_or_default());
        }
    }
}

/// Prose from outside, under a title: so many lines of it.
pub(super) fn quoted(title: &str, text: &str, lines: usize, most: usize) -> Option<Part> {
    // The heading, the quote element and the note that the text was cut.
    const AROUND: usize = 620;
    /// No longer text goes into one element.
    const LONGEST: usize = 3000;
    let mut elements = vec![line(vec![heading(title)])];
    let (quote, cut) = quote(text, lines, most.checked_sub(AROUND)?.min(LONGEST));
    elements.extend(quote);
    Some(Part { block: rich(elements), whole: cut == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_share_the_room() {
        for (demands, room, expected) in [
            ([1, 2, 3, 4], 10, [1, 2, 3, 4]),
            ([900, 900, 900, 900], 600, [100, 100, 300, 100]),
            ([900, 0, 900, 0], 400, [100, 0, 300, 0]),
            ([50, 0, 900, 0], 400, [50, 0, 348, 0]),
            ([900, 0, 100, 0], 400, [300, 0, 100, 0]),
            ([1, 1, 1, 1], 0, [0, 0, 0, 0]),
        ] {
            assert_eq!(shares(demands, room), expected, "{demands:?} {room}");
        }
    }
}
