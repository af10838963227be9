//! The keys of an installation lie beside the database, and can be changed while requests are open.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use countersign_tests::{Ask, Click, Home, Receipt, countersign, countersign_with, deploy, holds};
use serde_json::Value;

const DATABASE: &str = "data/countersign.db";
const KEY_FILE: &str = "data/countersign.db.key";

fn ask() -> Ask {
    Ask::new("deploy").idempotency_key("run-4711")
}

/// Runs `countersign keys`, and returns what it printed.
fn keys(home: &Home, command: &str) -> Result<String, String> {
    let store = format!("sqlite:{}", home.path(DATABASE).display());
    let output = countersign(["keys", command, "--store", &store]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The secrets of a key file, in hexadecimal.
fn secrets(home: &Home) -> Vec<String> {
    let text = std::fs::read_to_string(home.path(KEY_FILE)).expect("a key file");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned)).collect()
}

/// The encrypted salts in the database, in hexadecimal, in the order of their requests.
fn sealed_salts(home: &Home) -> Vec<String> {
    let database = rusqlite::Connection::open(home.path(DATABASE)).expect("a database");
    let mut select = database.prepare("SELECT hex(salt) FROM request ORDER BY seq").expect("a query");
    let salts = select.query_map([], |row| row.get(0)).and_then(Iterator::collect);
    salts.expect("the salts can be read")
}

/// Whether a file holds these bytes, in hexadecimal or as they are.
fn gives_away(bytes: &[u8], secret: &str) -> bool {
    let raw = hex::decode(secret).expect("hexadecimal");
    holds(bytes, secret.as_bytes()) || holds(bytes, &raw)
}

#[tokio::test]
async fn the_database_alone_holds_no_key() {
    let gateway = Home::alone(&deploy(1)).start().await;
    let request = gateway.create(&ask()).await.expect("it is admitted");
    let home = gateway.stop().await;
    let mode = std::fs::metadata(home.path(KEY_FILE)).expect("a key file").mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = secrets(&home).remove(0);
    let key_file = home.path(KEY_FILE);
    for (path, bytes) in home.files() {
        assert!(path == key_file || !gives_away(&bytes, &secret), "the secret is in {}", path.display());
    }

    // Without its key file, a database is not taken for a new installation's.
    std::fs::remove_file(&key_file).expect("it is there");
    let failure = home.fail_to_start().await;
    assert_eq!(failure.code, Some(2));
    assert!(failure.stderr.contains("put its key file back"), "{}", failure.stderr);
    assert!(keys(&home, "accept-loss").is_ok());
    let gateway = home.start().await;
    // Tokens are compared with what is stored of them, so they still open their requests; they cannot be made again.
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");
    assert_eq!(gateway.create(&ask()).await.expect_err("its token is lost").is(), (409, "token_retired"));
}

#[tokio::test]
async fn keys_are_changed_with_an_overlap() {
    let gateway = Home::alone(&deploy(1)).start().await;
    let first = gateway.create(&ask()).await.expect("it is admitted");
    let home = gateway.stop().await;
    let before = keys(&home, "show").expect("there is one");
    let after = keys(&home, "rotate").expect("it is rotated");
    assert!(after.contains(&before.replace("current", "previous")), "{before} {after}");
    assert!(
        keys(&home, "rotate").expect_err("the first one is still there").contains("countersign keys retire")
    );
    for secret in secrets(&home) {
        assert!(!after.contains(&secret), "a secret is printed");
    }

    let same = |again: Receipt| assert_eq!((&again.id, &again.token), (&first.id, &first.token));
    let gateway = home.start().await;
    same(gateway.create(&ask()).await.expect("the previous key still counts"));
    let second = gateway.create(&ask().idempotency_key("run-4712")).await.expect("it is admitted");
    let running = keys(gateway.home(), "rewrap").expect_err("the gateway has the database open");
    assert!(running.contains("in use by another gateway"), "{running}");
    let home = gateway.stop().await;
    let needed = keys(&home, "retire").expect_err("the salt of the first request needs it");
    assert!(needed.contains("countersign keys rewrap"), "{needed}");
    let sealed = sealed_salts(&home);
    let told = keys(&home, "rewrap").expect("the previous key is there");
    assert_eq!(told, "encrypted anew: 1\nencrypted with the current key already: 1\n");
    for (salt, gone) in sealed.iter().zip([true, false]) {
        assert_eq!(
            home.files().iter().any(|(_, bytes)| gives_away(bytes, salt)),
            !gone,
            "what was replaced is overwritten"
        );
    }
    keys(&home, "retire").expect("nothing needs the previous one");
    let gateway = home.start().await;
    let again = gateway.create(&ask().idempotency_key("run-4712")).await.expect("the current key counts");
    assert_eq!(again.token, second.token);
    assert_eq!(gateway.create(&ask()).await.expect_err("the key is gone").is(), (409, "token_retired"));
    let looked = gateway.look(&first.token).await;
    assert_eq!(looked["status"], "ready_for_approval", "its token still opens it");
    assert_eq!(
        looked["payloadSalt"], first.body["payloadSalt"],
        "its salt is encrypted with the current key"
    );
}

/// Also if no audit entry was written between the two steps.
#[tokio::test]
async fn the_audit_log_counts_after_a_change_of_keys() {
    let gateway = Home::alone(&deploy(1)).start().await;
    gateway.create(&ask()).await.expect("it is admitted");
    let home = gateway.stop().await;
    keys(&home, "rotate").expect("it is rotated");
    keys(&home, "rewrap").expect("the previous key is there");
    let refused = keys(&home, "retire").expect_err("no gateway has used the current key");
    assert!(refused.contains("Start the gateway once"), "{refused}");
    let home = home.start().await.stop().await;
    keys(&home, "retire").expect("the current key has signed");
    let store = format!("sqlite:{}", home.path(DATABASE).display());
    let verified = countersign(["audit", "verify", "--store", &store]);
    assert!(verified.status.success(), "{verified:?}");

    // A key that is lost takes its signatures with it, and the command says so.
    std::fs::remove_file(home.path(KEY_FILE)).expect("it is there");
    assert_eq!(home.fail_to_start().await.code, Some(2));
    let accepted = countersign(["keys", "accept-loss", "--store", &store]);
    assert!(accepted.status.success(), "{accepted:?}");
    assert!(
        String::from_utf8_lossy(&accepted.stderr).contains("countersign audit accept-loss"),
        "{accepted:?}"
    );
    let lost = countersign(["audit", "accept-loss", "--store", &store]);
    assert!(lost.status.success(), "{lost:?}");
    let home = home.start().await.stop().await;
    let verified = countersign(["audit", "verify", "--store", &store]);
    assert!(verified.status.success(), "{verified:?}");
    drop(home);
}

/// With a secret that is configured rather than in a key file.
#[tokio::test]
async fn salts_are_encrypted_anew_with_a_configured_secret() {
    let (old, new) = ("ab".repeat(32), "cd".repeat(32));
    let gateway = Home::alone(&deploy(1)).with("COUNTERSIGN_SECRET", &old).start().await;
    let request = gateway.create(&ask()).await.expect("it is admitted");
    let home = gateway.stop().await;
    let store = format!("sqlite:{}", home.path(DATABASE).display());
    let secrets = [("COUNTERSIGN_SECRET", (&new).into()), ("COUNTERSIGN_SECRET_PREVIOUS", (&old).into())];
    let rewrap = || countersign_with(secrets.clone(), ["keys", "rewrap", "--store", &store]);
    let refused = rewrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("Start the gateway once"), "{refused:?}");
    assert!(said.contains("encrypted anew: 1\n"), "{refused:?}");
    let home = home.with("COUNTERSIGN_SECRET", &new).with("COUNTERSIGN_SECRET_PREVIOUS", &old);
    let home = home.start().await.stop().await;
    let output = rewrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("encrypted anew: 0\n"), "{output:?}");
    let gateway = home.without("COUNTERSIGN_SECRET_PREVIOUS").start().await;
    assert_eq!(gateway.look(&request.token).await["payloadSalt"], request.body["payloadSalt"]);
}

/// What cannot be made again is refused and said; what needs no key goes on.
#[tokio::test]
async fn a_request_whose_salt_is_lost_can_still_be_decided() {
    const ACTIONS: &str = "
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE, U0BOB], approvals: 1 }
      - use: override-guard
        with: { keys: [replicas], max_keys: 1, max_chars: 20 }
";
    let gateway = Home::alone(ACTIONS).start().await;
    let request = gateway.open("scale").await;
    let before = gateway.look(&request.token).await;
    let home = gateway.stop().await;
    std::fs::remove_file(home.path(KEY_FILE)).expect("it is there");
    home.fail_to_start().await;
    keys(&home, "accept-loss").expect("there is a new key file");
    let told = keys(&home, "rewrap").expect("there is nothing that it could do");
    let lost =
        "encrypted anew: 0\nencrypted with the current key already: 0\nlost, since their key is gone: 1\n";
    assert_eq!(told, lost);

    let gateway = home.start().await;
    let looked = gateway.look(&request.token).await;
    assert_eq!((&looked["payloadHash"], &looked["payloadHashVersion"]), (&before["payloadHash"], &2.into()));
    assert_eq!(looked["payloadSalt"], Value::Null);
    gateway.logged("cannot decrypt the salt of a payload hash", 1).await;
    let refused = gateway.click_refused(&Click::edit("U0ALICE", &request.id, &[("replicas", "5")])).await;
    assert_eq!(refused, "salt_lost");
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;
    let after = gateway.ended(&request.token).await;
    assert_eq!((&after["status"], &after["payloadHash"]), (&"approved".into(), &before["payloadHash"]));
}

/// As an earlier version left it.
fn put_secret(database: &Path, secret: &str) {
    let database = rusqlite::Connection::open(database).expect("a database");
    let secret = hex::decode(secret).expect("hexadecimal");
    database.execute("INSERT INTO meta (key, value) VALUES ('secret', ?1)", [secret]).expect("it is stored");
}

#[tokio::test]
async fn a_secret_in_the_database_is_moved_out_of_it() {
    let secret = "ab".repeat(32);
    // The tokens of an earlier version are made with this secret, and so are those of a gateway that is given it.
    let home = Home::alone(&deploy(1)).with("COUNTERSIGN_SECRET", &secret);
    let gateway = home.start().await;
    let request = gateway.create(&ask()).await.expect("it is admitted");
    let home = gateway.stop().await.without("COUNTERSIGN_SECRET");
    put_secret(&home.path(DATABASE), &secret);

    let gateway = home.start().await;
    assert!(gateway.output().contains("copies of the database that were made before still hold it"));
    let again = gateway.create(&ask()).await.expect("it is the same");
    assert_eq!((&again.id, &again.token), (&request.id, &request.token));
    let home = gateway.stop().await;
    assert_eq!(secrets(&home), std::slice::from_ref(&secret));
    let key_file = home.path(KEY_FILE);
    for (path, bytes) in home.files() {
        assert!(path == key_file || !gives_away(&bytes, &secret), "the secret is in {}", path.display());
    }
}

#[tokio::test]
async fn a_secret_that_the_configuration_replaced_is_not_lost() {
    let configured = "cd".repeat(32);
    let home = Home::alone(&deploy(1)).with("COUNTERSIGN_SECRET", &configured);
    let home = home.start().await.stop().await;
    let older = "ab".repeat(32);
    put_secret(&home.path(DATABASE), &older);
    let home = home.start().await.stop().await;
    assert_eq!(secrets(&home), [older], "it is kept where nothing uses it by itself");
    put_secret(&home.path(DATABASE), &configured);
    let home = home.start().await.stop().await;
    assert!(!secrets(&home).contains(&configured), "it is where it was configured");
}

#[tokio::test]
async fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::alone(&deploy(1)).start().await.stop().await;
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(home.path(KEY_FILE), open).expect("it is ours");
    let failure = home.fail_to_start().await;
    assert_eq!(failure.code, Some(2));
    assert!(failure.stderr.contains("chmod 600"), "{}", failure.stderr);
}
