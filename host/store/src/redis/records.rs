//! The audit entries, counts, effects and nonce that are stored with a change.

use countersign_core::lifecycle::{AuditEntry, Count, Digest, RequestId, Timestamp};

use super::call::Call;
use super::reply::{json, millis};
use crate::ports::encoded;
use crate::{Nonce, StoreError};

/// What is stored with a change, as text.
pub(super) struct Records {
    audit: Vec<Entry>,
    counts: Vec<(String, u64)>,
}

/// An audit entry, and what it is found by.
struct Entry {
    body: String,
    digest: Digest,
    at: Timestamp,
    request: Option<RequestId>,
}

impl Records {
    pub(super) fn of(audit: &[AuditEntry], counts: &[Count]) -> Result<Records, StoreError> {
        let counts = counts.iter().map(|count| {
            let counter = json(&(&count.counter.metric, &count.counter.labels))?;
            // Redis has signed integers.
            Ok((counter, count.by.min(i64::MAX.unsigned_abs())))
        });
        Ok(Records {
            audit: audit.iter().map(Entry::of).collect::<Result<_, _>>()?,
            counts: counts.collect::<Result<_, StoreError>>()?,
        })
    }

    pub(super) fn append(&self, call: Call) -> Call {
        call.each(&self.audit, |call, entry| entry.append(call))
            .each(&self.counts, |call, (counter, by)| call.text(counter).number(*by))
    }
}

impl Entry {
    fn of(entry: &AuditEntry) -> Result<Entry, StoreError> {
        let (body, digest) = encoded(entry)?;
        Ok(Entry { body, digest, at: entry.at, request: entry.request })
    }

    fn append(&self, call: Call) -> Call {
        let call = call.text(&self.body).text(&self.digest.to_string()).number(millis(self.at));
        match self.request {
            Some(request) => call.text(&request.to_string()),
            None => call.text(""),
        }
    }
}

/// Appends the nonce of a write.
pub(super) fn append_nonce(call: Call, nonce: Option<&Nonce>) -> Call {
    match nonce {
        Some(Nonce { digest, excluded_by, at, until, .. }) => call
            .text(&digest.to_string())
            .text(&excluded_by.to_string())
            .number(millis(*at))
            .number(millis(*until)),
        None => call.text(""),
    }
}
