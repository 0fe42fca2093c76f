-- Both tables by month of the event time, so that a month is dropped in an instant instead of deleting its rows.
--
-- The rows that are there stay where they are: their tables become the partitions of all months up to this one. Writers and
-- readers wait while both tables are read once, which checks that no row is of a later month. Nothing is written anew, and
-- no index is built. A key is unique over all months by decision_keys, so that the months need no unique indexes; the
-- keys of the rows that are there are not repeated in it, and are looked up in transactions_before.
-- The previous version runs on these tables too: see claim_decision.
CREATE TABLE decision_keys (
    user_id         TEXT COLLATE "C" NOT NULL,
    transaction_id  TEXT COLLATE "C" NOT NULL,
    tenant          TEXT COLLATE "C" NOT NULL,
    conflict_amount TEXT COLLATE "C" NOT NULL,
    event_time      TIMESTAMPTZ NOT NULL,
    -- Decisions are looked up by the id of the transaction, with or without the others.
    PRIMARY KEY (transaction_id, user_id, tenant, conflict_amount)
);
-- While the keys of dropped months are being deleted, block by block.
CREATE TABLE expired_keys (
    id     SMALLINT PRIMARY KEY CHECK (id = 1),
    before TIMESTAMPTZ NOT NULL,
    block  BIGINT NOT NULL
);

-- From here on until the commit nobody reads or writes.
ALTER TABLE transactions RENAME TO transactions_before;
ALTER TABLE fraud_analysis RENAME TO fraud_analysis_before;
ALTER INDEX transactions_pkey RENAME TO transactions_before_pkey;
ALTER INDEX fraud_analysis_pkey RENAME TO fraud_analysis_before_pkey;
ALTER INDEX fraud_analysis_by_id RENAME TO fraud_analysis_before_by_id;
ALTER INDEX fraud_analysis_by_time RENAME TO fraud_analysis_before_by_time;
ALTER INDEX fraud_analysis_by_user RENAME TO fraud_analysis_before_by_user;
ALTER INDEX fraud_analysis_alerts RENAME TO fraud_analysis_before_alerts;
ALTER INDEX fraud_analysis_by_tenant RENAME TO fraud_analysis_before_by_tenant;
DROP TRIGGER fraud_analysis_inserted ON fraud_analysis_before;
DROP TRIGGER fraud_analysis_deleted ON fraud_analysis_before;
DROP TRIGGER fraud_analysis_truncated ON fraud_analysis_before;

CREATE TABLE transactions (LIKE transactions_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
    PARTITION BY RANGE (event_time);
CREATE TABLE fraud_analysis (LIKE fraud_analysis_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
    PARTITION BY RANGE (event_time);
-- Indexes of these definitions are there in fraud_analysis_before, and are taken over. That of the keys of transactions is
-- made with each partition: the one that is there is unique, and would not be taken over.
CREATE INDEX fraud_analysis_by_time ON fraud_analysis (event_time, user_id, transaction_id, conflict_amount, tenant);
CREATE INDEX fraud_analysis_by_user ON fraud_analysis (user_id, event_time, transaction_id, conflict_amount, tenant);
CREATE INDEX fraud_analysis_alerts ON fraud_analysis (status, event_time, user_id, transaction_id, conflict_amount, tenant)
    WHERE status <> 'approved';
CREATE INDEX fraud_analysis_by_tenant ON fraud_analysis (tenant, event_time, user_id, transaction_id, conflict_amount)
    WHERE tenant <> '';
-- For event times far ahead or long ago, and for months whose partition is not there.
CREATE TABLE transactions_other PARTITION OF transactions DEFAULT;
CREATE INDEX transactions_other_by_key ON transactions_other (user_id, transaction_id, tenant, conflict_amount);
CREATE TABLE fraud_analysis_other PARTITION OF fraud_analysis DEFAULT;

DO $$
DECLARE
    -- The months from here on get partitions of their own; without rows, every month does.
    cutover TIMESTAMPTZ := (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF NOT EXISTS (SELECT FROM fraud_analysis_before) AND NOT EXISTS (SELECT FROM transactions_before) THEN
        RETURN;
    END IF;
    -- Few: their event time is ahead of the clock.
    WITH moved AS (
        DELETE FROM transactions_before WHERE event_time >= cutover RETURNING *
    ), kept AS (
        INSERT INTO decision_keys (user_id, transaction_id, tenant, conflict_amount, event_time)
        SELECT user_id, transaction_id, tenant, conflict_amount, event_time FROM moved
    )
    INSERT INTO transactions_other SELECT * FROM moved;
    WITH moved AS (
        DELETE FROM fraud_analysis_before WHERE event_time >= cutover RETURNING *
    )
    INSERT INTO fraud_analysis_other SELECT * FROM moved;
    EXECUTE format('ALTER TABLE transactions ATTACH PARTITION transactions_before FOR VALUES FROM (MINVALUE) TO (%L)', cutover);
    EXECUTE format('ALTER TABLE fraud_analysis ATTACH PARTITION fraud_analysis_before FOR VALUES FROM (MINVALUE) TO (%L)', cutover);
END;
$$;

-- Rows that a replica of the previous version inserts during a rolling update, or after a return to it: it does not know
-- decision_keys, and takes a row that is there for a conflict of a unique index. In its place, this claims the key, and
-- leaves out a row whose key has another event time or is there already. The writer of this version claims keys itself, and
-- says so by a setting of its transaction.
CREATE FUNCTION claim_decision() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    claimed TIMESTAMPTZ;
BEGIN
    -- Statements of each table, so that their plans are kept.
    IF TG_ARGV[0] = 'transactions' THEN
        IF EXISTS (SELECT FROM transactions_before t
                   WHERE (t.user_id, t.transaction_id, t.tenant, t.conflict_amount)
                       = (NEW.user_id, NEW.transaction_id, NEW.tenant, NEW.conflict_amount)) THEN
            RETURN NULL;
        END IF;
    ELSIF EXISTS (SELECT FROM fraud_analysis_before a
                  WHERE (a.user_id, a.transaction_id, a.tenant, a.conflict_amount)
                      = (NEW.user_id, NEW.transaction_id, NEW.tenant, NEW.conflict_amount)) THEN
        RETURN NULL;
    END IF;
    -- Waits for another writer that has claimed the key and not committed yet.
    INSERT INTO decision_keys (user_id, transaction_id, tenant, conflict_amount, event_time)
    VALUES (NEW.user_id, NEW.transaction_id, NEW.tenant, NEW.conflict_amount, NEW.event_time)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN NEW;
    END IF;
    SELECT k.event_time INTO claimed FROM decision_keys k
    WHERE (k.user_id, k.transaction_id, k.tenant, k.conflict_amount)
        = (NEW.user_id, NEW.transaction_id, NEW.tenant, NEW.conflict_amount);
    IF claimed IS DISTINCT FROM NEW.event_time THEN
        RETURN NULL;
    END IF;
    IF TG_ARGV[0] = 'transactions' THEN
        IF EXISTS (SELECT FROM transactions t
                   WHERE (t.user_id, t.transaction_id, t.tenant, t.conflict_amount, t.event_time)
                       = (NEW.user_id, NEW.transaction_id, NEW.tenant, NEW.conflict_amount, NEW.event_time)) THEN
            RETURN NULL;
        END IF;
    ELSIF EXISTS (SELECT FROM fraud_analysis a
                  WHERE (a.user_id, a.transaction_id, a.tenant, a.conflict_amount, a.event_time)
                      = (NEW.user_id, NEW.transaction_id, NEW.tenant, NEW.conflict_amount, NEW.event_time)) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END;
$$;
CREATE TRIGGER transactions_claimed BEFORE INSERT ON transactions FOR EACH ROW
    WHEN (current_setting('tollgate.keys', true) IS DISTINCT FROM 'claimed')
    EXECUTE FUNCTION claim_decision('transactions');
CREATE TRIGGER fraud_analysis_claimed BEFORE INSERT ON fraud_analysis FOR EACH ROW
    WHEN (current_setting('tollgate.keys', true) IS DISTINCT FROM 'claimed')
    EXECUTE FUNCTION claim_decision('fraud_analysis');

-- Counts by month too, so that they go with a dropped one. Those of the rows before stand under -infinity.
ALTER TABLE decision_counts
    ADD COLUMN month DATE NOT NULL DEFAULT '-infinity',
    DROP CONSTRAINT decision_counts_pkey,
    ADD PRIMARY KEY (tenant, status, fraud_indicators, score_bucket, month);

CREATE OR REPLACE FUNCTION count_decisions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign CONSTANT BIGINT := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    -- Every writer takes the rows in the same order, so that no two wait for each other.
    INSERT INTO decision_counts AS kept (tenant, status, fraud_indicators, score_bucket, month, decisions, last_processed)
    SELECT tenant, status, counted_as,
           -- The ends by comparison: a division may leave the range, and would refuse the row.
           CASE WHEN fraud_score < 10 THEN 0 WHEN fraud_score >= 140 THEN 14 ELSE floor(fraud_score / 10) END::smallint,
           month, sign * count(*), max(processed_at)
    FROM (
        SELECT tenant, status, fraud_score, processed_at,
               date_trunc('month', event_time AT TIME ZONE 'UTC')::date AS month,
               CASE WHEN octet_length(fraud_indicators) <= 2000 THEN fraud_indicators
                    ELSE regexp_replace(left(fraud_indicators, 2000), ',[^,]*$', '')
               END AS counted_as
        FROM changed
    ) AS each
    GROUP BY 1, 2, 3, 4, 5
    ORDER BY tenant COLLATE "C", status COLLATE "C", counted_as COLLATE "C", 4, 5
    ON CONFLICT (tenant, status, fraud_indicators, score_bucket, month) DO UPDATE
    SET decisions = kept.decisions + excluded.decisions,
        last_processed = greatest(kept.last_processed, excluded.last_processed);
    RETURN NULL;
END;
$$;

CREATE TRIGGER fraud_analysis_inserted AFTER INSERT ON fraud_analysis
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_decisions();
CREATE TRIGGER fraud_analysis_deleted AFTER DELETE ON fraud_analysis
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_decisions();
CREATE TRIGGER fraud_analysis_truncated AFTER TRUNCATE ON fraud_analysis
    FOR EACH STATEMENT EXECUTE FUNCTION forget_decision_counts();
