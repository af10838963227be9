-- Version 12: ended requests are found by when they ended, so that they can be removed.

-- When it ended, or later: it is not looked at before. Null if it is open.
ALTER TABLE request ADD COLUMN ended_at INTEGER;
-- Until when its idempotency key counts: 0 if it has none. Null if that is not known, as of older requests.
ALTER TABLE request ADD COLUMN key_until INTEGER;

UPDATE request SET ended_at = coalesce(body ->> '$.state.at', submitted_at) WHERE due_at IS NULL;
CREATE INDEX request_ended ON request (ended_at) WHERE ended_at IS NOT NULL;
