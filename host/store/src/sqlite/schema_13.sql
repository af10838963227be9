-- Version 13: of the requests of a CI system's gate, the open ones are found that its report cannot tell apart. Null if it has none.

ALTER TABLE request ADD COLUMN subject BLOB;
CREATE INDEX request_subject ON request (subject, seq) WHERE subject IS NOT NULL AND due_at IS NOT NULL;
