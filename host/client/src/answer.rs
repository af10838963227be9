//! What a gateway answers. Members that are not known here are ignored, and what is needed must be there.

use countersign_core::lifecycle::{Digest, PayloadHashVersion, RequestId, Status, Timestamp, Usage};
use countersign_core::receipt::Time;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

/// A request that was made.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// The wait token: whoever has it may wait for the request and cancel it.
    pub token: String,
    /// The request.
    #[serde(deserialize_with = "request_id")]
    pub request_id: RequestId,
    /// How it stands.
    pub status: Status,
    /// When it ends if nobody decides.
    pub expires_at: Time,
    /// What the policies ask for.
    pub policy: Required,
    /// How its payload hash is made.
    pub payload_hash_version: PayloadHashVersion,
    /// The salt of its payload hash, in hexadecimal.
    #[serde(default)]
    pub payload_salt: Option<String>,
    /// Whether an earlier call with the same idempotency key made it.
    #[serde(default)]
    pub replayed: bool,
    /// Where people see it; empty if nobody does.
    #[serde(default, rename = "where")]
    pub places: Option<Vec<Place>>,
    /// Why nobody sees it.
    #[serde(default)]
    pub undeliverable: Option<String>,
    /// Who can do what it lacks.
    #[serde(default)]
    pub can_act: Option<Vec<WhoCan>>,
}

/// What the policies ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Required {
    /// How many people must approve.
    pub min_approvals: u32,
    /// How long the request stays open, in seconds.
    pub timeout_sec: u64,
}

/// Where people see a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// The channel.
    pub channel: String,
    /// The URL of the message.
    #[serde(default)]
    pub permalink: Option<String>,
}

/// Who can do one thing that a request lacks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WhoCan {
    /// `approve` or `acknowledge`.
    pub act: String,
    /// The persona to acknowledge.
    #[serde(default)]
    pub persona: Option<String>,
    /// Ids of people and groups.
    pub who: Vec<String>,
}

/// How a request stands.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waited {
    /// Its status.
    pub status: Status,
    /// Ids of those whose approval counts.
    #[serde(default)]
    pub approvers: Vec<String>,
    /// Why it was denied or cancelled.
    #[serde(default)]
    pub reason: Option<String>,
    /// What approvers changed; only of an approval.
    #[serde(default)]
    pub overrides: Option<Map<String, Value>>,
    /// The keys that approvers removed; only of an approval.
    #[serde(default)]
    pub removed: Option<Vec<String>>,
    /// The hash of the parameters, edits included.
    pub payload_hash: Digest,
    /// How it is made.
    pub payload_hash_version: PayloadHashVersion,
    /// Its salt, in hexadecimal.
    #[serde(default)]
    pub payload_salt: Option<String>,
    /// How far the approval has been used.
    #[serde(default, rename = "use")]
    pub usage: Option<Usage>,
    /// Until when it can be consumed.
    #[serde(default)]
    pub valid_until: Option<Time>,
    /// The receipt of the decision.
    #[serde(default)]
    pub receipt: Option<String>,
}

/// An approval that was consumed.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumed {
    /// The request.
    #[serde(deserialize_with = "request_id")]
    pub request_id: RequestId,
    /// `approved`.
    pub status: Status,
    /// `consumed`.
    #[serde(rename = "use")]
    pub usage: Usage,
    /// The hash of the parameters that were agreed to.
    pub payload_hash: Digest,
}

/// How a request stands that was cancelled, or what came of an approval: nothing of it is needed.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Noted {
    #[expect(dead_code, reason = "it must be there for the answer to be a gateway's")]
    pub(crate) status: Status,
}

impl Created {
    /// For how long it can still be decided, if it was just made; or by the clock of this machine.
    #[must_use]
    pub fn time_left_ms(&self, now: Timestamp) -> u64 {
        match self.replayed {
            // The clocks of two machines differ.
            false => self.policy.timeout_sec.saturating_mul(1000),
            true => self.expires_at.0.since(now),
        }
    }
}

fn request_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RequestId, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
