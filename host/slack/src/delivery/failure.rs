//! Classifies the errors of calls by what has to happen next.

use std::time::Duration;

use crate::CallError;

/// The classes of failure that are handled differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Slack's rate limit: no calls of this method for so many milliseconds. Nothing was done.
    RateLimited(u64),
    /// No answer. The call may have been carried out.
    Unanswered,
    /// Slack refuses the token or its scopes. Every call fails until an operator corrects that.
    Unauthorized,
    /// Slack refuses the channel. Everything in it fails until somebody corrects that.
    Channel,
    /// Slack refuses the content.
    Content,
    /// The message does not exist, or can no longer be updated.
    Gone,
    /// An unknown code: it may be temporary.
    Unknown,
}

/// The shortest wait after a rate limit, in milliseconds: Slack counts in whole seconds.
const LEAST_MS: u64 = 1_000;

/// The longest wait after a rate limit, in milliseconds.
const MOST_MS: u64 = 15 * 60 * 1000;

impl Failure {
    pub(super) fn of(error: &CallError) -> Failure {
        match error {
            CallError::RateLimited { retry_after } => Failure::RateLimited(wait_ms(*retry_after)),
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

fn wait_ms(retry_after: Duration) -> u64 {
    u64::try_from(retry_after.as_millis()).unwrap_or(MOST_MS).clamp(LEAST_MS, MOST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classified() {
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
    fn a_wait_has_a_minimum_and_a_maximum() {
        for (seconds, expected) in [(0, LEAST_MS), (7, 7_000), (86_400, MOST_MS), (u64::MAX, MOST_MS)] {
            let error = CallError::RateLimited { retry_after: Duration::from_secs(seconds) };
            assert_eq!(Failure::of(&error), Failure::RateLimited(expected), "{seconds}");
        }
    }
}
