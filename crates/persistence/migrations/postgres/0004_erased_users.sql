-- Users whose data was erased, as keyed hashes: decisions on what they did before the erasure are still on the log, and
-- must not be stored again. The previous version does not look here: erase users only when all replicas have this version.
CREATE TABLE erasure_key (
    id  SMALLINT PRIMARY KEY CHECK (id = 1),
    key TEXT COLLATE "C" NOT NULL
);
CREATE TABLE erased_users (
    -- SHA-256 of the key, the tenant, U+0001 and the user id, in hexadecimal digits.
    user_hash TEXT COLLATE "C" PRIMARY KEY,
    erased_at TIMESTAMPTZ NOT NULL
);
