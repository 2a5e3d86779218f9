-- Thresholds of what subscribers used, and the events a tenant is told of. Twin of sqlite/0012_thresholds.sql.

-- What happened, for whoever wants to follow: written in the transaction of what it tells (an outbox), with a sequence that
-- is dense per tenant in the order of commits. Delivery keeps its own place by (tenant, sequence).
CREATE TABLE event (
    tenant TEXT NOT NULL,
    sequence BIGINT NOT NULL CHECK (sequence > 0),
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    occurred_at BIGINT NOT NULL,
    payload TEXT NOT NULL,
    PRIMARY KEY (tenant, sequence)
);
CREATE INDEX event_old ON event (occurred_at);

-- The last sequence of each tenant. Its row is locked until the event's transaction ends: so numbers have no gap and come in
-- the order of commits.
CREATE TABLE event_sequence (
    tenant TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);

-- Services whose thresholds are to be looked at, written in the transaction that counted their usage. `asked` grows with each
-- wish, so that one that came during a look is not taken for done.
CREATE TABLE threshold_look (
    service_id BIGINT NOT NULL,
    period_start_at BIGINT NOT NULL,
    asked BIGINT NOT NULL,
    PRIMARY KEY (service_id, period_start_at)
);

-- Below these totals of a service in a period nothing can have been crossed, so that it need not be looked at. True for one
-- version of the catalog and for the service's facts up to `facts_id` (a row of service_history).
CREATE TABLE threshold_guard (
    service_id BIGINT NOT NULL,
    period_start_at BIGINT NOT NULL,
    period_end_at BIGINT NOT NULL,
    catalog_version BIGINT NOT NULL,
    facts_id BIGINT NOT NULL,
    in_octets BIGINT NOT NULL,
    out_octets BIGINT NOT NULL,
    octets BIGINT NOT NULL,
    seconds BIGINT NOT NULL,
    sessions BIGINT NOT NULL,
    PRIMARY KEY (service_id, period_start_at)
);
CREATE INDEX threshold_guard_ended ON threshold_guard (period_end_at);

-- Thresholds that were crossed: each once in a period of a service. `rearmed_at`: its bound moved above what was used, and it
-- may be crossed once more. Quantities are exact decimals in the unit of the charge.
CREATE TABLE threshold_mark (
    service_id BIGINT NOT NULL,
    period_start_at BIGINT NOT NULL,
    tariff TEXT NOT NULL,
    meter TEXT NOT NULL,
    threshold TEXT NOT NULL,
    bound TEXT NOT NULL,
    used TEXT NOT NULL,
    crossed_at BIGINT NOT NULL,
    rearmed_at BIGINT,
    PRIMARY KEY (service_id, period_start_at, tariff, meter, threshold)
);
CREATE INDEX threshold_mark_old ON threshold_mark (period_start_at);
