//! How many requests are open, by all that they are counted by. Kept with the writes, so that a look at them takes as long
//! for a million of them as for one.

use std::collections::{BTreeMap, HashMap};

use countersign_core::lifecycle::Digest;
use rusqlite::{Connection, params};

use super::column::RowContext;
use crate::{OpenPolicy, OpenRequests, StoreError};

/// Submission times are summed from here, the beginning of 2020, so that the sum of any number of them fits.
const SINCE_MS: i64 = 1_577_836_800_000;

/// What open requests are counted by: a key of the table `open_requests`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// Empty if there is none.
    pub(super) caller: String,
    pub(super) action: String,
    pub(super) status: String,
    /// A JSON array of personas; empty if it waits for none.
    pub(super) waits_for: String,
    /// Empty if it is not known.
    pub(super) policy_hash: Vec<u8>,
}

/// By how much the numbers change in a transaction.
#[derive(Default)]
pub(super) struct Changes(HashMap<Kind, Change>);

#[derive(Clone, Copy, Default)]
struct Change {
    requests: i64,
    submitted: i64,
}

impl Changes {
    /// A request that was submitted at this time, in milliseconds, is open from now on.
    pub(super) fn opened(&mut self, kind: Kind, submitted_at: i64) {
        self.add(kind, Change { requests: 1, submitted: submitted_at.saturating_sub(SINCE_MS) });
    }

    /// It is not any more, or not of this kind.
    pub(super) fn closed(&mut self, kind: Kind, submitted_at: i64) {
        self.add(kind, Change { requests: -1, submitted: SINCE_MS.saturating_sub(submitted_at) });
    }

    pub(super) fn merge(&mut self, other: Changes) {
        for (kind, change) in other.0 {
            self.add(kind, change);
        }
    }

    pub(super) fn store(self, db: &Connection) -> rusqlite::Result<()> {
        for (kind, Change { requests, submitted }) in self.0 {
            let Kind { caller, action, status, waits_for, policy_hash } = kind;
            if requests == 0 && submitted == 0 {
                continue;
            }
            let mut add = db.prepare_cached(
                "INSERT INTO open_requests (caller, action, status, waits_for, policy_hash, requests, submitted)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
                     submitted = submitted + excluded.submitted",
            )?;
            add.execute(params![caller, action, status, waits_for, policy_hash, requests, submitted])?;
            if requests < 0 {
                let mut delete = db.prepare_cached(
                    "DELETE FROM open_requests
                     WHERE caller = ?1 AND action = ?2 AND status = ?3 AND waits_for = ?4 AND policy_hash = ?5
                     AND requests = 0",
                )?;
                delete.execute(params![caller, action, status, waits_for, policy_hash])?;
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: Kind, by: Change) {
        let change = self.0.entry(kind).or_default();
        change.requests += by.requests;
        change.submitted = change.submitted.saturating_add(by.submitted);
    }
}

/// How many requests of a caller are open, of one action or of all of them. `pending` is what the transaction has changed
/// already.
pub(super) fn of_caller(
    db: &Connection,
    pending: &Changes,
    caller: &str,
    action: Option<&str>,
) -> Result<u64, StoreError> {
    let mut sum = db.prepare_cached(
        "SELECT ifnull(sum(requests), 0) FROM open_requests WHERE caller = ?1 AND (?2 IS NULL OR action = ?2)",
    )?;
    let stored: i64 = sum.query_row(params![caller, action], |row| row.get(0))?;
    let ours = |kind: &Kind| kind.caller == caller && action.is_none_or(|action| kind.action == action);
    let changed: i64 = pending.0.iter().filter(|(kind, _)| ours(kind)).map(|(_, by)| by.requests).sum();
    Ok(u64::try_from(stored.saturating_add(changed)).unwrap_or(0))
}

/// The open requests, by action and status.
pub(super) fn by_status(db: &Connection) -> Result<Vec<OpenRequests>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT action, status, sum(requests), sum(submitted),
                (SELECT min(submitted_at) FROM request
                 WHERE request.action = open_requests.action AND request.status = open_requests.status
                 AND due_at IS NOT NULL)
         FROM open_requests GROUP BY action, status",
    )?;
    let rows = select.query_and_then([], |row| {
        let action: String = row.get(0)?;
        let context = RowContext { table: "open_requests", key: &format_args!("action {action}") };
        let status: String = context.get(row, (1, "status"))?;
        let count = context.unsigned(row, (2, "requests"))?;
        let submitted: i64 = context.get(row, (3, "submitted"))?;
        let since = i128::from(SINCE_MS).saturating_mul(i128::from(count));
        let sum = u128::try_from(since.saturating_add(i128::from(submitted)));
        Ok(OpenRequests {
            status: context.variant("status", &status)?,
            count,
            oldest: context.time(row, (4, "submitted_at"))?,
            sum_submitted_ms: sum.map_err(|error| context.corrupt("submitted", error))?,
            action,
        })
    })?;
    rows.collect()
}

/// How many open requests wait for each persona, as (action, persona, number).
pub(super) fn by_persona(db: &Connection) -> Result<Vec<(String, String, u64)>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT action, waits_for, sum(requests) FROM open_requests WHERE waits_for <> ''
         GROUP BY action, waits_for",
    )?;
    let mut waiting: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let action: String = row.get(0)?;
        let context = RowContext { table: "open_requests", key: &format_args!("action {action}") };
        let personas: Vec<String> =
            context.json("waits_for", context.get::<String>(row, (1, "waits_for"))?)?;
        let count = context.unsigned(row, (2, "requests"))?;
        for persona in personas {
            *waiting.entry((action.clone(), persona)).or_default() += count;
        }
    }
    Ok(waiting.into_iter().map(|((action, persona), count)| (action, persona, count)).collect())
}

/// How many are open under each policy hash, by that hash and the action.
pub(super) fn by_policy(db: &Connection) -> Result<Vec<OpenPolicy>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT policy_hash, action, sum(requests) FROM open_requests WHERE policy_hash <> x''
         GROUP BY policy_hash, action ORDER BY policy_hash, action",
    )?;
    let rows = select.query_and_then([], |row| {
        let action: String = row.get(1)?;
        let context = RowContext { table: "open_requests", key: &format_args!("action {action}") };
        let policy: [u8; 32] = context.get(row, (0, "policy_hash"))?;
        let count = context.unsigned(row, (2, "requests"))?;
        Ok(OpenPolicy { policy: Digest::from_bytes(policy), action, count })
    })?;
    rows.collect()
}
