//! Scenarios of the persona gate, run natively.

use countersign_policy_sdk::{
    Policy as _,
    scenario::{Scenario, edit},
};
use persona_gate::{Config, PersonaGate};
use serde_json::{Value, json};

/// Security and release must have seen it.
fn security_and_release() -> Scenario<PersonaGate> {
    Scenario::new(json!({ "personas": { "security": ["U1"], "release": ["U2", "@release-managers"] } }))
        .group("release-managers", ["U3"])
        .acts_granted_elsewhere()
        .admitted()
}

#[test]
fn the_gate_opens_once_every_persona_is_acknowledged() {
    security_and_release()
        .waits_for_all(["release", "security"])
        .asks(["U2", "@release-managers"])
        .acknowledge("U1", "security")
        .waits_for("release")
        .acknowledge("U3", "release")
        .satisfied()
        .approve("U9")
        .satisfied();
}

#[test]
fn nobody_approves_while_personas_are_pending() {
    security_and_release()
        .approve("U9")
        .refused_with("personas_pending")
        .acknowledge("U1", "security")
        .approve_with("U9", [edit("replicas", json!(2), json!(4))])
        .refused_with("personas_pending")
        .acknowledge("U2", "release")
        .approve("U9")
        .satisfied();
}

#[test]
fn the_gate_itself_grants_acknowledgements_and_nothing_else() {
    Scenario::<PersonaGate>::new(json!({ "personas": { "security": ["U1"] } }))
        .admitted()
        .deny("U1")
        .silent()
        .acknowledge("U1", "security")
        .satisfied()
        .approve("U1")
        .silent()
        .deny("U1")
        .silent();
}

#[test]
fn only_holders_acknowledge() {
    security_and_release()
        .acknowledge("U2", "security")
        .refused_at("not_a_holder", "security")
        .acknowledge("U9", "release")
        .refused_with("not_a_holder")
        .waits_for_all(["release", "security"]);
}

#[test]
fn super_approvers_hold_no_persona() {
    Scenario::<PersonaGate>::new(json!({ "personas": { "security": ["U1"] } }))
        .group("super-approvers", ["U0ADMIN"])
        .admitted()
        .acknowledge("U0ADMIN", "security")
        .refused_with("not_a_holder")
        .approve("U0ADMIN")
        .refused_with("personas_pending");
}

#[test]
fn one_person_may_hold_several_personas() {
    Scenario::<PersonaGate>::new(json!({ "personas": { "security": ["U1"], "release": ["U1"] } }))
        .admitted()
        .acknowledge("U1", "security")
        .waits_for("release")
        .acknowledge("U1", "release")
        .satisfied();
}

#[test]
fn another_gate_s_persona_is_that_gate_s_business() {
    Scenario::<PersonaGate>::new(json!({ "personas": { "security": ["U1"] } }))
        .admitted()
        .acknowledge("U1", "legal")
        .silent()
        .waits_for("security");
}

#[test]
fn a_denial_needs_no_acknowledgement() {
    security_and_release().deny("U9").waits_for_all(["release", "security"]);
}

#[test]
fn an_acknowledgement_can_be_taken_back() {
    Scenario::<PersonaGate>::new(json!({ "personas": { "security": ["U1", "U2"] } }))
        .admitted()
        .withdraw("U1")
        .silent()
        .acknowledge("U1", "security")
        .withdraw("U2")
        .silent()
        .withdraw("U1")
        .waits_for("security")
        .acknowledge("U2", "security")
        .satisfied();
}

#[test]
fn somebody_else_s_withdrawal_is_not_the_gate_s_business() {
    security_and_release()
        .acknowledge("U1", "legal")
        .withdraw("U1")
        .silent()
        .waits_for_all(["release", "security"]);
}

#[test]
fn an_edit_keeps_the_acknowledgements() {
    Scenario::<PersonaGate>::new(json!({ "personas": { "security": ["U1"] } }))
        .acts_granted_elsewhere()
        .admitted()
        .acknowledge("U1", "security")
        .approve_with("U9", [edit("replicas", json!(2), json!(4))])
        .satisfied();
}

#[test]
fn an_escalation_opens_no_gate() {
    security_and_release().escalated().waits_for_all(["release", "security"]);
}

/// A configuration, and where its fault is.
fn faulty_configs() -> [(Value, &'static str); 7] {
    [
        (json!({ "personas": {} }), "/personas"),
        (json!({ "personas": { "security": [] } }), "/personas/security"),
        (json!({ "personas": { "security": ["U1", "U1"] } }), "/personas/security/1"),
        (json!({ "personas": { "security": ["@"] } }), "/personas/security/0"),
        (json!({ "personas": { " ": ["U1"] } }), "/personas/ "),
        (json!({ "personas": { "a/b~c": [" "] } }), "/personas/a~1b~0c/0"),
        (json!({ "personas": { "security ": ["U1"] } }), "/personas/security "),
    ]
}

#[test]
fn a_faulty_configuration_is_refused_where_the_fault_is() {
    for (config, path) in faulty_configs() {
        Scenario::<PersonaGate>::config_refused(config, path);
    }
    for config in [json!({}), json!({ "personas": { "security": ["U1"] }, "persona": {} })] {
        Scenario::<PersonaGate>::config_refused(config, "");
    }
    Scenario::<PersonaGate>::config_refused(json!({ "personas": { "x".repeat(65): ["U1"] } }), "/personas");
}

#[test]
fn the_policy_s_own_check_does_not_lean_on_the_schema() -> Result<(), serde_json::Error> {
    for (config, path) in faulty_configs() {
        let reasons = PersonaGate::check(&serde_json::from_value::<Config>(config.clone())?);
        assert!(reasons.iter().any(|reason| reason.path.as_deref() == Some(path)), "{config}: {reasons:?}");
    }
    Ok(())
}
