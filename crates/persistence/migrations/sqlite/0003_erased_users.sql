-- Users whose data was erased, as keyed hashes: decisions on what they did before the erasure are still on the log, and
-- must not be stored again.
CREATE TABLE erasure_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key TEXT NOT NULL
) STRICT;
CREATE TABLE erased_users (
    -- SHA-256 of the key, the tenant, U+0001 and the user id, in hexadecimal digits.
    user_hash TEXT PRIMARY KEY,
    erased_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
