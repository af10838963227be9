//! `policy diff`.

use serde_json::{Value, json};

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
      escalation: 5m before the expiry, mentioning U9
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

#[test]
fn a_set_that_cannot_be_loaded_is_no_difference() {
    let (old, new) = sets(OLD, &OLD.replace("use: quorum", "use: quorom"));
    let output = diff(&old, &new, &[]);
    has(&output, 2, &["cannot be loaded", "`quorom` names no module"]);
    has(&old.policy(&["diff", "./", "./none"]), 2, &["there is no policy set at `none/policy-set.yaml`"]);
}
