//! Numbers that are exactly what was written, and the same for every reader of JSON.

use std::num::IntErrorKind;

use serde_json::Number;

use crate::lifecycle::canonical;

/// The largest whole number that every reader of JSON takes for the same one: 2^53 − 1.
const MAX_WHOLE: u64 = 9_007_199_254_740_991;

const TOO_LARGE: &str =
    "a whole number beyond ±(2^53 − 1) is read differently by different programs; send a string";

const INEXACT: &str = "this number is not exactly the value of its shortest form as a double (RFC 8785), so it would become \
     another number; send fewer digits, or a string";

/// Checks that a number, which was read from `text`, is exactly what was written, and the same for every reader of JSON.
/// `text` is in decimal notation, in JSON's or with what YAML allows beyond it (`+1`, `.5`, `5.`).
///
/// # Errors
/// What is wrong with it.
pub fn check_number(text: &str, value: &Number) -> Result<(), &'static str> {
    let Some(double) = value.as_f64().filter(|_| value.is_f64()) else {
        let magnitude = value.as_i64().map(i64::unsigned_abs).or(value.as_u64());
        return magnitude.map_or(Err(TOO_LARGE), check_whole);
    };
    check_double(text, double)
}

/// The same for the magnitude of a whole number.
pub(super) fn check_whole(magnitude: u64) -> Result<(), &'static str> {
    if magnitude > MAX_WHOLE { Err(TOO_LARGE) } else { Ok(()) }
}

/// The same for a double.
#[expect(clippy::cast_precision_loss, reason = "the bound is one that a double holds")]
pub(super) fn check_double(text: &str, value: f64) -> Result<(), &'static str> {
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

/// The numbers of a JSON text as they are written, in their order. The parser hands on doubles, not what they were made
/// of. That the text is JSON is the parser's to check: this only tells numbers from strings.
pub(super) struct Numbers<'t>(pub(super) &'t [u8]);

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

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
    }
}
