//! Durations and timestamps as text for people.

use countersign_core::lifecycle::Timestamp;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration in milliseconds: `35 s`, `12 min`, `3 h 5 min`, `2 d 4 h`. Rounded down.
pub(super) fn span(millis: u64) -> String {
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        small => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match millis {
        0..SECOND => "less than a second".to_owned(),
        SECOND..MINUTE => format!("{} s", millis / SECOND),
        MINUTE..HOUR => format!("{} min", millis / MINUTE),
        HOUR..DAY => two(millis / HOUR, "h", millis % HOUR / MINUTE, "min"),
        _ => two(millis / DAY, "d", millis % DAY / HOUR, "h"),
    }
}

/// The time that is left until `end`; the text changes once a minute.
pub(super) fn left(now: Timestamp, end: Timestamp) -> String {
    match end.since(now) {
        0 => "no time left".to_owned(),
        1..MINUTE => "less than a minute left".to_owned(),
        millis => format!("{} left", span(millis)),
    }
}

/// A timestamp in `mrkdwn`, which Slack shows in the reader's time zone, with UTC as the fallback.
pub(super) fn date(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).ok();
    match millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()) {
        Some(point) => {
            let utc = point.strftime("%Y-%m-%d %H:%M UTC");
            format!("<!date^{}^{{date_short_pretty}} at {{time}}|{utc}>", point.as_second())
        }
        None => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let rows = [
            (0, "less than a second", "no time left"),
            (999, "less than a second", "less than a minute left"),
            (35_900, "35 s", "less than a minute left"),
            (60_000, "1 min", "1 min left"),
            (12 * 60_000 + 59_999, "12 min", "12 min left"),
            (3_600_000, "1 h", "1 h left"),
            (3 * 3_600_000 + 5 * 60_000, "3 h 5 min", "3 h 5 min left"),
            (2 * 86_400_000 + 4 * 3_600_000 + 60_000, "2 d 4 h", "2 d 4 h left"),
            (7 * 86_400_000, "7 d", "7 d left"),
        ];
        for (millis, took, remains) in rows {
            assert_eq!(span(millis), took);
            assert_eq!(left(Timestamp::EPOCH, Timestamp::from_millis(millis)), remains);
        }
        assert_eq!(left(Timestamp::from_millis(5), Timestamp::from_millis(4)), "no time left");
    }

    #[test]
    fn dates_are_local_with_a_fallback() {
        let at = Timestamp::from_millis(1_772_366_400_007);
        assert_eq!(date(at), "<!date^1772366400^{date_short_pretty} at {time}|2026-03-01 12:00 UTC>");
        assert_eq!(date(Timestamp::from_millis(u64::MAX)), format!("{}ms", u64::MAX));
    }
}
