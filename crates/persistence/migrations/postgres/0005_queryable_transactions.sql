-- `body` can be read by every JSON function, so that a query over all rows never fails because of one row. Where that is not
-- the producer's text (\u0000, half a surrogate pair, numbers beyond double precision), `original` is; it is null otherwise.
-- A column without a default is added without rewriting the table. The previous version runs on these tables too; what it
-- writes is brought to this form by the service, like the rows that are there.
ALTER TABLE transactions ADD COLUMN original TEXT;

-- Whether the rows of the previous version have been brought to this form.
CREATE TABLE body_repair (
    id    SMALLINT PRIMARY KEY CHECK (id = 1),
    since TIMESTAMPTZ NOT NULL,
    done  BOOLEAN NOT NULL
);
INSERT INTO body_repair SELECT 1, now(), NOT EXISTS (SELECT FROM transactions);
