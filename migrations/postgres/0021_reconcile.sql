-- Another company's lists of its subscribers beside ours: what was sent (sealed), what was found, which plan was applied;
-- and which account stands under which. Twin of sqlite/0021_reconcile.sql.

-- `said_complete`: who says that everybody is in it; `told_records`: how many records a manifest tells of. `only_steps`: which
-- steps are planned, all of them if it is not there. `report` and `result` are JSON. `losses`: accounts closed and services
-- taken away by applying it. A daemon that dies at it leaves `claimed_until` behind.
CREATE TABLE sync (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    source TEXT NOT NULL,
    profile TEXT,
    said_complete TEXT,
    told_records BIGINT,
    only_steps TEXT,
    as_of_at BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('receiving', 'received', 'planned', 'applying', 'applied', 'failed')),
    octets BIGINT NOT NULL,
    report TEXT,
    plan_hash TEXT,
    allow_deletions BIGINT,
    losses BIGINT NOT NULL DEFAULT 0,
    result TEXT,
    error TEXT,
    requested_by TEXT NOT NULL,
    applied_by TEXT,
    claimed_until BIGINT,
    created_at BIGINT NOT NULL,
    planned_at BIGINT,
    applied_at BIGINT
);
CREATE INDEX sync_of_tenant ON sync (tenant, created_at);
CREATE INDEX sync_waiting ON sync (created_at) WHERE state IN ('received', 'applying');

-- What was sent, in pieces.
CREATE TABLE sync_part (
    sync TEXT NOT NULL REFERENCES sync (id),
    number BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (sync, number)
);

-- What is not the same on both sides; `number` orders the findings of an account.
CREATE TABLE sync_finding (
    sync TEXT NOT NULL REFERENCES sync (id),
    account TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    class TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (sync, account, number)
);

-- Which account stands under which, by the source's own ids: a parent need not be known yet. What is closed stays where it
-- was, for its usage and lines of before.
CREATE TABLE account_parent (
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    child TEXT NOT NULL,
    parent TEXT NOT NULL,
    PRIMARY KEY (tenant, source, child)
);
CREATE INDEX account_parent_children ON account_parent (tenant, source, parent, child);
INSERT INTO account_parent (tenant, source, child, parent)
SELECT tenant, source, external_id, document::jsonb ->> 'parent' FROM account
WHERE document::jsonb ->> 'parent' IS NOT NULL;
