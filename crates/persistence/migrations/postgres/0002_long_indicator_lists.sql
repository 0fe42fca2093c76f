-- A decision may name any number of indicators, but an index entry holds at most 2,704 bytes. A decision whose names take
-- more than 2,000 bytes is counted under the first of them that fit; fraud_analysis itself keeps all of them.
-- Shorter lists are counted as before, so that the previous version runs on these tables too.
CREATE OR REPLACE FUNCTION count_decisions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign CONSTANT BIGINT := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    -- Every writer takes the rows in the same order, so that no two wait for each other.
    INSERT INTO decision_counts AS kept (status, fraud_indicators, score_bucket, decisions, last_processed)
    SELECT status, counted_as,
           -- The ends by comparison: a division may leave the range, and would refuse the row.
           CASE WHEN fraud_score < 10 THEN 0 WHEN fraud_score >= 140 THEN 14 ELSE floor(fraud_score / 10) END::smallint,
           sign * count(*), max(processed_at)
    FROM (
        SELECT status, fraud_score, processed_at,
               CASE WHEN octet_length(fraud_indicators) <= 2000 THEN fraud_indicators
                    ELSE regexp_replace(left(fraud_indicators, 2000), ',[^,]*$', '')
               END AS counted_as
        FROM changed
    ) AS each
    GROUP BY 1, 2, 3
    ORDER BY status COLLATE "C", counted_as COLLATE "C", 3
    ON CONFLICT (status, fraud_indicators, score_bucket) DO UPDATE
    SET decisions = kept.decisions + excluded.decisions,
        last_processed = greatest(kept.last_processed, excluded.last_processed);
    RETURN NULL;
END;
$$;
