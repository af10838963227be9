//! What an edit makes of the parameters, checked against the action's schema.

use std::collections::BTreeSet;

use countersign_core::lifecycle::{Intent, payload_hash};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::decide;
use crate::schema::ParamSchema;
use crate::schema::checkable::{Checkable, Hidden};

fn schema() -> ParamSchema {
    ParamSchema::new(
        json!({
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
        }),
        &hide(&[]),
    )
    .unwrap()
}

fn hide(keys: &[&str]) -> Redaction {
    Redaction::Hide(keys.iter().map(|key| (*key).to_owned()).collect())
}

/// New values by parameter; one without a value is removed.
type Edits<'a> = &'a [(&'a str, Option<Value>)];

/// What is said of these edits of these parameters, each with the edited parameter at which it is told.
fn violations(schema: &ParamSchema, params: &Value, edits: Edits<'_>) -> Vec<String> {
    let mut params = params.as_object().cloned().unwrap();
    for (key, after) in edits {
        match after {
            Some(value) => params.insert((*key).to_owned(), value.clone()),
            None => params.remove(*key),
        };
    }
    let edited = edits.iter().map(|(key, _)| *key).collect();
    let found = schema.violations(&params, &BTreeSet::new(), &edited);
    let told =
        found.into_iter().flat_map(|(key, told)| told.into_iter().map(move |text| format!("{key}: {text}")));
    told.collect()
}

#[test]
fn each_edit_is_held_to_its_property() {
    let schema = schema();
    let params = json!({ "ref": "v1", "replicas": 2, "note": "abc" });
    let rows: &[(&str, Option<Value>, &[&str])] = &[
        ("ref", Some(json!("v12")), &[]),
        ("ref", Some(json!("main")), &[r#"ref: it does not match "^v[0-9]+$""#]),
        ("ref", Some(json!(1)), &[r#"ref: it is not of type "string""#]),
        ("ref", None, &["ref: it is required"]),
        ("replicas", Some(json!(20)), &[]),
        ("replicas", Some(json!(21)), &["replicas: replicas must be from 1 to 20"]),
        ("replicas", Some(json!("many")), &["replicas: replicas must be from 1 to 20"]),
        ("replicas", None, &["replicas: replicas must be from 1 to 20"]),
        ("note", Some(json!("longer than five")), &["note: it is longer than 5 characters"]),
        ("note", None, &[]),
        ("plan", Some(json!({ "steps": ["v1"] })), &[]),
        (
            "plan",
            Some(json!({ "steps": ["v1", "w"] })),
            &[r#"plan: `/steps/1`: it does not match "^v[0-9]+$""#],
        ),
        ("a/b~c %", Some(json!(true)), &[]),
        ("a/b~c %", Some(json!(1)), &[r#"a/b~c %: it is not of type "boolean""#]),
        ("x-team", Some(json!("a")), &[]),
        ("x-team", Some(json!(1)), &[r#"x-team: it is not of type "string""#]),
        ("unlisted", Some(json!(1)), &["unlisted: it is not a parameter of this action"]),
    ];
    for (key, after, expected) in rows {
        assert_eq!(violations(&schema, &params, &[(*key, after.clone())]), *expected, "{key} {after:?}");
    }
    assert!(schema.has("x-team") && schema.has("ref") && !schema.has("unlisted"));
}

#[test]
fn an_edit_is_held_to_the_format() {
    let of = |format: &str| json!({ "properties": { "x": { "type": "string", "format": format } } });
    let schema = |format: &str| ParamSchema::new(of(format), &hide(&["secret"])).unwrap();
    for (format, value, expected) in [
        ("ipv4", "10.0.0.1", &[][..]),
        ("ipv4", "0.0.0.0/0; rm -rf", &[r#"x: it is not a "ipv4""#]),
        ("date", "2026-02-30", &[r#"x: it is not a "date""#]),
        ("email", "a b", &[r#"x: it is not a "email""#]),
        // A stored schema may have one that nobody checks.
        ("cidr", "0.0.0.0/0; rm -rf", &[]),
    ] {
        let schema = schema(format);
        let found = violations(&schema, &json!({ "x": "" }), &[("x", Some(json!(value)))]);
        assert_eq!(found, expected, "{format} {value}");
        assert_eq!(schema.unknown_format().is_some(), format == "cidr");
        assert!(schema.synthetic().is_some(), "{format}: a synthetic request can be made");
    }
    assert!(ParamSchema::new(of("cidr"), &hide(&[])).unwrap().synthetic().is_some());
}

/// What is fine by itself need not be fine beside the others.
#[test]
fn the_parameters_are_held_to_the_schema_as_they_are_together() {
    let schema = ParamSchema::new(
        json!({
            "type": "object",
            "properties": { "env": { "enum": ["staging", "prod"] }, "replicas": { "type": "integer" } },
            "maxProperties": 5,
            "dependentRequired": { "until": ["from"] },
            "allOf": [
                {
                    "if": { "properties": { "env": { "const": "prod" } }, "required": ["env"] },
                    "then": { "properties": { "replicas": { "minimum": 3 }, "debug": false } }
                },
                {
                    "errorMessage": "give either a tag or a branch",
                    "oneOf": [{ "required": ["tag"] }, { "required": ["branch"] }]
                },
                { "not": { "properties": { "a": { "const": 1 }, "b": { "const": 1 } }, "required": ["a", "b"] } },
                { "$ref": "#/$defs/small" }
            ],
            "$defs": { "small": { "anyOf": [
                { "properties": { "size": { "maximum": 9 } } },
                { "properties": { "env": { "const": "staging" } } }
            ] } }
        }),
        &hide(&[]),
    )
    .unwrap();
    let params = json!({ "env": "staging", "replicas": 1, "tag": "v1" });
    let set = |value: Value| Some(value);
    let together = "the parameters do not fit the action's schema together";
    let rows: &[(Edits<'_>, &[String])] = &[
        (&[("replicas", set(json!(2)))], &[]),
        (
            &[("env", set(json!("prod")))],
            &["env: `replicas`, which is not edited: it is less than the minimum of 3".to_owned()],
        ),
        (
            &[("env", set(json!("prod"))), ("replicas", set(json!(2)))],
            &["replicas: it is less than the minimum of 3".to_owned()],
        ),
        (&[("env", set(json!("prod"))), ("replicas", set(json!(3)))], &[]),
        (
            &[("debug", set(json!(true))), ("env", set(json!("prod"))), ("replicas", set(json!(3)))],
            &["debug: it is not allowed beside the others".to_owned()],
        ),
        (&[("branch", set(json!("main")))], &["branch: give either a tag or a branch".to_owned()]),
        (&[("branch", set(json!("main"))), ("tag", None)], &[]),
        (&[("tag", None)], &["tag: give either a tag or a branch".to_owned()]),
        (
            &[("a", set(json!(1))), ("b", set(json!(1)))],
            &[format!("a: {together}: they are what is excluded under `not`")],
        ),
        (&[("until", set(json!(5)))], &["until: `from`, which is not edited: it is required".to_owned()]),
        (&[("until", set(json!(5))), ("from", set(json!(4)))], &[]),
        (
            &[("from", set(json!(1))), ("u", set(json!(1))), ("v", set(json!(1)))],
            &[format!("from: {together}: there may be at most 5")],
        ),
        (&[("size", set(json!(10)))], &[]),
        (
            &[("env", set(json!("prod"))), ("replicas", set(json!(3))), ("size", set(json!(10)))],
            &[format!("env: {together}: they fit none of the alternatives under `anyOf`")],
        ),
    ];
    for (edits, expected) in rows {
        assert_eq!(violations(&schema, &params, edits), *expected, "{edits:?}");
    }
    // The caller's own parameters are not held to the schema. Once somebody edits any of them, all of them are.
    let params = json!({ "env": "test", "replicas": 1, "tag": "v1" });
    assert_eq!(
        violations(&schema, &params, &[("replicas", set(json!(2)))]),
        [r#"replicas: `env`, which is not edited: it is not one of "staging" or "prod""#]
    );
    assert!(violations(&schema, &params, &[("env", set(json!("staging")))]).is_empty());
}

#[test]
fn a_rule_about_hidden_parameters_is_checked_as_far_as_it_can_be() {
    let rules = |rules: Value| {
        let mut schema = json!({
            "properties": { "token": { "pattern": "^[0-9]+$" }, "replicas": { "type": "integer" } },
            "patternProperties": { "^t": { "minLength": 100 } },
            "additionalProperties": { "type": "integer" }
        });
        for (keyword, rule) in rules.as_object().unwrap() {
            schema[keyword] = rule.clone();
        }
        ParamSchema::new(schema, &hide(&["token", "secret"])).unwrap()
    };
    let params = json!({ "token": "[redacted]", "replicas": 1, "env": 2 });
    let edited =
        |schema: &ParamSchema, params: &Value| violations(schema, params, &[("env", Some(json!(3)))]);
    for (schema, path) in [
        // Which parameters there are is known, hidden ones included; and what is about hidden values alone stays as it is.
        (json!({ "required": ["token"], "minProperties": 3, "maxProperties": 3 }), None),
        (json!({ "dependentRequired": { "env": ["token"] } }), None),
        (json!({ "not": { "required": ["env", "secret"] } }), None),
        (json!({ "not": { "properties": { "token": { "const": "x" } }, "required": ["token"] } }), None),
        (json!({ "anyOf": [{ "required": ["token"] }, { "required": ["secret"] }] }), None),
        (
            json!({ "if": { "required": ["token"] }, "then": { "properties": { "env": { "maximum": 5 } } } }),
            None,
        ),
        (
            json!({ "additionalProperties": false, "properties": { "token": {}, "env": {}, "replicas": {} } }),
            None,
        ),
        (
            json!({ "allOf": [{ "$ref": "#/$defs/env" }], "$defs": { "env": { "properties": { "env": { "minimum": 0 } } } } }),
            None,
        ),
        // These would take the value.
        (
            json!({ "if": { "properties": { "env": { "const": 3 } } }, "then": { "properties": { "token": { "minLength": 9 } } } }),
            Some("/if"),
        ),
        (
            json!({ "allOf": [true, { "oneOf": [{ "properties": { "env": { "const": 2 }, "token": {} } }, true] }] }),
            Some("/allOf/1/oneOf"),
        ),
        (
            json!({ "dependentSchemas": { "env": { "properties": { "token": { "minLength": 9 } } } } }),
            Some("/dependentSchemas/env"),
        ),
        (json!({ "not": { "additionalProperties": { "type": "string" } } }), Some("/not")),
        (json!({ "enum": [{}] }), Some("/enum")),
        (json!({ "unevaluatedProperties": { "type": "integer" } }), Some("/unevaluatedProperties")),
        (
            json!({ "anyOf": [{ "$ref": "#/$defs/a~1b" }, true], "$defs": { "a/b": { "allOf": [{ "properties": { "env": {}, "token": {} } }] } } }),
            Some("/anyOf"),
        ),
        (
            json!({ "$ref": "#/$defs/both", "$defs": { "both": { "not": { "properties": { "env": {}, "token": {} } } } } }),
            Some("/$defs/both/not"),
        ),
        (json!({ "$dynamicRef": "#x", "$defs": { "x": { "$dynamicAnchor": "x" } } }), Some("/$dynamicRef")),
    ] {
        let checked = rules(schema.clone());
        assert_eq!(checked.unchecked("env").collect::<Vec<_>>(), Vec::from_iter(path), "{schema}");
        let expected = path.map(|path| {
            format!(
                "env: the schema's rule `{path}` joins it with hidden parameters, so this cannot be checked"
            )
        });
        assert_eq!(edited(&checked, &params), Vec::from_iter(expected), "{schema}");
    }
    let joined = rules(json!({ "not": { "properties": { "env": {}, "token": {} } } }));
    assert!(joined.unchecked("replicas").next().is_none(), "it is in no such rule");
    // What must be there, or must not, is told of hidden ones, too.
    let required = rules(json!({ "required": ["secret"] }));
    assert_eq!(edited(&required, &params), ["env: `secret`, which is not edited: it is required"]);
    let names = rules(json!({ "propertyNames": { "maxLength": 4 } }));
    assert!(edited(&names, &params).iter().any(|text| text.contains("`token`, which is not edited")));
}

/// When a request is made again, what was hidden stays so, though the rules now show it.
#[test]
fn what_was_hidden_under_earlier_rules_is_not_taken_for_a_value() {
    let schema = ParamSchema::new(
        json!({ "properties": { "pin": { "type": "integer" } },
                "not": { "properties": { "pin": { "const": 1 }, "env": { "const": 1 } } } }),
        &hide(&[]),
    )
    .unwrap();
    let params = json!({ "pin": "[redacted]", "env": 2 }).as_object().cloned().unwrap();
    let found = |key: &'static str| {
        schema
            .violations(&params, &["pin".to_owned()].into(), &BTreeSet::from([key]))
            .into_values()
            .flatten()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found("env"),
        ["the schema's rule `/not` joins it with hidden parameters, so this cannot be checked"]
    );
    assert_eq!(found("note"), Vec::<String>::new());
}

#[test]
fn references_within_the_document_keep_their_meaning() {
    let tree = json!({
        "$id": "https://example.com/tree",
        "type": "object",
        "required": ["name"],
        "properties": { "name": { "type": "string" }, "child": { "$ref": "#" } }
    });
    let schema = ParamSchema::new(tree, &hide(&[])).unwrap();
    let params = json!({ "name": "root" });
    let child = |child: Value| violations(&schema, &params, &[("child", Some(child))]);
    assert!(child(json!({ "name": "a" })).is_empty());
    assert_eq!(child(json!({})), [r#"child: "name" is a required property"#]);
    assert!(violations(&schema, &params, &[("anything", Some(json!(1)))]).is_empty());
}

/// What a reference leads to is not always looked for: from within a schema with an `$id` of its own, to an anchor, or one
/// that depends on the way. Such a rule is taken for one about every parameter.
#[test]
fn a_rule_whose_meaning_is_not_plain_is_checked_whole_or_not_at_all() {
    let one = json!({ "properties": { "a": { "const": 1 } } });
    for (schema, path) in [
        (
            json!({
                "$defs": { "x": false },
                "allOf": [{ "$id": "https://example.com/inner", "$defs": { "x": one }, "$ref": "#/$defs/x" }]
            }),
            "/allOf/0",
        ),
        (json!({ "$ref": "#x", "$defs": { "one": { "$anchor": "x", "allOf": [one] } } }), "/$ref"),
        (
            json!({ "$dynamicRef": "#x", "$defs": { "one": { "$dynamicAnchor": "x", "allOf": [one] } } }),
            "/$dynamicRef",
        ),
        (json!({ "$ref": "#/$defs/o%6Ee", "$defs": { "one": one } }), "/$ref"),
    ] {
        let edit = |schema: &ParamSchema, value: Value| violations(schema, &json!({}), &[("a", Some(value))]);
        let shown = ParamSchema::new(schema.clone(), &hide(&[])).unwrap();
        assert!(edit(&shown, json!(1)).is_empty(), "{schema}");
        assert_eq!(edit(&shown, json!(2)), ["a: 1 was expected"], "{schema}");
        let hidden = ParamSchema::new(schema.clone(), &hide(&["token"])).unwrap();
        assert_eq!(hidden.unchecked("a").collect::<Vec<_>>(), [path], "{schema}");
        assert_eq!(edit(&hidden, json!(1)).len(), 1, "{schema}");
    }
}

/// References in a circle, and so many that they never end, are read in finite time.
#[test]
fn references_that_do_not_end_are_read_to_an_end() {
    let chain: Map<String, Value> = (0..60)
        .map(|n| {
            let next = json!({ "$ref": format!("#/$defs/d{}", (n + 1) % 60) });
            (
                format!("d{n}"),
                json!({ "allOf": [{ "properties": { "a": next } }, { "properties": { "b": next } }] }),
            )
        })
        .collect();
    let schema = json!({ "$ref": "#/$defs/d0", "$defs": chain });
    assert!(ParamSchema::new(schema, &hide(&["b"])).is_ok());
    let doubling: Map<String, Value> = (0..40)
        .map(|n| {
            let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
            let schema = if n == 39 { json!({}) } else { json!({ "allOf": [next, next] }) };
            (format!("d{n}"), schema)
        })
        .collect();
    let read = Checkable::of(
        &json!({ "$ref": "#/$defs/d0", "$defs": doubling }),
        Hidden { redaction: &hide(&["b"]), earlier: &BTreeSet::new() },
    );
    assert!(!read.unwrap().joined.is_empty(), "what is not read is not taken for harmless");
}

#[test]
fn a_violation_does_not_repeat_the_value() {
    let long = json!("x".repeat(10_000));
    let params = json!({ "ref": "v1", "replicas": 2 });
    let violations = violations(&schema(), &params, &[("note", Some(long))]);
    assert!(violations[0].len() < 100, "{violations:?}");
}

fn any_value_schema() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        (0..2).prop_map(|n| json!({ "const": n })),
        (0..2).prop_map(|n| json!({ "minimum": n, "type": "integer" })),
        Just(json!({ "not": { "const": 0 } })),
        Just(json!({ "if": { "const": 0 }, "else": false })),
        Just(json!({ "allOf": [false] })),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "s", "t"]).prop_map(str::to_owned)
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![Just(json!(0)), Just(json!(1)), Just(json!(null))]
}

/// A schema of objects that uses every keyword that says something of an object.
fn any_schema() -> impl Strategy<Value = Value> {
    let keys = || prop::collection::btree_set(any_key(), 1..3);
    let properties = || prop::collection::btree_map(any_key(), any_value_schema(), 1..3);
    let flat = prop_oneof![
        4 => properties().prop_map(|properties| json!({ "properties": properties })),
        2 => keys().prop_map(|keys| json!({ "required": keys })),
        1 => (any_key(), keys()).prop_map(|(key, keys)| json!({ "dependentRequired": { key: keys } })),
        1 => (0..5).prop_map(|least| json!({ "minProperties": least })),
        1 => (0..5).prop_map(|most| json!({ "maxProperties": most })),
        1 => Just(json!({ "propertyNames": { "pattern": "^[abs]$" } })),
        1 => any_value_schema().prop_map(|schema| json!({ "patternProperties": { "^[as]$": schema } })),
        1 => (properties(), any_value_schema())
            .prop_map(|(properties, rest)| json!({ "properties": properties, "additionalProperties": rest })),
        1 => (properties(), any::<bool>())
            .prop_map(|(properties, rest)| json!({ "properties": properties, "unevaluatedProperties": rest })),
        1 => Just(json!({ "$ref": "#/$defs/one" })),
        1 => Just(json!({ "$ref": "#/$defs/two" })),
        1 => Just(json!({ "const": { "a": 1, "s": 0 } })),
        1 => Just(json!(true)),
    ];
    flat.prop_recursive(3, 12, 3, |inner| {
        let some = || prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            some().prop_map(|schemas| json!({ "allOf": schemas })),
            some().prop_map(|schemas| json!({ "anyOf": schemas })),
            some().prop_map(|schemas| json!({ "oneOf": schemas })),
            some().prop_map(|schemas| json!({ "allOf": schemas, "unevaluatedProperties": false })),
            some().prop_map(|schemas| json!({ "anyOf": schemas, "unevaluatedProperties": false })),
            inner.clone().prop_map(|schema| json!({ "not": schema })),
            (any_key(), inner.clone())
                .prop_map(|(key, schema)| json!({ "dependentSchemas": { key: schema } })),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(test, then, other)| json!({ "if": test, "then": then, "else": other })),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]

    /// The same through all that stores an edit, with a policy that lets people edit and asks for nothing: whatever people
    /// want changed or removed, hidden keys too, what is stored fits the schema as a whole.
    #[test]
    fn an_edit_that_is_stored_fits_the_schema_as_a_whole(
        root in any_schema(),
        hides in any::<bool>(),
        before in prop::collection::btree_map(any_key(), 0..2_i32, 0..4),
        edits in prop::collection::btree_map(any_key(), prop::option::of(any_value()), 1..3),
    ) {
        let schema = json!({ "allOf": [root], "$defs": { "one": { "required": ["a"] }, "two": true } });
        let oracle = jsonschema::draft202012::options().build(&schema).unwrap();
        let config = json!({ "do": "editable", "keys": ["a", "b", "s", "t"] });
        let entry = PolicyEntry {
            redact: hide(if hides { &["s", "t"] } else { &[] }),
            schema: Some(schema.clone()),
            ..action(&engine(), &[("misbehaving", config)]).entry().as_ref().clone()
        };
        let module = module(&engine(), "misbehaving");
        let rules = ActionPolicy::new(entry, |_| Some(Arc::clone(&module))).unwrap();
        let params: Map<String, Value> = before.into_iter().map(|(key, value)| (key, json!(value))).collect();
        let fits = |params: &Map<String, Value>| oracle.is_valid(&Value::Object(params.clone()));
        let (shown, redacted) = rules.entry().redact.apply(params.clone());
        let submission =
            Submission { params: shown, redacted, digests: parameter_digests(&params), ..submission(&rules) };
        let made = decide::admit(&rules, id(), submission, &params, |_| None).outcome.unwrap().request;
        let by = Some(Actor { id: "U1".to_owned(), ..Actor::default() });
        let attempt = decide::Attempt::of(Intent::Approve { edits: edits.clone() }, by);
        let Ok(step) = decide::event(&rules, &made, attempt, SUBMITTED_AT.plus(1000)).outcome else {
            return Ok(());
        };
        let mut merged = params.clone();
        for (key, after) in step.request.edits() {
            prop_assert!(rules.entry().redact.shows(key), "`{}` is hidden", key);
            match after {
                Some(value) => merged.insert(key.to_owned(), value.clone()),
                None => merged.remove(key),
            };
        }
        prop_assert_eq!(payload_hash(&parameter_digests(&merged)), step.request.payload_hash());
        // What does not fit for the sake of a hidden value alone goes on like that; nothing else does.
        let is_told = step.request.edits().is_empty() || (hides && !fits(&params));
        prop_assert!(is_told || fits(&merged), "{}: {:?} {:?}", schema, params, edits);
    }

    /// Over all parameters of a small world: from parameters that fit the schema, an edit that is taken leads to ones that
    /// fit it as a whole, hidden values included; and one that does is refused only if a rule joins what it edits with
    /// hidden parameters.
    #[test]
    fn an_edit_that_is_taken_leads_to_parameters_that_fit_the_schema(
        root in any_schema(), one in any_schema(), two in any_value_schema(), hides in any::<bool>(),
    ) {
        let one = match one.to_string().contains("$ref") {
            // A reference in a circle at one place has no meaning.
            true => json!({ "properties": { "b": { "const": 1 } } }),
            false => one,
        };
        let two = json!({ "$ref": "#/$defs/one", "properties": { "a": two } });
        let schema = json!({ "allOf": [root], "$defs": { "one": one, "two": two } });
        let hidden: &[&str] = if hides { &["s", "t"] } else { &[] };
        let checked = ParamSchema::new(schema.clone(), &hide(hidden)).unwrap();
        let oracle = jsonschema::draft202012::options().build(&schema).unwrap();
        let values = [None, Some(0), Some(1)];
        let object = |values: [(&str, Option<i32>); 4]| {
            let there = values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
            there.collect::<Map<_, _>>()
        };
        for (n, m) in (0..81_usize).flat_map(|n| (0..9_usize).map(move |m| (n, m))) {
            let [a, b, s, t] = [n % 3, n / 3 % 3, n / 9 % 3, n / 27].map(|n| values[n]);
            let [a_after, b_after] = [m % 3, m / 3].map(|m| values[m]);
            let edited: BTreeSet<&str> =
                [("a", a != a_after), ("b", b != b_after)].into_iter().filter_map(|(key, is)| is.then_some(key)).collect();
            let before = object([("a", a), ("b", b), ("s", s), ("t", t)]);
            if edited.is_empty() || !oracle.is_valid(&Value::Object(before)) {
                continue;
            }
            let after = object([("a", a_after), ("b", b_after), ("s", s), ("t", t)]);
            let (stored, redacted) = hide(hidden).apply(after.clone());
            let found = checked.violations(&stored, &redacted, &edited);
            let fits = oracle.is_valid(&Value::Object(after.clone()));
            let is_joined = edited.iter().any(|key| checked.unchecked(key).next().is_some());
            prop_assert_eq!(found.is_empty(), fits && !is_joined, "{}: {:?} {:?}: {:?}", schema, edited, after, found);
        }
    }
}

#[test]
fn synthetic_parameters() {
    let params = schema();
    assert!(params.synthetic().is_none(), "a pattern takes thought");
    let plain = ParamSchema::new(
        json!({
            "type": "object",
            "required": ["service", "replicas", "env", "tags"],
            "properties": {
                "service": { "type": "string", "minLength": 3 },
                "replicas": { "$ref": "#/$defs/count" },
                "env": { "enum": ["staging", "production"] },
                "tags": { "type": "array", "minItems": 2, "items": { "type": "string" } }
            },
            "$defs": { "count": { "type": "integer", "minimum": 2 } }
        }),
        &hide(&[]),
    );
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
        let error = ParamSchema::new(document.clone(), &hide(&[])).unwrap_err();
        assert!(error.contains(words), "{document}: {error}");
    }
}
