-- Version 8: claims are known by an id. One that was made before this version is nobody's: it ends when it said it would.

ALTER TABLE outbox ADD COLUMN claim INTEGER;
