//! Scenarios of edits under the override guard, run natively.

use countersign_policy_sdk::{
    Edit, Policy as _,
    scenario::{Scenario, edit},
};
use override_guard::{Config, OverrideGuard};
use serde_json::{Value, json};

fn guarded_by(config: Value) -> Scenario<OverrideGuard> {
    Scenario::new(config).acts_granted_elsewhere().admitted()
}

#[test]
fn a_listed_parameter_may_be_edited() {
    guarded_by(json!({ "keys": ["replicas", "canary"] }))
        .editable(["replicas", "canary"])
        .approve_with("U1", [edit("replicas", json!(2), json!(4)), edit("canary", None, json!(true))])
        .satisfied()
        .editable(["replicas", "canary"]);
}

#[test]
fn another_parameter_may_not() {
    guarded_by(json!({ "keys": ["replicas"] }))
        .approve_with("U1", [edit("replicas", json!(2), json!(4)), edit("ref", json!("main"), json!("evil"))])
        .refused_at("key_not_allowed", "ref")
        .satisfied();
}

#[test]
fn taking_a_parameter_away_is_an_edit_too() {
    guarded_by(json!({ "keys": ["canary"] }))
        .approve_with("U1", [edit("canary", json!(true), None)])
        .satisfied()
        .approve_with("U2", [edit("ref", json!("main"), None)])
        .refused_at("key_not_allowed", "ref");
}

#[test]
fn the_guard_grants_nothing_and_waits_for_nothing() {
    Scenario::<OverrideGuard>::new(json!({ "keys": ["replicas"] }))
        .admitted()
        .satisfied()
        .approve("U1")
        .silent()
        .approve_with("U1", [edit("replicas", json!(2), json!(4))])
        .silent()
        .deny("U1")
        .silent()
        .withdraw("U1")
        .silent();
}

#[test]
fn keys_are_counted_over_all_edits_and_once_each() {
    guarded_by(json!({ "keys": ["a", "b", "c"], "max_keys": 2 }))
        .approve_with("U1", [edit("a", json!(1), json!(2))])
        .approve_with("U2", [edit("a", json!(2), json!(3)), edit("b", json!(1), json!(2))])
        .approve_with("U3", [edit("c", json!(1), json!(2))])
        .refused_with("limit_exceeded")
        .approve_with("U3", [edit("b", json!(2), json!(3))])
        .satisfied();
}

#[test]
fn characters_are_counted_over_the_newest_value_of_each_key() {
    // A text counts with its quotes, and by characters rather than bytes: `"héé"` is 5.
    guarded_by(json!({ "keys": ["a", "b"], "max_chars": 8 }))
        .approve_with("U1", [edit("a", None, json!("longer"))])
        .satisfied()
        .approve_with("U2", [edit("b", None, json!(1))])
        .refused_with("diff_size_exceeded")
        .approve_with("U2", [edit("a", json!("longer"), json!("héé")), edit("b", None, json!(123))])
        .satisfied()
        .approve_with("U3", [edit("b", json!(123), json!(1234))])
        .refused_with("diff_size_exceeded")
        .approve_with("U3", [edit("a", json!("héé"), None)])
        .satisfied();
}

#[test]
fn what_the_schema_finds_is_refused_under_the_parameter() {
    let too_many = Edit { violations: vec!["at most 20".into()], ..edit("replicas", json!(2), json!(99)) };
    guarded_by(json!({ "keys": ["replicas"] }))
        .approve_with("U1", [too_many])
        .refused_at("schema_validation", "replicas");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let wrong = Edit { violations: vec!["not a branch".into()], ..edit("ref", json!("main"), json!("a b")) };
    guarded_by(json!({ "keys": ["replicas"], "max_keys": 1, "max_chars": 4 }))
        .approve_with("U1", [edit("replicas", json!(2), json!(4)), wrong])
        .refused_at("key_not_allowed", "ref")
        .refused_at("schema_validation", "ref")
        .refused_with("limit_exceeded")
        .refused_with("diff_size_exceeded");
}

#[test]
fn an_approval_without_edits_is_never_refused() {
    guarded_by(json!({ "keys": ["a"], "max_keys": 1, "max_chars": 1 })).approve("U1").satisfied();
}

/// A configuration, and where its fault is.
fn faulty_configs() -> [(Value, &'static str); 7] {
    [
        (json!({ "keys": [] }), "/keys"),
        (json!({ "keys": ["a", " "] }), "/keys/1"),
        (json!({ "keys": ["a", "b", "a"] }), "/keys/2"),
        (json!({ "keys": ["a"], "max_keys": 2 }), "/max_keys"),
        (json!({ "keys": ["a"], "max_keys": 0 }), "/max_keys"),
        (json!({ "keys": ["a"], "max_chars": 0 }), "/max_chars"),
        (json!({ "keys": [""] }), "/keys/0"),
    ]
}

#[test]
fn a_faulty_configuration_is_refused_where_the_fault_is() {
    for (config, path) in faulty_configs() {
        Scenario::<OverrideGuard>::config_refused(config, path);
    }
    for config in [json!({}), json!({ "keys": ["a"], "max": 1 })] {
        Scenario::<OverrideGuard>::config_refused(config, "");
    }
}

#[test]
fn the_policy_s_own_check_does_not_lean_on_the_schema() -> Result<(), serde_json::Error> {
    for (config, path) in faulty_configs() {
        let reasons = OverrideGuard::check(&serde_json::from_value::<Config>(config.clone())?);
        assert!(reasons.iter().any(|reason| reason.path.as_deref() == Some(path)), "{config}: {reasons:?}");
    }
    Ok(())
}
