//! Whether an answer that says `approved` is an approval, of what was asked for.

use countersign_core::lifecycle::{
    BadSalt, Digest, PayloadHashVersion, RequestId, Salt, Status, Timestamp, payload_hash_of,
};
use countersign_core::receipt::signed::{KeySet, ReceiptError, verify};
use countersign_core::receipt::{ReceiptDocument, Time};
use serde_json::{Map, Value};

use crate::answer::{Created, Waited};

/// How far the clock of a gateway may be from ours, in milliseconds.
const SKEW_MS: u64 = 300_000;

/// What was asked for, and what the gateway said when it was.
#[derive(Clone)]
pub struct Asked {
    /// The request.
    pub request_id: RequestId,
    /// The action.
    pub action: String,
    /// The parameters, hidden ones in clear.
    pub params: Map<String, Value>,
    /// How the payload hash is made.
    pub version: PayloadHashVersion,
    /// With which salt.
    pub salt: Option<Salt>,
    /// When it was asked for, unless it may be a request that was made before.
    pub since: Option<Timestamp>,
}

/// An approval that was checked.
#[derive(Clone)]
pub struct Approval {
    /// The parameters that people agreed to: those that were asked for, with their edits. Hidden ones are in clear.
    pub params: Map<String, Value>,
    /// What the receipt says; `None` if the gateway signs none, and that was allowed.
    pub receipt: Option<ReceiptDocument>,
    /// The hash of the parameters.
    pub payload_hash: Digest,
}

/// Why an answer that says `approved` does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It does not say so.
    #[error("the request is {}", .0.as_str())]
    NotApproved(Status),
    /// There is no receipt.
    #[error("the answer has no receipt")]
    NoReceipt,
    /// The receipt does not verify.
    #[error("the receipt does not count: {0}")]
    Receipt(#[from] ReceiptError),
    /// The receipt is about something else.
    #[error("the receipt is about another {0}")]
    Other(&'static str),
    /// It was approved, and the time to use that is over.
    #[error("the approval could be used until {0}")]
    Lapsed(Time),
    /// It is said twice, and not the same.
    #[error("the gateway contradicts itself about the {0}")]
    Contradiction(&'static str),
    /// The parameters are not those that people agreed to.
    #[error("the parameters are not those that people agreed to: their payload hash is another one")]
    PayloadHash,
    /// They cannot be compared.
    #[error("the parameters cannot be compared with those that people agreed to: {0}")]
    Salt(&'static str),
}

impl From<BadSalt> for Doubt {
    fn from(_: BadSalt) -> Doubt {
        Doubt::Salt("the salt is malformed")
    }
}

impl Asked {
    /// What was asked for, by what the gateway answered. `since` is when the request was made, if it is a new one: an older
    /// receipt is not about it then.
    ///
    /// # Errors
    /// If the salt is malformed.
    pub fn new(
        action: &str,
        params: Map<String, Value>,
        created: &Created,
        since: Option<Timestamp>,
    ) -> Result<Asked, Doubt> {
        Ok(Asked {
            request_id: created.request_id,
            action: action.to_owned(),
            params,
            version: created.payload_hash_version,
            salt: created.payload_salt.as_deref().map(str::parse).transpose()?,
            since,
        })
    }

    /// Checks an approval: the receipt is signed with one of `keys` and is about this request and this action, and its
    /// payload hash is that of the parameters that were asked for, with the edits in the answer. The receipt is no older
    /// than the request, and its approval has not lapsed. Without `keys` there need not be a receipt, and only the answer is
    /// compared.
    ///
    /// # Errors
    /// If anything of it is not so.
    pub fn check(&self, waited: &Waited, keys: Option<&KeySet>, now: Timestamp) -> Result<Approval, Doubt> {
        if waited.status != Status::Approved {
            return Err(Doubt::NotApproved(waited.status));
        }
        if waited.payload_hash_version != self.version {
            return Err(Doubt::Contradiction("payload hash"));
        }
        let params = self.edited(waited);
        let payload_hash = payload_hash_of(&params, self.version, self.salt.as_ref())
            .ok_or(Doubt::Salt("the gateway has lost the salt"))?;
        if payload_hash != waited.payload_hash {
            return Err(Doubt::PayloadHash);
        }
        let receipt = match (keys, &waited.receipt) {
            (None, _) => None,
            (Some(_), None) => return Err(Doubt::NoReceipt),
            (Some(keys), Some(receipt)) => Some(self.document(verify(receipt, keys)?, payload_hash, now)?),
        };
        Ok(Approval { params, receipt, payload_hash })
    }

    /// The parameters that were asked for, with what approvers changed and removed.
    fn edited(&self, waited: &Waited) -> Map<String, Value> {
        let mut params = self.params.clone();
        for key in waited.removed.iter().flatten() {
            params.remove(key);
        }
        for (key, value) in waited.overrides.iter().flatten() {
            params.insert(key.clone(), value.clone());
        }
        params
    }

    fn document(
        &self,
        document: ReceiptDocument,
        decided: Digest,
        now: Timestamp,
    ) -> Result<ReceiptDocument, Doubt> {
        let asked = payload_hash_of(&self.params, self.version, self.salt.as_ref());
        if document.request_id != self.request_id {
            return Err(Doubt::Other("request"));
        }
        if document.action != self.action {
            return Err(Doubt::Other("action"));
        }
        if document.decision != Status::Approved {
            return Err(Doubt::NotApproved(document.decision));
        }
        if document.payload.version != self.version || Some(document.payload.asked) != asked {
            return Err(Doubt::Other("payload"));
        }
        if document.payload.decided != decided {
            return Err(Doubt::PayloadHash);
        }
        // Whoever answers in the gateway's place may have the receipt of an earlier run.
        let is_older = |since: Timestamp| document.asked_at.0.plus(SKEW_MS) < since;
        if self.since.is_some_and(is_older) {
            return Err(Doubt::Other("request, made before this one"));
        }
        match document.valid_until {
            Some(until) if until.0.plus(SKEW_MS) < now => Err(Doubt::Lapsed(until)),
            _ => Ok(document),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 2026-05-28T20:26:40Z.
    const ASKED_AT: u64 = 1_780_000_000_000;

    fn asked(since: Option<u64>) -> Asked {
        let params = json!({"ref": "v1"}).as_object().cloned().unwrap();
        Asked {
            request_id: "req_01ksr49200r08ry5v9acnt0bgb".parse().unwrap(),
            action: "deploy".to_owned(),
            params,
            version: PayloadHashVersion::Two,
            salt: Some(Salt::new([7; 32])),
            since: since.map(Timestamp::from_millis),
        }
    }

    fn hash(asked: &Asked) -> Digest {
        payload_hash_of(&asked.params, asked.version, asked.salt.as_ref()).unwrap()
    }

    /// The document of the receipt that is about it, with one member changed.
    fn document(pointer: &str, value: Value) -> ReceiptDocument {
        let asked = asked(None);
        let digest = hash(&asked).to_string();
        let mut document = json!({
            "version": 1, "requestId": asked.request_id, "lineageId": asked.request_id,
            "requester": {"id": "dana", "source": "github", "knownAs": "dana", "known": "person", "authenticated": true},
            "action": "deploy", "askedAt": "2026-05-28T20:26:40.000Z", "policy": {"hash": digest, "modules": []},
            "payload": {"version": 2, "asked": digest, "decided": digest, "shown": ["ref"], "hidden": []},
            "decision": "approved", "decidedAt": "2026-05-28T20:30:00.000Z", "approvers": [], "consent": "whole",
            "validUntil": "2026-05-28T21:00:00.000Z", "audit": {"entry": digest},
            "recorded": {"asked": digest, "happened": digest},
        });
        if !pointer.is_empty() {
            *document.pointer_mut(pointer).unwrap() = value;
        }
        serde_json::from_value(document).unwrap()
    }

    /// Ten minutes after it was asked for.
    fn check(since: Option<u64>, pointer: &str, value: Value) -> Result<(), Doubt> {
        let asked = asked(since);
        let document = document(pointer, value);
        asked.document(document, hash(&asked), Timestamp::from_millis(ASKED_AT + 600_000)).map(drop)
    }

    #[test]
    fn a_receipt_counts_only_for_what_was_asked() {
        let other = Digest::of(b"other").to_string();
        let lapsed = Doubt::Lapsed(Time(Timestamp::from_millis(ASKED_AT + 20_000)));
        assert_eq!(check(Some(ASKED_AT), "", Value::Null), Ok(()));
        for (pointer, value, doubt) in [
            ("/requestId", json!("req_01ksr4a0p6w9exqn4kdgnx8d1g"), Doubt::Other("request")),
            ("/action", json!("drop_table"), Doubt::Other("action")),
            ("/decision", json!("denied"), Doubt::NotApproved(Status::Denied)),
            ("/payload/version", json!(1), Doubt::Other("payload")),
            ("/payload/asked", json!(other), Doubt::Other("payload")),
            ("/payload/decided", json!(other), Doubt::PayloadHash),
            ("/validUntil", json!("2026-05-28T20:27:00.000Z"), lapsed),
        ] {
            assert_eq!(check(Some(ASKED_AT), pointer, value), Err(doubt), "{pointer}");
        }
    }

    /// With a key of the caller's own the request may have been made at any time.
    #[test]
    fn an_older_receipt_counts_only_if_the_request_may_be_older() {
        let older = Doubt::Other("request, made before this one");
        assert_eq!(check(Some(ASKED_AT + SKEW_MS + 1), "", Value::Null), Err(older));
        assert_eq!(check(None, "", Value::Null), Ok(()));
    }
}
