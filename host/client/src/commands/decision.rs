//! From what a gateway says to an approval that may be used.

use countersign_core::clock::{Clock as _, SystemClock};
use countersign_core::lifecycle::{Status, Usage};
use countersign_core::receipt::signed::{KeySet, ReceiptError};

use super::exit::{Ended, Exit};
use crate::answer::{Created, Waited};
use crate::api::{Client, random_key};
use crate::approval::{Approval, Asked, Doubt};
use crate::credentials::CredentialsError;
use crate::error::CallError;

/// What it means that a request could not be made.
#[must_use]
pub fn not_asked(error: CallError) -> Ended {
    match error {
        CallError::Refused(problem) => Ended::new(Exit::Refused, problem),
        CallError::Credentials(error @ CredentialsError::GitHub(_)) => Ended::doubt(error),
        CallError::Credentials(error) => Ended::usage(error),
        error => Ended::doubt(error),
    }
}

/// What it means that a request has ended, unless it was approved.
///
/// # Errors
/// If it was not.
pub fn approved(decided: &Waited) -> Result<(), Ended> {
    let exit = match decided.status {
        Status::Approved => return Ok(()),
        Status::Expired => return Err(Ended::new(Exit::Expired, "nobody decided in time")),
        Status::Denied => Exit::Denied,
        Status::Cancelled | Status::Pending | Status::AwaitingPersonas | Status::ReadyForApproval => {
            Exit::Cancelled
        }
    };
    Err(Ended::new(exit, decided.reason.as_deref().unwrap_or("no reason was given")))
}

/// What it means of an approval that it was used, or that nobody used it in time.
///
/// # Errors
/// If it was.
pub fn unused(approved: &Waited) -> Result<(), Ended> {
    let why = match (approved.usage, approved.valid_until) {
        (None | Some(Usage::Unused), _) => return Ok(()),
        (Some(Usage::Lapsed), Some(until)) => Doubt::Lapsed(until).to_string(),
        (Some(Usage::Lapsed), None) => "nobody used the approval in time".to_owned(),
        (Some(Usage::Consumed), _) => "the approval was used before".to_owned(),
        (Some(Usage::Succeeded), _) => "the approval was used before, and what was run succeeded".to_owned(),
        (Some(Usage::Failed), _) => "the approval was used before, and what was run failed".to_owned(),
    };
    Err(Ended::new(Exit::Unusable, why))
}

/// Checks the decision. If its receipt is signed with a key that was published since, the keys are fetched again.
///
/// # Errors
/// If the approval cannot be believed.
pub async fn check(
    client: &Client,
    asked: &Asked,
    decided: &Waited,
    keys: Option<KeySet>,
) -> Result<Approval, Ended> {
    let now = SystemClock.now();
    let checked = match asked.check(decided, keys.as_ref(), now) {
        Err(Doubt::Receipt(ReceiptError::UnknownKey(_))) => {
            let keys = client.keys().await.map_err(Ended::doubt)?;
            asked.check(decided, Some(&keys), now)
        }
        checked => checked,
    };
    checked.map_err(not_believed)
}

fn not_believed(doubt: Doubt) -> Ended {
    let exit = if matches!(doubt, Doubt::Lapsed(_)) { Exit::Unusable } else { Exit::Doubt };
    Ended::new(exit, format!("{doubt}; nothing was run"))
}

/// Uses the approval, for the parameters that are about to be used.
///
/// # Errors
/// If it cannot be used, or it is not known whether it was.
pub async fn consume(client: &Client, created: &Created, approval: &Approval) -> Result<(), Ended> {
    let key = random_key().map_err(Ended::doubt)?;
    consume_under(client, created, approval, &key).await
}

/// Uses the approval under this idempotency key, under which it can be tried again if it is not known whether it was used.
///
/// The key is of this process alone: another one, with the same idempotency key for the request, must not get the answer.
///
/// # Errors
/// If it cannot be used, or it is not known whether it was.
pub async fn consume_under(
    client: &Client,
    created: &Created,
    approval: &Approval,
    key: &str,
) -> Result<(), Ended> {
    let consumed =
        client.consume(&created.token, &approval.params, key).await.map_err(|error| match error {
            CallError::Refused(problem) => {
                let unusable = ["already_consumed", "approval_expired", "payload_mismatch"]
                    .contains(&problem.error.as_str());
                Ended::new(if unusable { Exit::Unusable } else { Exit::Doubt }, problem)
            }
            error => Ended::doubt(format!(
                "whether the approval was consumed is not known: {error}; nothing was run"
            )),
        })?;
    let is_ours = consumed.request_id == created.request_id
        && consumed.status == Status::Approved
        && consumed.usage == Usage::Consumed
        && consumed.payload_hash == approval.payload_hash;
    if is_ours { Ok(()) } else { Err(Ended::doubt(Doubt::Contradiction("approval that was consumed"))) }
}

#[cfg(test)]
mod tests {
    use countersign_core::lifecycle::Timestamp;
    use countersign_core::receipt::Time;

    use super::*;

    #[test]
    fn an_approval_that_was_used_or_has_lapsed_cannot_be_used() {
        let hash = countersign_core::lifecycle::Digest::of(b"");
        let waited = |usage: &str, until: &str| {
            let state = format!(
                r#"{{"status":"approved","payloadHash":"{hash}","payloadHashVersion":2,"use":{usage},"validUntil":{until}}}"#
            );
            serde_json::from_str::<Waited>(&state).unwrap()
        };
        for usage in ["null", "\"unused\""] {
            assert_eq!(unused(&waited(usage, "null")), Ok(()), "{usage}");
        }
        for (usage, until, why) in [
            ("consumed", "null", "the approval was used before"),
            ("succeeded", "null", "the approval was used before, and what was run succeeded"),
            ("failed", "null", "the approval was used before, and what was run failed"),
            ("lapsed", "null", "nobody used the approval in time"),
            (
                "lapsed",
                "\"2026-05-28T20:26:40.000Z\"",
                "the approval could be used until 2026-05-28T20:26:40.000Z",
            ),
        ] {
            let waited = waited(&format!("\"{usage}\""), until);
            assert_eq!(unused(&waited), Err(Ended::new(Exit::Unusable, why)), "{usage}");
        }
    }

    /// What came too late is known well, and asked for anew.
    #[test]
    fn an_approval_that_has_lapsed_is_not_in_doubt() {
        let lapsed = not_believed(Doubt::Lapsed(Time(Timestamp::from_millis(1_780_000_000_000))));
        let why = "the approval could be used until 2026-05-28T20:26:40.000Z; nothing was run";
        assert_eq!(lapsed, Ended::new(Exit::Unusable, why));
        assert_eq!(not_believed(Doubt::NoReceipt).exit, Exit::Doubt);
    }
}
