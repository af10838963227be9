//! Tables in the configuration of a policy that hold until a time, such as the changes of an offset from UTC.
//!
//! A policy has no clock and no time zones, so such tables are written by hand, and one day nobody has continued them. The
//! schema of the configuration says which they are: `"x-runs-out": "at"` on a list of objects names the member that is a
//! time in RFC 3339.

use countersign_core::lifecycle::Timestamp;
use serde_json::Value;

/// How long before the last time of a table somebody should know, in milliseconds.
const AHEAD_MS: u64 = 90 * 24 * 3600 * 1000;

/// The tables whose last time is near `now` or before it, each with that time.
pub(super) fn tables<'a>(schema: &'a Value, config: &Value, now: Timestamp) -> Vec<(&'a str, Timestamp)> {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let marked = properties.filter_map(|(key, list)| Some((key.as_str(), list.get("x-runs-out")?.as_str()?)));
    let last = |key: &str, member: &str| -> Option<Timestamp> {
        let rows = config.get(key)?.as_array()?;
        rows.iter().filter_map(|row| row.get(member)?.as_str()?.parse().ok()).max()
    };
    let all = marked.filter_map(|(key, member)| Some((key, last(key, member)?)));
    all.filter(|(_, last)| *last <= now.plus(AHEAD_MS)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_named_before_it_runs_out_and_afterwards() {
        let schema = json!({"properties": {
            "changes": {"type": "array", "x-runs-out": "at"},
            "others": {"type": "array"},
        }});
        let row = |at: &str| json!({"at": at});
        let config = json!({
            "changes": [row("2027-03-28T01:00:00Z"), row("2027-10-31T01:00:00Z"), row("nonsense")],
            "others": [row("2020-01-01T00:00:00Z")],
        });
        let last: Timestamp = "2027-10-31T01:00:00Z".parse().unwrap();
        for (now, expected) in [
            ("2027-08-01T00:00:00Z", None),
            ("2027-08-03T00:00:00Z", Some(("changes", last))),
            ("2029-01-01T00:00:00Z", Some(("changes", last))),
        ] {
            let found = tables(&schema, &config, now.parse().unwrap());
            assert_eq!(found, Vec::from_iter(expected), "{now}");
        }
        for without in [json!({}), json!({"changes": []}), json!({"changes": 1})] {
            assert_eq!(tables(&schema, &without, last), [], "{without}");
        }
    }

    /// The mark is in the policy that comes with the project.
    #[test]
    fn the_table_of_business_hours_is_marked() {
        let schema = include_str!("../../../../policies/examples/business-hours/config.schema.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        let config = json!({"offset_changes": [{"at": "2027-03-28T01:00:00Z", "utc_offset": "+02:00"}]});
        let found = tables(&schema, &config, "2027-03-01T00:00:00Z".parse().unwrap());
        assert_eq!(found.first().map(|(key, _)| *key), Some("offset_changes"));
    }
}
