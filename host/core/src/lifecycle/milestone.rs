//! The milestones of a request: what programs outside are told of it, in order.

use super::event::Act;
use super::request::{Request, State};
use super::timestamp::Timestamp;

/// Something that others must hear of. Each happens once to a request, at most, and in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Milestone {
    /// It was made.
    Created,
    /// It was escalated, and stayed open.
    Escalated,
    /// It ended: approved, denied, expired or cancelled.
    Decided,
    /// Its approval was consumed.
    Consumed,
    /// Its caller said what came of it.
    Outcome,
}

impl Milestone {
    /// All, in their order.
    pub const ALL: [Milestone; 5] = [
        Milestone::Created,
        Milestone::Escalated,
        Milestone::Decided,
        Milestone::Consumed,
        Milestone::Outcome,
    ];

    /// As configuration, metrics and receivers know it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Milestone::Created => "created",
            Milestone::Escalated => "escalated",
            Milestone::Decided => "decided",
            Milestone::Consumed => "consumed",
            Milestone::Outcome => "outcome",
        }
    }
}

impl Request {
    /// What has happened to it so far, each with its time.
    // INVARIANT: a later version has all that an earlier one has, at the same places. What was delivered is kept as a place.
    #[must_use]
    pub fn milestones(&self) -> Vec<(Milestone, Timestamp)> {
        let mut reached = vec![(Milestone::Created, self.submission.submitted_at)];
        // An escalation at which the policies decided is a decision, as it is to Slack.
        let decided = matches!(self.state, State::Approved { .. } | State::Denied(_));
        let open_after = self.history.len().saturating_sub(usize::from(decided));
        let escalated = self.history.iter().take(open_after).find(|event| event.act == Act::Escalated);
        reached.extend(escalated.map(|event| (Milestone::Escalated, event.at)));
        match &self.state {
            State::Open(_) => {}
            State::Approved { decided, .. } | State::Denied(decided) => {
                reached.push((Milestone::Decided, decided.at));
            }
            State::Expired { at, .. } | State::Cancelled { at, .. } => {
                reached.push((Milestone::Decided, *at));
            }
        }
        if let Some(consumption) = self.consumption() {
            reached.push((Milestone::Consumed, consumption.at));
            reached.extend(consumption.report.as_ref().map(|report| (Milestone::Outcome, report.at)));
        }
        reached
    }
}
