//! `GET /api/schemas/{action}`: the JSON Schema of an action's parameters.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use countersign_core::record::Redaction;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::state::App;

/// The JSON Schema of an action's parameters, without what is hidden.
#[utoipa::path(
    get,
    path = "/api/schemas/{action}",
    params(("action" = String, Path, description = "The action.")),
    responses(
        (status = 200, description = "JSON Schema (2020-12), without `errorMessage` and without hidden parameters", body = Object),
        (status = "4XX", description = "404 `not_found`: there is no such action, or it has no schema"),
    )
)]
pub(super) async fn schema(
    State(app): State<Arc<App>>,
    Path(action): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let set = app.gateway.policies().active();
    let rules = set.action(&action).ok_or(ApiError::NoSuch("schema"))?;
    let schema = rules.schema().ok_or(ApiError::NoSuch("schema"))?;
    Ok(Json(shown(schema, &rules.entry().redact)))
}

/// Keywords whose value maps names to schemas.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords whose value is data, not a schema.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];

/// Keywords whose value contains schemas of the same instance.
const SAME_INSTANCE: [&str; 7] = ["allOf", "anyOf", "oneOf", "if", "then", "else", "not"];

/// The schema, without error messages and without hidden parameters.
fn shown(schema: &Value, redact: &Redaction) -> Value {
    let mut schema = schema.clone();
    strip_messages(&mut schema);
    hide(&mut schema, redact);
    drop_unused_definitions(&mut schema);
    schema
}

fn strip_messages(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(strip_messages),
        Value::Object(object) => {
            object.remove("errorMessage");
            for (keyword, value) in object {
                match value {
                    _ if DATA.contains(&keyword.as_str()) => {}
                    // A parameter may be called `errorMessage`, too.
                    Value::Object(named) if NAMED.contains(&keyword.as_str()) => {
                        named.values_mut().for_each(strip_messages);
                    }
                    value => strip_messages(value),
                }
            }
        }
        _ => {}
    }
}

/// Removes every mention of a hidden parameter from a schema of the parameters.
fn hide(schema: &mut Value, redact: &Redaction) {
    let Value::Object(object) = schema else { return };
    for keyword in ["properties", "dependentSchemas", "dependentRequired"] {
        if let Some(Value::Object(named)) = object.get_mut(keyword) {
            named.retain(|key, _| redact.shows(key));
            let lists = named.values_mut().filter(|_| keyword == "dependentRequired");
            lists.for_each(|list| hide_in_list(list, redact));
        }
    }
    if let Some(required) = object.get_mut("required") {
        hide_in_list(required, redact);
    }
    // These contain whole objects, with hidden parameters.
    for keyword in DATA {
        object.remove(keyword);
    }
    if let Some(Value::Object(named)) = object.get_mut("dependentSchemas") {
        named.values_mut().for_each(|schema| hide(schema, redact));
    }
    for keyword in SAME_INSTANCE {
        match object.get_mut(keyword) {
            Some(Value::Array(schemas)) => schemas.iter_mut().for_each(|schema| hide(schema, redact)),
            Some(schema) => hide(schema, redact),
            None => {}
        }
    }
}

fn hide_in_list(list: &mut Value, redact: &Redaction) {
    if let Value::Array(names) = list {
        names.retain(|name| name.as_str().is_none_or(|name| redact.shows(name)));
    }
}

/// Removes definitions to which nothing refers any more: they describe hidden parameters.
fn drop_unused_definitions(schema: &mut Value) {
    for holder in ["$defs", "definitions"] {
        loop {
            let mut used = BTreeSet::new();
            references(schema, &format!("#/{holder}/"), &mut used);
            let Some(Value::Object(definitions)) = schema.get_mut(holder) else { break };
            let before = definitions.len();
            definitions.retain(|name, _| used.contains(name));
            if definitions.len() == before {
                break;
            }
        }
        if let Value::Object(object) = schema
            && object.get(holder).and_then(Value::as_object).is_some_and(Map::is_empty)
        {
            object.remove(holder);
        }
    }
}

fn references(schema: &Value, prefix: &str, used: &mut BTreeSet<String>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| references(item, prefix, used)),
        Value::Object(object) => {
            if let Some(name) =
                object.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix(prefix))
            {
                used.insert(name.split('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~"));
            }
            object.values().for_each(|value| references(value, prefix, used));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hidden_parameter_is_not_mentioned() {
        let schema = json!({
            "type": "object",
            "required": ["ref", "password"],
            "errorMessage": {"required": "say it"},
            "properties": {
                "ref": {"type": "string", "errorMessage": "a branch", "default": {"errorMessage": 1}},
                "errorMessage": {"type": "string"},
                "password": {"$ref": "#/$defs/password"}
            },
            "allOf": [{"required": ["password"]}, {"if": {"properties": {"password": {"const": "x"}}}}],
            "dependentRequired": {"ref": ["password"], "password": ["ref"]},
            "default": {"password": "x"},
            "$defs": {"password": {"$ref": "#/$defs/word"}, "word": {"const": "swordfish"}}
        });
        let redact = Redaction::Hide(["password".to_owned()].into());
        insta::assert_json_snapshot!(shown(&schema, &redact), @r#"
        {
          "allOf": [
            {
              "required": []
            },
            {
              "if": {
                "properties": {}
              }
            }
          ],
          "dependentRequired": {
            "ref": []
          },
          "properties": {
            "errorMessage": {
              "type": "string"
            },
            "ref": {
              "default": {
                "errorMessage": 1
              },
              "type": "string"
            }
          },
          "required": [
            "ref"
          ],
          "type": "object"
        }
        "#);
    }
}
