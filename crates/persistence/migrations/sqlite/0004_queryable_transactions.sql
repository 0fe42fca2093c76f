-- `body` can be read by every JSON function, so that a query over all rows never fails because of one row. Where that is not
-- the producer's text (\u0000, half a surrogate pair, numbers beyond double precision), `original` is; it is null otherwise.
ALTER TABLE transactions ADD COLUMN original TEXT;

-- Whether the rows of the previous version have been brought to this form.
CREATE TABLE body_repair (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    since TEXT NOT NULL,
    done  INTEGER NOT NULL
) STRICT;
INSERT INTO body_repair SELECT 1, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'), NOT EXISTS (SELECT 1 FROM transactions);
