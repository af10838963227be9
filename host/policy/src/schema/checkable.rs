//! The part of a parameter schema that an edit can be checked against although the values of hidden parameters are not
//! stored.
//!
//! A schema is a conjunction of rules, each about some parameters. A rule about hidden values alone is as true or as false
//! after an edit as it was before, so it is left out. A rule that joins hidden values with shown parameters could become
//! false by an edit and nobody would notice, so every edit of those parameters is refused. All other rules are kept. Which
//! hidden parameters there are is known, so rules about names and numbers of parameters are kept, too.

use std::collections::BTreeSet;

use countersign_core::record::Redaction;
use serde_json::{Map, Value, json};

/// Which parameters are hidden.
#[derive(Clone, Copy)]
pub(crate) struct Hidden<'a> {
    /// By the rules.
    pub(crate) redaction: &'a Redaction,
    /// Those that were hidden under whatever rules there were when the request was first made.
    pub(crate) earlier: &'a BTreeSet<String>,
}

impl Hidden<'_> {
    pub(crate) fn hides(&self, key: &str) -> bool {
        !self.redaction.shows(key) || self.earlier.contains(key)
    }

    fn hides_any(&self) -> bool {
        let by_rules = match self.redaction {
            Redaction::Show(_) => true,
            Redaction::Hide(keys) => !keys.is_empty(),
        };
        by_rules || !self.earlier.is_empty()
    }
}

/// What can be checked of a schema.
pub(crate) struct Checkable {
    /// A schema of all parameters, in which hidden ones may have any value.
    pub(crate) document: Value,
    /// The rules that it lacks because they join shown parameters with hidden ones.
    pub(crate) joined: Vec<Joined>,
}

/// A rule that joins shown parameters with hidden ones.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// JSON Pointer of the rule in the schema.
    pub(crate) path: String,
    /// The parameters that it looks at.
    keys: Keys,
}

impl Joined {
    /// Whether an edit of this parameter could break it.
    pub(crate) fn concerns(&self, key: &str) -> bool {
        self.keys.contain(key)
    }
}

impl Checkable {
    /// # Errors
    /// What is wrong with the schema, which is valid in all that JSON Schema itself asks for.
    pub(crate) fn of(schema: &Value, hidden: Hidden<'_>) -> Result<Checkable, String> {
        let members = schema.as_object().ok_or("a schema of parameters must be an object")?;
        let own = members.get("$id").and_then(Value::as_str).filter(|id| id.contains(':'));
        let id = own.unwrap_or(DOCUMENT).trim_end_matches('#').to_owned();
        let mut reader = Reader {
            schema,
            id: &id,
            hidden,
            joined: Vec::new(),
            uncertain: 0,
            entered: Vec::new(),
            parts: 0,
        };
        let mut document = match reader.rules(schema, "") {
            Value::Object(rules) => rules,
            // `true` and `false` are no objects.
            _ => return Err("a schema of parameters must be an object".to_owned()),
        };
        let joined = reader.joined;
        // The schema stays whole under a name, so that the references within it keep their meaning.
        let mut whole = members.clone();
        whole.insert("$id".to_owned(), id.into());
        document.insert("$id".to_owned(), "urn:countersign:checkable".into());
        document.insert("$defs".to_owned(), json!({ "schema": whole }));
        Ok(Checkable { document: Value::Object(document), joined })
    }
}

/// Name of the action's schema inside of the one that is made of it.
const DOCUMENT: &str = "urn:countersign:parameters";

/// Top-level parameters that a rule looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Keys {
    /// Whatever parameters there are.
    all: bool,
    named: BTreeSet<String>,
}

impl Keys {
    fn contain(&self, key: &str) -> bool {
        self.all || self.named.contains(key)
    }

    fn add(&mut self, other: Keys) {
        self.all |= other.all;
        self.named.extend(other.named);
    }
}

/// What it takes to decide a rule: the values of some parameters, and whether some are there.
#[derive(Clone, Debug, Default)]
struct Looks {
    values: Keys,
    presence: Keys,
}

impl Looks {
    fn at_everything() -> Looks {
        Looks { values: Keys { all: true, named: BTreeSet::new() }, presence: Keys::default() }
    }

    fn at_presence<'a>(keys: impl IntoIterator<Item = &'a str>) -> Looks {
        let named = keys.into_iter().map(str::to_owned).collect();
        Looks { presence: Keys { all: false, named }, values: Keys::default() }
    }

    fn add(&mut self, other: Looks) {
        self.values.add(other.values);
        self.presence.add(other.presence);
    }
}

/// How many references may be followed one into the other, and how many parts are read, before the rest of the schema is
/// taken for a rule about everything.
const MOST_HOPS: usize = 32;
const MOST_PARTS: usize = 10_000;

struct Reader<'a> {
    schema: &'a Value,
    /// The schema's `$id`.
    id: &'a str,
    hidden: Hidden<'a>,
    joined: Vec<Joined>,
    /// How many rules were left out, joined ones included, or may fail for the placeholder of a hidden value.
    uncertain: usize,
    /// The references that were followed to where the reader is.
    entered: Vec<String>,
    /// How many parts were read.
    parts: usize,
}

impl<'a> Reader<'a> {
    /// The rules of a schema that applies to the parameters whatever their values are, as far as they can be checked.
    fn rules(&mut self, schema: &Value, at: &str) -> Value {
        let Value::Object(members) = schema else { return schema.clone() };
        let mut rules = Map::new();
        self.parts += 1;
        if self.parts > MOST_PARTS || self.changes_base(schema, at) {
            self.rule(&mut rules, "$ref", self.reference(at).into(), &Looks::at_everything(), at);
            return Value::Object(rules);
        }
        let uncertain = self.uncertain;
        let mut all = Vec::new();
        for (keyword, value) in members {
            let here = format!("{at}/{}", step(keyword));
            match (keyword.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    let rule = |(key, value): (&String, &Value)| {
                        let rule = match value {
                            Value::Bool(_) => value.clone(),
                            _ if self.hidden.hides(key) => Value::Bool(true),
                            _ => self.refer(&format!("{here}/{}", step(key))),
                        };
                        (key.clone(), rule)
                    };
                    rules.insert(keyword.clone(), Value::Object(properties.iter().map(rule).collect()));
                }
                // Each of these looks at one parameter at a time, at names, or at numbers of parameters. What they have
                // against the placeholder of a hidden value is passed over later.
                ("patternProperties" | "additionalProperties" | "propertyNames", value) => {
                    let rule = self.referring(keyword, value, &here);
                    if keyword != "propertyNames" && rule.to_string().contains("$ref") {
                        self.uncertain += usize::from(self.hidden.hides_any());
                    }
                    rules.insert(keyword.clone(), rule);
                }
                (
                    "required" | "dependentRequired" | "minProperties" | "maxProperties" | "type"
                    | "errorMessage",
                    value,
                ) => {
                    rules.insert(keyword.clone(), value.clone());
                }
                ("allOf", Value::Array(schemas)) => {
                    let rules = |(index, schema)| self.rules(schema, &format!("{here}/{index}"));
                    all.extend(schemas.iter().enumerate().map(rules));
                }
                ("$ref", Value::String(target)) => match self.target(target) {
                    // What is read already.
                    Some((path, _)) if self.entered.contains(&path) => {}
                    Some((path, schema)) if self.entered.len() < MOST_HOPS => {
                        self.entered.push(path.clone());
                        all.push(self.rules(schema, &path));
                        self.entered.pop();
                    }
                    _ => self.rule(
                        &mut rules,
                        "$ref",
                        self.reference(at).into(),
                        &Looks::at_everything(),
                        &here,
                    ),
                },
                ("dependentSchemas", Value::Object(schemas)) => {
                    let mut kept = Map::new();
                    for (key, schema) in schemas {
                        let path = format!("{here}/{}", step(key));
                        let mut looks = self.looks(schema, &path, &mut BTreeSet::new());
                        looks.add(Looks::at_presence([key.as_str()]));
                        self.rule(&mut kept, key, self.refer(&path), &looks, &path);
                    }
                    rules.insert(keyword.clone(), Value::Object(kept));
                }
                ("if", _) => {
                    let parts = ["if", "then", "else"]
                        .into_iter()
                        .filter_map(|part| Some((part, members.get(part)?, format!("{at}/{part}"))));
                    let mut looks = Looks::default();
                    let mut kept = Map::new();
                    for (part, schema, path) in parts {
                        looks.add(self.looks(schema, &path, &mut BTreeSet::new()));
                        kept.insert(part.to_owned(), self.refer(&path));
                    }
                    if self.is_checkable(&looks, &here) {
                        rules.extend(kept);
                    }
                }
                ("not" | "anyOf" | "oneOf", value) => {
                    let looks = self.looks(&json!({ keyword: value }), at, &mut BTreeSet::new());
                    let rule = self.referring(keyword, value, &here);
                    self.rule(&mut rules, keyword, rule, &looks, &here);
                }
                ("const" | "enum", value) => {
                    self.rule(&mut rules, keyword, value.clone(), &Looks::at_everything(), &here);
                }
                ("$dynamicRef" | "$recursiveRef" | "dependencies", _) => {
                    self.rule(&mut rules, "$ref", self.reference(at).into(), &Looks::at_everything(), &here);
                }
                // `then` and `else` belong to `if`; the others say nothing of an object.
                _ => {}
            }
        }
        if let Some(value) = members.get("unevaluatedProperties") {
            let here = format!("{at}/unevaluatedProperties");
            // It looks at what the rules beside it have evaluated: if one of them is left out or may fail for a placeholder, nobody knows. And its errors
            // do not tell the values that it has something against from others.
            let is_told = self.uncertain == uncertain && value.is_boolean();
            let looks = if is_told { Looks::default() } else { Looks::at_everything() };
            let rule = self.referring("unevaluatedProperties", value, &here);
            self.rule(&mut rules, "unevaluatedProperties", rule, &looks, &here);
        }
        if !all.is_empty() {
            rules.insert("allOf".to_owned(), Value::Array(all));
        }
        Value::Object(rules)
    }

    /// Adds a rule, if it can be checked.
    fn rule(&mut self, rules: &mut Map<String, Value>, keyword: &str, rule: Value, looks: &Looks, at: &str) {
        if self.is_checkable(looks, at) {
            rules.insert(keyword.to_owned(), rule);
        }
    }

    /// Whether a rule can be checked. If not, it is noted if an edit could break it.
    fn is_checkable(&mut self, looks: &Looks, at: &str) -> bool {
        let Looks { values, presence } = looks;
        let hides = |key: &String| self.hidden.hides(key);
        if !(values.all && self.hidden.hides_any() || values.named.iter().any(hides)) {
            return true;
        }
        self.uncertain += 1;
        let is_shown = |keys: &Keys| keys.all || !keys.named.iter().all(hides);
        if is_shown(values) || is_shown(presence) {
            let mut keys = values.clone();
            keys.add(presence.clone());
            self.joined.push(Joined { path: at.to_owned(), keys });
        }
        false
    }

    /// What it takes to decide whether the parameters fit a schema. `followed` are the references that were followed.
    fn looks(&mut self, schema: &Value, at: &str, followed: &mut BTreeSet<String>) -> Looks {
        let mut looks = Looks::default();
        let Value::Object(members) = schema else { return looks };
        self.parts += 1;
        if self.parts > MOST_PARTS || self.changes_base(schema, at) {
            return Looks::at_everything();
        }
        let all = Keys { all: true, named: BTreeSet::new() };
        for (keyword, value) in members {
            let here = format!("{at}/{}", step(keyword));
            match (keyword.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    for (key, value) in properties {
                        let keys = if value.is_boolean() { &mut looks.presence } else { &mut looks.values };
                        keys.named.insert(key.clone());
                    }
                }
                ("patternProperties", Value::Object(patterns)) => {
                    let keys = if patterns.values().all(Value::is_boolean) {
                        &mut looks.presence
                    } else {
                        &mut looks.values
                    };
                    keys.add(all.clone());
                }
                (
                    "additionalProperties"
                    | "unevaluatedProperties"
                    | "propertyNames"
                    | "minProperties"
                    | "maxProperties",
                    value,
                ) => {
                    let is_about_values = value.is_object() && keyword != "propertyNames";
                    let keys = if is_about_values { &mut looks.values } else { &mut looks.presence };
                    keys.add(all.clone());
                }
                ("required", Value::Array(keys)) => {
                    looks.add(Looks::at_presence(keys.iter().filter_map(Value::as_str)));
                }
                ("dependentRequired", Value::Object(rules)) => {
                    for (key, keys) in rules {
                        let keys = keys.as_array().into_iter().flatten().filter_map(Value::as_str);
                        looks.add(Looks::at_presence(keys.chain([key.as_str()])));
                    }
                }
                ("dependentSchemas", Value::Object(schemas)) => {
                    for (key, schema) in schemas {
                        looks.add(Looks::at_presence([key.as_str()]));
                        looks.add(self.looks(schema, &format!("{here}/{}", step(key)), followed));
                    }
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                    for (index, schema) in schemas.iter().enumerate() {
                        looks.add(self.looks(schema, &format!("{here}/{index}"), followed));
                    }
                }
                ("not" | "if" | "then" | "else", schema) => {
                    looks.add(self.looks(schema, &here, followed));
                }
                ("$ref", Value::String(target)) => match self.target(target) {
                    // What it leads to is among what was looked at.
                    Some((path, _)) if followed.contains(&path) => {}
                    Some((path, schema)) if followed.len() < MOST_HOPS => {
                        followed.insert(path.clone());
                        looks.add(self.looks(schema, &path, followed));
                    }
                    _ => looks.add(Looks::at_everything()),
                },
                ("const" | "enum" | "$ref" | "$dynamicRef" | "$recursiveRef" | "dependencies", _) => {
                    looks.add(Looks::at_everything());
                }
                // Says nothing of an object.
                _ => {}
            }
        }
        looks
    }

    /// Whether references in this part of the schema are meant from another base than the schema's own.
    fn changes_base(&self, schema: &Value, at: &str) -> bool {
        let has_id = |schema: &Value| schema.get("$id").is_some_and(Value::is_string);
        let mut outer =
            at.match_indices('/').skip(1).filter_map(|(end, _)| self.schema.pointer(at.get(..end)?));
        !at.is_empty() && (has_id(schema) || outer.any(has_id))
    }

    /// The part of the schema that a reference leads to, and its JSON Pointer; `None` if that cannot be told easily.
    fn target(&self, reference: &str) -> Option<(String, &'a Value)> {
        let fragment = reference.strip_prefix(self.id).unwrap_or(reference);
        let path = if fragment.is_empty() { "" } else { fragment.strip_prefix('#')? };
        if reference.is_empty() || path.contains('%') {
            return None;
        }
        Some((path.to_owned(), self.schema.pointer(path)?))
    }

    /// The value of a keyword, with references to the schemas in it.
    fn referring(&self, keyword: &str, value: &Value, at: &str) -> Value {
        let refer = |value: &Value, path: String| {
            if value.is_boolean() { value.clone() } else { self.refer(&path) }
        };
        match (keyword, value) {
            ("anyOf" | "oneOf", Value::Array(schemas)) => schemas
                .iter()
                .enumerate()
                .map(|(index, schema)| refer(schema, format!("{at}/{index}")))
                .collect(),
            ("patternProperties", Value::Object(schemas)) => Value::Object(
                schemas
                    .iter()
                    .map(|(key, schema)| (key.clone(), refer(schema, format!("{at}/{}", step(key)))))
                    .collect(),
            ),
            (_, value) => refer(value, at.to_owned()),
        }
    }

    /// A schema that means what the part at this JSON Pointer means.
    fn refer(&self, at: &str) -> Value {
        json!({ "$ref": self.reference(at) })
    }

    /// The reference to the part at this JSON Pointer.
    fn reference(&self, at: &str) -> String {
        let mut reference = format!("{}#", self.id);
        for letter in at.bytes() {
            match letter {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    reference.push(letter.into());
                }
                _ => reference.push_str(&format!("%{letter:02X}")),
            }
        }
        reference
    }
}

/// A key as a step of a JSON Pointer.
pub(crate) fn step(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
