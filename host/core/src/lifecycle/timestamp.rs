//! Points and spans of time, as plain numbers: nothing here reads a clock.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// A point that is `millis` after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Timestamp {
        Timestamp(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This point, `millis` later; saturates at the end of time.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis))
    }

    /// This point, `millis` earlier; saturates at the epoch.
    #[must_use]
    pub const fn minus(self, millis: u64) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis))
    }

    /// Milliseconds from `earlier` to here, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// RFC 3339, UTC, with milliseconds: `2026-03-01T12:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(at) => write!(f, "{at:.3}"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

/// A text that is no point in time since the Unix epoch in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time in RFC 3339, such as `2026-03-01T12:00:00.000Z`")]
pub struct BadTimestamp;

/// Reads RFC 3339; what is beyond milliseconds is cut.
impl std::str::FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(text: &str) -> Result<Timestamp, BadTimestamp> {
        let at: jiff::Timestamp = text.parse().map_err(|_| BadTimestamp)?;
        u64::try_from(at.as_millisecond()).map(Timestamp).map_err(|_| BadTimestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_rfc_3339() {
        assert_eq!(Timestamp::from_millis(1_772_366_400_007).to_string(), "2026-03-01T12:00:00.007Z");
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(u64::MAX).to_string(), format!("{}ms", u64::MAX));
    }

    #[test]
    fn is_read_as_it_is_written() {
        for millis in [0, 1, 1_772_366_400_007, 4_102_444_800_123] {
            let at = Timestamp::from_millis(millis);
            assert_eq!(at.to_string().parse(), Ok(at));
        }
        for text in
            ["", "2026-03-01", "2026-03-01T12:00:00", "1969-12-31T23:59:59Z", "5ms", "2026-02-30T00:00:00Z"]
        {
            assert_eq!(text.parse::<Timestamp>(), Err(BadTimestamp), "{text}");
        }
    }

    #[test]
    fn saturates() {
        assert_eq!(Timestamp::EPOCH.minus(1), Timestamp::EPOCH);
        assert_eq!(Timestamp::from_millis(u64::MAX).plus(1).as_millis(), u64::MAX);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::from_millis(5)), 0);
    }
}
