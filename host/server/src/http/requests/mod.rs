//! `/api/admin/requests`: the day's work of admins with requests.

pub(super) mod detail;
pub(super) mod list;
pub(super) mod operate;

use countersign_core::lifecycle::{self, Origin, Party, Request, RequirementKind, Timestamp};
use serde::Serialize;

use super::view::StatusView;

/// A request, in short.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SummaryView {
    #[serde(flatten)]
    status: StatusView,
    requester: Party,
    origin: Origin,
    /// Why it was asked for, in the caller's words.
    justification: String,
    /// What is missing; empty once it has ended.
    waits_for: Vec<MissingView>,
}

/// Something that is missing.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MissingView {
    /// `approval`, `acknowledgement` or `time`.
    #[schema(value_type = String)]
    kind: RequirementKind,
    /// What the policy calls it; the persona of an acknowledgement.
    label: String,
    /// How much of it is there.
    have: u32,
    /// How much of it there has to be.
    need: u32,
    /// Ids of people and `@group` names that can meet it.
    eligible: Vec<String>,
    /// Ids of people who may not, although `eligible` names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    excluded: Vec<String>,
}

impl SummaryView {
    fn of(request: &Request, now: Timestamp) -> SummaryView {
        let requirements = match &request.state {
            lifecycle::State::Open(open) => open.requirements.as_slice(),
            _ => &[],
        };
        let waits_for = requirements.iter().cloned().map(|wanted| MissingView {
            kind: wanted.kind,
            label: wanted.label,
            have: wanted.have,
            need: wanted.need,
            eligible: wanted.eligible,
            excluded: wanted.excluded,
        });
        let submission = &request.submission;
        SummaryView {
            status: StatusView::of(request, now),
            requester: submission.requester.clone(),
            origin: submission.origin.clone(),
            justification: submission.justification.clone(),
            waits_for: waits_for.collect(),
        }
    }
}
