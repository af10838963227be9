//! What an error of Redis, or of the way to it, says of the store.

use std::fmt::Display;
use std::time::Duration;

use redis::RedisError;

use super::BACKEND;
use crate::{StoreError, StoreFault};

pub(super) fn unavailable(fault: StoreFault, detail: impl Display) -> StoreError {
    StoreError::Unavailable { backend: BACKEND, fault, detail: detail.to_string() }
}

/// Why an attempt to carry out a call has failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// So many have failed that none is tried for a while.
    Suspended,
    /// There is no connection, and none could be made.
    Unreachable(String),
    /// The connection broke. What was sent may have been carried out.
    Lost(String),
    /// There was no answer in time. What was sent may have been carried out, or may be later.
    Silent(Duration),
    /// Redis refused it, and carried nothing out.
    Refused(RedisError),
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// A new connection, perhaps to another server.
    Reconnect,
    /// Time.
    Wait,
    /// Nothing.
    None,
}

impl Failure {
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Failure::Suspended => Remedy::Wait,
            Failure::Unreachable(_) | Failure::Lost(_) | Failure::Silent(_) => Remedy::Reconnect,
            Failure::Refused(error) => match code(error) {
                // It was demoted, or knows of a newer place.
                "READONLY" | "MOVED" | "ASK" | "MASTERDOWN" => Remedy::Reconnect,
                "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" => Remedy::Wait,
                _ => Remedy::None,
            },
        }
    }

    /// Whether Redis did not answer.
    pub(super) fn is_of_the_link(&self) -> bool {
        matches!(self, Failure::Unreachable(_) | Failure::Lost(_) | Failure::Silent(_))
    }

    /// Whether what was sent may have been carried out all the same.
    pub(super) fn leaves_doubt(&self) -> bool {
        matches!(self, Failure::Lost(_) | Failure::Silent(_))
    }

    /// The error of a call that failed like this, for good. `may_be_stored`: an earlier attempt may have been carried out.
    pub(super) fn into_error(self, may_be_stored: bool) -> StoreError {
        let fault = match &self {
            _ if may_be_stored => StoreFault::Slow,
            Failure::Suspended | Failure::Unreachable(_) => StoreFault::Other,
            Failure::Lost(_) | Failure::Silent(_) => StoreFault::Slow,
            Failure::Refused(error) => match code(error) {
                "OOM" => StoreFault::Full,
                "READONLY" | "NOREPLICAS" => StoreFault::ReadOnly,
                "MISCONF" => StoreFault::Io,
                "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" => StoreFault::Busy,
                _ => StoreFault::Other,
            },
        };
        let detail = match self {
            Failure::Suspended => "it did not answer lately, and is asked again in a moment".to_owned(),
            Failure::Unreachable(detail) | Failure::Lost(detail) => detail,
            Failure::Silent(patience) => format!("no answer within {patience:?}"),
            Failure::Refused(error) => error.to_string(),
        };
        let doubt = if may_be_stored { "; a write may still be stored" } else { "" };
        unavailable(fault, format_args!("{detail}{doubt}"))
    }
}

/// The code of an error that Redis answered with.
pub(super) fn code(error: &RedisError) -> &str {
    error.code().unwrap_or_default()
}
