//! What callers see of a request: the core's types become the wire format here.

use std::collections::BTreeMap;

use countersign_core::lifecycle::{Digest, Needs, Request, RequestId, Salt, Status, Timestamp, Usage};
use serde::Serialize;
use serde_json::{Map, Value};

use super::end::End;

/// The state of a request, for the holder of its token.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WaitView {
    /// The status.
    status: Status,
    /// Ids of the people whose approval counts, in the order of their approvals.
    approvers: Vec<String>,
    /// When it was decided, expired or cancelled.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    decided_at: Option<Timestamp>,
    /// Why it was denied or cancelled, or why an admin had it expire.
    reason: Option<String>,
    /// The approved parameters, with edits; redacted values stay redacted; null unless approved.
    #[schema(value_type = Option<Object>)]
    decision_params: Option<Map<String, Value>>,
    /// What approvers changed, by key, with the new values; null unless approved.
    #[schema(value_type = Option<Object>)]
    overrides: Option<BTreeMap<String, Value>>,
    /// The keys that approvers removed; null unless approved. None of them is in `overrides`, where null is a value.
    removed: Option<Vec<String>>,
    /// The hash of the current parameters, with edits.
    payload_hash: Digest,
    /// How that hash is made: 1 or 2.
    payload_hash_version: u8,
    /// The salt that it is made with, in hexadecimal; for the holder of the wait token alone.
    /// Absent in version 1, and if the gateway has lost the key that it was encrypted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_salt: Option<String>,
    /// The hash of the rules that apply to the request.
    policy_hash: Digest,
    #[serde(flatten)]
    approval: UseView,
    #[serde(flatten)]
    end: End,
}

/// How an approval is to be used, and how far it has been.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UseView {
    /// `required` if the approval must be consumed before anything is run; absent if that is up to the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    consume: Option<&'static str>,
    /// How far the approval has been used; absent unless the request is approved.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    /// Until when it can be consumed; absent unless the request is approved, and if that has no end.
    #[serde(serialize_with = "rfc3339", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_until: Option<Timestamp>,
    /// When it was consumed.
    #[serde(serialize_with = "rfc3339", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    consumed_at: Option<Timestamp>,
}

impl UseView {
    pub(super) fn of(request: &Request, now: Timestamp) -> UseView {
        UseView {
            consume: request.submission.terms.required.then_some("required"),
            usage: request.usage(now),
            valid_until: request.valid_until(),
            consumed_at: request.consumption().map(|consumed| consumed.at),
        }
    }
}

impl WaitView {
    /// As it is at `now`. `payload_salt` is for whoever holds the wait token.
    #[must_use]
    pub(super) fn of(request: &Request, payload_salt: Option<String>, now: Timestamp) -> WaitView {
        // INVARIANT: parameters to act on are returned with an approval only.
        let approved = request.status() == Status::Approved;
        let edits = if approved { Some(request.edits()) } else { None };
        let overrides = edits.as_ref().map(|edits| {
            edits.iter().filter_map(|(key, after)| Some(((*key).to_owned(), (*after)?.clone()))).collect()
        });
        let removed = edits.map(|edits| {
            edits.into_iter().filter(|(_, after)| after.is_none()).map(|(key, _)| key.to_owned()).collect()
        });
        WaitView {
            status: request.status(),
            approvers: request.approvers().into_iter().map(str::to_owned).collect(),
            decided_at: request.decided_at(),
            reason: request.reason().map(str::to_owned),
            decision_params: approved.then(|| request.params()),
            overrides,
            removed,
            payload_hash: request.payload_hash(),
            payload_hash_version: payload_hash_version(request),
            payload_salt,
            policy_hash: request.submission.policy_hash,
            approval: UseView::of(request, now),
            end: End::default(),
        }
    }

    /// The same, with what is said of a request that has ended.
    #[must_use]
    pub(super) fn with_end(self, end: End) -> WaitView {
        WaitView { end, ..self }
    }
}

/// The state of a request, for everybody who knows its id.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusView {
    request_id: RequestId,
    /// The action that was asked for.
    action: String,
    /// The caller that it belongs to, by its name in the access file; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    status: Status,
    /// How many people have approved: as many as `approvers`.
    approvals_count: usize,
    /// How many people must approve: the most that a policy of the action requires.
    min_approvals: u32,
    /// Ids of those who have approved, as the policies know them.
    approvers: Vec<String>,
    /// The personas that have to be acknowledged.
    required_personas: Vec<String>,
    /// Whether each of these was acknowledged, by its name.
    persona_state: BTreeMap<String, PersonaState>,
    /// When it was made.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it expires, unless it was decided or cancelled by then.
    #[serde(serialize_with = "rfc3339_always")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// When it was decided, expired or cancelled; null until then.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = Option<String>, format = DateTime)]
    decided_at: Option<Timestamp>,
    payload_hash: Digest,
    /// How the payload hash is made: 1 or 2.
    payload_hash_version: u8,
    lineage_id: RequestId,
    policy_hash: Digest,
    #[serde(flatten)]
    approval: UseView,
}

/// Whether a persona was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PersonaState {
    /// It was not acknowledged yet.
    Pending,
    /// It was acknowledged.
    Acknowledged,
}

impl StatusView {
    #[must_use]
    pub(super) fn of(request: &Request, now: Timestamp) -> StatusView {
        let approvers: Vec<String> = request.approvers().into_iter().map(str::to_owned).collect();
        let acknowledged = request.acknowledgements();
        let personas = request.needs.personas.iter().map(|persona| {
            let done = acknowledged.contains_key(persona.as_str());
            (persona.clone(), if done { PersonaState::Acknowledged } else { PersonaState::Pending })
        });
        StatusView {
            request_id: request.id,
            action: request.submission.action.clone(),
            caller: request.submission.caller.clone(),
            status: request.status(),
            approvals_count: approvers.len(),
            min_approvals: min_approvals(&request.needs),
            approvers,
            required_personas: request.needs.personas.clone(),
            persona_state: personas.collect(),
            created_at: request.submission.submitted_at,
            expires_at: request.submission.expires_at,
            decided_at: request.decided_at(),
            payload_hash: request.payload_hash(),
            payload_hash_version: payload_hash_version(request),
            lineage_id: request.submission.lineage,
            policy_hash: request.submission.policy_hash,
            approval: UseView::of(request, now),
        }
    }
}

/// How the payload hash of a request is made, as callers know it.
pub(super) fn payload_hash_version(request: &Request) -> u8 {
    request.submission.payload_hash_version.into()
}

/// A salt in hexadecimal.
pub(super) fn salt_text(salt: &Salt) -> String {
    hex::encode(salt.expose())
}

/// How many people must approve: the most that a policy requires, since one approval counts for all of them.
pub(crate) fn min_approvals(needs: &Needs) -> u32 {
    needs.approvals.iter().copied().max().unwrap_or_default()
}

/// Serializes a time in RFC 3339.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn rfc3339_always<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// Serializes an optional time in RFC 3339.
#[expect(clippy::ref_option, reason = "serde calls it so")]
pub(crate) fn rfc3339<S: serde::Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}
