-- What each sink has: one row an alert delivered, so that a redelivered alert is not sent twice.
CREATE TABLE alert_deliveries (
    sink           text        NOT NULL,
    user_id        text        NOT NULL,
    transaction_id text        NOT NULL,
    delivered_at   timestamptz NOT NULL,
    PRIMARY KEY (sink, user_id, transaction_id)
);

-- The purge walks from the oldest.
CREATE INDEX alert_deliveries_delivered_at ON alert_deliveries (delivered_at);
