//! The actions of the simulation, and what an independent reader of their rules expects of each decision. It shares
//! nothing with the policies that decide.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::lifecycle::{Act, Request, State};

/// The person whose requests make a policy misbehave.
pub(super) const TROUBLE: &str = "U9";

/// Everybody.
pub(super) const PEOPLE: [&str; 8] = ["U1", "U2", "U3", "U4", "U5", "U6", "U7", TROUBLE];

/// What the rules of an action say.
pub(super) struct Action {
    pub(super) name: &'static str,
    approvers: &'static [&'static str],
    approvals: usize,
    /// Who holds which persona.
    personas: &'static [(&'static str, &'static [&'static str])],
    /// A policy of it fails at each vote on a request of [`TROUBLE`].
    fails_for_trouble: bool,
    /// It is not approved before this much time has passed, in milliseconds.
    waits_ms: u64,
}

pub(super) const ACTIONS: [Action; 5] = [
    Action {
        name: "deploy",
        approvers: &["U1", "U2", "U3", "U4"],
        approvals: 2,
        personas: &[],
        fails_for_trouble: false,
        waits_ms: 0,
    },
    Action {
        name: "guarded",
        approvers: &["U1", "U2"],
        approvals: 1,
        personas: &[("security", &["U5", "U6"]), ("legal", &["U6", "U7"])],
        fails_for_trouble: false,
        waits_ms: 0,
    },
    Action {
        name: "trapping",
        approvers: &["U1", "U2"],
        approvals: 1,
        personas: &[],
        fails_for_trouble: true,
        waits_ms: 0,
    },
    Action {
        name: "looping",
        approvers: &["U1", "U2"],
        approvals: 1,
        personas: &[],
        fails_for_trouble: true,
        waits_ms: 0,
    },
    Action {
        name: "timed",
        approvers: &["U2", "U3"],
        approvals: 1,
        personas: &[],
        fails_for_trouble: false,
        waits_ms: 15_000,
    },
];

/// Who can press this button of a request for an action, and have it count.
pub(super) fn who_can(action: &str, button: &str) -> &'static [&'static str] {
    let Some(action) = ACTIONS.iter().find(|known| known.name == action) else { return &[] };
    match button.strip_prefix("persona_ack:") {
        Some(persona) => {
            action.personas.iter().find(|(name, _)| *name == persona).map_or(&[], |(_, holders)| holders)
        }
        None => action.approvers,
    }
}

/// The policy set of these actions, without its modules.
pub(super) const POLICY_SET: &str = r"
defaults: { timeout: 60s, channel: C0MAIN, unknown_action: deny }
actions:
  deploy:
    description: Two of four
    timeout: 60s
    redact: { show: [ref, replicas, note] }
    escalate: { before: 30s, channel: C0ESCALATIONS }
    rerequest: { cooldown: 5s, limit: 3, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U1, U2, U3, U4], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas, ref, note] }
  guarded:
    description: Two personas, then one
    timeout: 45s
    supersede: [replicas]
    policies:
      - use: persona-gate
        with: { personas: { security: [U5, U6], legal: [U6, U7] } }
      - use: quorum
        with: { approvers: [U1, U2] }
  trapping:
    description: One, unless a policy traps
    redact: { show: [replicas, note] }
    timeout: 30s
    escalate: { before: 20s }
    rerequest: { cooldown: 1s, limit: 2, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U1, U2] }
      - use: misbehaving
        with: { at: vote, do: trap, requester: U9 }
  looping:
    description: One, unless a policy runs for ever
    timeout: 20s
    policies:
      - use: misbehaving
        with: { at: vote, do: loop, requester: U9 }
      - use: quorum
        with: { approvers: [U1, U2] }
  timed:
    description: One, and not before its time
    timeout: 40s
    policies:
      - use: quorum
        with: { approvers: [U2, U3] }
      - use: misbehaving
        with: { do: wake, wake_after_ms: 15000 }
";

/// Whether the decision of an ended request is one that the rules of its action allow.
pub(super) fn check(request: &Request) -> Result<(), String> {
    let name = &request.submission.action;
    let action = ACTIONS.iter().find(|action| action.name == name).ok_or("an unknown action was admitted")?;
    match &request.state {
        State::Approved { decided, .. } => {
            action.allows_approval(request, decided.at.since(request.submission.submitted_at))
        }
        State::Denied(_) => match request.history.last() {
            Some(last) if matches!(last.act, Act::Deny { .. }) => {
                let by = last.by.as_ref().map_or("", |actor| actor.id.as_str());
                let is_approver = action.approvers.contains(&by);
                is_approver.then_some(()).ok_or_else(|| format!("{} was denied by `{by}`", request.id))
            }
            _ => Err(format!("{} was denied by nobody", request.id)),
        },
        State::Expired { at, .. } if *at < request.submission.expires_at => {
            Err(format!("{} expired before its time", request.id))
        }
        State::Expired { .. } | State::Cancelled { .. } | State::Open(_) => Ok(()),
    }
}

impl Action {
    fn allows_approval(&self, request: &Request, after_ms: u64) -> Result<(), String> {
        let mut approved: BTreeSet<&str> = BTreeSet::new();
        let mut acknowledged: BTreeMap<&str, &str> = BTreeMap::new();
        for event in &request.history {
            let Some(by) = event.by.as_ref().map(|actor| actor.id.as_str()) else { continue };
            match &event.act {
                Act::Approve { edits } => {
                    if !edits.is_empty() {
                        approved.clear();
                    }
                    approved.insert(by);
                }
                Act::Acknowledge { persona } => {
                    acknowledged.insert(persona, by);
                }
                Act::Withdraw => {
                    approved.remove(by);
                    acknowledged.retain(|_, who| *who != by);
                }
                _ => {}
            }
        }
        let requester = request.submission.requester.id.as_str();
        let counted =
            approved.iter().filter(|who| self.approvers.contains(who) && **who != requester).count();
        let wrong =
            |why: &str| Err(format!("{} was approved {why}: {approved:?}, {acknowledged:?}", request.id));
        if counted < self.approvals {
            return wrong("by too few people");
        }
        let lacks = |(persona, holders): &&(&str, &[&str])| {
            !acknowledged.get(persona).is_some_and(|who| holders.contains(who))
        };
        if let Some((persona, _)) = self.personas.iter().find(lacks) {
            return wrong(&format!("without the persona {persona}"));
        }
        if self.fails_for_trouble && requester == TROUBLE {
            return wrong("although a policy failed");
        }
        if after_ms < self.waits_ms {
            return wrong("before its time");
        }
        Ok(())
    }
}
