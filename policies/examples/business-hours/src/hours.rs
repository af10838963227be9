//! When it is business hours: the week in local time, and how far local time is from UTC.

use countersign_policy_sdk::{INVALID_CONFIG, Instant, Reason, offset_seconds};

use crate::{Config, Window};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// 1970-01-01 was a Thursday, three days after a Monday.
const EPOCH_WEEKDAY: i64 = 3;
/// No place on earth is further from UTC.
const OFFSETS: std::ops::RangeInclusive<i64> = -12 * HOUR..=14 * HOUR;

/// A configuration that was read. All times are in seconds; those of the week begin on Monday, at midnight local time.
pub(crate) struct Hours {
    spans: Vec<Span>,
    offset: i64,
    /// From when on there is which offset; the oldest first.
    changes: Vec<(i64, i64)>,
}

/// Hours that begin once a week.
struct Span {
    from: i64,
    // INVARIANT: from 1 second to 24 hours.
    length: i64,
}

impl Hours {
    pub(crate) fn read(config: &Config) -> Result<Hours, Vec<Reason>> {
        let mut problems = Vec::new();
        if config.hours.is_empty() {
            problems.push(problem("/hours".to_owned(), "without hours nothing could ever be approved"));
        }
        let mut spans = Vec::new();
        for (index, window) in config.hours.iter().enumerate() {
            read_window(window, &format!("/hours/{index}"), &mut spans, &mut problems);
        }
        let first = config.utc_offset.as_deref().map_or(Some(0), offset);
        if first.is_none() {
            problems.push(problem("/utc_offset".to_owned(), BAD_OFFSET));
        }
        let mut changes: Vec<(i64, i64)> = Vec::new();
        for (index, change) in config.offset_changes.iter().enumerate() {
            let path = format!("/offset_changes/{index}");
            match Instant::from_rfc3339(&change.at).map(seconds) {
                None => problems
                    .push(problem(path.clone() + "/at", "this is no time such as 2027-03-28T01:00:00Z")),
                Some(at) if changes.last().is_some_and(|(before, _)| *before >= at) => {
                    problems.push(problem(path.clone() + "/at", "this is not after the change before it"));
                }
                Some(at) => match offset(&change.utc_offset) {
                    Some(offset) => changes.push((at, offset)),
                    None => problems.push(problem(path + "/utc_offset", BAD_OFFSET)),
                },
            }
        }
        match first {
            Some(offset) if problems.is_empty() => Ok(Hours { spans, offset, changes }),
            _ => Err(problems),
        }
    }

    /// Is it business hours?
    pub(crate) fn open(&self, at: Instant) -> bool {
        self.open_at(seconds(at))
    }

    /// When they next begin or end, before `until`.
    pub(crate) fn next_change(&self, after: Instant, until: Instant) -> Option<Instant> {
        let (after, until) = (seconds(after), seconds(until));
        let open = self.open_at(after);
        let mut from = after;
        // One round for each stretch of time that has one offset, so that each moment has one local time in it.
        while from < until {
            let (offset, next_offset_at) = self.offset_at(from);
            let end = next_offset_at.map_or(until, |at| at.min(until));
            let changes = |at: &i64| *at > from && *at < end && self.open_at(*at) != open;
            let found = self.boundaries(from, offset).filter(changes).min();
            let jump = Some(end).filter(|end| *end < until && self.open_at(*end) != open);
            if let Some(at) = found.or(jump) {
                return Some(instant(at));
            }
            from = end;
        }
        None
    }

    /// A point in time as people in business read it.
    pub(crate) fn written(&self, at: Instant) -> String {
        let at = seconds(at);
        let (offset, _) = self.offset_at(at);
        let local = at + offset;
        let day = usize::try_from((local.div_euclid(DAY) + EPOCH_WEEKDAY).rem_euclid(7)).unwrap_or_default();
        let name = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
            .get(day)
            .copied()
            .unwrap_or_default();
        let clock = local.rem_euclid(DAY);
        let (sign, size) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        format!(
            "{name} {:02}:{:02} (UTC{sign}{:02}:{:02})",
            clock / HOUR,
            clock % HOUR / MINUTE,
            size / HOUR,
            size % HOUR / MINUTE
        )
    }

    fn open_at(&self, at: i64) -> bool {
        let (offset, _) = self.offset_at(at);
        let now = (at + offset + EPOCH_WEEKDAY * DAY).rem_euclid(WEEK);
        self.spans.iter().any(|span| (now - span.from).rem_euclid(WEEK) < span.length)
    }

    /// The offset at this time, and when there is another one.
    fn offset_at(&self, at: i64) -> (i64, Option<i64>) {
        let offset =
            self.changes.iter().rev().find(|(from, _)| *from <= at).map_or(self.offset, |(_, to)| *to);
        (offset, self.changes.iter().map(|(from, _)| *from).find(|from| *from > at))
    }

    /// Every beginning and end in the week that follows `after`, and some before and after it. If none of that week
    /// changes anything, no later one does while the offset stays.
    fn boundaries(&self, after: i64, offset: i64) -> impl Iterator<Item = i64> {
        let monday =
            (after + offset + EPOCH_WEEKDAY * DAY).div_euclid(WEEK) * WEEK - EPOCH_WEEKDAY * DAY - offset;
        let weeks = [monday - WEEK, monday, monday + WEEK];
        self.spans.iter().flat_map(move |span| {
            weeks.into_iter().flat_map(move |week| [week + span.from, week + span.from + span.length])
        })
    }
}

const BAD_OFFSET: &str = "this is no offset such as +01:00; it is from -12:00 to +14:00";

fn read_window(window: &Window, path: &str, spans: &mut Vec<Span>, problems: &mut Vec<Reason>) {
    let mut clock = |text: &str, member: &str| {
        let clock = clock(text);
        if clock.is_none() {
            problems.push(problem(format!("{path}/{member}"), "this is no time of day such as 09:00"));
        }
        clock
    };
    let (from, until) = (clock(&window.from, "from"), clock(&window.until, "until"));
    if from == Some(DAY) {
        problems.push(problem(format!("{path}/from"), "a day begins at 00:00"));
    }
    if window.days.is_empty() {
        problems.push(problem(format!("{path}/days"), "these hours are on no day"));
    }
    for (index, day) in window.days.iter().enumerate() {
        let at = format!("{path}/days/{index}");
        if window.days.iter().take(index).any(|earlier| earlier == day) {
            problems.push(problem(at, "this day is listed twice"));
            continue;
        }
        let Some(weekday) = DAYS.iter().zip(0..).find(|(name, _)| *name == day).map(|(_, number)| number)
        else {
            problems.push(problem(at, "a day is mon, tue, wed, thu, fri, sat or sun"));
            continue;
        };
        if let (Some(from), Some(until)) = (from, until) {
            // What ends before it begins ends on the next day.
            let length = if until > from { until - from } else { until - from + DAY };
            spans.push(Span { from: weekday * DAY + from, length });
        }
    }
}

/// A time of day, in seconds: `09:00`, `09:00:30`, and `24:00` for the end of the day.
fn clock(text: &str) -> Option<i64> {
    if text == "24:00" {
        return Some(DAY);
    }
    // The same rules as for an offset, and seconds if there are some.
    let (minutes, seconds) = match text.len() {
        5 => (text, 0),
        8 => {
            let (minutes, rest) = text.split_at_checked(5)?;
            let seconds =
                rest.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            (minutes, seconds.parse().ok().filter(|seconds| *seconds < 60)?)
        }
        _ => return None,
    };
    Some(offset_seconds(&format!("+{minutes}"))? + seconds)
}

fn offset(text: &str) -> Option<i64> {
    offset_seconds(text).filter(|offset| OFFSETS.contains(offset))
}

fn seconds(at: Instant) -> i64 {
    i64::try_from(at.millis() / 1000).unwrap_or(i64::MAX / 2)
}

fn instant(seconds: i64) -> Instant {
    Instant::from_millis(u64::try_from(seconds).unwrap_or_default().saturating_mul(1000))
}

fn problem(path: String, message: &str) -> Reason {
    Reason::new(INVALID_CONFIG, message).at(path)
}
