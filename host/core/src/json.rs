//! A strict reader of JSON: what it accepts means the same to everybody (RFC 7493).
//!
//! People approve the hash of a payload, so a payload must not be read in two ways: a key that comes twice,
//! a number that a double cannot hold and nesting without end are refused, each with its path.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep objects and lists may be nested.
pub const MAX_DEPTH: usize = 32;

/// The largest whole number that every reader of JSON takes for the same one: 2^53 − 1.
const MAX_WHOLE: u64 = 9_007_199_254_740_991;

/// How much of a key is repeated in a path.
const KEY_CHARS: usize = 64;

/// Why a text or a value is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where: `meta.requester.id`, `meta.links[0].url`, or empty for the whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// Reads one JSON value, and nothing after it.
///
/// # Errors
/// Where the text is no JSON, or no JSON that everybody reads in the same way.
pub fn parse(text: &[u8]) -> Result<Value, Refused> {
    read(text, Walk::default())
}

/// Reads the value of `key` in an object that is not at hand, as [`parse`] would read it there.
///
/// # Errors
/// As those of [`parse`]; their paths begin with the key.
pub fn parse_member(key: &str, text: &[u8]) -> Result<Value, Refused> {
    read(text, Walk { path: vec![Segment::Key(key.to_owned())], fault: None })
}

fn read(text: &[u8], mut walk: Walk) -> Result<Value, Refused> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Node(&mut walk).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| match walk.fault.take() {
        Some(fault) => fault,
        None => Refused { path: walk.here(), message: format!("malformed JSON: {error}") },
    })
}

/// Reads a type out of a value that [`parse`] accepted; an error names the path.
///
/// # Errors
/// Where the value is not of that type.
pub fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Refused> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let said = error.into_inner().to_string();
        // What was sent may be secret: what should have been is enough.
        let message = match said.rsplit_once(", expected ") {
            Some((wrong, expected)) if wrong.starts_with("invalid ") => format!("expected {expected}"),
            _ => said,
        };
        Refused { path: path.chars().take(MAX_DEPTH * KEY_CHARS).collect(), message }
    })
}

/// Where the reader is, and what it first stumbled over.
#[derive(Default)]
struct Walk {
    path: Vec<Segment>,
    fault: Option<Refused>,
}

enum Segment {
    Key(String),
    Index(usize),
}

impl Walk {
    fn here(&self) -> String {
        let mut path = String::new();
        for segment in &self.path {
            match segment {
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
                Segment::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.extend(key.chars().take(KEY_CHARS));
                }
            }
        }
        path
    }

    fn fail<E: de::Error>(&mut self, message: impl Into<String>) -> E {
        let fault = Refused { path: self.here(), message: message.into() };
        self.fault.get_or_insert(fault);
        // Never shown: the fault is.
        E::custom("refused")
    }

    fn enter<E: de::Error>(&mut self) -> Result<(), E> {
        if self.path.len() >= MAX_DEPTH {
            return Err(self.fail(format!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(())
    }
}

/// Reads the value at the place where the walk is.
struct Node<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        if value > MAX_WHOLE { Err(self.0.fail(TOO_LARGE)) } else { Ok(value.into()) }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > MAX_WHOLE { Err(self.0.fail(TOO_LARGE)) } else { Ok(value.into()) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole, and within what an i64 holds")]
    #[expect(clippy::cast_precision_loss, reason = "the bound is one that a double holds")]
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        if value.fract() != 0.0 {
            return Ok(value.into());
        }
        if !value.is_finite() || value.abs() > MAX_WHOLE as f64 {
            return Err(self.0.fail(TOO_LARGE));
        }
        // `5.0` is 5 in canonical JSON, so it is 5 here too, and `-0.0` is 0.
        Ok((value as i64).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let walk = self.0;
        walk.enter()?;
        let mut list = Vec::new();
        loop {
            walk.path.push(Segment::Index(list.len()));
            let item = seq.next_element_seed(Node(walk))?;
            walk.path.pop();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let walk = self.0;
        walk.enter()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            walk.path.push(Segment::Key(key.clone()));
            if object.contains_key(&key) {
                return Err(walk.fail("this key comes twice"));
            }
            let value = entries.next_value_seed(Node(walk))?;
            walk.path.pop();
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

const TOO_LARGE: &str =
    "a whole number beyond ±(2^53 − 1) is read differently by different programs; send a string";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: Result<Value, (&str, &str)>) {
        let read = parse(text.as_bytes());
        match (read, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{text}"),
            (Err(refused), Err((path, part))) => {
                assert_eq!(refused.path, path, "{text}: {}", refused.message);
                assert!(refused.message.contains(part), "{text}: {}", refused.message);
            }
            (read, expected) => panic!("{text}: {read:?} where {expected:?} was expected"),
        }
    }

    #[test]
    fn what_everybody_reads_alike_is_read() {
        check(r#"{"a":[1,-2,0.5,"x",null,true,{}]}"#, Ok(json!({"a": [1, -2, 0.5, "x", null, true, {}]})));
        check("9007199254740991", Ok(json!(9_007_199_254_740_991_u64)));
        check("-9007199254740991", Ok(json!(-9_007_199_254_740_991_i64)));
        check("[5.0, 1e3, -0.0]", Ok(json!([5, 1000, 0])));
        check(&format!("{}{}", "[".repeat(32), "]".repeat(32)), Ok(nested(32)));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        check(r#"{"a":{"b":1,"b":2}}"#, Err(("a.b", "comes twice")));
        check(r#"{"b":1,"\u0062":2}"#, Err(("b", "comes twice")));
        check(r#"{"a":[0,9007199254740992]}"#, Err(("a[1]", "2^53")));
        check("-9007199254740992", Err(("", "2^53")));
        check("100000000000000000000000", Err(("", "2^53")));
        check("1e300", Err(("", "2^53")));
        check("1e400", Err(("", "number out of range")));
        check(&format!("{}{}", "[".repeat(33), "]".repeat(33)), Err((&"[0]".repeat(32), "deeper than 32")));
        check(&"[".repeat(100_000), Err((&"[0]".repeat(32), "deeper than 32")));
    }

    /// A member is read as it is read in its object: as deep, and with the same words.
    #[test]
    fn a_member_is_read_as_in_its_object() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for text in ["5", r#"{"b":1,"b":2}"#, "[9007199254740992]", "tru", &deep(31), &deep(32)] {
            let whole = parse(format!(r#"{{"a":{text}}}"#).as_bytes());
            let member = parse_member("a", text.as_bytes());
            match (whole, member) {
                (Ok(whole), Ok(member)) => assert_eq!(whole, json!({ "a": member }), "{text}"),
                // The columns differ.
                (Err(whole), Err(member)) => assert_eq!(whole.path, member.path, "{text}"),
                (whole, member) => panic!("{text}: {whole:?}, {member:?}"),
            }
        }
    }

    #[test]
    fn malformed_text_is_refused_where_it_breaks() {
        check("", Err(("", "malformed JSON")));
        check("{", Err(("", "malformed JSON")));
        check(r#"{"a":{"b":tru}}"#, Err(("a.b", "line 1 column")));
        check(r#"{"a":1} x"#, Err(("", "trailing characters")));
        check(r#"["\ud800"]"#, Err(("[0]", "malformed JSON")));
        check("NaN", Err(("", "malformed JSON")));
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn a_wrong_type_names_its_path() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Outer {
            #[serde(rename = "in")]
            _inner: Vec<Inner>,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Inner {
            #[serde(rename = "id")]
            _id: String,
        }
        let path = |value| typed::<Outer>(value).unwrap_err().path;
        assert_eq!(path(json!({"in": [{"id": "x"}, {"id": 5}]})), "in[1].id");
        assert_eq!(path(json!({"in": [], "out": 1})), "out");
        assert_eq!(path(json!([])), "");
    }

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!([]), |inner, _| json!([inner]))
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let whole = -9_007_199_254_740_991_i64..=9_007_199_254_740_991;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            whole.prop_map(Value::from),
            (-1e6..1e6_f64)
                .prop_filter("whole ones are turned into integers", |n| n.fract() != 0.0)
                .prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_that_is_written_is_read_back(value in any_json()) {
            prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
        }

        #[test]
        fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }

        #[test]
        fn it_accepts_no_more_than_others_do(text in r#"[\[\]{}",:0-9eE.+\-a\\ tnull]{0,40}"#) {
            if parse(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
            }
        }
    }
}
