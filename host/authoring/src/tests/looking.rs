//! `policy inspect` and `policy check`.

use super::*;

/// With the figures left out that change with every build.
fn steady(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split("  ").collect();
        match words.as_slice() {
            ["size", ..] => "size      N bytes".to_owned(),
            ["compiles", ..] => "compiles  in N ms".to_owned(),
            ["describe", ..] => "describe  N units of fuel".to_owned(),
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_module_is_described_for_people() {
    let folder = Folder::new();
    let said = folder.policy(&["inspect", "./modules/quorum.wasm"]);
    assert_eq!(said.code, 0);
    insta::assert_snapshot!(steady(&said.text), @"
    quorum 0.1.0
    Approval by enough of the listed approvers, each counted once.

    file      modules/quorum.wasm
    digest    sha256:<digest>
    size      N bytes
    imports   none
    compiles  in N ms
    describe  N units of fuel

    configuration
      approvals: whole number, 1 to 1000, 1 where it is left out
          How many different approvers must approve.
      approvers: list of (text, at least 1 character), at least 1 entry, all different, required
          Who may approve and deny: ids, and @group names of the policy set.
      escalated_approvals: whole number, 1 to 1000, optional
          How many must approve once the request was escalated; not fewer than approvals.
      requester_may_approve: true or false, false where it is left out
          May whoever made the request be one of them?

    reasons
      already_approved           Your approval stands already, and counts once.
      requester_may_not_approve  You made this request; somebody else has to approve it.
      denied_by_approver         One of the approvers denied the request.
      invalid_config             The policy's configuration is wrong; `path` says where.
      invalid_memo               What the policy remembered of the request cannot be read.
      invalid_event              The event lacks something that its act needs.
    ");
}

/// What no gateway with these limits would load is no sound set.
#[test]
fn a_set_is_checked_with_the_gateways_limits() {
    let folder = Folder::new();
    folder.write_set("  deploy:\n    policies: [{ use: quorum, with: { approvers: [U1] } }]\n");
    has(&folder.policy(&["check", "."]), 2, &["there is no policy set at `./policy-set.yaml`"]);
    has(&folder.policy(&["check", "./policy-set.yaml"]), 0, &["sound: 1 action"]);
    let small = ["check", "./policy-set.yaml", "--policy-module-kib", "100"];
    has(&folder.policy(&small), 1, &["has more than the 102400 bytes that a policy module may have"]);
}

#[test]
fn a_set_is_packed_for_http() {
    let folder = Folder::new();
    folder.write_set("  deploy:\n    policies: [{ use: quorum, with: { approvers: [U1] } }]\n");
    folder.write("schemas/deploy.json", SCHEMA);
    folder.write("policy-set.yaml.sig", "# Ada\n");
    let said = folder.policy(&["pack", "./policy-set.yaml"]);
    assert_eq!(said.code, 0);
    let packed: serde_json::Value = serde_json::from_str(&said.text).unwrap();
    assert_eq!(packed["schemas"]["deploy"], serde_json::from_str::<serde_json::Value>(SCHEMA).unwrap());
    assert_eq!(packed["signatures"], "# Ada\n");
    assert!(packed["document"].as_str().unwrap().starts_with("version: 1\n"), "{packed}");
    folder.write("schemas/deploy.json", "{");
    has(&folder.policy(&["pack", "./policy-set.yaml"]), 2, &["schemas/deploy.json` is no JSON"]);
}

#[test]
fn a_module_is_described_for_machines() {
    let folder = Folder::new();
    let said = folder.policy(&["inspect", "./modules/persona-gate.wasm", "--format", "json"]);
    let view: serde_json::Value = serde_json::from_str(&said.text).unwrap();
    assert_eq!(view["name"], "persona-gate");
    assert_eq!(view["imports"], serde_json::json!([]));
    assert_eq!(view["configSchema"]["required"], serde_json::json!(["personas"]));
    assert!(view["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == "personas_pending"));
    assert!(view["bytes"].as_u64().unwrap() > 1000 && view["describeFuel"].as_u64().unwrap() > 100);
}

#[test]
fn a_module_is_found_by_its_digest() {
    let folder = Folder::new();
    let bytes = fs::read(folder.path().join("modules/quorum.wasm")).unwrap();
    let digest = countersign_core::lifecycle::Digest::of(&bytes).to_string();
    let pinned = format!("sha256:{digest}");
    folder.write("modules/copy.wasm", &bytes);
    for name in [digest.as_str(), pinned.as_str(), &digest[..8]] {
        let said = folder.policy(&["inspect", name, "--policies", "./", "--format", "digest"]);
        assert_eq!(said, Said { text: "sha256:<digest>\n".to_owned(), code: 0 }, "{name}");
    }
    has(
        &folder.policy(&["inspect", &"0".repeat(64), "--policies", "./"]),
        2,
        &["no module in `modules` has the digest"],
    );
    has(
        &folder.policy(&["inspect", "00000000", "--policies", "./none"]),
        2,
        &["cannot look for `00000000` in `none/modules`"],
    );
    for short in ["b12f", "sha256:b12f", "0000000"] {
        let said = folder.policy(&["inspect", short, "--policies", "./"]);
        let expected = format!("`{short}` is no file, and a digest is named by its first 8 digits or more");
        has(&said, 2, &[&expected]);
    }
    has(&folder.policy(&["inspect", "quorum", "--policies", "./"]), 2, &["cannot read `quorum`"]);
}

#[test]
fn what_is_no_policy_is_said_to_be_none() {
    let folder = Folder::new();
    let importing = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#;
    folder.write("clock.wasm", wat::parse_str(importing).unwrap());
    folder.write("core.wasm", wat::parse_str("(module)").unwrap());
    folder.write("large.wasm", vec![0; 3 << 20]);
    has(
        &folder.policy(&["inspect", "./clock.wasm"]),
        1,
        &["imports  wasi:clocks/wall-clock@0.2.0", "it is refused: it imports", "may import nothing"],
    );
    let json = folder.policy(&["inspect", "./clock.wasm", "--format", "json"]);
    has(&json, 1, &["\"refused\": \"it imports", "\"wasi:clocks/wall-clock@0.2.0\""]);
    has(&folder.policy(&["inspect", "./core.wasm"]), 1, &["it is refused: it is a core WebAssembly module"]);
    has(
        &folder.policy(&["inspect", "./core.wasm", "--format", "digest"]),
        2,
        &["`core.wasm` is no policy module"],
    );
    has(
        &folder.policy(&["inspect", "./large.wasm"]),
        2,
        &["cannot read `large.wasm`: it has more than 2097152 bytes"],
    );
}

const SOUND: &str = r#"  deploy:
    redact: { show: [replicas] }
    policies:
      - use: quorum
        with: { approvers: [U1, "@managers"], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas] }
  rotate:
    policies: [{ use: quorum, with: { approvers: [U1] } }]
"#;

#[test]
fn a_sound_set_is_said_to_be_sound() {
    let folder = Folder::new();
    folder.write_set(SOUND);
    for set in ["./", "./policy-set.yaml"] {
        let said = folder.policy(&["check", set]);
        assert_eq!(said.code, 0, "{}", said.text);
        insta::allow_duplicates! { insta::assert_snapshot!(said.text, @"
    sound: 2 actions, each tried with a made-up request

      action  policies                policy hash
      deploy  quorum, override-guard  <digest>
      rotate  quorum                  <digest>

    hash of the set: <digest>
    ") }
    }
    let json: serde_json::Value =
        serde_json::from_str(&folder.policy(&["check", "./", "--format", "json"]).text).unwrap();
    assert_eq!(json["sound"], true);
    assert_eq!(json["actions"][0]["action"], "deploy");
    assert_eq!(json["actions"][0]["policies"][1]["use"], "override-guard");
    assert_eq!(json["errors"], serde_json::json!([]));
}

#[test]
fn a_channel_that_cannot_be_searched_is_warned_of_once() {
    let folder = Folder::new();
    let escalate = "escalate: { before: 1m, channel: deploys }";
    folder.write_set(
        &SOUND
            .replace("redact:", &format!("channel: C0DEPLOYS\n    {escalate}\n    redact:"))
            .replace("rotate:", "rotate:\n    channel: deploys"),
    );
    let said = folder.policy(&["check", "./"]);
    assert_eq!(said.code, 0, "{}", said.text);
    let (_, warnings) = said.text.split_once("hash of the set: <digest>\n").unwrap();
    let expected = "warning: `deploys` is not the id of a channel (`C…`, `G…` or `D…`): \
        a message there that Slack does not confirm cannot be looked for, and may be posted twice\n";
    assert_eq!(warnings, expected);
    let json: serde_json::Value =
        serde_json::from_str(&folder.policy(&["check", "./", "--format", "json"]).text).unwrap();
    assert_eq!((&json["sound"], json["warnings"].as_array().unwrap().len()), (&true.into(), 1));
}

#[test]
fn every_fault_has_its_place_and_its_pointer() {
    let folder = Folder::new();
    folder.write_set(
        &SOUND
            .replace("approvals: 2", "approvals: 2000")
            .replace("keys: [replicas]", "keys: [replicas], max_keys: 2")
            .replace("use: quorum, with: { approvers: [U1] }", "use: quorom, with: { approvers: [U1] }"),
    );
    folder.write("schemas/deplo.json", SCHEMA);
    let said = folder.policy(&["check", "./"]);
    assert_eq!(said.code, 1);
    insta::assert_snapshot!(said.text, @"
    policy-set.yaml:16:58: configuration of `quorum` at `/approvals`: 2000 is greater than the maximum of 1000
    policy-set.yaml:20:23: `quorom` names no module of `modules`; did you mean `quorum`?
    schemas/deplo.json: there is no action `deplo` to use this schema; did you mean `deploy`?

    3 faults found; a gateway would not load this set
    ");
    insta::assert_snapshot!(folder.policy(&["check", "./", "--format", "json"]).text, @r#"
    {
      "sound": false,
      "actions": [],
      "errors": [
        {
          "file": "policy-set.yaml",
          "line": 16,
          "column": 58,
          "pointer": "/approvals",
          "message": "configuration of `quorum` at `/approvals`: 2000 is greater than the maximum of 1000"
        },
        {
          "file": "policy-set.yaml",
          "line": 20,
          "column": 23,
          "message": "`quorom` names no module of `modules`; did you mean `quorum`?"
        },
        {
          "file": "schemas/deplo.json",
          "message": "there is no action `deplo` to use this schema; did you mean `deploy`?"
        }
      ]
    }
    "#);
}

#[test]
fn a_group_that_is_not_there_has_its_pointer() {
    let folder = Folder::new();
    folder.write_set(&SOUND.replace("@managers", "@managrs"));
    let said = folder.policy(&["check", "./", "--format", "json"]);
    let view: serde_json::Value = serde_json::from_str(&said.text).unwrap();
    let message = "at `/approvers/1`: `@managrs` names no group of `groups`; did you mean `managers`?";
    assert_eq!(
        (&view["errors"][0]["message"], &view["errors"][0]["pointer"]),
        (&message.into(), &"/approvers/1".into())
    );
}

#[test]
fn a_replay_takes_a_set_as_a_check_does() {
    let folder = Folder::new();
    folder.write_set(SOUND);
    let path = folder.path().join("store.db");
    let store = format!("sqlite:{}", path.display());
    let replay = |since: &str, set: &str| {
        folder.policy(&["replay", "--since", since, "--set", set, "--store", &store])
    };
    let said = replay("30d", "./");
    assert_eq!(said.text.matches("No such file").count(), 1, "{}", said.text);
    has(&said, 2, &["cannot open the database `store.db`: No such file"]);

    drop(countersign_store::SqliteStore::open(&path).unwrap());
    for set in ["./", "./policy-set.yaml"] {
        has(&replay("30d", set), 0, &["0 requests since ", "the same: 0"]);
    }
    let said = replay("2026-11-01", "./");
    has(&said, 2, &["'2026-11-01'", "how far back to go is a duration such as `30d`"]);
    assert!(!said.text.contains("invalid character"), "{}", said.text);
}

#[test]
fn a_set_that_is_not_there() {
    let folder = Folder::new();
    has(&folder.policy(&["check", "./none"]), 2, &["there is no policy set at `none/policy-set.yaml`"]);
    has(
        &folder.policy(&["check", "./modules/quorum.wasm"]),
        2,
        &["there is no policy set at `modules/quorum.wasm/policy-set.yaml`"],
    );
}
