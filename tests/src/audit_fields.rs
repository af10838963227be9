//! Holds what gateways have written to their audit logs to docs/AUDIT-EVENTS.md.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value};

/// What an entry of any event can have.
const OF_ALL: [&str; 8] =
    ["at", "event", "action", "requestId", "status", "actor", "policy_hash", "payload_hash"];

/// The fields of each event, and whether an entry must have them.
static EVENTS: LazyLock<BTreeMap<String, BTreeMap<String, bool>>> = LazyLock::new(|| {
    let reference = include_str!("../../docs/AUDIT-EVENTS.md");
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` | ").expect("a name");
        let (_, fields) = rest.rsplit_once(" | ").expect("fields");
        (name.to_owned(), fields_of(fields))
    })
    .collect()
});

/// Those that a cell names, but for what is said of them in brackets.
fn fields_of(cell: &str) -> BTreeMap<String, bool> {
    let mut depth = 0;
    let outside: String = cell
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '(');
            let is_outside = depth == 0;
            depth -= i32::from(*c == ')');
            is_outside
        })
        .collect();
    let parts: Vec<&str> = outside.split('`').collect();
    parts[1..].chunks(2).map(|part| (part[0].to_owned(), !part[1].starts_with('?'))).collect()
}

/// Checks the entries in the database of a gateway. What cannot be read was damaged by the test.
///
/// # Panics
/// If an entry has other fields than the reference says.
pub(crate) fn check(database: &Path) {
    let Ok(database) = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE) else {
        return;
    };
    let Ok(mut statement) = database.prepare("SELECT body FROM audit") else { return };
    let Ok(bodies) = statement.query_map([], |row| row.get::<_, String>(0)) else { return };
    let wrong: Vec<String> = bodies
        .filter_map(|body| serde_json::from_str(&body.ok()?).ok())
        .filter_map(|entry: Map<String, Value>| Some((what_is_wrong(&entry)?, entry)))
        .map(|(wrong, entry)| format!("{wrong}: {}", Value::Object(entry)))
        .collect();
    assert!(wrong.is_empty(), "entries that are not as docs/AUDIT-EVENTS.md says: {wrong:#?}");
}

fn what_is_wrong(entry: &Map<String, Value>) -> Option<String> {
    let event = entry.get("event")?.as_str()?;
    let Some(fields) = EVENTS.get(event) else { return Some(format!("no event `{event}`")) };
    let missing = fields.iter().find(|(field, needed)| **needed && !entry.contains_key(*field));
    let unknown =
        entry.keys().find(|field| !OF_ALL.contains(&field.as_str()) && !fields.contains_key(*field));
    let missing = missing.map(|(field, _)| format!("`{field}` is missing"));
    missing.or_else(|| unknown.map(|field| format!("`{field}` is not listed")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_from_the_reference() {
        let fields = fields_of("`keys` (of `x`), `reason`? (why (if ever)), `act`; of an act `code`");
        let expected = [("act", true), ("code", true), ("keys", true), ("reason", false)];
        assert_eq!(fields, expected.map(|(name, needed)| (name.to_owned(), needed)).into());
        assert_eq!(fields_of("–"), BTreeMap::new());
        assert!(EVENTS.len() > 40, "{}", EVENTS.len());
    }

    #[test]
    fn what_is_missing_or_not_listed_is_found() {
        for (entry, wrong) in [
            (json!({"at": 1, "event": "persona_acknowledged", "persona": "x"}), None),
            (json!({"event": "persona_acknowledged"}), Some("`persona` is missing")),
            (json!({"event": "withdrawn", "persona": "x"}), Some("`persona` is not listed")),
            (json!({"event": "withdrew"}), Some("no event `withdrew`")),
        ] {
            let entry = entry.as_object().expect("an object");
            assert_eq!(what_is_wrong(entry).as_deref(), wrong, "{entry:?}");
        }
    }
}
