//! Every version of every request that the store has stored, each checked against the one before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::lifecycle::{
    Act, AdminEnd, AuditEntry, Escalation, Event, Refusal, Request, RequestId, State, Timestamp, draft,
};
use countersign_policy::Policies;

use super::expected;
use super::profile::EXPIRY_AFTER_FAULT_MS;

/// How late an expiry may be, in milliseconds.
const EXPIRY_MS: u64 = 1_000;

/// What the store has stored.
pub(super) struct Ledger {
    policies: Arc<Policies>,
    pub(super) requests: BTreeMap<RequestId, Vec<Request>>,
    /// In the order in which they were stored first.
    order: Vec<RequestId>,
    /// How often somebody has pressed for an act on a request, by request, person and act.
    pub(super) presses: BTreeMap<(RequestId, String, &'static str), usize>,
    /// How often somebody was refused an act on a request.
    refusals: BTreeMap<(RequestId, String), usize>,
}

impl Ledger {
    pub(super) fn new(policies: Arc<Policies>) -> Ledger {
        Ledger {
            policies,
            requests: BTreeMap::new(),
            order: Vec::new(),
            presses: BTreeMap::new(),
            refusals: BTreeMap::new(),
        }
    }

    /// The newest version of a request.
    pub(super) fn newest(&self, id: RequestId) -> Option<&Request> {
        self.requests.get(&id)?.last()
    }

    /// A version of a request.
    pub(super) fn version(&self, id: RequestId, version: u64) -> Option<&Request> {
        self.requests.get(&id)?.iter().find(|request| request.version == version)
    }

    /// How often a person was refused an act on a request.
    pub(super) fn refusals(&self, request: RequestId, user: &str) -> usize {
        self.refusals.get(&(request, user.to_owned())).copied().unwrap_or_default()
    }

    /// Refusals were stored.
    pub(super) fn refused(&mut self, audit: &[AuditEntry]) {
        for entry in audit {
            if let (Some(request), Some(actor)) = (entry.request, &entry.actor) {
                *self.refusals.entry((request, actor.clone())).or_default() += 1;
            }
        }
    }

    /// A version was stored, with these audit entries.
    pub(super) fn stored(
        &mut self,
        request: &Request,
        audit: &[AuditEntry],
        disturbed_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), String> {
        let versions = self.requests.entry(request.id).or_default();
        let before = versions.last().cloned();
        versions.push(request.clone());
        if before.is_none() {
            self.order.push(request.id);
        }
        if before.as_ref().is_some_and(Request::is_superseding) {
            self.stands_alone(request, now)?;
        }
        follows(before.as_ref(), request)?;
        self.judged_alike(before.as_ref(), request)?;
        self.pressed(request)?;
        expected::check(request)?;
        let events: Vec<&str> = audit.iter().map(|entry| entry.event.as_str()).collect();
        let wanted = audited(before.as_ref(), request);
        if events != wanted {
            return Err(format!("{} is audited as {events:?} rather than {wanted:?}", request.id));
        }
        if let State::Expired { at, .. } = request.state {
            let due = request.submission.expires_at;
            let latest = due.max(disturbed_at.plus(EXPIRY_AFTER_FAULT_MS)).plus(EXPIRY_MS);
            if at > latest {
                return Err(format!("{} expired {} ms late", request.id, at.since(due)));
            }
        }
        Ok(())
    }

    /// The version is what the policies and the core make of the one before it and of what happened.
    fn judged_alike(&self, before: Option<&Request>, after: &Request) -> Result<(), String> {
        let drafted;
        let (before, happened) = match before {
            Some(before) => (before, after.history.get(before.history.len())),
            None => {
                drafted = draft(after.id, (*after.submission).clone(), after.memos.to_vec());
                (&drafted, after.history.first())
            }
        };
        let step = match (happened, &after.state) {
            (Some(Event { at, by, act, .. }), _) => {
                let rules = self.policies.by_hash(&after.submission.policy_hash);
                let rules = rules.ok_or_else(|| format!("{} has no rules", after.id))?;
                let proposal = before.propose(*at, by.clone(), act.clone(), None);
                proposal.and_then(|proposal| {
                    let verdicts = rules.judge(proposal.request(), proposal.event());
                    proposal.judged(&verdicts, &rules.entry().redact)
                })
            }
            (None, ended) if AdminEnd::recorded(ended).is_some() => {
                let end = AdminEnd::recorded(ended).ok_or_else(|| format!("{} was not ended", after.id))?;
                before.end_by_admin(after.changed_at(), &end)
            }
            (None, State::Expired { at, .. }) => before.expire(*at),
            (None, State::Cancelled { at, reason, successor: None, .. }) => {
                before.cancel(*at, reason.clone())
            }
            (None, State::Cancelled { at, successor: Some(newer), .. }) => before.supersede(*at, *newer),
            (None, State::Open(_)) if before.is_superseding() => {
                let at = after.changed_at();
                let noted = before.has_superseded(at, after.superseded.clone());
                noted.ok_or_else(|| Refusal::Ended(before.status()))
            }
            (None, _) => return Err(format!("{} v{} changed for nothing", after.id, after.version)),
        };
        let step =
            step.map_err(|refusal| format!("{} v{} is refused: {refusal}", after.id, after.version))?;
        let same = step.request == *after;
        same.then_some(()).ok_or_else(|| {
            format!(
                "{} v{} is stored as {after:?}, and follows as {:?}",
                after.id, after.version, step.request
            )
        })
    }

    /// Once those that a request supersedes have been looked for, none of them is open.
    fn stands_alone(&self, request: &Request, now: Timestamp) -> Result<(), String> {
        let is_earlier = |id: &&RequestId| **id != request.id;
        for older in self.order.iter().take_while(is_earlier).filter_map(|id| self.newest(*id)) {
            // One whose time is over expires; when that is noticed depends on the clock.
            let is_over = older.status().is_terminal() || older.submission.expires_at <= now.plus(1_000);
            if older.gives_way_to(request) && !is_over && !request.status().is_terminal() {
                return Err(format!("{} stands beside {}", older.id, request.id));
            }
        }
        Ok(())
    }

    /// Nobody's acts are more than their presses.
    fn pressed(&self, request: &Request) -> Result<(), String> {
        let Some(Event { by: Some(by), act, .. }) = request.history.last() else { return Ok(()) };
        let is_same = |event: &&Event| {
            event.by.as_ref().is_some_and(|other| other.id == by.id) && event.act.name() == act.name()
        };
        let counted = request.history.iter().filter(is_same).count();
        let pressed = self.presses.get(&(request.id, by.id.clone(), act.name())).copied().unwrap_or_default();
        if counted > pressed {
            return Err(format!(
                "{} of {} counts {counted} times on {}, after {pressed} presses",
                act.name(),
                by.id,
                request.id
            ));
        }
        Ok(())
    }
}

/// What does not depend on the rules: how versions follow each other.
fn follows(before: Option<&Request>, after: &Request) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{} v{}: {what}", after.id, after.version));
    let Some(before) = before else {
        if after.version != 1
            || !matches!(after.history.as_slice(), [Event { act: Act::Submitted, by: None, .. }])
        {
            return wrong("a request does not begin with its submission");
        }
        return Ok(());
    };
    if before.status().is_terminal() {
        return wrong("it had ended already");
    }
    if after.version != before.version + 1 {
        return wrong("it does not follow the version before it");
    }
    if after.submission != before.submission || after.memos != before.memos {
        return wrong("what was submitted has changed");
    }
    let Some(happened) = after.history.strip_prefix(before.history.as_slice()) else {
        return wrong("its history has changed");
    };
    match happened {
        [] if before.is_superseding() && !after.is_superseding() => {}
        [] if !after.status().is_terminal() => return wrong("nothing happened"),
        [] => {}
        [event] => {
            if usize::try_from(event.seq) != Ok(before.history.len()) {
                return wrong("its history has a gap");
            }
            if before.history.last().is_some_and(|last| event.at < last.at) {
                return wrong("its history runs backwards");
            }
            if event.by.is_some() && event.at >= after.submission.expires_at {
                return wrong("somebody acted after its time");
            }
        }
        _ => return wrong("several events happened at once"),
    }
    let escalations = after.history.iter().filter(|event| event.act == Act::Escalated).count();
    let says_so = match &after.state {
        State::Open(open) => matches!(open.escalation, Escalation::Done(_)) == (escalations == 1),
        _ => true,
    };
    if escalations > 1 || !says_so {
        return wrong("its escalation did not happen once");
    }
    Ok(())
}

/// The audit entries that a version must have been stored with.
pub(super) fn audited(before: Option<&Request>, after: &Request) -> Vec<&'static str> {
    let known = before.map_or(0, |before| before.history.len());
    let mut events: Vec<&'static str> =
        after.history.iter().skip(known).map(|event| event_name(&event.act)).collect();
    if after.status().is_terminal() {
        events.push(after.status().as_str());
    } else if before.is_some_and(|before| before.superseded != after.superseded) {
        events.push("supersedes");
    }
    events
}

fn event_name(act: &Act) -> &'static str {
    match act {
        Act::Submitted => "created",
        Act::Acknowledge { .. } => "persona_acknowledged",
        Act::Approve { .. } => "approval_recorded",
        Act::Deny { .. } => "denial_recorded",
        Act::Withdraw => "withdrawn",
        Act::Escalated => "escalated",
        Act::Tick => "tick",
    }
}
