-- Version 11: what programs outside are still to be told of requests.

CREATE TABLE dispatch (
    request BLOB NOT NULL,
    target TEXT NOT NULL,
    -- The place of the first milestone that the target was not told of.
    position INTEGER NOT NULL,
    -- The request's version that enqueued it last.
    revision INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    since INTEGER NOT NULL,
    -- When it may be claimed next; while it is claimed, the end of the claim. Of a dead letter, when it died.
    ready_at INTEGER NOT NULL,
    claim INTEGER,
    -- Why it is a dead letter; null if it is none.
    failure TEXT,
    PRIMARY KEY (request, target)
) STRICT, WITHOUT ROWID;

CREATE INDEX dispatch_ready ON dispatch (target, failure IS NOT NULL, ready_at);
