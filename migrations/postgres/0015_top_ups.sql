-- Top-ups of allowances, and which accounts may share one under a parent. Twin of sqlite/0015_top_ups.sql.

-- What a posted charge of the type top_up grants; never changed. `amount` is octets, seconds or sessions, `price` what one
-- piece costs. `pool` is whose allowance it was made for, `head` the account whose family that is. What is left of one
-- follows from the lines, never from here.
CREATE TABLE allowance_grant (
    id BIGINT PRIMARY KEY NOT NULL REFERENCES posted_charge (id),
    account_id BIGINT NOT NULL REFERENCES account (id),
    cycle TEXT NOT NULL,
    service TEXT NOT NULL,
    tariff TEXT NOT NULL,
    charge TEXT NOT NULL,
    pool TEXT NOT NULL CHECK (pool IN ('service', 'account', 'parent')),
    head TEXT CHECK ((head IS NOT NULL) = (pool = 'parent')),
    amount BIGINT NOT NULL CHECK (amount > 0),
    price TEXT,
    from_at BIGINT NOT NULL,
    until_at BIGINT CHECK (until_at > from_at)
);
CREATE INDEX allowance_grant_account ON allowance_grant (account_id, cycle);

-- Every parent an account ever had: whose usage must be read together. Since when it had which is in its services' history.
CREATE TABLE account_family (
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    head TEXT NOT NULL,
    account_id BIGINT NOT NULL REFERENCES account (id),
    PRIMARY KEY (tenant, source, head, account_id)
);
CREATE INDEX account_family_account ON account_family (account_id);
