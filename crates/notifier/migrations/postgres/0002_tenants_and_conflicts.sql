-- Equal ids in two tenants are two alerts, and so is another amount under an id that is taken. Both columns are empty for the
-- first decision in the default tenant. The previous version does not name the key in ON CONFLICT: it runs on this table too.
ALTER TABLE alert_deliveries
    ADD COLUMN tenant text NOT NULL DEFAULT '',
    ADD COLUMN conflict_amount text NOT NULL DEFAULT '',
    DROP CONSTRAINT alert_deliveries_pkey,
    ADD PRIMARY KEY (sink, user_id, transaction_id, tenant, conflict_amount);
