-- Bills that are checked before they are closed, what a policy holds back, what a check of a month's end finds; and the
-- sum of every period's ledger entries, so that closing it need not read them. Twin of postgres/0011_batches.sql.

-- A draft stays `building`, invisible to whoever pulls lines, and `stage` says how far it is.
ALTER TABLE batch ADD COLUMN stage TEXT CHECK (stage IN ('draft', 'checked'));
ALTER TABLE batch ADD COLUMN checked_at BIGINT;
ALTER TABLE batch ADD COLUMN approved_at BIGINT;
ALTER TABLE batch ADD COLUMN approved_by TEXT;

-- A correction that policy keeps off the invoice, as the run of `batch` found it: in force once that batch is closed.
-- `reason` 'none' says that this run no longer holds it.
CREATE TABLE held_correction (
    batch TEXT NOT NULL REFERENCES batch (id),
    account_id BIGINT NOT NULL REFERENCES account (id),
    cycle TEXT NOT NULL,
    service TEXT NOT NULL,
    addon TEXT NOT NULL,
    charge TEXT NOT NULL,
    tariff TEXT NOT NULL,
    tariff_version BIGINT NOT NULL,
    period_start_at BIGINT NOT NULL,
    period_end_at BIGINT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN ('too_old', 'too_small', 'none')),
    held_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, cycle, service, addon, charge, tariff, tariff_version, period_start_at, batch)
);
CREATE INDEX held_correction_of_batch ON held_correction (batch);

-- What a check or a comparison of one period found, and who lives with it and why. `numbers` is JSON.
CREATE TABLE bill_finding (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    cycle TEXT NOT NULL,
    period_start_at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    advice TEXT NOT NULL,
    numbers TEXT NOT NULL,
    found_at BIGINT NOT NULL,
    waived_at BIGINT,
    waived_by TEXT,
    waived_because TEXT
);
CREATE INDEX bill_finding_of_period ON bill_finding (tenant, cycle, period_start_at, kind, id);

-- The sum of a service's ledger entries by the period they begin in (-1: their period was not known), written with them.
-- `f0` to `f7`: the entries' fingerprint. Not `whole`: entries were written before this table was.
CREATE TABLE ledger_total (
    service_id BIGINT NOT NULL,
    period_start_at BIGINT NOT NULL,
    whole BOOLEAN NOT NULL,
    last_sequence BIGINT NOT NULL,
    records BIGINT NOT NULL,
    in_octets BIGINT NOT NULL,
    out_octets BIGINT NOT NULL,
    seconds BIGINT NOT NULL,
    sessions BIGINT NOT NULL,
    f0 BIGINT NOT NULL,
    f1 BIGINT NOT NULL,
    f2 BIGINT NOT NULL,
    f3 BIGINT NOT NULL,
    f4 BIGINT NOT NULL,
    f5 BIGINT NOT NULL,
    f6 BIGINT NOT NULL,
    f7 BIGINT NOT NULL,
    PRIMARY KEY (service_id, period_start_at)
) WITHOUT ROWID;
INSERT INTO ledger_total
    SELECT service_id, period_start_at, FALSE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM usage_total;
