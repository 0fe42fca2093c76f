-- Rows of the default tenant have an empty tenant, and rows of the first decision on a transaction an empty
-- conflict_amount. A conflict, which is another amount under an id that is taken, is a row of its own beside the first.
-- SQLite cannot change the key of a table: the rows are copied. Triggers and indexes go with the old tables.
CREATE TABLE new_transactions (
    user_id         TEXT NOT NULL,
    transaction_id  TEXT NOT NULL,
    amount          TEXT NOT NULL,
    event_time      TEXT NOT NULL,
    body            TEXT NOT NULL,
    tenant          TEXT NOT NULL DEFAULT '',
    conflict_amount TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (user_id, transaction_id, tenant, conflict_amount)
) STRICT;
INSERT INTO new_transactions (user_id, transaction_id, amount, event_time, body)
SELECT user_id, transaction_id, amount, event_time, body FROM transactions ORDER BY rowid;
DROP TABLE transactions;
ALTER TABLE new_transactions RENAME TO transactions;

CREATE TABLE new_fraud_analysis (
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
    tenant           TEXT NOT NULL DEFAULT '',
    conflict_amount  TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (user_id, transaction_id, tenant, conflict_amount)
) STRICT;
INSERT INTO new_fraud_analysis (user_id, transaction_id, fraud_score, status, fraud_indicators, event_time, processed_at,
                                ruleset_version, late, contributions, created_at)
SELECT user_id, transaction_id, fraud_score, status, fraud_indicators, event_time, processed_at,
       ruleset_version, late, contributions, created_at FROM fraud_analysis ORDER BY rowid;
DROP TABLE fraud_analysis;
ALTER TABLE new_fraud_analysis RENAME TO fraud_analysis;

-- Reads are of one tenant or of all. Nearly everything is of the default tenant, or of a few.
CREATE INDEX fraud_analysis_by_id ON fraud_analysis (transaction_id);
CREATE INDEX fraud_analysis_by_time ON fraud_analysis (event_time, user_id, transaction_id, conflict_amount, tenant);
CREATE INDEX fraud_analysis_by_user ON fraud_analysis (user_id, event_time, transaction_id, conflict_amount, tenant);
CREATE INDEX fraud_analysis_alerts ON fraud_analysis (status, event_time, user_id, transaction_id, conflict_amount, tenant)
    WHERE status <> 'approved';
CREATE INDEX fraud_analysis_by_tenant ON fraud_analysis (tenant, event_time, user_id, transaction_id, conflict_amount)
    WHERE tenant <> '';

CREATE TABLE new_decision_counts (
    tenant           TEXT NOT NULL,
    status           TEXT NOT NULL,
    fraud_indicators TEXT NOT NULL,
    score_bucket     INTEGER NOT NULL,
    decisions        INTEGER NOT NULL,
    last_processed   TEXT NOT NULL,
    PRIMARY KEY (tenant, status, fraud_indicators, score_bucket)
) STRICT, WITHOUT ROWID;
INSERT INTO new_decision_counts
SELECT '', status, fraud_indicators, score_bucket, decisions, last_processed FROM decision_counts;
DROP TABLE decision_counts;
ALTER TABLE new_decision_counts RENAME TO decision_counts;

CREATE TRIGGER fraud_analysis_inserted AFTER INSERT ON fraud_analysis BEGIN
    INSERT INTO decision_counts
    VALUES (new.tenant, new.status, new.fraud_indicators, min(max(CAST(new.fraud_score / 10 AS INTEGER), 0), 14), 1,
            new.processed_at)
    ON CONFLICT (tenant, status, fraud_indicators, score_bucket) DO UPDATE
    SET decisions = decisions + 1, last_processed = max(last_processed, excluded.last_processed);
END;

CREATE TRIGGER fraud_analysis_deleted AFTER DELETE ON fraud_analysis BEGIN
    UPDATE decision_counts SET decisions = decisions - 1
    WHERE tenant = old.tenant AND status = old.status AND fraud_indicators = old.fraud_indicators
      AND score_bucket = min(max(CAST(old.fraud_score / 10 AS INTEGER), 0), 14);
END;
