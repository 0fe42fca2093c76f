-- The audit: one chain for the store. The hash of an entry covers the hash of the one before, so that no entry can be
-- changed, removed or inserted without breaking every later hash. `entry` is the text that was hashed.
CREATE TABLE audit (
    seq   INTEGER PRIMARY KEY,
    hash  TEXT NOT NULL,
    entry TEXT NOT NULL
) STRICT;

-- Against mistakes; who can write to the file can drop the triggers, and is detected by the chain.
CREATE TRIGGER audit_rows_are_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
CREATE TRIGGER audit_rows_are_not_deleted BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
