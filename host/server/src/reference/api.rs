//! docs/API.md, from the OpenAPI document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{cell, compare};
use crate::http::{openapi_document, paths_of_operators};

const INTRODUCTION: &str = "\
# HTTP API
Every route of the gateway.
This page is made from the OpenAPI document, which each gateway serves at `GET /openapi.json`; a test fails if it is not what that says.

Every error is `application/problem+json` (RFC 9457), a [Problem](#problem) with a stable code in `error`.
Ranges such as `4XX` list the statuses and codes that there are.
How callers authenticate is in [ACCESS.md](ACCESS.md), and admins [there, too](ACCESS.md#admins); complete clients are in [CLIENTS.md](CLIENTS.md).
The examples have the smallest body that the schema allows; `TOKEN` is the wait token of a request.
`COUNTERSIGN_URL` is the address of callers, and `OPS_URL` that of `COUNTERSIGN_OPS_LISTEN`, or the same if that is not set.
";

/// The parts of the API, by the beginning of the path, in the order of the page.
const PARTS: [(&str, &str); 4] = [
    ("For callers", "/api/guard/"),
    ("For admins", "/api/admin/"),
    ("For Slack", "/api/slack/"),
    ("Others", "/"),
];

#[test]
fn every_route_is_in_the_reference() {
    let document = serde_json::to_value(openapi_document()).expect("JSON");
    compare("API.md", &reference(&document));
}

/// A body that the page shows is one that its own schema allows.
#[test]
fn the_examples_fit_their_schemas() {
    let document = serde_json::to_value(openapi_document()).expect("JSON");
    let mut checked = 0;
    for operation in operations(&document).into_iter().map(|(_, _, operation)| operation) {
        let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") else {
            continue;
        };
        let example = example(&document, schema);
        let mut whole = schema.clone();
        whole["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&whole).expect("a schema");
        let errors: Vec<String> = validator.iter_errors(&example).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{example}: {errors:?}");
        checked += 1;
    }
    assert!(checked > 5, "{checked}");
}

/// Every member that a schema can have, its own or another's, is on the page, with what the document says that it is for.
#[test]
fn every_member_is_in_the_reference_with_its_meaning() {
    let document = serde_json::to_value(openapi_document()).expect("JSON");
    let page = reference(&document);
    let schemas = page.split_once("\n## Schemas\n").expect("the schemas are last").1;
    let sections: BTreeMap<&str, &str> =
        schemas.split("\n### ").filter_map(|section| section.split_once('\n')).collect();
    let mut missing = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().expect("an object") {
        // Its own section, and those that it says to look at, too.
        let mut shown = vec![sections[name.as_str()]];
        let mut next = 0;
        while let Some(section) = shown.get(next) {
            let also = section.lines().find(|line| line.starts_with("Also what ")).unwrap_or_default();
            let others = sections.iter().filter(|(other, _)| also.contains(&format!("[{other}]")));
            shown.extend(others.map(|(_, other)| *other).collect::<Vec<_>>());
            next += 1;
        }
        let mut members = BTreeMap::new();
        parts(&document, schema, &mut |part| {
            let properties = part["properties"].as_object().into_iter().flatten();
            members.extend(properties.map(|(name, member)| (name.clone(), member.clone())));
        });
        for (member, schema) in members {
            let row = shown
                .iter()
                .flat_map(|section| section.lines())
                .find(|line| line.starts_with(&format!("| `{member}` |")));
            let mut is_described = false;
            parts(&document, &schema, &mut |part| is_described |= part["description"].is_string());
            if row.is_none_or(|row| is_described && row.ends_with("|  |")) {
                missing.push(format!("{name}.{member}"));
            }
        }
    }
    assert!(missing.is_empty(), "not on the page, or without their meaning: {missing:?}");
}

/// A schema and all that it is made of.
fn parts(document: &Value, schema: &Value, each: &mut impl FnMut(&Value)) {
    each(schema);
    let referred = schema["$ref"].as_str().and_then(|pointer| document.pointer(pointer.strip_prefix('#')?));
    let inner = ["allOf", "oneOf", "anyOf"].iter().filter_map(|key| schema[key].as_array()).flatten();
    for part in inner.chain(referred) {
        parts(document, part, each);
    }
}

fn operations(document: &Value) -> Vec<(&String, &String, &Value)> {
    let paths = document["paths"].as_object().expect("an object");
    paths
        .iter()
        .flat_map(|(path, item)| {
            let operations = item.as_object().expect("an object");
            operations.iter().map(move |(method, operation)| (path, method, operation))
        })
        .collect()
}

fn reference(document: &Value) -> String {
    let mut text = INTRODUCTION.to_owned();
    let operations = operations(document);
    let part_of = |path: &str| {
        PARTS.iter().position(|(_, prefix)| path.starts_with(prefix)).expect("the last takes all")
    };
    for (index, (title, _)) in PARTS.iter().enumerate() {
        let _ = writeln!(text, "\n## {title}");
        for (path, method, operation) in operations.iter().filter(|(path, ..)| part_of(path) == index) {
            route(&mut text, document, path, method, operation);
        }
    }
    text.push_str("\n## Schemas\n");
    for (name, schema) in document["components"]["schemas"].as_object().expect("an object") {
        let _ = writeln!(text, "\n### {name}");
        describe(&mut text, document, schema);
    }
    text
}

fn route(text: &mut String, document: &Value, path: &str, method: &str, operation: &Value) {
    let _ = writeln!(text, "\n### {} {path}", method.to_uppercase());
    for key in ["summary", "description"] {
        if let Some(said) = operation[key].as_str() {
            let _ = writeln!(text, "{}", cell(said));
        }
    }
    if operation["security"].is_array() {
        text.push_str("For admins.\n");
    }
    if let Some(parameters) = operation["parameters"].as_array() {
        text.push_str("\n| parameter | in | type | meaning |\n|---|---|---|---|\n");
        for parameter in parameters {
            let required = if parameter["required"] == true { "" } else { "; may be left out" };
            let _ = writeln!(
                text,
                "| `{}` | {} | {}{required} | {} |",
                parameter["name"].as_str().unwrap_or_default(),
                parameter["in"].as_str().unwrap_or_default(),
                type_of(&parameter["schema"]),
                cell(parameter["description"].as_str().unwrap_or_default())
            );
        }
    }
    if let Some(content) = operation.pointer("/requestBody/content").and_then(Value::as_object) {
        for (media, body) in content {
            let _ = writeln!(text, "\nBody: `{media}`, {}.", type_of(&body["schema"]));
        }
    }
    text.push_str("\n| status | body | meaning |\n|---|---|---|\n");
    for (status, response) in operation["responses"].as_object().expect("an object") {
        let bodies = response["content"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(media, body)| format!("`{media}`: {}", type_of(&body["schema"])));
        let bodies: Vec<String> = bodies.collect();
        let meaning = cell(response["description"].as_str().unwrap_or_default());
        let _ = writeln!(text, "| {status} | {} | {meaning} |", bodies.join("; "));
    }
    let _ = writeln!(text, "\n```sh\n{}\n```", curl(document, path, method, operation));
}

/// A call with curl.
fn curl(document: &Value, path: &str, method: &str, operation: &Value) -> String {
    let base = if paths_of_operators().contains(path) { "OPS_URL" } else { "COUNTERSIGN_URL" };
    let mut path = path.to_owned();
    let mut query = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default();
        let value = scalar(&example(document, &parameter["schema"]), name);
        match parameter["in"].as_str() {
            Some("path") => path = path.replace(&format!("{{{name}}}"), &value),
            Some("query") if parameter["required"] == true => query.push(format!("{name}={value}")),
            _ => {}
        }
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let mut call = "curl".to_owned();
    if method != "get" {
        let _ = write!(call, " -X {}", method.to_uppercase());
    }
    let _ = write!(call, " \"${base}{path}{query}\"");
    let has_security = operation["security"].is_array();
    if has_security {
        call.push_str(" \\\n  -H \"authorization: Bearer $ADMIN_TOKEN\"");
    } else if path == "/api/guard/request" {
        call.push_str(" \\\n  -H \"authorization: Bearer $COUNTERSIGN_API_KEY\"");
    } else if path.starts_with("/api/guard/") {
        call.push_str(" \\\n  -H \"authorization: Bearer $TOKEN\"");
    }
    let content = operation.pointer("/requestBody/content").and_then(Value::as_object);
    for (media, body) in content.into_iter().flatten() {
        let _ = write!(call, " \\\n  -H 'content-type: {media}'");
        let _ = match media.as_str() {
            "application/json" => {
                write!(call, " \\\n  -d '{}'", example(document, &body["schema"]))
            }
            _ => write!(call, " \\\n  --data-binary @FILE"),
        };
    }
    call
}

fn scalar(value: &Value, name: &str) -> String {
    match value {
        Value::String(text) if text.is_empty() || text == "…" => name.to_uppercase(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a schema says of one object, as a table of its members.
fn describe(text: &mut String, document: &Value, schema: &Value) {
    if let Some(said) = schema["description"].as_str() {
        let _ = writeln!(text, "{}", cell(said));
    }
    let mut members: Vec<(&String, &Value, bool)> = Vec::new();
    let parts = || schema["allOf"].as_array().into_iter().flatten();
    for part in std::iter::once(schema).chain(parts()) {
        let required =
            |name: &str| part["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name));
        let properties = part["properties"].as_object().into_iter().flatten();
        members.extend(properties.map(|(name, member)| (name, member, required(name))));
    }
    let others: Vec<String> = parts().filter_map(taken_over).collect();
    if !others.is_empty() {
        let has = if others.len() == 1 { "has" } else { "have" };
        let _ = writeln!(text, "\nAlso what {} {has}.", others.join(" and "));
    }
    if members.is_empty() {
        let _ = writeln!(text, "\nType: {}.", type_of(schema));
        return;
    }
    text.push_str("\n| member | type | meaning |\n|---|---|---|\n");
    for (name, member, is_required) in members {
        let optional = if is_required { "" } else { "; may be absent" };
        let meaning = cell(meaning(document, member).unwrap_or_default());
        let _ = writeln!(text, "| `{name}` | {}{optional} | {meaning} |", type_of(member));
    }
}

/// The schema whose members a part of `allOf` takes over, or those of which it does one.
fn taken_over(part: &Value) -> Option<String> {
    if part["$ref"].is_string() {
        return Some(type_of(part));
    }
    let others: Vec<String> =
        choices(part).filter(|choice| choice["$ref"].is_string()).map(type_of).collect();
    (!others.is_empty()).then(|| format!("{} (if there is one)", others.join(" or ")))
}

/// What a member is for. One that may be `null` says it in the choice that is not, and one that says nothing is what its
/// schema is for.
fn meaning<'a>(document: &'a Value, member: &'a Value) -> Option<&'a str> {
    let said = |schema: &'a Value| schema["description"].as_str();
    let referred = |schema: &'a Value| document.pointer(schema["$ref"].as_str()?.strip_prefix('#')?);
    let all = || std::iter::once(member).chain(choices(member));
    all().find_map(said).or_else(|| all().filter_map(referred).find_map(said))
}

/// The schemas that one is a choice of.
fn choices(schema: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf"].iter().filter_map(|choice| schema[choice].as_array()).flatten()
}

/// A schema in a few words.
fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|pointer| pointer.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let joined = if choice == "allOf" { " and " } else { " or " };
            return choices.iter().map(type_of).collect::<Vec<_>>().join(joined);
        }
    }
    let mut said = match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any JSON".to_owned(),
    };
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("`{}`", scalar(value, "null"))).collect();
        said = values.join(", ");
    }
    if schema["items"].is_object() {
        let _ = write!(said, " of {}", type_of(&schema["items"]));
    }
    let mut more = Vec::new();
    if let Some(format) = schema["format"].as_str() {
        more.push(format.to_owned());
    }
    for (key, words) in [
        ("minLength", "length from"),
        ("maxLength", "length to"),
        ("minimum", "from"),
        ("maximum", "to"),
        ("maxItems", "items to"),
    ] {
        if !schema[key].is_null() {
            more.push(format!("{words} {}", schema[key]));
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        more.push(format!("`{}`", cell(pattern)));
    }
    if more.is_empty() { said } else { format!("{said} ({})", more.join(", ")) }
}

/// The smallest value that a schema allows.
fn example(document: &Value, schema: &Value) -> Value {
    if let Some(pointer) = schema["$ref"].as_str().and_then(|pointer| pointer.strip_prefix('#')) {
        return document.pointer(pointer).map_or(Value::Null, |schema| example(document, schema));
    }
    if let Some(given) = schema["example"].as_str().or_else(|| schema["examples"][0].as_str()) {
        return Value::String(given.to_owned());
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let not_null = choices.iter().find(|choice| choice["type"] != "null");
            return not_null.map_or(Value::Null, |choice| example(document, choice));
        }
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(several) => several.first().and_then(Value::as_str),
        one => one.as_str(),
    };
    match kind {
        Some("object") => {
            let mut object = Map::new();
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                object.insert(name.to_owned(), example(document, &schema["properties"][name]));
            }
            Value::Object(object)
        }
        Some("array") => json!([]),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("boolean") => json!(true),
        _ => match schema["pattern"].as_str() {
            Some(pattern) if pattern.starts_with("^https?") => json!("https://example.com/"),
            _ => json!("example"),
        },
    }
}
