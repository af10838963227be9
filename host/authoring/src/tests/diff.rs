//! `policy diff`.

use countersign_policy::{PolicySet, Stored};
use serde_json::{Map, Value, json};

use super::*;

const OLD: &str = r#"  deploy:
    timeout: 10m
    redact: { show: [replicas, ref] }
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC] } }
      - use: quorum
        with: { approvers: [U1, "@managers"], approvals: 2 }
      - use: override-guard
        with: { keys: [replicas] }
  rotate:
    redact: { hide: [secret] }
    policies: [{ use: quorum, with: { approvers: [U1] } }]
"#;

/// The same folder twice, with a set in each.
fn sets(old: &str, new: &str) -> (Workspace, Workspace) {
    let (before, after) = (Workspace::new(), Workspace::new());
    before.write_set(old);
    after.write_set(new);
    (before, after)
}

fn diff(old: &Workspace, new: &Workspace, more: &[&str]) -> Output {
    let new = new.path().display().to_string();
    old.policy(&[&["diff", "./", &new], more].concat())
}

#[test]
fn sets_that_were_only_written_otherwise_do_not_differ() {
    let other = OLD.replace("timeout: 10m", "timeout: 600s").replace("[replicas, ref]", "[ref, replicas]");
    let (old, new) = sets(OLD, &other);
    insta::assert_snapshot!(diff(&old, &new, &[]).text, @"nothing changes: both sets have the hash <digest>");
    has(&diff(&old, &new, &[]), 0, &[]);
}

#[test]
fn what_changes_for_people_is_said_action_by_action() {
    let changed = OLD
        .replace("timeout: 10m", "timeout: 30m\n    channel: C0OTHER\n    consent: summary\n    escalate: { before: 5m, mention: U9 }")
        .replace("[U0SEC]", "[U0SEC, U0SEC2]")
        .replace("approvals: 2", "approvals: 1")
        .replace("[U1, \"@managers\"]", "[\"@managers\", U7]")
        .replace("keys: [replicas]", "keys: [ref, replicas]")
        .replace("  rotate:", "  restart:");
    let (old, new) = sets(OLD, &changed);
    let output = diff(&old, &new, &[]);
    assert_eq!(output.code, 1);
    insta::assert_snapshot!(output.text, @"
    deploy
      approvals needed: 2 → 1
      can acknowledge as security: +U0SEC2
      can approve: +U7, -U1
      can be edited: +ref
      channel: C0DEPLOYS → C0OTHER
      configuration of override-guard at /keys: +ref
      configuration of persona-gate at /personas/security: +U0SEC2
      configuration of quorum at /approvals: 2 → 1
      configuration of quorum at /approvers: +U7, -U1
      consent: all that a request shows must have been read → what the message shows is enough
      escalation: 5m before the expiry
      escalation channel: none
      escalation mentions: U9
      timeout: 10m → 30m
    restart: new
      approval by nobody: not allowed
      approval is valid for: ever
      approval must be consumed: no
      approvals needed: 1
      can approve: +U1
      channel: C0DEPLOYS
      configuration of quorum at /approvers: +U1
      consent: all that a request shows must have been read
      module of quorum: sha256:<digest>
      parameters have a schema: no
      people notified at first: no
      policies: quorum
      request that needs more people than there are: not made
      shown parameters: all but secret
      timeout: 10m
    rotate: removed; from now on it is an action that is not listed

    1 action changed, 1 new, 1 removed
    ");
    let json: Value = serde_json::from_str(&diff(&old, &new, &["--format", "json"]).text).unwrap();
    assert_eq!(json["actions"]["rotate"], json!({ "kind": "removed", "changes": [] }));
    assert_eq!(json["actions"]["restart"]["kind"], "added");
    let changes = json["actions"]["deploy"]["changes"].as_array().unwrap();
    let of = |what: &str| changes.iter().find(|change| change["what"] == what).unwrap();
    assert_eq!(of("approvals needed"), &json!({ "what": "approvals needed", "old": "2", "new": "1" }));
    assert_eq!(of("can approve"), &json!({ "what": "can approve", "added": ["U7"], "removed": ["U1"] }));
}

/// Who can approve is a question of people: a group with other members is another answer.
#[test]
fn a_group_with_other_members_changes_who_can_approve() {
    let (old, new) = sets(OLD, OLD);
    let text = fs::read_to_string(new.path().join("policy-set.yaml")).unwrap();
    new.write("policy-set.yaml", text.replace("[U0RM1, U0RM2]", "[U0RM1, U0RM3]"));
    insta::assert_snapshot!(diff(&old, &new, &[]).text, @"
    groups
      @managers: +U0RM3, -U0RM2
    deploy
      can approve: +U0RM3, -U0RM2

    1 action changed, 0 new, 0 removed
    ");
}

#[test]
fn what_a_synthetic_request_does_not_show_is_compared_too() {
    let other = OLD.replace("approvals: 2", "approvals: 2, escalated_approvals: 3");
    let (old, new) = sets(OLD, &other.replace("timeout: 10m", "timeout: 10m\n    escalate: { before: 5m }"));
    for set in [&old, &new] {
        set.write("schemas/deploy.json", SCHEMA);
    }
    new.write("schemas/deploy.json", SCHEMA.replace("20", "30"));
    let output = diff(&old, &new, &[]);
    has(
        &output,
        1,
        &[
            "  schema at /properties/replicas/maximum: 20 → 30\n",
            "  configuration of quorum at /escalated_approvals: 3\n",
        ],
    );
}

/// What has the same text can still be something else: a name with a comma is one name.
#[test]
fn names_are_compared_and_not_their_text() {
    let with = |line: &str| OLD.replace("    timeout: 10m\n", &format!("    timeout: 10m\n    {line}\n"));
    let hiding = |keys: &str| OLD.replace("{ hide: [secret] }", keys);
    for (old, new, said) in [
        (
            hiding("{ hide: [password, token] }"),
            hiding("{ hide: [\"password, token\"] }"),
            "  shown parameters: all but password, token → all but \"password, token\"\n",
        ),
        (
            hiding("{ show: [password, token] }"),
            hiding("{ show: [\"password, token\"] }"),
            "  shown parameters: only password, token → only \"password, token\"\n",
        ),
        (
            with("rerequest: { by: [U1, U2] }"),
            with("rerequest: { by: [\"U1, U2\"] }"),
            "by U1, U2 → after 5m, 5 times in 1d at the most, by \"U1, U2\"\n",
        ),
        (
            with("escalate: { before: 1m, channel: C1, mention: U2 }"),
            with("escalate: { before: 1m, channel: \"C1, mentioning U2\" }"),
            "  escalation channel: C1 → \"C1, mentioning U2\"\n  escalation mentions: U2 → none\n",
        ),
        (with("channel: C1"), with("channel: none"), "  channel: C1 → \"none\"\n"),
        (with("supersede: [a, b]"), with("supersede: [\"a, b\"]"), "+\"a, b\", -a, -b\n"),
        (
            OLD.replace("approvers: [U1] }", "approvers: [U1, U2] }"),
            OLD.replace("approvers: [U1] }", "approvers: [\"U1, U2\"] }"),
            "  can approve: +\"U1, U2\", -U1, -U2\n",
        ),
    ] {
        let (old, new) = sets(&old, &new);
        has(&diff(&old, &new, &[]), 1, &[said]);
    }
}

#[test]
fn a_group_is_named_even_if_nobody_is_in_it() {
    let (old, new) = sets(OLD, OLD);
    let text = fs::read_to_string(new.path().join("policy-set.yaml")).unwrap();
    new.write("policy-set.yaml", text.replace("groups:\n", "groups:\n  none: []\n"));
    let added = diff(&old, &new, &[]);
    has(&added, 1, &["groups\n  @none: a group without members\n\n0 actions changed"]);
    has(&diff(&new, &old, &[]), 1, &["  @none: no longer a group without members\n"]);
}

#[test]
fn one_number_written_in_two_ways_is_the_same() {
    let (old, new) = sets(OLD, &OLD.replace("approvals: 2", "approvals: 2.0"));
    has(&diff(&old, &new, &[]), 0, &["nothing changes"]);
}

/// No text of a set looks like what the command says, or does something to a terminal.
#[test]
fn nothing_in_a_set_can_forge_the_report() {
    let forged = "d\\nnothing changes: both sets have the hash 4f0d\\nrotate\\n  timeout: 1s\\u202E";
    let new = OLD.replace(
        "    timeout: 10m\n",
        &format!("    timeout: 10m\n    description: \"{forged}\"\n    channel: \"a b\\u2066\"\n"),
    );
    let new = new.replace("security: [U0SEC]", "security: [U0SEC], \"x\\e[2J\\u2028y\": [U0SEC]");
    let (old, new) = sets(OLD, &new);
    let output = diff(&old, &new, &[]);
    assert_eq!(output.code, 1);
    let unseen = |letter: char| letter != '\n' && countersign_core::text::is_invisible(letter);
    for text in
        [&output.text, &diff(&old, &new, &["--format", "json"]).text, &new.policy(&["check", "./"]).text]
    {
        assert!(!text.contains(unseen), "{text:?}");
    }
    let lines: Vec<&str> = output.text.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("nothing changes")).count(), 1);
    assert!(lines.iter().any(|line| line.starts_with("  description: \"d\\nnothing changes")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("as x\\u{1b}[2J\\u{2028}y: ")), "{lines:#?}");
    assert!(!lines.contains(&"rotate"), "{lines:#?}");
}

/// Every entry that differs from this one in one value.
fn variants(document: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    match document {
        Value::Null => found.push(json!("x")),
        Value::Bool(value) => found.push(json!(!value)),
        Value::Number(number) => found.push(json!(number.as_u64().unwrap() + 1)),
        Value::String(text) => found.extend([format!("{text}x"), format!("{text}, U9")].map(Value::from)),
        Value::Array(items) => {
            for index in 0..items.len() {
                let mut fewer = items.clone();
                let item = fewer.remove(index);
                found.push(json!(fewer));
                found.extend(variants(&item).into_iter().map(|variant| {
                    let mut other = items.clone();
                    other[index] = variant;
                    json!(other)
                }));
            }
            found.push(json!([&items[..], &[json!("U9")]].concat()));
            found.push(json!(items.iter().rev().collect::<Vec<_>>()));
            if let Some(names) = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
                found.push(json!([names.join(", ")]));
                found.push(json!(names.join(", ")));
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                let mut fewer: Map<String, Value> = members.clone();
                fewer.remove(key);
                found.push(json!(fewer));
                fewer.insert(format!("{key}x"), value.clone());
                found.push(json!(fewer));
                found.extend(variants(value).into_iter().map(|variant| {
                    let mut other = members.clone();
                    other.insert(key.clone(), variant);
                    json!(other)
                }));
            }
            found.extend(["hide", "x"].map(|key| {
                let mut more = members.clone();
                more.insert(key.to_owned(), json!([]));
                json!(more)
            }));
        }
    }
    found.push(Value::Null);
    found
}

/// Whatever changes the hash of a set is named, and by what it is: the hash alone is named only should all else fail.
#[test]
fn every_change_of_a_hash_is_named() {
    let everything = r#"  deploy:
    description: Deploy
    timeout: 10m
    channel: C1
    escalate: { before: 5m, channel: C2, mention: U2 }
    redact: { show: [replicas, ref] }
    rerequest: { cooldown: 1m, limit: 3, window: 1h, by: [U1, "@managers"] }
    unattended: true
    consent: summary
    notify: true
    consume: required
    valid_for: 1h
    supersede: [ref, replicas]
    unsatisfiable: allow
    policies:
      - use: persona-gate
        with: { personas: { security: [U0SEC, U2], legal: [U0LAW] } }
      - use: quorum
        with: { approvers: [U1, "@managers"], approvals: 2, requester_may_approve: true }
      - use: override-guard
        with: { keys: [ref, replicas], max_keys: 1 }
"#;
    let folder = Workspace::new();
    folder.write_set(everything);
    folder.write("schemas/deploy.json", SCHEMA);
    let set = PolicySet::load(folder.path(), &engine()).unwrap();
    let pins = set.pins();
    let entry = json!(pins.entries[0]);
    let restore = |entry: Value| {
        let entries = vec![serde_json::from_value(entry).ok()?];
        let stored =
            Stored { name: "set".into(), entries, modules: pins.modules.clone(), signatures: vec![] };
        PolicySet::restore(stored, &engine(), &str::to_owned).ok()
    };
    assert_eq!(restore(entry.clone()).unwrap().hash(), set.hash());
    let (mut differ, mut fields) = (0, std::collections::BTreeSet::new());
    for variant in variants(&entry) {
        let Some(other) = restore(variant.clone()) else { continue };
        for (old, new) in [(&set, &other), (&other, &set)] {
            let report = crate::commands::diff::report(old, new);
            let named =
                report["groups"].as_array().unwrap().len() + report["actions"].as_object().unwrap().len();
            assert_eq!(named > 0, old.hash() != new.hash(), "{variant:#}\n{report:#}");
            assert!(!report.to_string().contains("policy hash"), "{variant:#}\n{report:#}");
        }
        if other.hash() != set.hash() {
            differ += 1;
            let members = entry.as_object().unwrap().iter();
            fields.extend(
                members.filter(|(key, value)| variant.get(key) != Some(value)).map(|(key, _)| key.clone()),
            );
        }
    }
    assert!(differ > 100, "{differ}");
    let all: std::collections::BTreeSet<String> = entry.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, all, "each field is changed");
}

#[test]
fn a_set_that_cannot_be_loaded_is_no_difference() {
    let (old, new) = sets(OLD, &OLD.replace("use: quorum", "use: quorom"));
    let output = diff(&old, &new, &[]);
    has(&output, 2, &["cannot be loaded", "`quorom` names no module"]);
    has(&old.policy(&["diff", "./", "./none"]), 2, &["there is no policy set at `none/policy-set.yaml`"]);
}
