-- What an erasure leaves behind: devices whose leases the builtin DHCP server must still let go of, and what a batch's lines
-- were before a description was taken out of one. And suspensions of single services that wait for an operator, beside what
-- waits of their account. Twin of postgres/0023_erased_and_held.sql.

-- A device of a person who was forgotten, by a keyed hash of its MAC: only whoever has the device can be found by it. The row
-- goes when no lease from before `asked_at` is left and the journal of leases was written anew.
CREATE TABLE forgotten_device (
    mac_hash BLOB NOT NULL PRIMARY KEY,
    asked_at BIGINT NOT NULL
);

-- `digest` as it was when the batch was closed, where a line has lost its description since; `digest` is of the lines as they
-- are given now.
ALTER TABLE batch ADD COLUMN closed_digest TEXT;

-- `service`: whose suspension waits; '' for a push or a closing, of which an account has one.
CREATE TABLE held_change_new (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    source TEXT NOT NULL,
    account TEXT NOT NULL,
    service TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL CHECK (kind IN ('push', 'close', 'suspend')),
    sealed BLOB NOT NULL,
    source_revision BIGINT,
    losses TEXT NOT NULL,
    actor TEXT NOT NULL,
    origin TEXT,
    times BIGINT NOT NULL,
    held_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (tenant, source, account, service),
    CHECK ((kind = 'suspend') = (service <> ''))
);
INSERT INTO held_change_new (id, tenant, source, account, kind, sealed, source_revision, losses, actor, origin, times, held_at,
    updated_at)
SELECT id, tenant, source, account, kind, sealed, source_revision, losses, actor, origin, times, held_at, updated_at
FROM held_change;
DROP TABLE held_change;
ALTER TABLE held_change_new RENAME TO held_change;
