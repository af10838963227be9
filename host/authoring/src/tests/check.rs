//! `policy check`, and the commands that take a policy set as it does: `pack` and `replay`.

use super::*;

/// A set that no gateway with these limits would load is not valid.
#[test]
fn a_set_is_checked_with_the_gateways_limits() {
    let folder = Workspace::new();
    folder.write_set("  deploy:\n    policies: [{ use: quorum, with: { approvers: [U1] } }]\n");
    has(&folder.policy(&["check", "."]), 2, &["there is no policy set at `./policy-set.yaml`"]);
    has(&folder.policy(&["check", "./policy-set.yaml"]), 0, &["sound: 1 action"]);
    let small = ["check", "./policy-set.yaml", "--policy-module-kib", "100"];
    has(&folder.policy(&small), 1, &["has more than the 102400 bytes that a policy module may have"]);
}

#[test]
fn a_set_is_packed_for_http() {
    let folder = Workspace::new();
    folder.write_set("  deploy:\n    policies: [{ use: quorum, with: { approvers: [U1] } }]\n");
    folder.write("schemas/deploy.json", SCHEMA);
    folder.write("policy-set.yaml.sig", "# Ada\n");
    let output = folder.policy(&["pack", "./policy-set.yaml"]);
    assert_eq!(output.code, 0);
    let packed: serde_json::Value = serde_json::from_str(&output.text).unwrap();
    assert_eq!(packed["schemas"]["deploy"], serde_json::from_str::<serde_json::Value>(SCHEMA).unwrap());
    assert_eq!(packed["signatures"], "# Ada\n");
    assert!(packed["document"].as_str().unwrap().starts_with("version: 1\n"), "{packed}");
    folder.write("schemas/deploy.json", "{");
    has(&folder.policy(&["pack", "./policy-set.yaml"]), 2, &["schemas/deploy.json`: malformed JSON"]);
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
    redact: { hide: [secret] }
"#;

#[test]
fn a_sound_set_is_said_to_be_sound() {
    let folder = Workspace::new();
    folder.write_set(SOUND);
    for set in ["./", "./policy-set.yaml"] {
        let output = folder.policy(&["check", set]);
        assert_eq!(output.code, 0, "{}", output.text);
        insta::allow_duplicates! { insta::assert_snapshot!(output.text, @"
    sound: 2 actions, each tried with a synthetic request

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
    assert_eq!((&json["errors"], &json["warnings"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[test]
fn warnings_can_be_denied() {
    let folder = Workspace::new();
    let deny = ["check", "./", "--deny-warnings"];
    folder.write_set(SOUND);
    has(&folder.policy(&deny), 0, &["sound: 2 actions"]);
    folder.write_set(&SOUND.replace("hide: [secret]", "hide: [secert]"));
    folder.write("schemas/rotate.json", r#"{ "properties": { "secret": {} } }"#);
    let warned = "the action `rotate` hides the parameter `secert`, which its schema does not list; did you mean `secret`?";
    has(&folder.policy(&["check", "./"]), 0, &[warned]);
    has(
        &folder.policy(&deny),
        1,
        &["sound: 2 actions", warned, "\n1 warning found, and `--deny-warnings` lets none pass\n"],
    );
    let json = folder.policy(&[&deny[..], &["--format", "json"]].concat());
    has(&json, 1, &["\"sound\": true", "\"warnings\": [", warned]);
}

#[test]
fn files_that_a_gateway_passes_over_are_warned_of() {
    let folder = Workspace::new();
    folder.write_set(SOUND);
    folder.write("schemas/deploy.json", SCHEMA);
    let check = || folder.policy(&["check", "./"]);
    assert!(!check().text.contains("warning"), "{}", check().text);
    for name in ["deploy.JSON", "rotate.yaml", "rotate"] {
        folder.write(&format!("schemas/{name}"), "{}");
        has(
            &check(),
            0,
            &[&format!("warning: `schemas/{name}` is not read: a schema is called `ACTION.json`")],
        );
    }
    folder
        .write("schemas/deploy.json", r#"{ "properties": { "replicas": { "maximun": 3 }, "secret": {} } }"#);
    let warning = "warning: the schema of the action `deploy`: `/properties/replicas/maximun` is no keyword of JSON Schema \
                   2020-12, so it checks nothing; did you mean `maximum`?";
    has(&check(), 0, &[warning]);
}

/// A running gateway takes no such set from its folder.
#[test]
fn a_list_of_digests_that_does_not_fit_is_warned_of() {
    let folder = Workspace::new();
    folder.write_set(SOUND);
    let text = fs::read(folder.path().join("policy-set.yaml")).unwrap();
    let digest = countersign_core::lifecycle::Digest::of(&text);
    folder.write("policy-set.yaml.sha256", format!("{digest}  policy-set.yaml\n"));
    let fits = folder.policy(&["check", "./"]);
    assert!(fits.code == 0 && !fits.text.contains("warning"), "{}", fits.text);
    folder.write("policy-set.yaml", [&text[..], b"# later\n"].concat());
    let warning = "warning: `policy-set.yaml.sha256` does not fit, so a running gateway does not take this set from its \
                   folder: `policy-set.yaml` has other bytes than it lists";
    has(&folder.policy(&["check", "./"]), 0, &[warning]);
    has(&folder.policy(&["check", "./", "--format", "json"]), 0, &["policy-set.yaml.sha256` does not fit"]);
}

#[test]
fn only_what_was_tried_is_said_to_be_tried() {
    let folder = Workspace::new();
    let refusing = "    policies: [{ use: misbehaving, with: { do: refuse, requester: U0SYNTHETIC } }]\n";
    folder.write_set(&format!("{SOUND}  strict:\n    redact: {{ hide: [] }}\n{refusing}"));
    let output = folder.policy(&["check", "./"]);
    has(
        &output,
        0,
        &[
            "sound: 3 actions, 2 of them tried with a synthetic request\n",
            "the action `strict` was not tried",
        ],
    );
    assert!(!output.text.contains("`examples`"), "there is no schema: {}", output.text);
    folder.write("schemas/strict.json", r#"{ "properties": { "a": {} } }"#);
    has(&folder.policy(&["check", "./"]), 0, &["(`examples` in the schema make"]);
    folder.write_set(&format!("  strict:\n    redact: {{ hide: [] }}\n{refusing}"));
    has(&folder.policy(&["check", "./"]), 0, &["sound: 1 action, none tried with a synthetic request\n"]);
}

#[test]
fn a_time_that_is_easily_misread_is_refused() {
    let folder = Workspace::new();
    let expected = "expected a duration such as `30d`, or a time such as `2026-05-01T00:00:00Z`";
    for (since, said) in [
        ("30M", "`M` is no unit: those are `d`, `h`, `m`, `s` and `ms`"),
        ("soon", expected),
        ("2026-05-01T00:00", expected),
    ] {
        let output = folder.policy(&["replay", "--since", since, "--set", "./"]);
        has(&output, 2, &[said]);
        assert_eq!(output.text.contains("is no unit"), since == "30M", "{}", output.text);
    }
}

#[test]
fn a_channel_that_cannot_be_searched_is_warned_of_once() {
    let folder = Workspace::new();
    let escalate = "escalate: { before: 1m, channel: deploys }";
    folder.write_set(
        &SOUND
            .replacen("redact:", &format!("channel: C0DEPLOYS\n    {escalate}\n    redact:"), 1)
            .replace("rotate:", "rotate:\n    channel: deploys"),
    );
    let output = folder.policy(&["check", "./"]);
    assert_eq!(output.code, 0, "{}", output.text);
    let (_, warnings) = output.text.split_once("hash of the set: <digest>\n").unwrap();
    let expected = "warning: `deploys` is not the id of a channel (`C…`, `G…` or `D…`): \
        a message there that Slack does not confirm cannot be looked for, and may be posted twice\n";
    assert_eq!(warnings, expected);
    let json: serde_json::Value =
        serde_json::from_str(&folder.policy(&["check", "./", "--format", "json"]).text).unwrap();
    assert_eq!((&json["sound"], json["warnings"].as_array().unwrap().len()), (&true.into(), 1));
}

#[test]
fn an_action_that_shows_approvers_nothing_is_warned_of() {
    let folder = Workspace::new();
    folder.write_set(&SOUND.replace("    redact: { hide: [secret] }\n", ""));
    let output = folder.policy(&["check", "./"]);
    has(&output, 0, &["warning: the action `rotate` shows approvers no parameters: `redact` is missing"]);
    assert!(!output.text.contains("`deploy` shows"), "{}", output.text);
}

#[test]
fn what_nobody_could_approve_is_warned_of() {
    let folder = Workspace::new();
    let approvers = "approvers: [dana, \"@managers\"], approvals: 3";
    folder.write_set(&SOUND.replace("approvers: [U1, \"@managers\"], approvals: 2", approvers));
    let output = folder.policy(&["check", "./"]);
    has(
        &output,
        0,
        &[
            "warning: the action `deploy` asks for `dana`, which is no Slack id",
            "says who has this name: give it with `--access FILE`",
        ],
    );
    assert!(!output.text.contains("approvals are needed"), "dana may be somebody: {}", output.text);
    let judged = folder.policy(&["judge", "./", "--action", "deploy"]);
    has(&judged, 0, &["\nwarning: the action `deploy` asks for `dana`", "now: ready_for_approval"]);

    let key = format!("keys: [{{ sha256: {} }}]", "6a".repeat(32));
    let caller = format!("callers: {{ ci: {{ {key}, requester: machine, actions: [deploy] }} }}");
    folder.write("others.yaml", format!("version: 1\n{caller}\npeople:\n  erik: {{ slack: [U0ERIK] }}\n"));
    has(
        &folder.policy(&["check", "./", "--access", "./others.yaml"]),
        0,
        &[
            "warning: the action `deploy` asks for `dana`, who can be nobody in Slack",
            "warning: the action `deploy`: 3 approvals are needed, which only",
        ],
    );
    let refused = folder.policy(&["judge", "./", "--action", "deploy", "--access", "./others.yaml"]);
    has(&refused, 0, &["→ refused (unsatisfiable)", "is nobody in Slack: dana"]);
    folder.write("access.yaml", format!("version: 1\n{caller}\npeople:\n  dana: {{ slack: [U0DANA] }}\n"));
    for command in [&["check", "./"][..], &["judge", "./", "--action", "deploy"]] {
        let known = folder.policy(&[command, &["--access", "./access.yaml"]].concat());
        assert_eq!(known.code, 0, "{}", known.text);
        assert!(!known.text.contains("asks for `dana`"), "{}", known.text);
    }
    let wrong = folder.policy(&["check", "./", "--access", "./none.yaml"]);
    has(&wrong, 2, &["cannot read the access file `none.yaml`"]);
}

#[test]
fn every_fault_has_its_place_and_its_pointer() {
    let folder = Workspace::new();
    folder.write_set(
        &SOUND
            .replace("approvals: 2", "approvals: 2000")
            .replace("keys: [replicas]", "keys: [replicas], max_keys: 2")
            .replace("use: quorum, with: { approvers: [U1] }", "use: quorom, with: { approvers: [U1] }"),
    );
    folder.write("schemas/deplo.json", SCHEMA);
    let output = folder.policy(&["check", "./"]);
    assert_eq!(output.code, 1);
    insta::assert_snapshot!(output.text, @"
    policy-set.yaml:16:58: configuration of `quorum` at `/approvals`: 2000 is greater than the maximum of 1000
    policy-set.yaml:20:23: `quorom` names no module of `modules`; did you mean `quorum`?
    schemas/deplo.json: there is no action `deplo` to use this schema; did you mean `deploy`?

    3 errors found; a gateway would not load this set
    ");
    insta::assert_snapshot!(folder.policy(&["check", "./", "--format", "json"]).text, @r#"
    {
      "sound": false,
      "actions": [],
      "warnings": [],
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
    let folder = Workspace::new();
    folder.write_set(&SOUND.replace("@managers", "@managrs"));
    let output = folder.policy(&["check", "./", "--format", "json"]);
    let view: serde_json::Value = serde_json::from_str(&output.text).unwrap();
    let message = "at `/approvers/1`: `@managrs` names no group of `groups`; did you mean `managers`?";
    assert_eq!(
        (&view["errors"][0]["message"], &view["errors"][0]["pointer"]),
        (&message.into(), &"/approvers/1".into())
    );
}

#[test]
fn a_replay_takes_a_set_as_a_check_does() {
    let folder = Workspace::new();
    folder.write_set(SOUND);
    let path = folder.path().join("store.db");
    let store = format!("sqlite:{}", path.display());
    let replay = |since: &str, set: &str| {
        folder.policy(&["replay", "--since", since, "--set", set, "--store", &store])
    };
    let output = replay("30d", "./");
    assert_eq!(output.text.matches("No such file").count(), 1, "{}", output.text);
    has(&output, 2, &["cannot open the database `store.db`: No such file"]);

    drop(countersign_store::SqliteStore::open(&path).unwrap());
    for set in ["./", "./policy-set.yaml"] {
        has(&replay("30d", set), 0, &["0 requests since ", "the same: 0"]);
        let since = "2026-05-01T00:00:00.000Z";
        has(&replay(since, set), 0, &[&format!("0 requests since {since}")]);
    }
    let ahead = "2999-01-01T00:00:00Z";
    has(&replay(ahead, "./"), 2, &["`--since` is 2999-01-01T00:00:00.000Z, which is in the future"]);
    let most = ["replay", "--since", "30d", "--set", "./", "--store", &store, "--max-changes", "0"];
    has(
        &folder.policy(&most),
        1,
        &["0 requests since ", "no request was evaluated, so more than 0 outcomes may"],
    );
    folder.write_set(&SOUND.replace("[U1, ", "[dana, "));
    has(&replay("30d", "./"), 0, &["only the access file says who has these names", ": dana; give it"]);
    let output = replay("2026-11-01", "./");
    has(&output, 2, &["'2026-11-01'", "expected a duration such as `30d`"]);
    assert!(!output.text.contains("invalid character"), "{}", output.text);
}

#[test]
fn a_set_that_is_not_there() {
    let folder = Workspace::new();
    has(&folder.policy(&["check", "./none"]), 2, &["there is no policy set at `none/policy-set.yaml`"]);
    has(
        &folder.policy(&["check", "./modules/quorum.wasm"]),
        2,
        &["there is no policy set at `modules/quorum.wasm/policy-set.yaml`"],
    );
}
