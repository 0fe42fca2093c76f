-- Ids compare byte by byte (COLLATE "C"): faster, and the same order here, in SQLite and in Rust.
-- JSON, not JSONB: a transaction is kept as its producer wrote it, with \u0000, half surrogate pairs, repeated
-- members and every digit.
CREATE TABLE transactions (
    user_id        TEXT COLLATE "C" NOT NULL,
    transaction_id TEXT COLLATE "C" NOT NULL,
    amount         NUMERIC(18, 4) NOT NULL,
    event_time     TIMESTAMPTZ NOT NULL,
    body           JSON NOT NULL,
    PRIMARY KEY (user_id, transaction_id)
);

CREATE TABLE fraud_analysis (
    user_id          TEXT COLLATE "C" NOT NULL,
    transaction_id   TEXT COLLATE "C" NOT NULL,
    fraud_score      DOUBLE PRECISION NOT NULL,
    status           TEXT NOT NULL CHECK (status IN ('approved', 'review', 'blocked')),
    -- Joined by commas, as in the reference; empty where none fired.
    fraud_indicators TEXT NOT NULL,
    event_time       TIMESTAMPTZ NOT NULL,
    processed_at     TIMESTAMPTZ NOT NULL,
    ruleset_version  TEXT NOT NULL,
    late             BOOLEAN NOT NULL,
    contributions    JSON NOT NULL,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, transaction_id)
);

CREATE INDEX fraud_analysis_by_id ON fraud_analysis (transaction_id);
CREATE INDEX fraud_analysis_by_time ON fraud_analysis (event_time, user_id, transaction_id);
CREATE INDEX fraud_analysis_by_user ON fraud_analysis (user_id, event_time, transaction_id);
-- Nearly everything is approved: that needs no index of its own beside the one by time.
CREATE INDEX fraud_analysis_alerts ON fraud_analysis (status, event_time, user_id, transaction_id)
    WHERE status <> 'approved';

-- How many decisions there are of each kind, kept by the store itself in the transaction that changes them, so that
-- statistics cost the same over a thousand rows and over a billion. Score buckets are ten points wide; the last is open.
CREATE TABLE decision_counts (
    status           TEXT COLLATE "C" NOT NULL,
    fraud_indicators TEXT COLLATE "C" NOT NULL,
    score_bucket     SMALLINT NOT NULL,
    decisions        BIGINT NOT NULL,
    last_processed   TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (status, fraud_indicators, score_bucket)
) WITH (fillfactor = 30);

CREATE FUNCTION count_decisions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign CONSTANT BIGINT := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    -- Every writer takes the rows in the same order, so that no two wait for each other.
    INSERT INTO decision_counts AS kept (status, fraud_indicators, score_bucket, decisions, last_processed)
    SELECT status, fraud_indicators,
           -- The ends by comparison: a division may leave the range, and would refuse the row.
           CASE WHEN fraud_score < 10 THEN 0 WHEN fraud_score >= 140 THEN 14 ELSE floor(fraud_score / 10) END::smallint,
           sign * count(*), max(processed_at)
    FROM changed
    GROUP BY 1, 2, 3
    ORDER BY status COLLATE "C", fraud_indicators COLLATE "C", 3
    ON CONFLICT (status, fraud_indicators, score_bucket) DO UPDATE
    SET decisions = kept.decisions + excluded.decisions,
        last_processed = greatest(kept.last_processed, excluded.last_processed);
    RETURN NULL;
END;
$$;

CREATE FUNCTION forget_decision_counts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM decision_counts;
    RETURN NULL;
END;
$$;

CREATE TRIGGER fraud_analysis_inserted AFTER INSERT ON fraud_analysis
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_decisions();
CREATE TRIGGER fraud_analysis_deleted AFTER DELETE ON fraud_analysis
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_decisions();
CREATE TRIGGER fraud_analysis_truncated AFTER TRUNCATE ON fraud_analysis
    FOR EACH STATEMENT EXECUTE FUNCTION forget_decision_counts();
