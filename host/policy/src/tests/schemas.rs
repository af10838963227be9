//! Edited values, checked one at a time.

use serde_json::json;

use super::*;
use crate::schema::ParamSchema;

fn schema() -> ParamSchema {
    ParamSchema::new(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["ref", "replicas"],
        "additionalProperties": false,
        "properties": {
            "ref": { "$ref": "#/$defs/ref" },
            "replicas": {
                "type": "integer", "minimum": 1, "maximum": 20,
                "errorMessage": "replicas must be from 1 to 20"
            },
            "note": { "type": "string", "maxLength": 5 },
            "plan": {
                "type": "object",
                "properties": { "steps": { "type": "array", "items": { "$ref": "#/$defs/ref" } } }
            },
            "a/b~c %": { "type": "boolean" }
        },
        "patternProperties": { "^x-": { "type": "string" } },
        "$defs": { "ref": { "type": "string", "pattern": "^v[0-9]+$" } }
    }))
    .unwrap()
}

#[test]
fn each_edit_is_held_to_its_property() {
    let schema = schema();
    let rows: &[(&str, Option<Value>, &[&str])] = &[
        ("ref", Some(json!("v12")), &[]),
        ("ref", Some(json!("main")), &[r#"it does not match "^v[0-9]+$""#]),
        ("ref", Some(json!(1)), &[r#"it is not of type "string""#]),
        ("ref", None, &["it is required"]),
        ("replicas", Some(json!(20)), &[]),
        ("replicas", Some(json!(21)), &["replicas must be from 1 to 20"]),
        ("replicas", Some(json!("many")), &["replicas must be from 1 to 20"]),
        ("replicas", None, &["replicas must be from 1 to 20"]),
        ("note", Some(json!("longer than five")), &["it is longer than 5 characters"]),
        ("note", None, &[]),
        ("plan", Some(json!({ "steps": ["v1"] })), &[]),
        ("plan", Some(json!({ "steps": ["v1", "w"] })), &[r#"`/steps/1`: it does not match "^v[0-9]+$""#]),
        ("a/b~c %", Some(json!(true)), &[]),
        ("a/b~c %", Some(json!(1)), &[r#"it is not of type "boolean""#]),
        ("x-team", Some(json!("a")), &[]),
        ("x-team", Some(json!(1)), &[r#"it is not of type "string""#]),
        ("unlisted", Some(json!(1)), &["it is not a parameter of this action"]),
    ];
    for (key, after, violations) in rows {
        assert_eq!(schema.violations(key, after.as_ref()), *violations, "{key} {after:?}");
    }
    assert!(schema.has("x-team") && schema.has("ref") && !schema.has("unlisted"));
}

#[test]
fn references_within_the_document_keep_their_meaning() {
    let tree = json!({
        "$id": "https://example.com/tree",
        "type": "object",
        "required": ["name"],
        "properties": { "name": { "type": "string" }, "child": { "$ref": "#" } }
    });
    let schema = ParamSchema::new(tree).unwrap();
    assert!(schema.violations("child", Some(&json!({ "name": "a" }))).is_empty());
    assert_eq!(schema.violations("child", Some(&json!({}))), [r#""name" is a required property"#]);
    assert!(schema.violations("anything", Some(&json!(1))).is_empty());
}

#[test]
fn a_violation_does_not_repeat_the_value() {
    let long = json!("x".repeat(10_000));
    let violations = schema().violations("note", Some(&long));
    assert!(violations[0].len() < 100, "{violations:?}");
}

#[test]
fn synthetic_parameters() {
    let params = schema();
    assert!(params.synthetic().is_none(), "a pattern takes thought");
    let plain = ParamSchema::new(json!({
        "type": "object",
        "required": ["service", "replicas", "env", "tags"],
        "properties": {
            "service": { "type": "string", "minLength": 3 },
            "replicas": { "$ref": "#/$defs/count" },
            "env": { "enum": ["staging", "production"] },
            "tags": { "type": "array", "minItems": 2, "items": { "type": "string" } }
        },
        "$defs": { "count": { "type": "integer", "minimum": 2 } }
    }));
    let synthetic = Value::Object(plain.unwrap().synthetic().unwrap());
    assert_eq!(synthetic, json!({ "service": "aaa", "replicas": 2, "env": "staging", "tags": ["a", "a"] }));
}

#[test]
fn what_is_no_schema_is_refused() {
    for (document, words) in [
        (json!({ "type": "strnig" }), "/type"),
        (json!({ "properties": { "a": { "minimum": "1" } } }), "/properties/a/minimum"),
        (json!({ "properties": { "a": { "$ref": "#/$defs/none" } } }), "none"),
        (json!({ "$ref": "https://example.com/schema.json" }), "example.com"),
        (json!({ "properties": { "a": { "$ref": "file:///etc/passwd" } } }), "passwd"),
        (json!({ "$schema": "http://json-schema.org/draft-07/schema#" }), "2020-12"),
        (json!({ "patternProperties": { "(": {} } }), "("),
        (
            json!({ "properties": { "a/b": { "errorMessage": { "type": "x" } } } }),
            "/properties/a~1b/errorMessage",
        ),
        (json!(true), "object"),
    ] {
        let error = ParamSchema::new(document.clone()).unwrap_err();
        assert!(error.contains(words), "{document}: {error}");
    }
}
