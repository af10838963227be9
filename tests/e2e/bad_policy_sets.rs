//! An invalid policy set or module stops the start, and the error names it.

use std::fs;

use countersign_tests::Home;

const ACTIONS: &str = "
  deploy:
    description: Deploy to staging
    timeout: 10m
    policies:
      - use: quorum
        with: { approvers: [U0ALICE], approvals: 1 }
";

#[tokio::test]
async fn an_invalid_policy_set_is_refused_with_the_place() {
    // The text, its replacement, and what the error must contain.
    let rows: [(&str, &str, &[&str]); 14] = [
        ("policies:\n", "polices:\n", &["policy-set.yaml:", "polices", "policies"]),
        ("approvals: 1", "aprovals: 1", &["policy-set.yaml:", "aprovals"]),
        ("approvals: 1", "approvals: one", &["policy-set.yaml:", "approvals"]),
        ("approvals: 1", "approvals: 2", &["policy-set.yaml:", "2 approvals cannot come from 1"]),
        (
            "[U0ALICE]",
            "[\"@release-manager\"]",
            &["policy-set.yaml:", "@release-manager", "release-managers"],
        ),
        ("timeout: 10m\n", "timeout: ten\n", &["policy-set.yaml:", "ten"]),
        ("timeout: 10m\n", "timeout: -1m\n", &["policy-set.yaml:", "-1m"]),
        ("timeout: 10m\n", "timeout: 10m\n    timeout: 20m\n", &["policy-set.yaml:", "timeout"]),
        ("use: quorum", "use: quorom", &["policy-set.yaml:", "quorom", "quorum"]),
        ("version: 1", "version: 2", &["policy-set.yaml:", "version"]),
        ("version: 1", "version: 1\nsurprise: 1", &["policy-set.yaml:", "surprise"]),
        ("sha256:", "sha512:", &["policy-set.yaml:", "`quorum`", "sha256:"]),
        ("actions:", "actions: [", &["policy-set.yaml:"]),
        ("unknown_action: deny", "unknown_action: allow", &["policy-set.yaml:", "allow"]),
    ];
    for (right, wrong, words) in rows {
        let home = Home::new(ACTIONS);
        let set = home.policy_set();
        assert!(set.contains(right), "nothing to replace: {right}");
        home.set_policy_set(&set.replacen(right, wrong, 1));
        check(&home, wrong, words).await;
    }
}

#[tokio::test]
async fn a_folder_without_a_policy_set_is_refused() {
    let home = Home::new(ACTIONS);
    fs::remove_file(home.path("policies/policy-set.yaml")).expect("it is there");
    check(&home, "no policy set", &["policy-set.yaml"]).await;

    let home = Home::new(ACTIONS).with("COUNTERSIGN_POLICIES", "/nowhere/at/all");
    check(&home, "no folder", &["/nowhere/at/all"]).await;
}

#[tokio::test]
async fn a_module_that_is_not_what_was_pinned_is_refused() {
    let module = "policies/modules/quorum.wasm";
    let good = fs::read(Home::new(ACTIONS).path(module)).expect("it is there");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let rows: [(&str, Option<&[u8]>); 4] = [
        ("missing", None),
        ("truncated", Some(&good[..good.len() / 2])),
        ("another byte", Some(&flipped)),
        ("empty", Some(&[])),
    ];
    for (what, bytes) in rows {
        let home = Home::new(ACTIONS);
        match bytes {
            Some(bytes) => home.write(module, bytes),
            None => fs::remove_file(home.path(module)).expect("it is there"),
        }
        check(&home, what, &["policy-set.yaml:", "quorum", "sha256:"]).await;
    }
}

#[tokio::test]
async fn a_module_that_is_no_policy_is_refused_although_it_is_pinned() {
    let good = fs::read(Home::new(ACTIONS).path("policies/modules/quorum.wasm")).expect("it is there");
    let rows: [(&str, Vec<u8>, &[&str]); 7] = [
        ("text", b"not WebAssembly".to_vec(), &["no WebAssembly"]),
        ("truncated", good[..good.len() / 2].to_vec(), &["quorum"]),
        ("a core module", wat("(module)"), &["core WebAssembly module"]),
        ("no exports", wat("(component)"), &["export"]),
        ("imports WASI", wat(IMPORTS_WASI), &["imports", "wasi:clocks/monotonic-clock"]),
        ("imports anything", wat("(component (import \"now\" (func)))"), &["imports", "now"]),
        ("far too large", [good.as_slice(), &vec![0; 3 << 20]].concat(), &["more than", "bytes"]),
    ];
    for (what, bytes, words) in rows {
        let home = Home::new(ACTIONS);
        home.pin("quorum", &bytes);
        let words = [&["policy-set.yaml:", "`quorum`"], words].concat();
        check(&home, what, &words).await;
    }
}

const IMPORTS_WASI: &str = r#"
(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64))))))
"#;

#[tokio::test]
async fn an_action_that_nobody_would_have_to_approve_is_refused() {
    let home = Home::new(
        "
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [] }
    policies:
      - use: override-guard
        with: { keys: [replicas] }
",
    );
    check(&home, "only a guard", &["policy-set.yaml:", "unattended"]).await;
}

#[tokio::test]
async fn what_can_be_edited_must_be_visible() {
    let home = Home::new(
        "
  scale:
    description: Scale a service
    timeout: 10m
    redact: { hide: [replicas] }
    policies:
      - use: quorum
        with: { approvers: [U0ALICE] }
      - use: override-guard
        with: { keys: [replicas] }
",
    );
    check(&home, "a hidden key", &["policy-set.yaml:", "replicas", "redact"]).await;
}

#[tokio::test]
async fn a_configuration_with_a_typo_is_refused() {
    let rows = [
        ("COUNTERSIGN_LISTN", "127.0.0.1:0", "COUNTERSIGN_LISTN"),
        ("COUNTERSIGN_LISTEN", "localhost", "COUNTERSIGN_LISTEN"),
        ("COUNTERSIGN_STORE", "mysql://x", "COUNTERSIGN_STORE"),
        ("COUNTERSIGN_SECRET", "short", "COUNTERSIGN_SECRET"),
        ("RATE_LIMIT_CAPACITY", "many", "RATE_LIMIT_CAPACITY"),
        ("RATE_LIMIT_CAPACITY", "0", "RATE_LIMIT_CAPACITY"),
        ("SCHEDULER_INTERVAL_MS", "-5", "SCHEDULER_INTERVAL_MS"),
        ("REQUIRE_CLIENT_CERT", "true", "REQUIRE_CLIENT_CERT"),
    ];
    for (name, value, words) in rows {
        check(&Home::new(ACTIONS).with(name, value), &format!("{name}={value}"), &[words]).await;
    }
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

async fn check(home: &Home, what: &str, words: &[&str]) {
    let failure = home.fail_to_start().await;
    assert!(failure.code.is_some_and(|code| code != 0), "{what}: {failure:?}");
    for part in words {
        assert!(failure.stderr.contains(part), "{what}: `{part}` is not in: {}", failure.stderr);
    }
    assert!(!failure.stderr.contains("panicked"), "{what}: {}", failure.stderr);
}
