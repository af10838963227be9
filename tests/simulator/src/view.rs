//! Modals: their inputs, and the answer to a submission.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::blocks;
use crate::workspace::{APP, BOT, Team};

/// The value of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: it is left empty, or emptied.
    Empty,
    /// A text, a number, or the value of the option that is chosen.
    Text(String),
    /// The values of the options that are ticked.
    Ticked(Vec<String>),
}

impl From<&str> for Entry {
    fn from(text: &str) -> Entry {
        if text.is_empty() { Entry::Empty } else { Entry::Text(text.to_owned()) }
    }
}

impl From<&[&str]> for Entry {
    fn from(values: &[&str]) -> Entry {
        Entry::Ticked(values.iter().map(|value| (*value).to_owned()).collect())
    }
}

impl Entry {
    /// As the page sends it: a text, a list of texts, or null.
    pub(crate) fn from_json(value: &Value) -> Entry {
        match value {
            Value::String(text) => text.as_str().into(),
            Value::Array(values) => {
                Entry::Ticked(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            _ => Entry::Empty,
        }
    }
}

/// An open modal: a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Its id.
    pub id: String,
    /// Whose screen it is on.
    pub user: String,
    /// Changes with every update.
    pub hash: String,
    /// What the app sent: `title`, `blocks`, `callback_id`, `private_metadata` and so on.
    pub view: Value,
    /// The id of the lowest modal of its stack.
    pub root: String,
    /// The modal right below it.
    pub previous: Option<String>,
    /// The app's errors, by `block_id`.
    pub errors: BTreeMap<String, String>,
    /// Slack's message, if the app did not answer in time or not properly.
    pub trouble: Option<String>,
    /// What was last filled in, by `block_id`.
    pub entries: BTreeMap<String, Entry>,
}

/// Slack's message if an app does not answer a modal in time, or not properly.
pub(crate) const TROUBLE: &str = "We had some trouble connecting. Try again?";

/// What an app's answer to a submission does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Response {
    Close,
    Clear,
    Errors(BTreeMap<String, String>),
    Update(Value),
    Push(Value),
    /// Slack does not accept it; the reason, for developers.
    Nonsense(String),
}

impl View {
    /// Its title.
    #[must_use]
    pub fn title(&self) -> &str {
        self.view["title"]["text"].as_str().unwrap_or_default()
    }

    /// What the app calls this kind of modal.
    #[must_use]
    pub fn callback_id(&self) -> &str {
        self.view["callback_id"].as_str().unwrap_or_default()
    }

    /// The input block with this id.
    #[must_use]
    pub fn input(&self, block_id: &str) -> Option<&Value> {
        self.inputs().find(|block| block["block_id"] == block_id)
    }

    /// Everything that a reader sees of its blocks.
    #[must_use]
    pub fn shown(&self) -> String {
        let blocks: Vec<Value> = blocks::items(&self.view["blocks"]).cloned().collect();
        crate::message::shown(&blocks)
    }

    fn inputs(&self) -> impl Iterator<Item = &Value> {
        blocks::items(&self.view["blocks"]).filter(|block| block["type"] == "input")
    }

    /// Stores the values, and checks them as Slack does before it sends anything.
    pub(crate) fn fill(&mut self, entries: BTreeMap<String, Entry>) -> BTreeMap<String, String> {
        self.entries.extend(entries);
        let problem = |block: &Value| {
            let id = block["block_id"].as_str()?.to_owned();
            let optional = block["optional"] == true;
            let entry = self.entry(&id, &block["element"]);
            Some((id, mistake(&block["element"], &entry, optional)?))
        };
        self.inputs().filter_map(problem).collect()
    }

    /// The value of an input: the one that was filled in, else the initial one.
    fn entry(&self, block_id: &str, element: &Value) -> Entry {
        self.entries.get(block_id).cloned().unwrap_or_else(|| initial(element))
    }

    /// The state of its inputs, as Slack sends it.
    pub(crate) fn state(&self) -> Value {
        let mut values = Map::new();
        for block in self.inputs() {
            let id = block["block_id"].as_str().unwrap_or_default();
            let element = &block["element"];
            let action = element["action_id"].as_str().unwrap_or_default();
            values.insert(id.to_owned(), json!({action: element_state(element, &self.entry(id, element))}));
        }
        json!({"values": values})
    }

    /// The view as Slack's API returns it.
    pub(crate) fn json(&self, team: &Team) -> Value {
        let or = |key: &str, other: Value| match &self.view[key] {
            Value::Null => other,
            given => given.clone(),
        };
        json!({
            "id": self.id,
            "team_id": team.id,
            "type": "modal",
            "blocks": self.view["blocks"],
            "private_metadata": or("private_metadata", json!("")),
            "callback_id": or("callback_id", json!("")),
            "state": self.state(),
            "hash": self.hash,
            "title": self.view["title"],
            "clear_on_close": or("clear_on_close", json!(false)),
            "notify_on_close": or("notify_on_close", json!(false)),
            "close": self.view["close"],
            "submit": self.view["submit"],
            "previous_view_id": self.previous,
            "root_view_id": self.root,
            "app_id": APP,
            "external_id": or("external_id", json!("")),
            "app_installed_team_id": team.id,
            "bot_id": BOT,
        })
    }

    /// What the app's answer means.
    pub(crate) fn response(&self, answer: &Value) -> Response {
        match answer["response_action"].as_str() {
            None if answer["response_action"].is_null() => Response::Close,
            Some("clear") => Response::Clear,
            Some("errors") => self.errors_of(&answer["errors"]),
            Some(action @ ("update" | "push")) => {
                let problems = blocks::check_view(&answer["view"]);
                match (problems.is_empty(), action) {
                    (false, _) => Response::Nonsense(problems.join("; ")),
                    (true, "update") => Response::Update(answer["view"].clone()),
                    (true, _) => Response::Push(answer["view"].clone()),
                }
            }
            _ => Response::Nonsense(format!("unknown response_action: {}", answer["response_action"])),
        }
    }

    fn errors_of(&self, errors: &Value) -> Response {
        let Some(errors) = errors.as_object().filter(|errors| !errors.is_empty()) else {
            return Response::Nonsense("response_action errors without errors".into());
        };
        let mut shown = BTreeMap::new();
        for (block, text) in errors {
            let Some(text) = text.as_str().filter(|text| !text.is_empty()) else {
                return Response::Nonsense(format!("the error for `{block}` is no text"));
            };
            if self.input(block).is_none() {
                return Response::Nonsense(format!(
                    "an error for `{block}`, which is no input block of the view"
                ));
            }
            shown.insert(block.clone(), text.to_owned());
        }
        Response::Errors(shown)
    }
}

/// The initial value of an element.
fn initial(element: &Value) -> Entry {
    let value = |option: &Value| option["value"].as_str().map(str::to_owned);
    match element["type"].as_str().unwrap_or_default() {
        "checkboxes" => Entry::Ticked(blocks::items(&element["initial_options"]).filter_map(value).collect()),
        "static_select" | "radio_buttons" => {
            value(&element["initial_option"]).map_or(Entry::Empty, Entry::Text)
        }
        _ => element["initial_value"].as_str().unwrap_or_default().into(),
    }
}

/// The chosen option, by its value or its text.
fn option<'a>(element: &'a Value, chosen: &str) -> Option<&'a Value> {
    let by = |matches: fn(&Value, &str) -> bool| {
        blocks::element::options(element).find(|option| matches(option, chosen))
    };
    by(|option, chosen| option["value"] == chosen)
        .or_else(|| by(|option, chosen| option["text"]["text"] == chosen))
}

/// Slack's own error beside an input, before it sends anything.
fn mistake(element: &Value, entry: &Entry, optional: bool) -> Option<String> {
    let texts: &[String] = match entry {
        Entry::Empty => &[],
        Entry::Text(text) => std::slice::from_ref(text),
        Entry::Ticked(values) => values,
    };
    let Some(text) = texts.first() else {
        return (!optional).then(|| "Please complete this required field.".to_owned());
    };
    match element["type"].as_str().unwrap_or_default() {
        "plain_text_input" => {
            let length = blocks::width(text) as u64;
            let (least, most) = (element["min_length"].as_u64(), element["max_length"].as_u64());
            if let Some(least) = least.filter(|least| length < *least) {
                return Some(format!("Please enter at least {least} characters."));
            }
            let most = most.unwrap_or(3000);
            (length > most).then(|| format!("Please enter at most {most} characters."))
        }
        "number_input" => {
            let decimal = element["is_decimal_allowed"] == true;
            let Some(number) = blocks::element::parse_number(text, decimal) else {
                let kind = if decimal { "a number" } else { "a whole number" };
                return Some(format!("Please enter {kind}."));
            };
            let bound = |key: &str| element[key].as_str().and_then(|text| text.parse::<f64>().ok());
            if let Some(least) = bound("min_value").filter(|least| number < *least) {
                return Some(format!("Please enter a number that is at least {least}."));
            }
            let most = bound("max_value").filter(|most| number > *most)?;
            Some(format!("Please enter a number that is at most {most}."))
        }
        _ => {
            let unknown = texts.iter().find(|text| option(element, text).is_none())?;
            Some(format!("There is no option `{unknown}`."))
        }
    }
}

/// What Slack sends of one element.
pub(crate) fn element_state(element: &Value, entry: &Entry) -> Value {
    let kind = element["type"].as_str().unwrap_or_default();
    let chosen = |text: &str| {
        let option = option(element, text)?;
        Some(json!({"text": option["text"], "value": option["value"]}))
    };
    match (kind, entry) {
        ("static_select" | "radio_buttons", Entry::Text(text)) => {
            json!({"type": kind, "selected_option": chosen(text)})
        }
        ("static_select" | "radio_buttons", _) => json!({"type": kind, "selected_option": null}),
        ("checkboxes", Entry::Ticked(values)) => {
            let options: Vec<Value> = values.iter().filter_map(|value| chosen(value)).collect();
            json!({"type": kind, "selected_options": options})
        }
        ("checkboxes", _) => json!({"type": kind, "selected_options": []}),
        (_, Entry::Text(text)) => json!({"type": kind, "value": text}),
        _ => json!({"type": kind, "value": null}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let plain = |text: &str| json!({"type": "plain_text", "text": text});
        let option = |value: &str| json!({"text": {"type": "plain_text", "text": value.to_uppercase()}, "value": value});
        let input = |id: &str, element: Value| json!({"type": "input", "block_id": id, "label": plain(id), "element": element});
        let mut optional =
            input("note", json!({"type": "plain_text_input", "action_id": "value", "max_length": 5}));
        optional["optional"] = json!(true);
        let blocks = json!([
            {"type": "section", "block_id": "words", "text": plain("words")},
            input("replicas", json!({"type": "number_input", "action_id": "value", "is_decimal_allowed": false,
                "initial_value": "2", "min_value": "1", "max_value": "9"})),
            input("zone", json!({"type": "static_select", "action_id": "value", "options": [option("a"), option("b")]})),
            input("flags", json!({"type": "checkboxes", "action_id": "value", "options": [option("x"), option("y")], "initial_options": [option("x")]})),
            optional,
        ]);
        View {
            id: "V1".into(),
            user: "U0ALICE".into(),
            hash: "1.a".into(),
            view: json!({"type": "modal", "title": plain("Edit"), "submit": plain("Go"), "callback_id": "edit", "blocks": blocks}),
            root: "V1".into(),
            previous: None,
            errors: BTreeMap::new(),
            trouble: None,
            entries: BTreeMap::new(),
        }
    }

    fn entries(of: &[(&str, Entry)]) -> BTreeMap<String, Entry> {
        of.iter().map(|(block, entry)| ((*block).to_owned(), entry.clone())).collect()
    }

    #[test]
    fn slack_checks_before_it_sends() {
        let good = [("zone", Entry::from("a"))];
        let rows: [(&str, Entry, &[&str]); 9] = [
            ("replicas", "3".into(), &[]),
            ("replicas", "".into(), &["replicas"]),
            ("replicas", "0".into(), &["replicas"]),
            ("replicas", "10".into(), &["replicas"]),
            ("replicas", "1.5".into(), &["replicas"]),
            ("note", "12345".into(), &[]),
            ("note", "123456".into(), &["note"]),
            ("zone", "c".into(), &["zone"]),
            ("flags", Entry::Ticked(Vec::new()), &["flags"]),
        ];
        for (block, entry, wrong) in rows {
            let mut view = view();
            view.fill(entries(&good));
            let found = view.fill(entries(&[(block, entry.clone())]));
            assert_eq!(found.keys().collect::<Vec<_>>(), wrong, "{block}: {entry:?}");
        }
        let untouched = view().fill(BTreeMap::new());
        assert_eq!(untouched.keys().collect::<Vec<_>>(), ["zone"], "a required select with nothing chosen");
    }

    #[test]
    fn the_state_is_of_the_shapes_that_slack_sends() {
        let mut view = view();
        let of_a = json!({"text": {"type": "plain_text", "text": "A"}, "value": "a"});
        let of_x = json!({"text": {"type": "plain_text", "text": "X"}, "value": "x"});
        let before = view.state();
        assert_eq!(before["values"]["replicas"]["value"], json!({"type": "number_input", "value": "2"}));
        assert_eq!(
            before["values"]["zone"]["value"],
            json!({"type": "static_select", "selected_option": null})
        );
        assert_eq!(
            before["values"]["flags"]["value"],
            json!({"type": "checkboxes", "selected_options": [of_x]})
        );
        assert_eq!(before["values"]["note"]["value"], json!({"type": "plain_text_input", "value": null}));
        assert!(before["values"]["words"].is_null());
        view.fill(entries(&[("zone", "A".into()), ("flags", Entry::Empty), ("replicas", "5".into())]));
        let after = view.state();
        assert_eq!(after["values"]["zone"]["value"]["selected_option"], of_a, "by the text of the option");
        assert_eq!(after["values"]["flags"]["value"]["selected_options"], json!([]));
        assert_eq!(after["values"]["replicas"]["value"]["value"], "5");
    }

    #[test]
    fn answers_do_what_they_say_or_make_no_sense() {
        let view = view();
        let errors = |block: &str, text: &str| json!({"response_action": "errors", "errors": {block: text}});
        let shown = BTreeMap::from([("zone".to_owned(), "no such zone".to_owned())]);
        let rows = [
            (json!({}), Some(Response::Close)),
            (json!({"ok": true}), Some(Response::Close)),
            (json!({"response_action": "clear"}), Some(Response::Clear)),
            (errors("zone", "no such zone"), Some(Response::Errors(shown))),
            (errors("words", "not an input"), None),
            (errors("nowhere", "x"), None),
            (errors("zone", ""), None),
            (json!({"response_action": "errors"}), None),
            (json!({"response_action": "errors", "errors": {}}), None),
            (
                json!({"response_action": "update", "view": view.view}),
                Some(Response::Update(view.view.clone())),
            ),
            (json!({"response_action": "push", "view": view.view}), Some(Response::Push(view.view.clone()))),
            (json!({"response_action": "update", "view": {"type": "modal"}}), None),
            (json!({"response_action": "explode"}), None),
            (json!({"response_action": 1}), None),
        ];
        for (answer, wanted) in rows {
            let found = view.response(&answer);
            match wanted {
                Some(wanted) => assert_eq!(found, wanted, "{answer}"),
                None => assert!(matches!(found, Response::Nonsense(_)), "{answer}: {found:?}"),
            }
        }
    }
}
