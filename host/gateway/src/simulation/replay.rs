//! A recorded request, people's votes included, under a candidate set.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    Act, Actor, AdminEnd, Digest, Identity, Intent, Request, State, Status, Submission, Timestamp,
};
use countersign_core::record::PolicyEntry;
use countersign_policy::decide::{self, Attempt};
use countersign_policy::{ActionPolicy, PolicySet};

use super::{Outcome, Simulation, Timers, by_itself};

/// Replays recorded requests under a candidate set.
#[derive(Debug)]
pub struct Replayer {
    set: PolicySet,
    directory: Directory,
    now: Timestamp,
}

/// How a request ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It is not admitted.
    NotAdmitted,
    /// It is denied, since the set does not know the action.
    UnknownAction,
    /// It is not admitted, since a policy failed.
    PolicyFailed,
    /// It is open.
    Waiting,
    /// It is approved.
    Approved,
    /// It is denied.
    Denied,
    /// It is expired.
    Expired,
    /// Its caller has cancelled it.
    Cancelled,
}

/// What came of judging a request again.
#[derive(Debug)]
pub struct Replayed {
    /// How it ends.
    pub ending: Result<Ending, NotJudged>,
    /// A policy saw `[redacted]` if the live one saw a value, and could have said otherwise.
    pub without_hidden: bool,
    /// A policy failed on the way.
    pub failed: bool,
}

/// Why a request cannot be judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotJudged {
    /// Hidden parameters, which are not stored, decide whether it is admitted.
    HiddenParameters,
}

impl Replayer {
    /// Replays under `set`, with what `directory` knows of groups. What is still open is replayed up to `now`.
    #[must_use]
    pub fn new(set: PolicySet, directory: Directory, now: Timestamp) -> Replayer {
        Replayer { set, directory, now }
    }

    /// The candidate.
    #[must_use]
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// The request from its submission to its end, under the candidate's rules. `original` are its own.
    #[must_use]
    pub fn replay(&self, request: &Request, original: Option<&PolicyEntry>) -> Replayed {
        let mut replayed =
            Replayed { ending: Ok(Ending::UnknownAction), without_hidden: false, failed: false };
        let Some(rules) = self.set.action(&request.submission.action) else { return replayed };
        let submission = self.submission(rules, &request.submission, original);
        let known = known_memos(rules, request, &submission, original);
        let all_known = known.iter().all(Option::is_some);
        replayed.without_hidden = !request.submission.redacted.is_empty() && !all_known;
        let params = submission.params.clone();
        let known = |index: usize| known.get(index).cloned().flatten();
        let mut simulation =
            match Simulation::admit(rules, request.id, submission, &params, &self.directory, known) {
                Ok(simulation) => simulation,
                Err(outcome) => {
                    replayed.ending = match outcome {
                        // Were it not for what is hidden, it might well have been admitted.
                        _ if replayed.without_hidden => Err(NotJudged::HiddenParameters),
                        Outcome::Failed(_) => Ok(Ending::PolicyFailed),
                        _ => Ok(Ending::NotAdmitted),
                    };
                    replayed.without_hidden = false;
                    return replayed;
                }
            };
        replayed.failed = self.events(&mut simulation, request, original);
        replayed.ending = Ok(Ending::of(simulation.status()));
        replayed
    }

    /// What happened to the request happens again, as far as it can. Says whether a policy failed.
    fn events(&self, simulation: &mut Simulation, request: &Request, original: Option<&PolicyEntry>) -> bool {
        let mut failed = false;
        let mut note = |outcome: &Outcome| failed |= matches!(outcome, Outcome::Failed(_));
        let mut timers = Timers { escalation: request.submission.escalate_at, wake_up: None };
        for event in request.history.iter().skip(1) {
            if simulation.status().is_terminal() {
                return failed;
            }
            if let Err(outcome) = simulation.advance(event.at, timers) {
                note(&outcome);
            }
            match (&event.act, &event.by) {
                (Act::Escalated, _) => {
                    timers.escalation = None;
                    // Not due under the candidate: it escalates later, or never.
                    note(&simulation.happen(event.at, by_itself(Intent::Escalate)));
                }
                (act, Some(by)) => {
                    let by = self.actor(simulation.rules().entry(), by, original, event.at);
                    let attempt =
                        Attempt { commitments: commitments(act), ..Attempt::of(intent(act), Some(by)) };
                    note(&simulation.happen(event.at, attempt));
                }
                // Wake-ups come when the candidate's own policies ask for them.
                (_, None) => {}
            }
        }
        let end = request.decided_at().unwrap_or(self.now);
        if let Err(outcome) = simulation.advance(end, timers) {
            note(&outcome);
        }
        if let Some(ended) = AdminEnd::recorded(&request.state) {
            note(&simulation.happen(end, by_itself(Intent::End(ended))));
            return failed;
        }
        match &request.state {
            State::Cancelled { at, .. } => {
                note(&simulation.happen(*at, by_itself(Intent::Cancel { reason: None })))
            }
            // Nobody decided: so it would have ended, sooner or later.
            State::Expired { .. } => {
                let at = end.max(simulation.expires_at());
                note(&simulation.happen(at, by_itself(Intent::Expire)));
            }
            State::Open(_) | State::Approved { .. } | State::Denied(_) => {
                if simulation.expires_at() <= end {
                    note(&simulation.happen(end, by_itself(Intent::Expire)));
                }
            }
        }
        failed
    }

    /// The submission, as it would have been made under the candidate's rules.
    fn submission(
        &self,
        rules: &ActionPolicy,
        stored: &Submission,
        original: Option<&PolicyEntry>,
    ) -> Submission {
        // As recorded: who somebody was under other rules is not known.
        let requester = Actor {
            id: stored.requester_id().to_owned(),
            groups: stored.requester_groups.clone(),
            ..Actor::default()
        };
        let actor = self.actor(rules.entry(), &requester, original, stored.submitted_at);
        let identity = stored.requester_is.clone().map(|identity| Identity { id: actor.id, ..identity });
        let submission =
            Submission { requester_groups: actor.groups, requester_is: identity, ..stored.clone() };
        decide::under(rules, submission)
    }

    /// Somebody who acted, with their groups under the candidate's rules: as recorded if the group is the same.
    fn actor(
        &self,
        entry: &PolicyEntry,
        recorded: &Actor,
        original: Option<&PolicyEntry>,
        at: Timestamp,
    ) -> Actor {
        let name = recorded.alias.as_ref().unwrap_or(&recorded.id);
        let mut actor = entry.actor(name, &self.directory, at);
        for (name, members) in &entry.groups {
            if original.is_some_and(|original| original.groups.get(name) == Some(members)) {
                match recorded.groups.contains(name) {
                    true => actor.groups.insert(name.clone()),
                    false => actor.groups.remove(name),
                };
            }
        }
        actor
    }
}

/// What the candidate's policies would have remembered, by their place, if the same module with the same
/// configuration has remembered it of the same submission.
fn known_memos(
    rules: &Arc<ActionPolicy>,
    request: &Request,
    submission: &Submission,
    original: Option<&PolicyEntry>,
) -> Vec<Option<String>> {
    let same_facts = submission.requester_groups == request.submission.requester_groups;
    let memo = |used: &countersign_core::record::PolicyUse| {
        let mut uses = original.filter(|_| same_facts)?.policies.iter();
        let place =
            uses.position(|earlier| earlier.digest == used.digest && earlier.config == used.config)?;
        request.memos.get(place).cloned()
    };
    rules.entry().policies.iter().map(memo).collect()
}

/// What somebody intended who did this. Not for what happens by itself.
pub(crate) fn intent(act: &Act) -> Intent {
    match act {
        Act::Acknowledge { persona } => Intent::Acknowledge { persona: persona.clone() },
        Act::Approve { edits } => {
            let edits = edits.iter().map(|edit| (edit.key.clone(), edit.after.clone()));
            Intent::Approve { edits: edits.collect() }
        }
        Act::Deny { reason } => Intent::Deny { reason: reason.clone() },
        Act::Withdraw | Act::Submitted | Act::Escalated | Act::Tick => Intent::Withdraw,
    }
}

/// The commitments to the new values of edits, as recorded: the salt is not at hand.
pub(crate) fn commitments(act: &Act) -> BTreeMap<String, Digest> {
    let Act::Approve { edits } = act else { return BTreeMap::new() };
    edits.iter().filter_map(|edit| Some((edit.key.clone(), edit.commitment?))).collect()
}

impl Ending {
    /// The ending that a status stands for.
    #[must_use]
    pub fn of(status: Status) -> Ending {
        match status {
            Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => Ending::Waiting,
            Status::Approved => Ending::Approved,
            Status::Denied => Ending::Denied,
            Status::Expired => Ending::Expired,
            Status::Cancelled => Ending::Cancelled,
        }
    }

    /// As reports name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Ending::NotAdmitted => "not admitted",
            Ending::UnknownAction => "denied (unknown action)",
            Ending::PolicyFailed => "not admitted (a policy failed)",
            Ending::Waiting => "waiting",
            Ending::Approved => "approved",
            Ending::Denied => "denied",
            Ending::Expired => "expired",
            Ending::Cancelled => "cancelled",
        }
    }
}

impl NotJudged {
    /// As reports name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            NotJudged::HiddenParameters => "hidden_parameters",
        }
    }
}

#[cfg(test)]
impl Replayer {
    /// How a request has ended, and how it ends here.
    pub(super) fn told(&self, request: &Request, original: Option<&PolicyEntry>) -> (String, String) {
        let after = match self.replay(request, original).ending {
            Ok(ending) => ending.as_str(),
            Err(why) => why.as_str(),
        };
        (Ending::of(request.status()).as_str().to_owned(), after.to_owned())
    }
}
