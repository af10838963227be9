//! A receipt as it is handed over: a JWS (RFC 7515) in its compact form, signed with Ed25519 (RFC 8037).
//!
//! Whoever verifies one needs nothing else of the gateway: so this is in the core, and the keys that sign are not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::{ReceiptDocument, VERSION};
use crate::json;
use crate::lifecycle::{Digest, canonical};

/// The longest receipt that is read, in bytes.
pub const MOST_BYTES: usize = 1 << 20;

/// The media type of the document, in the header.
pub const TYPE: &str = "countersign-receipt+jws";

/// The only algorithm.
pub const ALGORITHM: &str = "EdDSA";

/// A public key, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    /// Its thumbprint (RFC 7638).
    pub kid: String,
    /// Its 32 bytes.
    pub bytes: [u8; 32],
}

/// A set of public keys (RFC 7517).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// The keys, of any kind.
    pub keys: Vec<Jwk>,
}

/// A public key in JSON (RFC 8037). Members that are not known here are ignored, as the standard says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// The key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `EdDSA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig`.
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
}

/// Why a text is no receipt that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It does not have the form of one.
    #[error("it is no receipt: {0}")]
    Malformed(&'static str),
    /// It is signed with a key that is not at hand.
    #[error("it is signed with the key `{0}`, which is not among the keys at hand")]
    UnknownKey(String),
    /// It was changed, or was signed by somebody else.
    #[error("its signature is wrong: it was changed, or somebody else has signed it")]
    Signature,
    /// It is signed, and says something that is not understood here.
    #[error("its document cannot be read: {0}")]
    Document(String),
}

/// The header of a receipt: nothing else may be in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`ALGORITHM`].
    pub alg: String,
    /// The key.
    pub kid: String,
    /// [`TYPE`].
    pub typ: String,
}

/// The text of a receipt, as `sign` signs it with the private half of `key`.
#[must_use]
pub fn compact(document: &ReceiptDocument, key: &VerifyingKey, sign: impl FnOnce(&str) -> Vec<u8>) -> String {
    let header = Header { alg: ALGORITHM.to_owned(), kid: key.kid.clone(), typ: TYPE.to_owned() };
    let header = canonical(&serde_json::to_value(header).unwrap_or_default());
    let mut text = URL_SAFE_NO_PAD.encode(header);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(document.canonical(), &mut text);
    let signature = sign(&text);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    text
}

impl VerifyingKey {
    /// A public key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> VerifyingKey {
        let x = URL_SAFE_NO_PAD.encode(bytes);
        let required = serde_json::json!({"crv": "Ed25519", "kty": "OKP", "x": x});
        VerifyingKey { kid: URL_SAFE_NO_PAD.encode(Digest::of_json(&required).as_bytes()), bytes }
    }

    /// As it is published.
    #[must_use]
    pub fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP".to_owned(),
            crv: Some("Ed25519".to_owned()),
            x: Some(URL_SAFE_NO_PAD.encode(self.bytes)),
            kid: Some(self.kid.clone()),
            alg: Some(ALGORITHM.to_owned()),
            usage: Some("sig".to_owned()),
        }
    }
}

impl KeySet {
    /// Reads a key set. Keys of other kinds are left out.
    ///
    /// # Errors
    /// If it is no key set.
    pub fn read(text: &[u8]) -> Result<KeySet, json::Refused> {
        json::typed(json::parse(text)?)
    }

    fn find(&self, kid: &str) -> Option<[u8; 32]> {
        let is_ours = |key: &&Jwk| {
            key.kty == "OKP"
                && key.crv.as_deref() == Some("Ed25519")
                && key.kid.as_deref() == Some(kid)
                && key.alg.as_deref().is_none_or(|alg| alg == ALGORITHM)
                && key.usage.as_deref().is_none_or(|usage| usage == "sig")
        };
        let key = self.keys.iter().find(is_ours)?;
        URL_SAFE_NO_PAD.decode(key.x.as_ref()?).ok()?.try_into().ok()
    }
}

/// Reads a receipt, which counts only if one of these keys has signed it.
///
/// # Errors
/// If it is malformed, changed, signed with another key, or of a version that is not known here.
pub fn verify(receipt: &str, keys: &KeySet) -> Result<ReceiptDocument, ReceiptError> {
    let parts = Parts::of(receipt)?;
    let key = keys.find(&parts.kid).ok_or(ReceiptError::UnknownKey(parts.kid))?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(parts.signed.as_bytes(), &parts.signature)
        .map_err(|_| ReceiptError::Signature)?;
    document(&parts.document)
}

/// Reads a receipt without asking who has signed it.
///
/// # Errors
/// If it is malformed, or of a version that is not known here.
pub fn unverified(receipt: &str) -> Result<ReceiptDocument, ReceiptError> {
    document(&Parts::of(receipt)?.document)
}

/// The parts of a receipt.
struct Parts<'a> {
    kid: String,
    signed: &'a str,
    document: Vec<u8>,
    signature: Vec<u8>,
}

impl Parts<'_> {
    fn of(receipt: &str) -> Result<Parts<'_>, ReceiptError> {
        if receipt.len() > MOST_BYTES {
            return Err(ReceiptError::Malformed("it is too long"));
        }
        let parts: Vec<&str> = receipt.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err(ReceiptError::Malformed("it does not have three parts"));
        };
        let decode = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).map_err(|_| ReceiptError::Malformed("a part is not in base64url"))
        };
        let (header, document, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let malformed_header = |_| ReceiptError::Malformed("its header is not that of a receipt");
        let header: Header = json::parse(&header).and_then(json::typed).map_err(malformed_header)?;
        // INVARIANT: nothing in the header chooses how the signature is checked, but for which of our keys it is.
        if header.alg != ALGORITHM || header.typ != TYPE {
            return Err(ReceiptError::Malformed("it is not signed as receipts are"));
        }
        let signed = receipt.rsplit_once('.').map_or("", |(signed, _)| signed);
        Ok(Parts { kid: header.kid, signed, document, signature })
    }
}

fn document(bytes: &[u8]) -> Result<ReceiptDocument, ReceiptError> {
    let unreadable = |error: json::Refused| ReceiptError::Document(error.to_string());
    let parsed = json::parse(bytes).map_err(unreadable)?;
    // Before the rest, which another version may have in another form.
    if parsed.get("version").and_then(serde_json::Value::as_u64) != Some(u64::from(VERSION)) {
        return Err(ReceiptError::Document("it is of another version".to_owned()));
    }
    let document: ReceiptDocument = json::typed(parsed).map_err(unreadable)?;
    // What is compared with what was made again must be all of it.
    if document.canonical().as_bytes() != bytes {
        return Err(ReceiptError::Document("it is not in canonical form".to_owned()));
    }
    Ok(document)
}
