//! What a failed call leads to: how the stored post changes, when the message is tried again, what is audited and
//! logged. Pure, like the choice of the next step; the sender applies it.

use countersign_core::backoff::{Backoff, around};
use countersign_core::lifecycle::{AuditEvent, Timestamp};
use countersign_core::record::{SlackPost, Slot};
use countersign_store::LONGEST_WAIT_MS;
use tracing::Level;

use super::failure::Failure;
use super::job::REFRESH_MS;

/// The wait after a failure that may be temporary.
const TEMPORARY_BACKOFF: Backoff = Backoff::new(1_000, 60_000);

/// The wait after a failure that somebody has to correct: the longest that delivery ever waits.
pub(super) const LASTING_BACKOFF: Backoff = Backoff::new(60_000, 900_000);

// A quarter longer with its jitter. What waits longer than the store thinks possible would not wait at all.
const _: () = assert!(LASTING_BACKOFF.longest_ms() / 4 * 5 <= LONGEST_WAIT_MS);

/// How often a call that fails with an unknown code is repeated before the failure counts as lasting.
const UNKNOWN_TRIES: u32 = 4;

/// A call that failed, and what the consequences depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedCall<'a> {
    /// The class of the failure.
    pub(super) failure: Failure,
    /// Slack's code; empty unless Slack refused the call.
    pub(super) code: &'a str,
    /// Which message of the request it was for.
    pub(super) slot: Slot,
    /// Whether the message exists in Slack, so that the call was an update.
    pub(super) is_posted: bool,
    /// Whether the request's status is terminal.
    pub(super) is_terminal: bool,
    /// The failed attempts of the claimed outbox entry before this one; `None` for a refresh, which has no entry.
    pub(super) attempts: Option<u32>,
    /// Whether the request's current version was sent in its minimal form.
    pub(super) is_minimal: bool,
    /// The code with which the message already counts as failed.
    pub(super) failed_for: Option<&'a str>,
    /// When the call failed, by the time of delivery, as all times here.
    pub(super) now: Timestamp,
}

/// What a failed call leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AfterFailure {
    /// How the stored post changes.
    pub(super) post: PostChange,
    /// What happens to the claimed outbox entry.
    pub(super) release: Release,
    /// What is written to the audit log, and counted, together with the post.
    pub(super) audit: Option<AuditEvent>,
    /// What is logged.
    pub(super) log: Option<LogLine>,
    /// Whether the health report names the channel as failing.
    pub(super) channel_failed: bool,
    /// Until when this notice is skipped, so that it does not hold up the other notice of its entry.
    pub(super) skip_until: Option<Timestamp>,
}

/// How the stored post changes. `refresh_at` replaces the time of the next refresh: it is `None` if there is an outbox
/// entry, which brings the message back by itself, and if the message is not refreshed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostChange {
    /// Nothing changes.
    None,
    /// Only the time of the next refresh changes.
    Reschedule { refresh_at: Option<Timestamp> },
    /// What the message shows is unknown: the update may have been carried out, or may be later.
    Unsure { refresh_at: Option<Timestamp> },
    /// The current version is sent in its minimal form from now on.
    Minimal { refresh_at: Option<Timestamp> },
    /// The message counts as failed.
    Failed { refresh_at: Option<Timestamp> },
    /// The message counts as failed, and is left as it is.
    GivenUp,
    /// The message does not exist any more, and is posted again.
    Repost { refresh_at: Option<Timestamp> },
}

/// What happens to a claimed outbox entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// It is done, unless the request has changed since it was loaded.
    Finish,
    /// It is due again then.
    DueAt(Timestamp),
    /// It is due again then, and has one more failed attempt.
    RetryAt(Timestamp),
}

/// A line of the log. The sender adds the request, the slot, the channel and the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogLine {
    pub(super) level: Level,
    pub(super) message: &'static str,
}

/// What the failed call leads to; `rng` spreads the retries.
pub(super) fn after_failure(call: &FailedCall<'_>, rng: &mut fastrand::Rng) -> AfterFailure {
    let FailedCall { code, slot, is_posted, is_terminal, now, .. } = *call;
    let attempts = call.attempts.unwrap_or_default();
    let is_refresh = call.attempts.is_none();
    let refresh_at = |at: Timestamp| is_refresh.then_some(at);
    let nothing = AfterFailure {
        post: PostChange::None,
        release: Release::DueAt(now),
        audit: None,
        log: None,
        channel_failed: false,
        skip_until: None,
    };
    match call.failure {
        // The worker keeps to the rate limit.
        Failure::RateLimited(_) => nothing,
        // The worker reports it once for all messages, and the circuit breaker waits.
        Failure::Unauthorized => nothing,
        Failure::Unanswered => {
            let refresh_at = refresh_at(now.plus(around(REFRESH_MS, rng)));
            AfterFailure {
                post: if is_posted {
                    PostChange::Unsure { refresh_at }
                } else {
                    PostChange::Reschedule { refresh_at }
                },
                release: Release::RetryAt(temporary(attempts, now, rng)),
                log: warn("Slack did not answer; retrying the message"),
                ..nothing
            }
        }
        Failure::Content if !call.is_minimal => AfterFailure {
            post: PostChange::Minimal { refresh_at: refresh_at(now) },
            audit: Some(AuditEvent::SlackMessageShortened),
            log: warn("Slack refuses a message's content; sending its minimal form"),
            ..nothing
        },
        // The other notices of the same entry may still have to be closed, so the entry is not done.
        Failure::Gone if is_posted && is_terminal && slot != Slot::Main => AfterFailure {
            post: PostChange::GivenUp,
            audit: Some(AuditEvent::SlackDeliveryFailed),
            log: warn("the notice of an ended request cannot be updated"),
            ..nothing
        },
        Failure::Gone if is_posted && is_terminal => AfterFailure {
            post: PostChange::Failed { refresh_at: None },
            release: Release::Finish,
            audit: Some(AuditEvent::SlackDeliveryFailed),
            log: warn("the message of an ended request cannot be updated"),
            ..nothing
        },
        // The request has not changed. If no message can be updated, reposting would add a message each minute.
        Failure::Gone if is_posted && is_refresh && code != "message_not_found" => AfterFailure {
            post: PostChange::Reschedule { refresh_at: None },
            log: info("the remaining time cannot be updated"),
            ..nothing
        },
        Failure::Gone if is_posted => AfterFailure {
            post: PostChange::Repost { refresh_at: refresh_at(now) },
            log: info("the message of an open request is gone; posting it again"),
            ..nothing
        },
        Failure::Unknown if attempts < UNKNOWN_TRIES => AfterFailure {
            post: PostChange::Reschedule { refresh_at: refresh_at(now.plus(around(REFRESH_MS, rng))) },
            release: Release::RetryAt(temporary(attempts, now, rng)),
            log: warn("Slack refuses a message; retrying"),
            ..nothing
        },
        Failure::Channel | Failure::Content | Failure::Gone | Failure::Unknown => {
            let retry_at = match call.attempts {
                Some(attempts) => now.plus(LASTING_BACKOFF.around(attempts, rng)),
                None => now.plus(LASTING_BACKOFF.longest_ms()),
            };
            let is_new = call.failed_for != Some(code);
            let refresh_at = refresh_at(retry_at);
            AfterFailure {
                post: if is_new {
                    PostChange::Failed { refresh_at }
                } else {
                    PostChange::Reschedule { refresh_at }
                },
                // The other notice of the same entry can be sent at once.
                release: Release::RetryAt(if slot == Slot::Main { retry_at } else { now }),
                audit: is_new.then_some(AuditEvent::SlackDeliveryFailed),
                log: if is_new {
                    error("Slack refuses a message until somebody corrects the cause")
                } else {
                    None
                },
                channel_failed: true,
                skip_until: (slot != Slot::Main).then_some(retry_at),
            }
        }
    }
}

/// When a failure that may be temporary is retried.
pub(super) fn temporary(attempts: u32, now: Timestamp, rng: &mut fastrand::Rng) -> Timestamp {
    now.plus(TEMPORARY_BACKOFF.full_jitter(attempts, rng))
}

impl PostChange {
    /// Changes the post of the message in `channel`, of which `version` was sent and refused with `code`.
    pub(super) fn apply(self, post: &mut SlackPost, channel: &str, version: u64, code: &str) {
        match self {
            PostChange::None => return,
            PostChange::Reschedule { .. } => {}
            PostChange::Unsure { .. } => (post.unsure, post.looks) = (true, None),
            PostChange::Minimal { .. } => post.minimal = Some(version),
            PostChange::Failed { .. } => post.failed = Some(code.to_owned()),
            PostChange::GivenUp => (post.failed, post.shown) = (Some(code.to_owned()), version),
            PostChange::Repost { .. } => {
                // The one that is gone, and copies of it, were refused all the same.
                let SlackPost { revision, has_called, minimal, .. } = *post;
                *post = SlackPost { revision, has_called, minimal, ..SlackPost::new(channel) };
            }
        }
        post.refresh_at = self.refresh_at();
    }

    fn refresh_at(self) -> Option<Timestamp> {
        match self {
            PostChange::None | PostChange::GivenUp => None,
            PostChange::Reschedule { refresh_at }
            | PostChange::Unsure { refresh_at }
            | PostChange::Minimal { refresh_at }
            | PostChange::Failed { refresh_at }
            | PostChange::Repost { refresh_at } => refresh_at,
        }
    }
}

const fn info(message: &'static str) -> Option<LogLine> {
    Some(LogLine { level: Level::INFO, message })
}

const fn warn(message: &'static str) -> Option<LogLine> {
    Some(LogLine { level: Level::WARN, message })
}

const fn error(message: &'static str) -> Option<LogLine> {
    Some(LogLine { level: Level::ERROR, message })
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use countersign_core::lifecycle::Digest;
    use countersign_core::record::PostState;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_780_000_000_000);
    const AT_ONCE: RangeInclusive<u64> = 0..=0;
    const ABOUT_A_MINUTE: RangeInclusive<u64> = 45_000..=75_000;
    const A_QUARTER_OF_AN_HOUR: RangeInclusive<u64> = 900_000..=900_000;

    /// An entry's first attempt at updating the message of an open request.
    const UPDATE: FailedCall<'_> = FailedCall {
        failure: Failure::Unknown,
        code: "code",
        slot: Slot::Main,
        is_posted: true,
        is_terminal: false,
        attempts: Some(0),
        is_minimal: false,
        failed_for: None,
        now: NOW,
    };

    /// The same for the first post.
    const POST: FailedCall<'_> = FailedCall { is_posted: false, ..UPDATE };

    /// The same for a refresh.
    const REFRESH: FailedCall<'_> = FailedCall { attempts: None, ..UPDATE };

    /// The first post of a notice.
    const NOTICE: FailedCall<'_> = FailedCall { slot: Slot::EscalationThread, ..POST };

    /// What is expected; times are milliseconds from `NOW`, with the range of their jitter.
    #[derive(Clone, Debug)]
    struct Expected {
        post: &'static str,
        refresh: Option<RangeInclusive<u64>>,
        release: &'static str,
        due: RangeInclusive<u64>,
        audit: Option<AuditEvent>,
        log: Option<Level>,
        channel_failed: bool,
        skip: Option<RangeInclusive<u64>>,
    }

    const NOTHING: Expected = Expected {
        post: "none",
        refresh: None,
        release: "due",
        due: AT_ONCE,
        audit: None,
        log: None,
        channel_failed: false,
        skip: None,
    };

    /// A refusal that is not temporary.
    const LASTING: Expected = Expected {
        post: "failed",
        release: "retry",
        due: ABOUT_A_MINUTE,
        audit: Some(AuditEvent::SlackDeliveryFailed),
        log: Some(Level::ERROR),
        channel_failed: true,
        ..NOTHING
    };

    #[track_caller]
    fn check(name: &str, call: FailedCall<'_>, expected: &Expected) {
        for seed in 0..200 {
            let after = after_failure(&call, &mut fastrand::Rng::with_seed(seed));
            let post = match after.post {
                PostChange::None => "none",
                PostChange::Reschedule { .. } => "reschedule",
                PostChange::Unsure { .. } => "unsure",
                PostChange::Minimal { .. } => "minimal",
                PostChange::Failed { .. } => "failed",
                PostChange::GivenUp => "given up",
                PostChange::Repost { .. } => "repost",
            };
            let (release, due) = match after.release {
                Release::Finish => ("finish", NOW),
                Release::DueAt(at) => ("due", at),
                Release::RetryAt(at) => ("retry", at),
            };
            let context = format!("{name}, seed {seed}: {after:?}");
            let is_in = |at: Timestamp, range: &RangeInclusive<u64>| range.contains(&at.since(NOW));
            assert_eq!((post, release), (expected.post, expected.release), "{context}");
            assert!(is_in(due, &expected.due), "{context}");
            assert_eq!(after.audit, expected.audit, "{context}");
            assert_eq!(after.log.map(|line| line.level), expected.log, "{context}");
            assert_eq!(after.channel_failed, expected.channel_failed, "{context}");
            for (at, range) in
                [(after.post.refresh_at(), &expected.refresh), (after.skip_until, &expected.skip)]
            {
                match (at, range) {
                    (None, None) => {}
                    (Some(at), Some(range)) => assert!(is_in(at, range), "{context}"),
                    _ => panic!("{context}"),
                }
            }
        }
    }

    #[test]
    fn each_failure_has_its_consequences() {
        use Failure::{Channel, Content, Gone, RateLimited, Unanswered, Unauthorized, Unknown};
        let warned = Expected { log: Some(Level::WARN), ..NOTHING };
        let informed = Expected { log: Some(Level::INFO), ..NOTHING };
        let retried = Expected { release: "retry", due: 0..=1_000, ..warned.clone() };
        let retried_refresh = Expected { refresh: Some(ABOUT_A_MINUTE), ..retried.clone() };
        let unsure = Expected { post: "unsure", ..retried.clone() };
        let rescheduled = Expected { post: "reschedule", ..retried.clone() };
        let shortened =
            Expected { post: "minimal", audit: Some(AuditEvent::SlackMessageShortened), ..warned.clone() };
        let known = Expected { post: "reschedule", audit: None, log: None, ..LASTING };
        let rows = [
            ("rate limited", FailedCall { failure: RateLimited(1), ..UPDATE }, NOTHING),
            ("rate limited refresh", FailedCall { failure: RateLimited(1), ..REFRESH }, NOTHING),
            ("token refused", FailedCall { failure: Unauthorized, ..POST }, NOTHING),
            ("token refused again", FailedCall { failure: Unauthorized, attempts: Some(9), ..POST }, NOTHING),
            ("unanswered post", FailedCall { failure: Unanswered, ..POST }, rescheduled.clone()),
            ("unanswered update", FailedCall { failure: Unanswered, ..UPDATE }, unsure.clone()),
            (
                "unanswered refresh",
                FailedCall { failure: Unanswered, ..REFRESH },
                Expected { post: "unsure", ..retried_refresh.clone() },
            ),
            (
                "unanswered for the fourth time",
                FailedCall { failure: Unanswered, attempts: Some(3), ..UPDATE },
                Expected { due: 0..=8_000, ..unsure.clone() },
            ),
            (
                "unanswered for long",
                FailedCall { failure: Unanswered, attempts: Some(u32::MAX), ..UPDATE },
                Expected { due: 0..=60_000, ..unsure },
            ),
            ("content of a post", FailedCall { failure: Content, ..POST }, shortened.clone()),
            ("content of an update", FailedCall { failure: Content, ..UPDATE }, shortened.clone()),
            ("content of a notice", FailedCall { failure: Content, ..NOTICE }, shortened.clone()),
            (
                "content of a refresh",
                FailedCall { failure: Content, ..REFRESH },
                Expected { refresh: Some(AT_ONCE), ..shortened },
            ),
            ("minimal content", FailedCall { failure: Content, is_minimal: true, ..POST }, LASTING),
            (
                "gone, and ended",
                FailedCall { failure: Gone, is_terminal: true, ..UPDATE },
                Expected {
                    post: "failed",
                    release: "finish",
                    audit: Some(AuditEvent::SlackDeliveryFailed),
                    ..warned.clone()
                },
            ),
            (
                "gone, and the notice of an ended one",
                FailedCall { failure: Gone, slot: Slot::Replaced(3), is_terminal: true, ..UPDATE },
                Expected { post: "given up", audit: Some(AuditEvent::SlackDeliveryFailed), ..warned },
            ),
            (
                "gone, and open",
                FailedCall { failure: Gone, ..UPDATE },
                Expected { post: "repost", ..informed.clone() },
            ),
            (
                "deleted, seen by a refresh",
                FailedCall { failure: Gone, code: "message_not_found", ..REFRESH },
                Expected { post: "repost", refresh: Some(AT_ONCE), ..informed.clone() },
            ),
            (
                "not to be updated, seen by a refresh",
                FailedCall { failure: Gone, code: "edit_window_closed", ..REFRESH },
                Expected { post: "reschedule", ..informed },
            ),
            ("gone before it was posted", FailedCall { failure: Gone, ..POST }, LASTING),
            ("unknown", FailedCall { failure: Unknown, ..POST }, rescheduled.clone()),
            (
                "unknown for the fourth time",
                FailedCall { failure: Unknown, attempts: Some(3), ..POST },
                Expected { due: 0..=8_000, ..rescheduled },
            ),
            (
                "unknown for the fifth time",
                FailedCall { failure: Unknown, attempts: Some(4), ..POST },
                Expected { due: 675_000..=1_125_000, ..LASTING },
            ),
            (
                "unknown, of a refresh",
                FailedCall { failure: Unknown, ..REFRESH },
                Expected { post: "reschedule", ..retried_refresh },
            ),
            ("channel", FailedCall { failure: Channel, ..POST }, LASTING),
            ("channel, of an update", FailedCall { failure: Channel, ..UPDATE }, LASTING),
            (
                "channel for the third time",
                FailedCall { failure: Channel, attempts: Some(2), failed_for: Some("code"), ..POST },
                Expected { due: 180_000..=300_000, ..known.clone() },
            ),
            (
                "channel, with another code",
                FailedCall { failure: Channel, failed_for: Some("other"), ..POST },
                LASTING,
            ),
            (
                "channel, of a refresh",
                FailedCall { failure: Channel, ..REFRESH },
                Expected { refresh: Some(A_QUARTER_OF_AN_HOUR), due: A_QUARTER_OF_AN_HOUR, ..LASTING },
            ),
            (
                "channel, of a refresh, known",
                FailedCall { failure: Channel, failed_for: Some("code"), ..REFRESH },
                Expected { refresh: Some(A_QUARTER_OF_AN_HOUR), due: A_QUARTER_OF_AN_HOUR, ..known },
            ),
            (
                "channel of a notice",
                FailedCall { failure: Channel, ..NOTICE },
                Expected { due: AT_ONCE, skip: Some(ABOUT_A_MINUTE), ..LASTING },
            ),
        ];
        for (name, call, expected) in rows {
            check(name, call, &expected);
        }
    }

    #[test]
    fn changes_are_applied_to_the_stored_post() {
        let refresh_at = Some(NOW);
        let posted = SlackPost {
            revision: 7,
            state: PostState::Posted { ts: "1.2".to_owned() },
            has_called: true,
            shown: 2,
            looks: Some(Digest::of(b"shown")),
            ..SlackPost::new("C0ID")
        };
        let check = |change: PostChange, expected: SlackPost| {
            let mut post = posted.clone();
            change.apply(&mut post, "#name", 3, "code");
            assert_eq!(post, expected, "{change:?}");
        };
        check(PostChange::None, posted.clone());
        check(PostChange::Reschedule { refresh_at }, SlackPost { refresh_at, ..posted.clone() });
        let unsure = SlackPost { unsure: true, looks: None, refresh_at, ..posted.clone() };
        check(PostChange::Unsure { refresh_at }, unsure);
        check(PostChange::Minimal { refresh_at: None }, SlackPost { minimal: Some(3), ..posted.clone() });
        let failed = SlackPost { failed: Some("code".to_owned()), ..posted.clone() };
        check(PostChange::Failed { refresh_at: None }, failed);
        check(
            PostChange::Repost { refresh_at },
            SlackPost { revision: 7, has_called: true, refresh_at, ..SlackPost::new("#name") },
        );
    }

    #[test]
    fn a_message_that_is_posted_anew_was_refused_all_the_same() {
        let state = PostState::Posted { ts: "1.2".to_owned() };
        let mut post = SlackPost { state, minimal: Some(2), ..SlackPost::new("C0ID") };
        PostChange::Repost { refresh_at: None }.apply(&mut post, "#name", 3, "message_not_found");
        assert_eq!((post.was_refused(), post.state), (true, PostState::Absent));
    }
}
