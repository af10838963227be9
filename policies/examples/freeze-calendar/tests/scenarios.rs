//! What people live through around a freeze.

use std::time::Duration;

use countersign_policy_sdk::{
    Policy as _,
    scenario::{Scenario, edit},
};
use freeze_calendar::{Config, FreezeCalendar};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);
const YEAR_END: &str = "the end of the freeze `Year end`, 2027-01-04T07:00:00Z";

fn year_end() -> Value {
    json!({
        "freezes": [{ "name": "Year end", "from": "2026-12-18T18:00:00+01:00", "until": "2027-01-04T08:00:00+01:00" }],
        "exempt": ["U0CTO", "@incident-commanders"],
    })
}

fn asked_at(time: &str) -> Scenario<FreezeCalendar> {
    Scenario::new(year_end())
        .group("incident-commanders", ["U0IC"])
        .acts_granted_elsewhere()
        .requested_at(time)
        .expires_after(72 * HOUR)
}

#[test]
fn outside_of_a_freeze_it_stands_in_nobody_s_way() {
    asked_at("2026-12-01T09:00:00Z").admitted().satisfied().sleeps().approve("U1").satisfied();
}

#[test]
fn a_freeze_that_begins_meanwhile_shows_and_refuses() {
    asked_at("2026-12-18T16:00:00Z")
        .admitted()
        .satisfied()
        .wakes_at("2026-12-18T17:00:00Z")
        .approve("U1")
        .satisfied()
        .tick()
        .waits_for(YEAR_END)
        .approve("U2")
        .refused_with("frozen")
        .waits_for(YEAR_END);
}

#[test]
fn when_it_is_over_people_approve() {
    asked_at("2027-01-03T20:00:00Z")
        .admitted()
        .waits_for(YEAR_END)
        .approve("U1")
        .refused_with("frozen")
        .wakes_at("2027-01-04T07:00:00Z")
        .tick()
        .satisfied()
        .approve("U1")
        .satisfied();
}

#[test]
fn an_exempt_person_lifts_it_for_everybody_as_long_as_they_stand_by_it() {
    for exempt in ["U0CTO", "U0IC"] {
        asked_at("2026-12-24T12:00:00Z")
            .admitted()
            .approve("U1")
            .refused_with("frozen")
            .approve(exempt)
            .satisfied()
            .approve("U1")
            .satisfied()
            .withdraw(exempt)
            .waits_for(YEAR_END)
            .approve("U2")
            .refused_with("frozen");
    }
}

#[test]
fn an_approval_from_before_the_freeze_does_not_lift_it() {
    asked_at("2026-12-18T16:00:00Z")
        .admitted()
        .approve("U0CTO")
        .satisfied()
        .tick()
        .waits_for(YEAR_END)
        .approve("U1")
        .refused_with("frozen")
        .withdraw("U0CTO")
        .approve("U0CTO")
        .satisfied();
}

#[test]
fn who_edits_after_it_was_lifted_must_have_it_lifted_again() {
    asked_at("2026-12-24T12:00:00Z")
        .admitted()
        .approve("U0IC")
        .satisfied()
        .approve_with("U1", [edit("replicas", json!(2), json!(4))])
        .refused_with("frozen")
        .approve_with("U0CTO", [edit("replicas", json!(2), json!(4))])
        .satisfied();
}

#[test]
fn nothing_but_approvals_is_refused() {
    asked_at("2026-12-24T12:00:00Z")
        .admitted()
        .acknowledge("U1", "security")
        .waits_for(YEAR_END)
        .escalated()
        .waits_for(YEAR_END)
        .deny("U1")
        .waits_for(YEAR_END);
}

#[test]
fn it_grants_nothing_even_to_whom_it_exempts() {
    Scenario::<FreezeCalendar>::new(year_end())
        .group("super-approvers", ["U0ADMIN"])
        .requested_at("2026-12-24T12:00:00Z")
        .expires_after(HOUR)
        .admitted()
        .approve("U0CTO")
        .silent()
        .deny("U0CTO")
        .silent()
        .approve("U0ADMIN")
        .refused_with("frozen");
}

#[test]
fn where_nobody_may_lift_it_a_request_that_could_only_expire_is_not_made() {
    let strict = json!({ "freezes": year_end()["freezes"] });
    let ask =
        |time: &str| Scenario::<FreezeCalendar>::new(strict.clone()).requested_at(time).expires_after(HOUR);
    ask("2026-12-24T12:00:00Z").not_admitted("frozen");
    ask("2027-01-04T06:00:00Z").not_admitted("frozen");
    ask("2027-01-04T06:00:01Z").admitted().waits_for(YEAR_END);
    ask("2027-01-04T07:00:00Z").admitted().satisfied();
}

#[test]
fn freezes_that_overlap_or_touch_are_one() {
    let three = json!({
        "freezes": [
            { "name": "C", "from": "2027-03-03T00:00:00Z", "until": "2027-03-04T00:00:00Z" },
            { "name": "B", "from": "2027-03-01T12:00:00Z", "until": "2027-03-03T00:00:00Z" },
            { "name": "A", "from": "2027-03-01T00:00:00Z", "until": "2027-03-02T00:00:00Z" },
        ],
    });
    Scenario::<FreezeCalendar>::new(three)
        .requested_at("2027-03-01T11:00:00Z")
        .expires_after(96 * HOUR)
        .admitted()
        .waits_for("the end of the freeze `A`, 2027-03-04T00:00:00Z")
        .tick()
        .satisfied()
        .sleeps();
}

#[test]
fn what_was_lifted_stays_lifted_to_the_end_of_the_last_one() {
    let two = json!({
        "freezes": [
            { "name": "B", "from": "2027-03-02T00:00:00Z", "until": "2027-03-04T00:00:00Z" },
            { "name": "A", "from": "2027-03-01T00:00:00Z", "until": "2027-03-03T00:00:00Z" },
        ],
        "exempt": ["U0CTO"],
    });
    Scenario::<FreezeCalendar>::new(two)
        .acts_granted_elsewhere()
        .requested_at("2027-03-01T11:00:00Z")
        .expires_after(96 * HOUR)
        .admitted()
        .waits_for("the end of the freeze `A`, 2027-03-04T00:00:00Z")
        .approve("U0CTO")
        .satisfied()
        .until("2027-03-03T12:00:00Z")
        .approve("U1")
        .satisfied()
        .withdraw("U0CTO")
        .waits_for("the end of the freeze `A`, 2027-03-04T00:00:00Z");
}

#[test]
fn the_largest_calendar_is_answered() {
    let freezes: Vec<Value> = (0..100)
        .rev()
        .map(|n| json!({ "name": format!("{n}"), "from": format!("2027-{:02}-{:02}T00:00:00Z", n / 25 + 1, n % 25 + 1), "until": format!("2027-{:02}-{:02}T12:00:00Z", n / 25 + 1, n % 25 + 2) }))
        .collect();
    Scenario::<FreezeCalendar>::new(json!({ "freezes": freezes }))
        .requested_at("2027-01-01T00:00:00Z")
        .expires_after(720 * HOUR)
        .admitted()
        .waits_for("the end of the freeze `0`, 2027-01-26T12:00:00Z");
}

/// A configuration, and where its fault is.
fn faulty_configs() -> Vec<(Value, &'static str)> {
    let freeze = |name: &str, from: &str, until: &str| json!({ "freezes": [{ "name": name, "from": from, "until": until }] });
    let exempt = |list: Value| json!({ "freezes": year_end()["freezes"], "exempt": list });
    let (from, until) = ("2026-12-18T18:00:00Z", "2027-01-04T08:00:00Z");
    vec![
        (json!({ "freezes": [] }), "/freezes"),
        (freeze(" ", from, until), "/freezes/0/name"),
        (freeze("x", "2026-12-18", until), "/freezes/0/from"),
        (freeze("x", from, "2027-02-29T00:00:00Z"), "/freezes/0/until"),
        (freeze("x", until, from), "/freezes/0/until"),
        (freeze("x", from, from), "/freezes/0/until"),
        (exempt(json!([])), "/exempt"),
        (exempt(json!(["@"])), "/exempt/0"),
        (exempt(json!(["U1", " "])), "/exempt/1"),
    ]
}

#[test]
fn a_faulty_configuration_is_refused_where_the_fault_is() {
    for (config, path) in faulty_configs() {
        Scenario::<FreezeCalendar>::config_refused(config, path);
    }
    for config in [json!({}), json!({ "freezes": year_end()["freezes"], "exmpt": ["U1"] })] {
        Scenario::<FreezeCalendar>::config_refused(config, "");
    }
}

#[test]
fn the_policy_s_own_check_does_not_lean_on_the_schema() -> Result<(), serde_json::Error> {
    for (config, path) in faulty_configs() {
        let reasons = FreezeCalendar::check(&serde_json::from_value::<Config>(config.clone())?);
        assert!(reasons.iter().any(|reason| reason.path.as_deref() == Some(path)), "{config}: {reasons:?}");
    }
    Ok(())
}
