//! A strict reader of JSON: what it accepts means the same to everybody (RFC 7493).
//!
//! People approve the hash of a payload, so a payload must not be read in two ways: a key that comes twice,
//! a number that is not exactly the value of its canonical form (RFC 8785) and nesting without end are refused, each with
//! its path.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod named;

use std::fmt;
use std::num::IntErrorKind;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use self::named::Named;
use crate::lifecycle::canonical;

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

/// Checks that a number, which was read from `text`, is exactly what was written, and the same for every reader of JSON.
/// `text` is in decimal notation, in JSON's or with what YAML allows beyond it (`+1`, `.5`, `5.`).
///
/// # Errors
/// What is wrong with it.
pub fn check_number(text: &str, value: &Number) -> Result<(), &'static str> {
    let Some(double) = value.as_f64().filter(|_| value.is_f64()) else {
        let magnitude = value.as_i64().map(i64::unsigned_abs).or(value.as_u64());
        return if magnitude.is_some_and(|whole| whole <= MAX_WHOLE) { Ok(()) } else { Err(TOO_LARGE) };
    };
    check_double(text, double)
}

#[expect(clippy::cast_precision_loss, reason = "the bound is one that a double holds")]
fn check_double(text: &str, value: f64) -> Result<(), &'static str> {
    if value.fract() == 0.0 && value.abs() > MAX_WHOLE as f64 || !value.is_finite() {
        return Err(TOO_LARGE);
    }
    let written = Decimal::of(text);
    if written.is_some() && written == Decimal::of(&canonical(&value.into())) { Ok(()) } else { Err(INEXACT) }
}

/// The exact value of a number in decimal notation: `digits` × 10^`exponent`, in the one form that has neither leading nor
/// trailing zeros. Zero has no digits, and no sign.
#[derive(PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// `None` if the text is in no decimal notation. Takes time in proportion to the text, whatever the exponent.
    fn of(text: &str) -> Option<Decimal> {
        /// Greater exponents are taken for this one. No text is so long that its digits make up for it, so what is compared
        /// with a double is different from it either way.
        const HUGE: i64 = 1 << 60;
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent = match exponent.parse::<i64>() {
            Ok(exponent) => exponent.clamp(-HUGE, HUGE),
            Err(error) => match error.kind() {
                IntErrorKind::PosOverflow => HUGE,
                IntErrorKind::NegOverflow => -HUGE,
                _ => return None,
            },
        };
        let magnitude = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        while digits.pop_if(|digit| *digit == b'0').is_some() {
            exponent += 1;
        }
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        if digits.is_empty() {
            return Some(Decimal { is_negative: false, digits, exponent: 0 });
        }
        Some(Decimal { is_negative: mantissa.starts_with('-'), digits, exponent })
    }
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

/// The numbers of a JSON text as they are written, in their order. The parser hands on doubles, not what they were made
/// of. That the text is JSON is the parser's to check: this only tells numbers from strings.
struct Numbers<'t>(&'t [u8]);

impl<'t> Iterator for Numbers<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        loop {
            let (first, rest) = self.0.split_first()?;
            match first {
                b'"' => {
                    let mut escaped = false;
                    let end = rest.iter().position(|byte| match byte {
                        _ if escaped => {
                            escaped = false;
                            false
                        }
                        b'\\' => {
                            escaped = true;
                            false
                        }
                        byte => *byte == b'"',
                    });
                    self.0 = rest.get(end? + 1..)?;
                }
                b'-' | b'0'..=b'9' => {
                    let end = self.0.iter().position(|byte| !is_part(byte)).unwrap_or(self.0.len());
                    let (number, rest) = self.0.split_at_checked(end)?;
                    self.0 = rest;
                    return std::str::from_utf8(number).ok();
                }
                _ => self.0 = rest,
            }
        }
    }
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
        if value > MAX_WHOLE { Err(self.0.fail(TOO_LARGE)) } else { Ok(value.into()) }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.0.passed += 1;
        if value.unsigned_abs() > MAX_WHOLE { Err(self.0.fail(TOO_LARGE)) } else { Ok(value.into()) }
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

const TOO_LARGE: &str =
    "a whole number beyond ±(2^53 − 1) is read differently by different programs; send a string";

const INEXACT: &str = "this number is not exactly the value of its shortest form as a double (RFC 8785), so it would become \
     another number; send fewer digits, or a string";

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

    /// Numbers in every way to write them: any digits, digits of doubles, and those with digits added.
    fn any_number() -> impl Strategy<Value = String> {
        let double = any::<f64>().prop_filter("JSON has no others", |double| double.is_finite());
        let near = (double.clone(), 0_usize..40).prop_map(|(double, digits)| format!("{double:.digits$e}"));
        let shortest = double.clone().prop_map(|double| format!("{double:e}"));
        let padded = (-1e9..1e9_f64, 0_usize..30).prop_map(|(double, zeros)| {
            let text = double.to_string();
            if text.contains('.') { format!("{text}{}", "0".repeat(zeros)) } else { text }
        });
        let bits = any::<u64>().prop_map(f64::from_bits).prop_filter("JSON has no others", |d| d.is_finite());
        prop_oneof![
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
            "-?0\\.0{0,30}[0-9]{1,4}([eE][+-]?[0-9]{1,2})?",
            "-?[1-9]0{0,40}(\\.0{1,20})?([eE][+-]?0{0,3}[0-9]{1,2})?",
            near,
            shortest,
            padded,
            bits.prop_map(|double| double.to_string()),
        ]
    }

    /// Whether two numbers in JSON's notation have the same value: written out without an exponent, digit under digit.
    fn same_value(one: &str, other: &str) -> bool {
        let (one, other) = (written_out(one), written_out(other));
        let point = |text: &str| text.find('.').unwrap();
        let whole = point(&one.1).max(point(&other.1));
        let pad = |(sign, text): (bool, String)| {
            let text = format!("{}{text}", "0".repeat(whole - point(&text)));
            (sign, text.trim_end_matches('0').to_owned())
        };
        let (one, other) = (pad(one), pad(other));
        let is_zero = |text: &str| text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
        one.1 == other.1 && (one.0 == other.0 || is_zero(&one.1))
    }

    /// Its sign, and its digits with the point where the exponent moves it.
    fn written_out(text: &str) -> (bool, String) {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().unwrap();
        let magnitude = mantissa.trim_start_matches('-');
        let (mut whole, mut fraction) = match magnitude.split_once('.') {
            Some((whole, fraction)) => (whole.to_owned(), fraction.to_owned()),
            None => (magnitude.to_owned(), String::new()),
        };
        for _ in 0..exponent {
            whole.push(if fraction.is_empty() { '0' } else { fraction.remove(0) });
        }
        for _ in exponent..0 {
            fraction.insert(0, whole.pop().unwrap_or('0'));
        }
        (mantissa.starts_with('-'), format!("{whole}.{fraction}"))
    }

    proptest! {
        #[test]
        fn a_value_that_is_written_is_read_back(value in any_json()) {
            prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
        }

        #[test]
        fn a_number_is_taken_exactly_if_it_has_the_value_of_its_canonical_form(text in any_number()) {
            let nearest: f64 = text.parse().unwrap();
            let is_whole = nearest.fract() == 0.0;
            let is_exact = nearest.is_finite() && same_value(&text, &canonical(&nearest.into()));
            let expected = is_exact && !(is_whole && nearest.abs() > 9_007_199_254_740_991.0);
            let read = parse(text.as_bytes());
            prop_assert_eq!(read.is_ok(), expected, "{:?}", read);
            if let Ok(value) = read {
                prop_assert!(same_value(&canonical(&value), &text), "{}", canonical(&value));
                prop_assert_eq!(parse(canonical(&value).as_bytes()), Ok(value));
            }
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
