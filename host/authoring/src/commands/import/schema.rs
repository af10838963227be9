//! Converts an action's schema from the legacy service's dialect to JSON Schema 2020-12.

use anyhow::{Result, anyhow, bail};
use countersign_core::json;
use countersign_policy::checks_format;
use serde_json::{Map, Value};

use super::guards::Action;
use super::note::Note;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The keywords that the legacy service enforced, and `errorMessage`, which replaced its own message.
const ENFORCED: [&str; 8] =
    ["type", "enum", "pattern", "minLength", "maxLength", "min", "max", "errorMessage"];
/// The keywords that are annotations only.
const ANNOTATIONS: [&str; 8] =
    ["title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"];
/// The types that the legacy service knew.
const TYPES: [&str; 3] = ["string", "number", "boolean"];

/// Converts the schema `file` of `action`; adds what behaves differently to `notes`.
pub(super) fn convert(file: &str, bytes: &[u8], action: &Action, notes: &mut Vec<Note>) -> Result<Value> {
    let Value::Object(mut schema) = json::parse(bytes).map_err(|refused| anyhow!("{refused}"))? else {
        bail!("it is not an object");
    };
    let mut note = |text: String| notes.push(Note::of_file(file, text));
    if schema.get("type").and_then(Value::as_str) != Some("object") || !schema.contains_key("properties") {
        note(
            "it was not enforced, because it has no `type: object` with `properties`; it is enforced now"
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
            "`additionalProperties` is dropped: it was not enforced, and `{missing}` can be edited without being listed"
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
                        "`{theirs}` of `{key}` was enforced and `{ours}` was not; `{ours}` is dropped"
                    ));
                }
            }
            Some(_) => note(format!("`{theirs}` of `{key}` is not a number; it is dropped")),
            None => {
                if let Some(own) = own {
                    property.insert(ours.to_owned(), own);
                }
            }
        }
    }
    if property.get("errorMessage").is_some_and(|message| !message.is_string()) {
        property.remove("errorMessage");
        note(format!("`errorMessage` of `{key}` is not text; it is dropped"));
    }
    if let Some(format) = property.get("format").filter(|format| !format.as_str().is_some_and(checks_format))
    {
        note(format!("`format` of `{key}` is {format}, which cannot be checked; it is dropped"));
        property.remove("format");
    }
    let is_new = |keyword: &str, value: &Value| match keyword {
        "type" => !value.as_str().is_some_and(|kind| TYPES.contains(&kind)),
        keyword => !ENFORCED.contains(&keyword) && !ANNOTATIONS.contains(&keyword),
    };
    let new: Vec<String> = property
        .iter()
        .filter(|(keyword, value)| is_new(keyword, value))
        .map(|(keyword, _)| format!("`{keyword}`"))
        .collect();
    if !new.is_empty() {
        note(format!("{} of `{key}` was not enforced; it is enforced now", new.join(" and ")));
    }
    for (theirs, ours) in [("min", "minimum"), ("max", "maximum")] {
        if let Some(limit) = property.remove(theirs) {
            property.insert(ours.to_owned(), limit);
        }
    }
}
