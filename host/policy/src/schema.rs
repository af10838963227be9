//! JSON Schemas of configurations and parameters.

pub(super) mod checkable;
mod keywords;
mod refused;

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::record::Redaction;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, ValidationOptions, Validator};
use serde_json::{Map, Value, json};

use self::checkable::{Checkable, Hidden, Joined, step};
use crate::yaml::error::did_you_mean;

/// The values of `format` that are checked, each with a text that has it.
const FORMATS: [(&str, &str); 17] = [
    ("date", "2026-01-01"),
    ("date-time", "2026-01-01T12:00:00Z"),
    ("duration", "PT1H"),
    ("email", "somebody@example.com"),
    ("hostname", "example.com"),
    ("ipv4", "192.0.2.1"),
    ("ipv6", "2001:db8::1"),
    ("iri", "https://example.com/"),
    ("iri-reference", "/"),
    ("json-pointer", "/a"),
    ("regex", "a"),
    ("relative-json-pointer", "0"),
    ("time", "12:00:00Z"),
    ("uri", "https://example.com/"),
    ("uri-reference", "/"),
    ("uri-template", "https://example.com/{id}"),
    ("uuid", "00000000-0000-4000-8000-000000000000"),
];

/// Whether texts are checked that a schema says have this `format`.
#[must_use]
pub fn checks_format(name: &str) -> bool {
    FORMATS.iter().any(|(format, _)| *format == name)
}

/// Whether an error is that a text has not the `format` that it should.
pub(super) fn is_of_format(error: &ValidationError<'_>) -> bool {
    matches!(error.kind(), ValidationErrorKind::Format { .. })
}

/// Which key was meant, if an error is that a key is unknown and another one is like it.
pub(super) fn hint(schema: &Value, error: &ValidationError<'_>) -> String {
    let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() else { return String::new() };
    let rules = error.schema_path().as_str().rsplit_once('/').map_or("", |(rules, _)| rules);
    let known = schema.pointer(rules).and_then(|rules| rules.get("properties")?.as_object());
    let (Some(known), Some(first)) = (known, unexpected.first()) else { return String::new() };
    did_you_mean(first, known.keys().map(String::as_str))
}

/// How every schema is read. JSON Schema leaves it open whether `format` is checked; it is, since who writes it relies on
/// it.
fn options() -> ValidationOptions<'static> {
    jsonschema::draft202012::options().should_validate_formats(true)
}

/// What is wrong with a `format` of a valid schema that is none of [`FORMATS`]: nothing would be checked.
pub(super) fn unknown_format(schema: &Value) -> Option<String> {
    let error = options().should_ignore_unknown_formats(false).build(schema).err()?;
    let path = error.schema_path().as_str();
    let name = schema.pointer(path).and_then(Value::as_str).filter(|name| !checks_format(name))?;
    let known = FORMATS.map(|(format, _)| format).join("`, `");
    Some(format!("`{path}`: the format `{name}` cannot be checked; these can: `{known}`"))
}

/// A validator of `schema`, which must be JSON Schema 2020-12 and refer to nothing outside of itself.
pub(super) fn compile(schema: &Value) -> Result<Validator, String> {
    if let Some(dialect) = schema.get("$schema").and_then(Value::as_str)
        && dialect.trim_end_matches('#') != "https://json-schema.org/draft/2020-12/schema"
    {
        return Err(format!("its `$schema` is `{dialect}`, but only JSON Schema 2020-12 is understood"));
    }
    let refused = |error: ValidationError<'_>| refused::text(schema, &error);
    jsonschema::draft202012::meta::validate(schema).map_err(refused)?;
    options().build(schema).map_err(refused)
}

/// `text`, and where in the checked value it applies.
fn at(error: &ValidationError<'_>, text: String) -> String {
    let path = error.instance_path().as_str();
    if path.is_empty() { text } else { format!("`{path}`: {text}") }
}

/// An action's parameter schema, prepared to check edits.
pub(super) struct ParamSchema {
    document: Value,
    whole: Validator,
    redaction: Redaction,
    checkable: Prepared,
    messages: BTreeMap<String, String>,
}

/// What can be checked of the schema under one set of hidden parameters.
struct Prepared {
    document: Value,
    validator: Validator,
    joined: Vec<Joined>,
}

impl Prepared {
    fn new(schema: &Value, hidden: Hidden<'_>) -> Result<Prepared, String> {
        let Checkable { document, joined } = Checkable::of(schema, hidden)?;
        let validator = options().build(&document);
        let validator = validator.map_err(|error| at(&error, error.to_string()))?;
        Ok(Prepared { document, validator, joined })
    }

    /// The schema's own words for an error, if the rule that it breaks has some.
    fn message(&self, error: &ValidationError<'_>) -> Option<&str> {
        let mut rule = &self.document;
        let mut message = None;
        for step in error.evaluation_path().as_str().split('/').skip(1) {
            message = rule.get("errorMessage").and_then(Value::as_str).or(message);
            let index = step.parse::<usize>().ok();
            let Some(inner) = rule.get(step).or_else(|| rule.get(index?)) else { break };
            rule = inner;
        }
        message
    }
}

impl ParamSchema {
    pub(super) fn new(document: Value, redaction: &Redaction) -> Result<ParamSchema, String> {
        let whole = compile(&document)?;
        let checkable = Prepared::new(&document, Hidden { redaction, earlier: &BTreeSet::new() })?;
        let properties = document.get("properties").and_then(Value::as_object).into_iter().flatten();
        let mut messages = BTreeMap::new();
        for (key, schema) in properties {
            match schema.get("errorMessage") {
                None => {}
                Some(Value::String(message)) => drop(messages.insert(key.clone(), message.clone())),
                // Passed over, approvers would see other words than the ones meant for them.
                Some(_) => return Err(format!("`/properties/{}/errorMessage`: it must be text", step(key))),
            }
        }
        Ok(ParamSchema { whole, checkable, redaction: redaction.clone(), messages, document })
    }

    pub(super) fn document(&self) -> &Value {
        &self.document
    }

    /// Whether parameters may have this key at all. What `unevaluatedProperties` says depends on values, so only an edit
    /// shows it.
    pub(super) fn has(&self, key: &str) -> bool {
        let probe = json!({ key: null });
        let is_additional = |error: ValidationError<'_>| {
            error.instance_path().as_str().is_empty()
                && matches!(error.kind(), ValidationErrorKind::AdditionalProperties { .. })
        };
        !self.checkable.validator.iter_errors(&probe).any(is_additional)
    }

    /// Whether parameters may have this key, and its `properties` name it, if there are any.
    pub(super) fn lists(&self, key: &str) -> bool {
        let is_named = self.properties().is_none_or(|properties| properties.contains_key(key));
        is_named && self.has(key)
    }

    /// Whether it says nothing of the parameters, not even which there are.
    pub(super) fn allows_anything(&self) -> bool {
        let of_type = |types: &Value| match types {
            Value::Array(types) => types.iter().any(|it| it == "object"),
            it => it == "object",
        };
        // Parameters are an object anyhow.
        says_nothing(&self.document, &of_type)
    }

    /// The keys that its `properties` name.
    pub(super) fn listed(&self) -> impl Iterator<Item = &str> {
        self.properties().into_iter().flatten().map(|(key, _)| key.as_str())
    }

    fn properties(&self) -> Option<&Map<String, Value>> {
        self.document.get("properties").and_then(Value::as_object)
    }

    /// What is wrong with a `format` that cannot be checked. A new set with one is refused; a stored one may have it.
    pub(super) fn unknown_format(&self) -> Option<String> {
        unknown_format(&self.document)
    }

    /// What is wrong with its keywords: those that nobody knows check nothing.
    pub(super) fn unknown_keywords(&self) -> Vec<String> {
        keywords::unknown(&self.document)
    }

    /// JSON Pointers of the rules that join this parameter with hidden ones, so that an edit of it cannot be checked.
    pub(super) fn unchecked(&self, key: &str) -> impl Iterator<Item = &str> {
        let joined = self.checkable.joined.iter().filter(move |rule| rule.concerns(key));
        joined.map(|rule| rule.path.as_str())
    }

    /// What is wrong with the parameters as they would be after an edit, by the edited parameter at which it is told: the
    /// one that it concerns, else the first. Hidden parameters are among `params`, with whatever in place of their values.
    /// `redacted` are those that were hidden when the request was made.
    pub(super) fn violations(
        &self,
        params: &Map<String, Value>,
        redacted: &BTreeSet<String>,
        edited: &BTreeSet<&str>,
    ) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut tell = |key: &str, text: String| {
            let told = found.entry(key.to_owned()).or_default();
            if !told.contains(&text) {
                told.push(text);
            }
        };
        let hidden = Hidden { redaction: &self.redaction, earlier: redacted };
        let prepared;
        let checkable = if redacted.iter().any(|key| self.redaction.shows(key)) {
            match Prepared::new(&self.document, hidden) {
                Ok(checkable) => {
                    prepared = checkable;
                    &prepared
                }
                Err(wrong) => {
                    edited.iter().for_each(|key| tell(key, format!("the schema cannot be used: {wrong}")));
                    return found;
                }
            }
        } else {
            &self.checkable
        };
        for key in edited {
            for rule in checkable.joined.iter().filter(|rule| rule.concerns(key)) {
                tell(
                    key,
                    format!(
                        "the schema's rule `{}` joins it with hidden parameters, so this cannot be checked",
                        rule.path
                    ),
                );
            }
        }
        let Some(first) = edited.first() else { return found };
        let params = Value::Object(params.clone());
        for error in checkable.validator.iter_errors(&params) {
            let (is_of_value, keys) = concerned(&error);
            let own = checkable.message(&error);
            for key in &keys {
                // What stands in the place of a hidden value says nothing of it, and no edit changes it.
                if is_of_value && hidden.hides(key) {
                    continue;
                }
                let text = match self.messages.get(key).map(String::as_str).or(own) {
                    Some(message) => message.to_owned(),
                    None => describe(&error),
                };
                if edited.contains(key.as_str()) {
                    tell(key, text);
                } else {
                    tell(first, format!("`{key}`, which is not edited: {text}"));
                }
            }
            if keys.is_empty() {
                tell(first, own.map_or_else(|| together(&error), str::to_owned));
            }
        }
        found
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

/// Whether every value fits a schema, as far as its members show it one by one, and it names no property. `of_type` says of
/// the value of `type` whether what is checked has that type anyhow.
fn says_nothing<'a>(schema: &'a Value, of_type: &dyn Fn(&Value) -> bool) -> bool {
    let Value::Object(members) = schema else { return *schema == Value::Bool(true) };
    let inner = |schema: &Value| says_nothing(schema, &|_| false);
    let same = |schema: &Value| says_nothing(schema, of_type);
    let list = |value: &'a Value| value.as_array().into_iter().flatten();
    let map = |value: &'a Value| value.as_object().into_iter().flat_map(Map::values);
    members.iter().all(|(key, value)| match key.as_str() {
        "$schema" | "$id" | "$comment" | "$defs" | "title" | "description" | "default" | "examples"
        | "deprecated" | "readOnly" | "writeOnly" | "errorMessage" => true,
        "type" => of_type(value),
        "required" => list(value).next().is_none(),
        "properties" | "dependentRequired" => map(value).next().is_none(),
        "minProperties" => value.as_u64() == Some(0),
        "additionalProperties" | "unevaluatedProperties" | "propertyNames" => inner(value),
        "patternProperties" => map(value).all(inner),
        "dependentSchemas" => map(value).all(same),
        "allOf" => list(value).all(same),
        "anyOf" => list(value).any(same),
        _ => false,
    })
}

impl std::fmt::Debug for ParamSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.document.fmt(f)
    }
}

fn is_unlisted(error: &ValidationError<'_>) -> bool {
    error.instance_path().as_str().is_empty()
        && matches!(
            error.kind(),
            ValidationErrorKind::AdditionalProperties { .. }
                | ValidationErrorKind::UnevaluatedProperties { .. }
        )
}

/// The parameters that an error concerns, none if it is about all of them together; and whether it is about the value of
/// that parameter, rather than whether it is there.
fn concerned(error: &ValidationError<'_>) -> (bool, Vec<String>) {
    let path = error.instance_path().as_str();
    if let Some(path) = path.strip_prefix('/') {
        let key = path.split('/').next().unwrap_or(path);
        let is_of_value = key.len() < path.len() || !forbids_a_key(error);
        return (is_of_value, vec![key.replace("~1", "/").replace("~0", "~")]);
    }
    let keys = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected.clone(),
        ValidationErrorKind::Required { property } => {
            property.as_str().map(str::to_owned).into_iter().collect()
        }
        ValidationErrorKind::PropertyNames { error } => {
            error.instance().as_str().map(str::to_owned).into_iter().collect()
        }
        _ => Vec::new(),
    };
    (false, keys)
}

/// Whether the error is that a key must not be there, as in `"properties": { "key": false }`. A `false` within the schema
/// of a value may depend on that value.
fn forbids_a_key(error: &ValidationError<'_>) -> bool {
    let rule = error.evaluation_path().as_str();
    let (outer, last) = rule.rsplit_once('/').unwrap_or_default();
    matches!(error.kind(), ValidationErrorKind::FalseSchema)
        && (["/properties", "/patternProperties"].iter().any(|keyword| outer.ends_with(keyword))
            || last == "additionalProperties")
}

/// What an error has against a parameter, without the value, which may be long, and with the place in a parameter that is
/// no plain value.
fn describe(error: &ValidationError<'_>) -> String {
    let path = error.instance_path().as_str();
    match error.kind() {
        _ if is_unlisted(error) => return "it is not a parameter of this action".to_owned(),
        ValidationErrorKind::Required { .. } if path.is_empty() => return "it is required".to_owned(),
        ValidationErrorKind::PropertyNames { .. } if path.is_empty() => {
            return "a parameter of this action cannot have this name".to_owned();
        }
        ValidationErrorKind::FalseSchema => return "it is not allowed beside the others".to_owned(),
        _ => {}
    }
    let masked = error.masked_with("it").to_string();
    let inner = path.get(1..).and_then(|path| path.split_once('/')).map_or("", |(_, inner)| inner);
    if inner.is_empty() { masked } else { format!("`/{inner}`: {masked}") }
}

/// What an error has against the parameters together.
fn together(error: &ValidationError<'_>) -> String {
    let wrong = match error.kind() {
        ValidationErrorKind::AnyOf { .. } => "they fit none of the alternatives under `anyOf`".to_owned(),
        ValidationErrorKind::OneOfNotValid { .. } => {
            "they fit none of the alternatives under `oneOf`".to_owned()
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            "they fit more than one of the alternatives under `oneOf`".to_owned()
        }
        ValidationErrorKind::Not { .. } => "they are what is excluded under `not`".to_owned(),
        ValidationErrorKind::FalseSchema => "nothing is allowed here".to_owned(),
        ValidationErrorKind::MinProperties { limit } => format!("there must be at least {limit}"),
        ValidationErrorKind::MaxProperties { limit } => format!("there may be at most {limit}"),
        _ => format!("`{}`: {}", error.kind().keyword(), error.masked_with("it")),
    };
    format!("the parameters do not fit the action's schema together: {wrong}")
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
            if let Some(example) = schema.get("format").and_then(example) {
                return Some(example.into());
            }
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

/// A text that has this `format`.
fn example(format: &Value) -> Option<&'static str> {
    FORMATS.iter().find(|(name, _)| *name == format).map(|(_, example)| *example)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table is that of the library, and its examples are right.
    #[test]
    fn formats_are_those_that_the_library_checks() {
        for (format, example) in FORMATS {
            let validator = compile(&json!({ "format": format })).unwrap();
            assert!(validator.is_valid(&json!(example)), "{format}");
            assert!(!validator.is_valid(&json!("%{ [")), "{format}");
            assert_eq!(unknown_format(&json!({ "format": format })), None);
        }
        let all = ["idn-email", "idn-hostname", "color", "ip", "IPv4"];
        for format in all {
            assert!(compile(&json!({ "format": format })).unwrap().is_valid(&json!("%{ [")), "{format}");
            assert!(unknown_format(&json!({ "format": format })).is_some(), "{format}");
        }
    }
}
