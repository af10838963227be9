-- Version 10: open requests are found by what they supersede each other by. Null if the action does not say so.

ALTER TABLE request ADD COLUMN supersede BLOB;
CREATE INDEX request_supersede ON request (supersede, seq) WHERE supersede IS NOT NULL AND due_at IS NOT NULL;
