//! With keys configured nothing unsigned runs: not from the folder, not over HTTP, and not from the store.

use std::path::Path;

use countersign_tests::{Call, Click, Gateway, Home, Problem, deploy};
use serde_json::{Value, json};

use crate::ledger::Ledger;

const IN_FORCE: &str = "another policy set is in force";
const STAYS: &str = "stays as it is";

/// With two keys: one for modules, one for sets, neither of them configured yet.
fn with_keys(home: Home) -> Home {
    home.policy_done(&["keygen", "./authors"]);
    home.policy_done(&["keygen", "./admins"]);
    home
}

fn trusting(home: Home) -> Home {
    let (authors, admins) = (home.path("authors.pub.pem"), home.path("admins.pub.pem"));
    let name = |path: &Path| path.display().to_string();
    home.with("COUNTERSIGN_MODULE_KEYS", &name(&authors)).with("COUNTERSIGN_SET_KEYS", &name(&admins))
}

fn sign_module(home: &Home) {
    home.policy_done(&["sign", "./policies/modules/quorum.wasm", "--key", "./authors.pem"]);
}

fn sign_set(home: &Home) {
    home.policy_done(&["sign", "./policies", "--key", "./admins.pem"]);
}

fn read(home: &Home, path: &str) -> String {
    std::fs::read_to_string(home.path(path)).expect("a file")
}

/// Checks why an attempt was refused, in the history.
async fn refused(gateway: &Gateway, source: &str, words: &[&str]) {
    let last = &gateway.seen("policy-sets/history?limit=1").await["changes"][0];
    assert_eq!((&last["source"], &last["outcome"]), (&json!(source), &json!("failed")), "{last}");
    assert_contains(&last["errors"], words);
}

#[track_caller]
fn assert_contains(errors: &Value, words: &[&str]) {
    let text = errors.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in {text}");
    }
}

async fn put(gateway: &Gateway, module: &str, signatures: Option<&str>) -> Result<Value, Problem> {
    let call = Call::new("PUT", "/api/admin/modules").body("application/wasm", Home::built(module));
    gateway
        .admin_call(match signatures {
            Some(signatures) => call.header("x-signature", signatures.trim()),
            None => call,
        })
        .await
}

#[tokio::test]
async fn a_folder_is_loaded_once_it_is_signed() {
    let home = trusting(with_keys(Home::new(&deploy(1)).administered()));
    let failure = home.fail_to_start().await;
    assert_eq!(failure.code, Some(2), "{}", failure.stderr);
    assert_contains(
        &json!(failure.stderr),
        &["policy-set.yaml: the set with the hash", "COUNTERSIGN_SET_KEYS"],
    );
    sign_set(&home);
    let failure = home.fail_to_start().await;
    assert_contains(
        &json!(failure.stderr),
        &["policy-set.yaml:3:11", "`quorum`", "not signed", "COUNTERSIGN_MODULE_KEYS"],
    );
    sign_module(&home);
    let gateway = home.start().await;
    let before = gateway.policy().await;

    // A changed folder is refused by each trigger until its set is signed again; that is a change, and enough.
    gateway.home().set_actions(&deploy(2));
    gateway.logged(STAYS, 1).await;
    let why = ["policy-set.yaml", "is refused", "COUNTERSIGN_SET_KEYS"];
    refused(&gateway, "file", &why).await;
    gateway.hang_up();
    gateway.logged(STAYS, 2).await;
    refused(&gateway, "sighup", &why).await;
    let problem = gateway.admin("POST", "reload-policy", &json!({})).await.expect_err("nobody has signed it");
    assert_eq!(problem.is(), (422, "invalid_policy_set"));
    assert_contains(&problem.body["errors"], &why);
    assert_eq!(gateway.policy().await, before);
    sign_set(gateway.home());
    gateway.logged(IN_FORCE, 1).await;
    let last = &gateway.seen("policy-sets/history?limit=1").await["changes"][0];
    let key = last["signedBy"][0].as_str().expect("a key");
    assert!(read(gateway.home(), "admins.pub.pem").contains(key), "{last}");
    assert_eq!(gateway.open("deploy").await.body["policy"]["minApprovals"], 2);

    // Back to what was signed, and still is.
    let now = gateway.policy().await;
    let back = gateway
        .admin("POST", "policy-sets/rollback", &json!({"expectedCurrent": now}))
        .await
        .expect("it was signed");
    assert_eq!(back["hash"], before);
    let gateway = gateway.kill().start().await;
    assert_eq!(gateway.policy().await, before, "a restart finds the signatures in the store");
    assert_eq!(Ledger::of(&gateway.kill()).count_of("policy_reload_failed"), 3);
}

/// A signature is over all of a set, so a signed one is all there, whatever it lacks of the one before.
#[tokio::test]
async fn a_signed_set_may_drop_an_action_in_place() {
    let both = format!("{}{}", deploy(1), deploy(1).replace("deploy:", "other:"));
    let home = trusting(with_keys(Home::new(&both))).without("COUNTERSIGN_MODULE_KEYS");
    sign_set(&home);
    let gateway = home.start().await;
    gateway.home().set_actions(&deploy(1));
    gateway.logged(STAYS, 1).await;
    sign_set(gateway.home());
    gateway.logged(IN_FORCE, 1).await;
}

#[tokio::test]
async fn modules_and_sets_over_http_are_stored_once_they_are_signed() {
    let home = with_keys(Home::new(&deploy(1)).administered().with("COUNTERSIGN_POLICY_WATCH", "false"));
    sign_module(&home);
    sign_set(&home);
    let gateway = trusting(home).start().await;
    let before = gateway.policy().await;
    let problem = put(&gateway, "override-guard", None).await.expect_err("nobody has signed it");
    assert_eq!(problem.is(), (422, "invalid_module"));
    assert_contains(&problem.body, &["it is not signed, as `COUNTERSIGN_MODULE_KEYS` demands"]);
    refused(&gateway, "api", &["sha256:", "it is not signed"]).await;
    let problem = put(&gateway, "override-guard", Some("AAAA")).await.expect_err("no signature");
    assert_eq!(problem.is(), (400, "invalid_payload"));
    let of_quorum = read(gateway.home(), "policies/modules/quorum.wasm.sig");
    let problem = put(&gateway, "override-guard", Some(&of_quorum)).await.expect_err("of another module");
    assert_contains(&problem.body, &["the signature at hand is over something else"]);
    gateway.home().write("override-guard.wasm", &Home::built("override-guard"));
    gateway.home().policy_done(&["sign", "./override-guard.wasm", "--key", "./authors.pem"]);
    let signatures = format!("{},{}", of_quorum.trim(), read(gateway.home(), "override-guard.wasm.sig"));
    put(&gateway, "override-guard", Some(&signatures)).await.expect("one of them counts");
    put(&gateway, "override-guard", None).await.expect("it is signed already");

    gateway.home().set_actions(&deploy(2));
    let document = gateway.home().policy_set();
    let send = async |signatures: &str| {
        gateway.admin("POST", "policy-sets", &json!({"document": document, "signatures": signatures})).await
    };
    let old = read(gateway.home(), "policies/policy-set.yaml.sig");
    let problem = send(&old).await.expect_err("of another set");
    assert_contains(&problem.body["errors"], &["document", "is refused", "COUNTERSIGN_SET_KEYS"]);
    assert_contains(
        &send("nonsense").await.expect_err("no signature").body["errors"],
        &["signatures", "line 1"],
    );
    sign_set(gateway.home());
    let stored = send(&read(gateway.home(), "policies/policy-set.yaml.sig")).await.expect("it is signed");
    let hash = stored["hash"].as_str().expect("a hash");
    gateway.activate(hash, &before).await.expect("it was signed");
    assert_eq!(gateway.policy().await, hash);
}

/// Keys that are configured later count for what is in the store, too.
#[tokio::test]
async fn stored_modules_and_sets_need_signatures_too() {
    let actions = format!(
        "{}      - use: override-guard\n        with: {{ keys: [replicas] }}\n    redact: {{ show: [replicas] }}\n",
        deploy(1)
    );
    let gateway = with_keys(Home::new(&actions).administered()).start().await;
    let open = gateway.open("deploy").await;
    let before = gateway.look(&open.token).await;
    let unsigned = gateway.policy().await;
    let home = gateway.stop().await;
    home.set_actions(&deploy(1));
    sign_module(&home);
    let gateway = trusting(home).without("COUNTERSIGN_SET_KEYS").start().await;
    let now = gateway.policy().await;

    let problem = gateway.activate(&unsigned, &now).await.expect_err("it was never signed");
    assert_eq!(problem.is(), (422, "invalid_policy_set"));
    assert_contains(
        &problem.body["errors"],
        &["the stored module sha256:", "is refused: it is not signed by a key of"],
    );
    assert_eq!(gateway.policy().await, now);

    // The request was made under a module that is not signed: it is not evaluated, so nothing counts.
    gateway.click_refused(&Click::approve("U0ALICE", &open.id)).await;
    assert_eq!(gateway.look(&open.token).await, before);
    let guard = gateway.home().path("override-guard.wasm");
    std::fs::write(&guard, Home::built("override-guard")).expect("written");
    gateway.home().policy_done(&["sign", "./override-guard.wasm", "--key", "./authors.pem"]);
    put(&gateway, "override-guard", Some(&read(gateway.home(), "override-guard.wasm.sig")))
        .await
        .expect("signed");
    gateway.click_ok(&Click::approve("U0ALICE", &open.id)).await;
    assert_eq!(gateway.ended(&open.token).await["status"], "approved");
}

/// Revoking a set's signature also affects open requests.
#[tokio::test]
async fn open_requests_need_a_set_that_is_signed() {
    let gateway = with_keys(Home::new(&deploy(1)).administered()).start().await;
    let open = gateway.open("deploy").await;
    let (unsigned, document) = (gateway.policy().await, gateway.home().policy_set());
    let home = gateway.stop().await;
    home.set_actions(&deploy(2));
    sign_module(&home);
    sign_set(&home);
    let gateway = trusting(home).start().await;
    gateway.click_refused(&Click::approve("U0ALICE", &open.id)).await;
    // How it stands can be read all the same; who could act is not known without its rules.
    let status = gateway.send(&Call::get(&format!("/api/guard/status?requestId={}", open.id))).await;
    assert_eq!((status.status(), &status.json()["canAct"]), (200, &json!(null)), "{}", status.text());

    // The same set as before, signed by now.
    let folder = gateway.home().path("before");
    std::fs::create_dir_all(folder.join("modules")).expect("a folder");
    std::fs::write(folder.join("policy-set.yaml"), &document).expect("written");
    std::fs::write(folder.join("modules/quorum.wasm"), Home::built("quorum")).expect("written");
    gateway.home().policy_done(&["sign", "./before", "--key", "./admins.pem"]);
    let signatures = read(gateway.home(), "before/policy-set.yaml.sig");
    let sent = json!({"document": document, "signatures": signatures});
    let stored = gateway.admin("POST", "policy-sets", &sent).await.expect("it is signed");
    assert_eq!(stored["hash"], unsigned);
    let key = read(gateway.home(), "admins.pub.pem");
    assert!(key.contains(stored["signedBy"][0].as_str().expect("a key")), "{stored}");
    gateway.click_ok(&Click::approve("U0ALICE", &open.id)).await;
    assert_eq!(gateway.ended(&open.token).await["status"], "approved");
}

/// A key is replaced: the set in force is signed again, and the store keeps the new signature.
#[tokio::test]
async fn a_key_is_changed() {
    let home = with_keys(Home::new(&deploy(1)).administered().with("COUNTERSIGN_POLICY_WATCH", "false"));
    home.policy_done(&["keygen", "./successors"]);
    let both = [read(&home, "admins.pub.pem"), read(&home, "successors.pub.pem")].concat();
    home.write("both.pem", both.as_bytes());
    sign_set(&home);
    let keys = |name: &str| home.path(name).display().to_string();
    let (both, successors) = (keys("both.pem"), keys("successors.pub.pem"));
    let gateway = home.with("COUNTERSIGN_SET_KEYS", &both).start().await;
    let open = gateway.open("deploy").await;
    gateway.home().policy_done(&["sign", "./policies", "--key", "./successors.pem"]);
    let again = gateway.admin("POST", "reload-policy", &json!({})).await.expect("it is signed");
    assert_eq!(again["outcome"], "unchanged");

    let home = gateway.kill().with("COUNTERSIGN_SET_KEYS", &successors);
    home.set_actions(&deploy(2));
    home.policy_done(&["sign", "./policies", "--key", "./successors.pem"]);
    let gateway = home.start().await;
    gateway.click_ok(&Click::approve("U0ALICE", &open.id)).await;
    assert_eq!(gateway.ended(&open.token).await["status"], "approved");
}

#[tokio::test]
async fn invalid_key_files_stop_the_start() {
    let home = with_keys(Home::new(&deploy(1)));
    home.write("empty.pem", b"");
    for (file, why) in [
        ("empty.pem", "holds no public key"),
        ("absent.pem", "cannot be read"),
        ("admins.pem", "holds something else than public keys"),
    ] {
        let home =
            Home::new(&deploy(1)).with("COUNTERSIGN_MODULE_KEYS", &home.path(file).display().to_string());
        assert_contains(&json!(home.fail_to_start().await.stderr), &[file, why]);
    }
}
