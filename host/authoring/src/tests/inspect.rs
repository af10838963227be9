//! `policy inspect`.

use super::*;

/// Without the figures that change with every build.
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
fn a_module_as_text() {
    let folder = Workspace::new();
    let output = folder.policy(&["inspect", "./modules/quorum.wasm"]);
    assert_eq!(output.code, 0);
    insta::assert_snapshot!(steady(&output.text), @r#"
    quorum 0.1.0
    Approval by enough of the listed approvers, each counted once.

    file      modules/quorum.wasm
    digest    sha256:<digest>
    size      N bytes
    imports   none
    compiles  in N ms
    describe  N units of fuel

    configuration schema
      {
        "additionalProperties": false,
        "properties": {
          "approvals": {
            "default": 1,
            "description": "How many different approvers must approve.",
            "maximum": 1000,
            "minimum": 1,
            "type": "integer"
          },
          "approvers": {
            "description": "Who may approve and deny: ids, and @group names of the policy set.",
            "items": {
              "minLength": 1,
              "type": "string"
            },
            "minItems": 1,
            "type": "array",
            "uniqueItems": true
          },
          "escalated_approvals": {
            "description": "How many must approve once the request was escalated; not fewer than approvals.",
            "maximum": 1000,
            "minimum": 1,
            "type": "integer"
          },
          "requester_may_approve": {
            "default": false,
            "description": "May whoever made the request be one of them?",
            "type": "boolean"
          },
          "unknown_requester": {
            "default": false,
            "description": "May somebody ask whom nobody knows, although the requester may not approve?",
            "type": "boolean"
          }
        },
        "required": [
          "approvers"
        ],
        "type": "object"
      }

    reasons
      already_approved           Your approval stands already, and counts once.
      requester_may_not_approve  You made this request; somebody else has to approve it.
      requester_unknown          Nobody knows who you are, and you may not approve your own request: ask under a
                                   name that is known.
      denied_by_approver         One of the approvers denied the request.
      invalid_config             The policy's configuration is wrong; `path` says where.
      invalid_memo               What the policy remembered of the request cannot be read.
      invalid_event              The event lacks something that its act needs.
    "#);
}

#[test]
fn a_module_as_json() {
    let folder = Workspace::new();
    let output = folder.policy(&["inspect", "./modules/persona-gate.wasm", "--format", "json"]);
    let view: serde_json::Value = serde_json::from_str(&output.text).unwrap();
    assert_eq!(view["name"], "persona-gate");
    assert_eq!(view["imports"], serde_json::json!([]));
    assert_eq!(view["configSchema"]["required"], serde_json::json!(["personas"]));
    assert!(view["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == "personas_pending"));
    assert!(view["bytes"].as_u64().unwrap() > 1000 && view["describeFuel"].as_u64().unwrap() > 100);
}

#[test]
fn a_module_is_found_by_its_digest() {
    let folder = Workspace::new();
    let bytes = fs::read(folder.path().join("modules/quorum.wasm")).unwrap();
    let digest = countersign_core::lifecycle::Digest::of(&bytes).to_string();
    let pinned = format!("sha256:{digest}");
    folder.write("modules/copy.wasm", &bytes);
    for name in [digest.as_str(), pinned.as_str(), &digest[..8]] {
        let output = folder.policy(&["inspect", name, "--policies", "./", "--format", "digest"]);
        assert_eq!(output, Output { text: "sha256:<digest>\n".to_owned(), code: 0 }, "{name}");
    }
    has(
        &folder.policy(&["inspect", &"0".repeat(64), "--policies", "./"]),
        2,
        &["no module in `modules` has the digest"],
    );
    has(
        &folder.policy(&["inspect", "00000000", "--policies", "./none"]),
        2,
        &["cannot search `none/modules` for `00000000`"],
    );
    for short in ["b12f", "sha256:b12f", "0000000"] {
        let output = folder.policy(&["inspect", short, "--policies", "./"]);
        let expected = format!("`{short}` is not a file, and a digest needs at least 8 digits");
        has(&output, 2, &[&expected]);
    }
    has(&folder.policy(&["inspect", "quorum", "--policies", "./"]), 2, &["cannot read `quorum`"]);
}

#[test]
fn other_files_are_refused() {
    let folder = Workspace::new();
    let importing = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#;
    folder.write("clock.wasm", wat::parse_str(importing).unwrap());
    folder.write("core.wasm", wat::parse_str("(module)").unwrap());
    folder.write("large.wasm", vec![0; 3 << 20]);
    has(
        &folder.policy(&["inspect", "./clock.wasm"]),
        1,
        &["imports  wasi:clocks/wall-clock@0.2.0", "refused: it imports", "may import nothing"],
    );
    let json = folder.policy(&["inspect", "./clock.wasm", "--format", "json"]);
    has(&json, 1, &["\"refused\": \"it imports", "\"wasi:clocks/wall-clock@0.2.0\""]);
    has(&folder.policy(&["inspect", "./core.wasm"]), 1, &["refused: it is a core WebAssembly module"]);
    has(
        &folder.policy(&["inspect", "./core.wasm", "--format", "digest"]),
        2,
        &["`core.wasm` is not a policy module"],
    );
    has(
        &folder.policy(&["inspect", "./large.wasm"]),
        2,
        &["cannot read `large.wasm`: it has more than 2097152 bytes"],
    );
}
