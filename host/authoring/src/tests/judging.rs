//! `policy judge`: a request's life under a set, without a gateway.

use serde_json::json;

use super::*;

const ACTIONS: &str = r#"  deploy:
    timeout: 20m
    escalate: { before: 5m }
    redact: { show: [replicas, ref] }
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC] } }
      - use: quorum
        with: { approvers: [U1, "@managers", U9], approvals: 2, escalated_approvals: 3 }
      - use: override-guard
        with: { keys: [replicas], max_keys: 1 }
  team:
    policies: [{ use: quorum, with: { approvers: ["@team"] } }]
  wakes:
    policies:
      - { use: misbehaving, with: { do: wake, wake_after_ms: 60000 } }
      - { use: quorum, with: { approvers: [U1] } }
  one:
    policies: [{ use: quorum, with: { approvers: [U1, U2] } }]
  three:
    policies: [{ use: quorum, with: { approvers: [U1, U2, U9], approvals: 3 } }]
  three_later:
    unsatisfiable: allow
    policies: [{ use: quorum, with: { approvers: [U1, U2, U9], approvals: 3 } }]
  shows:
    policies: [{ use: misbehaving, with: { do: show_request } }]
  fails:
    policies: [{ use: misbehaving, with: { at: vote, do: trap } }]
  admits_none:
    policies:
      - { use: quorum, with: { approvers: [U1] } }
      - { use: misbehaving, with: { at: admit, do: trap, requester: U9 } }
"#;

fn judged(words: &[&str]) -> Output {
    judged_for("U9", words)
}

fn judged_for(requester: &str, words: &[&str]) -> Output {
    let folder = Workspace::new();
    folder.write_set(ACTIONS);
    folder.write("schemas/deploy.json", SCHEMA);
    folder.policy(&[&["judge", "./", "--requester", requester], words].concat())
}

#[test]
fn an_open_request_says_who_could_move_it_on() {
    let said = judged(&[
        "--action",
        "deploy",
        "--params",
        r#"{"replicas": 3, "token": "s3cret"}"#,
        "--event",
        "U1 approve",
        "--event",
        "U0SEC acknowledge security @2m",
        "--event",
        "U1 approve replicas=4",
    ]);
    assert_eq!(said.code, 0);
    insta::assert_snapshot!(said.text, @"
    deploy
    policy hash <digest>

    0s      U9 asks
              persona-gate    waiting: security, by U0SEC
              quorum          waiting: 0 of 2 approvals, by U1, @managers
              override-guard  satisfied
                              editable: replicas
            → awaiting_personas
    1s      U1 approves
              persona-gate    refuses: personas_pending (waiting for the acknowledgement of security)
              quorum          grants it
                              waiting: 1 of 2 approvals, by U1, @managers
              override-guard  satisfied
                              editable: replicas
            → refused: a policy objects: waiting for the acknowledgement of security
    2m      U0SEC acknowledges security
              persona-gate    grants it
                              satisfied
              quorum          waiting: 0 of 2 approvals, by U1, @managers
              override-guard  satisfied
                              editable: replicas
            → ready_for_approval
    2m 1s   U1 approves with replicas=4
              persona-gate    satisfied
              quorum          grants it
                              waiting: 1 of 2 approvals, by U1, @managers
              override-guard  satisfied
                              editable: replicas
            → ready_for_approval

    now: ready_for_approval; expires at 20m, escalates at 15m

    missing
      1 of 2 approvals (approval, 1 of 2, by U1, @managers)

    an approver may edit replicas

    who could move it on
      U0RM1    approve  → approved
      U0RM2    approve  → approved
      U9       approve  would be refused: you are not entitled to this: whoever made a request may not
                          approve it
      U0ADMIN  approve  → approved

    who could deny it: U0RM1, U0RM2, U1, U9, U0ADMIN
    ");
}

#[test]
fn a_request_that_nobody_could_approve_is_refused_as_by_a_gateway() {
    let refused = "→ refused (unsatisfiable): 3 approvals are needed, which only 2 people can give: U1, U2; may not act \
                   on this request: U9";
    has(&judged(&["--action", "three"]), 0, &[refused, "now: there is no request"]);
    has(&judged_for("U5", &["--action", "three"]), 0, &["now: ready_for_approval"]);
    has(&judged(&["--action", "three_later"]), 0, &["now: ready_for_approval"]);
    let json = judged(&["--action", "three", "--format", "json"]);
    has(&json, 0, &["\"code\": \"unsatisfiable\""]);
    assert!(!json.text.contains("ready_for_approval"), "{}", json.text);
    let voted = judged(&["--action", "three", "--event", "U1 approve"]);
    has(&voted, 2, &["there is no request, for it was not admitted"]);
}

#[test]
fn a_decision_ends_it() {
    let said = judged(&[
        "--action",
        "deploy",
        "--event",
        "U0SEC acknowledge security",
        "--event",
        "U0RM1 approve",
        "--event",
        "escalated",
        "--event",
        "U0RM2 approve",
        "--event",
        "U0ADMIN approve",
    ]);
    let after = said.text.split_once("→ ready_for_approval\n15m").map(|(_, after)| format!("15m{after}"));
    insta::assert_snapshot!(after.unwrap_or(said.text), @"
    15m     the escalation time passes
              persona-gate    satisfied
              quorum          waiting: 1 of 3 approvals, by U1, @managers
              override-guard  satisfied
                              editable: replicas
            → ready_for_approval
    15m 1s  U0RM2 approves
              persona-gate    satisfied
              quorum          grants it
                              waiting: 2 of 3 approvals, by U1, @managers
              override-guard  satisfied
                              editable: replicas
            → ready_for_approval
    15m 2s  U0ADMIN approves
              persona-gate    satisfied
              quorum          grants it
                              satisfied
              override-guard  satisfied
                              editable: replicas
            → approved

    now: approved
    ");
}

#[test]
fn a_denial_says_why() {
    let said = judged(&["--action", "deploy", "--event", "U1 deny not on a Friday"]);
    has(&said, 0, &["U1 denies: not on a Friday", "→ denied", "now: denied, because: not on a Friday"]);
}

#[test]
fn what_is_due_happens_by_itself() {
    let said = judged(&["--action", "wakes", "--event", "U1 approve @2m"]);
    has(
        &said,
        0,
        &["1m      the time to wake comes", "looks again at 1m", "2m      U1 approves", "now: approved"],
    );
    let said = judged(&["--action", "deploy", "--event", "U0SEC acknowledge security @16m"]);
    has(&said, 0, &["15m     the escalation time passes", "0 of 3 approvals"]);
}

#[test]
fn a_refusal_is_what_people_would_see() {
    let rows: &[(&[&str], &[&str])] = &[
        (&["U7 approve"], &["→ refused (unauthorized): you are not entitled to this"]),
        (&["U1 approve"], &["→ refused: a policy objects: waiting for the acknowledgement of security"]),
        (
            &["U0SEC acknowledge security", "U1 approve ref=x"],
            &["→ refused: a policy objects: ", "key_not_allowed at ref"],
        ),
        (&["U0SEC acknowledge security", "U1 approve replicas=99"], &["schema_validation at replicas"]),
        (&["U0SEC acknowledge security", "U1 approve", "U1 approve"], &["→ refused (duplicate_approval)"]),
        (
            &["U0SEC acknowledge security", "U0SEC acknowledge security"],
            &["→ refused (duplicate_acknowledgement)"],
        ),
        (&["U1 withdraw"], &["→ refused (nothing_to_withdraw)"]),
    ];
    for (events, said) in rows {
        let words: Vec<&str> = ["--action", "deploy"]
            .into_iter()
            .chain(events.iter().flat_map(|event| ["--event", *event]))
            .collect();
        has(&judged(&words), 0, said);
    }
}

#[test]
fn a_policy_that_fails_refuses_the_act() {
    let said = judged(&["--action", "fails", "--event", "U1 approve"]);
    has(
        &said,
        0,
        &[
            "fails (trap)",
            "→ refused (policy_failure): policy `misbehaving` failed (trap)",
            "nobody that the policy set knows of",
        ],
    );
    let said = judged(&["--action", "admits_none"]);
    has(&said, 0, &["→ refused (policy_failure)", "now: there is no request"]);
}

#[test]
fn a_policy_sees_who_asks() {
    let rows: &[(&str, &[&str], serde_json::Value)] = &[
        ("U9", &[], json!({ "id": "U9", "known": "person", "authenticated": false })),
        ("github:dana", &[], json!({ "id": "github:dana", "known": "unknown", "authenticated": false })),
        (
            "github:dana",
            &["--requester-is", "person", "--authenticated"],
            json!({ "id": "github:dana", "known": "person", "authenticated": true }),
        ),
        (
            "machine:nightly",
            &["--requester-is", "machine", "--owned-by", "U2", "--owned-by", "U1"],
            json!({ "id": "machine:nightly", "known": "machine", "authenticated": false }),
        ),
    ];
    for (requester, words, expected) in rows {
        let said = judged_for(requester, &[&["--action", "shows", "--format", "json"], *words].concat());
        let view: serde_json::Value = serde_json::from_str(&said.text).expect(&said.text);
        let label = view["missing"][0]["label"].as_str().expect(&said.text);
        let seen: serde_json::Value = serde_json::from_str(label).expect(label);
        assert_eq!(seen["requester"], *expected);
        let owners = if words.contains(&"--owned-by") { json!(["U1", "U2"]) } else { json!([]) };
        assert_eq!(seen["owners"], owners, "{requester}");
    }
}

#[test]
fn unknown_requesters_and_owners_are_judged_as_such() {
    let said = judged_for("github:dana", &["--action", "one"]);
    has(
        &said,
        0,
        &["github:dana asks", "requester_unknown", "→ refused (policy_denied)", "there is no request"],
    );
    let machine = ["--action", "one", "--requester-is", "machine", "--owned-by", "U1"];
    let said = judged_for("machine:nightly", &[&machine[..], &["--event", "U1 approve"]].concat());
    has(
        &said,
        0,
        &["whoever made a request may not", "→ refused (unauthorized)", "U2       approve  → approved"],
    );
    let said = judged_for("machine:nightly", &[&machine[..], &["--event", "U2 approve"]].concat());
    has(&said, 0, &["now: approved"]);
}

/// One person has one name, however they are given: who asks may not approve.
#[test]
fn people_are_called_as_the_gateway_calls_them() {
    for (requester, owners, by) in [
        ("slack:U1", &[][..], "U1"),
        ("U1", &[], "slack:U1"),
        ("slack:U1", &[], "slack:U1"),
        ("U9", &["--owned-by", "slack:U1"], "U1"),
    ] {
        let event = format!("{by} approve");
        let words = [&["--action", "one", "--event", event.as_str()], owners].concat();
        let said = judged_for(requester, &words);
        has(&said, 0, &["→ refused (unauthorized)", "  approve  → approved"]);
        assert!(!said.text.contains("slack:"), "{}", said.text);
    }
    let wrong: &[(&[&str], &str)] = &[
        (&["--requester", "slack:dana"], "is no Slack id"),
        (&["--requester", "GitHub:dana"], "of the source `GitHub`"),
        (&["--requester", ""], "is empty"),
        (&["--requester", " U1"], "has spaces around it"),
        (&["--owned-by", "slack:u1"], "is no Slack id"),
        (&["--event", "slack:u1 approve"], "is no Slack id"),
        (&["--event", ":U1 approve"], "is of the source ``"),
        (&["--requester", "u0alice"], "`--requester`: `u0alice` is neither a Slack id"),
        (&["--requester", "u0alice"], "did you mean `U0ALICE`?"),
        (&["--requester", "dana"], "nor the id of another system (`source:id`)\n"),
        (&["--owned-by", "dana"], "`--owned-by`: `dana` is neither"),
        (
            &["--event", "U1 approve", "--event", "u0bob approve"],
            "`--event 'u0bob approves'`: `u0bob` is neither",
        ),
        (&["--usergroup", "S0TEAM=U1,u2"], "`u2` is no Slack id"),
    ];
    let folder = Workspace::new();
    folder.write_set(ACTIONS);
    for (words, said) in wrong {
        has(&folder.policy(&[&["judge", "./", "--action", "one"], *words].concat()), 2, &[said]);
    }
    folder.write("access.yaml", "version: 1\ncallers: {}\npeople: { dana: { slack: U1 } }\n");
    let known = ["judge", "./", "--action", "one", "--access", "./access.yaml", "--requester"];
    has(&folder.policy(&[&known[..], &["dana", "--event", "U2 approve"]].concat()), 0, &["now: approved"]);
    let unknown = folder.policy(&[&known[..], &["rita"]].concat());
    has(&unknown, 2, &["`rita` is neither", "nor a name in `people` of the access file"]);
}

#[test]
fn members_of_a_user_group_of_slack_are_given() {
    let said = judged(&["--action", "team", "--event", "U5 approve"]);
    has(
        &said,
        0,
        &["→ refused (unauthorized)", "who is in S0TEAM only Slack knows: say it with `--usergroup`"],
    );
    let said = judged(&["--action", "team", "--usergroup", "S0TEAM=U5, U6", "--event", "U9 approve"]);
    has(&said, 0, &["U5       approve  → approved", "U6       approve  → approved"]);
    let said = judged(&["--action", "team", "--usergroup", "S0TEAM=U5", "--event", "U5 approve"]);
    has(&said, 0, &["now: approved"]);
}

#[test]
fn json_says_the_same() {
    let said = judged(&["--action", "deploy", "--event", "U0SEC acknowledge security", "--format", "json"]);
    let view: serde_json::Value = serde_json::from_str(&said.text).unwrap();
    assert_eq!(view["status"], "ready_for_approval");
    assert_eq!(view["story"][1]["event"], "U0SEC acknowledges security");
    assert_eq!(view["story"][1]["policies"][0]["ruling"]["grants"], true);
    assert_eq!(view["missing"][0]["need"], 2);
    assert_eq!(view["editable"], serde_json::json!(["replicas"]));
    assert_eq!(view["expiresAtMs"], 1_200_000);
    assert_eq!(view["escalatesAtMs"], 900_000);
    let moves = view["couldMove"].as_array().unwrap();
    let of = |who: &str| moves.iter().find(|action| action["who"] == who).cloned().unwrap_or_default();
    assert_eq!(of("U1")["status"], "ready_for_approval");
    assert_eq!(of("U9")["refusal"]["code"], "unauthorized");
    assert_eq!(view["couldDeny"], serde_json::json!(["U0RM1", "U0RM2", "U1", "U9", "U0ADMIN"]));
}

#[test]
fn what_cannot_be_judged_is_an_error() {
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(31), "]".repeat(31));
    let rows: &[(&[&str], &[&str])] = &[
        (
            &["--action", "deplo"],
            &["no policy of the set knows the action `deplo`", "did you mean `deploy`?"],
        ),
        (&["--action", "deploy", "--params", "[]"], &["`--params` is no JSON object"]),
        (&["--action", "deploy", "--params", "{"], &["`params`: malformed JSON: EOF"]),
        // What a gateway would not take from a caller either.
        (
            &["--action", "deploy", "--params", r#"{"a":1,"a":2}"#],
            &["`--params` is not what a gateway takes: `params.a`: this key comes twice"],
        ),
        (
            &["--action", "deploy", "--params", r#"{"a":[12345678901234567890]}"#],
            &["`params.a[0]`: a whole number beyond ±(2^53 − 1)"],
        ),
        (&["--action", "deploy", "--params", &deep], &["nested deeper than 32"]),
        (&["--action", "deploy", "--params", "@/none"], &["cannot read the parameters in `/none`"]),
        (&["--action", "deploy", "--event", "U1 aprove"], &["`aprove` is not something that a person does"]),
        (&["--action", "deploy", "--event", "tick"], &["event 1", "no policy asked to be woken"]),
        (&["--action", "team", "--event", "escalated"], &["event 1", "the action does not escalate"]),
        (
            &["--action", "deploy", "--event", "escalated", "--event", "escalated"],
            &["event 2", "escalated already"],
        ),
        (&["--action", "deploy", "--event", "escalated @1m"], &["nothing is due at 1m"]),
        (
            &["--action", "deploy", "--event", "U1 approve @2m", "--event", "U1 approve @1m"],
            &["it is 2m already"],
        ),
        (&["--action", "deploy", "--event", "U1 approve @20m"], &["by then the request is expired"]),
        (
            &["--action", "deploy", "--event", "U1 deny", "--event", "U1 approve"],
            &["the request is denied already"],
        ),
        (&["--action", "admits_none", "--event", "U1 approve"], &["there is no request"]),
        (
            &["--action", "team", "--requester-is", "robot"],
            &["unknown variant `robot`, expected one of `person`, `machine`, `unknown`"],
        ),
        (&["--action", "team", "--usergroup", "U1=U2"], &["`U1` is no user group of Slack"]),
        (&["--action", "team", "--usergroup", "S0TEAM"], &["ID=MEMBER,MEMBER"]),
    ];
    for (words, said) in rows {
        has(&judged(words), 2, said);
    }
    let folder = Workspace::new();
    folder.write_set(&ACTIONS.replace("use: persona-gate", "use: persona-gat"));
    has(&folder.policy(&["judge", "./", "--action", "deploy"]), 2, &["policy-set.yaml:", "names no module"]);
}

#[test]
fn a_request_is_made_when_it_is_said() {
    let said = judged(&["--action", "shows", "--at", "2026-12-24T17:30:00Z"]);
    has(&said, 0, &["asked at 2026-12-24T17:30:00.000Z", "expires at 10m"]);
    let said = judged(&["--action", "shows"]);
    assert!(!said.text.contains("asked at"), "{}", said.text);
    has(&judged(&["--action", "shows", "--at", "tomorrow"]), 2, &["not a time in RFC 3339"]);
    has(&judged(&["--action", "shows", "--at", "9999-12-31T23:59:59Z"]), 2, &["times end with 9999-12-30"]);
}

/// Editors write one at the beginning of a file.
#[test]
fn a_byte_order_mark_is_no_part_of_parameters() {
    let folder = Workspace::new();
    folder.write_set(ACTIONS);
    folder.write("params.json", "\u{feff}{\"replicas\": 3}");
    let params = format!("@{}", folder.path().join("params.json").display());
    let said = folder.policy(&["judge", "./", "--action", "deploy", "--params", &params]);
    has(&said, 0, &["now: awaiting_personas"]);
}
