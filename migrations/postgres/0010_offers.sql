-- Charges that are posted for an account by hand or by its billing system; cycles that accounts have left, which may still
-- have to bill them; whom a count charge counted, by the digest that its line names. Twin of sqlite/0010_offers.sql.

-- Never changed: a mistake is answered by a credit. `cycle` is the account's when it was posted, and bills it.
CREATE TABLE posted_charge (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    account_id BIGINT NOT NULL REFERENCES account (id),
    external_id TEXT,
    cycle TEXT NOT NULL,
    on_date TEXT NOT NULL,
    currency TEXT NOT NULL,
    document TEXT NOT NULL,
    posted_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (account_id, external_id)
);

CREATE TABLE left_cycle (
    account_id BIGINT NOT NULL REFERENCES account (id),
    cycle TEXT NOT NULL,
    left_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, cycle)
);

-- Whoever changed the cycle before this table was there.
INSERT INTO left_cycle (account_id, cycle, left_at)
SELECT history.account_id, (history.detail::JSONB ->> 'bill_cycle'), MAX(history.from_at)
FROM service_history AS history JOIN account ON account.id = history.account_id
WHERE (history.detail::JSONB ->> 'bill_cycle') <> account.bill_cycle
GROUP BY history.account_id, (history.detail::JSONB ->> 'bill_cycle');

CREATE TABLE count_list (
    digest TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    document TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
