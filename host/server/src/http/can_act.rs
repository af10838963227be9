//! Who can do what an open request lacks.

use std::collections::BTreeSet;

use countersign_core::directory::Directory;
use countersign_core::lifecycle::{Request, RequirementKind, State, Timestamp};
use countersign_core::record::PolicyEntry;
use serde::Serialize;

use crate::state::App;
use crate::telemetry::log_failure;

/// Who can move a request on, as far as is known when it is asked. It is absent if the rules of the request cannot be
/// loaded.
#[derive(Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outlook {
    /// Who can do what is missing; empty once the request has ended.
    can_act: Vec<CanAct>,
    /// Ids of people whom the policies ask for, and who have left Slack.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    unavailable: BTreeSet<String>,
}

/// Who can do one thing that is missing.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CanAct {
    /// `approve` or `acknowledge`.
    act: &'static str,
    /// The persona to acknowledge.
    #[serde(skip_serializing_if = "Option::is_none")]
    persona: Option<String>,
    /// Ids of people who can, and have not done so; `@group` for a group whose members are not all known. Empty if nobody
    /// can, or if the policy does not say who.
    who: BTreeSet<String>,
}

impl Outlook {
    /// As it is by now; `None` if the rules of the request cannot be loaded: that a request was made, and how it stands, is
    /// said all the same.
    pub(super) async fn now(app: &App, request: &Request) -> Option<Outlook> {
        // What has ended needs no rules.
        if request.status().is_terminal() {
            return Some(Outlook::default());
        }
        match app.gateway.rules_of(request.submission.policy_hash).await {
            Ok(rules) => {
                let (directory, now) = (app.gateway.directory(), app.gateway.clock().now());
                Some(Outlook::of(request, rules.entry(), directory, now))
            }
            Err(error) => {
                log_failure(&error, Some(request.id));
                None
            }
        }
    }

    fn of(request: &Request, entry: &PolicyEntry, directory: &Directory, now: Timestamp) -> Outlook {
        let mut outlook = Outlook::default();
        let State::Open(open) = &request.state else { return outlook };
        let approvers = request.approvers();
        for wanted in &open.requirements {
            let (act, persona) = match wanted.kind {
                RequirementKind::Time => continue,
                RequirementKind::Approval => ("approve", None),
                RequirementKind::Acknowledgement => ("acknowledge", Some(wanted.label.clone())),
            };
            let mut who = BTreeSet::new();
            for name in &wanted.eligible {
                let named = entry.named(name, &wanted.excluded, directory, now);
                if !named.is_complete() {
                    who.insert(name.clone());
                }
                outlook.unavailable.extend(named.gone);
                who.extend(named.people);
            }
            if act == "approve" {
                who.retain(|id| !approvers.contains(&id.as_str()));
            }
            match outlook.can_act.iter_mut().find(|known| known.act == act && known.persona == persona) {
                Some(known) => known.who.extend(who),
                None => outlook.can_act.push(CanAct { act, persona, who }),
            }
        }
        outlook
    }
}
