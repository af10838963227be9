//! An action's schema: the ancestor had a small dialect of its own, of which this makes JSON Schema 2020-12.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::guards::Action;
use super::note::Note;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What the ancestor checked of a parameter, and what it said instead.
const CHECKED: [&str; 8] =
    ["type", "enum", "pattern", "minLength", "maxLength", "min", "max", "errorMessage"];
/// What says something to people only.
const SAID: [&str; 8] =
    ["title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"];
/// The types that the ancestor knew.
const TYPES: [&str; 3] = ["string", "number", "boolean"];

/// Converts the schema `file` of `action`; what is not as it was goes to `notes`.
pub(super) fn convert(file: &str, bytes: &[u8], action: &Action, notes: &mut Vec<Note>) -> Result<Value> {
    let Value::Object(mut schema) = serde_json::from_slice::<Value>(bytes)? else {
        bail!("it is no object");
    };
    let mut note = |text: String| notes.push(Note::of_file(file, text));
    if schema.get("type").and_then(Value::as_str) != Some("object") || !schema.contains_key("properties") {
        note(
            "it was not checked, for it has no `type: object` with `properties`; it is checked now"
                .to_owned(),
        );
    }
    schema.insert("$schema".to_owned(), DIALECT.into());
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (key, property) in properties {
            if let Value::Object(property) = property {
                convert_property(key, property, &mut note);
            }
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let missing: Vec<&str> = action
        .editable_and_shown()
        .filter(|key| !properties.is_some_and(|properties| properties.contains_key(*key)))
        .collect();
    if !missing.is_empty() && schema.contains_key("additionalProperties") {
        let missing = missing.join("`, `");
        note(format!(
            "`additionalProperties` is left out: it was not checked, and `{missing}` may be edited without being listed"
        ));
        schema.remove("additionalProperties");
    }
    Ok(Value::Object(schema))
}

fn convert_property(key: &str, property: &mut Map<String, Value>, note: &mut impl FnMut(String)) {
    for (theirs, ours) in [("min", "minimum"), ("max", "maximum")] {
        let own = property.remove(ours);
        match property.remove(theirs) {
            Some(limit) if limit.is_number() => {
                property.insert(theirs.to_owned(), limit);
                if own.is_some() {
                    note(format!(
                        "`{theirs}` of `{key}` was checked and `{ours}` was not; `{ours}` is left out"
                    ));
                }
            }
            Some(_) => note(format!("`{theirs}` of `{key}` is no number; it is left out")),
            None => {
                if let Some(own) = own {
                    property.insert(ours.to_owned(), own);
                }
            }
        }
    }
    if property.get("errorMessage").is_some_and(|message| !message.is_string()) {
        property.remove("errorMessage");
        note(format!("`errorMessage` of `{key}` is no text; it is left out"));
    }
    let is_new = |keyword: &str, value: &Value| match keyword {
        "type" => !value.as_str().is_some_and(|kind| TYPES.contains(&kind)),
        keyword => !CHECKED.contains(&keyword) && !SAID.contains(&keyword),
    };
    let new: Vec<String> = property
        .iter()
        .filter(|(keyword, value)| is_new(keyword, value))
        .map(|(keyword, _)| format!("`{keyword}`"))
        .collect();
    if !new.is_empty() {
        note(format!("{} of `{key}` was not checked; it is checked now", new.join(" and ")));
    }
    for (theirs, ours) in [("min", "minimum"), ("max", "maximum")] {
        if let Some(limit) = property.remove(theirs) {
            property.insert(ours.to_owned(), limit);
        }
    }
}
