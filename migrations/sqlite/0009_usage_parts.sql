-- What tells usage apart that is rated otherwise: the class of a session, decided when its owner is found, and of the
-- ledger entries written of it. Both stay as they are, so that rating again gives the same lines.
-- And telephone calls, each imported once; the ledger entry of a call has the opposite of its id as session.
-- Twin of postgres/0009_usage_parts.sql.

-- RADIUS Class, as the NAS sent it first.
ALTER TABLE session ADD COLUMN class TEXT;
ALTER TABLE session ADD COLUMN usage_class TEXT;
ALTER TABLE ledger ADD COLUMN class TEXT;

CREATE TABLE call_record (
    id INTEGER PRIMARY KEY,
    -- What makes two records the same call.
    digest TEXT NOT NULL UNIQUE,
    number TEXT NOT NULL,
    destination TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seconds BIGINT NOT NULL,
    imported_at BIGINT NOT NULL,
    account_id BIGINT,
    service_id BIGINT
);
CREATE INDEX call_record_unattributed ON call_record (number) WHERE account_id IS NULL;
