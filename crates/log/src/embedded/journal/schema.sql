CREATE TABLE topics (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    partitions INTEGER NOT NULL
) STRICT;

-- One row is what one commit appended to one partition: consecutive records, encoded one behind the other.
CREATE TABLE batches (
    id          INTEGER PRIMARY KEY,
    topic       INTEGER NOT NULL,
    partition   INTEGER NOT NULL,
    -- Offset of the first record, and the one after the last.
    base        INTEGER NOT NULL,
    next        INTEGER NOT NULL,
    -- Milliseconds since 1970, never less than those of the row before.
    appended_at INTEGER NOT NULL,
    records     BLOB    NOT NULL,
    -- CRC-32 of base, next and records.
    checksum    INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX batches_by_offset ON batches (topic, partition, base, appended_at);

CREATE TABLE offsets (
    consumer_group TEXT    NOT NULL,
    topic          INTEGER NOT NULL,
    partition      INTEGER NOT NULL,
    -- The offset to go on from.
    next           INTEGER NOT NULL,
    note           TEXT,
    PRIMARY KEY (consumer_group, topic, partition)
) STRICT, WITHOUT ROWID;
