//! What is signed, and so cannot be made up: seeds, and what nothing else may be taken for.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::lifecycle::{Request, Timestamp};
use countersign_core::receipt::signed::{Jwk, KeySet};
use countersign_core::record::PolicyEntry;
use countersign_gateway::receipts::{ReceiptKeys, SigningKey};
use countersign_store::fixtures;
use ring::signature::Ed25519KeyPair;
use serde_json::json;

/// An access file with one caller, whose tokens are signed by the key in `keys.json`.
pub(crate) const ACCESS: &str = r#"version: 1
issuers: { here: { issuer: "https://issuer.example", audience: countersign, jwks: keys.json } }
callers: { pipeline: { oidc: { issuer: here, claims: { sub: deploys } }, requester: machine, owners: [dana], actions: "*" } }
people: { dana: { slack: U0DANA } }
"#;

/// One of each.
#[derive(Debug)]
pub struct Genuine {
    /// A request that was approved.
    pub decided: Request,
    /// Its rules.
    pub entry: PolicyEntry,
    /// Its receipt.
    pub receipt: String,
    /// What that can be checked with.
    pub receipt_keys: KeySet,
    /// A token of a caller.
    pub identity_token: String,
    /// The key that has signed it.
    pub identity_key: Jwk,
}

impl Genuine {
    /// The same each time.
    ///
    /// # Panics
    /// If one of them can be signed no more.
    #[must_use]
    pub fn get() -> &'static Genuine {
        static GENUINE: OnceLock<Genuine> = OnceLock::new();
        GENUINE.get_or_init(Genuine::new)
    }

    fn new() -> Genuine {
        let entry = fixtures::policy_entry("deploy");
        let decided = fixtures::next(&fixtures::request(1), fixtures::at(5), |request| {
            request.state = fixtures::approved(fixtures::at(5));
        });
        let key = SigningKey::new(Timestamp::EPOCH, &[1; 32]).expect("a key");
        let keys = ReceiptKeys::new(vec![key], Vec::new()).expect("one key");
        let receipt = keys.receipt(&decided, &entry).expect("it has ended");
        let (identity_token, identity_key) = identity();
        Genuine { decided, entry, receipt, receipt_keys: keys.published(), identity_token, identity_key }
    }
}

fn identity() -> (String, Jwk) {
    const SEED: [u8; 32] = [2; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a key");
    let mut key = SigningKey::new(Timestamp::EPOCH, &SEED).expect("a key").public().jwk();
    let header = json!({"alg": "EdDSA", "kid": key.kid});
    let claims = json!({
        "iss": "https://issuer.example", "aud": ["countersign"], "sub": "deploys",
        "exp": fixtures::at(600_000).as_millis() / 1000, "iat": fixtures::at(0).as_millis() / 1000,
    });
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()));
    // As issuers write it.
    key.alg = Some("EdDSA".to_owned());
    (format!("{message}.{signature}"), key)
}
