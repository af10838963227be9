//! For how long a call that fails is tried again.

use std::time::Duration;

use countersign_core::backoff::Backoff;
use tokio::time::Instant;

use crate::credentials::CredentialsError;
use crate::error::CallError;

/// The longest time that is waited for anything, ten years: with it points in time can be reckoned without an overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 31_557_600);

const BACKOFF: Backoff = Backoff::new(250, 10_000);

/// The wait before the next attempt after so many failures in a row.
pub(crate) fn pause(failures: u32) -> Duration {
    Duration::from_millis(BACKOFF.around(failures, &mut fastrand::Rng::new()))
}

/// Returns at this time, if there is one.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What is left of the patience with a call that fails.
pub(crate) struct Patience {
    until: Instant,
    failures: u32,
}

impl Patience {
    /// From now on, for so long.
    pub(crate) fn new(patience: Duration) -> Patience {
        Patience { until: Instant::now() + patience, failures: 0 }
    }

    /// Returns when the call may be made again after this error, or the error if it is of no use, or would be too late.
    pub(crate) async fn after(&mut self, error: CallError) -> Result<(), CallError> {
        let retry_after = match &error {
            CallError::Refused(_) | CallError::Credentials(CredentialsError::Unsendable(_)) => {
                return Err(error);
            }
            CallError::Unavailable { retry_after, .. } => *retry_after,
            // Whoever hands out tokens may be away, and a file may be replaced at this instant.
            CallError::Credentials(CredentialsError::GitHub(_) | CredentialsError::File { .. }) => None,
            // A proxy, say, in front of a gateway that is being restarted.
            CallError::Nonsense(_) => None,
        };
        let next = Instant::now() + pause(self.failures).max(retry_after.unwrap_or_default());
        if next > self.until {
            return Err(error);
        }
        self.failures += 1;
        tokio::time::sleep_until(next).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Problem;
    use crate::http::unavailable;

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_for_a_while() {
        let problem = Problem {
            status: 403,
            error: "policy_denied".into(),
            detail: String::new(),
            errors: Vec::new(),
            reasons: Vec::new(),
            differing: Vec::new(),
        };
        let refused = CallError::Refused(Box::new(problem));
        let away = unavailable("away".into());
        let later =
            CallError::Unavailable { detail: "busy".into(), retry_after: Some(Duration::from_secs(20)) };
        for (error, patience, least, most) in [
            (&away, 0, 1, 1),
            (&away, 60, 8, 40),
            (&CallError::Nonsense("html".into()), 60, 8, 40),
            (&later, 60, 3, 4),
            (&refused, 60, 1, 1),
        ] {
            let start = Instant::now();
            let mut patience = Patience::new(Duration::from_secs(patience));
            let mut attempts = 1;
            let last = loop {
                match patience.after(error.clone()).await {
                    Ok(()) => attempts += 1,
                    Err(last) => break last,
                }
            };
            assert_eq!(last, *error);
            assert!((least..=most).contains(&attempts), "{error} {}", attempts);
            assert!(Instant::now() <= patience.until, "{:?}", start.elapsed());
        }
    }
}
