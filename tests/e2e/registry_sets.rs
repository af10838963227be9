//! A policy set pins modules in a registry: gateways fetch them once, from registries that are allowed, and with their signatures.

use countersign_tests::{Gateway, Home, REGISTRY_PASSWORD, Registry, deploy, digest};
use serde_json::json;

const IN_FORCE: &str = "another policy set is in force";

/// Pins quorum in the registry, whose file the folder does not have any more.
fn pin_in(home: &Home, registry: &Registry) {
    let pin = digest(&Home::built("quorum"));
    let pinned = format!("{}@{pin}", registry.repository("acme/quorum"));
    home.set_policy_set(&home.policy_set().replace(&pin, &pinned));
    std::fs::remove_file(home.path("policies/modules/quorum.wasm")).expect("it is there");
}

/// A home whose policy set pins a module that was pushed to the registry, with these options.
fn shipped(registry: &Registry, options: &[&str]) -> Home {
    let home = Home::new(&deploy(1)).administered();
    let to = registry.repository("acme/quorum");
    home.policy_done(&[&["push", "./policies/modules/quorum.wasm", &to], options].concat());
    pin_in(&home, registry);
    home.with("COUNTERSIGN_REGISTRIES", &registry.address().to_string())
}

async fn approvals(gateway: &Gateway) -> serde_json::Value {
    gateway.open("deploy").await.body["policy"]["minApprovals"].clone()
}

#[tokio::test]
async fn a_module_comes_from_a_registry_once() {
    let registry = Registry::start().await;
    let gateway = shipped(&registry, &[]).start().await;
    assert_eq!(approvals(&gateway).await, 1);
    let modules = gateway.seen("modules").await;
    assert_eq!(modules["modules"][0]["digest"], digest(&Home::built("quorum")));
    registry.stop();

    // It is in the store by now: neither a restart nor another set with it needs the registry.
    let gateway = gateway.kill().start().await;
    let set = gateway.home().policy_set();
    gateway.home().set_policy_set(&set.replace("approvals: 1", "approvals: 2"));
    gateway.logged(IN_FORCE, 1).await;
    assert_eq!(approvals(&gateway).await, 2);
    let document = set.replace("approvals: 1", "approvals: 3");
    let stored = gateway.store_set(&document).await;
    gateway.activate(&stored, &gateway.policy().await).await.expect("activated");
    assert_eq!(approvals(&gateway).await, 3);
}

#[tokio::test]
async fn a_registry_that_is_down_stops_nothing_else() {
    let (registry, gone) = (Registry::start().await, Registry::start().await);
    let home = shipped(&registry, &[]);
    let both = format!("{},{}", registry.address(), gone.address());
    let gateway =
        home.with("COUNTERSIGN_REGISTRIES", &both).with("COUNTERSIGN_POLICY_WATCH", "false").start().await;
    let before = gateway.policy().await;
    let pinned = gone.repository("acme/guard");
    gone.stop();
    let guard = digest(&Home::built("override-guard"));
    let set = gateway.home().policy_set();
    let other = set.replace("modules:\n", &format!("modules:\n  guard: {pinned}@{guard}\n"));
    gateway.home().set_policy_set(&other);
    let problem = gateway.admin("POST", "reload-policy", &json!({})).await.expect_err("nobody answers");
    assert_eq!(problem.is(), (503, "registry_unavailable"));
    let errors = problem.body["errors"].to_string();
    for part in ["policy-set.yaml:3:10", "`guard` cannot be fetched", "cannot be reached"] {
        assert!(errors.contains(part), "`{part}` is not in {errors}");
    }
    assert_eq!(gateway.policy().await, before);
    assert_eq!(approvals(&gateway).await, 1);
    // A start fails with the same error, and names the registry.
    let home = gateway.kill();
    let failure = home.fail_to_start().await;
    assert_eq!(failure.code, Some(2), "{}", failure.stderr);
    assert!(failure.stderr.contains("`guard` cannot be fetched"), "{}", failure.stderr);
}

#[tokio::test]
async fn only_the_registries_of_the_configuration_are_asked() {
    let registry = Registry::start().await;
    let home = shipped(&registry, &[]);
    let address = registry.address().to_string();
    for (allowed, starts) in [
        (format!("{address}/other"), false),
        ("ghcr.io".to_owned(), false),
        (format!("{address}/acme"), true),
    ] {
        let home = Home::of(&home.path("policies")).with("COUNTERSIGN_REGISTRIES", &allowed);
        if starts {
            drop(home.start().await);
        } else {
            let said = home.fail_to_start().await.stderr;
            assert!(
                said.contains("policy-set.yaml:3:11") && said.contains("COUNTERSIGN_REGISTRIES"),
                "{said}"
            );
        }
    }
    let said = Home::of(&home.path("policies")).fail_to_start().await.stderr;
    assert!(said.contains("is not among the registries that may be asked"), "{said}");
    let home = Home::of(&home.path("policies")).with("COUNTERSIGN_REGISTRIES", "https://ghcr.io");
    let said = home.fail_to_start().await.stderr;
    assert!(said.contains("--registries") && said.contains("without a scheme"), "{said}");
}

#[tokio::test]
async fn a_registry_may_ask_for_a_password() {
    let registry = Registry::start_with_password().await;
    let file = registry.credentials(REGISTRY_PASSWORD).display().to_string();
    let home = shipped(&registry, &["--auth-file", &file]);
    let said = home.fail_to_start().await.stderr;
    assert!(said.contains("may not be read or written without credentials"), "{said}");
    let home = home.with("COUNTERSIGN_REGISTRY_AUTH_FILE", &file);
    let gateway = home.start().await;
    assert_eq!(approvals(&gateway).await, 1);
    assert!(!gateway.output().contains(REGISTRY_PASSWORD));
}

#[tokio::test]
async fn signatures_come_with_the_module() {
    let registry = Registry::start().await;
    let home = Home::new(&deploy(1)).administered();
    home.policy_done(&["keygen", "./authors"]);
    let to = registry.repository("acme/quorum");
    home.policy_done(&["push", "./policies/modules/quorum.wasm", &to]);
    let unsigned = registry.address().to_string();
    let keys = home.path("authors.pub.pem").display().to_string();
    std::fs::copy(home.path("policies/modules/quorum.wasm"), home.path("quorum.wasm")).expect("copied");
    pin_in(&home, &registry);
    let home = home.with("COUNTERSIGN_REGISTRIES", &unsigned).with("COUNTERSIGN_MODULE_KEYS", &keys);
    let said = home.fail_to_start().await.stderr;
    assert!(said.contains("`quorum` (sha256:") && said.contains("it is not signed"), "{said}");

    home.policy_done(&["sign", "./quorum.wasm", "--key", "./authors.pem"]);
    home.policy_done(&["push", "./quorum.wasm", &to]);
    let gateway = home.start().await;
    assert_eq!(approvals(&gateway).await, 1);
    registry.stop();
    let gateway = gateway.kill().start().await;
    assert_eq!(approvals(&gateway).await, 1);
}

/// Commands that check a set before a rollout fetch modules as a gateway does.
#[tokio::test]
async fn authors_commands_fetch_as_a_gateway_does() {
    let registry = Registry::start().await;
    let home = shipped(&registry, &[]);
    let address = registry.address().to_string();
    let output = home.policy(&["check", "./policies"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("policy-set.yaml:3:11") && said.contains("COUNTERSIGN_REGISTRIES"), "{said}");
    let said = home.policy_done(&["check", "./policies", "--registries", &address]);
    assert!(said.contains("sound: 1 action"), "{said}");
    let judged = ["judge", "./policies", "--action", "deploy", "--event", "U0ALICE approve"];
    let said = home.policy_done(&[judged.as_slice(), &["--registries", &address]].concat());
    assert!(said.contains("approved"), "{said}");

    // People copy the digest that a registry's page shows: it is the manifest's.
    let manifest = registry.get("/v2/acme/quorum/manifests/0.1.0").await.body;
    let (module, shown) = (digest(&Home::built("quorum")), digest(&manifest));
    home.set_policy_set(&home.policy_set().replace(&module, &shown));
    let output = home.policy(&["check", "./policies", "--registries", &address]);
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("is the digest of a manifest") && said.contains(&module), "{said}");
}
