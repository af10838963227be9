-- Version 7: how many requests are open, kept with the writes, so that nothing has to count them.

CREATE TABLE open_requests (
    -- Empty where there is none.
    caller TEXT NOT NULL,
    action TEXT NOT NULL,
    status TEXT NOT NULL,
    -- As in `request`; empty where nothing is waited for.
    waits_for TEXT NOT NULL,
    -- Empty where it is not known.
    policy_hash BLOB NOT NULL,
    requests INTEGER NOT NULL,
    -- The sum of their submission times, each in milliseconds since 2020: a sum since 1970 could overflow.
    submitted INTEGER NOT NULL,
    PRIMARY KEY (caller, action, status, waits_for, policy_hash)
) STRICT, WITHOUT ROWID;

INSERT INTO open_requests
SELECT ifnull(caller, ''), action, status, ifnull(waits_for, ''), ifnull(policy_hash, x''), count(*),
       sum(submitted_at - 1577836800000)
FROM request WHERE due_at IS NOT NULL
GROUP BY 1, 2, 3, 4, 5;

-- What these were for is counted now. Which request of an action and status is the oldest is still asked.
DROP INDEX request_waiting;
DROP INDEX request_open_by_caller;
DROP INDEX request_open;
CREATE INDEX request_open ON request (action, status, submitted_at) WHERE due_at IS NOT NULL;
