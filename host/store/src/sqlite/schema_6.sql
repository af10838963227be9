-- Version 6: the salt of a request's payload hash, encrypted, and the id of its key. Null where there is no salt.
-- Beside the body, since a change of the key replaces them, and a commit does not.

ALTER TABLE request ADD COLUMN salt_key TEXT;
ALTER TABLE request ADD COLUMN salt BLOB;
