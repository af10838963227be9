//! A strict reader of JSON: what it accepts means the same to everybody (RFC 7493).
//!
//! People approve the hash of a payload, so a payload must not be read in two ways: a key that comes twice,
//! a number that is not exactly the value of its canonical form (RFC 8785) and nesting without end are refused, each with
//! its path.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod named;
mod number;

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use self::named::Named;
pub use self::number::check_number;
use self::number::{Numbers, check_double, check_whole};

/// How deep objects and lists may be nested.
pub const MAX_DEPTH: usize = 32;

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

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { path, message } = self;
        if path.is_empty() { f.write_str(message) } else { write!(f, "`{path}`: {message}") }
    }
}

/// Reads one JSON value, and nothing after it.
///
/// # Errors
/// Where the text is no JSON, or no JSON that everybody reads in the same way.
pub fn parse(text: &[u8]) -> Result<Value, Refused> {
    read(text, Vec::new())
}

/// Reads the value of `key` in an object that is not at hand, as [`parse`] would read it there.
///
/// # Errors
/// As those of [`parse`]; their paths begin with the key.
pub fn parse_member(key: &str, text: &[u8]) -> Result<Value, Refused> {
    read(text, vec![Segment::Key(key.to_owned())])
}

/// What somebody typed for a value that may be any JSON: the JSON value, or the text itself if it is none.
///
/// # Errors
/// If it is JSON that [`parse`] refuses. Taken as a text it would be another value than the one that was typed.
pub fn parse_or_text(text: &str) -> Result<Value, Refused> {
    parse(text.as_bytes()).or_else(|refused| if is_json(text) { Err(refused) } else { Ok(text.into()) })
}

/// Whether a text is JSON, though [`parse`] may refuse it.
#[must_use]
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<de::IgnoredAny>(text).is_ok()
}

fn read(text: &[u8], path: Vec<Segment>) -> Result<Value, Refused> {
    let mut walk = Walk { path, fault: None, numbers: Numbers(text), passed: 0 };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Node(&mut walk).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| match walk.fault.take() {
        Some(fault) => fault,
        None => Refused { path: walk.here(), message: format!("malformed JSON: {error}") },
    })
}

/// Reads a type out of a value that [`parse`] accepted; an error names the path. Where the type has a structure, the value
/// must have an object: a list is not read as its members in their order.
///
/// # Errors
/// Where the value is not of that type.
pub fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Refused> {
    serde_path_to_error::deserialize(Named(value)).map_err(|error| {
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
struct Walk<'t> {
    path: Vec<Segment>,
    fault: Option<Refused>,
    numbers: Numbers<'t>,
    /// How many of `numbers` were read since the last one that was looked at.
    passed: usize,
}

enum Segment {
    Key(String),
    Index(usize),
}

impl Walk<'_> {
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
struct Node<'w, 't>(&'w mut Walk<'t>);

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
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
        self.0.passed += 1;
        check_whole(value).map_err(|wrong| self.0.fail(wrong))?;
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.0.passed += 1;
        check_whole(value.unsigned_abs()).map_err(|wrong| self.0.fail(wrong))?;
        Ok(value.into())
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole, and within what an i64 holds")]
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let walk = self.0;
        let passed = std::mem::take(&mut walk.passed);
        let text = walk.numbers.nth(passed).unwrap_or_default();
        check_double(text, value).map_err(|wrong| walk.fail(wrong))?;
        // `5.0` is 5 in canonical JSON, so it is 5 here too, and `-0.0` is 0.
        Ok(if value.fract() == 0.0 { (value as i64).into() } else { value.into() })
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
        check("1e99999999999", Err(("", "number out of range")));
        check(&format!("{}{}", "[".repeat(33), "]".repeat(33)), Err((&"[0]".repeat(32), "deeper than 32")));
        check(&"[".repeat(100_000), Err((&"[0]".repeat(32), "deeper than 32")));
    }

    #[test]
    fn a_number_stays_the_number_that_was_written() {
        for (text, value) in [
            ("1.50", json!(1.5)),
            ("1e2", json!(100)),
            ("0.1", json!(0.1)),
            ("1.0000000000000000000000000000", json!(1)),
            ("-0", json!(0)),
            ("-0.0e5", json!(0)),
            ("0e99999999999999999999", json!(0)),
            ("123456789012345e-5", json!(1_234_567_890.123_45)),
            ("5e-324", json!(5e-324)),
            ("9007199254740991.0", json!(9_007_199_254_740_991_u64)),
        ] {
            check(text, Ok(value));
        }
        for text in [
            "9007199254740991.4",
            "1.00000000000000000001",
            "-1.00000000000000000001",
            "0.99999999999999999999",
            "1e-400",
            "-1e-400",
            "1e-99999999999999999999",
            "5e-325",
            "4.9406564584124654e-324",
            // The double of 0.1 to more and to all of its digits, which are not the value that 0.1 has.
            "0.1000000000000000055511151231257827",
            "0.1000000000000000055511151231257827021181583404541015625",
        ] {
            check(text, Err(("", "another number")));
            // Whatever comes before it in the text, it is this number that is looked at.
            let object = format!(r#"{{"-1.5e3":["\\\"7",-1,2.5,3],"a":[0.5,{{"b":{text}}}],"c":0.1}}"#);
            check(&object, Err(("a[1].b", "another number")));
        }
        let long = format!("1.{}1", "0".repeat(200_000));
        check(&long, Err(("", "another number")));
        check(&format!("1.{}", "0".repeat(200_000)), Ok(json!(1)));
    }

    #[test]
    fn what_is_typed_is_json_or_a_text_and_never_a_text_in_place_of_a_number() {
        for (text, read) in [
            ("1.50", Some(json!(1.5))),
            (r#"{"a":[true]}"#, Some(json!({"a": [true]}))),
            ("a text", Some(json!("a text"))),
            ("1,5", Some(json!("1,5"))),
            ("[1", Some(json!("[1"))),
            ("", Some(json!(""))),
            ("9007199254740992", None),
            ("1.00000000000000000001", None),
            ("1e400", None),
            (r#"{"a":1,"a":2}"#, None),
            (&"[".repeat(200), Some(json!("[".repeat(200)))),
            (&format!("{}{}", "[".repeat(200), "]".repeat(200)), None),
        ] {
            assert_eq!(parse_or_text(text).ok(), read, "{text}");
        }
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

    #[test]
    fn a_list_is_no_structure_at_any_depth() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Outer {
            first: Inner,
            more: Option<Vec<Inner>>,
        }
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Inner {
            id: String,
        }
        let inner = |id: &str| Inner { id: id.to_owned() };
        let read = typed::<Outer>(json!({"first": {"id": "x"}, "more": [{"id": "y"}], "other": [1]}));
        assert_eq!(read, Ok(Outer { first: inner("x"), more: Some(vec![inner("y")]) }));
        let read = typed::<Outer>(json!({"first": {"id": "x"}, "more": null}));
        assert_eq!(read, Ok(Outer { first: inner("x"), more: None }));
        for (value, path) in [
            (json!([{"id": "x"}, null]), ""),
            (json!({"first": ["x"]}), "first"),
            (json!({"first": "x"}), "first"),
            (json!({"first": {"id": "x"}, "more": [{"id": "y"}, ["z"]]}), "more[1]"),
        ] {
            let message = "expected an object".to_owned();
            assert_eq!(
                typed::<Outer>(value.clone()),
                Err(Refused { path: path.to_owned(), message }),
                "{value}"
            );
        }
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
