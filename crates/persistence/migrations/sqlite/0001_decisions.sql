-- Amounts are decimal texts and times RFC 3339 texts with six decimals and Z, which sort as they should.
CREATE TABLE transactions (
    user_id        TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    amount         TEXT NOT NULL,
    event_time     TEXT NOT NULL,
    body           TEXT NOT NULL,
    PRIMARY KEY (user_id, transaction_id)
) STRICT;

CREATE TABLE fraud_analysis (
    user_id          TEXT NOT NULL,
    transaction_id   TEXT NOT NULL,
    fraud_score      REAL NOT NULL,
    status           TEXT NOT NULL CHECK (status IN ('approved', 'review', 'blocked')),
    -- Joined by commas, as in the reference; empty where none fired.
    fraud_indicators TEXT NOT NULL,
    event_time       TEXT NOT NULL,
    processed_at     TEXT NOT NULL,
    ruleset_version  TEXT NOT NULL,
    late             INTEGER NOT NULL,
    contributions    TEXT NOT NULL,
    created_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    PRIMARY KEY (user_id, transaction_id)
) STRICT;

CREATE INDEX fraud_analysis_by_id ON fraud_analysis (transaction_id);
CREATE INDEX fraud_analysis_by_time ON fraud_analysis (event_time, user_id, transaction_id);
CREATE INDEX fraud_analysis_by_user ON fraud_analysis (user_id, event_time, transaction_id);
-- Nearly everything is approved: that needs no index of its own beside the one by time.
CREATE INDEX fraud_analysis_alerts ON fraud_analysis (status, event_time, user_id, transaction_id)
    WHERE status <> 'approved';

-- How many decisions there are of each kind, kept by the store itself in the transaction that changes them, so that
-- statistics cost the same over a thousand rows and over a billion. Score buckets are ten points wide; the last is open.
CREATE TABLE decision_counts (
    status           TEXT NOT NULL,
    fraud_indicators TEXT NOT NULL,
    score_bucket     INTEGER NOT NULL,
    decisions        INTEGER NOT NULL,
    last_processed   TEXT NOT NULL,
    PRIMARY KEY (status, fraud_indicators, score_bucket)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER fraud_analysis_inserted AFTER INSERT ON fraud_analysis BEGIN
    INSERT INTO decision_counts
    VALUES (new.status, new.fraud_indicators, min(max(CAST(new.fraud_score / 10 AS INTEGER), 0), 14), 1, new.processed_at)
    ON CONFLICT (status, fraud_indicators, score_bucket) DO UPDATE
    SET decisions = decisions + 1, last_processed = max(last_processed, excluded.last_processed);
END;

CREATE TRIGGER fraud_analysis_deleted AFTER DELETE ON fraud_analysis BEGIN
    UPDATE decision_counts SET decisions = decisions - 1
    WHERE status = old.status AND fraud_indicators = old.fraud_indicators
      AND score_bucket = min(max(CAST(old.fraud_score / 10 AS INTEGER), 0), 14);
END;
