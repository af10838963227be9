//! The real time. Nothing else here reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time now, in microseconds since the epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "Slack lives in real time: its triggers, signatures and limits do"
)]
pub(crate) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// As Slack writes a time: seconds, a full stop, six digits.
pub(crate) fn ts(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// Reads what [`ts`] wrote; fractions of other lengths are taken as decimals.
pub(crate) fn parse_ts(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok()?;
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ts_reads_back() {
        assert_eq!(ts(1_700_000_000_000_100), "1700000000.000100");
        for (text, micros) in [
            ("1700000000.000100", Some(1_700_000_000_000_100)),
            ("1700000000", Some(1_700_000_000_000_000)),
            ("1.5", Some(1_500_000)),
            ("", None),
            ("x", None),
            ("1.0000001", None),
            ("-1", None),
        ] {
            assert_eq!(parse_ts(text), micros, "{text}");
        }
    }
}
