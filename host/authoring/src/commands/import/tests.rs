//! Imports of valid and invalid legacy files.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use countersign_policy::Limits;

use super::*;

/// The folder with the modules of this Cargo workspace.
fn modules() -> PathBuf {
    countersign_test_modules::folder().join("modules")
}

/// One engine for all tests. It keeps the modules, so that each is compiled once.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<(Engine, Vec<Arc<Module>>)> = OnceLock::new();
    let (engine, _) = ENGINE.get_or_init(|| {
        let engine = Engine::new(Limits::default(), None, countersign_policy::Trust::default()).unwrap();
        let files = fs::read_dir(modules()).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
        let modules = files.map(|bytes| engine.load(&bytes, &[]).unwrap()).collect();
        (engine, modules)
    });
    engine
}

/// An import in a temporary folder.
struct Trial {
    folder: tempfile::TempDir,
    import: Import,
}

impl Trial {
    fn of(guards: &str, schemas: &[(&str, &str)]) -> Trial {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("guards.yml"), guards).unwrap();
        fs::create_dir(path("schemas")).unwrap();
        for (name, text) in schemas {
            fs::write(path("schemas").join(name), text).unwrap();
        }
        let import = Import {
            guards: path("guards.yml"),
            schemas: Some(path("schemas")),
            modules: modules(),
            out: path("out"),
            override_max_keys: None,
            override_max_chars: None,
        };
        Trial { folder, import }
    }

    fn import(&self) -> Result<Imported> {
        import_set(&self.import, engine())
    }

    /// The error of an import that must fail, without the folder's path.
    fn error(&self) -> String {
        let error = match self.import() {
            Ok(_) => panic!("it was imported: {}", self.written("policy-set.yaml")),
            Err(error) => format!("{error:#}"),
        };
        assert!(!self.import.out.exists(), "something was written");
        error.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn written(&self, file: &str) -> String {
        fs::read_to_string(self.import.out.join(file)).unwrap()
    }

    /// The notes of an import that must succeed.
    fn notes(&self) -> Vec<String> {
        let imported = self.import().unwrap_or_else(|error| panic!("{error:#}"));
        imported.notes.iter().map(|note| note.with_name("guards.yml")).collect()
    }
}

const FULL: &str = r#"actions:
  install_packages:
    description: "Install npm packages: everywhere"
    approvers:
      allowSlackIds: [U1, U2]
      minApprovals: 1
    redactParams: { mode: allowlist, keys: [packages, scope] }
  deploy_prod:
    description: Deploy to production
    approvers: { allowSlackIds: [U1, U2, U3], minApprovals: 2 }
    personasRequired: [security, release]
    timeoutSec: 1200
    redactParams: { mode: denylist, keys: [token] }
    channel: C0PROD
    escalation: { escalateBeforeSec: 300, escalationChannel: C0ONCALL, fallbackUser: U0LEAD, escalateMinApprovals: 3 }
    allowReRequest: true
    reRequestCooldownSec: 60
    allowParamOverrides: true
    overrideKeys: [replicas, ref, token]
  rotate_secret:
    approvers: { minApprovals: 2 }
    redactParams: { mode: all }
    escalation: { escalateBeforeSec: 60 }
routing: { defaultChannel: C0PRIVATE, dmFallbackUser: U0FALLBACK, defaultTimeoutSec: 900 }
defaults: { unknownAction: manual, superApprovers: [U0ADMIN, U0ROOT] }
personas:
  security: [U0SEC]
  legal: [U0LAW]
"#;

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "replicas": { "type": "number", "min": 1, "max": 9, "multipleOf": 1, "errorMessage": "one to nine" },
    "region": { "type": "string", "enum": ["a", "b"] }
  },
  "additionalProperties": false
}"#;

#[test]
fn a_full_file_is_carried_over() {
    let mut trial = Trial::of(FULL, &[("deploy_prod.json", SCHEMA), ("gone.json", "{}")]);
    trial.import.override_max_keys = Some(5);
    trial.import.override_max_chars = Some(40);
    let notes = trial.notes();
    let set = trial.written("policy-set.yaml");
    insta::assert_snapshot!(without_digests(&set));
    insta::assert_snapshot!(trial.written("schemas/deploy_prod.json"));
    assert!(notes.iter().all(|note| set.contains(&format!("\n# - {note}\n"))), "{notes:?}");
    assert!(!trial.import.out.join("schemas/gone.json").exists());

    // It is written as it was checked: it loads again from the disk.
    let loaded = PolicySet::load(&trial.import.out, engine()).unwrap();
    assert_eq!(loaded.actions().len(), 3);
}

/// The policy set without digests.
fn without_digests(set: &str) -> String {
    let lines = set.lines().map(|line| match line.split_once("sha256:") {
        Some((before, digest)) if digest.len() == 64 => format!("{before}sha256:…"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_small_file_loses_nothing_and_says_so() {
    let mut trial = Trial::of("actions: { a: { approvers: { allowSlackIds: [U1], minApprovals: 1 } } }", &[]);
    assert!(trial.notes().is_empty());
    let set = trial.written("policy-set.yaml");
    trial.import.out = trial.folder.path().join("again");
    let output = run(&trial.import, engine()).unwrap().text;
    assert!(output.contains("policy-set.yaml: 1 action, sha256:"), "{output}");
    assert!(set.contains("\n# Everything was carried over.\n"), "{set}");
    assert!(set.contains("    redact: { hide: [] } # every parameter is stored and shown\n"), "{set}");
    assert!(!set.contains("persona-gate") && !set.contains("override-guard"), "{set}");
}

/// One action with these fields after its approvers.
fn action(fields: &str) -> String {
    format!("actions:\n  a:\n    approvers: {{ allowSlackIds: [U1, U2], minApprovals: 1 }}\n{fields}")
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let wrong_approvers = |approvers: &str| format!("actions:\n  a:\n    approvers: {approvers}\n");
    let rows = [
        // The document.
        (String::new(), "a guards file must be a map, but is nothing"),
        ("actions: [".to_owned(), "guards.yml:1:"),
        (
            "action: {}\n".to_owned(),
            "guards.yml:1:1: a guards file has no field `action`: it had no effect, and is dropped; did you mean \
             `actions`?",
        ),
        ("routing: {}\n".to_owned(), "`actions` is missing"),
        ("actions: []\n".to_owned(), "guards.yml:1:10: `actions` must be a map, but is a list"),
        ("actions: {}\nactions: {}\n".to_owned(), "guards.yml:2:1: "),
        ("actions: { \"two words\": {} }\n".to_owned(), "guards.yml:1:12: `two words` cannot name an action"),
        // Approvers.
        ("actions:\n  a: {}\n".to_owned(), "guards.yml:2:3: the action `a` has no `approvers`"),
        (wrong_approvers("{ minApprovals: 1 }"), "guards.yml:3:16: nobody can approve"),
        (
            wrong_approvers("{ allowSlackIds: [], minApprovals: 1 }"),
            "guards.yml:3:33: `allowSlackIds` is empty",
        ),
        (
            wrong_approvers("{ allowSlackIds: U1, minApprovals: 1 }"),
            "guards.yml:3:33: `allowSlackIds` must be a list",
        ),
        (
            wrong_approvers("{ allowSlackIds: [7], minApprovals: 1 }"),
            "guards.yml:3:34: an entry must be text: put it in quotes",
        ),
        (
            wrong_approvers("{ allowSlackIds: [\"@all\"], minApprovals: 1 }"),
            "guards.yml:3:34: `@all` is not a Slack id",
        ),
        (wrong_approvers("{ allowSlackIds: [\"\"], minApprovals: 1 }"), "guards.yml:3:34: an entry is empty"),
        (wrong_approvers("{ allowSlackIds: [U1] }"), "guards.yml:3:16: `minApprovals` is missing"),
        (
            wrong_approvers("{ allowSlackIds: [U1], minApprovals: 0 }"),
            "guards.yml:3:53: `minApprovals` must be a whole number from 1 to 1000",
        ),
        (
            wrong_approvers("{ allowSlackIds: [U1], minApprovals: \"1\" }"),
            "guards.yml:3:53: `minApprovals` must be a whole number",
        ),
        (
            wrong_approvers("{ allowSlackIds: [U1, U1], minApprovals: 2 }"),
            "guards.yml:3:57: 2 approvals cannot come from 1 approvers",
        ),
        (
            wrong_approvers("{ allowSlackIDs: [U1], minApprovals: 1 }"),
            "`approvers` has no field `allowSlackIDs`: it had no effect, and is dropped; did you mean `allowSlackIds`?",
        ),
        (
            wrong_approvers("{ allowSlackIds: [U1], minApproval: 2 }"),
            "guards.yml:3:39: `approvers` has no field `minApproval`: it had no effect, and is dropped; did you mean \
             `minApprovals`?",
        ),
        // The other fields.
        (
            action("    timeoutSec: 1.5\n"),
            "guards.yml:4:17: `timeoutSec` must be a whole number from 1 to 2592000",
        ),
        (action("    timeoutSec: 10m\n"), "guards.yml:4:17: "),
        (action("    description: 7\n"), "guards.yml:4:18: `description` must be text: put it in quotes"),
        (action("    channel:\n"), "`channel` must be text, but is nothing"),
        (action("    personasRequired: []\n"), "guards.yml:4:23: `personasRequired` is empty"),
        (action("    personasRequired: [\" x\"]\n"), "guards.yml:4:24: ` x` cannot name a persona"),
        (
            action("    personasRequired: security\n"),
            "guards.yml:4:23: `personasRequired` must be a list, but is text",
        ),
        (action("    redactParams: { keys: [a] }\n"), "guards.yml:4:19: `mode` is missing"),
        (
            action("    redactParams: { mode: hide, keys: [a] }\n"),
            "guards.yml:4:27: `mode` must be `allowlist`, `denylist` or `all`, not `hide`",
        ),
        (action("    redactParams: { mode: denylist, keys: [] }\n"), "guards.yml:4:43: `keys` is empty"),
        (
            action("    allowReRequest: yes\n"),
            "guards.yml:4:21: `allowReRequest` must be `true` or `false`, but is text",
        ),
        (
            action("    allowParamOverrides: true\n    overrideKeys: []\n"),
            "guards.yml:5:19: `overrideKeys` is empty",
        ),
        (action("    escalation: {}\n"), "guards.yml:4:17: `escalateBeforeSec` is missing"),
        (action("    escalation: { afterSec: 60 }\n"), "guards.yml:4:17: `escalateBeforeSec` is missing"),
        (
            action("    escalation: { afterSec: 60 }\n"),
            "guards.yml:4:19: `escalation` has no field `afterSec`",
        ),
        (
            action("    escalation: { escalateBeforeSec: 600 }\n"),
            "guards.yml:4:38: `escalateBeforeSec` must be lower than the timeout, 600 s",
        ),
        (
            action("    escalation: { escalateBeforeSec: 60, escalateMinApprovals: 3 }\n"),
            "guards.yml:4:64: 3 approvals cannot come from 2 approvers",
        ),
        (
            action("defaults: { unknownAction: allow }\n"),
            "guards.yml:4:28: `unknownAction` must be `deny` or `manual`, not `allow`",
        ),
        (action("defaults: { superApprovers: [] }\n"), "guards.yml:4:29: `superApprovers` is empty"),
        (
            action("routing: { defaultTimeoutSec: 0 }\n"),
            "guards.yml:4:31: `defaultTimeoutSec` must be a whole number",
        ),
        (action("personas: { security: [] }\n"), "guards.yml:4:23: the persona `security` is empty"),
    ];
    for (guards, expected) in rows {
        let error = Trial::of(&guards, &[]).error();
        assert!(error.contains(expected), "{guards}\nexpected: {expected}\nseen: {error}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let error = Trial::of("actions:\n  a: { approvers: {} }\n  b: { timeoutSec: x }\n", &[]).error();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines.len() >= 4 && lines.iter().all(|line| line.starts_with("guards.yml:")), "{error}");
}

#[test]
fn what_is_lost_is_said_with_its_line() {
    let rows = [
        (action("    reRequestCooldownSec: 60\n"), vec!["guards.yml:4:27: `reRequestCooldownSec` had no effect"]),
        (action("    overrideKeys: [x]\n"), vec!["guards.yml:4:19: `overrideKeys` had no effect"]),
        (
            action("    personasRequired: [qa, \"the boss\"]\n"),
            vec!["guards.yml:4:23: anybody could acknowledge `qa` and `the boss`; here the approvers of `a` can"],
        ),
        (action("routing: { dmFallbackUser: U9 }\n"), vec!["guards.yml:4:28: `dmFallbackUser` is dropped"]),
        (
            action("    notifyByCarrierPigeon: true\nversion: 1\n"),
            vec![
                "guards.yml:4:5: the action `a` has no field `notifyByCarrierPigeon`: it had no effect, and is dropped",
                "guards.yml:5:1: a guards file has no field `version`: it had no effect, and is dropped",
            ],
        ),
        (
            action("    redactParam: { mode: allowlist, keys: [x] }\n"),
            vec![
                "guards.yml:4:5: the action `a` has no field `redactParam`: it had no effect, and is dropped; did you \
                 mean `redactParams`?",
            ],
        ),
        (
            action("    escalation: { escalateBeforeSec: 60, escalateMinApproval: 2 }\nrouting: { defaultChanel: C1 }\n\
                    defaults: { superApprover: [U9] }\n"),
            vec![
                "guards.yml:4:42: `escalation` has no field `escalateMinApproval`: it had no effect, and is dropped; did \
                 you mean `escalateMinApprovals`?",
                "guards.yml:5:12: `routing` has no field `defaultChanel`: it had no effect, and is dropped; did you mean \
                 `defaultChannel`?",
                "guards.yml:6:13: `defaults` has no field `superApprover`: it had no effect, and is dropped; did you \
                 mean `superApprovers`?",
            ],
        ),
        (action("defaults: { unknownAction: manual }\n"), vec!["guards.yml:4:28: `manual` without `superApprovers`"]),
        (action("personas: { qa: [U1] }\n"), vec!["guards.yml:4:13: no action requires the persona `qa`"]),
        (
            action("    allowParamOverrides: true\n    overrideKeys: [x, y]\n    redactParams: { mode: allowlist, keys: [x] }\n"),
            vec!["guards.yml:5:20: edits of `a` have no limit", "guards.yml:5:23: `y` is redacted"],
        ),
        (
            "actions:\n  a:\n    approvers: { allowHandles: [alice], minApprovals: 1 }\ndefaults: { superApprovers: [U1] }\n".to_owned(),
            vec!["guards.yml:3:32: `allowHandles` is dropped"],
        ),
    ];
    for (guards, expected) in rows {
        let trial = Trial::of(&guards, &[]);
        let notes = trial.notes();
        assert_eq!(notes.len(), expected.len(), "{guards}: {notes:?}");
        let set = trial.written("policy-set.yaml");
        for (note, expected) in notes.iter().zip(expected) {
            assert!(note.starts_with(expected), "{guards}\nexpected: {expected}\nseen: {note}");
            assert!(set.contains(&format!("\n# - {note}\n")), "the file does not say it: {set}");
        }
    }
}

#[test]
fn rules_that_need_care_load() {
    for (fields, expected) in [
        // Only together with super approvers are there enough.
        (
            "    escalation: { escalateBeforeSec: 60, escalateMinApprovals: 3 }\ndefaults: { superApprovers: [U9] }\n",
            "approvers: [U1, U2, \"@super-approvers\"], approvals: 1, requester_may_approve: true, escalated_approvals: 3",
        ),
        // A cooldown longer than the legacy service's window of one day.
        (
            "    allowReRequest: true\n    reRequestCooldownSec: 90000\n",
            "rerequest: { cooldown: 1d 1h, limit: 6, window: 2d 2h }",
        ),
        ("    allowReRequest: true\n", "rerequest: { cooldown: 0s, limit: 6, window: 1d }"),
        (
            "    allowReRequest: false\n",
            "    redact: { hide: [] } # every parameter is stored and shown\n    policies:",
        ),
        ("    description: \"yes\"\n", "description: \"yes\""),
        ("    description: \"a\\nb: # c\"\n", "description: \"a\\u000ab: # c\""),
        ("    redactParams: { mode: allowlist }\n", "redact: { show: [] }"),
    ] {
        let trial = Trial::of(&action(fields), &[]);
        trial.notes();
        let set = trial.written("policy-set.yaml");
        assert!(set.contains(expected), "{fields}\nexpected: {expected}\nseen: {set}");
    }
}

#[test]
fn a_comment_cannot_be_left_by_what_the_file_says() {
    let guards = action(
        "    allowParamOverrides: true\n    overrideKeys: [\"x\\nactions: {}\"]\n    redactParams: { mode: allowlist, keys: [z] }\n",
    );
    let trial = Trial::of(&guards, &[]);
    let notes = trial.notes();
    assert!(notes[0].contains("x\nactions"), "{notes:?}");
    assert!(trial.written("policy-set.yaml").contains("`x actions: {}` is redacted"));
}

#[test]
fn schemas_keep_their_meaning() {
    let guards = action("    allowParamOverrides: true\n    overrideKeys: [n]\n");
    let convert = |schema: &str| {
        let trial = Trial::of(&guards, &[("a.json", schema)]);
        let notes: Vec<String> =
            trial.notes().into_iter().filter(|note| note.starts_with("a.json")).collect();
        let written: serde_json::Value = serde_json::from_str(&trial.written("schemas/a.json")).unwrap();
        (written["properties"]["n"].to_string(), notes.join("\n"))
    };
    for (property, written, note) in [
        (r#"{"type":"number","min":1,"max":9}"#, r#"{"maximum":9,"minimum":1,"type":"number"}"#, ""),
        (
            r#"{"min":1,"minimum":5}"#,
            r#"{"minimum":1}"#,
            "a.json: `min` of `n` was enforced and `minimum` was not; `minimum` is dropped",
        ),
        (
            r#"{"minimum":5}"#,
            r#"{"minimum":5}"#,
            "a.json: `minimum` of `n` was not enforced; it is enforced now",
        ),
        (r#"{"min":"1"}"#, "{}", "a.json: `min` of `n` is not a number; it is dropped"),
        (
            r#"{"type":"integer"}"#,
            r#"{"type":"integer"}"#,
            "a.json: `type` of `n` was not enforced; it is enforced now",
        ),
        (
            r#"{"errorMessage":{"type":"x"}}"#,
            "{}",
            "a.json: `errorMessage` of `n` is not text; it is dropped",
        ),
        (r#"{"title":"x","enum":[1]}"#, r#"{"enum":[1],"title":"x"}"#, ""),
        (
            r#"{"format":"ipv4"}"#,
            r#"{"format":"ipv4"}"#,
            "a.json: `format` of `n` was not enforced; it is enforced now",
        ),
        (
            r#"{"format":"cidr"}"#,
            "{}",
            "a.json: `format` of `n` is \"cidr\", which cannot be checked; it is dropped",
        ),
    ] {
        let schema = format!(
            r#"{{"type":"object","$schema":"http://json-schema.org/draft-07/schema#","properties":{{"n":{property}}}}}"#
        );
        assert_eq!(convert(&schema), (written.to_owned(), note.to_owned()), "{property}");
    }
    let (_, notes) = convert(r#"{"properties":{"m":{}},"additionalProperties":false}"#);
    assert_eq!(notes.lines().count(), 2, "{notes}");
}

#[test]
fn a_schema_that_is_none_stops_it() {
    for (schema, expected) in [
        ("{", "the schema `schemas/a.json`: malformed JSON: EOF while parsing"),
        (r#"{"a":1.00000000000000000001}"#, "the schema `schemas/a.json`: `a`: this number is not exactly"),
        ("[]", "the schema `schemas/a.json`: it is not an object"),
        (
            r#"{"type":"object","properties":{"n":{"pattern":"["}}}"#,
            "the converted policy set does not load, so nothing was written",
        ),
    ] {
        let error = Trial::of(&action(""), &[("a.json", schema)]).error();
        assert!(error.contains(expected), "{schema}: {error}");
    }
}

#[test]
fn nothing_is_overwritten_and_a_missing_module_is_named() {
    let mut trial = Trial::of(&action(""), &[]);
    trial.import().unwrap_or_else(|error| panic!("{error:#}"));
    let Err(again) = trial.import() else { panic!("it was overwritten") };
    assert!(format!("{again:#}").contains("is not empty"), "{again:#}");

    let empty = trial.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    trial.import.modules = empty;
    trial.import.out = trial.folder.path().join("other");
    assert!(trial.error().starts_with("no module in `empty` has the name `quorum`"));
}
