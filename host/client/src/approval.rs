//! Whether an answer that says `approved` is an approval, of what was asked for.

use countersign_core::lifecycle::{
    BadSalt, Digest, PayloadHashVersion, RequestId, Salt, Status, payload_hash_of,
};
use countersign_core::receipt::ReceiptDocument;
use countersign_core::receipt::signed::{KeySet, ReceiptError, verify};
use serde_json::{Map, Value};

use crate::answer::{Created, Waited};

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
}

/// An approval that was checked.
#[derive(Clone, Debug)]
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
    #[error("there is no receipt: this gateway signs none; `--no-receipt` does without")]
    NoReceipt,
    /// The receipt does not verify.
    #[error("the receipt does not count: {0}")]
    Receipt(#[from] ReceiptError),
    /// The receipt is about something else.
    #[error("the receipt is about another {0}")]
    Other(&'static str),
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
    /// What was asked for, by what the gateway answered.
    ///
    /// # Errors
    /// If the salt is malformed.
    pub fn new(action: &str, params: Map<String, Value>, created: &Created) -> Result<Asked, Doubt> {
        Ok(Asked {
            request_id: created.request_id,
            action: action.to_owned(),
            params,
            version: created.payload_hash_version,
            salt: created.payload_salt.as_deref().map(str::parse).transpose()?,
        })
    }

    /// Checks an approval: the receipt is signed with one of `keys` and is about this request and this action, and its
    /// payload hash is that of the parameters that were asked for, with the edits in the answer. Without `keys` there
    /// need not be a receipt, and only the answer is compared.
    ///
    /// # Errors
    /// If anything of it is not so.
    pub fn check(&self, waited: &Waited, keys: Option<&KeySet>) -> Result<Approval, Doubt> {
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
            (Some(keys), Some(receipt)) => Some(self.document(verify(receipt, keys)?, payload_hash)?),
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

    fn document(&self, document: ReceiptDocument, decided: Digest) -> Result<ReceiptDocument, Doubt> {
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
        Ok(document)
    }
}
