//! Receipts: what was decided, signed, so that it can be checked offline. docs/RECEIPTS.md is the definition.
//!
//! A receipt is a JWS (RFC 7515) in its compact form, signed with Ed25519 (RFC 8037), over the document that the core
//! makes. Its keys are used for nothing else.

use ring::signature::{Ed25519KeyPair, KeyPair as _};

use countersign_core::lifecycle::{Request, Timestamp};
use countersign_core::receipt::{ReceiptDocument, signed};
use countersign_core::record::PolicyEntry;

pub use countersign_core::receipt::signed::{
    Jwk, KeySet, MOST_BYTES, ReceiptError, VerifyingKey, unverified, verify,
};

use super::{Gateway, GatewayError};

/// The keys that receipts are signed with, and those that they were.
#[derive(Debug)]
pub struct ReceiptKeys {
    /// Never empty; the one that counts first comes first.
    signing: Vec<SigningKey>,
    /// Keys that are published, so that receipts which they have signed can be checked, and sign no more.
    retired: Vec<VerifyingKey>,
}

/// A key that signs.
pub struct SigningKey {
    /// From when on decisions are signed with it. It is published before.
    from: Timestamp,
    pair: Ed25519KeyPair,
    public: VerifyingKey,
}

/// A seed that makes no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no key")]
pub struct BadKey;

impl SigningKey {
    /// The key of this seed, which must be random.
    ///
    /// # Errors
    /// If ring does not take it, which does not happen.
    pub fn new(from: Timestamp, seed: &[u8; 32]) -> Result<SigningKey, BadKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| BadKey)?;
        let bytes = pair.public_key().as_ref().try_into().map_err(|_| BadKey)?;
        Ok(SigningKey { from, pair, public: VerifyingKey::new(bytes) })
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    fn sign(&self, document: &ReceiptDocument) -> String {
        signed::compact(document, &self.public, |text| self.pair.sign(text.as_bytes()).as_ref().to_vec())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({} from {})", self.public.kid, self.from)
    }
}

impl ReceiptKeys {
    /// `None` if no key signs.
    #[must_use]
    pub fn new(mut signing: Vec<SigningKey>, retired: Vec<VerifyingKey>) -> Option<ReceiptKeys> {
        signing.sort_by_key(|key| key.from);
        (!signing.is_empty()).then_some(ReceiptKeys { signing, retired })
    }

    /// What is published: every key, also one that does not sign yet.
    #[must_use]
    pub fn published(&self) -> KeySet {
        let signing = self.signing.iter().rev().map(|key| &key.public);
        KeySet { keys: signing.chain(&self.retired).map(VerifyingKey::jwk).collect() }
    }

    /// The receipt of a request that has ended, under its rules; `None` of one that is open.
    ///
    /// It is signed with the key that counted when it was decided, so it is the same text each time as long as that key
    /// is there.
    #[must_use]
    pub fn receipt(&self, request: &Request, entry: &PolicyEntry) -> Option<String> {
        let document = ReceiptDocument::of(request, entry)?;
        let decided_at = document.decided_at.0;
        let counted = self.signing.iter().rev().find(|key| key.from <= decided_at);
        Some(counted.or(self.signing.first())?.sign(&document))
    }
}

impl Gateway {
    /// The receipt of a request that has ended; `None` of one that is open, if this gateway signs none, or if the rules
    /// of the request cannot be read, which the log says.
    pub async fn receipt(&self, request: &Request) -> Option<String> {
        let log = |error: &GatewayError| {
            tracing::warn!(request = %request.id, trace = request.trace_id(), %error, "no receipt: the rules of the request cannot be read");
        };
        self.try_receipt(request).await.inspect_err(log).ok()?
    }

    /// As [`Gateway::receipt`], for whoever has no other chance to keep it.
    pub(crate) async fn try_receipt(&self, request: &Request) -> Result<Option<String>, GatewayError> {
        let Some(keys) = self.receipts.as_ref().filter(|_| request.status().is_terminal()) else {
            return Ok(None);
        };
        let entry = self.entry_of(request).await?;
        Ok(keys.receipt(request, &entry))
    }

    /// The keys that receipts can be checked with; `None` if this gateway signs none.
    #[must_use]
    pub fn receipt_keys(&self) -> Option<KeySet> {
        self.receipts.as_ref().map(ReceiptKeys::published)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use countersign_core::json;
    use countersign_core::lifecycle::{Consumption, Salt, State, payload_hash};
    use countersign_core::receipt::Time;
    use countersign_core::receipt::signed::{ALGORITHM, Header, TYPE};
    use countersign_core::trace::TraceContext;
    use countersign_store::fixtures;
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8, from: u64) -> SigningKey {
        SigningKey::new(fixtures::at(from), &[number; 32]).unwrap()
    }

    fn keys() -> ReceiptKeys {
        ReceiptKeys::new(vec![key(1, 0)], Vec::new()).unwrap()
    }

    /// Approved at this time.
    fn approved(at: u64) -> Request {
        let at = fixtures::at(at);
        fixtures::next(&fixtures::request(1), at, |request| request.state = fixtures::approved(at))
    }

    fn receipt_of(request: &Request) -> String {
        keys().receipt(request, &fixtures::policy_entry("deploy")).unwrap()
    }

    /// RFC 8037, appendix A.
    #[test]
    fn keys_have_the_standard_names() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed: [u8; 32] = hex::decode(seed).unwrap().try_into().unwrap();
        let key = SigningKey::new(Timestamp::EPOCH, &seed).unwrap();
        assert_eq!(key.public().kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let jwk = key.public().jwk();
        assert_eq!(jwk.x.as_deref(), Some("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
        assert_eq!(format!("{key:?}"), format!("SigningKey({} from {})", key.public().kid, Timestamp::EPOCH));
    }

    #[test]
    fn a_receipt_says_what_was_decided_and_by_whom() {
        let receipt = receipt_of(&approved(5));
        let document = verify(&receipt, &keys().published()).unwrap();
        insta::assert_json_snapshot!(document);
        // Of an open request there is none.
        assert_eq!(keys().receipt(&fixtures::request(1), &fixtures::policy_entry("deploy")), None);
    }

    /// The same decision has the same receipt, whatever is done with it since, and whatever salt is lost.
    #[test]
    fn a_receipt_is_made_again() {
        let request = approved(5);
        let receipt = receipt_of(&request);
        assert_eq!(receipt_of(&request), receipt);
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let trace = Some(TraceContext { parent, state: Some("rojo=1".to_owned()) });
        assert_eq!(receipt_of(&Request { trace, ..request.clone() }), receipt, "however it is traced");
        let used = fixtures::consumed(&request, fixtures::at(9));
        assert_eq!(receipt_of(&used), receipt);
        let State::Approved { consumed: Some(Consumption { at, .. }), .. } = used.state else {
            panic!("used")
        };
        assert_eq!(at, fixtures::at(9));
    }

    #[test]
    fn no_value_and_no_salt_is_in_it() {
        let receipt = receipt_of(&approved(5));
        let (_, rest) = receipt.split_once('.').unwrap();
        let payload = URL_SAFE_NO_PAD.decode(rest.split_once('.').unwrap().0).unwrap();
        let text = String::from_utf8(payload).unwrap();
        assert!(text.contains(r#""shown":["ref","replicas"]"#), "{text}");
        for hidden in ["\"v1\"", "because", &hex::encode(Salt::new([9; 32]).expose())] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
        let salted = payload_hash(&approved(5).submission.digests);
        assert!(text.contains(&salted.to_string()));
    }

    #[test]
    fn one_bit_changed_anywhere_is_refused() {
        let keys = keys().published();
        let receipt = receipt_of(&approved(5));
        for position in 0..receipt.len() {
            for bit in 0..8 {
                let mut bytes = receipt.clone().into_bytes();
                bytes[position] ^= 1 << bit;
                // What is no text any more cannot be handed over.
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(verify(&changed, &keys).is_err(), "bit {bit} of byte {position}");
            }
            assert!(verify(&receipt[..position], &keys).is_err(), "{position} bytes");
        }
        assert!(verify(&format!("{receipt}="), &keys).is_err());
        assert!(verify(&format!("{receipt}."), &keys).is_err());
    }

    #[test]
    fn what_is_not_signed_as_receipts_are_is_refused() {
        let published = keys().published();
        let receipt = receipt_of(&approved(5));
        let parts: Vec<&str> = receipt.split('.').collect();
        let kid = published.keys[0].kid.clone().unwrap();
        let with = |header: serde_json::Value| {
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            let text = format!("{header}.{}", parts[1]);
            let signature = URL_SAFE_NO_PAD.encode(key(1, 0).pair.sign(text.as_bytes()));
            verify(&format!("{text}.{signature}"), &published)
        };
        let header = |alg: &str, typ: &str| serde_json::json!({"alg": alg, "kid": kid, "typ": typ});
        assert!(with(header(ALGORITHM, TYPE)).is_ok());
        for alg in ["none", "HS256", "ES256", "eddsa", ""] {
            assert!(matches!(with(header(alg, TYPE)), Err(ReceiptError::Malformed(_))), "{alg}");
        }
        assert!(with(header(ALGORITHM, "JWT")).is_err());
        let mut critical = header(ALGORITHM, TYPE);
        critical["crit"] = serde_json::json!(["exp"]);
        assert!(with(critical).is_err());
        let mut own_key = header(ALGORITHM, TYPE);
        own_key["jwk"] = serde_json::to_value(&published.keys[0]).unwrap();
        assert!(with(own_key).is_err());
        let other = ReceiptKeys::new(vec![key(2, 0)], Vec::new()).unwrap().published();
        assert_eq!(verify(&receipt, &other), Err(ReceiptError::UnknownKey(kid.clone())));
        // A key of the same name that is another one.
        let mut renamed = other;
        renamed.keys[0].kid = Some(kid);
        assert_eq!(verify(&receipt, &renamed), Err(ReceiptError::Signature));
    }

    /// A key is published before it signs, and after it has signed for the last time.
    #[test]
    fn keys_are_rotated_with_overlap() {
        let (old, new) = (key(1, 0).public.clone(), key(2, 100).public.clone());
        let overlapping = ReceiptKeys::new(vec![key(2, 100), key(1, 0)], Vec::new()).unwrap();
        let retired = ReceiptKeys::new(vec![key(2, 100)], vec![old.clone()]).unwrap();
        let entry = fixtures::policy_entry("deploy");
        let signed_with = |keys: &ReceiptKeys, at| {
            let receipt = keys.receipt(&approved(at), &entry).unwrap();
            assert!(verify(&receipt, &keys.published()).is_ok());
            let header = URL_SAFE_NO_PAD.decode(receipt.split_once('.').unwrap().0).unwrap();
            json::typed::<Header>(json::parse(&header).unwrap()).unwrap().kid
        };
        for keys in [&overlapping, &retired] {
            let kids: Vec<_> = keys.published().keys.into_iter().filter_map(|key| key.kid).collect();
            assert_eq!(kids, [new.kid.clone(), old.kid.clone()]);
            assert_eq!(signed_with(keys, 100), new.kid);
        }
        assert_eq!(signed_with(&overlapping, 99), old.kid, "also when it is made again later");
        assert_eq!(signed_with(&retired, 99), new.kid, "the key that counted then is gone");
        let receipt = overlapping.receipt(&approved(50), &entry).unwrap();
        assert!(verify(&receipt, &retired.published()).is_ok());
        assert!(ReceiptKeys::new(Vec::new(), vec![old]).is_none());
    }

    #[test]
    fn a_document_of_another_version_is_not_read() {
        let sign = |change: &dyn Fn(&mut serde_json::Value)| {
            let request = approved(5);
            let document = ReceiptDocument::of(&request, &fixtures::policy_entry("deploy")).unwrap();
            let mut document = serde_json::to_value(document).unwrap();
            change(&mut document);
            let header = serde_json::json!({"alg": ALGORITHM, "kid": key(1, 0).public.kid, "typ": TYPE});
            let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let text = format!("{}.{}", encode(&header), encode(&document));
            let signature = URL_SAFE_NO_PAD.encode(key(1, 0).pair.sign(text.as_bytes()));
            verify(&format!("{text}.{signature}"), &keys().published())
        };
        assert!(sign(&|_| {}).is_ok());
        for (name, value) in [
            ("version", serde_json::json!(2)),
            ("version", serde_json::json!("1")),
            ("more", serde_json::json!(1)),
            ("decidedAt", serde_json::json!("2026-03-01T12:00:00Z")),
        ] {
            let outcome = sign(&|document| document[name] = value.clone());
            assert!(matches!(outcome, Err(ReceiptError::Document(_))), "{name} {value}: {outcome:?}");
        }
        assert!(Time::try_from("x".to_owned()).is_err());
    }

    proptest! {
        /// Whatever is handed over as a receipt or a key set, nothing panics, and nothing is believed.
        #[test]
        fn nothing_else_is_a_receipt(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let published = keys().published();
            prop_assert!(verify(&text, &published).is_err());
            let three = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&text), "AA");
            prop_assert!(verify(&three, &published).is_err());
            let _ = KeySet::read(&bytes);
            let _ = KeySet::read(text.as_bytes());
        }
    }
}
