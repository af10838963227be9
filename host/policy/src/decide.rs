//! Where a submission or an event is decided: the one sequence of steps that the gateway, the shadow, the replay, the
//! trial at load and the authors' commands share.
//!
//! A submission: build it, ask every policy whether it may be made, look for leaks, have it judged. An event: make an act
//! of what was intended, propose it, have it judged. Nothing is stored or audited here; whoever calls does that.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{
    self, Act, Actor, Commitments, Consent, Digest, Edit, Gate, Identity, Intent, Known, Link, Origin, Party,
    PolicyFailure, REDACTED, Reason, Refusal, Request, RequestId, Step, Submission, Timestamp, Verdict,
};
use countersign_core::people::name_of;
use serde_json::{Map, Value};

use crate::action::{ActionPolicy, NotAdmitted};

/// What a caller asks for. Well-formed, and seen by no policy yet.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The action.
    pub action: String,
    /// The parameters, hidden ones included.
    pub params: Map<String, Value>,
    /// Where the request comes from.
    pub origin: Origin,
    /// Who wants the action done, as the request shows it.
    pub requester: Party,
    /// Who that is.
    pub who: Who,
    /// The caller of the access file; `None` if there is no access file.
    pub caller: Option<String>,
    /// Why.
    pub justification: String,
    /// Where to read more.
    pub links: Vec<Link>,
    /// What the caller would like of the policy.
    pub policy_hints: Option<Value>,
    /// The gate of a CI system that the request stands for.
    pub gate: Option<Gate>,
}

/// Who asks, before it is known which rules apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The name in its one form: a bare Slack id, `source:id`, or a person's name.
    pub name: String,
    /// Whether it is a machine.
    pub machine: bool,
    /// Whether the name was proven, rather than asserted by whoever asks.
    pub authenticated: bool,
    /// The names of people who count as requesters, too.
    pub owners: BTreeSet<String>,
}

impl Who {
    /// Somebody of this name, as whoever asks asserts it.
    #[must_use]
    pub fn asserted(name: &str) -> Who {
        Who { name: name.to_owned(), ..Who::default() }
    }

    /// Whoever a party is, as whoever asks asserts it. An id that is none of its source stays as it is.
    #[must_use]
    pub fn of(party: &Party) -> Who {
        Who::asserted(&name_of(&party.source, &party.id).unwrap_or_else(|_| party.id.clone()))
    }

    /// As an earlier request has it.
    fn earlier(submission: &Submission) -> Who {
        let identity = submission.requester_is.as_ref();
        Who {
            machine: identity.is_some_and(|identity| identity.known == Known::Machine),
            authenticated: identity.is_some_and(|identity| identity.authenticated),
            owners: submission.owners.clone(),
            ..Who::of(&submission.requester)
        }
    }
}

impl Ask {
    /// What was asked for in an earlier request, to ask for it again. Still in the first requester's name: were it whoever
    /// wants it again, a requester who may not approve could have somebody else want it, and then approve.
    #[must_use]
    pub fn again(earlier: &Submission) -> Ask {
        Ask {
            action: earlier.action.clone(),
            params: earlier.params.clone(),
            origin: earlier.origin.clone(),
            requester: earlier.requester.clone(),
            who: Who::earlier(earlier),
            caller: earlier.caller.clone(),
            justification: earlier.justification.clone(),
            links: earlier.links.clone(),
            policy_hints: earlier.policy_hints.clone(),
            gate: earlier.gate.clone(),
        }
    }
}

/// Who wants an earlier request made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// As the new request shows it.
    pub party: Party,
    /// Who that is.
    pub who: Who,
}

/// What a new request is given by the gateway that makes it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its id.
    pub id: RequestId,
    /// SHA-256 of its wait token.
    pub token_hash: Digest,
    /// What stands for its parameters in the payload hash.
    pub commitments: Commitments,
    /// When it is made.
    pub at: Timestamp,
}

/// The submission that an ask becomes under these rules. `again` is the earlier submission and who wants it made again,
/// if somebody does.
#[must_use]
pub fn submission(
    rules: &ActionPolicy,
    ask: &Ask,
    issued: Issued,
    again: Option<(&Submission, &Again)>,
    directory: &Directory,
) -> Submission {
    let Issued { id, token_hash, commitments, at } = issued;
    // What was hidden when it was first made stays hidden.
    let hidden = again.map(|(earlier, _)| earlier.redacted.clone()).unwrap_or_default();
    let entry = rules.entry();
    let identity = |who: &Who| {
        let actor = entry.actor(&who.name, directory, at);
        let known = if who.machine { Known::Machine } else { actor.known };
        (Identity { id: actor.id, known, authenticated: who.authenticated }, actor.groups)
    };
    let (mut requester_is, requester_groups) = identity(&ask.who);
    let owners: Vec<Actor> = ask.who.owners.iter().map(|owner| entry.actor(owner, directory, at)).collect();
    // Policies see no more of owners than their ids. One whom a CI system names may be an approver under another name, as a
    // requester may whom nobody knows: so policies that admit no such requester do not admit this.
    if ask.gate.is_some() && owners.iter().any(|owner| owner.known == Known::Unknown) {
        requester_is.known = Known::Unknown;
    }
    let submission = Submission {
        caller: ask.caller.clone(),
        requester_is: Some(requester_is),
        owners: owners.into_iter().map(|owner| owner.id).collect(),
        rerequester_is: again.map(|(_, again)| identity(&again.who).0),
        action: ask.action.clone(),
        lineage: again.as_ref().map_or(id, |(earlier, _)| earlier.lineage),
        depth: again.as_ref().map_or(0, |(earlier, _)| earlier.depth.saturating_add(1)),
        rerequested_by: again.map(|(_, again)| again.party.clone()),
        requester: ask.requester.clone(),
        requester_groups,
        origin: ask.origin.clone(),
        justification: ask.justification.clone(),
        links: ask.links.clone(),
        policy_hints: ask.policy_hints.clone(),
        params: ask.params.clone(),
        redacted: hidden,
        digests: commitments.digests,
        payload_hash_version: commitments.version,
        salt: commitments.salt,
        token_hash,
        submitted_at: at,
        // What the rules say is filled in below.
        rules: String::new(),
        policy_hash: token_hash,
        expires_at: at,
        escalate_at: None,
        unattended: false,
        consent: Consent::Whole,
        terms: Default::default(),
        supersede: Default::default(),
        gate: ask.gate.clone(),
    };
    under(rules, submission)
}

/// A submission with all that the rules decide of it: what is hidden, when it expires and escalates. What is hidden
/// already stays so.
#[must_use]
pub fn under(rules: &ActionPolicy, mut submission: Submission) -> Submission {
    let entry = rules.entry();
    let (mut params, mut redacted) = entry.redact.apply(std::mem::take(&mut submission.params));
    for key in &submission.redacted {
        params.insert(key.clone(), REDACTED.into());
    }
    redacted.extend(submission.redacted);
    let expires_at = submission.submitted_at.plus(entry.timeout_ms);
    Submission {
        rules: entry.action.clone(),
        params,
        redacted,
        policy_hash: rules.hash(),
        expires_at,
        escalate_at: entry.escalate.as_ref().map(|escalate| expires_at.minus(escalate.before_ms)),
        unattended: entry.unattended,
        consent: entry.consent,
        terms: entry.terms,
        ..submission
    }
}

/// What was decided about a submission.
#[derive(Debug)]
pub struct Admission {
    /// What each policy says of the new request, in order. Empty if one did not admit it.
    pub verdicts: Vec<Verdict>,
    /// The request at version 1 with what must be stored with it, or why it is not made.
    pub outcome: Result<Step, NotMade>,
}

/// Why a request is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMade {
    /// Policies forbid it, for these reasons.
    Denied(Vec<Reason>),
    /// Policies gave no usable answer, which never counts as consent.
    Failed(Vec<PolicyFailure>),
    /// The core refuses it.
    Refused(Refusal),
}

/// Decides about a submission. `params` are its parameters before anything was hidden: only the policies' admission sees
/// them. `known` are memos that need not be asked for, by the place of the policy.
#[must_use]
pub fn admit(
    rules: &ActionPolicy,
    id: RequestId,
    submission: Submission,
    params: &Map<String, Value>,
    known: impl Fn(usize) -> Option<String>,
) -> Admission {
    let memos = match rules.admit(id, &submission, params, known) {
        Ok(memos) => memos,
        Err(refused) => {
            let not_made = match refused {
                NotAdmitted::Denied(reasons) => NotMade::Denied(reasons),
                NotAdmitted::Failed(failure) => NotMade::Failed(vec![failure]),
            };
            return Admission { verdicts: Vec::new(), outcome: Err(not_made) };
        }
    };
    let at = submission.submitted_at;
    let draft = lifecycle::draft(id, submission, memos);
    let Decision { verdicts, outcome, .. } = judge(rules, &draft, at, None, Act::Submitted, None);
    let outcome = outcome.map_err(|refusal| match refusal {
        Refusal::Objected(reasons) => NotMade::Denied(reasons),
        Refusal::PolicyFailed(failures) => NotMade::Failed(failures),
        refusal => NotMade::Refused(refusal),
    });
    Admission { verdicts, outcome }
}

/// What is to happen to a request, and by whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// What.
    pub intent: Intent,
    /// Who acts; `None` for what happens by itself.
    pub by: Option<Actor>,
    /// The payload hash of the parameters that whoever acts has seen, if that is known.
    pub seen: Option<Digest>,
    /// The commitments to the new values of its edits, by parameter. A request whose payload hash has a salt cannot be
    /// edited without them.
    pub commitments: BTreeMap<String, Digest>,
}

impl Attempt {
    /// An attempt by somebody of whom it is not known what they have seen, on a request whose payload hash has no salt.
    #[must_use]
    pub fn of(intent: Intent, by: Option<Actor>) -> Attempt {
        Attempt { intent, by, seen: None, commitments: BTreeMap::new() }
    }
}

/// What was decided about an event.
#[derive(Debug)]
pub struct Decision {
    /// What was proposed; `None` for what ends a request without an event of its own.
    pub act: Option<Act>,
    /// Who acts.
    pub by: Option<Actor>,
    /// What each policy says of it, in order. Empty if no policy was asked.
    pub verdicts: Vec<Verdict>,
    /// The next version of the request with what must be stored with it, or why the event does not count.
    pub outcome: Result<Step, Refusal>,
}

/// Decides about an event of `request`, which is judged by `rules`.
#[must_use]
pub fn event(rules: &ActionPolicy, request: &Request, attempt: Attempt, at: Timestamp) -> Decision {
    let Attempt { intent, by, seen, commitments } = attempt;
    if let Some(outcome) = intent.ending(request, at) {
        return Decision { act: None, by: None, verdicts: Vec::new(), outcome };
    }
    let act = act(rules, request, intent, &commitments);
    judge(rules, request, at, by, act, seen)
}

/// The act that an intent is once it is known how the request stands. `commitments` are those of an [`Attempt`].
#[must_use]
pub fn act(
    rules: &ActionPolicy,
    request: &Request,
    intent: Intent,
    commitments: &BTreeMap<String, Digest>,
) -> Act {
    match intent {
        Intent::Acknowledge { persona } => Act::Acknowledge { persona },
        Intent::Deny { reason } => Act::Deny { reason },
        Intent::Withdraw => Act::Withdraw,
        Intent::Escalate => Act::Escalated,
        // An ending is no act; as one it would be refused, for it is not due.
        Intent::Wake | Intent::Expire | Intent::Cancel { .. } | Intent::End(_) => Act::Tick,
        Intent::Approve { edits } => {
            let current = request.params();
            let mut edits = edits;
            // A value that is what it was is no edit; of a hidden one that cannot be told.
            edits.retain(|key, after| {
                current.get(key) != after.as_ref() || request.submission.redacted.contains(key)
            });
            // A request as it was made is not held to the schema, so an approval without edits is not, either.
            let mut violations =
                if edits.is_empty() { BTreeMap::new() } else { rules.check_edits(request, &edits) };
            let edits = edits.into_iter().map(|(key, after)| Edit {
                before: current.get(&key).cloned(),
                commitment: after.as_ref().and_then(|_| commitments.get(&key).copied()),
                violations: violations.remove(&key).unwrap_or_default(),
                key,
                after,
            });
            Act::Approve { edits: edits.collect() }
        }
    }
}

fn judge(
    rules: &ActionPolicy,
    request: &Request,
    at: Timestamp,
    by: Option<Actor>,
    act: Act,
    seen: Option<Digest>,
) -> Decision {
    let (verdicts, outcome) = match request.propose(at, by.clone(), act.clone(), seen) {
        Ok(proposal) => {
            let verdicts = rules.judge(proposal.request(), proposal.event());
            let outcome = proposal.judged(&verdicts, &rules.entry().redact);
            (verdicts, outcome)
        }
        Err(refusal) => (Vec::new(), Err(refusal)),
    };
    Decision { act: Some(act), by, verdicts, outcome }
}
