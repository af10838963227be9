-- Version 2: what is delivered, in which order, and how far it has come.

-- 0: the request has ended. 1: it is new, or escalated. 2: it has changed.
ALTER TABLE outbox ADD COLUMN urgency INTEGER NOT NULL DEFAULT 1;

-- Nothing was delivered before this version, so what has not ended is new to everybody.
UPDATE outbox SET urgency = 0
WHERE effect = 'show_request' AND request IN (SELECT id FROM request WHERE due_at IS NULL);

DROP INDEX outbox_ready;
CREATE INDEX outbox_ready ON outbox (urgency, ready_at);

CREATE TABLE slack_post (
    request BLOB NOT NULL,
    slot TEXT NOT NULL,
    revision INTEGER NOT NULL,
    -- When it is to be looked at again. Null where it is not.
    refresh_at INTEGER,
    -- The whole, in JSON; the other columns are copies to guard and to find it by.
    body TEXT NOT NULL,
    PRIMARY KEY (request, slot)
) STRICT, WITHOUT ROWID;

CREATE INDEX slack_post_refresh ON slack_post (refresh_at) WHERE refresh_at IS NOT NULL;

-- Small documents that parts of the gateway keep.
CREATE TABLE kept (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
