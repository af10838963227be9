//! The arguments of a call, however they came: in the query, in a form or as JSON.

use serde_json::{Map, Value};

use super::Refusal;

/// The arguments of a call, and its token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) token: Option<String>,
    members: Map<String, Value>,
}

impl Arguments {
    /// Reads them. The token of the header wins over one among the arguments.
    pub(crate) fn read(
        query: &str,
        authorization: Option<&str>,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Arguments, Refusal> {
        let mut members = Map::new();
        form(query.as_bytes(), &mut members);
        let content_type = content_type.map(|kind| kind.split(';').next().unwrap_or_default().trim());
        match content_type {
            _ if body.is_empty() => {}
            Some(kind) if kind.eq_ignore_ascii_case("application/json") => {
                match serde_json::from_slice::<Value>(body) {
                    Ok(Value::Object(json)) => members.extend(json),
                    Ok(_) => return Err("json_not_object".into()),
                    Err(_) => return Err("invalid_json".into()),
                }
            }
            Some(kind) if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") => {
                form(body, &mut members);
            }
            Some(_) => return Err("invalid_post_type".into()),
            None => return Err("missing_post_type".into()),
        }
        let given = members.remove("token").and_then(|token| token.as_str().map(str::to_owned));
        let bearer = authorization.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        Ok(Arguments { token: bearer.or(given), members })
    }

    /// An argument as text; numbers and booleans too. Null counts as missing.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.members.get(key)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            _ => None,
        }
    }

    /// An argument that must be there.
    pub(crate) fn need(&self, key: &str) -> Result<String, Refusal> {
        let missing =
            || Refusal::because("invalid_arguments", vec![format!("missing required field: {key}")]);
        self.text(key).filter(|text| !text.is_empty()).ok_or_else(missing)
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.text(key).is_some_and(|text| text == "true" || text == "1")
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// An argument that is JSON: as it is, or as text that holds it, as forms must send it. `Err` if that text
    /// holds none.
    pub(crate) fn json(&self, key: &str) -> Result<Option<Value>, ()> {
        match self.members.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text).map(Some).map_err(|_| ()),
            Some(value) => Ok(Some(value.clone())),
        }
    }
}

fn form(text: &[u8], members: &mut Map<String, Value>) {
    let pairs = form_urlencoded::parse(text);
    members.extend(pairs.map(|(key, value)| (key.into_owned(), Value::String(value.into_owned()))));
}
