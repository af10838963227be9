//! Policy sets: a sound one, and everything that can be wrong with one.

use std::collections::BTreeSet;
use std::fs;

use countersign_core::lifecycle::{Consent, UseTerms};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{LoadErrors, Pins, Policies, PolicySet, RestoreError, Stored};

/// A set's folder with every module of the workspace; `{quorum}` and so on in `yaml` are their digests.
pub(super) struct Folder(TempDir);

const MODULES: [&str; 4] = ["quorum", "persona-gate", "override-guard", "misbehaving"];

impl Folder {
    pub(super) fn new(yaml: &str) -> Folder {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("modules")).unwrap();
        fs::create_dir_all(dir.path().join("schemas")).unwrap();
        let mut yaml = yaml.to_owned();
        for name in MODULES {
            let bytes = bytes_of(name);
            yaml = yaml.replace(&format!("{{{name}}}"), &format!("sha256:{}", Digest::of(&bytes)));
            fs::write(dir.path().join(format!("modules/{name}.wasm")), bytes).unwrap();
        }
        fs::write(dir.path().join("policy-set.yaml"), yaml).unwrap();
        Folder(dir)
    }

    pub(super) fn write(self, file: &str, content: impl AsRef<[u8]>) -> Folder {
        fs::write(self.0.path().join(file), content).unwrap();
        self
    }

    fn remove(self, file: &str) -> Folder {
        fs::remove_file(self.0.path().join(file)).unwrap();
        self
    }

    pub(super) fn load(&self, engine: &Engine) -> Result<PolicySet, LoadErrors> {
        PolicySet::load(self.0.path(), engine)
    }

    /// What loading it reports, with the folder's name left out.
    #[track_caller]
    fn errors(&self) -> String {
        let text = self.load(&engine()).expect_err("it was loaded").to_string();
        text.replace(&format!("{}/", self.0.path().display()), "")
    }

    /// That loading it reports exactly these lines, each of which may end early with `…`.
    #[track_caller]
    fn check(&self, expected: &[&str]) {
        let errors = self.errors();
        let lines: Vec<&str> = errors.lines().collect();
        let same = |(line, expected): (&&str, &&str)| match expected.strip_suffix('…') {
            Some(beginning) => line.starts_with(beginning),
            None => line == expected,
        };
        assert!(
            lines.len() == expected.len() && lines.iter().zip(expected).all(same),
            "expected:\n{}\nseen:\n{errors}",
            expected.join("\n")
        );
    }
}

/// A sound set; the tests break it in one place each.
const SOUND: &str = r#"version: 1
modules:
  quorum: "{quorum}"
  override-guard: "{override-guard}"
groups:
  admins: [U0ADMIN]
defaults: { timeout: 10m, channel: C0, unknown_action: deny }
actions:
  deploy:
    timeout: 20m
    escalate: { before: 5m, mention: "@admins" }
    redact: { show: [replicas] }
    rerequest: { cooldown: 5m, limit: 5, window: 24h }
    policies:
      - use: quorum
        with: { approvers: [U1, "@admins"], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas], max_keys: 1, max_chars: 40 }
"#;

/// The sound set with one text replaced.
#[track_caller]
fn broken(from: &str, to: &str) -> Folder {
    assert_eq!(SOUND.matches(from).count(), 1, "`{from}` is not there once");
    Folder::new(&SOUND.replace(from, to))
}

#[test]
fn a_format_that_nobody_checks_is_refused_but_does_not_keep_a_stored_set_from_loading() {
    let schema = |format: &str| {
        let param = json!({ "allOf": [{ "$ref": "#/$defs/net" }], "title": "format" });
        json!({ "properties": { "format": param, "replicas": {} }, "$defs": { "net": { "format": format } } })
    };
    let folder = |format: &str| Folder::new(SOUND).write("schemas/deploy.json", schema(format).to_string());
    folder("cidr").check(&[
        "schemas/deploy.json: `/$defs/net/format`: the format `cidr` cannot be checked; these can: `date`, …",
    ]);
    let set = folder("ipv4").load(&engine()).unwrap();
    let warned =
        "the schema of the action `deploy`: `/$defs/net/format`: the format `cidr` cannot be checked";
    let Pins { mut entries, modules, .. } = set.pins();
    for (format, warns) in [("ipv4", false), ("cidr", true)] {
        entries[0].schema = Some(schema(format));
        let (entries, modules) = (entries.clone(), modules.clone());
        let stored = Stored { name: "stored".into(), entries, modules, signatures: vec![] };
        let set = PolicySet::restore(stored, &engine(), &str::to_owned).unwrap();
        let warnings = set.warnings(&Default::default(), SUBMITTED_AT);
        assert_eq!(warnings.iter().any(|warning| warning.starts_with(warned)), warns, "{warnings:?}");
    }
}

#[test]
fn a_sound_set() {
    let engine = engine();
    let folder = Folder::new(SOUND);
    let set = folder.load(&engine).unwrap();
    let deploy = set.action("deploy").unwrap();
    let entry = deploy.entry();
    assert_eq!(entry.timeout_ms, 1_200_000);
    assert_eq!(entry.channel.as_deref(), Some("C0"));
    assert_eq!(entry.escalate.as_ref().unwrap().before_ms, 300_000);
    assert_eq!(entry.rerequest.as_ref().unwrap().window_ms, 86_400_000);
    assert_eq!(entry.policies[1].config, json!({ "keys": ["replicas"], "max_keys": 1, "max_chars": 40 }));
    assert!(set.action("unknown").is_none());
    assert!(set.by_hash(&deploy.hash()).is_some());
    let Pins { entries, modules, .. } = set.pins();
    assert_eq!((entries.len(), modules.len()), (1, 2));
    assert_eq!(entries[0].hash(), deploy.hash());
    // The same files, the same hash; whatever judges otherwise, another.
    assert_eq!(folder.load(&engine).unwrap().hash(), set.hash());
    assert_ne!(broken("approvals: 2", "approvals: 1").load(&engine).unwrap().hash(), set.hash());
}

#[test]
fn a_module_file_may_have_any_name() {
    let folder = Folder::new(SOUND).remove("modules/quorum.wasm");
    folder.write("modules/renamed-by-somebody.wasm", bytes_of("quorum")).load(&engine()).unwrap();
}

#[test]
fn unknown_actions_can_be_decided_by_hand() {
    let yaml = SOUND.replace("unknown_action: deny", "unknown_action: manual");
    Folder::new(&yaml).check(
        &[
            "policy-set.yaml:7:56: `manual` needs the group `super-approvers`, who then decide",
            "policy-set.yaml:7:56: configuration of `quorum`…",
        ][..1],
    );
    let yaml = yaml.replace("  admins: [U0ADMIN]", "  admins: [U0ADMIN]\n  super-approvers: [U0SUPER]");
    let set = Folder::new(&yaml).load(&engine()).unwrap();
    let fallback = set.action("anything").unwrap();
    assert_eq!(fallback.entry().action, "*");
    assert_eq!(
        fallback.entry().policies[0].config,
        json!({ "approvers": ["@super-approvers"], "approvals": 1 })
    );
    assert!(!fallback.entry().redact.shows("anything"));
    assert_eq!(set.policies().count(), 2);
    assert_eq!(set.action("deploy").unwrap().entry().action, "deploy");
}

#[test]
fn typos_have_a_place_and_a_suggestion() {
    broken("    timeout: 20m", "    timout: 20m")
        .check(&["policy-set.yaml:10:5: the action `deploy` has no field `timout`; did you mean `timeout`?"]);
    broken("version: 1", "version: 2").check(&["policy-set.yaml:1:10: the version must be 1"]);
    broken("version: 1\n", "").check(&["policy-set.yaml:1:1: `version: 1` is missing"]);
    broken("- use: quorum", "- use: quorom")
        .check(&["policy-set.yaml:15:14: `quorom` names no module of `modules`; did you mean `quorum`?"]);
    broken("U1, \"@admins\"", "U1, \"@admin\"").check(&[
        "policy-set.yaml:16:33: at `/approvers/1`: `@admin` names no group of `groups`; did you mean `admins`?",
    ]);
    broken("mention: \"@admins\"", "mention: \"@nobody\"")
        .check(&["policy-set.yaml:11:38: `@nobody` names no group of `groups`"]);
    broken("unknown_action: deny", "unknown_action: allow")
        .check(&["policy-set.yaml:7:56: `unknown_action` must be `deny` or `manual`, not `allow`"]);
    broken("unknown_action: deny", "unknown_action: false")
        .check(&["policy-set.yaml:7:56: `unknown_action` must be `deny` or `manual`, but is a truth value"]);
    for (key, words) in [
        ("consume", "`required` or `optional`"),
        ("consent", "`whole` or `summary`"),
        ("unsatisfiable", "`refuse` or `allow`"),
    ] {
        for (value, found) in [("true", "a truth value"), ("1", "`1`"), ("", "nothing"), ("[]", "a list")] {
            let errors =
                broken("    timeout: 20m", &format!("    {key}: {value}\n    timeout: 20m")).errors();
            assert!(errors.ends_with(&format!("`{key}` must be {words}, but is {found}")), "{errors}");
        }
        let errors = broken("    timeout: 20m", &format!("    {key}: \"true\"\n    timeout: 20m")).errors();
        assert!(errors.ends_with(&format!("`{key}` must be {words}, not `true`")), "{errors}");
    }
    broken("  deploy:", "  de/ploy:").check(&["policy-set.yaml:9:3: `de/ploy` cannot name an action: …"]);
    broken("  deploy:", "  \"*\":").check(&["policy-set.yaml:9:3: `*` stands for unknown actions…"]);
}

#[test]
fn values_out_of_bounds() {
    broken("    timeout: 20m", "    timeout: 20").check(&[
        "policy-set.yaml:10:14: a timeout must be a duration with its unit, such as `10m`, but is `20`",
    ]);
    broken("    timeout: 20m", "    timeout: 0s")
        .check(&["policy-set.yaml:10:14: a timeout must be from 1s to 30d, but is `0s`"]);
    broken("    timeout: 20m", "    timeout: soon").check(&["policy-set.yaml:10:14: `soon` is no duration…"]);
    broken("before: 5m", "before: 20m")
        .check(&["policy-set.yaml:11:25: `before` must be shorter than the action's timeout"]);
    broken("limit: 5", "limit: 0")
        .check(&["policy-set.yaml:13:39: `limit` must be a whole number from 1 to 1000, but is `0`"]);
    broken("limit: 5", "limit: 5.0")
        .check(&["policy-set.yaml:13:39: `limit` must be a whole number from 1 to 1000, but is `5.0`"]);
    broken("window: 24h", "window: 5m")
        .check(&["policy-set.yaml:13:16: `cooldown` must be shorter than `window`"]);
    broken("{ show: [replicas] }", "{ show: [replicas], hide: [a] }")
        .check(&["policy-set.yaml:12:13: `redact` must have either `show` or `hide`"]);
    broken("[U0ADMIN]", "[42]")
        .check(&["policy-set.yaml:6:12: a member's id must be text: put it in quotes"]);
    broken("\"{override-guard}\"", "sha256:9f3c").check(&[
        "policy-set.yaml:4:19: the digest of `override-guard` should be `sha256:` and 64 hexadecimal digits in lower case, \
         not 4",
    ]);
    broken("channel: C0, unknown_action: deny }", "unknown_action: deny,\n  channel: #deploys\n }").check(&[
        "policy-set.yaml:8:10: a channel must be text, but is nothing; what begins with `#` must be in quotes",
    ]);
    // Once, however many use the module.
    let used = SOUND
        .replace("unknown_action: deny", "unknown_action: manual")
        .replace("  admins: [U0ADMIN]", "  admins: [U0ADMIN]\n  super-approvers: [U0SUPER]");
    let often: String = (0..3)
        .map(|number| {
            format!("  a{number}: {{ policies: [{{ use: quorum, with: {{ approvers: [U1] }} }}] }}\n")
        })
        .collect();
    for wrong in ["sha256:9f3c", "sha512:9f3c", "latest", "\"\"", "[]", "7"] {
        let errors = Folder::new(&(used.replace("\"{quorum}\"", wrong) + &often)).errors();
        assert_eq!(errors.lines().count(), 1, "{wrong}: {errors}");
        assert!(errors.contains("digest"), "{wrong}: {errors}");
    }
    broken("U1, \"@admins\"", "U1, @admins")
        .check(&["policy-set.yaml:16:33: `@` cannot begin a value: put the value in quotes, as \"@…\""]);
}

#[test]
fn texts_that_say_nothing_or_something_else() {
    for channel in ["\"\"", "\"  \""] {
        broken("channel: C0", &format!("channel: {channel}"))
            .check(&["policy-set.yaml:7:36: a channel is empty: leave it out if there is none"]);
        broken("    timeout: 20m", &format!("    timeout: 20m\n    channel: {channel}"))
            .check(&["policy-set.yaml:11:14: a channel is empty: leave it out if there is none"]);
        broken("before: 5m", &format!("before: 5m, channel: {channel}"))
            .check(&["policy-set.yaml:11:38: a channel is empty: leave it out if there is none"]);
    }
    broken("mention: \"@admins\"", "mention: \"\"")
        .check(&["policy-set.yaml:11:38: a mention is empty: leave it out if there is none"]);
    broken("channel: C0", "channel: \"C0\\e[2J\"")
        .check(&["policy-set.yaml:7:36: a channel cannot have control characters"]);
    broken("[U0ADMIN]", "[\"U0ADMIN\\e\"]")
        .check(&["policy-set.yaml:6:12: a group holds ids, but `U0ADMIN\\u{1b}` is none"]);
    broken("limit: 5", "limit: 5, by: [\"U1\\n\"]")
        .check(&["policy-set.yaml:13:47: `by` cannot have control characters"]);
    let described =
        |text: &str| broken("    timeout: 20m", &format!("    timeout: 20m\n    description: {text}"));
    described("\"a\\e[2J\"").check(&[
        "policy-set.yaml:11:18: a description cannot have control characters other than line feeds and tabs",
    ]);
    described("|\n      two\n      lines").load(&engine()).unwrap();
    broken("    timeout: 20m", "    timeout: 10M").check(&[
        "policy-set.yaml:10:14: `10M` is no duration such as `10m`: `M` is no unit: those are `d`, `h`, `m`, `s` and `ms`",
    ]);
}

#[test]
fn a_schemas_file_as_editors_and_people_write_it() {
    let folder = |schema: &str| Folder::new(SOUND).write("schemas/deploy.json", schema);
    let schema = r#"{ "properties": { "replicas": {} } }"#;
    let marked = folder(&format!("\u{feff}{schema}")).load(&engine()).unwrap();
    assert_eq!(marked.hash(), folder(schema).load(&engine()).unwrap().hash());
    folder(r#"{ "properties": { "replicas": { "maximum": 90071992547409920 } } }"#).check(&[
        "schemas/deploy.json: `properties.replicas.maximum`: a whole number beyond ±(2^53 − 1) is read differently by \
         different programs",
    ]);
    folder(r#"{ "properties": { "replicas": { "maximum": 0.10000000000000000001 } } }"#).check(&[
        "schemas/deploy.json: `properties.replicas.maximum`: this number is not exactly the value of its shortest form as a \
         double (RFC 8785), so it would become another number; write fewer digits",
    ]);
}

#[test]
fn every_error_is_reported_not_only_the_first() {
    let yaml = SOUND.replace("version: 1", "version: one").replace("limit: 5", "limits: 5");
    Folder::new(&yaml.replace("max_keys: 1", "max_keys: many")).check(&[
        "policy-set.yaml:1:10: the version must be 1",
        "policy-set.yaml:13:32: `rerequest` has no field `limits`; did you mean `limit`?",
        "policy-set.yaml:18:45: configuration of `override-guard` at `/max_keys`: …",
    ]);
}

#[test]
fn yaml_that_is_none() {
    broken("version: 1\n", "version: 1\nversion: 1\n")
        .check(&["policy-set.yaml:2:1: the key `version` comes twice"]);
    broken("    timeout: 20m\n", "    timeout: 20m\n    timeout: 30m\n")
        .check(&["policy-set.yaml:11:5: the key `timeout` comes twice"]);
    broken("    timeout: 20m\n", "    <<: { timeout: 30m }\n")
        .check(&["policy-set.yaml:10:5: `<<` merges nothing here: write out what it stands for"]);
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned()
        + &(0..9).map(|n| format!("b{n}: &b{n} [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n")).collect::<String>();
    for yaml in ["", "- a list", "actions: [", "{", "\t", "a: *nothing", &bomb, &"[".repeat(100_000)] {
        assert!(Folder::new(yaml).errors().starts_with("policy-set.yaml"), "{yaml:.20}");
    }
    Folder::new("version: 1\n").check(&["policy-set.yaml:1:1: `actions` is missing"]);
    Folder::new(SOUND).remove("policy-set.yaml").check(&["policy-set.yaml: cannot be read: …"]);
    Folder::new("")
        .write("policy-set.yaml", [0xff, 0xfe, 0xff])
        .check(&["policy-set.yaml: cannot be read: …"]);
}

#[test]
fn modules_that_are_not_the_pinned_ones() {
    let missing = Folder::new(SOUND).remove("modules/quorum.wasm").errors();
    let digest = Digest::of(&bytes_of("quorum"));
    assert_eq!(
        missing,
        format!("policy-set.yaml:3:11: no file in `modules` is the module `quorum`, sha256:{digest}")
    );
    let other = Folder::new(SOUND).write("modules/quorum.wasm", b"tampered with").errors();
    assert_eq!(
        other,
        format!(
            "policy-set.yaml:3:11: no file in `modules` is the module `quorum`, sha256:{digest}; \
             modules/quorum.wasm is sha256:{}",
            Digest::of(b"tampered with")
        )
    );
}

/// Pins these bytes and reports what loading says.
#[track_caller]
fn pinned(bytes: &[u8]) -> String {
    let yaml = SOUND.replace("\"{quorum}\"", &format!("sha256:{}", Digest::of(bytes)));
    Folder::new(&yaml).write("modules/bad.wasm", bytes).errors()
}

#[test]
fn pinned_modules_that_are_none() {
    let refused = "policy-set.yaml:3:11: the module `quorum` (modules/bad.wasm) is refused: ";
    let quorum = bytes_of("quorum");
    let clock = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#;
    for (bytes, words) in [
        (&quorum[..1000], "it is not a component that can be run here: "),
        (&wat::parse_str("(module)").unwrap(), "it is a core WebAssembly module"),
        (
            &wat::parse_str(clock).unwrap(),
            "it imports `wasi:clocks/wall-clock@0.2.0`, but a policy may import nothing",
        ),
        (b"garbage", "it is no WebAssembly"),
    ] {
        let errors = pinned(bytes);
        assert!(errors.starts_with(&format!("{refused}{words}")), "{errors}");
    }
    assert!(
        pinned(&vec![0; 3 << 20]).contains("no file in `modules`"),
        "an oversized file is not read whole"
    );
}

#[test]
fn configurations_are_tried() {
    broken("approvals: 2", "approvals: two").check(&[
        "policy-set.yaml:16:56: configuration of `quorum` at `/approvals`: \"two\" is not of type \"integer\"",
    ]);
    broken("approvals: 2", "aprovals: 2").check(&[
        "policy-set.yaml:16:15: configuration of `quorum`: Additional properties are not allowed ('aprovals' was \
         unexpected); did you mean `approvals`?",
    ]);
    let errors =
        broken("approvers: [U1, \"@admins\"], approvals: 2", "approvers: [U1], approvals: 2").errors();
    assert!(errors.starts_with("policy-set.yaml:16:"), "{errors}");
    assert!(errors.contains("(invalid_config)"), "{errors}");
}

/// An action that is judged by the misbehaving module alone.
fn misbehaving(action: &str) -> Folder {
    Folder::new(&format!(
        "version: 1\nmodules:\n  misbehaving: \"{{misbehaving}}\"\nactions:\n  a:\n{action}\n"
    ))
}

#[test]
fn modules_that_misbehave_are_found_out() {
    for (deed, kind) in [
        ("loop", "fuel"),
        ("eat_memory", "memory"),
        ("overflow_stack", "trap"),
        ("trap", "trap"),
        ("huge_output", "malformed"),
    ] {
        for (call, what) in [
            ("check-config", "the configuration of `misbehaving` cannot be checked"),
            ("admit", "the action `a`: a synthetic request is not admitted"),
            ("judge", "the action `a`: a synthetic request is not judged"),
        ] {
            let with = format!("    policies: [{{ use: misbehaving, with: {{ at: {call}, do: {deed} }} }}]");
            let errors = misbehaving(&with).errors();
            let expected = format!("{what}: policy `misbehaving` failed ({kind}): ");
            assert!(errors.contains(&expected), "{deed} at {call}: {errors}");
        }
    }
    let memo = "    policies: [{ use: misbehaving, with: { at: admit, do: malformed_memo } }]";
    assert!(misbehaving(memo).errors().contains("its memo is no JSON, at line 1"));
}

#[test]
fn an_action_that_nobody_decides_must_say_so() {
    let guard = "    policies: [{ use: override-guard, with: { keys: [n], max_keys: 1, max_chars: 40 } }]\n";
    let yaml = |extra: &str| {
        format!(
            "version: 1\nmodules:\n  override-guard: \"{{override-guard}}\"\nactions:\n  a:\n    redact: {{ show: [n] }}\n{extra}{guard}"
        )
    };
    let errors = Folder::new(&yaml("")).errors();
    assert!(
        errors.contains("before anybody has acted; if that is meant, say `unattended: true`"),
        "{errors}"
    );
    let set = Folder::new(&yaml("    unattended: true\n")).load(&engine()).unwrap();
    assert!(set.action("a").unwrap().entry().unattended);
}

#[test]
fn an_action_can_notify_the_people_who_can_act() {
    let with = |notify: &str| broken("    timeout:", &format!("{notify}    timeout:"));
    let loaded = |notify: &str| {
        let set = with(notify).load(&engine()).unwrap_or_else(|errors| panic!("{errors}"));
        let deploy = set.action("deploy").unwrap();
        (deploy.entry().notify, deploy.hash())
    };
    let (notify, hash) = loaded("");
    assert!(!notify);
    assert_eq!(loaded("    notify: false\n"), (false, hash), "hashes of earlier sets stay");
    let (notify, other) = loaded("    notify: true\n");
    assert!(notify && other != hash);
    for wrong in ["everybody", "1", "[U0ALICE]"] {
        let errors = with(&format!("    notify: {wrong}\n")).errors();
        assert!(errors.contains("`notify`"), "{wrong}: {errors}");
    }
}

#[test]
fn an_action_can_take_responsibility_for_what_people_do_not_read() {
    let with = |consent: &str| broken("    timeout:", &format!("{consent}    timeout:"));
    let loaded = |consent: &str| {
        let set = with(consent).load(&engine()).unwrap_or_else(|errors| panic!("{errors}"));
        let deploy = set.action("deploy").unwrap();
        (deploy.entry().consent, deploy.hash())
    };
    let (consent, hash) = loaded("");
    assert_eq!(consent, Consent::Whole);
    assert_eq!(loaded("    consent: whole\n"), (Consent::Whole, hash), "hashes of earlier sets stay");
    let (consent, other) = loaded("    consent: summary\n");
    assert_eq!(consent, Consent::Summary);
    assert_ne!(other, hash);
    for wrong in ["all", "true", "\"\""] {
        let errors = with(&format!("    consent: {wrong}\n")).errors();
        assert!(errors.contains("`consent`"), "{wrong}: {errors}");
    }
}

#[test]
fn what_can_be_edited_must_be_seen() {
    broken("{ show: [replicas] }", "{ hide: [replicas] }").check(&[
        "policy-set.yaml:9:3: the action `deploy`: the parameter `replicas` can be edited, but `redact` hides it",
    ]);
    let errors = broken("    redact: { show: [replicas] }\n", "").errors();
    assert!(errors.contains("`redact` hides it"), "an action shows nothing unless told to: {errors}");
    let schema = r#"{ "type": "object", "additionalProperties": false, "properties": { "ref": {} } }"#;
    Folder::new(SOUND).write("schemas/deploy.json", schema).check(&[
        "policy-set.yaml:9:3: the action `deploy`: the parameter `replicas` can be edited, but the action's schema does not allow it",
    ]);
    // A rule about an editable parameter and a hidden one: left out, it would let through what it forbids.
    let schema = r##"{ "allOf": [
        { "if": { "properties": { "token": { "const": "x" } } }, "then": { "properties": { "ref": { "const": "v1" } } } },
        { "$ref": "#/$defs/joined" }
      ],
      "$defs": { "joined": { "not": { "properties": { "replicas": { "const": 1 }, "token": { "const": "x" } } } } } }"##;
    Folder::new(SOUND).write("schemas/deploy.json", schema).check(&[
        "policy-set.yaml:9:3: the action `deploy`: the parameter `replicas` can be edited, but the schema's rule \
         `/$defs/joined/not` joins it with parameters that `redact` hides…",
    ]);
}

#[test]
fn schema_files() {
    let with = |file: &str, text: &str| Folder::new(SOUND).write(file, text);
    let sound = r#"{ "properties": { "replicas": { "type": "integer" } } }"#;
    let set = with("schemas/deploy.json", sound).load(&engine()).unwrap();
    let deploy = set.action("deploy").unwrap();
    assert_eq!(deploy.schema(), Some(&serde_json::from_str(sound).unwrap()));
    let edited = json!({ "replicas": "x" }).as_object().cloned().unwrap();
    let violations =
        deploy.param_schema().unwrap().violations(&edited, &BTreeSet::new(), &["replicas"].into());
    assert_eq!(violations["replicas"], [r#"it is not of type "integer""#]);
    assert_ne!(deploy.hash(), Folder::new(SOUND).load(&engine()).unwrap().action("deploy").unwrap().hash());
    with("schemas/deploi.json", sound).check(&[
        "schemas/deploi.json: there is no action `deploi` to use this schema; did you mean `deploy`?",
    ]);
    with("schemas/deploy.json", "{").check(&["schemas/deploy.json: malformed JSON: …"]);
    with("schemas/deploy.json", r#"{ "type": "strnig" }"#).check(&[
        "policy-set.yaml:9:3: the schema of the action `deploy` (`schemas/deploy.json`) is refused: …",
    ]);
}

#[test]
fn entries_that_are_no_longer_in_force_are_still_found() {
    let engine = engine();
    let first = Folder::new(SOUND).load(&engine).unwrap();
    let Pins { entries: old, modules, .. } = first.pins();
    let old_hash = old[0].hash();
    let policies = Policies::new(engine, first);
    let next = broken("approvals: 2", "approvals: 1").load(policies.engine()).unwrap();
    let before = policies.activate(next);
    assert_eq!(before.action("deploy").unwrap().hash(), old_hash);
    assert_ne!(policies.active().action("deploy").unwrap().hash(), old_hash);
    assert!(policies.by_hash(&old_hash).is_some());
    policies.retain(|_| false);
    assert!(policies.by_hash(&old_hash).is_none());

    // After a restart: the store has the entry and the modules.
    let restored = policies.restore(old[0].clone(), &modules, &[]).unwrap();
    assert_eq!(restored.hash(), old_hash);
    assert!(Arc::ptr_eq(&policies.by_hash(&old_hash).unwrap(), &restored));
    assert!(matches!(policies.restore(old[0].clone(), &[], &[]), Err(RestoreError::Action(_))));
    let corrupt = vec![modules[0][1..].to_vec()];
    assert!(matches!(policies.restore(old[0].clone(), &corrupt, &[]), Err(RestoreError::Module { .. })));
}

#[test]
fn the_sample_set_is_sound() {
    let dir = countersign_test_modules::folder();
    let set = PolicySet::load(&dir, &engine()).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(set.action("deploy_prod").is_some());
}

#[test]
fn an_action_says_how_its_approvals_are_used() {
    let with = |terms: &str| broken("    timeout:", &format!("{terms}    timeout:"));
    let loaded = |terms: &str| {
        let set = with(terms).load(&engine()).unwrap_or_else(|errors| panic!("{errors}"));
        let deploy = set.action("deploy").unwrap();
        (deploy.entry().terms, deploy.hash())
    };
    let terms = |valid_for_ms, required| UseTerms { valid_for_ms, required };
    let (unsaid, hash) = loaded("");
    assert_eq!(unsaid, UseTerms::default());
    assert_eq!(loaded("    consume: optional\n"), (unsaid, hash), "hashes of earlier sets stay");
    let mut hashes = BTreeSet::from([hash]);
    for (text, expected) in [
        ("    consume: required\n", terms(None, true)),
        ("    valid_for: 30m\n", terms(Some(30 * 60_000), false)),
        ("    valid_for: 1h\n    consume: required\n", terms(Some(60 * 60_000), true)),
    ] {
        let (found, hash) = loaded(text);
        assert_eq!(found, expected, "{text}");
        assert!(hashes.insert(hash), "{text}: it is part of the hash");
    }
    for (wrong, message) in [
        ("    consume: once\n", "`consume` must be `required` or `optional`, not `once`"),
        ("    consume: true\n", "`consume`"),
        ("    valid_for: 0s\n", "`valid_for`"),
        ("    valid_for: 31d\n", "`valid_for`"),
        ("    valid_for: soon\n", "`soon` is no duration"),
    ] {
        let errors = with(wrong).errors();
        assert!(errors.contains(message), "{wrong}: {errors}");
    }
}

#[test]
fn an_action_says_what_its_requests_supersede_each_other_by() {
    let with = |lines: &str| broken("    timeout:", &format!("{lines}    timeout:"));
    let loaded = |lines: &str| {
        let set = with(lines).load(&engine()).unwrap_or_else(|errors| panic!("{errors}"));
        let deploy = set.action("deploy").unwrap();
        (deploy.entry().supersede.clone(), deploy.hash())
    };
    let (unsaid, hash) = loaded("");
    assert!(unsaid.is_empty());
    let (said, other) = loaded("    supersede: [ref]\n");
    assert_eq!(said, BTreeSet::from(["ref".to_owned()]));
    assert_ne!(hash, other, "it is part of the hash");
    assert_eq!(loaded("    supersede: [replicas, ref]\n"), loaded("    supersede: [ref, replicas]\n"));
    let schema = r#"{ "properties": { "ref": {}, "replicas": {} } }"#;
    let typo = with("    supersede: [refs]\n").write("schemas/deploy.json", schema).errors();
    let message = "requests supersede each other by the parameter `refs`, which the action's schema does not list; did you mean `ref`?";
    assert!(typo.contains(message), "{typo}");
    with("    supersede: [ref]\n").write("schemas/deploy.json", schema).load(&engine()).unwrap();
    for (wrong, message) in [
        ("    supersede: []\n", "`supersede` is empty"),
        ("    supersede: ref\n", "must be a list"),
        ("    supersede: [ref, ref]\n", "`ref` is listed twice"),
        ("    supersede: [1]\n", "must be text"),
    ] {
        let errors = with(wrong).errors();
        assert!(errors.contains(message), "{wrong}: {errors}");
    }
}
