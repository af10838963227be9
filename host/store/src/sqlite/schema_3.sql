-- Version 3: policy sets, which of them was in force when, and the rules that open requests are judged by.

-- Null where the request had ended before this version.
ALTER TABLE request ADD COLUMN policy_hash BLOB;
UPDATE request SET policy_hash = unhex(body ->> '$.submission.policy_hash') WHERE due_at IS NOT NULL;

-- Holds all that is counted of open requests, so that counting reads nothing else.
DROP INDEX request_open;
CREATE INDEX request_open ON request (action, status, submitted_at, policy_hash) WHERE due_at IS NOT NULL;

-- The entries are canonical JSON: their digest is the hash.
CREATE TABLE policy_set (
    hash BLOB PRIMARY KEY,
    stored_at INTEGER NOT NULL,
    entries TEXT NOT NULL,
    document TEXT NOT NULL
) STRICT;

CREATE TABLE policy_change (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The set that it put in force. Null where it put none.
    in_force BLOB,
    body TEXT NOT NULL
) STRICT;

CREATE INDEX policy_change_in_force ON policy_change (seq) WHERE in_force IS NOT NULL;
