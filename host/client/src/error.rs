//! Why a call fails, by what that means for whoever asks.

use std::fmt;
use std::time::Duration;

use countersign_core::lifecycle::Reason;
use serde::Deserialize;

use crate::address::AddressError;

/// Why a call gave no answer that can be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The gateway understood, and says no. The same call gets the same answer.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The gateway cannot do it now, or was not reached. It may have done it all the same.
    #[error("{detail}")]
    Unavailable {
        /// What happened.
        detail: String,
        /// When the gateway says to try again.
        retry_after: Option<Duration>,
    },
    /// Whatever answered, it was not what a gateway answers.
    #[error("this is not the answer of a gateway: {0}")]
    Nonsense(String),
    /// There are no credentials to ask with.
    #[error(transparent)]
    Credentials(#[from] crate::credentials::CredentialsError),
}

/// An answer with an error, in the format of RFC 9457.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// The stable code.
    pub error: String,
    /// What went wrong, for people to read.
    #[serde(default)]
    pub detail: String,
    /// What is wrong with what was sent.
    #[serde(default)]
    pub errors: Vec<Invalid>,
    /// The policies' reasons.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// The keys of parameters that differ from what was approved.
    #[serde(default)]
    pub differing: Vec<String>,
}

impl Problem {
    /// What a gateway says of a path that it does not serve at this address. Its code is that of whatever else is not there.
    pub const NO_SUCH_PATH: &str = "there is no such path";

    /// Whether the gateway serves no such path at this address.
    #[must_use]
    pub fn is_no_such_path(&self) -> bool {
        self.error == "not_found" && self.detail == Problem::NO_SUCH_PATH
    }
}

/// One error in what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Invalid {
    /// Where.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// On one line, without what a program would match on twice.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.detail)?;
        for Invalid { path, message } in &self.errors {
            write!(f, "; {path} {message}")?;
        }
        for reason in &self.reasons {
            write!(f, "; {}", reason.message)?;
        }
        if !self.differing.is_empty() {
            write!(f, "; these differ: {}", self.differing.join(", "))?;
        }
        Ok(())
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The URL.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A file that a setting names.
    #[error("cannot read `{path}`: {detail}")]
    File {
        /// The file.
        path: String,
        /// Why.
        detail: String,
    },
    /// The certificates of the system.
    #[error("cannot read the system's certificates: {0}")]
    Roots(String),
    /// TLS.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}
