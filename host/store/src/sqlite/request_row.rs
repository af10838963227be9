//! Rows of the table `request`: written from the projection, and parsed from the body.

use std::sync::Arc;

use countersign_core::lifecycle::{Request, RequestId, WrappedSalt};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::column::{RowContext, integer, json, millis};
use super::open_requests::{self, Kind};
use super::writer::Scope;
use crate::projection::Projection;
use crate::sqlite::salts;
use crate::{MostOpen, StoreError};

const GIVING_WAY: &str = "SELECT count(*) FROM
         (SELECT id, caller, action FROM request WHERE supersede = ?1 AND due_at IS NOT NULL
          UNION SELECT id, caller, action FROM request WHERE subject = ?2 AND due_at IS NOT NULL)
     WHERE ifnull(caller, '') = ?3 AND (?4 IS NULL OR action = ?4)";

/// A row to be written.
pub(super) struct RequestRow {
    pub(super) id: [u8; 16],
    pub(super) submitted_at: i64,
    version: i64,
    action: String,
    pub(super) caller: Option<String>,
    status: &'static str,
    due_at: Option<i64>,
    lineage: [u8; 16],
    depth: u32,
    waits_for: Option<String>,
    policy_hash: [u8; 32],
    body: String,
    salt: Option<WrappedSalt>,
    supersede: Option<[u8; 32]>,
    subject: Option<[u8; 32]>,
    ended_at: Option<i64>,
    /// Until when its idempotency key counts: 0 if it has none, and `None` if that is not known.
    pub(super) key_until: Option<i64>,
}

impl RequestRow {
    pub(super) fn of(request: &Request, projection: &Projection<'_>) -> Result<RequestRow, StoreError> {
        let waits_for = &projection.waits_for;
        Ok(RequestRow {
            id: projection.id.to_bytes(),
            submitted_at: millis(projection.submitted_at),
            version: integer(projection.version),
            action: projection.action.to_owned(),
            caller: projection.caller.map(str::to_owned),
            status: projection.status.as_str(),
            due_at: projection.due_at.map(millis),
            lineage: projection.lineage.to_bytes(),
            depth: projection.depth,
            waits_for: if waits_for.is_empty() { None } else { Some(json(waits_for)?) },
            policy_hash: *projection.policy_hash.as_bytes(),
            body: json(request)?,
            salt: request.submission.salt.clone(),
            supersede: projection.supersede.map(|key| *key.as_bytes()),
            subject: projection.subject.map(|key| *key.as_bytes()),
            ended_at: if projection.due_at.is_none() { Some(millis(projection.changed_at)) } else { None },
            key_until: None,
        })
    }

    /// The row of a request whose JSON is stored as it is.
    pub(super) fn stored(request: &Request, body: &str) -> Result<RequestRow, StoreError> {
        let row = RequestRow::of(request, &Projection::of(request))?;
        Ok(RequestRow { body: body.to_owned(), ..row })
    }

    /// False if the id, or the depth in the lineage, is taken.
    pub(super) fn insert(&self, scope: &mut Scope<'_>) -> rusqlite::Result<bool> {
        let mut insert = scope.db.prepare_cached(
            "INSERT INTO request
                 (id, version, action, status, submitted_at, due_at, lineage, depth, waits_for, policy_hash, body,
                  caller, salt_key, salt, supersede, subject, ended_at, key_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) ON CONFLICT DO NOTHING",
        )?;
        let salt = self.salt.as_ref();
        let inserted = insert.execute(params![
            self.id,
            self.version,
            self.action,
            self.status,
            self.submitted_at,
            self.due_at,
            self.lineage,
            self.depth,
            self.waits_for,
            self.policy_hash,
            self.body,
            self.caller,
            salt.map(|salt| &salt.key),
            salt.map(|salt| &salt.sealed),
            self.supersede,
            self.subject,
            self.ended_at,
            self.key_until,
        ])?;
        if inserted == 1 && self.due_at.is_some() {
            scope.open.opened(self.kind(), self.submitted_at);
        }
        Ok(inserted == 1)
    }

    /// Whether what it follows in its lineage is there: it may have been removed since it was read.
    pub(super) fn follows(&self, db: &Connection) -> rusqlite::Result<bool> {
        let before = match self.depth {
            0 => return Ok(true),
            1 => "SELECT 1 FROM request WHERE id = ?1 AND depth = ?2",
            _ => "SELECT 1 FROM request WHERE lineage = ?1 AND depth > 0 AND depth = ?2",
        };
        db.prepare_cached(before)?.exists(params![self.lineage, self.depth.saturating_sub(1)])
    }

    /// What it is counted by while it is open.
    fn kind(&self) -> Kind {
        Kind {
            caller: self.caller.clone().unwrap_or_default(),
            action: self.action.clone(),
            status: self.status.to_owned(),
            waits_for: self.waits_for.clone().unwrap_or_default(),
            policy_hash: self.policy_hash.to_vec(),
        }
    }

    /// Whether its caller has as many open requests already as it may have. Those that give way to it do not count: else they
    /// would stand because of it.
    pub(super) fn has_too_many_open(&self, scope: &Scope<'_>, most: MostOpen) -> Result<bool, StoreError> {
        let caller = self.caller.as_deref().unwrap_or_default();
        for (most, action) in [(most.in_all, None), (most.of_action, Some(self.action.as_str()))] {
            let Some(most) = most.map(u64::from) else { continue };
            let open = open_requests::of_caller(scope.db, scope.open, caller, action)?;
            if open >= most && open.saturating_sub(self.giving_way(scope.db, caller, action)?) >= most {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many open requests of its caller, of one action or of all of them, give way to it.
    fn giving_way(&self, db: &Connection, caller: &str, action: Option<&str>) -> rusqlite::Result<u64> {
        if self.due_at.is_none() {
            return Ok(0);
        }
        let mut count = db.prepare_cached(GIVING_WAY)?;
        let count: i64 =
            count.query_row(params![self.supersede, self.subject, caller, action], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// False if the stored request is not the previous version, or has ended with another status.
    pub(super) fn update(&self, scope: &mut Scope<'_>) -> rusqlite::Result<bool> {
        // INVARIANT: a request that has ended has no due time, and keeps its status.
        let mut select = scope.db.prepare_cached(
            "SELECT seq, action, status, ifnull(waits_for, ''), ifnull(policy_hash, x''), submitted_at, ifnull(caller, ''),
                    due_at IS NOT NULL
             FROM request WHERE id = ?1 AND version = ?2 - 1 AND (due_at IS NOT NULL OR status = ?3)",
        )?;
        let before = select.query_row(params![self.id, self.version, self.status], |row| {
            let (action, status) = (row.get(1)?, row.get(2)?);
            let kind = Kind {
                caller: row.get(6)?,
                action,
                status,
                waits_for: row.get(3)?,
                policy_hash: row.get(4)?,
            };
            Ok((row.get::<_, i64>(0)?, kind, row.get::<_, i64>(5)?, row.get::<_, bool>(7)?))
        });
        let Some((seq, before, submitted_at, was_open)) = before.optional()? else { return Ok(false) };
        let mut update = scope.db.prepare_cached(
            "UPDATE request SET version = ?2, status = ?3, due_at = ?4, waits_for = ?5, body = ?6,
                    ended_at = coalesce(ended_at, ?7)
             WHERE seq = ?1",
        )?;
        let parameters =
            params![seq, self.version, self.status, self.due_at, self.waits_for, self.body, self.ended_at];
        update.execute(parameters)?;
        let after = Kind {
            status: self.status.to_owned(),
            waits_for: self.waits_for.clone().unwrap_or_default(),
            ..before.clone()
        };
        if was_open {
            scope.open.closed(before, submitted_at);
        }
        if self.due_at.is_some() {
            scope.open.opened(after, submitted_at);
        }
        Ok(true)
    }
}

/// A row as it was read, with its body unparsed.
pub(super) struct StoredRequest {
    id: RequestId,
    version: i64,
    body: String,
    salt: Option<WrappedSalt>,
}

impl StoredRequest {
    /// From the columns `id, version, body, salt_key, salt`, of which `id` was read already.
    pub(super) fn of(id: RequestId, row: &Row<'_>) -> Result<StoredRequest, StoreError> {
        let context = RowContext { table: "request", key: &id };
        let (version, body) = (context.get(row, (1, "version"))?, context.get(row, (2, "body"))?);
        let salt = salts::read(context, row, (3, "salt_key"), (4, "salt"))?;
        Ok(StoredRequest { id, version, body, salt })
    }

    pub(super) fn find(db: &Connection, id: RequestId) -> Result<Option<StoredRequest>, StoreError> {
        let mut select =
            db.prepare_cached("SELECT id, version, body, salt_key, salt FROM request WHERE id = ?1")?;
        let mut rows = select.query_and_then([id.to_bytes()], |row| StoredRequest::of(id, row))?;
        rows.next().transpose()
    }

    /// As [`StoredRequest::parse`], with the body as it is stored.
    pub(super) fn parse_with_body(self) -> Result<(Request, String), StoreError> {
        let body = self.body.clone();
        Ok((self.parse()?, body))
    }

    /// Parses the body, and checks that it belongs to the row.
    pub(super) fn parse(self) -> Result<Request, StoreError> {
        let context = RowContext { table: "request", key: &self.id };
        let mut request: Request = context.json("body", &self.body)?;
        if request.id != self.id {
            return Err(context.corrupt("body", format_args!("it is the request {}", request.id)));
        }
        if integer(request.version) != self.version {
            let detail = format_args!("it has version {}, and the row {}", request.version, self.version);
            return Err(context.corrupt("body", detail));
        }
        Arc::make_mut(&mut request.submission).salt = self.salt;
        Ok(request)
    }
}
