//! A receipt is checked offline, by the program and by a JOSE library of another language.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use countersign_tests::{Ask, Call, Click, Gateway, Home, countersign, holds};
use serde_json::{Value, json};

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    valid_for: 1h
    redact: { hide: [password] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 2 }
";

/// A decided request, with all that is needed to check its receipt.
struct Decided {
    folder: tempfile::TempDir,
    id: String,
    token: String,
    receipt: String,
    salt: String,
}

impl Decided {
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    /// Runs `countersign receipt verify`; returns the exit code and what was printed.
    fn verify(&self, receipt: &str, more: &[&str]) -> (i32, String) {
        let keys = self.folder.path().join("jwks.json");
        let keys = keys.to_str().expect("text");
        let receipt = self.file("receipt", receipt);
        let receipt = receipt.to_str().expect("text");
        let words = ["receipt", "verify", receipt, "--jwks", keys].into_iter().chain(more.iter().copied());
        let Output { status, stdout, stderr } = countersign(words);
        let text = String::from_utf8([stdout, stderr].concat()).expect("text");
        (status.code().expect("a code"), text)
    }
}

fn params() -> Value {
    json!({"ref": "v1.2.3", "replicas": 2, "password": "hunter2"})
}

/// Fetches the keys that the gateway publishes.
async fn publish(gateway: &Gateway, folder: &Path) -> Value {
    let keys = gateway.send(&Call::get("/.well-known/jwks.json")).await;
    assert_eq!((keys.status(), keys.header("cache-control")), (200, Some("public, max-age=300")));
    std::fs::write(folder.join("jwks.json"), keys.text()).expect("written");
    keys.json()
}

async fn decided(gateway: &Gateway, by: fn(&str, &str) -> Click) -> Decided {
    let made = gateway.create(&Ask::new("deploy").params(params())).await.expect("it is admitted");
    assert_eq!(gateway.look(&made.token).await["receipt"], Value::Null, "nothing is decided yet");
    gateway.click_ok(&by("U0ALICE", &made.id)).await;
    if gateway.look(&made.token).await["status"] == "ready_for_approval" {
        gateway.click_ok(&by("U0BOB", &made.id)).await;
    }
    let seen = gateway.look(&made.token).await;
    let text = |key: &str| seen[key].as_str().expect(key).to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    publish(gateway, folder.path()).await;
    Decided { folder, receipt: text("receipt"), salt: text("payloadSalt"), id: made.id, token: made.token }
}

#[tokio::test]
async fn a_receipt_is_checked_offline() {
    let gateway = Home::new(ACTIONS).start().await;
    let approved = decided(&gateway, Click::approve).await;
    let denied = decided(&gateway, Click::deny).await;
    let gone = gateway.kill();
    drop(gone);

    let (code, line) = approved.verify(&approved.receipt, &[]);
    assert_eq!(code, 0, "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    for part in [
        "approved by U0ALICE at ",
        " and U0BOB at ",
        &approved.id,
        "slack:U0REQ",
        "hidden from them: password",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let agreed = approved.file("agreed.json", &params().to_string());
    let mut others = params();
    others["password"] = "hunter3".into();
    let others = approved.file("others.json", &others.to_string());
    let (agreed, others) = (agreed.to_str().expect("text"), others.to_str().expect("text"));
    let compare = |params, salt| approved.verify(&approved.receipt, &["--params", params, "--salt", salt]);
    let (code, line) = compare(agreed, &approved.salt);
    assert!(code == 0 && line.contains("the parameters at hand are those"), "{code} {line}");
    assert_eq!(compare(others, &approved.salt).0, 3);
    assert_eq!(compare(agreed, &denied.salt).0, 3, "the salt of another request");
    assert_eq!(compare(agreed, "00").0, 2);
    assert_eq!(approved.verify(&approved.receipt, &["--params", agreed]).0, 2, "not without the salt");
    let (code, line) = denied.verify(&denied.receipt, &[]);
    assert!(code == 4 && line.starts_with("not approved: denied by U0ALICE"), "{code} {line}");

    let mut forged = approved.receipt.clone();
    forged.replace_range(120..121, if &forged[120..121] == "A" { "B" } else { "A" });
    assert_eq!(approved.verify(&forged, &[]).0, 1);
    assert_eq!(approved.verify("", &[]).0, 1);
    let other = decided(&Home::new(ACTIONS).start().await, Click::approve).await;
    let (code, line) = approved.verify(&other.receipt, &[]);
    assert!(code == 1 && line.contains("not among the keys"), "{code} {line}");
}

/// The consumer gets it, too; it is the same one, and says the same after a restart and after its key was rotated.
#[tokio::test]
async fn keys_are_rotated_while_receipts_are_about() {
    let gateway = Home::new(ACTIONS).start().await;
    let first = decided(&gateway, Click::approve).await;
    let consume = Call::post("/api/guard/consume", &json!({"token": first.token, "params": params()}))
        .header("idempotency-key", "run-4711");
    assert_eq!(gateway.send(&consume).await.json()["receipt"], first.receipt.as_str());
    let home = gateway.kill();
    let file = home.path("data/countersign.db.receipts.key");
    let before = std::fs::read_to_string(&file).expect("a key file");
    let store = format!("sqlite:{}", home.path("data/countersign.db").display());
    let rotated = countersign(["receipt", "rotate-keys", "--store", &store, "--after-sec", "0"]);
    assert!(rotated.status.success(), "{rotated:?}");
    assert_ne!(std::fs::read_to_string(&file).expect("a key file"), before);

    let gateway = home.start().await;
    let again = gateway.send(&consume).await;
    assert_eq!(again.json()["receipt"], first.receipt.as_str(), "the same answer");
    let second = decided(&gateway, Click::approve).await;
    let keys = publish(&gateway, first.folder.path()).await;
    assert_eq!(keys["keys"].as_array().expect("keys").len(), 2);
    assert_eq!(second.verify(&first.receipt, &[]).0, 0, "{keys}");
    assert_eq!(first.verify(&second.receipt, &[]).0, 0, "{keys}");
    let kid = |receipt: &str| receipt.split('.').next().map(str::to_owned);
    assert_ne!(kid(&first.receipt), kid(&second.receipt), "it is signed with the new key");

    // No secret of the gateway's is in the file, and no file holds its seeds but itself.
    let home = gateway.stop().await;
    let seeds = std::fs::read_to_string(&file).expect("a key file");
    let seeds =
        seeds.lines().filter_map(|line| line.strip_prefix("sign ")?.split(' ').nth(1).map(str::to_owned));
    for seed in seeds {
        for (path, bytes) in home.files() {
            assert!(!holds(&bytes, seed.as_bytes()) || path == file, "{}", path.display());
        }
    }
}

/// Python with jwcrypto; `cargo xtask test` installs it.
fn python() -> &'static str {
    let has_library = |program: &&str| {
        let tried = Command::new(program).args(["-c", "import jwcrypto"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(|program| has_library(program));
    found.expect("this test needs python3 with jwcrypto (Debian: python3-jwcrypto)")
}

#[tokio::test]
async fn a_library_of_another_language_agrees() {
    let gateway = Home::new(ACTIONS).start().await;
    let decided = decided(&gateway, Click::approve).await;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let keys = decided.folder.path().join("jwks.json");
    let receipt = decided.file("receipt", &decided.receipt);
    let checked = Command::new(python())
        .arg("-B")
        .args([docs.join("verify_receipt.py"), receipt.clone(), keys.clone()])
        .output()
        .expect("it runs");
    assert!(checked.status.success(), "{checked:?}");
    let document: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert_eq!(document["requestId"], decided.id.as_str());
    assert_eq!(document["payload"]["hidden"], json!(["password"]));
    let seen = gateway.look(&decided.token).await;
    assert_eq!(document["payload"]["decided"], seen["payloadHash"]);
    assert_eq!(document["policy"]["hash"], seen["policyHash"]);

    // It says the same as the program, in the same code.
    let denied = self::decided(&gateway, Click::deny).await;
    let mut forged = decided.receipt.clone();
    forged.replace_range(120..121, if &forged[120..121] == "A" { "B" } else { "A" });
    for (text, expected) in [
        (decided.receipt.as_str(), 0),
        (&format!("{}.x", decided.receipt), 1),
        (&forged, 1),
        ("", 1),
        (&denied.receipt, 4),
    ] {
        assert_eq!(decided.verify(text, &[]).0, expected);
        let file = decided.file("receipt", text);
        let checked = Command::new(python())
            .arg("-B")
            .args([docs.join("verify_receipt.py"), file, keys.clone()])
            .output()
            .expect("it runs");
        assert_eq!(checked.status.code(), Some(expected), "{checked:?}");
    }
    let receipt = decided.file("receipt", &decided.receipt);
    let later = r#"
import sys
sys.path.insert(0, sys.argv[1])
import verify_receipt
from verify_receipt import jwk, jws, json
now = verify_receipt.time.time()
verify_receipt.time.time = lambda: now + 3700
assert verify_receipt.main(sys.argv[2:]) == 5, "its hour is over"
assert verify_receipt.main(["/nonexistent", sys.argv[3]]) == 2
assert verify_receipt.main([sys.argv[3], sys.argv[2]]) == 2, "a receipt is no set of keys"

# A header with more in it, or in another form, is no receipt's, whoever has signed it.
key = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="k1")
keys = jwk.JWKSet()
keys.add(key)
for more, compact, genuine in [({}, True, True), ({"x": 1}, True, False), ({}, False, False)]:
    token = jws.JWS(json.dumps({"version": 1}))
    header = {"alg": "EdDSA", "kid": "k1", "typ": verify_receipt.TYPE, **more}
    token.add_signature(key, None, json.dumps(header))
    try:
        verify_receipt.verify(token.serialize(compact), keys)
        assert genuine, (more, compact)
    except ValueError:
        assert not genuine, (more, compact)
"#;
    let later = Command::new(python())
        .args(["-B", "-c", later])
        .args([&docs, &receipt, &keys])
        .output()
        .expect("it runs");
    assert!(later.status.success(), "{later:?}");

    // Each bit of what is signed and of the signature, one at a time, in one process.
    let flip = r#"
import base64, sys
sys.path.insert(0, sys.argv[1])
from verify_receipt import verify, jwk
receipt = open(sys.argv[2]).read().strip()
keys = jwk.JWKSet.from_json(open(sys.argv[3]).read())
decode = lambda part: bytearray(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
encode = lambda part: base64.urlsafe_b64encode(bytes(part)).rstrip(b"=").decode()
verify(receipt, keys)
parts = receipt.split(".")
tried = 0
for place, part in enumerate(parts):
    bytes_of = decode(part)
    for index in range(len(bytes_of)):
        for bit in range(8):
            changed = bytearray(bytes_of)
            changed[index] ^= 1 << bit
            others = parts[:place] + [encode(changed)] + parts[place + 1:]
            tried += 1
            try:
                verify(".".join(others), keys)
            except Exception:
                continue
            sys.exit(f"bit {bit} of byte {index} of part {place} can be changed")
print(tried)
"#;
    let flipped = Command::new(python())
        .args(["-B", "-c", flip])
        .args([&docs, &receipt, &keys])
        .output()
        .expect("it runs");
    assert!(flipped.status.success(), "{flipped:?}");
    let tried: u32 = String::from_utf8_lossy(&flipped.stdout).trim().parse().expect("a number");
    assert!(tried > 8 * 64, "{tried}");
}
