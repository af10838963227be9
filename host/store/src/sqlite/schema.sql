-- Version 1.

CREATE TABLE request (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    action TEXT NOT NULL,
    status TEXT NOT NULL,
    submitted_at INTEGER NOT NULL,
    -- When something happens by itself next. Null exactly where the request is terminal.
    due_at INTEGER,
    lineage BLOB NOT NULL,
    depth INTEGER NOT NULL,
    -- A sorted JSON array of the personas that it waits for. Null where there are none.
    waits_for TEXT,
    body TEXT NOT NULL,
    -- The first request of a lineage gives it its name, so `id` keeps it unique, and the index below need not.
    CHECK ((depth = 0) = (lineage = id))
) STRICT;

CREATE UNIQUE INDEX request_lineage ON request (lineage, depth) WHERE depth > 0;
CREATE INDEX request_due ON request (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX request_open ON request (action, status, submitted_at) WHERE due_at IS NOT NULL;
CREATE INDEX request_waiting ON request (action, waits_for) WHERE waits_for IS NOT NULL;

-- The body is whole. The other columns are copies to filter by.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    action TEXT NOT NULL,
    status TEXT,
    request BLOB,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE outbox (
    request BLOB NOT NULL,
    effect TEXT NOT NULL,
    revision INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    since INTEGER NOT NULL,
    -- When it may be claimed next; while it is claimed, the end of the claim.
    ready_at INTEGER NOT NULL,
    claimed_until INTEGER,
    PRIMARY KEY (request, effect)
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_ready ON outbox (ready_at);

CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    request BLOB NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_until ON idempotency (until);

-- The body is canonical JSON: its digest is the hash.
CREATE TABLE policy_entry (
    hash BLOB PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE module (
    digest BLOB PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE counter (
    metric TEXT NOT NULL,
    labels TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (metric, labels)
) STRICT, WITHOUT ROWID;

CREATE TABLE nonce (
    nonce BLOB PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX nonce_until ON nonce (until);

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
