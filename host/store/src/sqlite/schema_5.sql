-- Version 5: the caller of a request, so that its open requests can be counted.

ALTER TABLE request ADD COLUMN caller TEXT;
CREATE INDEX request_open_by_caller ON request (caller) WHERE caller IS NOT NULL AND due_at IS NOT NULL;
