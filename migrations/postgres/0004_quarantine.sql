-- Addresses and numbers that were given up: for a while nobody but their last account may have them, so that nobody
-- inherits a predecessor's mail or calls; and mailboxes that must be looked at again at an instant (their grace is
-- over, a former address ends). Twin of sqlite/0004_quarantine.sql.

CREATE TABLE quarantine (
    kind TEXT NOT NULL CHECK (kind IN ('mailbox', 'number')),
    value TEXT NOT NULL,
    account_id BIGINT NOT NULL REFERENCES account (id),
    tenant TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    released_at BIGINT,
    released_by TEXT,
    with_mail BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (kind, value)
);
CREATE INDEX quarantine_until ON quarantine (until_at);

-- What was given up before this table was there is kept for the usual 180 and 90 days.
INSERT INTO quarantine (kind, value, account_id, tenant, from_at, until_at)
SELECT last.kind, last.value, last.account_id, account.tenant, last.until_at,
       last.until_at + CASE last.kind WHEN 'mailbox' THEN 15552000000000 ELSE 7776000000000 END
FROM holder AS last JOIN account ON account.id = last.account_id
WHERE last.kind IN ('mailbox', 'number') AND last.until_at IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM holder AS other WHERE other.kind = last.kind AND other.value = last.value
                  AND (other.until_at IS NULL OR (other.until_at, other.id) > (last.until_at, last.id)));

CREATE TABLE mailbox_wake (
    element_id BIGINT NOT NULL PRIMARY KEY REFERENCES element (id),
    at BIGINT NOT NULL
);
CREATE INDEX mailbox_wake_at ON mailbox_wake (at);
