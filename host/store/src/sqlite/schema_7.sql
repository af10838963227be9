-- Version 7: what waits is found by its channel, too, and open requests are counted by caller and action.

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

-- Urgency 3: the request has ended before anything was posted.
UPDATE outbox SET urgency = 3
WHERE urgency = 0 AND effect = 'show_request' AND claimed_until IS NULL
    AND NOT EXISTS (SELECT 1 FROM slack_post WHERE slack_post.request = outbox.request AND slot = 'main');

DROP INDEX outbox_ready;
CREATE INDEX outbox_ready ON outbox (urgency, channel, ready_at);

-- How many requests are open by caller and action, so that a limit is checked without counting. Requests without a caller
-- count as those of the caller ''. Kept by triggers, as an index is: whatever changes a request changes it.
DROP INDEX request_open_by_caller;
CREATE TABLE open_count (
    caller TEXT NOT NULL,
    action TEXT NOT NULL,
    open INTEGER NOT NULL,
    PRIMARY KEY (caller, action)
) STRICT, WITHOUT ROWID;
INSERT INTO open_count (caller, action, open)
SELECT ifnull(caller, ''), action, count(*) FROM request WHERE due_at IS NOT NULL GROUP BY ifnull(caller, ''), action;

CREATE TRIGGER request_opened AFTER INSERT ON request WHEN new.due_at IS NOT NULL BEGIN
    INSERT INTO open_count (caller, action, open) VALUES (ifnull(new.caller, ''), new.action, 1)
    ON CONFLICT DO UPDATE SET open = open + 1;
END;
CREATE TRIGGER request_ended AFTER UPDATE OF due_at ON request WHEN old.due_at IS NOT NULL AND new.due_at IS NULL BEGIN
    UPDATE open_count SET open = open - 1 WHERE caller = ifnull(new.caller, '') AND action = new.action;
END;

-- The channel of the message; what the body says of it.
ALTER TABLE slack_post ADD COLUMN channel TEXT NOT NULL DEFAULT '';
UPDATE slack_post SET channel = coalesce(body ->> '$.channel', '');
DROP INDEX slack_post_refresh;
CREATE INDEX slack_post_refresh ON slack_post (channel, refresh_at) WHERE refresh_at IS NOT NULL;
