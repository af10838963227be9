//! A JSON Schema of a configuration, rendered for people: one entry a value, with its type, limits and description.
//!
//! What has no rendering is named rather than left out, so that nobody believes to have read everything.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::table;

/// How deep schemas within schemas are shown; a schema that refers to itself ends here, too.
const DEEPEST: usize = 8;
const WIDTH: usize = 96;

/// Keywords that are shown, or that say nothing of values.
const SHOWN: [&str; 36] = [
    "$schema",
    "$id",
    "$ref",
    "$defs",
    "$comment",
    "title",
    "description",
    "type",
    "enum",
    "const",
    "default",
    "examples",
    "deprecated",
    "errorMessage",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "anyOf",
];

/// The schema's properties, each with what is inside of it, indented.
pub(super) fn render(schema: &Value) -> String {
    let mut text = String::new();
    let renderer = Renderer { document: schema };
    let root = renderer.resolve(schema, 0);
    let entries = renderer.inner(root, "", 0, &mut text);
    let rest = unshown(root);
    if entries == 0 {
        let _ = writeln!(text, "{}", renderer.kind(root));
    }
    if !rest.is_empty() {
        let _ = writeln!(text, "also: {}", rest.join(", "));
    }
    text
}

struct Renderer<'a> {
    document: &'a Value,
}

impl<'a> Renderer<'a> {
    /// What is inside of an object or a list. Returns how many entries that are.
    fn inner(&self, schema: &'a Value, path: &str, depth: usize, text: &mut String) -> usize {
        if depth > DEEPEST {
            return 0;
        }
        let mut entries = 0;
        let mut entry = |name: String, schema: &'a Value, required: Option<bool>| {
            let path = if path.is_empty() { name } else { format!("{path}{name}") };
            self.entry(&path, schema, required, depth, text);
            entries += 1;
        };
        let dot = if path.is_empty() { "" } else { "." };
        let required: Vec<&str> = array(schema, "required").iter().filter_map(Value::as_str).collect();
        for (name, property) in object(schema, "properties") {
            entry(format!("{dot}{name}"), property, Some(required.contains(&name.as_str())));
        }
        for (pattern, property) in object(schema, "patternProperties") {
            entry(format!("{dot}</{pattern}/>"), property, None);
        }
        if let Some(others @ Value::Object(_)) = schema.get("additionalProperties") {
            entry(format!("{dot}<name>"), others, None);
        }
        for (index, item) in array(schema, "prefixItems").iter().enumerate() {
            entry(format!("[{index}]"), item, None);
        }
        if let Some(items @ Value::Object(members)) = schema.get("items")
            && (has_inside(items) || members.contains_key("description") || members.contains_key("$ref"))
        {
            entry("[]".to_owned(), items, None);
        }
        entries
    }

    fn entry(&self, path: &str, schema: &'a Value, required: Option<bool>, depth: usize, text: &mut String) {
        let schema = self.resolve(schema, 0);
        let indent = "  ".repeat(depth);
        let mut facts = self.kind(schema);
        match (required, schema.get("default")) {
            (Some(true), _) => facts.push_str(", required"),
            (_, Some(default)) => facts.push_str(&format!(", {default} where it is left out")),
            (Some(false), None) => facts.push_str(", optional"),
            (None, None) => {}
        }
        let rest = unshown(schema);
        if !rest.is_empty() {
            facts.push_str(&format!("; also: {}", rest.join(", ")));
        }
        let _ = writeln!(text, "{indent}{path}: {facts}");
        if let Some(description) = schema.get("description").and_then(Value::as_str) {
            for line in description.lines().flat_map(|line| table::wrap(line, WIDTH)) {
                let _ = writeln!(text, "{indent}    {}", line.trim());
            }
        }
        self.inner(schema, path, depth + 1, text);
    }

    /// `list of text, 1 or more, all different`
    fn kind(&self, schema: &'a Value) -> String {
        match schema {
            Value::Bool(true) => return "anything".to_owned(),
            Value::Bool(false) => return "nothing".to_owned(),
            _ => {}
        }
        if let Some(only) = schema.get("const") {
            return format!("always {only}");
        }
        let choices = array(schema, "enum");
        if !choices.is_empty() {
            let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
            return format!("one of {}", choices.join(", "));
        }
        let alternatives = array(schema, "anyOf");
        if !alternatives.is_empty() {
            let kinds = alternatives.iter().map(|schema| self.kind(self.resolve(schema, 0)));
            return kinds.collect::<Vec<_>>().join(", or ");
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mut kind = match types.as_slice() {
            [] => "anything".to_owned(),
            types => types.iter().map(|name| self.type_name(name, schema)).collect::<Vec<_>>().join(" or "),
        };
        for limit in limits(schema) {
            kind.push_str(", ");
            kind.push_str(&limit);
        }
        kind
    }

    fn type_name(&self, name: &str, schema: &'a Value) -> String {
        match name {
            "string" => "text".to_owned(),
            "integer" => "whole number".to_owned(),
            "boolean" => "true or false".to_owned(),
            "object" => "map".to_owned(),
            "array" => match schema.get("items") {
                Some(items @ Value::Object(_)) if !has_inside(items) => {
                    match self.kind(self.resolve(items, 0)) {
                        kind if kind.contains(", ") => format!("list of ({kind})"),
                        kind => format!("list of {kind}"),
                    }
                }
                _ => "list".to_owned(),
            },
            other => other.to_owned(),
        }
    }

    /// What a local reference leads to, where the schema is one.
    fn resolve(&self, schema: &'a Value, depth: usize) -> &'a Value {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        match target.and_then(|pointer| self.document.pointer(pointer)) {
            Some(found) if depth < DEEPEST => self.resolve(found, depth + 1),
            _ => schema,
        }
    }
}

/// Lengths, sizes and ranges.
fn limits(schema: &Value) -> Vec<String> {
    let get = |keyword: &str| schema.get(keyword).map(Value::to_string);
    let mut limits = Vec::new();
    let mut range = |least: &str, most: &str, one: &str, many: &str| {
        let unit = |number: &str| if number == "1" { one.to_owned() } else { many.to_owned() };
        match (get(least), get(most)) {
            (Some(least), Some(most)) => limits.push(format!("{least} to {most}{}", unit(&most))),
            (Some(least), None) => limits.push(format!("at least {least}{}", unit(&least))),
            (None, Some(most)) => limits.push(format!("at most {most}{}", unit(&most))),
            (None, None) => {}
        }
    };
    range("minimum", "maximum", "", "");
    range("minLength", "maxLength", " character", " characters");
    range("minItems", "maxItems", " entry", " entries");
    range("minProperties", "maxProperties", " entry", " entries");
    limits.extend(get("exclusiveMinimum").map(|least| format!("more than {least}")));
    limits.extend(get("exclusiveMaximum").map(|most| format!("less than {most}")));
    limits.extend(get("multipleOf").map(|of| format!("a multiple of {of}")));
    if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
        limits.push("all different".to_owned());
    }
    let text = |keyword: &str| schema.get(keyword).and_then(Value::as_str);
    limits.extend(text("pattern").map(|pattern| format!("of the form /{pattern}/")));
    limits.extend(text("format").map(|format| format!("a {format}")));
    if let Some(Value::Object(names)) = schema.get("propertyNames") {
        let names = Value::Object(names.clone());
        limits.extend(self::limits(&names).into_iter().map(|limit| format!("names of {limit}")));
    }
    limits
}

/// Whether there is more to say of a value than its type.
fn has_inside(schema: &Value) -> bool {
    ["properties", "patternProperties", "items", "prefixItems"].iter().any(|key| schema.get(key).is_some())
        || matches!(schema.get("additionalProperties"), Some(Value::Object(_)))
}

/// Keywords that are not shown.
fn unshown(schema: &Value) -> Vec<&str> {
    let keywords = schema.as_object().into_iter().flatten().map(|(keyword, _)| keyword.as_str());
    keywords.filter(|keyword| !SHOWN.contains(keyword)).collect()
}

fn array<'a>(schema: &'a Value, keyword: &str) -> &'a [Value] {
    schema.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn object<'a>(schema: &'a Value, keyword: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(keyword).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plain_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "approvers": {
                    "description": "Who may approve.",
                    "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1, "uniqueItems": true
                },
                "approvals": { "type": "integer", "minimum": 1, "maximum": 1000, "default": 1 },
                "strict": { "type": "boolean" },
                "mode": { "enum": ["a", "b"] },
                "ratio": { "type": "number", "exclusiveMinimum": 0, "maximum": 1 }
            },
            "required": ["approvers"],
            "additionalProperties": false
        });
        insta::assert_snapshot!(render(&schema), @r#"
    approvals: whole number, 1 to 1000, 1 where it is left out
    approvers: list of (text, at least 1 character), at least 1 entry, all different, required
        Who may approve.
    mode: one of "a", "b", optional
    ratio: number, at most 1, more than 0, optional
    strict: true or false, optional
    "#);
    }

    #[test]
    fn schemas_within_schemas() {
        let schema = json!({
            "$defs": { "people": { "type": "array", "items": { "type": "string" }, "description": "Ids." } },
            "properties": {
                "personas": {
                    "type": "object",
                    "propertyNames": { "minLength": 1, "maxLength": 64 },
                    "additionalProperties": { "$ref": "#/$defs/people" },
                    "minProperties": 1
                },
                "windows": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": { "from": { "type": "string", "format": "time" }, "to": { "type": ["string", "null"] } },
                        "required": ["from"]
                    }
                },
                "either": { "anyOf": [{ "type": "integer" }, { "type": "string", "pattern": "^[0-9]+$" }] },
                "odd": { "not": { "type": "null" }, "if": true },
                "fixed": { "const": 1 },
                "free": true
            }
        });
        insta::assert_snapshot!(render(&schema), @"
    either: whole number, or text, of the form /^[0-9]+$/, optional
    fixed: always 1, optional
    free: anything, optional
    odd: anything, optional; also: if, not
    personas: map, at least 1 entry, names of 1 to 64 characters, optional
      personas.<name>: list of text
          Ids.
    windows: list, optional
      windows[]: map
        windows[].from: text, a time, required
        windows[].to: text or null, optional
    ");
    }

    #[test]
    fn a_schema_that_is_no_object_or_that_never_ends() {
        assert_eq!(render(&json!({ "type": "string" })), "text\n");
        assert_eq!(render(&json!(true)), "anything\n");
        let tree = json!({ "properties": { "left": { "$ref": "#" } } });
        let text = render(&tree);
        assert!(text.lines().count() < 20 && text.starts_with("left: anything, optional\n"), "{text}");
        let circle = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/a" } } });
        assert_eq!(render(&circle), "anything\n");
    }
}
