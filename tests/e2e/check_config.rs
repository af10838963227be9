//! `countersign check-config` says all that a start would refuse, and makes nothing; a start that fails says all of it, too.

use std::fs;
use std::process::Output;

use countersign_tests::{Authority, Home, Name, deploy};

/// What it prints, and whether it found nothing wrong.
fn check(home: &Home) -> (bool, String) {
    let Output { status, stdout, stderr } = home.run(&["check-config"]);
    assert!(status.success() || status.code() == Some(2), "{status}");
    (status.success(), String::from_utf8([stdout, stderr].concat()).expect("text"))
}

#[tokio::test]
async fn what_is_sound_is_said_and_nothing_is_made() {
    let authority = Authority::new();
    let certified = authority.server();
    let home = Home::alone(&deploy(1)).with_tls(&certified, authority.tls_client(None));
    let home = home.with_access("version: 1\ncallers: {}\n");
    let before = home.files().len();
    let (sound, said) = check(&home);
    assert!(sound, "{said}");
    for what in [
        "the settings",
        "the policy set, with 1 actions",
        "the access file",
        "TLS of the listener for callers",
    ] {
        assert!(said.contains(&format!("sound: {what}")), "{said}");
    }
    assert_eq!(home.files().len(), before, "a file was made");
    // The same settings start a gateway, and they are sound beside one that runs.
    let gateway = home.start().await;
    let (sound, said) = check(gateway.home());
    assert!(sound, "{said}");
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once_and_a_start_says_it_too() {
    let authority = Authority::new();
    let home = Home::alone(&deploy(1)).with_tls(&authority.server(), authority.tls_client(None));
    let home = home.with_access("version: 1\ncallers: {}\nsurprise: 1\n");
    let home = home.with_file("COUNTERSIGN_SET_KEYS", "nowhere.pem");
    let home = home.with_file("COUNTERSIGN_RECEIPT_KEYS", "no-receipts.key");
    let home = home.with_file("COUNTERSIGN_SPOOL_DIR", "no-folder/spool");
    home.write("no-folder", b"a file");
    home.write("server.key", b"no key");
    home.set_policy_set(&home.policy_set().replace("approvals: 1", "aprovals: 1"));
    let named =
        ["no-receipts.key", "no-folder/spool", "aprovals", "nowhere.pem", "access.yaml", "server.key"];

    let (sound, said) = check(&home);
    assert!(!sound);
    for name in named {
        assert_eq!(said.lines().filter(|line| line.contains(name)).count(), 1, "{name}: {said}");
    }
    let failure = home.fail_to_start().await;
    assert_eq!(failure.code, Some(2), "{}", failure.stderr);
    let told: Vec<&str> = failure.stderr.lines().filter(|line| !line.starts_with('{')).collect();
    for name in named {
        assert_eq!(told.iter().filter(|line| line.contains(name)).count(), 1, "{name}: {}", failure.stderr);
    }
}

#[tokio::test]
async fn what_is_written_is_no_other_file() {
    let gateway = Home::alone(&deploy(1)).with_file("AUDIT_FILE", "audit.ndjson").start().await;
    let request = gateway.open("deploy").await;
    let home = gateway.stop().await;
    std::os::unix::fs::symlink("countersign.db", home.path("data/link")).expect("a link");
    let home = home.with_file("AUDIT_FILE", "data/link").with_access("version: 1\ncallers: {}\n");
    let home = home.with_file("COUNTERSIGN_RECEIPT_KEYS", "access.yaml");
    let (sound, said) = check(&home);
    assert!(!sound);
    for (one, other) in [("the database", "the audit file"), ("the key file for receipts", "the access file")]
    {
        let says = |line: &&str| line.contains(&format!("is {one}, and also {other}:"));
        assert_eq!(said.lines().filter(says).count(), 1, "{said}");
    }
    let failure = home.fail_to_start().await;
    assert_eq!(failure.code, Some(2), "{}", failure.stderr);
    assert!(failure.stderr.contains("is the database, and also the audit file"), "{}", failure.stderr);
    // Nothing was written to it.
    let home = home.without("COUNTERSIGN_ACCESS").without("COUNTERSIGN_RECEIPT_KEYS");
    let gateway = home.with_file("AUDIT_FILE", "audit.ndjson").start().await;
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");
}

/// Neither waits for whoever is at the other end of the pipe.
#[tokio::test]
async fn a_pipe_or_a_device_is_no_file_to_write() {
    let home =
        Home::alone(&deploy(1)).with_file("AUDIT_FILE", "pipe").with_file("COUNTERSIGN_RECEIPT_KEYS", "link");
    let made = std::process::Command::new("mkfifo")
        .arg(home.path("pipe"))
        .status()
        .expect("there is such a program");
    assert!(made.success());
    std::os::unix::fs::symlink("pipe", home.path("link")).expect("a link");
    let home = home.with("COUNTERSIGN_AUDIT_CHECKPOINT_FILE", "/dev/null");
    let (sound, said) = check(&home);
    let failure = home.fail_to_start().await;
    assert_eq!((sound, failure.code), (false, Some(2)), "{}", failure.stderr);
    for setting in ["AUDIT_FILE", "COUNTERSIGN_AUDIT_CHECKPOINT_FILE", "COUNTERSIGN_RECEIPT_KEYS"] {
        let named = format!("(`{setting}`): it is no regular file");
        assert!(said.contains(&named) && failure.stderr.contains(&named), "{said} {}", failure.stderr);
    }
}

#[tokio::test]
async fn settings_come_before_the_files_that_they_name() {
    let home = Home::new(&deploy(1)).with("SCHEDULER_INTERVAL_MS", "soon").with("COUNTERSIGN_LISTEN", "8080");
    let (sound, said) = check(&home);
    assert!(!sound && said.lines().count() == 2, "{said}");
    assert!(said.contains("SCHEDULER_INTERVAL_MS") && said.contains("COUNTERSIGN_LISTEN"), "{said}");
    let failure = home.fail_to_start().await;
    assert_eq!((failure.code, failure.stderr.trim_end()), (Some(2), said.trim_end()));
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let home = Home::new(&deploy(1)).with("COUNTERSIGN_STORE", "sqlite:/nowhere/at/all.db");
    let (sound, said) = check(&home);
    assert!(!sound && said.contains("/nowhere/at/all.db"), "{said}");
    let home = Home::new(&deploy(1));
    home.write("data/countersign.db", b"this is no database");
    let (sound, said) = check(&home);
    assert!(!sound && said.contains("countersign.db"), "{said}");
    let home =
        Home::new(&deploy(1)).without("COUNTERSIGN_SECRET").with("COUNTERSIGN_STORE", "redis://127.0.0.1");
    let (sound, said) = check(&home);
    assert!(!sound && said.contains("this store needs `COUNTERSIGN_SECRET`"), "{said}");
}

/// The address alone helps nobody. Both are said without a connection.
#[test]
fn why_a_store_cannot_be_opened_is_said() {
    let home = Home::new(&deploy(1)).with("COUNTERSIGN_STORE", "redis://10.0.0.5:6379");
    let (sound, said) = check(&home);
    assert!(!sound && said.contains("redis://10.0.0.5:6379") && said.contains("--redis-plaintext"), "{said}");
    let home = Home::new(&deploy(1)).with_file("COUNTERSIGN_REDIS_CA_FILE", "nowhere.pem");
    let home = home.with("COUNTERSIGN_STORE", "rediss://10.0.0.5:6379");
    let (sound, said) = check(&home);
    assert!(!sound && said.contains("nowhere.pem") && said.contains("No such file"), "{said}");
}

#[test]
fn what_is_only_doubtful_is_a_warning() {
    let home = Home::new(&deploy(1)).with("SLACK_TEAM_IDS", "T0ACME");
    let set = home.policy_set().replace(", channel: C0PRIVATE", "");
    home.set_policy_set(&set);
    let (sound, said) = check(&home);
    assert!(sound, "{said}");
    assert!(said.contains("warning: the variable `SLACK_TEAM_IDS` has no effect"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("warning:") && line.contains("channel")), "{said}");
    assert!(fs::metadata(home.path("data/countersign.db")).is_err());
}

#[test]
fn files_of_a_policy_set_that_a_gateway_passes_over_are_warned_of() {
    let home = Home::new(&deploy(1));
    let policies = home.path("policies");
    fs::write(policies.join("policy-set.yaml.sha256"), "").expect("a list");
    fs::create_dir_all(policies.join("schemas")).expect("a folder");
    fs::write(policies.join("schemas/deploy.JSON"), "{}").expect("a schema");
    let (sound, said) = check(&home);
    assert!(sound, "{said}");
    for warned in ["policy-set.yaml.sha256` does not fit", "schemas/deploy.JSON` is not read"] {
        let says = |line: &&str| line.starts_with("warning:") && line.contains(warned);
        assert_eq!(said.lines().filter(says).count(), 1, "{warned}: {said}");
    }
}

#[test]
fn files_of_tls_must_fit_together() {
    let (one, other) = (Authority::new(), Authority::new());
    let home = Home::new(&deploy(1)).with_tls(&one.server(), one.tls_client(None));
    home.write("server.key", other.client(&[Name::Dns("x.example")]).key.as_bytes());
    let (sound, said) = check(&home);
    assert!(!sound && said.contains("server."), "{said}");
}
