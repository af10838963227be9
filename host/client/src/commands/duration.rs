//! Durations on the command line.

use std::time::Duration;

use countersign_core::duration::parse;

use crate::patience::LONGEST;

/// A duration such as `90s` or `1h 30m`.
///
/// # Errors
/// If it is none, or longer than ten years.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse(text)
        .map_err(|why| format!("expected a duration such as `90s`, no longer than ten years: {why}"))?;
    if duration > LONGEST {
        return Err("it is longer than ten years".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_endless() {
        for (text, expected) in [
            ("90s", Ok(Duration::from_secs(90))),
            ("0s", Ok(Duration::ZERO)),
            ("3652d 12h", Ok(LONGEST)),
            ("3652d 12h 1s", Err("it is longer than ten years".to_owned())),
            ("99999999999d", Err("it is longer than ten years".to_owned())),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
        for (text, why) in [
            ("", "it is empty"),
            ("30", "`30` has no unit: write `30s`"),
            ("10M", "`M` is no unit"),
            ("soon", "expected number"),
            ("-1s", "expected number"),
            ("99999999999999999999s", "it is too long"),
        ] {
            let error = duration(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
