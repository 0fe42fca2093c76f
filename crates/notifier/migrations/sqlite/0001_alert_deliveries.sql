-- What each sink has: one row an alert delivered, so that a redelivered alert is not sent twice.
-- delivered_at: microseconds since 1970.
CREATE TABLE alert_deliveries (
    sink           TEXT    NOT NULL,
    user_id        TEXT    NOT NULL,
    transaction_id TEXT    NOT NULL,
    delivered_at   INTEGER NOT NULL,
    PRIMARY KEY (sink, user_id, transaction_id)
) WITHOUT ROWID;

-- The purge walks from the oldest.
CREATE INDEX alert_deliveries_delivered_at ON alert_deliveries (delivered_at);
