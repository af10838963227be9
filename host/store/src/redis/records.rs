//! The audit entries, counts, effects and nonce that are stored with a change.

use countersign_core::lifecycle::{AuditEntry, Count};

use super::call::Call;
use super::reply::{json, millis};
use crate::{Nonce, StoreError};

/// What is stored with a change, as text.
pub(super) struct Records {
    audit: Vec<String>,
    counts: Vec<(String, u64)>,
}

impl Records {
    pub(super) fn of(audit: &[AuditEntry], counts: &[Count]) -> Result<Records, StoreError> {
        let counts = counts.iter().map(|count| {
            let counter = json(&(&count.counter.metric, &count.counter.labels))?;
            // Redis has signed integers.
            Ok((counter, count.by.min(i64::MAX.unsigned_abs())))
        });
        Ok(Records {
            audit: audit.iter().map(json).collect::<Result<_, _>>()?,
            counts: counts.collect::<Result<_, StoreError>>()?,
        })
    }

    pub(super) fn append(&self, call: Call) -> Call {
        call.each(&self.audit, |call, entry| call.text(entry))
            .each(&self.counts, |call, (counter, by)| call.text(counter).number(*by))
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
