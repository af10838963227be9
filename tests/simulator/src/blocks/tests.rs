//! Blocks that Slack refuses, as rows of data.

use super::*;

/// Checks the fault of one block in a message: it starts with `wanted`, or there is none if that is empty.
fn check(block: &Value, wanted: &str) {
    check_all(&json!([block]), wanted);
}

fn check_all(blocks: &Value, wanted: &str) {
    let found = check_message(blocks);
    if wanted.is_empty() {
        assert!(found.is_empty(), "{blocks}: {found:?}");
    } else {
        assert!(found.iter().any(|message| message.starts_with(wanted)), "{wanted}\n{blocks}\n{found:?}");
    }
}

/// Checks one element of an input block in a modal.
fn check_input(element: &Value, wanted: &str) {
    let block = json!({"type": "input", "label": plain("Label"), "element": element});
    let found = check_view(&view(&json!([block])));
    if wanted.is_empty() {
        assert!(found.is_empty(), "{element}: {found:?}");
    } else {
        assert!(found.iter().any(|message| message.starts_with(wanted)), "{wanted}\n{element}\n{found:?}");
    }
}

fn view(blocks: &Value) -> Value {
    json!({"type": "modal", "title": plain("Title"), "submit": plain("Go"), "close": plain("Away"), "blocks": blocks})
}

fn plain(text: &str) -> Value {
    json!({"type": "plain_text", "text": text})
}

fn mrkdwn(text: &str) -> Value {
    json!({"type": "mrkdwn", "text": text})
}

fn long(characters: usize) -> String {
    "ж".repeat(characters)
}

fn with(mut value: Value, key: &str, member: Value) -> Value {
    value[key] = member;
    value
}

fn button() -> Value {
    json!({"type": "button", "text": plain("Approve"), "action_id": "approve", "value": "1"})
}

fn actions(elements: Value) -> Value {
    json!({"type": "actions", "elements": elements})
}

#[test]
fn sections() {
    let section = |text: Value| json!({"type": "section", "text": text});
    let fields = |count: usize, text: &str| json!({"type": "section", "fields": vec![mrkdwn(text); count]});
    let rows = [
        (section(mrkdwn(&long(3000))), ""),
        (
            section(mrkdwn(&long(3001))),
            "must be less than 3001 characters [json-pointer:/blocks/0/text/text]",
        ),
        (section(mrkdwn("")), "must be more than 0 characters [json-pointer:/blocks/0/text/text]"),
        (section(json!("text")), "must be a text object [json-pointer:/blocks/0/text]"),
        (section(json!({"type": "html", "text": "x"})), "must be one of: plain_text, mrkdwn"),
        (section(with(mrkdwn("x"), "emoji", json!(true))), "invalid additional property: emoji"),
        (section(with(plain("x"), "verbatim", json!(true))), "invalid additional property: verbatim"),
        (section(with(plain("x"), "emoji", json!("yes"))), "must be a boolean"),
        (json!({"type": "section"}), "missing required field: text or fields [json-pointer:/blocks/0]"),
        (fields(10, &long(2000)), ""),
        (fields(11, "x"), "no more than 10 items allowed [json-pointer:/blocks/0/fields]"),
        (fields(0, "x"), "no fewer than 1 items allowed [json-pointer:/blocks/0/fields]"),
        (fields(1, &long(2001)), "must be less than 2001 characters [json-pointer:/blocks/0/fields/0/text]"),
        (with(section(plain("x")), "accessory", button()), ""),
        (
            with(section(plain("x")), "accessory", json!({"type": "plain_text_input"})),
            "unsupported type: plain_text_input",
        ),
    ];
    for (block, wanted) in rows {
        check(&block, wanted);
    }
}

#[test]
fn headers_context_and_what_is_not_known() {
    let header = |text: Value| json!({"type": "header", "text": text});
    let context = |count: usize| json!({"type": "context", "elements": vec![mrkdwn("x"); count]});
    let rows = [
        (header(plain(&long(150))), ""),
        (header(plain(&long(151))), "must be less than 151 characters"),
        (header(mrkdwn("x")), "must be one of: plain_text"),
        (header(plain("")), "must be more than 0 characters"),
        (context(10), ""),
        (context(11), "no more than 10 items allowed [json-pointer:/blocks/0/elements]"),
        (context(0), "no fewer than 1 items allowed"),
        (json!({"type": "context"}), "missing required field: elements"),
        (json!({"type": "divider"}), ""),
        (json!({"type": "divider", "block_id": long(255)}), ""),
        (json!({"type": "divider", "block_id": long(256)}), "must be less than 256 characters"),
        (json!({"type": "marquee"}), "unsupported type: marquee [json-pointer:/blocks/0]"),
        (json!({}), "missing required field: type"),
        (json!("divider"), "must be an object"),
    ];
    for (block, wanted) in rows {
        check(&block, wanted);
    }
}

#[test]
fn buttons() {
    let rows = [
        (json!([button()]), ""),
        (json!([with(button(), "text", plain(&long(75)))]), ""),
        (json!([with(button(), "text", plain(&long(76)))]), "must be less than 76 characters"),
        (json!([with(button(), "text", plain(""))]), "must be more than 0 characters"),
        (json!([with(button(), "text", mrkdwn("x"))]), "must be one of: plain_text"),
        (json!([with(button(), "value", json!(long(2000)))]), ""),
        (json!([with(button(), "value", json!(long(2001)))]), "must be less than 2001 characters"),
        (json!([with(button(), "value", json!(7))]), "must be a string"),
        (json!([with(button(), "action_id", json!(long(255)))]), ""),
        (json!([with(button(), "action_id", json!(long(256)))]), "must be less than 256 characters"),
        (json!([with(button(), "style", json!("danger"))]), ""),
        (json!([with(button(), "style", json!("default"))]), "must be one of: primary, danger"),
        (json!([button(), button()]), "`action_id` must be unique in its block: `approve` is there twice"),
        (json!([]), "no fewer than 1 items allowed"),
        (json!([{"type": "button"}]), "missing required field: text"),
        (json!([{"type": "number_input", "is_decimal_allowed": true}]), "unsupported type: number_input"),
    ];
    for (elements, wanted) in rows {
        check(&actions(elements), wanted);
    }
    let many = |count: usize| {
        let one = |n: usize| with(button(), "action_id", json!(format!("b{n}")));
        actions((0..count).map(one).collect())
    };
    check(&many(25), "");
    check(&many(26), "no more than 25 items allowed [json-pointer:/blocks/0/elements]");
    let confirm = |text: &str| json!({"title": plain("Sure?"), "text": mrkdwn(text), "confirm": plain("Yes"), "deny": plain("No")});
    check(&actions(json!([with(button(), "confirm", confirm("really"))])), "");
    check(
        &actions(json!([with(button(), "confirm", confirm(&long(301)))])),
        "must be less than 301 characters",
    );
}

#[test]
fn all_the_blocks_together() {
    let dividers = |count: usize| json!(vec![json!({"type": "divider"}); count]);
    check_all(&dividers(50), "");
    check_all(&dividers(51), "no more than 50 items allowed [json-pointer:/blocks]");
    check_all(&json!({"type": "divider"}), "must be an array [json-pointer:/blocks]");
    let named = |id: &str| json!({"type": "divider", "block_id": id});
    check_all(&json!([named("a"), named("b")]), "");
    check_all(&json!([named("a"), named("a")]), "`block_id` must be unique: `a` is there twice");
    let two = json!([actions(json!([button()])), actions(json!([button()]))]);
    check_all(&two, "");
    assert_eq!(check_view(&view(&dividers(100))), Vec::<String>::new());
    let found = check_view(&view(&dividers(101)));
    assert_eq!(found, ["no more than 100 items allowed [json-pointer:/view/blocks]"]);
}

#[test]
fn rich_text() {
    let rich = |elements: Value| json!({"type": "rich_text", "elements": elements});
    let of = |kind: &str, pieces: Value| rich(json!([{"type": kind, "elements": pieces}]));
    let text = json!({"type": "text", "text": "<!channel> *x*", "style": {"bold": true, "code": true}});
    let rows = [
        (of("rich_text_section", json!([text])), ""),
        (of("rich_text_quote", json!([text, {"type": "user", "user_id": "U0ALICE"}])), ""),
        (of("rich_text_preformatted", json!([text, {"type": "link", "url": "https://example.org"}])), ""),
        (
            of("rich_text_preformatted", json!([{"type": "user", "user_id": "U0ALICE"}])),
            "unsupported type: user",
        ),
        (of("rich_text_section", json!([{"type": "text", "text": ""}])), "must be more than 0 characters"),
        (of("rich_text_section", json!([{"type": "text"}])), "missing required field: text"),
        (
            of("rich_text_section", json!([{"type": "text", "text": "x", "style": {"blink": true}}])),
            "invalid additional property: blink",
        ),
        (of("rich_text_section", json!([{"type": "script"}])), "unsupported type: script"),
        (of("rich_text_table", json!([])), "unsupported type: rich_text_table"),
        (rich(json!([])), "no fewer than 1 items allowed"),
        (json!({"type": "rich_text"}), "missing required field: elements"),
        (
            rich(
                json!([{"type": "rich_text_list", "style": "bullet", "elements": [{"type": "rich_text_section", "elements": [text]}]}]),
            ),
            "",
        ),
        (
            rich(json!([{"type": "rich_text_list", "style": "bullet", "elements": [text]}])),
            "must be one of: rich_text_section",
        ),
        (rich(json!([{"type": "rich_text_list", "elements": []}])), "missing required field: style"),
    ];
    for (block, wanted) in rows {
        check(&block, wanted);
    }
}

#[test]
fn views() {
    let good = view(&json!([]));
    let rows = [
        (good.clone(), ""),
        (with(good.clone(), "title", plain(&long(24))), ""),
        (
            with(good.clone(), "title", plain(&long(25))),
            "must be less than 25 characters [json-pointer:/view/title/text]",
        ),
        (
            with(good.clone(), "submit", plain(&long(25))),
            "must be less than 25 characters [json-pointer:/view/submit/text]",
        ),
        (
            with(good.clone(), "close", plain(&long(25))),
            "must be less than 25 characters [json-pointer:/view/close/text]",
        ),
        (with(good.clone(), "close", Value::Null), ""),
        (with(good.clone(), "private_metadata", json!(long(3000))), ""),
        (with(good.clone(), "private_metadata", json!(long(3001))), "must be less than 3001 characters"),
        (with(good.clone(), "callback_id", json!(long(256))), "must be less than 256 characters"),
        (with(good.clone(), "type", json!("dialog")), "must be one of: modal"),
        (with(good.clone(), "title", Value::Null), "missing required field: title"),
        (with(good.clone(), "blocks", Value::Null), "missing required field: blocks"),
        (json!("modal"), "must be an object"),
        (
            with(
                view(
                    &json!([{"type": "input", "label": plain("x"), "element": {"type": "plain_text_input"}}]),
                ),
                "submit",
                Value::Null,
            ),
            "missing required field: submit",
        ),
        (view(&json!([{"type": "markdown", "text": "x"}])), "unsupported type: markdown"),
    ];
    for (view, wanted) in rows {
        let found = check_view(&view);
        match wanted {
            "" => assert!(found.is_empty(), "{view}: {found:?}"),
            _ => assert!(
                found.iter().any(|message| message.starts_with(wanted)),
                "{wanted}\n{view}\n{found:?}"
            ),
        }
    }
}

#[test]
fn inputs() {
    let option = |text: &str, value: &str| json!({"text": plain(text), "value": value});
    let select = |options: Value| json!({"type": "static_select", "action_id": "value", "options": options});
    let text = json!({"type": "plain_text_input", "action_id": "value"});
    let number = json!({"type": "number_input", "action_id": "value", "is_decimal_allowed": false});
    let rows = [
        (text.clone(), ""),
        (with(text.clone(), "max_length", json!(3000)), ""),
        (with(text.clone(), "max_length", json!(3001)), "must be a whole number from 1 to 3000"),
        (with(text.clone(), "initial_value", json!(long(3000))), ""),
        (with(text.clone(), "initial_value", json!(long(3001))), "must be less than 3001 characters"),
        (
            with(with(text.clone(), "max_length", json!(3)), "initial_value", json!("four")),
            "must be less than 4 characters",
        ),
        (
            with(with(text.clone(), "max_length", json!(3)), "min_length", json!(4)),
            "min_length must not be greater",
        ),
        (with(text.clone(), "placeholder", plain(&long(151))), "must be less than 151 characters"),
        (with(text, "multiline", json!("yes")), "must be a boolean"),
        (number.clone(), ""),
        (with(number.clone(), "initial_value", json!("12")), ""),
        (with(number.clone(), "initial_value", json!(12)), "must be a string that is a number"),
        (with(number.clone(), "initial_value", json!("1.5")), "must be a string that is a number"),
        (with(number.clone(), "initial_value", json!("twelve")), "must be a string that is a number"),
        (with(with(number.clone(), "is_decimal_allowed", json!(true)), "initial_value", json!("-1.5")), ""),
        (
            with(with(number.clone(), "max_value", json!("9")), "initial_value", json!("12")),
            "initial_value must be from",
        ),
        (
            with(with(number.clone(), "min_value", json!("1")), "initial_value", json!("0")),
            "initial_value must be from",
        ),
        (
            with(with(number, "max_value", json!("1")), "min_value", json!("2")),
            "min_value must not be greater",
        ),
        (json!({"type": "number_input"}), "missing required field: is_decimal_allowed"),
        (select(json!([option("A", "a"), option("B", "b")])), ""),
        (select(json!(vec![option("A", "a"); 100])), ""),
        (select(json!(vec![option("A", "a"); 101])), "no more than 100 items allowed"),
        (select(json!([])), "no fewer than 1 items allowed"),
        (select(json!([option(&long(76), "a")])), "must be less than 76 characters"),
        (select(json!([option("A", &long(151))])), "must be less than 151 characters"),
        (select(json!([option("", "a")])), "must be more than 0 characters"),
        (select(json!([option("A", "")])), "must be more than 0 characters"),
        (with(select(json!([option("A", "a")])), "initial_option", option("A", "a")), ""),
        (
            with(select(json!([option("A", "a")])), "initial_option", option("A", "b")),
            "must be exactly one of the options",
        ),
        (json!({"type": "static_select"}), "must have options or option_groups"),
        (json!({"type": "radio_buttons", "options": vec![option("A", "a"); 10]}), ""),
        (
            json!({"type": "radio_buttons", "options": vec![option("A", "a"); 11]}),
            "no more than 10 items allowed",
        ),
        (
            json!({"type": "checkboxes", "options": [option("A", "a")], "initial_options": [option("A", "a")]}),
            "",
        ),
        (
            json!({"type": "checkboxes", "options": [option("A", "a")], "initial_options": [option("B", "b")]}),
            "must be exactly one",
        ),
        (
            json!({"type": "checkboxes", "options": [option("A", "a")], "initial_options": []}),
            "no fewer than 1 items",
        ),
        (button(), "unsupported type: button"),
    ];
    for (element, wanted) in rows {
        check_input(&element, wanted);
    }
    let labelled = |label: &str, hint: &str| json!({"type": "input", "label": plain(label), "hint": plain(hint), "element": {"type": "plain_text_input"}});
    check(&labelled(&long(2000), &long(2000)), "");
    check(
        &labelled(&long(2001), "x"),
        "must be less than 2001 characters [json-pointer:/blocks/0/label/text]",
    );
    check(
        &labelled("x", &long(2001)),
        "must be less than 2001 characters [json-pointer:/blocks/0/hint/text]",
    );
}

#[test]
fn a_message_has_room_for_what_slack_was_seen_to_take() {
    let markdown = |count: usize| json!({"type": "markdown", "text": "w".repeat(count)});
    let divider = json!({"type": "divider"});
    let rows: [(&[Value], bool); 4] = [
        (&[markdown(13_297)], true),
        (&[markdown(13_298)], false),
        (&[markdown(13_172), divider.clone()], true),
        (&[markdown(13_173), divider], false),
    ];
    for (blocks, fits) in rows {
        assert_eq!(cost(blocks) <= MESSAGE_ROOM, fits, "{}", cost(blocks));
    }
    // What lies outside the first plane of Unicode counts twice.
    check(&json!({"type": "header", "text": plain(&"🚀".repeat(75))}), "");
    check(&json!({"type": "header", "text": plain(&"🚀".repeat(76))}), "must be less than 151 characters");
}

#[test]
fn what_has_no_id_gets_one() {
    let mut blocks = json!([
        {"type": "divider"},
        {"type": "divider", "block_id": "mine"},
        actions(json!([{"type": "button", "text": plain("x")}, button()])),
    ]);
    let mut count = 0;
    name_all(&mut blocks, || {
        count += 1;
        format!("id{count}")
    });
    assert_eq!(blocks[0]["block_id"], "id1");
    assert_eq!(blocks[1]["block_id"], "mine");
    assert_eq!(blocks[2]["elements"][0]["action_id"], "id3");
    assert_eq!(blocks[2]["elements"][1]["action_id"], "approve");
    let blocks = blocks.as_array().unwrap();
    let found: Vec<_> =
        elements(blocks).map(|(block, element)| (block, element["action_id"].as_str().unwrap())).collect();
    assert_eq!(found, [("id2", "id3"), ("id2", "approve")]);
}
