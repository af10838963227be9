//! Durations as people write and read them: what is shown can be written.

use std::time::Duration;

/// The units, the longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration such as `10m` or `1h 30m`. Units that are easily taken for others, such as `M` for a month, are refused.
///
/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let mut rest = text;
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let (number, after) = split(rest, |letter| letter.is_ascii_digit());
        let (unit, after) = split(after.trim_start(), char::is_alphabetic);
        if number.is_empty() {
            return Err(format!("expected number at {}", text.len() - rest.len()));
        }
        if unit.is_empty() && after.starts_with(['.', ',']) {
            return Err(format!("`{rest}` is no whole number with a unit"));
        }
        if unit.is_empty() {
            return Err(format!(
                "`{number}` has no unit: write `{number}s`, `{number}m`, `{number}h` or `{number}d`"
            ));
        }
        let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("`{unit}` is no unit: those are `d`, `h`, `m`, `s` and `ms`"));
        };
        let sum = number.parse().ok().and_then(|number: u64| number.checked_mul(*length));
        millis = sum.and_then(|sum| millis.checked_add(sum)).ok_or("it is too long")?;
        rest = after.trim_start();
    }
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(Duration::from_millis(millis)) }
}

/// A duration as [`parse`] reads it, to the millisecond: `1d 1h`, and `0s` for none.
#[must_use]
pub fn show(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (unit, length) in UNITS {
        if left >= length {
            parts.push(format!("{}{unit}", left / length));
            left %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// What begins `text` and fits, and what is after it.
fn split(text: &str, fits: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|letter| !fits(letter)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_that_nobody_takes_for_another() {
        for (text, millis) in [
            ("0s", 0),
            ("90s", 90_000),
            ("10m", 600_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            (" 1 d ", 86_400_000),
            ("250ms", 250),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, said) in [
            ("10M", "`M` is no unit: those are `d`, `h`, `m`, `s` and `ms`"),
            ("1h 30M", "`M` is no unit"),
            ("1day", "`day` is no unit"),
            ("5min", "`min` is no unit"),
            ("1y", "`y` is no unit"),
            ("10", "`10` has no unit: write `10s`, `10m`, `10h` or `10d`"),
            ("1h 30", "`30` has no unit"),
            ("1.5h", "`1.5h` is no whole number with a unit"),
            ("soon", "expected number at 0"),
            ("-1s", "expected number at 0"),
            ("1h, 5m", "expected number at 2"),
            ("", "it is empty"),
            ("  ", "it is empty"),
            ("99999999999999999999s", "it is too long"),
            ("18446744073709551615s", "it is too long"),
            ("18446744073709551615ms 1ms", "it is too long"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_can_be_written() {
        for (millis, shown) in [
            (0, "0s"),
            (1, "1ms"),
            (1_500, "1s 500ms"),
            (90_000, "1m 30s"),
            (365 * 86_400_000, "365d"),
            (90_000_000, "1d 1h"),
            (u64::MAX, "213503982334d 14h 25m 51s 615ms"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(show(duration), shown);
            assert_eq!(parse(shown), Ok(duration));
        }
    }
}
