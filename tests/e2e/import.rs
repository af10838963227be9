//! The YAML of the Node.js service is imported by the real program, and the gateway that runs it behaves as the legacy service did.

use std::fs;
use std::path::Path;
use std::process::Output;

use countersign_tests::{Ask, Click, Gateway, Home, countersign, modules};
use serde_json::json;

const GUARDS: &str = "\
actions:
  restart:
    description: Restart a service
    approvers: { allowSlackIds: [U0ALICE, U0BOB], minApprovals: 1 }
  deploy_prod:
    description: Deploy to production
    approvers: { allowSlackIds: [U0ALICE, U0BOB, U0CAROL], minApprovals: 2 }
    personasRequired: [security, release]
    redactParams: { mode: denylist, keys: [token] }
    allowReRequest: true
    reRequestCooldownSec: 1
    allowParamOverrides: true
    overrideKeys: [replicas, zone]
  migrate:
    approvers: { allowSlackIds: [U0ALICE, U0BOB], minApprovals: 1 }
    timeoutSec: 12
    redactParams: { mode: allowlist, keys: [name] }
    escalation: { escalateBeforeSec: 10, escalateMinApprovals: 2 }
routing: { defaultChannel: C0PRIVATE, defaultTimeoutSec: 900 }
defaults: { unknownAction: manual, superApprovers: [U0ADMIN] }
personas:
  security: [U0SEC]
";

const SCHEMA: &str = r#"{"type": "object", "properties": {
    "replicas": {"type": "number", "min": 1, "max": 9, "errorMessage": "one to nine, please"},
    "zone": {"type": "string", "enum": ["a", "b"]}
}}"#;

/// Imports these files in `folder`, to the folder `out` in it.
fn import(folder: &Path, guards: &str, options: &[&str]) -> Output {
    fs::write(folder.join("guards.yml"), guards).expect("a temporary folder can be written to");
    fs::create_dir_all(folder.join("schemas")).expect("a temporary folder can be written to");
    fs::write(folder.join("schemas/deploy_prod.json"), SCHEMA).expect("a temporary folder can be written to");
    let path = |name: &str| folder.join(name).display().to_string();
    let modules = modules().display().to_string();
    let (guards, schemas, out) = (path("guards.yml"), path("schemas"), path("out"));
    let arguments =
        ["policy", "import", &guards, "--schemas", &schemas, "--modules", &modules, "--out", &out];
    countersign(arguments.iter().chain(options))
}

async fn imported() -> Gateway {
    let folder = tempfile::tempdir().expect("there is room for a temporary folder");
    let output = import(folder.path(), GUARDS, &["--override-max-keys", "1", "--override-max-chars", "30"]);
    assert!(output.status.success(), "{output:?}");
    Home::of(&folder.path().join("out")).start().await
}

#[tokio::test]
async fn approvers_quorums_and_personas_are_as_they_were() {
    let gateway = imported().await;
    // The requester may approve, as before.
    let simple = gateway.create(&Ask::new("restart").requester("U0ALICE")).await.expect("it is admitted");
    assert_eq!(gateway.click_refused(&Click::approve("U0CAROL", &simple.id)).await, "unauthorized");
    gateway.click_ok(&Click::approve("U0ALICE", &simple.id)).await;
    assert_eq!(gateway.ended(&simple.token).await["decisionParams"], json!({"ref": "v1.2.3", "replicas": 2}));

    let request = gateway.open("deploy_prod").await;
    assert_eq!(request.body["status"], "awaiting_personas");
    assert_eq!(request.body["policy"]["timeoutSec"], 900);
    assert_eq!(
        gateway.click_refused(&Click::acknowledge("security", "U0ALICE", &request.id)).await,
        "unauthorized"
    );
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    assert_eq!(gateway.click(&Click::approve("U0ALICE", &request.id)).await["ok"], false);
    gateway.click_ok(&Click::acknowledge("release", "U0BOB", &request.id)).await;
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(gateway.look(&request.token).await["status"], "ready_for_approval");
    gateway.click_ok(&Click::approve("U0ADMIN", &request.id)).await;
    assert_eq!(gateway.ended(&request.token).await["status"], "approved");

    // An action that is not listed is decided by super approvers.
    let unknown = gateway.open("something_else").await;
    assert_eq!(gateway.click_refused(&Click::approve("U0ALICE", &unknown.id)).await, "unauthorized");
    gateway.click_ok(&Click::approve("U0ADMIN", &unknown.id)).await;
    assert_eq!(gateway.ended(&unknown.token).await["status"], "approved");
}

#[tokio::test]
async fn redaction_edits_and_requests_made_again_are_as_they_were() {
    let gateway = imported().await;
    let params = json!({"replicas": 2, "zone": "a", "token": "hunter2hunter2"});
    let request = gateway.create(&Ask::new("deploy_prod").params(params)).await.expect("it is admitted");
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &request.id)).await;
    gateway.click_ok(&Click::acknowledge("release", "U0CAROL", &request.id)).await;

    for (inputs, said) in [
        (&[("replicas", "12")][..], "one to nine, please"),
        (&[("zone", "c")], "schema_validation"),
        (&[("replicas", "3"), ("zone", "b")], "limit_exceeded"),
        (&[("token", "x")], "key_not_allowed"),
    ] {
        let refused = gateway.click(&Click::edit("U0ALICE", &request.id, inputs)).await;
        assert!(refused.to_string().contains(said), "{inputs:?}: {refused}");
    }
    gateway.click_ok(&Click::edit("U0ALICE", &request.id, &[("replicas", "3")])).await;
    gateway.click_ok(&Click::deny("U0BOB", &request.id)).await;

    let again = gateway.rerequest_patiently(&request, "U0REQ").await;
    assert_eq!(again.body["lineageId"], request.id.as_str());
    gateway.click_ok(&Click::acknowledge("security", "U0SEC", &again.id)).await;
    gateway.click_ok(&Click::acknowledge("release", "U0CAROL", &again.id)).await;
    gateway.click_ok(&Click::edit("U0ALICE", &again.id, &[("replicas", "4")])).await;
    let edited = gateway.look(&again.token).await;
    gateway.click_ok(&Click::approve("U0BOB", &again.id).beside(&edited["payloadHash"])).await;
    let after = gateway.ended(&again.token).await;
    assert_eq!(after["decisionParams"], json!({"replicas": 4, "zone": "a", "token": "[redacted]"}));

    let simple = gateway.open("restart").await;
    gateway.click_ok(&Click::deny("U0BOB", &simple.id)).await;
    let refused = gateway.rerequest(&simple, "U0REQ").await.expect_err("it was never allowed");
    assert_eq!(refused.is(), (403, "not_allowed"));
}

#[tokio::test]
async fn an_escalation_asks_for_more_as_it_did() {
    let gateway = imported().await;
    let ask = Ask::new("migrate").params(json!({"name": "0042", "password": "hunter2hunter2"}));
    let request = gateway.create(&ask).await.expect("it is admitted");
    let mut stream = gateway.stream(&request.token).await;
    while gateway.metrics().await.count("escalations_total", &[("action", "migrate")]) == 0 {
        stream.state().await;
    }
    gateway.click_ok(&Click::approve("U0ALICE", &request.id)).await;
    assert_eq!(gateway.status(&request.id).await["minApprovals"], 2);
    gateway.click_ok(&Click::approve("U0BOB", &request.id)).await;
    let after = gateway.ended(&request.token).await;
    assert_eq!(after["decisionParams"], json!({"name": "0042", "password": "[redacted]"}));
}

#[test]
fn losses_are_listed_and_faults_stop_it() {
    let folder = tempfile::tempdir().expect("there is room for a temporary folder");
    let wrong = import(folder.path(), "actions:\n  a: { approvers: { allowSlackIds: [] } }\n", &[]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(said.contains("guards.yml:2:36: `allowSlackIds` is empty"), "{said}");
    assert!(!folder.path().join("out").exists(), "something was written");

    let output = import(folder.path(), GUARDS, &[]);
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains("3 actions"), "{printed}{said}");
    for line in [
        "guards.yml:8:23: anybody could acknowledge `release`",
        "guards.yml:13:20: edits of `deploy_prod` have no limit",
        "guards.yml:20:28: the parameters `reason` and `count` of unknown actions",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
}

/// The example of docs/MIGRATION.md is imported without a complaint, and a gateway would load what comes of it.
#[tokio::test]
async fn the_guide_of_the_migration_holds() {
    let page = fs::read_to_string(countersign_tests::project("docs/MIGRATION.md")).expect("there is a guide");
    let guards = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let folder = tempfile::tempdir().expect("there is room for a temporary folder");
    let output = import(folder.path(), guards.expect("it shows a file"), &[]);
    assert!(output.status.success(), "{output:?}");
    let out = folder.path().join("out").display().to_string();
    for words in [&["policy", "check", &out][..], &["policy", "judge", &out, "--action", "deploy_prod"]] {
        let output = countersign(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    let gateway = Home::of(&folder.path().join("out")).start().await;
    assert_eq!(gateway.look(&gateway.open("deploy_prod").await.token).await["status"], "awaiting_personas");
}
