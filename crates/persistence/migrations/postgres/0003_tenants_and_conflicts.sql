-- Rows of the default tenant have an empty tenant, and rows of the first decision on a transaction an empty
-- conflict_amount. A conflict, which is another amount under an id that is taken, is a row of its own beside the first.
-- Columns with a constant default are added without rewriting the tables. The previous version names its columns and does
-- not name the key in ON CONFLICT: it runs on these tables too.
ALTER TABLE transactions
    ADD COLUMN tenant TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN conflict_amount TEXT COLLATE "C" NOT NULL DEFAULT '',
    DROP CONSTRAINT transactions_pkey,
    ADD PRIMARY KEY (user_id, transaction_id, tenant, conflict_amount);
ALTER TABLE fraud_analysis
    ADD COLUMN tenant TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN conflict_amount TEXT COLLATE "C" NOT NULL DEFAULT '',
    DROP CONSTRAINT fraud_analysis_pkey,
    ADD PRIMARY KEY (user_id, transaction_id, tenant, conflict_amount);

-- Reads are of one tenant or of all. Nearly everything is of the default tenant, or of a few.
DROP INDEX fraud_analysis_by_id, fraud_analysis_by_time, fraud_analysis_by_user, fraud_analysis_alerts;
CREATE INDEX fraud_analysis_by_id ON fraud_analysis (transaction_id);
CREATE INDEX fraud_analysis_by_time ON fraud_analysis (event_time, user_id, transaction_id, conflict_amount, tenant);
CREATE INDEX fraud_analysis_by_user ON fraud_analysis (user_id, event_time, transaction_id, conflict_amount, tenant);
CREATE INDEX fraud_analysis_alerts ON fraud_analysis (status, event_time, user_id, transaction_id, conflict_amount, tenant)
    WHERE status <> 'approved';
CREATE INDEX fraud_analysis_by_tenant ON fraud_analysis (tenant, event_time, user_id, transaction_id, conflict_amount)
    WHERE tenant <> '';

ALTER TABLE decision_counts
    ADD COLUMN tenant TEXT COLLATE "C" NOT NULL DEFAULT '',
    DROP CONSTRAINT decision_counts_pkey,
    ADD PRIMARY KEY (tenant, status, fraud_indicators, score_bucket);

CREATE OR REPLACE FUNCTION count_decisions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign CONSTANT BIGINT := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    -- Every writer takes the rows in the same order, so that no two wait for each other.
    INSERT INTO decision_counts AS kept (tenant, status, fraud_indicators, score_bucket, decisions, last_processed)
    SELECT tenant, status, counted_as,
           -- The ends by comparison: a division may leave the range, and would refuse the row.
           CASE WHEN fraud_score < 10 THEN 0 WHEN fraud_score >= 140 THEN 14 ELSE floor(fraud_score / 10) END::smallint,
           sign * count(*), max(processed_at)
    FROM (
        SELECT tenant, status, fraud_score, processed_at,
               CASE WHEN octet_length(fraud_indicators) <= 2000 THEN fraud_indicators
                    ELSE regexp_replace(left(fraud_indicators, 2000), ',[^,]*$', '')
               END AS counted_as
        FROM changed
    ) AS each
    GROUP BY 1, 2, 3, 4
    ORDER BY tenant COLLATE "C", status COLLATE "C", counted_as COLLATE "C", 4
    ON CONFLICT (tenant, status, fraud_indicators, score_bucket) DO UPDATE
    SET decisions = kept.decisions + excluded.decisions,
        last_processed = greatest(kept.last_processed, excluded.last_processed);
    RETURN NULL;
END;
$$;
