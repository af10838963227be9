//! JSON Schemas of configurations and parameters.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value, json};

/// A validator of `schema`, which must be JSON Schema 2020-12 and refer to nothing outside of itself.
pub(super) fn compile(schema: &Value) -> Result<Validator, String> {
    if let Some(dialect) = schema.get("$schema").and_then(Value::as_str)
        && dialect.trim_end_matches('#') != "https://json-schema.org/draft/2020-12/schema"
    {
        return Err(format!("its `$schema` is `{dialect}`, but only JSON Schema 2020-12 is understood"));
    }
    jsonschema::draft202012::meta::validate(schema).map_err(|error| at(&error, error.to_string()))?;
    jsonschema::draft202012::options().build(schema).map_err(|error| at(&error, error.to_string()))
}

/// `text`, and where in the checked value it applies.
fn at(error: &ValidationError<'_>, text: String) -> String {
    let path = error.instance_path().as_str();
    if path.is_empty() { text } else { format!("`{path}`: {text}") }
}

/// Name of the action's document inside of the one that checks single parameters.
const DOCUMENT: &str = "urn:countersign:parameters";

/// An action's parameter schema, prepared to check one edited parameter at a time.
pub(super) struct ParamSchema {
    document: Value,
    /// Checks objects; asks for no key, since it only ever sees one.
    single: Validator,
    whole: Validator,
    required: BTreeSet<String>,
    messages: BTreeMap<String, String>,
}

impl ParamSchema {
    pub(super) fn new(document: Value) -> Result<ParamSchema, String> {
        let whole = compile(&document)?;
        let Value::Object(members) = &document else {
            return Err("a schema of parameters must be an object".to_owned());
        };
        let single = jsonschema::draft202012::options()
            .build(&single_parameter(members))
            .map_err(|error| at(&error, error.to_string()))?;
        let required = members.get("required").and_then(Value::as_array).into_iter().flatten();
        let required = required.filter_map(Value::as_str).map(str::to_owned).collect();
        let properties = members.get("properties").and_then(Value::as_object).into_iter().flatten();
        let mut messages = BTreeMap::new();
        for (key, schema) in properties {
            match schema.get("errorMessage") {
                None => {}
                Some(Value::String(message)) => drop(messages.insert(key.clone(), message.clone())),
                // Passed over, approvers would see other words than the ones meant for them.
                Some(_) => {
                    let path = key.replace('~', "~0").replace('/', "~1");
                    return Err(format!("`/properties/{path}/errorMessage`: it must be text"));
                }
            }
        }
        Ok(ParamSchema { single, whole, required, messages, document })
    }

    pub(super) fn document(&self) -> &Value {
        &self.document
    }

    /// Whether parameters may have this key at all.
    pub(super) fn has(&self, key: &str) -> bool {
        let probe = json!({ key: null });
        !self.single.iter_errors(&probe).any(|error| is_unlisted(&error))
    }

    /// What is wrong with giving `key` this value, or with removing it if there is none.
    pub(super) fn violations(&self, key: &str, after: Option<&Value>) -> Vec<String> {
        let found = match after {
            None if self.required.contains(key) => vec!["it is required".to_owned()],
            None => Vec::new(),
            Some(value) => {
                let object = json!({ key: value });
                let errors = self.single.iter_errors(&object);
                errors.map(|error| describe(&error)).collect()
            }
        };
        match self.messages.get(key) {
            Some(message) if !found.is_empty() => vec![message.clone()],
            _ => found,
        }
    }

    /// Synthetic parameters that the schema accepts, if some are easily made.
    pub(super) fn synthetic(&self) -> Option<Map<String, Value>> {
        let Value::Object(params) = synthetic(&self.document, &self.document, 0)? else { return None };
        let params = Value::Object(params);
        let valid = self.whole.is_valid(&params);
        let Value::Object(params) = params else { return None };
        valid.then_some(params)
    }
}

impl std::fmt::Debug for ParamSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.document.fmt(f)
    }
}

/// A schema of objects with one key, which means for that key what `document` means. The document stays
/// whole inside of it under a name, so that the references within it keep their meaning.
fn single_parameter(members: &Map<String, Value>) -> Value {
    let mut document = members.clone();
    let own = document.get("$id").and_then(Value::as_str).filter(|id| id.contains(':'));
    let id = own.unwrap_or(DOCUMENT).trim_end_matches('#').to_owned();
    document.insert("$id".to_owned(), Value::String(id.clone()));
    let refer = |path: &str| json!({ "$ref": format!("{id}#/{path}") });
    let refer_all = |keyword: &str| {
        let keys = members.get(keyword).and_then(Value::as_object).into_iter().flatten();
        let all = keys.map(|(key, _)| (key.clone(), refer(&format!("{keyword}/{}", pointer(key)))));
        Value::Object(all.collect())
    };
    let additional = match members.get("additionalProperties") {
        // Spelt out, so that an error says that the key is unlisted.
        Some(Value::Bool(allowed)) => Value::Bool(*allowed),
        Some(_) => refer("additionalProperties"),
        None => Value::Bool(true),
    };
    json!({
        "$id": "urn:countersign:single-parameter",
        "properties": refer_all("properties"),
        "patternProperties": refer_all("patternProperties"),
        "additionalProperties": additional,
        "$defs": { "document": document },
    })
}

/// A key as part of a JSON Pointer in the fragment of a URI.
fn pointer(key: &str) -> String {
    let mut text = String::new();
    for letter in key.replace('~', "~0").replace('/', "~1").bytes() {
        match letter {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(letter.into()),
            _ => text.push_str(&format!("%{letter:02X}")),
        }
    }
    text
}

fn is_unlisted(error: &ValidationError<'_>) -> bool {
    error.instance_path().as_str().is_empty()
        && matches!(error.kind(), ValidationErrorKind::AdditionalProperties { .. })
}

/// The error without the value, which may be long, and with the place where the parameter is no plain value.
fn describe(error: &ValidationError<'_>) -> String {
    if is_unlisted(error) {
        return "it is not a parameter of this action".to_owned();
    }
    let masked = error.masked_with("it").to_string();
    let path = error.instance_path().as_str();
    let inner = path.get(1..).and_then(|path| path.split_once('/')).map_or("", |(_, inner)| inner);
    if inner.is_empty() { masked } else { format!("`/{inner}`: {masked}") }
}

/// A value that has what the schema plainly asks for; `None` if that would take thought.
pub(super) fn synthetic(schema: &Value, document: &Value, depth: u8) -> Option<Value> {
    if depth > 16 {
        return None;
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        return synthetic(document.pointer(target.strip_prefix('#')?)?, document, depth + 1);
    }
    let first = |keyword: &str| schema.get(keyword).and_then(Value::as_array).and_then(|all| all.first());
    let given = schema.get("const").or_else(|| first("enum")).or_else(|| schema.get("default"));
    if let Some(value) = given.or_else(|| first("examples")) {
        return Some(value.clone());
    }
    let number = |keyword: &str| schema.get(keyword).and_then(Value::as_u64).unwrap_or(0);
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => {
            let length = usize::try_from(number("minLength")).ok().filter(|length| *length <= 1024)?;
            Some(Value::String("a".repeat(length.max(1))))
        }
        Some("integer" | "number") => {
            let least = schema.get("minimum").or_else(|| schema.get("maximum")).cloned();
            Some(least.unwrap_or_else(|| json!(1)))
        }
        Some("boolean") => Some(Value::Bool(false)),
        Some("null") => Some(Value::Null),
        Some("array") => {
            let count = usize::try_from(number("minItems")).ok().filter(|count| *count <= 16)?;
            let item = schema.get("items").unwrap_or(&Value::Null);
            (0..count)
                .map(|_| synthetic(item, document, depth + 1))
                .collect::<Option<Vec<_>>>()
                .map(Value::Array)
        }
        _ => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            let member = |key: &str| {
                let schema = schema.get("properties").and_then(|all| all.get(key)).unwrap_or(&Value::Null);
                Some((key.to_owned(), synthetic(schema, document, depth + 1)?))
            };
            required.filter_map(Value::as_str).map(member).collect::<Option<Map<_, _>>>().map(Value::Object)
        }
    }
}
