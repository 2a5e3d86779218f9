-- Where events go: webhooks, mail, short messages and files, each with its own place in the tenant's sequence of events.
-- Twin of sqlite/0019_outlets.sql.

-- An outlet has seen to every event up to `position`; what it could not deliver at once stands in `delivery`. One daemon at a
-- time works for it: whoever claims it raises `epoch`, and a record of an older epoch is refused. `secret` is sealed; the one
-- before a rotation signs too until `previous_until`. `slow_until`: the receiver asked for a pause. `failures` in a row since
-- `failing_since`.
CREATE TABLE outlet (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    kind TEXT NOT NULL CHECK (kind IN ('webhook', 'mail', 'sms', 'file')),
    url TEXT NOT NULL,
    types TEXT NOT NULL,
    description TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('enabled', 'disabled')),
    because TEXT,
    secret BYTEA,
    previous_secret BYTEA,
    previous_until BIGINT,
    position BIGINT NOT NULL,
    slow_until BIGINT NOT NULL DEFAULT 0,
    failures BIGINT NOT NULL DEFAULT 0,
    failing_since BIGINT,
    delivered BIGINT NOT NULL DEFAULT 0,
    last_delivered_at BIGINT,
    epoch BIGINT NOT NULL DEFAULT 0,
    claimed_by TEXT,
    claimed_until BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX outlet_of_tenant ON outlet (tenant, kind, id);

-- An event that was not delivered at its first attempt, or was asked for again. `next_at` NULL: it waits behind an earlier
-- event of its subject. `sending` is written before what must not happen twice, and never sent again by itself.
CREATE TABLE delivery (
    outlet TEXT NOT NULL REFERENCES outlet (id) ON DELETE CASCADE,
    sequence BIGINT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sending', 'delivered', 'dead')),
    attempts BIGINT NOT NULL,
    next_at BIGINT,
    status BIGINT,
    detail TEXT,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (outlet, sequence)
);
CREATE INDEX delivery_due ON delivery (outlet, next_at) WHERE state = 'pending';
CREATE INDEX delivery_sending ON delivery (outlet) WHERE state = 'sending';
CREATE INDEX delivery_of_subject ON delivery (outlet, subject, sequence) WHERE state = 'pending';
CREATE INDEX delivery_ended ON delivery (updated_at) WHERE state IN ('delivered', 'dead');

-- Files an outlet has written: no name is used twice, and no batch is written twice. `writing`: the whole file stands beside its
-- place under another name, and is being put there.
CREATE TABLE export_file (
    outlet TEXT NOT NULL REFERENCES outlet (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    batch TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('writing', 'placed')),
    sha256 TEXT NOT NULL,
    documents BIGINT NOT NULL,
    written_at BIGINT NOT NULL,
    PRIMARY KEY (outlet, name),
    UNIQUE (outlet, batch)
);

-- A tenant's closed batches in the order of their commits, so that whoever pulls lines by (closed_sequence, id) misses none. The
-- row of `batch_sequence` is locked until the closing commits. `digest`: SHA-256 of the batch's lines, of their JSON in the order
-- of their ids, each followed by a line feed.
ALTER TABLE batch ADD COLUMN closed_sequence BIGINT;
ALTER TABLE batch ADD COLUMN digest TEXT;
UPDATE batch SET closed_sequence =
    (SELECT COUNT(*) FROM batch AS earlier WHERE earlier.tenant = batch.tenant AND earlier.closed_at IS NOT NULL
        AND (earlier.closed_at < batch.closed_at OR earlier.closed_at = batch.closed_at AND earlier.id <= batch.id))
    WHERE closed_at IS NOT NULL;
CREATE UNIQUE INDEX batch_closed ON batch (tenant, closed_sequence);
CREATE TABLE batch_sequence (
    tenant TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);
INSERT INTO batch_sequence SELECT tenant, MAX(closed_sequence) FROM batch WHERE closed_sequence IS NOT NULL GROUP BY tenant;
