//! Retention: which ended requests nothing needs any more, and removing them.
//!
//! A request goes together with its lineage: while any request of it is open, or can still matter, all of them stay. So
//! limits and cool-downs of a lineage hold to its end, and nothing refers to what is not there.

use std::collections::BTreeSet;

use countersign_core::lifecycle::{Count, Digest, Request, RequestId, State, Timestamp};
use countersign_store::{
    AuditCursor, AuditRange, EXPIRED_KEPT_MS, Removable, Removal, RemovedRequest, StoreError,
};
use futures_util::future::join_all;
use serde::Serialize;

use crate::submission::IDEMPOTENCY_MS;
use crate::{Gateway, GatewayError};

/// How many requests of a lineage are looked at, and removed, at once.
const MOST_OF_LINEAGE: usize = 200;

/// How many of a longer lineage are removed at once. The limit on how often it can be made again is counted by those that are
/// left, which are more than that.
const PART_OF_LINEAGE: usize = 100;

/// For how much longer a request stays while a message in Slack does not show how it ended.
const UNSHOWN_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// After how long a request is looked at again if it is not known when it can go.
pub const LATER_MS: u64 = 60 * 60 * 1000;

/// How many requests are read at the same time.
const LOOKED_AT_ONCE: usize = 8;

/// How many places of audit entries are read at once.
const PAGE: usize = 500;

/// The counters of requests that were removed, and of those of them that are in an archive.
pub const PURGED: &str = "purged_requests_total";
/// See [`PURGED`].
pub const ARCHIVED: &str = "archived_requests_total";

/// Requests of one lineage that nothing needs any more, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// The requests; at least one.
    pub requests: Vec<Request>,
    /// The newest one of the lineage, which may not be among them.
    pub newest: RequestId,
}

impl Passed {
    /// Their removal, with its counts.
    #[must_use]
    pub fn removal(&self, archived: bool) -> Option<Removal> {
        let requests: Vec<_> = self.requests.iter().map(RemovedRequest::of).collect();
        let lineage = self.requests.first()?.submission.lineage;
        Some(Removal { lineage, newest: self.newest, counts: counts(requests.len(), archived), requests })
    }
}

/// What is counted when so many requests are removed.
#[must_use]
pub fn counts(requests: usize, archived: bool) -> Vec<Count> {
    let names: &[&str] = if archived { &[PURGED, ARCHIVED] } else { &[PURGED] };
    names.iter().map(|name| Count::of(name, &[], requests as u64)).collect()
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What can go.
    pub passed: Vec<Passed>,
    /// What is to be put off, and until when, as [`put_off`](countersign_store::Retention::put_off) takes it.
    pub put_off: Vec<(RequestId, Timestamp)>,
    /// Whether this was all.
    pub is_last: bool,
}

/// A line of the archive.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// The version of this form.
    archived_request: u32,
    /// The request as it is stored: without hidden values, and without the salt of its commitments.
    request: &'a Request,
    /// Proves how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    /// Where the audit log says what happened to it.
    audit: Vec<Place>,
}

/// The place of an audit entry.
#[derive(Debug, Serialize)]
struct Place {
    partition: u16,
    number: u64,
    sha256: Digest,
}

impl Gateway {
    /// Looks at up to `limit` requests that ended `retention_ms` ago or longer, and returns those that nothing needs. The
    /// others are to be put off until they may go.
    ///
    /// # Errors
    /// If the store is unavailable. A request that cannot be read is logged, and to be put off.
    pub async fn passed(&self, retention_ms: u64, limit: usize) -> Result<Found, StoreError> {
        let now = self.clock.now();
        let ids = self.store.ended(now.minus(retention_ms), limit).await?;
        let (mut passed, mut put_off) = (Vec::new(), Vec::new());
        let is_last = ids.len() < limit;
        let mut seen = BTreeSet::new();
        for ids in ids.chunks(LOOKED_AT_ONCE) {
            let mut looked = Vec::new();
            for id in ids {
                looked.push(self.passed_with(*id, retention_ms, now));
            }
            for (id, looked) in ids.iter().copied().zip(join_all(looked).await) {
                // With others of its lineage.
                if seen.contains(&id) {
                    continue;
                }
                match looked {
                    Ok(Looked::Passed(lineage)) => {
                        seen.extend(lineage.requests.iter().map(|request| request.id));
                        passed.push(lineage);
                    }
                    Ok(Looked::Stays { lineage, until }) => {
                        seen.extend(&lineage);
                        put_off.push((id, until.minus(retention_ms)));
                        put_off.extend(lineage.into_iter().map(|id| (id, until.minus(retention_ms))));
                    }
                    Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                    Err(error) => {
                        tracing::warn!(request = %id, %error, "an ended request cannot be read, so it is not removed");
                        put_off.push((id, now.plus(LATER_MS).minus(retention_ms)));
                    }
                }
            }
        }
        Ok(Found { passed, put_off, is_last })
    }

    async fn passed_with(
        &self,
        id: RequestId,
        retention_ms: u64,
        now: Timestamp,
    ) -> Result<Looked, StoreError> {
        let later = now.plus(LATER_MS);
        let Some(request) = self.store.request(id).await? else {
            return Ok(Looked::Stays { lineage: Vec::new(), until: later });
        };
        let lineage = request.submission.lineage;
        let mut requests = self.store.removable(lineage, MOST_OF_LINEAGE).await?;
        let newest = match requests.last() {
            Some(last) if requests.len() < MOST_OF_LINEAGE => last.request.clone(),
            // What is newer stays for a while, and is looked at with the rest.
            _ => match self.store.newest_of_lineage(lineage).await? {
                Some(newest) => newest,
                None => return Ok(Looked::Stays { lineage: Vec::new(), until: later }),
            },
        };
        if requests.len() >= MOST_OF_LINEAGE {
            requests.truncate(PART_OF_LINEAGE);
        }
        let newest_ends = newest.decided_at().map(|_| newest.changed_at().plus(retention_ms));
        let ends = requests.iter().map(|found| goes_at(found, retention_ms, now));
        let until = ends.chain([newest_ends]).collect::<Option<Vec<Timestamp>>>();
        let until = until.map_or(later, |ends| ends.into_iter().max().unwrap_or(later));
        let requests = requests.into_iter().map(|found| found.request);
        if until > now {
            let ended = requests.filter(|request| request.status().is_terminal());
            return Ok(Looked::Stays { lineage: ended.map(|request| request.id).collect(), until });
        }
        Ok(Looked::Passed(Passed { requests: requests.collect(), newest: newest.id }))
    }

    /// The line of a request in an archive, with its line feed. It has no receipt only if this gateway signs none, or the
    /// request is open: whatever else keeps it from being made may pass, and the line is written once.
    ///
    /// # Errors
    /// If the store is unavailable, or what belongs to the request cannot be read.
    pub async fn archive_line(&self, request: &Request) -> Result<Vec<u8>, StoreError> {
        let mut audit = Vec::new();
        let range = AuditRange { request: Some(request.id), period: None };
        let mut after = AuditCursor::default();
        loop {
            let page = self.store.audit_log(range, &after, PAGE).await?;
            audit.extend(page.entries.iter().map(|entry| Place {
                partition: entry.partition,
                number: entry.number,
                sha256: entry.digest,
            }));
            if page.is_last {
                break;
            }
            after = page.next;
        }
        let receipt = self.try_receipt(request).await.map_err(|error| match error {
            GatewayError::Store(error) => error,
            error => StoreError::Corrupt {
                table: "policy_entry",
                column: "body",
                key: request.submission.policy_hash.to_string(),
                detail: error.to_string(),
            },
        })?;
        let line = Line { archived_request: 1, request, receipt, audit };
        let mut line = serde_json::to_vec(&line).map_err(|error| StoreError::Corrupt {
            table: "request",
            column: "body",
            key: request.id.to_string(),
            detail: error.to_string(),
        })?;
        line.push(b'\n');
        Ok(line)
    }
}

/// What is to be done with a request and its lineage.
enum Looked {
    Passed(Passed),
    Stays {
        /// Those of it that have ended.
        lineage: Vec<RequestId>,
        until: Timestamp,
    },
}

/// When nothing needs a request any more; `None` if that is not known.
fn goes_at(found: &Removable, retention_ms: u64, now: Timestamp) -> Option<Timestamp> {
    let Removable { request, key_until, is_undelivered } = found;
    request.decided_at()?;
    let mut at = request.changed_at().plus(retention_ms);
    // Without the request its key would make a new one. It counts again if the clock was ahead and is set back. That of a
    // gate counts for longer, as long as its request is there, and keeps it no longer than others.
    let usual = request.submission.expires_at.plus(IDEMPOTENCY_MS);
    let key_until = key_until.map_or(usual, |until| until.min(usual));
    if key_until > Timestamp::EPOCH {
        at = at.max(key_until.plus(EXPIRED_KEPT_MS));
    }
    if let State::Approved { consumed: None, .. } = &request.state {
        match request.valid_until() {
            Some(until) => at = at.max(until),
            // It must be consumed before the caller acts, and can be at any time.
            None if request.submission.terms.required => return None,
            None => {}
        }
    }
    if *is_undelivered && at <= now && now < at.plus(UNSHOWN_MS) {
        return None;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countersign_core::lifecycle::UseTerms;
    use countersign_store::fixtures;

    use super::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;
    const RETENTION: u64 = 1000;

    fn found(request: Request) -> Removable {
        Removable { request, key_until: Some(Timestamp::EPOCH), is_undelivered: false }
    }

    fn approved(terms: UseTerms) -> Request {
        let at = fixtures::at(10);
        let mut request = fixtures::request(1);
        Arc::make_mut(&mut request.submission).terms = terms;
        fixtures::next(&request, at, |request| request.state = fixtures::approved(at))
    }

    fn check(found: &Removable, expected: Option<u64>) {
        assert_eq!(goes_at(found, RETENTION, fixtures::at(20 * DAY)), expected.map(fixtures::at));
    }

    #[test]
    fn what_can_still_matter_stays() {
        let terms = |valid_for_ms, required| UseTerms { valid_for_ms, required };
        check(&found(fixtures::request(1)), None);
        let plain = approved(UseTerms::default());
        check(&found(plain.clone()), Some(10 + RETENTION));
        check(&found(fixtures::consumed(&plain, fixtures::at(50))), Some(50 + RETENTION));
        // An approval that can still be consumed.
        check(&found(approved(terms(Some(5000), false))), Some(10 + 5000));
        check(&found(approved(terms(Some(10), true))), Some(10 + RETENTION));
        check(&found(approved(terms(None, true))), None);
        check(
            &found(fixtures::consumed(&approved(terms(None, true)), fixtures::at(9000))),
            Some(9000 + RETENTION),
        );
        // An idempotency key, known or possible.
        let key_until = Some(fixtures::at(7000));
        check(&Removable { key_until, ..found(plain.clone()) }, Some(7000 + EXPIRED_KEPT_MS));
        let expires = plain.submission.expires_at.since(fixtures::at(0));
        let unknown = Removable { key_until: None, ..found(plain.clone()) };
        check(&unknown, Some(expires + IDEMPOTENCY_MS + EXPIRED_KEPT_MS));
        // That of a gate lasts for longer, and keeps its request no longer.
        let key_until = Some(fixtures::at(365 * DAY));
        check(&Removable { key_until, ..found(plain) }, Some(expires + IDEMPOTENCY_MS + EXPIRED_KEPT_MS));
    }

    #[test]
    fn a_message_that_does_not_show_the_end_keeps_a_request_for_a_week() {
        let stale = Removable { is_undelivered: true, ..found(approved(UseTerms::default())) };
        let at = 10 + RETENTION;
        let goes = |now| goes_at(&stale, RETENTION, fixtures::at(now));
        assert_eq!(goes(at - 1), Some(fixtures::at(at)));
        assert_eq!(goes(at), None);
        assert_eq!(goes(at + UNSHOWN_MS - 1), None);
        assert_eq!(goes(at + UNSHOWN_MS), Some(fixtures::at(at)));
    }
}
