//! What came of a command, as its exit code says it.

use std::process::ExitCode;

/// What the exit codes mean.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  approved; and the command succeeded, if there is one; with `--detach` only that it was asked
  1  approved, and the command failed or could not be started
  2  an argument, a variable or a file is wrong; nothing was asked
  3  denied
  4  expired: nobody decided in time
  5  cancelled, as by SIGINT or SIGTERM
  6  refused: the gateway did not take the request; it says why
  7  in doubt: no gateway answers, or what it says cannot be believed
  8  approved, and not to be used: consumed before, too late, or for other parameters
With 2 to 8 the command was not run.

Environment:
  COUNTERSIGN_API_KEY        the API key to ask with
  COUNTERSIGN_ID_TOKEN       a token of an identity provider, such as one of GitLab's `id_tokens`
  COUNTERSIGN_ID_TOKEN_FILE  a file with such a token, as Kubernetes mounts it
In GitHub Actions a token is fetched if the job has `permissions: { id-token: write }`.";

/// What came of a command. [`EXIT_CODES`] is the list for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Approved, and run if there was something to run.
    Approved = 0,
    /// Approved, and what was run failed.
    CommandFailed = 1,
    /// Nothing was asked.
    Usage = 2,
    /// Denied.
    Denied = 3,
    /// Nobody decided in time.
    Expired = 4,
    /// Taken back.
    Cancelled = 5,
    /// The gateway did not take the request.
    Refused = 6,
    /// It is not known, or not believed.
    Doubt = 7,
    /// Approved, and not to be used.
    Unusable = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ends before it has run anything.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// One line for people.
    pub why: String,
}

impl Ended {
    /// Ended so, for this reason.
    pub fn new(exit: Exit, why: impl std::fmt::Display) -> Ended {
        Ended { exit, why: crate::text::plain(&why.to_string()) }
    }

    /// What was given is wrong.
    pub fn usage(why: impl std::fmt::Display) -> Ended {
        Ended::new(Exit::Usage, why)
    }

    /// It is not known, or not believed.
    pub fn doubt(why: impl std::fmt::Display) -> Ended {
        Ended::new(Exit::Doubt, why)
    }
}
