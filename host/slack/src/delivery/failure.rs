//! What a failed call means for what is to be done next.

use std::time::Duration;

use crate::CallError;

/// The kinds of failure that are answered differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Slack takes no more of these calls for so many milliseconds. Nothing was done.
    Limited(u64),
    /// It may have been done.
    Unanswered,
    /// The token does not let us; nothing will succeed before somebody mends that.
    Unauthorized,
    /// The channel does not let us; nothing in it will succeed before somebody mends that.
    Channel,
    /// Slack does not take this content.
    Content,
    /// The message is not there, or cannot be changed any more.
    Gone,
    /// A code that is not known here: it may pass.
    Unknown,
}

/// The shortest time to keep away for: Slack counts in whole seconds.
const LEAST_MS: u64 = 1_000;

/// The longest.
const MOST_MS: u64 = 15 * 60 * 1000;

impl Failure {
    pub(super) fn of(error: &CallError) -> Failure {
        match error {
            CallError::RateLimited { retry_after } => Failure::Limited(wait(*retry_after)),
            CallError::Unanswered { .. } => Failure::Unanswered,
            CallError::Rejected { code } => Failure::of_code(code),
        }
    }

    fn of_code(code: &str) -> Failure {
        match code {
            "invalid_auth"
            | "not_authed"
            | "token_revoked"
            | "token_expired"
            | "account_inactive"
            | "missing_scope"
            | "not_allowed_token_type"
            | "no_permission"
            | "org_login_required"
            | "ekm_access_denied"
            | "enterprise_is_restricted"
            | "team_access_not_granted" => Failure::Unauthorized,
            "channel_not_found"
            | "not_in_channel"
            | "is_archived"
            | "is_inactive"
            | "access_denied"
            | "channel_type_not_supported"
            | "messages_tab_disabled"
            | "message_limit_exceeded"
            | "team_not_found"
            | "user_is_restricted"
            | "cannot_reply_to_message"
            | "thread_not_found" => Failure::Channel,
            _ if code.starts_with("restricted_action") || code.starts_with("slack_connect_") => {
                Failure::Channel
            }
            "msg_too_long"
            | "msg_blocks_too_long"
            | "invalid_blocks"
            | "invalid_blocks_format"
            | "no_text" => Failure::Content,
            "message_not_found" | "cant_update_message" | "edit_window_closed" => Failure::Gone,
            _ => Failure::Unknown,
        }
    }
}

fn wait(retry_after: Duration) -> u64 {
    u64::try_from(retry_after.as_millis()).unwrap_or(MOST_MS).clamp(LEAST_MS, MOST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        let rows: &[(Failure, &[&str])] = &[
            (
                Failure::Unauthorized,
                &["invalid_auth", "not_authed", "token_revoked", "account_inactive", "missing_scope"],
            ),
            (
                Failure::Channel,
                &[
                    "channel_not_found",
                    "not_in_channel",
                    "is_archived",
                    "restricted_action",
                    "restricted_action_read_only_channel",
                    "restricted_action_thread_locked",
                ],
            ),
            (Failure::Content, &["msg_too_long", "msg_blocks_too_long", "invalid_blocks"]),
            (Failure::Gone, &["message_not_found", "cant_update_message", "edit_window_closed"]),
            (Failure::Unknown, &["", "invalid_arguments", "unknown_method", "a_code_of_next_year"]),
        ];
        for (expected, codes) in rows {
            for code in *codes {
                let error = CallError::Rejected { code: (*code).to_owned() };
                assert_eq!(Failure::of(&error), *expected, "{code}");
            }
        }
        assert_eq!(Failure::of(&CallError::Unanswered { detail: "HTTP 502".into() }), Failure::Unanswered);
    }

    #[test]
    fn a_wait_is_neither_nothing_nor_for_ever() {
        for (said, kept) in [(0, LEAST_MS), (7, 7_000), (86_400, MOST_MS), (u64::MAX, MOST_MS)] {
            let error = CallError::RateLimited { retry_after: Duration::from_secs(said) };
            assert_eq!(Failure::of(&error), Failure::Limited(kept), "{said}");
        }
    }
}
