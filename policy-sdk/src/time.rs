//! Points in time as people write them (RFC 3339), for policies whose configuration names some.
//!
//! There is no time zone database here: a policy imports nothing, and would need a new module for every new rule.

use std::fmt;

use crate::Instant;

const SECOND_MS: i64 = 1000;
const DAY_SECONDS: i64 = 86_400;

impl Instant {
    /// Reads RFC 3339, such as `2026-12-24T18:00:00+01:00`: a date, a time to the second or finer, and `Z` or an offset.
    /// Nothing if it is not that, if there is no such day, and before 1970.
    /// ```
    /// use countersign_policy_sdk::Instant;
    ///
    /// let eve = Instant::from_rfc3339("2026-12-24T18:00:00+01:00").expect("a point in time");
    /// assert_eq!(eve.to_string(), "2026-12-24T17:00:00Z");
    /// assert_eq!(Instant::from_rfc3339("2026-02-29T00:00:00Z"), None);
    /// ```
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T')?;
        let day = days_from_date(date)?;
        let (clock, offset_seconds) = match time.strip_suffix('Z') {
            Some(clock) => (clock, 0),
            None => {
                let (clock, offset) = time.split_at_checked(time.len().checked_sub(6)?)?;
                (clock, offset_seconds(offset)?)
            }
        };
        let (clock, millis) = match clock.split_once('.') {
            None => (clock, 0),
            Some((clock, fraction)) => (clock, millis_of(fraction)?),
        };
        let [hour, minute, second] = two_digit_parts(clock, ':')?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = day * DAY_SECONDS + hour * 3600 + minute * 60 + second - offset_seconds;
        u64::try_from(seconds * SECOND_MS + millis).ok().map(Self::from_millis)
    }
}

/// RFC 3339, UTC, to the second.
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.millis() / 1000;
        let (year, month, day) = date_from_days(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// An offset from UTC in seconds, written `+02:00` or `-05:30`; up to 23:59 either way.
/// ```
/// assert_eq!(countersign_policy_sdk::offset_seconds("-05:30"), Some(-19_800));
/// assert_eq!(countersign_policy_sdk::offset_seconds("5:30"), None);
/// ```
#[must_use]
pub fn offset_seconds(text: &str) -> Option<i64> {
    let (sign, clock) = match text.split_at_checked(1)? {
        ("+", clock) => (1, clock),
        ("-", clock) => (-1, clock),
        _ => return None,
    };
    let [hours, minutes] = two_digit_parts(clock, ':')?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Exactly `N` numbers of two digits each.
fn two_digit_parts<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = digits(parts.next()?, 2)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    let is_number = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Milliseconds of the digits behind the decimal point; finer ones are cut off.
fn millis_of(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let whole = digits(fraction, fraction.len())?;
    let length = u32::try_from(fraction.len()).ok()?;
    Some(whole * 1000 / 10_i64.pow(length))
}

/// Days since 1970-01-01 of a date written `YYYY-MM-DD`, if there is such a day.
fn days_from_date(text: &str) -> Option<i64> {
    let (year, month_and_day) = text.split_once('-')?;
    let year = digits(year, 4)?;
    let [month, day] = two_digit_parts(month_and_day, '-')?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at the end; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468)
}

/// Year, month and day of a number of days since 1970-01-01.
fn date_from_days(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (text, millis, written) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2000-02-29T23:59:59Z", 951_868_799_000, "2000-02-29T23:59:59Z"),
            ("2026-12-31T23:30:00-01:00", 1_798_763_400_000, "2027-01-01T00:30:00Z"),
            ("2026-03-01T00:00:00+14:00", 1_772_272_800_000, "2026-02-28T10:00:00Z"),
            ("2023-11-14T22:13:20.123456Z", 1_700_000_000_123, "2023-11-14T22:13:20Z"),
        ] {
            let instant = Instant::from_rfc3339(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((instant.millis(), instant.to_string().as_str()), (millis, written), "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_is_the_day_after_the_day_before() {
        for days in 0..800 * 365 {
            let (year, month, day) = date_from_days(days);
            let date = format!("{year:04}-{month:02}-{day:02}");
            assert_eq!(days_from_date(&date), i64::try_from(days).ok(), "{date}");
        }
    }

    #[test]
    fn anything_else_is_no_point_in_time() {
        for text in [
            "",
            "2026-12-24",
            "2026-12-24T18:00:00",
            "2026-12-24 18:00:00Z",
            "2026-12-24T18:00Z",
            "2026-12-24T24:00:00Z",
            "2026-12-24T18:00:60Z",
            "2026-12-24T18:00:00+1:00",
            "2026-12-24T18:00:00+24:00",
            "2026-12-24T18:00:00.Z",
            "2026-13-01T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "26-12-24T18:00:00Z",
            "+026-12-24T18:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-12-24T18:00:00\u{e9}",
        ] {
            assert_eq!(Instant::from_rfc3339(text), None, "{text}");
        }
    }
}
