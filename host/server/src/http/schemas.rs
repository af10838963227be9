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
        (status = 200, description = "JSON Schema (2020-12), without `errorMessage`; if the action hides parameters, no more of it than `$schema`, `type`, what is shown of `properties` and `required`, and the definitions that only these use", body = Object),
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

/// The schema, without error messages and without hidden parameters.
///
/// If anything is hidden, this lists what is shown, not what is left out: all else that a schema says of the whole object
/// may be about hidden parameters, by keywords, by references or in texts.
fn shown(schema: &Value, redact: &Redaction) -> Value {
    let mut schema = schema.clone();
    strip_messages(&mut schema);
    match schema {
        Value::Object(members) if hides_any(redact) => Value::Object(shown_members(members, redact)),
        schema => schema,
    }
}

fn hides_any(redact: &Redaction) -> bool {
    match redact {
        Redaction::Show(_) => true,
        Redaction::Hide(keys) => !keys.is_empty(),
    }
}

fn shown_members(mut members: Map<String, Value>, redact: &Redaction) -> Map<String, Value> {
    let mut shown = Map::new();
    for keyword in ["$schema", "type"] {
        shown.extend(members.remove_entry(keyword));
    }
    if let Some(Value::Array(mut names)) = members.remove("required") {
        names.retain(|name| name.as_str().is_some_and(|name| redact.shows(name)));
        shown.insert("required".to_owned(), Value::Array(names));
    }
    let definitions = HOLDERS.map(|holder| (holder, members.remove(holder)));
    let Some(Value::Object(properties)) = members.remove("properties") else { return shown };
    let (mut properties, hidden): (Map<_, _>, Map<_, _>) =
        properties.into_iter().partition(|(key, _)| redact.shows(key));
    // What is left is about hidden parameters, or may be.
    members.insert("properties".to_owned(), Value::Object(hidden));
    let of_hidden = reached(&Value::Object(members), &definitions);
    let mut used = BTreeSet::new();
    for schema in properties.values_mut() {
        match (reached(schema, &definitions), &of_hidden) {
            (Some(names), _) if names.is_empty() => {}
            (Some(names), Some(of_hidden)) if names.is_disjoint(of_hidden) => used.extend(names),
            // There is such a parameter, but what it may be leads to what is hidden.
            _ => *schema = Value::Bool(true),
        }
    }
    shown.insert("properties".to_owned(), Value::Object(properties));
    for (holder, definitions) in definitions {
        let Some(Value::Object(mut definitions)) = definitions else { continue };
        definitions.retain(|name, _| used.contains(&(holder, name.clone())));
        if !definitions.is_empty() {
            shown.insert(holder.to_owned(), Value::Object(definitions));
        }
    }
    shown
}

/// Keywords that hold definitions.
const HOLDERS: [&str; 2] = ["$defs", "definitions"];

/// Keywords with which a reference can lead to anywhere.
const NAMES_PLACES: [&str; 6] =
    ["$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef"];

/// A holder, and the name of a definition in it.
type Name = (&'static str, String);

/// The definitions that a part of the schema leads to, by others, too. `None` if it leads to anything else, or if that
/// cannot be told.
fn reached(schema: &Value, definitions: &[(&'static str, Option<Value>); 2]) -> Option<BTreeSet<Name>> {
    let (mut names, mut open) = (BTreeSet::new(), vec![schema]);
    while let Some(part) = open.pop() {
        match part {
            Value::Array(parts) => open.extend(parts),
            Value::Object(members) => {
                if NAMES_PLACES.iter().any(|keyword| members.contains_key(*keyword)) {
                    return None;
                }
                open.extend(members.values());
                let Some(Value::String(target)) = members.get("$ref") else { continue };
                let (holder, name) = definition(target)?;
                let held = definitions.iter().find(|(at, _)| *at == holder);
                let definition = held.and_then(|(_, held)| held.as_ref()?.get(&name))?;
                if names.insert((holder, name)) {
                    open.push(definition);
                }
            }
            _ => {}
        }
    }
    Some(names)
}

/// The definition that a reference leads into.
fn definition(target: &str) -> Option<Name> {
    let path = target.strip_prefix("#/").filter(|path| !path.contains('%'))?;
    let (holder, name) = path.split_once('/')?;
    let holder = HOLDERS.into_iter().find(|it| *it == holder)?;
    let name = name.split('/').next().unwrap_or_default();
    Some((holder, name.replace("~1", "/").replace("~0", "~")))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_that_hides_nothing_is_shown_without_its_messages() {
        let schema = json!({
            "errorMessage": {"required": "say it"},
            "additionalProperties": false,
            "properties": {
                "ref": {"type": "string", "errorMessage": "a branch", "default": {"errorMessage": 1}},
                "errorMessage": {"type": "string"}
            },
            "allOf": [{"required": ["ref"]}]
        });
        let expected = json!({
            "additionalProperties": false,
            "properties": {
                "ref": {"type": "string", "default": {"errorMessage": 1}},
                "errorMessage": {"type": "string"}
            },
            "allOf": [{"required": ["ref"]}]
        });
        assert_eq!(shown(&schema, &Redaction::Hide([].into())), expected);
    }

    #[test]
    fn a_hidden_parameter_is_not_mentioned() {
        // Whatever is in the schema beside this, it says no more.
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["ref", "password"],
            "properties": {
                "ref": {"$ref": "#/$defs/branch", "errorMessage": "a branch"},
                "tags": {"items": {"$ref": "#/definitions/tag/items"}, "default": ["a"]},
                "password": {"$ref": "#/$defs/password"}
            },
            "$defs": {
                "branch": {"anyOf": [{"$ref": "#/$defs/a~1b"}, {"const": "main"}]},
                "a/b": {"pattern": "^rel-"},
                "password": {"$ref": "#/$defs/word"},
                "word": {"const": "swordfish"},
                "unused": {"description": "swordfish"}
            },
            "definitions": {"tag": {"items": {"type": "string"}}}
        });
        let expected = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["ref"],
            "properties": {
                "ref": {"$ref": "#/$defs/branch"},
                "tags": {"items": {"$ref": "#/definitions/tag/items"}, "default": ["a"]}
            },
            "$defs": {
                "branch": {"anyOf": [{"$ref": "#/$defs/a~1b"}, {"const": "main"}]},
                "a/b": {"pattern": "^rel-"}
            },
            "definitions": {"tag": {"items": {"type": "string"}}}
        });
        let rule = json!({"properties": {"password": {"const": "swordfish"}}});
        let rows = [
            ("title", json!("swordfish")),
            ("description", json!("swordfish")),
            ("$comment", json!("swordfish")),
            ("default", json!({"password": "swordfish"})),
            ("examples", json!([{"password": "swordfish"}])),
            ("const", json!({"password": "swordfish"})),
            ("enum", json!([{"password": "swordfish"}])),
            ("allOf", json!([rule])),
            ("anyOf", json!([rule])),
            ("oneOf", json!([rule])),
            ("not", rule.clone()),
            ("if", rule.clone()),
            ("then", rule.clone()),
            ("else", rule.clone()),
            ("$ref", json!("#/$defs/word")),
            ("patternProperties", json!({"^pass": {"const": "swordfish"}})),
            ("propertyNames", json!({"enum": ["ref", "password", "swordfish"]})),
            ("additionalProperties", json!({"const": "swordfish"})),
            ("unevaluatedProperties", json!({"const": "swordfish"})),
            ("dependentRequired", json!({"ref": ["password"]})),
            ("dependentSchemas", json!({"ref": rule})),
            ("dependencies", json!({"ref": rule})),
            ("minProperties", json!(2)),
            ("errorMessage", json!("swordfish")),
            ("x-note", json!("swordfish")),
        ];
        let hide = Redaction::Hide(["password".to_owned()].into());
        let show = Redaction::Show(["ref", "tags"].map(str::to_owned).into());
        for redact in [hide, show] {
            assert_eq!(shown(&schema, &redact), expected);
            for (keyword, value) in &rows {
                let mut more = schema.clone();
                more[*keyword] = value.clone();
                assert_eq!(shown(&more, &redact), expected, "{keyword}");
            }
        }
    }

    #[test]
    fn a_shown_parameter_leads_to_no_hidden_one() {
        let all = json!({"properties": {"password": {"const": "swordfish"}}});
        // What the shown parameter is, and what is beside it.
        let rows = [
            (json!({"$ref": "#"}), json!({})),
            (json!({"items": {"$ref": "#/properties/password"}}), json!({})),
            (json!({"$ref": "#/$defs/word"}), json!({})),
            (json!({"$ref": "#/$defs/other"}), json!({})),
            (json!({"$ref": "#/$defs/all"}), json!({"allOf": [{"$ref": "#/$defs/all"}]})),
            (json!({"$ref": "#/$defs/all"}), json!({"$ref": "#everything"})),
            (json!({"$ref": "#/$defs/all"}), json!({"$dynamicRef": "#everything"})),
            (json!({"$ref": "#everything"}), json!({})),
            (json!({"$ref": "#/%24defs/word"}), json!({})),
            (json!({"$ref": "#/$defs/missing"}), json!({})),
            (
                json!({"$ref": "https://acme.example/it#/$defs/word"}),
                json!({"$id": "https://acme.example/it"}),
            ),
            (json!({"$dynamicRef": "#everything"}), json!({})),
            (json!({"$id": "https://acme.example/it", "$ref": "#/$defs/all"}), json!({})),
        ];
        let redact = Redaction::Hide(["password".to_owned()].into());
        for (parameter, beside) in rows {
            let mut schema = json!({
                "properties": {"ref": parameter, "password": {"$ref": "#/$defs/word"}},
                "$defs": {
                    "word": {"const": "swordfish"},
                    "other": {"items": {"$ref": "#/$defs/word"}},
                    "all": all
                }
            });
            for (keyword, value) in beside.as_object().into_iter().flatten() {
                schema[keyword] = value.clone();
            }
            assert_eq!(shown(&schema, &redact), json!({"properties": {"ref": true}}), "{schema}");
        }
    }
}
