//! What an action's JSON Schema says of a parameter, as far as an input can show it.

use serde_json::Value;

/// Whether what is typed for a parameter is the text itself; otherwise it is parsed as JSON, and is a text only if it
/// is not JSON.
///
/// The inputs of the modal rely on this, so whoever reads the submitted modal must call it too.
#[must_use]
pub fn reads_as_text(schema: Option<&Value>, key: &str, current: Option<&Value>) -> bool {
    let Some(property) = schema.and_then(|schema| property(schema, key)) else {
        return current.is_some_and(Value::is_string);
    };
    let types = types(property);
    if types.contains(&"string") {
        // If the schema also allows other types, the current value decides.
        return types.iter().all(|kind| matches!(*kind, "string" | "null"))
            || current.is_some_and(Value::is_string);
    }
    match choices(property) {
        _ if !types.is_empty() => false,
        Some(values) => values.iter().all(Value::is_string),
        None => current.is_some_and(Value::is_string),
    }
}

/// The schema of a parameter, if it is under `properties`.
pub(super) fn property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    /// Longer chains of references are not followed.
    const MOST_HOPS: usize = 8;
    let mut property = schema.get("properties")?.get(key)?;
    for _ in 0..MOST_HOPS {
        let Some(target) = property.get("$ref").and_then(Value::as_str) else { break };
        property = schema.pointer(target.strip_prefix('#')?)?;
    }
    Some(property)
}

/// The values that `enum` or `const` lists.
pub(super) fn choices(property: &Value) -> Option<&[Value]> {
    match (property.get("enum"), property.get("const")) {
        (Some(Value::Array(values)), _) => Some(values),
        (_, Some(value)) => Some(std::slice::from_ref(value)),
        _ => None,
    }
}

/// The values of `type`; empty if the schema has none.
pub(super) fn types(property: &Value) -> Vec<&str> {
    match property.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
