//! The values in a JSON document, each by its place.

use std::collections::BTreeMap;

use serde_json::Value;

use super::aspect::Said;

/// Each scalar, and each list of strings, by its JSON Pointer. A list of strings is one value: if one is put into the middle
/// of it, the others have not changed.
pub(super) fn leaves(document: &Value) -> BTreeMap<String, Said> {
    let mut found = BTreeMap::new();
    collect(document, String::new(), &mut found);
    found
}

fn collect(value: &Value, pointer: String, found: &mut BTreeMap<String, Said>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{pointer}/{key}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            if let Some(texts) = texts {
                found.insert(pointer, Said::Members(texts.into_iter().map(str::to_owned).collect()));
                return;
            }
            for (index, value) in items.iter().enumerate() {
                collect(value, format!("{pointer}/{index}"), found);
            }
        }
        Value::Object(_) if pointer.is_empty() => {}
        scalar => drop(found.insert(pointer, Said::json(scalar))),
    }
}
