//! Who can still move a request on, and why others cannot: the policies are asked what they would say if each known person
//! acted now. Nothing of it is stored, audited or told to anybody but whoever looks.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_core::directory::Directory;
use countersign_core::eligible::Eligible;
use countersign_core::lifecycle::{Intent, Reason, Request, RequirementKind, State, Status, Timestamp};
use countersign_core::record::PolicyEntry;
use countersign_policy::ActionPolicy;
use countersign_policy::decide::{self, Attempt, Decision};

use crate::judging::Asker;
use crate::{Gateway, GatewayError};

/// How much is tried for one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MostTried {
    /// How many people.
    pub people: usize,
    /// How long, in milliseconds. A judgement that has begun is waited for.
    pub ms: u64,
}

/// What the policies say of those who could act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// Those who were tried: whoever the policies name first, then the others who are known.
    pub people: Vec<Candidate>,
    /// How many more are known, and were not tried.
    pub untried: usize,
    /// User groups of Slack whose members are not known, so that there may be more people.
    pub unknown_groups: BTreeSet<String>,
}

/// Somebody who may be able to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The id by which the policies know them.
    pub id: String,
    /// What came of each act that is missing.
    pub acts: Vec<TriedAct>,
}

/// What would come of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedAct {
    /// `approve` or `acknowledge`.
    pub act: &'static str,
    /// The persona to acknowledge.
    pub persona: Option<String>,
    /// The status that the request would have then, or why the act would not count.
    pub outcome: Tried,
}

/// Whether an act would count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It would, and the request would have this status.
    Counts(Status),
    /// It would not.
    Refused {
        /// A stable code.
        code: &'static str,
        /// Why, for people to read.
        message: String,
        /// The policies' own reasons.
        reasons: Vec<Reason>,
    },
}

impl Gateway {
    /// Tries the acts of each known person on an open request. `None` if it has ended.
    ///
    /// # Errors
    /// If its rules cannot be loaded, or have too much to judge at this instant.
    pub async fn try_everybody(
        &self,
        request: &Arc<Request>,
        most: MostTried,
    ) -> Result<Option<Trial>, GatewayError> {
        let State::Open(open) = &request.state else { return Ok(None) };
        let rules = self.rules_of(request.submission.policy_hash).await?;
        let (now, begun) = (self.clock.now(), self.clock.monotonic());
        let Known { people, unreachable, unknown_groups } =
            Known::of(request, rules.entry(), &self.directory, now);
        let wanted: BTreeSet<(&'static str, Option<String>)> = open
            .requirements
            .iter()
            .filter_map(|wanted| match wanted.kind {
                RequirementKind::Time => None,
                RequirementKind::Approval => Some(("approve", None)),
                RequirementKind::Acknowledgement => Some(("acknowledge", Some(wanted.label.clone()))),
            })
            .collect();
        let mut trial = Trial { unknown_groups, ..Trial::default() };
        if wanted.is_empty() {
            return Ok(Some(trial));
        }
        for id in people {
            let is_late = self.clock.monotonic().since(begun) >= most.ms;
            if trial.people.len() >= most.people || is_late {
                trial.untried += 1;
                continue;
            }
            let out_of_reach = unreachable.iter().find(|(other, _)| *other == id).map(|(_, why)| why);
            let mut acts = Vec::new();
            for (act, persona) in &wanted {
                let outcome = match out_of_reach {
                    Some(why) => why.clone(),
                    None => self.try_act(request, &rules, &id, persona.as_deref(), now).await?,
                };
                acts.push(TriedAct { act, persona: persona.clone(), outcome });
            }
            trial.people.push(Candidate { id, acts });
        }
        Ok(Some(trial))
    }

    async fn try_act(
        &self,
        request: &Arc<Request>,
        rules: &Arc<ActionPolicy>,
        id: &str,
        persona: Option<&str>,
        now: Timestamp,
    ) -> Result<Tried, GatewayError> {
        let intent = match persona {
            None => Intent::approve(),
            Some(persona) => Intent::Acknowledge { persona: persona.to_owned() },
        };
        let by = rules.entry().actor_on(request, id, &self.directory, now);
        let at = request.time_of_next(now);
        let tried = {
            let (rules, request) = (Arc::clone(rules), Arc::clone(request));
            move || decide::event(&rules, &request, Attempt::of(intent, Some(by)), at)
        };
        let Decision { outcome, .. } = self.judges.ask(rules, Asker::Person, tried).await?;
        Ok(match outcome {
            Ok(step) => Tried::Counts(step.request.status()),
            Err(refusal) => Tried::Refused {
                code: refusal.code(),
                message: refusal.to_string(),
                reasons: refusal.reasons().to_vec(),
            },
        })
    }
}

/// Whoever is known that may have to do with a request.
#[derive(Debug, Default)]
struct Known {
    /// Their ids, each once: whoever the policies ask for first.
    people: Vec<String>,
    /// Those of them who cannot act, whatever the policies say.
    unreachable: Vec<(String, Tried)>,
    unknown_groups: BTreeSet<String>,
}

impl Known {
    fn of(request: &Request, entry: &PolicyEntry, directory: &Directory, now: Timestamp) -> Known {
        let mut known = Known::default();
        let State::Open(open) = &request.state else { return known };
        for wanted in &open.requirements {
            known.add(entry.eligible(wanted, directory, now));
        }
        // Whoever acted is known too, and so are those of whom the policy set knows, though for something else.
        for id in request.history.iter().filter_map(|event| event.by.as_ref()).map(|actor| &actor.id) {
            known.add_person(id);
        }
        for name in entry.groups.keys() {
            known.add(entry.named(&format!("@{name}"), &[], directory, now));
        }
        for person in directory.people().iter().filter(|person| person.slack_ids().next().is_some()) {
            known.add(entry.named(&person.name, &[], directory, now));
        }
        known
    }

    fn add(&mut self, eligible: Eligible) {
        let Eligible { people, excluded, gone, unreachable, empty: _, unknown } = eligible;
        for id in people.iter().chain(&excluded) {
            self.add_person(id);
        }
        let out_of_reach = [
            (gone, "left_slack", "this person has left Slack"),
            (unreachable, "no_slack_id", "this person has no Slack id that is known"),
        ];
        for (ids, code, message) in out_of_reach {
            for id in ids {
                if self.add_person(&id) {
                    let why = Tried::Refused { code, message: message.to_owned(), reasons: Vec::new() };
                    self.unreachable.push((id, why));
                }
            }
        }
        self.unknown_groups.extend(unknown);
    }

    /// False if the person was added before.
    fn add_person(&mut self, id: &str) -> bool {
        let is_new = self.people.iter().all(|other| other != id);
        if is_new {
            self.people.push(id.to_owned());
        }
        is_new
    }
}
