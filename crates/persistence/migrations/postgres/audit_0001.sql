-- The audit: one chain for the store. The hash of an entry covers the hash of the one before, so that no entry can be
-- changed, removed or inserted without breaking every later hash. `entry` is the text that was hashed.
CREATE TABLE audit (
    seq   BIGINT PRIMARY KEY,
    hash  TEXT COLLATE "C" NOT NULL,
    entry TEXT NOT NULL
);

-- Against mistakes; who owns the table can drop the trigger, and is detected by the chain.
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END;
$$;
CREATE TRIGGER audit_rows_are_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
