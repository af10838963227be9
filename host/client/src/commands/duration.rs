//! Durations on the command line.

use std::time::Duration;

use crate::patience::LONGEST;

/// A duration such as `90s` or `1h 30m`.
///
/// # Errors
/// If it is none, or longer than ten years.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
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
            ("10years", Ok(LONGEST)),
            ("10years 1s", Err("it is longer than ten years".to_owned())),
            ("300000000000years", Err("it is longer than ten years".to_owned())),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
        for text in ["", "soon", "-1s", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
