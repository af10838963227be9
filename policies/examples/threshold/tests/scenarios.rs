//! What people live through below and above a threshold.

use countersign_policy_sdk::{
    Policy as _,
    scenario::{Scenario, edit},
};
use serde_json::{Value, json};
use threshold::{Config, Threshold};

fn refunds() -> Value {
    json!({ "parameter": "amount", "below": 100, "approvers": ["U1", "U2", "@support-leads"], "approvals": 2 })
}

fn refund(params: Value) -> Scenario<Threshold> {
    Scenario::new(refunds()).group("support-leads", ["U3"]).requested_by("U9").params(params).admitted()
}

#[test]
fn a_small_amount_needs_nobody() {
    for amount in [json!(0), json!(1), json!(99), json!(99.99), json!(-0.0)] {
        refund(json!({ "amount": amount })).satisfied().remembers(&json!({ "small": true }));
    }
}

#[test]
fn any_other_amount_needs_people() {
    for amount in [json!(100), json!(100.5), json!(1e300), json!(-1), json!(-0.01)] {
        refund(json!({ "amount": amount }))
            .waits_for("0 of 2 approvals")
            .asks(["U1", "U2", "@support-leads"])
            .approve("U1")
            .waits_for("1 of 2 approvals")
            .approve("U3")
            .satisfied();
    }
}

#[test]
fn what_is_no_amount_needs_people() {
    for params in [
        json!({}),
        json!({ "amount": "5" }),
        json!({ "amount": null }),
        json!({ "amount": [5] }),
        json!({ "amount": { "amount": 5 } }),
        json!({ "amount": true }),
        json!({ "amount": "[redacted]" }),
        json!({ "Amount": 5 }),
    ] {
        refund(params).waits_for("0 of 2 approvals").remembers(&json!({ "small": false }));
    }
}

#[test]
fn an_edit_to_a_small_amount_spares_nobody() {
    refund(json!({ "amount": 500 }))
        .approve_with("U1", [edit("amount", json!(500), json!(5))])
        .waits_for("1 of 2 approvals")
        .approve("U2")
        .satisfied();
}

#[test]
fn a_small_amount_that_waits_for_something_else_can_still_be_denied() {
    refund(json!({ "amount": 5 })).deny_saying("U1", "fraud").denied_with("denied_by_approver", "fraud");
}

#[test]
fn approvers_count_once_and_can_take_it_back_and_the_requester_is_none() {
    Scenario::<Threshold>::new(refunds())
        .requested_by("U2")
        .params(json!({ "amount": 500 }))
        .admitted()
        .approve("U1")
        .approve("U1")
        .refused_with("already_approved")
        .approve("U2")
        .refused_with("requester_may_not_approve")
        .withdraw("U1")
        .waits_for("0 of 2 approvals")
        .withdraw("U1")
        .silent();
}

#[test]
fn strangers_meet_silence_and_super_approvers_count() {
    Scenario::<Threshold>::new(refunds())
        .group("super-approvers", ["U0ADMIN"])
        .params(json!({ "amount": 500 }))
        .admitted()
        .approve("U7")
        .silent()
        .deny("U7")
        .silent()
        .acknowledge("U1", "security")
        .silent()
        .approve("U0ADMIN")
        .waits_for("1 of 2 approvals")
        .deny("U0ADMIN")
        .denied_with("denied_by_approver", "denied by an approver");
}

/// A configuration, and where its fault is.
fn faulty_configs() -> Vec<(Value, &'static str)> {
    let with = |key: &str, value: Value| {
        let mut config = refunds();
        config[key] = value;
        config
    };
    vec![
        (with("parameter", json!(" ")), "/parameter"),
        (with("below", json!(0)), "/below"),
        (with("below", json!(-5)), "/below"),
        (with("approvers", json!([])), "/approvers"),
        (with("approvers", json!(["U1", "@"])), "/approvers/1"),
        (with("approvals", json!(0)), "/approvals"),
        (json!({ "parameter": "a", "below": 1, "approvers": ["U1"], "approvals": 2 }), "/approvals"),
    ]
}

#[test]
fn a_faulty_configuration_is_refused_where_the_fault_is() {
    for (config, path) in faulty_configs() {
        Scenario::<Threshold>::config_refused(config, path);
    }
    for config in [json!({}), json!({ "parameter": "a", "below": 1, "approvers": ["U1"], "above": 2 })] {
        Scenario::<Threshold>::config_refused(config, "");
    }
    Scenario::<Threshold>::config_refused(
        json!({ "parameter": "a", "below": "1", "approvers": ["U1"] }),
        "/below",
    );
}

#[test]
fn the_policy_s_own_check_does_not_lean_on_the_schema() -> Result<(), serde_json::Error> {
    for (config, path) in faulty_configs() {
        let reasons = Threshold::check(&serde_json::from_value::<Config>(config.clone())?);
        assert!(reasons.iter().any(|reason| reason.path.as_deref() == Some(path)), "{config}: {reasons:?}");
    }
    Ok(())
}
