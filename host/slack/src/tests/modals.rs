//! The modals: their inputs, and what does not fit into them.

use countersign_core::lifecycle::State;
use slack_morphism::prelude::SlackModalView;

use super::*;
use crate::modal::{self, deny, notice, reads_as_text};

/// An open request with these parameters, all of which can be edited.
fn editing(params: Value) -> Request {
    let mut submission = submission();
    submission.params = object(params);
    submission.redacted.clear();
    let mut request = open_with(submission, vec![approvals(0, 1)]);
    let keys = request.submission.params.keys().cloned().collect();
    let State::Open(open) = &mut request.state else { panic!("it is open") };
    open.editable = keys;
    request
}

fn with_schema(properties: Value) -> PolicyEntry {
    PolicyEntry { schema: Some(json!({"type": "object", "properties": properties})), ..entry() }
}

/// The modal, with nothing that can be removed.
fn overrides(request: &Request, entry: &PolicyEntry) -> Option<SlackModalView> {
    modal::overrides(request, entry, &BTreeSet::new(), None)
}

fn json_of(view: &SlackModalView) -> Value {
    let json = serde_json::to_value(view).expect("serialises");
    let broken = limits::broken_view(&json, &|_| false);
    assert!(broken.is_empty(), "{broken:?}");
    json
}

/// The input of the parameter `key` in the modal for edits, without the members that all inputs have.
fn input(key: &str, schema: Value, current: Option<Value>) -> Value {
    let params = current.map_or(json!({}), |value| json!({ key: value }));
    let mut request = editing(params);
    let State::Open(open) = &mut request.state else { panic!("it is open") };
    open.editable.insert(key.to_owned());
    let view = json_of(&overrides(&request, &with_schema(json!({ key: schema }))).expect("a modal"));
    let mut block = view["blocks"][1].clone();
    assert_eq!(block["block_id"], format!("ov_{key}"));
    assert_eq!(block["optional"], true);
    assert_eq!(block["element"]["action_id"], "value");
    let hint = block["hint"]["text"].take();
    let mut element = block["element"].take();
    element.as_object_mut().expect("an object").remove("action_id");
    if !hint.is_null() {
        element["hint"] = hint;
    }
    if let Some(options) = element["options"].as_array() {
        element["options"] = options.iter().map(|option| option["value"].clone()).collect();
        element["initial_option"] = element["initial_option"]["value"].clone();
    }
    element
}

#[test]
fn inputs_have_the_types_of_the_schema() {
    const HIDDEN: &str = "The value so far cannot be shown here; leave this empty to keep it.";
    let rows = [
        (
            json!({"type": "integer", "minimum": 1, "maximum": 20}),
            json!(3),
            json!({"type": "number_input", "is_decimal_allowed": false, "initial_value": "3", "min_value": "1", "max_value": "20"}),
        ),
        (
            json!({"type": "integer", "exclusiveMinimum": 0.5, "exclusiveMaximum": 9}),
            json!(-2),
            json!({"type": "number_input", "is_decimal_allowed": false, "initial_value": "-2", "max_value": "8"}),
        ),
        (
            json!({"type": "number", "minimum": 0, "maximum": 1e300}),
            json!(0.000_000_1),
            json!({"type": "number_input", "is_decimal_allowed": true, "initial_value": "0.0000001", "min_value": "0"}),
        ),
        (
            json!({"type": "integer"}),
            json!("3"),
            json!({"type": "number_input", "is_decimal_allowed": false, "hint": HIDDEN}),
        ),
        (
            json!({"type": ["integer", "null"]}),
            json!(null),
            json!({"type": "number_input", "is_decimal_allowed": false}),
        ),
        (
            json!({"type": "boolean"}),
            json!(true),
            json!({"type": "static_select", "options": ["true", "false"], "initial_option": "true"}),
        ),
        (
            json!({"enum": ["eu", "us"]}),
            json!("us"),
            json!({"type": "static_select", "options": ["eu", "us"], "initial_option": "us"}),
        ),
        (
            json!({"enum": ["true", true, 1, null, "x"]}),
            json!(true),
            json!({"type": "static_select", "options": ["\"true\"", "true", "1", "null", "x"], "initial_option": "true"}),
        ),
        (
            json!({"type": "string", "enum": ["1", "2"]}),
            json!("3"),
            json!({"type": "static_select", "options": ["1", "2"], "initial_option": null, "hint": HIDDEN}),
        ),
        (
            json!({"enum": ["a".repeat(76), "b"]}),
            json!("b"),
            json!({"type": "plain_text_input", "initial_value": "b"}),
        ),
        (
            json!({"enum": (0..101).collect::<Vec<_>>()}),
            json!(1),
            json!({"type": "plain_text_input", "multiline": true, "initial_value": "1", "hint": "Written as JSON."}),
        ),
        (
            json!({"type": "string", "maxLength": 8, "description": " A <ref> "}),
            json!("v1"),
            json!({"type": "plain_text_input", "initial_value": "v1", "max_length": 8, "hint": "A <ref>"}),
        ),
        (
            json!({"type": "string", "maxLength": 1}),
            json!("v1"),
            json!({"type": "plain_text_input", "initial_value": "v1"}),
        ),
        (
            json!({"type": "string"}),
            json!("a\nb"),
            json!({"type": "plain_text_input", "initial_value": "a\nb", "multiline": true}),
        ),
        (json!({"type": "string"}), json!(""), json!({"type": "plain_text_input"})),
        (
            json!({"type": "string"}),
            json!("a ".repeat(2000)),
            json!({"type": "plain_text_input", "multiline": true, "hint": HIDDEN}),
        ),
        (
            json!({"type": "string"}),
            json!("a\u{202e}b"),
            json!({"type": "plain_text_input", "multiline": true, "hint": HIDDEN}),
        ),
        (
            json!({"type": ["string", "null"]}),
            json!("5"),
            json!({"type": "plain_text_input", "initial_value": "5"}),
        ),
        (
            json!({"type": "array"}),
            json!([1]),
            json!({"type": "plain_text_input", "initial_value": "[\n  1\n]", "multiline": true, "hint": "Written as JSON."}),
        ),
        (
            json!({"type": "array"}),
            json!("5"),
            json!({"type": "plain_text_input", "initial_value": "\"5\"", "multiline": true, "hint": "Written as JSON."}),
        ),
        (json!({}), json!("5"), json!({"type": "plain_text_input", "initial_value": "5"})),
        (
            json!(true),
            json!(5),
            json!({"type": "number_input", "is_decimal_allowed": true, "initial_value": "5"}),
        ),
    ];
    for (schema, current, expected) in rows {
        assert_eq!(input("key", schema.clone(), Some(current.clone())), expected, "{schema} {current}");
    }
    assert_eq!(
        input("key", json!({"type": "integer"}), None),
        json!({"type": "number_input", "is_decimal_allowed": false})
    );
    let referring = PolicyEntry {
        schema: Some(json!({"properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "string"}}})),
        ..entry()
    };
    let view = json_of(&overrides(&editing(json!({"n": 5})), &referring).expect("a modal"));
    assert_eq!(view["blocks"][1]["element"]["type"], "plain_text_input");
    assert!(reads_as_text(referring.schema.as_ref(), "n", Some(&json!(5))));
}

#[test]
fn overrides_modal() {
    let request =
        after(open(vec![approvals(0, 2)]), 3, Some("U0ANA"), approve(), waiting(vec![approvals(1, 2)]));
    insta::assert_json_snapshot!(json_of(&overrides(&request, &entry()).expect("a modal")));
    let mut none = request.clone();
    let State::Open(open) = &mut none.state else { panic!("it is open") };
    open.editable = BTreeSet::from(["token".to_owned(), "k".repeat(253)]);
    assert_eq!(overrides(&none, &entry()), None);
    let ended = request.expire(minutes(20)).expect("it is due").request;
    assert_eq!(overrides(&ended, &entry()), None);
}

#[test]
fn what_does_not_fit_into_the_modal_is_mentioned() {
    let mut params: Map<String, Value> =
        (0..97).map(|n| (format!("k{n:02}"), json!("日本".repeat(1000)))).collect();
    params.insert("k".repeat(253), json!(1));
    let view = json_of(&overrides(&editing(Value::Object(params)), &entry()).expect("a modal"));
    let blocks = view["blocks"].as_array().expect("blocks");
    assert_eq!(blocks.len(), 97);
    assert_eq!(
        blocks[96]["text"]["text"],
        ":warning: 2 more parameters cannot be edited here for want of room; 1 parameter cannot be edited here, as the names are too long."
    );
    assert!(blocks[1]["element"]["initial_value"].is_string());
    assert!(blocks[95]["element"]["initial_value"].is_null());
    assert!(blocks[95]["hint"]["text"].as_str().is_some_and(|hint| hint.contains("cannot be shown here")));
}

/// What an input does not show cannot be cleared in it: to leave it empty keeps the parameter.
#[test]
fn what_is_cleared_was_shown() {
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
    let mut request = editing(json!({
        "count": 3, "flag": true, "list": [1], "note": "x", "empty": "", "long": "a ".repeat(2000),
    }));
    let State::Open(open) = &mut request.state else { panic!("it is open") };
    open.editable.insert("new".to_owned());
    let shown = modal::clearable(&request, &entry());
    assert_eq!(shown, keys(&["count", "flag", "list", "note"]));

    let removable = keys(&["count", "long", "new", "empty"]);
    let view = json_of(&modal::overrides(&request, &entry(), &removable, None).expect("a modal"));
    let blocks = view["blocks"].as_array().expect("blocks").iter();
    let told =
        blocks.filter(|block| block["hint"]["text"].as_str().is_some_and(|hint| hint.contains("removed")));
    let told: Vec<_> = told.map(|block| block["block_id"].clone()).collect();
    assert_eq!(told, ["ov_count"]);
    let intro = view["blocks"][0]["text"]["text"].as_str().expect("an intro");
    assert!(intro.contains("clear a field is to remove"), "{intro}");

    let metadata: Value =
        serde_json::from_str(view["private_metadata"].as_str().expect("metadata")).expect("JSON");
    let told = metadata["clearable"].as_str().expect("a digest").parse().expect("a digest");
    assert!(modal::is_as_told(&shown, told));
    assert!(!modal::is_as_told(&keys(&["count"]), told));
    // Nothing is shown of what there is no room for, and what can be removed does not change what there is room for.
    let crowded =
        editing(Value::Object((0..60).map(|n| (format!("k{n:02}"), json!("日本".repeat(1000)))).collect()));
    let shown = modal::clearable(&crowded, &entry());
    assert!(!shown.is_empty() && shown.len() < 60, "{}", shown.len());
    for removable in [keys(&[]), shown.clone()] {
        let view = json_of(&modal::overrides(&crowded, &entry(), &removable, None).expect("a modal"));
        let filled = view["blocks"].as_array().expect("blocks").iter();
        let filled = filled.filter(|block| block["element"]["initial_value"].is_string());
        assert_eq!(filled.count(), shown.len());
    }
}

#[test]
fn deny_modal() {
    insta::assert_json_snapshot!(json_of(&deny(&open(vec![approvals(0, 1)]))));
}

#[test]
fn notice_modal() {
    let view = json_of(&notice("This request has ended, and more", "One.\n\nTwo `&lt;`."));
    assert_eq!(view["title"]["text"], "This request has ended,…");
    assert_eq!(view["blocks"][0]["text"]["text"], "One.\n\nTwo `&lt;`.");
    assert!(view["submit"].is_null());
    json_of(&notice("", ""));
    let long = json_of(&notice("x", &"word <!date^1^{time}|at one> ".repeat(500)));
    let shown: String =
        long["blocks"].as_array().into_iter().flatten().filter_map(|b| b["text"]["text"].as_str()).collect();
    assert_eq!(shown.matches("<!date^1^{time}|at one>").count(), 500);
}
