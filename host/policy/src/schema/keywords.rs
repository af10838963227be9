//! Keywords that JSON Schema 2020-12 does not have. It passes them over, so a rule with a typing error checks nothing.

use serde_json::{Map, Value};

use super::checkable::step;
use crate::yaml::error::did_you_mean;

/// Those whose value is no schema, and `errorMessage`, which is this project's own.
const PLAIN: [&str; 39] = [
    "$anchor",
    "$comment",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "$vocabulary",
    "const",
    "contentEncoding",
    "contentMediaType",
    "default",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "errorMessage",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
];

/// Those whose value is a schema.
const SCHEMA: [&str; 11] = [
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Those whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// Those whose value is a map of schemas; `definitions` is the older name of `$defs`, and references to it work.
const MAP: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// What is wrong with each keyword of a valid schema that is none, and no extension (`x-…`): a sentence, with its place.
pub(super) fn unknown(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    add_unknown(schema, "", &mut found);
    found
}

fn add_unknown(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        let name = keyword.as_str();
        let path = format!("{path}/{}", step(keyword));
        if SCHEMA.contains(&name) {
            add_unknown(value, &path, found);
        } else if LIST.contains(&name) {
            for (index, schema) in value.as_array().into_iter().flatten().enumerate() {
                add_unknown(schema, &format!("{path}/{index}"), found);
            }
        } else if MAP.contains(&name) {
            for (key, schema) in value.as_object().into_iter().flat_map(Map::iter) {
                add_unknown(schema, &format!("{path}/{}", step(key)), found);
            }
        } else if !PLAIN.contains(&name) && !name.starts_with("x-") {
            let hint = did_you_mean(name, [&PLAIN[..], &SCHEMA, &LIST, &MAP].concat());
            found.push(format!("`{path}` is no keyword of JSON Schema 2020-12, so it checks nothing{hint}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_keyword_that_is_none_is_said_with_its_place() {
        let none = |path: &str, hint: &str| {
            format!("`{path}` is no keyword of JSON Schema 2020-12, so it checks nothing{hint}")
        };
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "x-owner": "release",
            "nullable": true,
            "properties": {
                "maximun": { "maximun": 3, "errorMessage": "at most 3" },
                "a/b": { "items": { "minLenght": 1 } },
            },
            "anyOf": [true, { "requierd": ["a/b"] }],
            "definitions": { "odd": { "maximumm": 1 } },
            "examples": [{ "no": "keyword" }],
            "enum": [{ "no": "keyword" }],
        });
        assert_eq!(
            unknown(&schema),
            [
                none("/anyOf/1/requierd", "; did you mean `required`?"),
                none("/definitions/odd/maximumm", "; did you mean `maximum`?"),
                none("/nullable", ""),
                none("/properties/a~1b/items/minLenght", "; did you mean `minLength`?"),
                none("/properties/maximun/maximun", "; did you mean `maximum`?"),
            ]
        );
        assert_eq!(unknown(&json!(true)), Vec::<String>::new());
    }
}
