-- Ways in of billing systems: what they sent as it came (sealed, for a time), what of it was put aside, what would take
-- too much away and is held, what a source that is only observed would have changed, and addresses that a deleted account
-- can have back. Twin of postgres/0018_ways_in.sql.

-- Every version of a source profile by which something was read.
CREATE TABLE profile_version (
    digest TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    first_used_at BIGINT NOT NULL
);

-- One input: a request, a message or a file. `sealed` is what came, as it came; NULL for files, which are kept in their
-- folder, and when its time is over. `event` is what the source calls it; `next_record` tells how far it was read.
CREATE TABLE ingest (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    source TEXT NOT NULL,
    profile TEXT NOT NULL,
    profile_digest TEXT NOT NULL,
    way TEXT NOT NULL CHECK (way IN ('http', 'inbox', 'tcp')),
    name TEXT,
    event TEXT,
    digest TEXT NOT NULL,
    sealed BLOB,
    state TEXT NOT NULL CHECK (state IN ('reading', 'done', 'refused')),
    next_record BIGINT NOT NULL,
    changes BIGINT NOT NULL,
    ignored BIGINT NOT NULL,
    held BIGINT NOT NULL,
    quarantined BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE UNIQUE INDEX ingest_event ON ingest (tenant, source, profile, event) WHERE event IS NOT NULL;
CREATE UNIQUE INDEX ingest_file ON ingest (tenant, source, profile, digest) WHERE way = 'inbox';
CREATE INDEX ingest_of_tenant ON ingest (tenant, id);
CREATE INDEX ingest_expiring ON ingest (expires_at);

-- Records that were put aside, with every reason.
CREATE TABLE ingest_fault (
    ingest BIGINT NOT NULL REFERENCES ingest (id),
    record BIGINT NOT NULL,
    line BIGINT NOT NULL,
    account TEXT,
    faults TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    replayed_at BIGINT,
    replayed_by TEXT,
    PRIMARY KEY (ingest, record)
);

-- A push or a closing that takes away and waits for an operator; sealed, since it may have passwords.
CREATE TABLE held_change (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    source TEXT NOT NULL,
    account TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('push', 'close')),
    sealed BLOB NOT NULL,
    source_revision BIGINT,
    losses TEXT NOT NULL,
    actor TEXT NOT NULL,
    origin TEXT,
    times BIGINT NOT NULL,
    held_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (tenant, source, account)
);

-- How many changes of a source took away, by the hour.
CREATE TABLE source_loss (
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    hour_at BIGINT NOT NULL,
    accounts BIGINT NOT NULL,
    PRIMARY KEY (tenant, source, hour_at)
) WITHOUT ROWID;

-- Epochs of a source's revisions: with a new one they count anew.
CREATE TABLE source_epoch (
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    epoch BIGINT NOT NULL CHECK (epoch > 0),
    opened_at BIGINT NOT NULL,
    opened_by TEXT NOT NULL,
    reason TEXT,
    PRIMARY KEY (tenant, source, epoch)
) WITHOUT ROWID;

-- What the last push of an observed source would have done to each account.
CREATE TABLE observation (
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    account TEXT NOT NULL,
    would TEXT NOT NULL,
    places TEXT NOT NULL,
    losses TEXT NOT NULL,
    times BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, source, account)
) WITHOUT ROWID;

-- Static addresses of deleted accounts are kept from others too. `recover_until`: until when what was given up comes back
-- as it was, a mailbox with its mail.
CREATE TABLE quarantine_new (
    kind TEXT NOT NULL CHECK (kind IN ('mailbox', 'number', 'address')),
    value TEXT NOT NULL,
    account_id BIGINT NOT NULL REFERENCES account (id),
    tenant TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    recover_until BIGINT,
    released_at BIGINT,
    released_by TEXT,
    with_mail BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (kind, value)
);
INSERT INTO quarantine_new (kind, value, account_id, tenant, from_at, until_at, released_at, released_by, with_mail)
SELECT kind, value, account_id, tenant, from_at, until_at, released_at, released_by, with_mail FROM quarantine;
DROP TABLE quarantine;
ALTER TABLE quarantine_new RENAME TO quarantine;
CREATE INDEX quarantine_until ON quarantine (until_at);

-- Events that know only a service.
CREATE INDEX service_of_external_id ON service (external_id);
