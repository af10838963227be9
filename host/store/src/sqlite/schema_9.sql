-- Version 9: entries of the audit log have numbers, so that it shows if one is missing, and the digests of their bytes.

ALTER TABLE audit RENAME TO audit_8;

-- The body is whole. `digest` is its SHA-256; `at` and `request` are copies to find it by, which verifying compares with it.
CREATE TABLE audit (
    -- In the order of the transactions.
    seq INTEGER PRIMARY KEY,
    partition INTEGER NOT NULL,
    -- From 1 on, without gaps, in each partition.
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    request BLOB,
    digest BLOB NOT NULL,
    body TEXT NOT NULL
) STRICT;

CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_request ON audit (request) WHERE request IS NOT NULL;

-- How many entries each partition has had. The last one is of what is about no request.
CREATE TABLE audit_partition (
    partition INTEGER PRIMARY KEY,
    size INTEGER NOT NULL
) STRICT;

WITH RECURSIVE numbers (partition) AS (SELECT 0 UNION ALL SELECT partition + 1 FROM numbers WHERE partition < 16)
INSERT INTO audit_partition SELECT partition, 0 FROM numbers;

-- The newest checkpoint: one row at most.
CREATE TABLE audit_checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL,
    note TEXT NOT NULL,
    -- What whoever signs the next one must know.
    state TEXT NOT NULL
) STRICT;
