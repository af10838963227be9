-- Version 4: detached signatures over the digests of modules and the hashes of policy sets.

CREATE TABLE signature (
    digest BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (digest, signature)
) STRICT, WITHOUT ROWID;
