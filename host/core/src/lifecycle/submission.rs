//! What was asked: it never changes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type};

use super::commitment::{Commitments, PayloadHashVersion, WrappedSalt};
use super::digest::Digest;
use super::event::Identity;
use super::gate::Gate;
use super::id::RequestId;
use super::supersede::SupersedeKey;
use super::timestamp::Timestamp;
use super::usage::UseTerms;

/// What stands in the place of a redacted parameter's value, everywhere.
pub const REDACTED: &str = "[redacted]";

/// What was asked, by whom, and under which rules. Redacted parameters are already gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The action.
    pub action: String,
    /// The name of the policy entry that it is judged by: the action, or `*` for an unknown one.
    /// Metrics are labelled with it, since callers can make up any number of unknown actions.
    pub rules: String,
    /// The first request of the lineage: this one's own id if it is the first.
    pub lineage: RequestId,
    /// How many requests of the lineage came before.
    pub depth: u32,
    /// The caller of the access file that made it; `None` if there is no access file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Who the requester is; `None` in requests that were made before that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester_is: Option<Identity>,
    /// The ids of people who count as requesters, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub owners: BTreeSet<String>,
    /// Who asked for it to be made again, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerequester_is: Option<Identity>,
    /// Who asked for it to be made again, if `depth` is not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerequested_by: Option<Party>,
    /// Who wants the action done.
    pub requester: Party,
    /// Every group of the policy set that held the requester when the request was made.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub requester_groups: BTreeSet<String>,
    /// Where the request comes from.
    pub origin: Origin,
    /// Why, in the requester's words.
    pub justification: String,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// What the caller would like of the policy; passed on, never binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_hints: Option<Value>,
    /// The parameters, with [`REDACTED`] in place of each redacted value.
    pub params: Map<String, Value>,
    /// The keys of `params` whose values were redacted.
    pub redacted: BTreeSet<String>,
    /// What stands for every parameter's value as submitted in the payload hash, redacted ones included.
    pub digests: BTreeMap<String, Digest>,
    /// How these are made.
    #[serde(default, skip_serializing_if = "PayloadHashVersion::is_first")]
    pub payload_hash_version: PayloadHashVersion,
    /// The salt that they are made with. A store keeps it beside the rest, for it is encrypted anew when its key is
    /// replaced.
    #[serde(skip)]
    pub salt: Option<WrappedSalt>,
    /// The rules that it is judged by, to its end.
    pub policy_hash: Digest,
    /// SHA-256 of the wait token.
    pub token_hash: Digest,
    /// When it was made.
    pub submitted_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it escalates, should it still be open then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalate_at: Option<Timestamp>,
    /// The action's policies may approve it with no human act.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unattended: bool,
    /// What people must have read for their approval to count.
    #[serde(default, skip_serializing_if = "Consent::is_whole")]
    pub consent: Consent,
    /// How its approval is meant to be used.
    #[serde(rename = "use", default, skip_serializing_if = "UseTerms::is_default")]
    pub terms: UseTerms,
    /// What it supersedes, if its action says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersede: Option<SupersedeKey>,
    /// The gate of a CI system that it stands for, to which its decision is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
}

/// What people must have read for their approval to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// All that the request shows.
    #[default]
    Whole,
    /// What its message shows, even if that is not all: the policy set takes responsibility.
    Summary,
}

impl Consent {
    /// Whether people must have read all that the request shows.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Consent::Whole
    }
}

impl Submission {
    /// The id by which policies know the requester.
    #[must_use]
    pub fn requester_id(&self) -> &str {
        self.requester_is.as_ref().map_or(&self.requester.id, |identity| &identity.id)
    }

    /// What stands for its parameters in the payload hash.
    #[must_use]
    pub fn commitments(&self) -> Commitments {
        Commitments {
            version: self.payload_hash_version,
            digests: self.digests.clone(),
            salt: self.salt.clone(),
        }
    }
}

/// A person or a program, as the caller knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Party {
    /// Its id; compared with approvers' ids to keep people from approving their own requests.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub id: String,
    /// The system that `id` belongs to: `slack`, `github`, `ci`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_.-]+$")]
    pub source: String,
    /// What to call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub display: Option<String>,
}

/// Where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The repository.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub repo: String,
    /// The branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub branch: Option<String>,
    /// The pull request, as a number or a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NumberOrText>)]
    pub pr: Option<Value>,
    /// The pipeline's run, as a number or a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NumberOrText>)]
    pub run_id: Option<Value>,
}

/// What [`Origin::pr`] and [`Origin::run_id`] are in the OpenAPI document: a number, or a text of one line.
struct NumberOrText;

impl utoipa::PartialSchema for NumberOrText {
    fn schema() -> RefOr<Schema> {
        const LARGEST: f64 = 9_007_199_254_740_991.0;
        let number =
            ObjectBuilder::new().schema_type(Type::Number).minimum(Some(-LARGEST)).maximum(Some(LARGEST));
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(128))
            .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"));
        OneOfBuilder::new().item(number).item(text).into()
    }
}

impl utoipa::ToSchema for NumberOrText {}

/// Where to read more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// What to call it.
    #[schema(
        min_length = 1,
        max_length = 150,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub label: String,
    /// Where it is: `https` or `http`.
    #[schema(
        min_length = 1,
        max_length = 2000,
        pattern = r#"^https?://[^/?#:@\s<>"|\\`{}^\x00-\x1f\x7f-\x9f][^/?#@\s<>"|\\`{}^\x00-\x1f\x7f-\x9f]*([/?#][^\s<>"|\\`{}^\x00-\x1f\x7f-\x9f]*)?$"#
    )]
    pub url: String,
}
