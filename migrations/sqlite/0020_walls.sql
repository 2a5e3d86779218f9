-- The audit as a chain: a claimed sealer gives each deed its place in its tenant's chain and the hash of all before it, and
-- signs how far the chain has come. And what privacy needs: legal holds, erasures, how far retention has come.
-- Twin of postgres/0020_walls.sql.

-- Written once, by the sealer. Subject and detail stand in the chain by a salted commitment, so that they can be erased.
ALTER TABLE audit ADD COLUMN chain_sequence BIGINT;
ALTER TABLE audit ADD COLUMN chain_salt BLOB;
ALTER TABLE audit ADD COLUMN chain_commitment BLOB;
ALTER TABLE audit ADD COLUMN chain_hash BLOB;
CREATE INDEX audit_unsealed ON audit (id) WHERE chain_sequence IS NULL;
CREATE UNIQUE INDEX audit_place ON audit (COALESCE(tenant, ''), chain_sequence) WHERE chain_sequence IS NOT NULL;

-- How far each chain has come ('' is the installation), and behind which deed it begins since retention took the oldest.
-- Both ends are signed with the installation's key.
CREATE TABLE audit_chain (
    tenant TEXT NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    hash BLOB NOT NULL,
    sealed_at BIGINT NOT NULL,
    signature BLOB NOT NULL,
    floor_sequence BIGINT NOT NULL,
    floor_hash BLOB NOT NULL,
    floor_at BIGINT NOT NULL,
    floor_signature BLOB NOT NULL
);

-- While one stands, nothing of the account is erased or dropped for its age.
CREATE TABLE legal_hold (
    id INTEGER PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    reason TEXT NOT NULL,
    case_number TEXT,
    placed_by TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    lifted_at BIGINT,
    lifted_by TEXT
);
CREATE UNIQUE INDEX legal_hold_standing ON legal_hold (account_id) WHERE lifted_at IS NULL;

-- Accounts whose person was forgotten.
CREATE TABLE erasure (
    account_id BIGINT NOT NULL PRIMARY KEY REFERENCES account (id),
    reason TEXT NOT NULL,
    erased_by TEXT NOT NULL,
    erased_at BIGINT NOT NULL
);
