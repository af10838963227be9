//! Why a schema is refused, in words for whoever wrote it.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::at;
use super::checkable::step;
use crate::yaml::error::did_you_mean;

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// What is wrong with a schema, and where in it.
pub(super) fn text(schema: &Value, error: &ValidationError<'_>) -> String {
    let is_type = error.instance_path().as_str().rsplit('/').next() == Some("type");
    match (error.kind(), error.instance().as_str()) {
        (ValidationErrorKind::AnyOf { .. }, Some(name)) if is_type => {
            let hint = did_you_mean(name, TYPES);
            at(
                error,
                format!(
                    "`{name}` is no type{}",
                    if hint.is_empty() { format!(": the types are `{}`", TYPES.join("`, `")) } else { hint }
                ),
            )
        }
        (ValidationErrorKind::Referencing(_), _) => {
            dangling(schema, schema, "").unwrap_or_else(|| at(error, error.to_string()))
        }
        _ => at(error, error.to_string()),
    }
}

/// The first reference to what is not in the schema. Nothing is ever fetched.
fn dangling(schema: &Value, part: &Value, path: &str) -> Option<String> {
    match part {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str).and_then(|target| missing(schema, target));
            let mut inner = members.iter();
            own.map(|why| format!("`{path}/$ref`: {why}")).or_else(|| {
                inner.find_map(|(key, part)| dangling(schema, part, &format!("{path}/{}", step(key))))
            })
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, part)| dangling(schema, part, &format!("{path}/{index}")))
        }
        _ => None,
    }
}

fn missing(schema: &Value, target: &str) -> Option<String> {
    let (document, fragment) = target.split_once('#').unwrap_or((target, ""));
    if !document.is_empty() && !has_id(schema, document) {
        return Some(format!(
            "`{target}` is not in this file, and nothing is fetched: put it under `$defs`, and refer to it as \
             `#/$defs/NAME`"
        ));
    }
    let is_pointer = document.is_empty() && (fragment.is_empty() || fragment.starts_with('/'));
    (is_pointer && schema.pointer(fragment).is_none()).then(|| format!("`{target}` is not there"))
}

/// Whether some part of a schema has this `$id`, or one that ends with it.
fn has_id(part: &Value, id: &str) -> bool {
    match part {
        Value::Object(members) => {
            let own = members.get("$id").and_then(Value::as_str).is_some_and(|own| own.ends_with(id));
            own || members.values().any(|part| has_id(part, id))
        }
        Value::Array(items) => items.iter().any(|part| has_id(part, id)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::compile;

    #[test]
    fn what_is_wrong_is_said_in_words_for_its_author() {
        let outside = "is not in this file, and nothing is fetched: put it under `$defs`";
        for (schema, expected) in [
            (
                json!({"properties": {"a": {"type": "objekt"}}}),
                "`/properties/a/type`: `objekt` is no type; did you",
            ),
            (json!({"type": "text"}), "`/type`: `text` is no type: the types are `array`, `boolean`"),
            (json!({"$ref": "https://acme.example/a.json"}), outside),
            (
                json!({"properties": {"a": {"items": {"$ref": "a.json#/b"}}}}),
                "`/properties/a/items/$ref`: `a.json#/b`",
            ),
            (json!({"allOf": [{"$ref": "#/$defs/nme"}]}), "`/allOf/0/$ref`: `#/$defs/nme` is not there"),
        ] {
            let refused = compile(&schema).map(drop).expect_err(&schema.to_string());
            assert!(refused.contains(expected), "{schema}: {refused}");
        }
        let within = json!({
            "$id": "https://acme.example/deploy.json",
            "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"$ref": "b.json"}},
            "$defs": {"a": {}, "b": {"$id": "https://acme.example/b.json"}},
        });
        assert_eq!(compile(&within).map(drop), Ok(()));
    }
}
