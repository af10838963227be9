//! `policy test`: scenarios that pass, scenarios that fail, and invalid files.

use proptest::test_runner::Config;

use super::*;

/// Scenarios of `quorum`, after a fixed header.
fn quorum(scenarios: &str) -> String {
    format!(
        "version: 1\n\
         defaults:\n\
         \x20 config: {{ approvers: [U1, U2, \"@managers\"], approvals: 2 }}\n\
         \x20 groups: {{ managers: [U3] }}\n\
         \x20 requester: U9\n\
         scenarios:\n{scenarios}"
    )
}

fn tested(module: &str, scenarios: &str, format: &str) -> Output {
    let folder = Workspace::new();
    folder.write("s.yaml", scenarios);
    folder.policy(&["test", &format!("./modules/{module}.wasm"), "./s.yaml", "--format", format])
}

#[test]
fn the_scenarios_of_the_workspaces_policies_pass() {
    let folder = Workspace::new();
    for module in ["quorum", "persona-gate", "override-guard"] {
        let scenarios = format!("{}/../../policies/{module}/scenarios.yaml", env!("CARGO_MANIFEST_DIR"));
        let output = folder.policy(&["test", &format!("./modules/{module}.wasm"), &scenarios]);
        has(&output, 0, &["scenarios passed"]);
        assert!(!output.text.contains("FAIL"), "{}", output.text);
    }
}

const BOTH: &str = r#"
  - name: two approve
    events:
      - { by: U1, act: approve }
      - { by: U2, act: approve, expect: satisfied }
  - name: one is enough
    events:
      - { by: U3, act: approve, at: 1m, expect: { standing: satisfied, editable: [replicas] } }
      - { by: U2, act: approve, expect: satisfied }
"#;

#[test]
fn a_failure_as_text() {
    let output = tested("quorum", &quorum(BOTH), "text");
    assert_eq!(output.code, 1);
    insta::assert_snapshot!(output.text, @"
    quorum 0.1.0  sha256:<digest>

    ok    two approve
    FAIL  one is enough
          s.yaml:12
            0s  U9 asks      waiting: 0 of 2 approvals
            1m  U3 approves  waiting: 1 of 2 approvals
          at s.yaml:14, when U3 approves:
                      expected   seen
            outcome   satisfied  waiting: 1 of 2 approvals (approval, 1 of 2, by U1, U2, @managers)
            editable  replicas   nothing

    1 scenario passed, 1 failed
    ");
}

#[test]
fn a_failure_as_junit_and_json() {
    insta::assert_snapshot!(tested("quorum", &quorum(BOTH), "junit").text, @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites tests="2" failures="1">
      <testsuite name="quorum" tests="2" failures="1">
        <testcase classname="quorum" name="two approve" file="s.yaml" line="8"/>
        <testcase classname="quorum" name="one is enough" file="s.yaml" line="12">
          <failure message="expected satisfied, seen waiting: 1 of 2 approvals (approval, 1 of 2, by U1, U2, @managers)">      s.yaml:12
            0s  U9 asks      waiting: 0 of 2 approvals
            1m  U3 approves  waiting: 1 of 2 approvals
          at s.yaml:14, when U3 approves:
                      expected   seen
            outcome   satisfied  waiting: 1 of 2 approvals (approval, 1 of 2, by U1, U2, @managers)
            editable  replicas   nothing
    </failure>
        </testcase>
      </testsuite>
    </testsuites>
    "#);
    insta::assert_snapshot!(tested("quorum", &quorum(BOTH), "json").text, @r#"
    {
      "file": "s.yaml",
      "module": "quorum",
      "digest": "sha256:<digest>",
      "passed": 1,
      "failed": 1,
      "scenarios": [
        {
          "name": "two approve",
          "line": 8,
          "passed": true,
          "story": [
            {
              "atMs": 0,
              "event": "U9 asks",
              "outcome": "waiting: 0 of 2 approvals"
            },
            {
              "atMs": 1000,
              "event": "U1 approves",
              "outcome": "waiting: 1 of 2 approvals"
            },
            {
              "atMs": 2000,
              "event": "U2 approves",
              "outcome": "satisfied"
            }
          ],
          "mismatches": []
        },
        {
          "name": "one is enough",
          "line": 12,
          "passed": false,
          "story": [
            {
              "atMs": 0,
              "event": "U9 asks",
              "outcome": "waiting: 0 of 2 approvals"
            },
            {
              "atMs": 60000,
              "event": "U3 approves",
              "outcome": "waiting: 1 of 2 approvals"
            }
          ],
          "mismatches": [
            {
              "line": 14,
              "event": "U3 approves",
              "what": "outcome",
              "expected": [
                "satisfied"
              ],
              "seen": [
                "waiting: 1 of 2 approvals (approval, 1 of 2, by U1, U2, @managers)"
              ]
            },
            {
              "line": 14,
              "event": "U3 approves",
              "what": "editable",
              "expected": [
                "replicas"
              ],
              "seen": [
                "nothing"
              ]
            }
          ]
        }
      ]
    }
    "#);
}

/// Runs one scenario; it must pass if `failure` is empty, else fail with these parts.
#[track_caller]
fn check(module: &str, config: &str, scenario: &str, failure: &[&str]) {
    let text = format!("version: 1\nscenarios:\n  - name: it\n    config: {config}\n{scenario}");
    has(&tested(module, &text, "text"), u8::from(!failure.is_empty()), failure);
}

#[test]
fn every_expectation_can_fail() {
    let config = "{ approvers: [U1, U2], approvals: 2 }";
    let rows: &[(&str, &[&str])] = &[
        ("    expect: satisfied\n", &["satisfied", "waiting: 0 of 2 approvals"]),
        ("    expect: denied\n", &["outcome", "denied"]),
        ("    expect: silent\n", &["silent"]),
        ("    expect: refused\n", &["refused"]),
        ("    expect: { fails: fuel }\n", &["fails: fuel"]),
        ("    expect: waiting\n", &[]),
        ("    expect: { waiting: [] }\n", &["waiting for nothing"]),
        ("    expect: { waiting: [0 of 2 approvals] }\n", &[]),
        ("    expect: { waiting: [0 of 2 approvals, more] }\n", &["waiting: more"]),
        ("    expect: { waiting: [{ have: 1, need: 2 }] }\n", &["anything (1 of 2)"]),
        ("    expect: { waiting: [{ kind: time }] }\n", &["anything (time)"]),
        ("    expect: { waiting: [{ eligible: [U2, U1], kind: approval, have: 0 }] }\n", &[]),
        ("    expect: { waiting: [{ eligible: [U1] }] }\n", &["anything (by U1)"]),
        ("    expect: { grants: true }\n", &["grants", "true", "false"]),
        ("    expect: { editable: [] , wake_at: never, memo: null, grants: false }\n", &[]),
        ("    expect: { editable: [a] }\n", &["editable", "a", "nothing"]),
        ("    expect: { wake_at: 5m }\n", &["wake_at", "5m", "never"]),
        ("    expect: { memo: { a: 1 } }\n", &["memo", "{\"a\":1}", "null"]),
        ("    config_refused: /approvals\n", &["a fault at `/approvals`", "no fault"]),
        (
            "    requester: U1\n    events: [{ by: U1, act: approve, expect: { refused: requester_may_not_approve } }]\n",
            &[],
        ),
        (
            "    requester: U1\n    events: [{ by: U1, act: approve, expect: { refused: already_approved } }]\n",
            &["refused: already_approved", "refused: requester_may_not_approve"],
        ),
        (
            "    requester: U1\n    events: [{ by: U1, act: approve, expect: { refused: [requester_may_not_approve, x] } }]\n",
            &["refused: x"],
        ),
        ("    events: [{ by: U7, act: approve }]\n", &["counted, as nothing else is expected", "silent"]),
        ("    events: [{ by: U7, act: approve, expect: silent }]\n", &[]),
        ("    events: [{ by: U1, act: deny, expect: { denied: { message: no } } }]\n", &["any reason (no)"]),
        ("    events: [{ by: U1, act: deny, reason: no, expect: { denied: { message: no } } }]\n", &[]),
        ("    events: [{ by: U1, act: deny }, { by: U1, act: approve }]\n", &["the request is denied"]),
        ("    events: [{ act: tick }]\n", &["did not ask to be woken"]),
        (
            "    events: [{ by: U1, act: approve, at: 2m }, { by: U2, act: approve, at: 1m }]\n",
            &["it is 2m already"],
        ),
        ("    timeout: 1m\n    events: [{ by: U1, act: approve, at: 1m }]\n", &["the request expires at 1m"]),
    ];
    for (scenario, failure) in rows {
        check("quorum", config, scenario, failure);
    }
}

/// A gateway refuses it after the policies' own answers.
#[test]
fn an_edit_of_what_nobody_may_edit_is_refused() {
    let edit =
        |edits: &str, expect: &str| format!("    events: [{{ by: U1, act: approve, {edits}{expect} }}]\n");
    let ref_2 = |expect: &str| edit("edits: { ref: 2 }", expect);
    let quorum = "{ approvers: [U1], approvals: 1 }";
    let locked = "refused: key_not_allowed (these parameters cannot be edited: ref)";
    let schema = "    schema: { properties: { ref: { type: string } } }\n    params: { ref: main }\n";
    let elsewhere = "    editable_elsewhere: [ref]\n";
    let rows: &[(String, &[&str])] = &[
        (ref_2(""), &["counted, as nothing else is expected", locked]),
        (ref_2(", expect: satisfied"), &["satisfied", locked]),
        (ref_2(", expect: { refused: key_not_allowed }"), &[]),
        (format!("    params: {{ ref: 1 }}\n{}", edit("removes: [ref]", "")), &[locked]),
        (edit("removes: [ref]", ", expect: satisfied"), &[]),
        (format!("    params: {{ ref: 2 }}\n{}", ref_2(", expect: satisfied")), &[]),
        (format!("{elsewhere}{}", ref_2(", expect: satisfied")), &[]),
        (format!("{elsewhere}    redact: {{ hide: [ref] }}\n{}", ref_2("")), &[locked]),
        (
            format!(
                "{elsewhere}{schema}{}",
                ref_2(", expect: { refused: { code: schema_validation, path: ref } }")
            ),
            &[],
        ),
        // Whoever has no say is told that first.
        ("    events: [{ by: U7, act: approve, edits: { ref: 2 }, expect: silent }]\n".to_owned(), &[]),
    ];
    for (scenario, failure) in rows {
        check("quorum", quorum, scenario, failure);
    }
    let guard = "{ keys: [ref] }";
    let granted = "    granted_elsewhere: true\n";
    check("override-guard", guard, &format!("{granted}{}", ref_2(", expect: satisfied")), &[]);
}

#[test]
fn a_group_that_is_not_there_is_an_error_as_in_a_set() {
    let header = "version: 1\ndefaults: { config: { approvers: [\"@m\"] } }\nscenarios:\n";
    let rows: &[(&str, &[&str])] = &[
        (
            "  - { name: a }\n  - { name: b }\n",
            &["s.yaml:2:35: at `/approvers/0`: `@m` names no group of `groups`"],
        ),
        (
            "  - { name: a, groups: { me: [U1] } }\n",
            &["at `/approvers/0`: `@m` names no group of `groups`; did you mean `me`?"],
        ),
        ("  - { name: a, groups: { m: [\"@n\"] } }\n", &["s.yaml:4:30: a group holds ids, but `@n` is none"]),
        ("  - { name: a, groups: { m: [U1, U1] } }\n", &["`U1` is in the group `m` twice"]),
        ("  - { name: a, groups: { m!: U1 } }\n", &["`m!` cannot name a group"]),
    ];
    for (scenarios, expected) in rows {
        let output = tested("quorum", &format!("{header}{scenarios}"), "text");
        has(&output, 2, expected);
        assert!(output.text.matches("names no group").count() <= 1, "{}", output.text);
    }
    // The default's name of a group that each scenario has.
    let own = "  - { name: a, groups: { m: [U1] } }\n  - { name: b, groups: { m: U2 } }\n";
    has(&tested("quorum", &format!("{header}{own}"), "text"), 0, &["2 scenarios passed"]);
}

#[test]
fn faults_of_the_configuration() {
    check("quorum", "{ approvers: [] }", "    config_refused: /approvers\n", &[]);
    check("quorum", "{ approvers: [] }", "", &["a configuration without fault", "at `/approvers`"]);
    let two = "{ approvers: [U1], approvals: 2 }";
    check("quorum", two, "    config_refused: [/approvals]\n", &[]);
    check(
        "quorum",
        two,
        "    config_refused: [/approvers]\n",
        &["a fault at `/approvers`", "at `/approvals`", "(invalid_config)"],
    );
    check(
        "quorum",
        "{ approvers: [U1] }",
        "    schema: { type: 1 }\n",
        &["a setting without fault", "schema"],
    );
}

#[test]
fn a_failing_policy_is_reported() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("{ at: judge, do: trap }", "    expect: { fails: trap }\n", &[]),
        ("{ at: judge, do: loop }", "    expect: { fails: fuel }\n", &[]),
        ("{ at: judge, do: loop }", "    expect: { fails: trap }\n", &["fails: trap", "fails: fuel"]),
        ("{ at: admit, do: eat_memory }", "    expect: { fails: memory }\n", &[]),
        ("{ at: admit, do: malformed_memo }", "    expect: { fails: malformed }\n", &[]),
        (
            "{ do: unlisted_code }",
            "",
            &["counted, as", "fails: malformed", "a reason whose code, `swordfish`, its"],
        ),
        ("{ at: judge, do: huge_output }", "", &["counted, as", "fails: malformed"]),
        ("{ at: check-config, do: trap }", "", &["that it can be checked", "fails: trap"]),
        ("{ at: vote, do: trap }", "    events: [{ by: U1, act: approve, expect: { fails: trap } }]\n", &[]),
    ];
    for (config, scenario, failure) in rows {
        check("misbehaving", config, scenario, failure);
    }
}

#[test]
fn a_wake_up_happens_when_it_was_asked_for() {
    let config = "{ do: wake, wake_after_ms: 60000 }";
    let asked = "    expect: { waiting: [{ kind: time }], wake_at: 1m }\n";
    check(
        "misbehaving",
        config,
        &format!("{asked}    events: [{{ act: tick, expect: {{ standing: satisfied, wake_at: never }} }}]\n"),
        &[],
    );
    check(
        "misbehaving",
        config,
        &format!("{asked}    events: [{{ act: tick, at: 30s }}]\n"),
        &["asked to be woken at 1m"],
    );
    check("misbehaving", config, "    events: [{ act: tick, at: 2m }]\n", &[]);
}

#[test]
fn a_policy_sees_who_asks() {
    let rows: &[(&str, &str)] = &[
        (
            "{ requester: U1 }",
            "{ requester: { id: U1, known: person, authenticated: false }, owners: [], rerequested_by: null, \
               lineage_depth: 0, hidden: [] }",
        ),
        (
            "{ requester: \"slack:U1\", owned_by: [\"slack:U2\"], rerequested_by: \"slack:U3\" }",
            "{ requester: { id: U1, known: person, authenticated: false }, owners: [U2], \
               rerequested_by: { id: U3, known: person, authenticated: false }, lineage_depth: 1, hidden: [] }",
        ),
        (
            "{ requester: \"github:dana\" }",
            "{ requester: { id: \"github:dana\", known: unknown, authenticated: false }, owners: [], \
               rerequested_by: null, lineage_depth: 0, hidden: [] }",
        ),
        (
            "{ requester: \"github:dana\", requester_is: person, authenticated: true }",
            "{ requester: { id: \"github:dana\", known: person, authenticated: true }, owners: [], \
               rerequested_by: null, lineage_depth: 0, hidden: [] }",
        ),
        (
            "{ requester: \"machine:nightly\", requester_is: machine, owned_by: [U2, U1] }",
            "{ requester: { id: \"machine:nightly\", known: machine, authenticated: false }, owners: [U1, U2], \
               rerequested_by: null, lineage_depth: 0, hidden: [] }",
        ),
        (
            "{ requester: U1, owned_by: U2, rerequested_by: U3, params: { a: 1, b: 2 }, redact: { hide: [b] } }",
            "{ requester: { id: U1, known: person, authenticated: false }, owners: [U2], \
               rerequested_by: { id: U3, known: person, authenticated: false }, lineage_depth: 1, \
               hidden: [b] }",
        ),
        (
            "{ requester: U1, rerequested_by: \"gitlab:7\", lineage_depth: 3 }",
            "{ requester: { id: U1, known: person, authenticated: false }, owners: [], \
               rerequested_by: { id: \"gitlab:7\", known: unknown, authenticated: false }, lineage_depth: 3, \
               hidden: [] }",
        ),
    ];
    for (setting, memo) in rows {
        let setting = setting.trim_start_matches('{');
        for text in [
            // As the setting of a scenario, and as a default.
            format!(
                "version: 1\nscenarios: [{{ name: it, config: {{ do: show_request }}, expect: {{ memo: {memo} }},{setting}]\n"
            ),
            format!(
                "version: 1\ndefaults: {{ config: {{ do: show_request }},{setting}\n\
                 scenarios: [{{ name: it, expect: {{ memo: {memo} }} }}]\n"
            ),
        ] {
            has(&tested("misbehaving", &text, "text"), 0, &["1 scenario passed"]);
        }
    }
}

#[test]
fn errors_have_their_place() {
    let rows: &[(&str, &[&str])] = &[
        ("", &["s.yaml"]),
        ("scenarios: []\n", &["s.yaml:1:1: `version: 1` is missing", "`scenarios` is missing"]),
        ("version: 2\nscenarios: [{ name: a, config: {} }]\n", &["s.yaml:1:10: the version must be 1"]),
        (
            "version: 1\nscenario: []\n",
            &["s.yaml:2:1: a file of scenarios has no field `scenario`; did you mean `scenarios`?"],
        ),
        ("version: 1\nscenarios:\n  - config: {}\n", &["s.yaml:3:5: `name` is missing"]),
        ("version: 1\nscenarios:\n  - name: a\n", &["s.yaml:3:5: `config` is missing in the scenario `a`"]),
        (
            "version: 1\nscenarios:\n  - name: a\n    config: {}\n  - name: a\n    config: {}\n",
            &["s.yaml:5:5: two scenarios have the name `a`"],
        ),
        (
            "version: 1\ndefaults: { timeout: soon }\nscenarios: [{ name: a, config: {} }, { name: b, config: {} }]\n",
            &["s.yaml:2:22: `soon` is no duration"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, config: {} }]\n",
            &["s.yaml:2", "the key `config` comes twice"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, params: [] }]\n",
            &["`params` must be a map, but is a list"],
        ),
        ("version: 1\nscenarios: [{ name: a, config: {}, redact: {} }]\n", &["either `show` or `hide`"]),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, requester: u9 }]\n",
            &["s.yaml:2:47: `u9` is neither a Slack id", "did you mean `U9`?"],
        ),
        (
            "version: 1\nscenarios:\n  - name: a\n    config: {}\n    owned_by: [dana]\n    rerequested_by: rita\n    \
             events: [{ by: u1, act: approve }]\n",
            &[
                "s.yaml:5:15: `dana` is neither",
                "s.yaml:6:21: `rita` is neither",
                "s.yaml:7:20: `u1` is neither",
            ],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, meta: { origin: { repository: x } } }]\n",
            &["`origin`:", "repository"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, requester_is: robot }]\n",
            &[
                "s.yaml:2:",
                "`requester_is`: unknown variant `robot`, expected one of `person`, `machine`, `unknown`",
            ],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, authenticated: yes }]\n",
            &["s.yaml:2:", "`authenticated` must be `true` or `false`"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, owned_by: [1] }]\n",
            &["s.yaml:2:", "an owner's id must be text: put it in quotes"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, owned_by: { U1: U2 } }]\n",
            &["s.yaml:2:", "a list (an owner's id) must be a list, but is a map"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, requester: \"slack:u1\" }]\n",
            &["s.yaml:2:", "`slack:u1` is no Slack id"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, owned_by: [\"slack:u1\"] }]\n",
            &["s.yaml:2:", "`slack:u1` is no Slack id"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, rerequested_by: \"Slack:U1\" }]\n",
            &["s.yaml:2:", "`Slack:U1` is of the source `Slack`"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, events: [{ by: \"slack:u1\", act: deny }] }]\n",
            &["s.yaml:2:", "`slack:u1` is no Slack id"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, rerequested_by: [U1] }]\n",
            &["s.yaml:2:", "`rerequested_by` must be text, but is a list"],
        ),
        (
            "version: 1\ndefaults: { rerequested_by: U1 }\nscenarios:\n  - { name: a, config: {}, lineage_depth: 0 }\n",
            &["s.yaml:4:43: with `rerequested_by`, `lineage_depth` must be at least 1"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, requester_known: machine }]\n",
            &["a scenario has no field `requester_known`"],
        ),
        (
            "version: 1\nscenarios: [{ name: a, config: {}, config_refused: /x, events: [{ act: tick }] }]\n",
            &["remove `expect` and `events`"],
        ),
    ];
    for (text, expected) in rows {
        has(&tested("quorum", text, "text"), 2, expected);
    }
    let events: &[(&str, &str)] = &[
        ("{ by: U1 }", "`act` is missing"),
        ("{ act: approve }", "`by` is missing: `approve` needs a person"),
        ("{ by: U1, act: aprove }", "`aprove` is not an act; the acts are `approve`, `deny`"),
        ("{ by: U1, act: tick }", "`tick` cannot have `by`"),
        ("{ by: U1, act: withdraw, edits: {} }", "`withdraw` cannot have `edits`"),
        ("{ by: U1, act: acknowledge }", "`persona` is missing"),
        ("{ by: U1, act: approve, edits: { a: 1 }, removes: [a] }", "`a` is both edited and removed"),
        ("{ by: U1, act: approve, at: 1h }", "`at` is after the request's `timeout`"),
        ("{ by: U1, act: approve, at: 5 }", "`at` must be a duration"),
        ("{ by: 1, act: approve }", "`by` must be text: put it in quotes"),
        ("{ by: U1, act: approve, expect: fine }", "`fine` is not an outcome; the outcomes are `satisfied`"),
        (
            "{ by: U1, act: approve, expect: { waitng: [] } }",
            "`expect` has no field `waitng`; did you mean `waiting`?",
        ),
        ("{ by: U1, act: approve, expect: { silent: true, waiting: [] } }", "an event has only one outcome"),
        ("{ by: U1, act: approve, expect: { refused: x, editable: [] } }", "remove `editable`"),
        ("{ by: U1, act: approve, expect: { memo: 1 } }", "move this to the scenario's `expect`"),
        (
            "{ by: U1, act: approve, expect: { fails: slowly } }",
            "`slowly` is not a failure; the failures are `trap`",
        ),
        ("{ by: U1, act: approve, expect: { waiting: [{ kind: money }] } }", "`kind`:"),
        ("{ by: U1, act: approve, expect: { waiting: [{ have: -1 }] } }", "`have` must be a whole number"),
        ("{ by: U1, act: approve, expect: { wake_at: 5 } }", "`wake_at` must be a duration"),
    ];
    for (event, expected) in events {
        let text = format!("version: 1\nscenarios:\n  - name: a\n    config: {{}}\n    events: [{event}]\n");
        has(&tested("quorum", &text, "text"), 2, &["s.yaml:5:", expected]);
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = Workspace::new();
    folder.write("s.yaml", quorum(BOTH));
    folder.write("core.wasm", wat::parse_str("(module)").unwrap());
    has(
        &folder.policy(&["test", "./core.wasm", "./s.yaml"]),
        2,
        &["`core.wasm` is not a policy module", "core WebAssembly"],
    );
    has(&folder.policy(&["test", "./none.wasm", "./s.yaml"]), 2, &["cannot read the module `none.wasm`"]);
    has(&folder.policy(&["test", "./modules/quorum.wasm", "./none.yaml"]), 2, &["none.yaml: cannot be read"]);
    folder.write("s.yaml", [0xff, 0xfe]);
    has(
        &folder.policy(&["test", "./modules/quorum.wasm", "./s.yaml"]),
        2,
        &["s.yaml: cannot be read: it is not UTF-8"],
    );
}

proptest::proptest! {
    #![proptest_config(Config::with_cases(Config::default().cases / 4))]
    #[test]
    fn no_text_makes_the_reader_panic(text in "(version: 1\n)?[ a-z:{}\\[\\],\n\"@#&*!-]{0,200}") {
        let _ = crate::scenario::parse("s.yaml", &text);
    }
}

#[test]
fn a_time_that_is_none_has_its_place() {
    let scenarios = quorum("  - name: late\n    requested_at: \"Christmas\"\n");
    let output = tested("quorum", &scenarios, "text");
    has(&output, 2, &["`requested_at` is `Christmas`: not a time in RFC 3339"]);
}
