-- Equal ids in two tenants are two alerts, and so is another amount under an id that is taken. Both columns are empty for the
-- first decision in the default tenant. SQLite cannot change a primary key, so the rows are copied.
CREATE TABLE alert_deliveries_new (
    sink            TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    transaction_id  TEXT    NOT NULL,
    delivered_at    INTEGER NOT NULL,
    tenant          TEXT    NOT NULL DEFAULT '',
    conflict_amount TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (sink, user_id, transaction_id, tenant, conflict_amount)
) WITHOUT ROWID;
INSERT INTO alert_deliveries_new (sink, user_id, transaction_id, delivered_at)
SELECT sink, user_id, transaction_id, delivered_at FROM alert_deliveries;
DROP TABLE alert_deliveries;
ALTER TABLE alert_deliveries_new RENAME TO alert_deliveries;
CREATE INDEX alert_deliveries_delivered_at ON alert_deliveries (delivered_at);
