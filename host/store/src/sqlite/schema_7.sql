-- Version 7: what waits is found by its channel, too; and how many requests are open is kept with the writes, so that
-- nothing has to count them.

-- The channels that an entry names, so that enqueuing parses no JSON. Null if it names none.
ALTER TABLE policy_entry ADD COLUMN channel TEXT;
ALTER TABLE policy_entry ADD COLUMN escalation_channel TEXT;
UPDATE policy_entry SET channel = body ->> '$.channel', escalation_channel = body ->> '$.escalate.channel';

-- The channel that the policy entry names. Empty if it names none.
ALTER TABLE outbox ADD COLUMN channel TEXT NOT NULL DEFAULT '';
UPDATE outbox SET channel = coalesce(
    (SELECT iif(outbox.effect = 'notify_escalation', coalesce(entry.escalation_channel, entry.channel), entry.channel)
     FROM request
     JOIN policy_entry AS entry
         ON entry.hash = coalesce(request.policy_hash, unhex(request.body ->> '$.submission.policy_hash'))
     WHERE request.id = outbox.request),
    '');

-- Urgency 3: the request has ended before anything was posted. One that ended as it was made is posted all the same.
UPDATE outbox SET urgency = iif((SELECT version FROM request WHERE request.id = outbox.request) <= 1, 2, 3)
WHERE urgency = 0 AND effect = 'show_request' AND claimed_until IS NULL
    AND NOT EXISTS (SELECT 1 FROM slack_post WHERE slack_post.request = outbox.request AND slot = 'main');

DROP INDEX outbox_ready;
CREATE INDEX outbox_ready ON outbox (urgency, channel, ready_at);

-- The channel of the message; what the body says of it.
ALTER TABLE slack_post ADD COLUMN channel TEXT NOT NULL DEFAULT '';
UPDATE slack_post SET channel = coalesce(body ->> '$.channel', '');
DROP INDEX slack_post_refresh;
CREATE INDEX slack_post_refresh ON slack_post (channel, refresh_at) WHERE refresh_at IS NOT NULL;

-- How many requests are open, by what they are counted by.
CREATE TABLE open_requests (
    -- Empty if there is none.
    caller TEXT NOT NULL,
    action TEXT NOT NULL,
    status TEXT NOT NULL,
    -- As in `request`; empty if nothing is waited for.
    waits_for TEXT NOT NULL,
    -- Empty if it is not known.
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
