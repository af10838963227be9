-- Version 14: how much waits for each target outside, and since when, is told without a look at all of it.

-- How many dispatches there are of each target that has any. Kept by the triggers below.
CREATE TABLE dispatch_depth (
    target TEXT PRIMARY KEY,
    waiting INTEGER NOT NULL,
    dead INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO dispatch_depth
SELECT target, count(*) - count(failure), count(failure) FROM dispatch GROUP BY target;

CREATE TRIGGER dispatch_added AFTER INSERT ON dispatch BEGIN
    INSERT INTO dispatch_depth (target, waiting, dead)
    VALUES (new.target, new.failure IS NULL, new.failure IS NOT NULL)
    ON CONFLICT DO UPDATE SET waiting = waiting + excluded.waiting, dead = dead + excluded.dead;
END;

CREATE TRIGGER dispatch_changed AFTER UPDATE OF failure ON dispatch
WHEN (old.failure IS NULL) <> (new.failure IS NULL) BEGIN
    UPDATE dispatch_depth SET waiting = waiting + (new.failure IS NULL) - (old.failure IS NULL),
        dead = dead + (old.failure IS NULL) - (new.failure IS NULL)
    WHERE target = new.target;
END;

CREATE TRIGGER dispatch_removed AFTER DELETE ON dispatch BEGIN
    UPDATE dispatch_depth SET waiting = waiting - (old.failure IS NULL), dead = dead - (old.failure IS NOT NULL)
    WHERE target = old.target;
    DELETE FROM dispatch_depth WHERE target = old.target AND waiting = 0 AND dead = 0;
END;

-- Since when the longest has waited, and what was claimed when the process ended.
CREATE INDEX dispatch_since ON dispatch (target, since) WHERE failure IS NULL;
CREATE INDEX dispatch_claimed ON dispatch (claim) WHERE claim IS NOT NULL;
CREATE INDEX outbox_since ON outbox (since);
