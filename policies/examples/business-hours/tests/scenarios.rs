//! What people live through around business hours.

use std::time::Duration;

use business_hours::{BusinessHours, Config};
use countersign_policy_sdk::{Policy as _, scenario::Scenario};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);

/// An office in Berlin: Monday to Friday, shorter on Fridays; with the summer time of 2027.
fn berlin() -> Value {
    json!({
        "hours": [
            { "days": ["mon", "tue", "wed", "thu"], "from": "09:00", "until": "17:30" },
            { "days": ["fri"], "from": "09:00", "until": "16:00" },
        ],
        "utc_offset": "+01:00",
        "offset_changes": [
            { "at": "2027-03-28T01:00:00Z", "utc_offset": "+02:00" },
            { "at": "2027-10-31T01:00:00Z", "utc_offset": "+01:00" },
        ],
    })
}

fn asked_at(time: &str) -> Scenario<BusinessHours> {
    Scenario::new(berlin()).acts_granted_elsewhere().requested_at(time).expires_after(72 * HOUR)
}

#[test]
fn in_business_hours_it_stands_in_nobody_s_way() {
    // A Tuesday, 10:00 in Berlin; it is asked again when the office closes.
    asked_at("2027-02-02T09:00:00Z")
        .admitted()
        .satisfied()
        .wakes_at("2027-02-02T16:30:00Z")
        .approve("U1")
        .satisfied();
}

#[test]
fn an_approval_in_the_evening_counts_and_takes_effect_in_the_morning() {
    asked_at("2027-02-02T19:00:00Z")
        .admitted()
        .waits_for("business hours, from Wednesday 09:00 (UTC+01:00)")
        .wakes_at("2027-02-03T08:00:00Z")
        .approve("U1")
        .waits_for("business hours, from Wednesday 09:00 (UTC+01:00)")
        .wakes_at("2027-02-03T08:00:00Z")
        .tick()
        .satisfied();
}

#[test]
fn over_the_weekend_it_waits_for_monday() {
    // Friday, 16:00 on the dot, is no longer business hours.
    asked_at("2027-02-05T14:59:50Z")
        .admitted()
        .satisfied()
        .until("2027-02-05T15:00:00Z")
        .tick()
        .waits_for("business hours, from Monday 09:00 (UTC+01:00)")
        .wakes_at("2027-02-08T08:00:00Z")
        .tick()
        .satisfied();
}

#[test]
fn the_clocks_go_forward_while_the_office_is_closed() {
    // Saturday evening in winter; Monday morning is in summer.
    asked_at("2027-03-27T19:00:00Z")
        .admitted()
        .waits_for("business hours, from Monday 09:00 (UTC+02:00)")
        .wakes_at("2027-03-29T07:00:00Z");
    // And back.
    asked_at("2027-10-30T18:00:00Z")
        .admitted()
        .waits_for("business hours, from Monday 09:00 (UTC+01:00)")
        .wakes_at("2027-11-01T08:00:00Z");
}

#[test]
fn clocks_that_change_in_business_hours_end_or_begin_them() {
    let hours = |from: &str, until: &str, offset: &str| {
        json!({
            "hours": [{ "days": ["mon"], "from": from, "until": until }],
            "utc_offset": "+00:00",
            "offset_changes": [{ "at": "2027-02-01T10:00:00Z", "utc_offset": offset }],
        })
    };
    // At 10:00 it becomes 12:00, which is past the end; and before the beginning it becomes business hours at once.
    for (from, until, offset, is_open_before) in
        [("09:00", "11:00", "+02:00", true), ("11:00", "13:00", "+02:00", false)]
    {
        let scenario = Scenario::<BusinessHours>::new(hours(from, until, offset))
            .acts_granted_elsewhere()
            .requested_at("2027-02-01T09:30:00Z")
            .expires_after(HOUR)
            .admitted()
            .wakes_at("2027-02-01T10:00:00Z");
        if is_open_before {
            scenario
                .satisfied()
                .tick()
                .waits_for("business hours, which do not begin before this request expires");
        } else {
            scenario.waits_for("business hours, from Monday 12:00 (UTC+02:00)").tick().satisfied();
        }
    }
}

#[test]
fn a_request_that_could_only_expire_is_not_made_at_all() {
    Scenario::<BusinessHours>::new(berlin())
        .requested_at("2027-02-02T19:00:00Z")
        .expires_after(HOUR)
        .not_admitted("closed_until_expiry");
    // Business hours that begin as it expires come too late.
    Scenario::<BusinessHours>::new(berlin())
        .requested_at("2027-02-02T19:00:00Z")
        .expires_after(13 * HOUR)
        .not_admitted("closed_until_expiry");
    Scenario::<BusinessHours>::new(berlin())
        .requested_at("2027-02-02T19:00:00Z")
        .expires_after(13 * HOUR + Duration::from_secs(1))
        .admitted()
        .wakes_at("2027-02-03T08:00:00Z");
}

#[test]
fn the_night_shift_works_past_midnight() {
    let night = json!({ "hours": [{ "days": ["sun"], "from": "22:00", "until": "06:00" }] });
    Scenario::<BusinessHours>::new(night)
        .acts_granted_elsewhere()
        .requested_at("2027-02-07T21:00:00Z")
        .expires_after(72 * HOUR)
        .admitted()
        .waits_for("business hours, from Sunday 22:00 (UTC+00:00)")
        .tick()
        .satisfied()
        .wakes_at("2027-02-08T06:00:00Z")
        .tick()
        .waits_for("business hours, which do not begin before this request expires")
        .sleeps();
}

#[test]
fn around_the_clock_there_is_nothing_to_wake_for() {
    let always = json!({
        "hours": [{ "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "until": "24:00" }],
    });
    Scenario::<BusinessHours>::new(always)
        .requested_at("2027-02-07T23:59:59Z")
        .expires_after(720 * HOUR)
        .admitted()
        .satisfied()
        .sleeps();
}

#[test]
fn hours_that_touch_are_one() {
    let day = json!({
        "hours": [
            { "days": ["tue"], "from": "08:00:30", "until": "12:00" },
            { "days": ["tue"], "from": "12:00", "until": "18:00" },
        ],
    });
    Scenario::<BusinessHours>::new(day)
        .requested_at("2027-02-02T09:00:00Z")
        .expires_after(72 * HOUR)
        .admitted()
        .satisfied()
        .wakes_at("2027-02-02T18:00:00Z");
}

#[test]
fn it_grants_nothing_and_refuses_nothing() {
    Scenario::<BusinessHours>::new(berlin())
        .group("super-approvers", ["U0ADMIN"])
        .requested_at("2027-02-02T19:00:00Z")
        .expires_after(72 * HOUR)
        .admitted()
        .approve("U0ADMIN")
        .silent()
        .deny("U0ADMIN")
        .silent()
        .acknowledge("U1", "security")
        .silent()
        .withdraw("U1")
        .silent();
}

#[test]
fn a_denial_does_not_wait_for_the_morning() {
    // The policy has nothing against it; the one that grants it ends the request.
    asked_at("2027-02-02T19:00:00Z")
        .admitted()
        .deny("U1")
        .waits_for("business hours, from Wednesday 09:00 (UTC+01:00)");
}

#[test]
fn an_escalation_at_night_opens_nothing() {
    asked_at("2027-02-02T19:00:00Z")
        .admitted()
        .escalated()
        .waits_for("business hours, from Wednesday 09:00 (UTC+01:00)");
}

#[test]
fn the_largest_configuration_is_answered() {
    let all = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let hours: Vec<Value> = (0..6)
        .map(|hour| json!({ "days": all, "from": format!("{:02}:00", hour * 4), "until": format!("{:02}:30", hour * 4) }))
        .collect();
    let changes: Vec<Value> = (0..40)
        .map(|n| json!({ "at": format!("2027-02-{:02}T{:02}:15:00Z", n / 2 + 1, n % 2 * 12), "utc_offset": if n % 2 == 0 { "+14:00" } else { "-12:00" } }))
        .collect();
    Scenario::<BusinessHours>::new(json!({ "hours": hours, "offset_changes": changes }))
        .requested_at("2027-02-01T00:45:00Z")
        .expires_after(720 * HOUR)
        .admitted()
        .waits_for("business hours, from Monday 16:00 (UTC+14:00)");
}

/// A configuration, and where its fault is.
fn faulty_configs() -> Vec<(Value, &'static str)> {
    let window = |days: Value, from: &str, until: &str| json!({ "hours": [{ "days": days, "from": from, "until": until }] });
    let with = |key: &str, value: Value| {
        let mut config = berlin();
        config[key] = value;
        config
    };
    vec![
        (json!({ "hours": [] }), "/hours"),
        (window(json!([]), "09:00", "17:00"), "/hours/0/days"),
        (window(json!(["mon", "monday"]), "09:00", "17:00"), "/hours/0/days/1"),
        (window(json!(["mon"]), "9:00", "17:00"), "/hours/0/from"),
        (window(json!(["mon"]), "09:00:60", "17:00"), "/hours/0/from"),
        (window(json!(["mon"]), "09:00", "24:01"), "/hours/0/until"),
        (with("utc_offset", json!("+1:00")), "/utc_offset"),
        (with("utc_offset", json!("CET")), "/utc_offset"),
        (
            with("offset_changes", json!([{ "at": "2027-03-28", "utc_offset": "+02:00" }])),
            "/offset_changes/0/at",
        ),
        (
            with(
                "offset_changes",
                json!([
                    { "at": "2027-10-31T01:00:00Z", "utc_offset": "+01:00" },
                    { "at": "2027-03-28T01:00:00Z", "utc_offset": "+02:00" },
                ]),
            ),
            "/offset_changes/1/at",
        ),
        (
            with("offset_changes", json!([{ "at": "2027-10-31T01:00:00Z", "utc_offset": "+1" }])),
            "/offset_changes/0/utc_offset",
        ),
    ]
}

#[test]
fn a_faulty_configuration_is_refused_where_the_fault_is() {
    for (config, path) in faulty_configs() {
        Scenario::<BusinessHours>::config_refused(config, path);
    }
    for config in [json!({}), json!({ "hours": berlin()["hours"], "zone": "Europe/Berlin" })] {
        Scenario::<BusinessHours>::config_refused(config, "");
    }
    // What only the policy's own check sees.
    for (key, value, path) in
        [("from", json!("24:00"), "/hours/0/from"), ("days", json!(["tue", "tue"]), "/hours/0/days")]
    {
        let mut config = berlin();
        config["hours"][0][key] = value;
        Scenario::<BusinessHours>::config_refused(config, path);
    }
    for offset in ["+14:01", "-12:30"] {
        let mut config = berlin();
        config["utc_offset"] = json!(offset);
        Scenario::<BusinessHours>::config_refused(config, "/utc_offset");
    }
}

#[test]
fn the_policy_s_own_check_does_not_lean_on_the_schema() -> Result<(), serde_json::Error> {
    for (config, path) in faulty_configs() {
        let reasons = BusinessHours::check(&serde_json::from_value::<Config>(config.clone())?);
        assert!(reasons.iter().any(|reason| reason.path.as_deref() == Some(path)), "{config}: {reasons:?}");
    }
    Ok(())
}
