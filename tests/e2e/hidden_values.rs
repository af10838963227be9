//! A hidden value is not found by trying values, neither from what people and callers see nor from a copied database.

use std::collections::HashSet;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_tests::{Ask, Call, Click, Home, Slack, holds};
use ring::{digest, hmac};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

const ACTIONS: &str = "
  pay:
    description: Pay an invoice
    timeout: 10m
    redact: { hide: [amount] }
    rerequest: { cooldown: 1s, limit: 5, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
      - use: override-guard
        with: { keys: [note], max_keys: 1, max_chars: 20 }
";

/// The hidden value. Nothing else in the test has these digits.
const AMOUNT: u32 = 483_920;

/// Every value of six digits.
const ALL: Range<u32> = 100_000..1_000_000;

/// Fewer, where each takes longer. What is asked is whether the value is hit; the others show that nothing is by chance.
const SOME: Range<u32> = 483_900..483_940;

fn params() -> Value {
    json!({"account": "A-17", "amount": AMOUNT, "note": "soon"})
}

type Hash = [u8; 32];

/// Whatever may be a hash or a key: all that somebody without the key file has.
#[derive(Default)]
struct Loot(HashSet<Hash>);

impl Loot {
    /// Every run of 64 hexadecimal digits, and every part of a longer one.
    fn add_text(&mut self, bytes: &[u8]) {
        for window in bytes.windows(64).filter(|window| window.iter().all(u8::is_ascii_hexdigit)) {
            let mut hash = Hash::default();
            hex::decode_to_slice(window, &mut hash).expect("hexadecimal");
            self.0.insert(hash);
        }
    }

    /// Every column of every row; small blobs also in parts, since a hash may be packed with something else.
    fn add_database(&mut self, database: &Connection) {
        let mut tables =
            database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").expect("tables");
        let tables = tables.query_map([], |row| row.get(0)).and_then(Iterator::collect);
        let tables: Vec<String> = tables.expect("names");
        assert!(tables.iter().any(|table| table == "request"));
        for table in tables {
            let mut select = database.prepare(&format!("SELECT * FROM \"{table}\"")).expect("a table");
            let columns = select.column_count();
            let mut rows = select.query([]).expect("rows");
            while let Some(row) = rows.next().expect("a row") {
                for column in 0..columns {
                    match row.get_ref(column).expect("a column") {
                        ValueRef::Text(text) => self.add_text(text),
                        ValueRef::Blob(blob) => {
                            let packed = blob.windows(32).filter(|_| blob.len() <= 256);
                            self.0.extend(packed.filter_map(|window| Hash::try_from(window).ok()));
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// The first value whose plain hash is here, by itself or with everything else that was sent.
    fn find_plain(&self) -> Option<u32> {
        let with_others = |amount: &u32| whole_hashes(*amount, None).iter().any(|hash| self.0.contains(hash));
        let alone = |amount: &u32| {
            let texts = [amount.to_string(), format!("\"{amount}\"")];
            texts.iter().any(|text| self.0.contains(&sha256(text)))
        };
        SOME.clone().find(with_others).or_else(|| ALL.clone().find(alone))
    }

    /// The first value for which something here is made with one of these keys.
    fn find_keyed(&self, keys: &HashSet<Hash>) -> Option<u32> {
        SOME.clone().find(|amount| keys.iter().any(|key| self.is_hit_with(*amount, key)))
    }

    /// Whether something here is made with this value and this key.
    fn is_hit_with(&self, amount: u32, key: &Hash) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let texts = [amount.to_string(), hex::encode(sha256(&amount.to_string()))];
        texts.iter().any(|text| self.0.contains(&mac(&key, text)))
            || whole_hashes(amount, Some(&key)).into_iter().any(|hash| self.0.contains(&hash))
    }
}

/// Hashes of all parameters, and of the whole body: plain ones and payload hashes, before and after the edit.
fn whole_hashes(amount: u32, key: Option<&hmac::Key>) -> Vec<Hash> {
    let hash = |text: &str| key.map_or_else(|| sha256(text), |key| mac(key, text));
    let mut hashes = Vec::new();
    for note in ["soon", "now"] {
        let account = "\"A-17\"";
        let (amount, note) = (amount.to_string(), format!("\"{note}\""));
        let plain = format!(r#"{{"account":{account},"amount":{amount},"note":{note}}}"#);
        hashes.push(hash(&plain));
        hashes.push(hash(&hex::encode(sha256(&plain))));
        let parts = [account, &amount, &note].map(|text| hex::encode(hash(text)));
        let [account, amount, note] = parts;
        hashes.push(sha256(&format!(r#"{{"account":"{account}","amount":"{amount}","note":"{note}"}}"#)));
    }
    let mut body = ask().body();
    body["params"]["amount"] = amount.into();
    // Keys are in order already, since serde_json sorts them here.
    let body = body.to_string();
    hashes.extend([hash(&body), hash(&hex::encode(sha256(&body)))]);
    if let Some(key) = key {
        hashes.push(Hash::try_from(hmac::sign(key, &sha256(&body)).as_ref()).expect("32 bytes"));
    }
    hashes
}

fn sha256(text: &str) -> Hash {
    Hash::try_from(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()).expect("32 bytes")
}

fn mac(key: &hmac::Key, text: &str) -> Hash {
    Hash::try_from(hmac::sign(key, text.as_bytes()).as_ref()).expect("32 bytes")
}

/// The key of wait tokens that a secret gives: HKDF-Expand.
fn derived(secret: &Hash) -> Hash {
    mac(&hmac::Key::new(hmac::HMAC_SHA256, secret), "countersign wait token\u{1}")
}

/// The wait token of a request under a key.
fn token_of(id: &str, key: &Hash) -> String {
    format!("{id}.{}", URL_SAFE_NO_PAD.encode(mac(&hmac::Key::new(hmac::HMAC_SHA256, key), id)))
}

fn ask() -> Ask {
    Ask::new("pay").params(params()).idempotency_key("run-4711")
}

#[tokio::test]
async fn six_digits_are_not_found_without_the_key_file() {
    let slack = Slack::start().await;
    let home = Home::alone(ACTIONS).with("COUNTERSIGN_LOG", "trace");
    let gateway = slack.gateway(home).await;
    let request = gateway.create(&ask()).await.expect("it is admitted");
    gateway.create(&ask()).await.expect("it is the same");
    slack.shown(&request.id).await;
    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &[("note", "now")])).await;
    gateway.click(&Click::edit("U0BOB", &request.id, &[("amount", "1")])).await;
    let mut seen = gateway.status(&request.id).await.to_string();
    gateway.click_ok(&Click::deny_because("U0BOB", &request.id, "no")).await;
    let again = gateway.rerequest_patiently(&request, "U0REQ").await;
    seen += &gateway.status(&again.id).await.to_string();
    seen += &gateway.lineage(&again.id).await.to_string();
    seen += &gateway.send(&Call::get("/metrics")).await.text();
    let denied = |message: &slack_simulator::Message| message.shown().contains("Denied");
    slack.shown_when(&request.id, "to show the denial", denied).await;
    slack.shown(&again.id).await;
    for message in slack.messages() {
        seen += &format!("{} {} {:?}\n", message.text, Value::from(message.blocks.clone()), message.metadata);
    }
    seen += &gateway.output();
    let home = gateway.kill();

    let mut loot = Loot::default();
    loot.add_text(seen.as_bytes());
    let shown = loot.0.len();
    let copy = tempfile::tempdir().expect("a folder");
    for suffix in ["", "-wal"] {
        let name = format!("countersign.db{suffix}");
        let bytes = std::fs::read(home.path("data").join(&name)).expect("the database can be read");
        loot.add_text(&bytes);
        std::fs::write(copy.path().join(name), bytes).expect("it is copied");
    }
    loot.add_database(&Connection::open(copy.path().join("countersign.db")).expect("a database"));
    assert!(shown >= 3 && loot.0.len() > shown + 10, "{shown} {}", loot.0.len());

    let digits = AMOUNT.to_string();
    assert!(!seen.contains(&digits), "the value itself is shown");
    assert_eq!(loot.find_plain(), None, "the hidden value is found");
    assert_eq!(loot.find_keyed(&loot.0), None, "the hidden value is found with what is there");

    // With the salt it is found at once, so the search can find something.
    let salt = request.body["payloadSalt"].as_str().expect("the caller has the salt");
    let mut key = Hash::default();
    hex::decode_to_slice(salt, &mut key).expect("hexadecimal");
    assert!(!loot.0.contains(&key), "the salt is there");
    assert_eq!(loot.find_keyed(&HashSet::from([key])), Some(AMOUNT));
    let mut only_seen = Loot::default();
    only_seen.add_text(seen.as_bytes());
    assert_eq!(only_seen.find_keyed(&HashSet::from([key])), Some(AMOUNT), "from payload hashes alone");
    // As it was before there were salts, it is found without any key.
    only_seen.0.extend(whole_hashes(AMOUNT, None));
    assert_eq!(only_seen.find_plain(), Some(AMOUNT));
    let commitments = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let found = ALL.clone().find(|amount| loot.0.contains(&mac(&commitments, &amount.to_string())));
    assert_eq!(found, Some(AMOUNT), "among all values of six digits");

    // Nor does anything there make a token; the key file does.
    let makes_token = |key: &Hash| {
        let token = token_of(&request.id, key);
        loot.0.contains(&sha256(&token))
    };
    assert!(!loot.0.iter().any(|key| makes_token(key) || makes_token(&derived(key))), "a token can be made");
    let key_file = std::fs::read(home.path("data/countersign.db.key")).expect("the key file");
    let mut secrets = Loot::default();
    secrets.add_text(&key_file);
    assert!(secrets.0.iter().any(|secret| token_of(&request.id, &derived(secret)) == request.token));
    assert!(secrets.0.iter().any(|secret| makes_token(&derived(secret))));

    // Nor is the salt anywhere in another form.
    for (path, bytes) in home.files() {
        assert!(!holds(&bytes, &key), "the salt is in {}", path.display());
    }
}
