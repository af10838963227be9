//! Who could move a request on: everybody that the policy set knows of is tried, one by one.

use std::collections::BTreeSet;

use countersign_core::directory::{Directory, is_usergroup};
use countersign_core::lifecycle::{
    Intent, Refusal, Request, Requirement, RequirementKind, State, Status, Timestamp,
};
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Attempt};

/// How many people are tried at the most.
const MOST_PEOPLE: usize = 500;

/// Who could do something.
#[derive(Default)]
pub(super) struct Moves {
    pub(super) moves: Vec<Move>,
    /// Who could deny it.
    pub(super) deniers: Vec<String>,
    /// How many more people there are than were tried.
    pub(super) untried: usize,
}

/// What somebody could do, or would be asked for and could not.
pub(super) struct Move {
    pub(super) who: String,
    pub(super) what: String,
    /// The status that it would lead to, or why it would not count.
    pub(super) leads_to: Result<Status, Refusal>,
}

impl Moves {
    /// What could be done about `request` a second after `now`.
    pub(super) fn of(
        request: &Request,
        policy: &ActionPolicy,
        directory: &Directory,
        now: Timestamp,
    ) -> Moves {
        let State::Open(open) = &request.state else { return Moves::default() };
        let trying = Trying { request, policy, directory, at: now.plus(1000) };
        let mut acts: Vec<(String, Intent, BTreeSet<String>)> = Vec::new();
        for wanted in &open.requirements {
            let (what, intent) = match wanted.kind {
                RequirementKind::Time => continue,
                RequirementKind::Approval => ("approve".to_owned(), Intent::approve()),
                RequirementKind::Acknowledgement => {
                    let persona = wanted.label.clone();
                    (format!("acknowledge {persona}"), Intent::Acknowledge { persona })
                }
            };
            let asked = trying.asked(wanted);
            match acts.iter_mut().find(|(known, ..)| *known == what) {
                Some((_, _, earlier)) => earlier.extend(asked),
                None => acts.push((what, intent, asked)),
            }
        }
        // Approving may help though nobody asks for it, if a policy waits for a time.
        if !acts.iter().any(|(what, ..)| what == "approve") {
            let approve = Intent::approve();
            acts.push(("approve".to_owned(), approve, BTreeSet::new()));
        }
        // With a reason, for a policy may want one.
        let deny = Intent::Deny { reason: Some("a synthetic reason".to_owned()) };
        let everybody = trying.everybody(acts.iter().flat_map(|(_, _, asked)| asked));
        let mut moves = Moves { untried: everybody.len().saturating_sub(MOST_PEOPLE), ..Moves::default() };
        for who in everybody.iter().take(MOST_PEOPLE) {
            for (what, intent, asked) in &acts {
                let leads_to = trying.attempt(who, intent);
                // Whoever has no say in it is left out, unless a policy asks for them and then says why not.
                let of_interest = match &leads_to {
                    Ok(_) => true,
                    Err(refusal) => asked.contains(who) && !refusal.reasons().is_empty(),
                };
                if of_interest {
                    moves.moves.push(Move { who: who.clone(), what: what.clone(), leads_to });
                }
            }
            if trying.attempt(who, &deny) == Ok(Status::Denied) {
                moves.deniers.push(who.clone());
            }
        }
        moves
    }
}

struct Trying<'a> {
    request: &'a Request,
    policy: &'a ActionPolicy,
    directory: &'a Directory,
    at: Timestamp,
}

impl Trying<'_> {
    /// What would come of it.
    fn attempt(&self, who: &str, intent: &Intent) -> Result<Status, Refusal> {
        let Trying { request, policy, directory, at } = self;
        let actor = policy.entry().actor(who, directory, *at);
        let attempt = Attempt::of(intent.clone(), Some(actor));
        Ok(decide::event(policy, request, attempt, *at).outcome?.request.status())
    }

    /// The people whom a requirement asks for.
    fn asked(&self, wanted: &Requirement) -> BTreeSet<String> {
        let people = wanted.eligible.iter().flat_map(|eligible| match eligible.strip_prefix('@') {
            Some(group) => self.members(group),
            None => BTreeSet::from([eligible.clone()]),
        });
        people.collect()
    }

    /// Whoever is asked for, and then everybody else that the policy set or the request knows of.
    fn everybody<'a>(&self, asked: impl Iterator<Item = &'a String>) -> Vec<String> {
        let asked: BTreeSet<String> = asked.cloned().collect();
        let groups = self.policy.entry().groups.keys();
        let mut others: BTreeSet<String> = groups.flat_map(|group| self.members(group)).collect();
        others.extend(self.request.history.iter().filter_map(|event| Some(event.by.as_ref()?.id.clone())));
        others.insert(self.request.submission.requester_id().to_owned());
        asked.iter().chain(others.difference(&asked)).cloned().collect()
    }

    /// Who is in a group, as far as is known.
    fn members(&self, group: &str) -> BTreeSet<String> {
        let listed = self.policy.entry().groups.get(group).into_iter().flatten();
        let people = listed.flat_map(|member| match self.directory.members(member) {
            Some(members) => members.ids.clone(),
            None if is_usergroup(member) => BTreeSet::new(),
            None => BTreeSet::from([member.clone()]),
        });
        people.collect()
    }
}
