//! Scenarios of the quorum, run natively.

use countersign_policy_sdk::{
    Known, Policy as _,
    scenario::{Scenario, edit},
};
use quorum::{Config, Quorum};
use serde_json::{Value, json};

/// Two of three named people.
fn two_of_three() -> Scenario<Quorum> {
    Scenario::new(json!({ "approvers": ["U1", "U2", "U3"], "approvals": 2 })).requested_by("U9").admitted()
}

#[test]
fn one_approver_is_enough_unless_more_are_asked_for() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1", "U2"] }))
        .admitted()
        .waits_for("0 of 1 approval")
        .asks(["U1", "U2"])
        .approve("U2")
        .satisfied();
}

#[test]
fn two_different_people_approve_and_neither_counts_twice() {
    two_of_three()
        .waits_for("0 of 2 approvals")
        .approve("U1")
        .waits_for("1 of 2 approvals")
        .approve("U1")
        .refused_with("already_approved")
        .waits_for("1 of 2 approvals")
        .approve("U3")
        .satisfied();
}

#[test]
fn strangers_meet_silence_so_that_another_quorum_may_know_them() {
    two_of_three()
        .approve("U7")
        .silent()
        .deny("U7")
        .silent()
        .withdraw("U7")
        .silent()
        .acknowledge("U1", "security")
        .silent()
        .waits_for("0 of 2 approvals");
}

#[test]
fn a_stranger_s_vote_that_another_quorum_granted_does_not_count_here() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1"] }))
        .acts_granted_elsewhere()
        .admitted()
        .approve("U7")
        .waits_for("0 of 1 approval")
        .withdraw("U7")
        .silent()
        .deny("U7")
        .waits_for("0 of 1 approval");
}

#[test]
fn members_of_a_listed_group_approve() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1", "@release-managers"], "approvals": 2 }))
        .group("release-managers", ["U4", "U5"])
        .group("interns", ["U6"])
        .admitted()
        .asks(["U1", "@release-managers"])
        .approve("U6")
        .silent()
        .approve("@release-managers")
        .silent()
        .approve("U4")
        .approve("U5")
        .satisfied();
}

#[test]
fn super_approvers_count_though_nobody_is_told_to_ask_them() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1"], "approvals": 1 }))
        .group("super-approvers", ["U0ADMIN"])
        .admitted()
        .asks(["U1"])
        .approve("U0ADMIN")
        .satisfied();
    Scenario::<Quorum>::new(json!({ "approvers": ["U1"] }))
        .group("super-approvers", ["U0ADMIN"])
        .admitted()
        .deny("U0ADMIN")
        .denied_with("denied_by_approver", "denied by an approver");
}

#[test]
fn the_requester_may_not_approve() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1", "U2"] }))
        .requested_by("U1")
        .admitted()
        .approve("U1")
        .refused_with("requester_may_not_approve")
        .waits_for("0 of 1 approval")
        .approve("U2")
        .satisfied();
}

#[test]
fn no_more_may_a_super_approver_who_requests() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1"] }))
        .group("super-approvers", ["U0ADMIN"])
        .requested_by("U0ADMIN")
        .admitted()
        .approve("U0ADMIN")
        .refused_with("requester_may_not_approve");
}

#[test]
fn the_requester_may_approve_where_the_policy_set_says_so() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1", "U2"], "requester_may_approve": true }))
        .requested_by("U1")
        .admitted()
        .approve("U1")
        .satisfied();
}

#[test]
fn a_requester_who_is_no_approver_is_a_stranger() {
    two_of_three().approve("U9").silent();
}

#[test]
fn a_denial_ends_it_in_the_approver_s_words() {
    two_of_three()
        .approve("U1")
        .deny_saying("U2", " not on a Friday ")
        .denied_with("denied_by_approver", "not on a Friday");
    two_of_three().deny_saying("U2", "  ").denied_with("denied_by_approver", "denied by an approver");
}

#[test]
fn the_requester_may_always_deny() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1", "U2"] }))
        .requested_by("U1")
        .admitted()
        .deny("U1")
        .denied_with("denied_by_approver", "denied by an approver");
}

#[test]
fn an_approval_can_be_taken_back_and_given_again() {
    two_of_three()
        .approve("U1")
        .withdraw("U1")
        .waits_for("0 of 2 approvals")
        .withdraw("U1")
        .silent()
        .approve("U1")
        .waits_for("1 of 2 approvals")
        .approve("U2")
        .satisfied();
}

#[test]
fn an_edit_supersedes_the_approvals_before_it() {
    two_of_three()
        .approve("U1")
        .approve_with("U2", [edit("replicas", json!(2), json!(4))])
        .waits_for("1 of 2 approvals")
        .withdraw("U1")
        .silent()
        .approve("U1")
        .satisfied();
}

#[test]
fn after_the_escalation_more_people_are_needed() {
    Scenario::<Quorum>::new(
        json!({ "approvers": ["U1", "U2", "U3"], "approvals": 2, "escalated_approvals": 3 }),
    )
    .admitted()
    .approve("U1")
    .waits_for("1 of 2 approvals")
    .escalated()
    .waits_for("1 of 3 approvals")
    .approve("U2")
    .waits_for("2 of 3 approvals")
    .approve("U3")
    .satisfied();
}

#[test]
fn an_escalation_changes_nothing_unless_a_number_is_given() {
    two_of_three().approve("U1").escalated().waits_for("1 of 2 approvals").approve("U2").satisfied();
}

/// A configuration, and where its fault is.
fn faulty_configs() -> [(Value, &'static str); 11] {
    [
        (json!({ "approvers": [] }), "/approvers"),
        (json!({ "approvers": ["U1", " "] }), "/approvers/1"),
        (json!({ "approvers": [" U1"] }), "/approvers/0"),
        (json!({ "approvers": ["@"] }), "/approvers/0"),
        (json!({ "approvers": ["U1", "@g", "U1"] }), "/approvers/2"),
        (json!({ "approvers": ["@g"], "approvals": 0 }), "/approvals"),
        (json!({ "approvers": ["U1", "U2"], "approvals": 3 }), "/approvals"),
        (json!({ "approvers": ["U1"], "escalated_approvals": 2 }), "/escalated_approvals"),
        (json!({ "approvers": ["@g"], "approvals": 3, "escalated_approvals": 2 }), "/escalated_approvals"),
        (json!({ "approvers": ["@g"], "approvals": 1, "escalated_approvals": 0 }), "/escalated_approvals"),
        (json!({ "approvers": ["U1", ""] }), "/approvers/1"),
    ]
}

#[test]
fn a_faulty_configuration_is_refused_where_the_fault_is() {
    for (config, path) in faulty_configs() {
        Scenario::<Quorum>::config_refused(config, path);
    }
    for config in [json!({}), json!({ "approvers": ["U1"], "aprovals": 2 }), json!([])] {
        Scenario::<Quorum>::config_refused(config, "");
    }
}

#[test]
fn the_policy_s_own_check_does_not_lean_on_the_schema() -> Result<(), serde_json::Error> {
    for (config, path) in faulty_configs() {
        let reasons = Quorum::check(&serde_json::from_value::<Config>(config.clone())?);
        assert!(reasons.iter().any(|reason| reason.path.as_deref() == Some(path)), "{config}: {reasons:?}");
    }
    Ok(())
}

#[test]
fn a_group_may_be_as_large_as_it_likes() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1", "@g"], "approvals": 5, "escalated_approvals": 7 }))
        .admitted()
        .waits_for("0 of 5 approvals");
}

#[test]
fn an_unknown_requester_could_be_an_approver() {
    let ask = |config: Value| {
        Scenario::<Quorum>::new(config).requested_by("github:dana").requester_is(Known::Unknown)
    };
    ask(json!({ "approvers": ["U1", "U2"] })).not_admitted("requester_unknown");
    ask(json!({ "approvers": ["U1", "U2"], "unknown_requester": true }))
        .admitted()
        .waits_for("0 of 1 approval");
    ask(json!({ "approvers": ["U1", "U2"], "requester_may_approve": true }))
        .admitted()
        .waits_for("0 of 1 approval");
    let machine = Scenario::<Quorum>::new(json!({ "approvers": ["U1", "U2"] }));
    machine
        .requested_by("machine:nightly")
        .requester_is(Known::Machine)
        .admitted()
        .waits_for("0 of 1 approval");
}

#[test]
fn owners_of_a_machine_count_as_requesters() {
    Scenario::<Quorum>::new(json!({ "approvers": ["U1", "U2"] }))
        .requested_by("machine:nightly")
        .requester_is(Known::Machine)
        .owned_by(["U1"])
        .admitted()
        .approve("U1")
        .refused_with("requester_may_not_approve")
        .approve("U2")
        .satisfied();
}
