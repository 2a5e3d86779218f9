-- The first tables of the main database: tenants and what they sell, accounts and what is provisioned for them,
-- sessions and the ledger folded from the accounting journal, invoice lines. Twin of postgres/0001_first_tables.sql.
-- Instants (*_at) are microseconds since 1970 in UTC, days (*_on) are ISO texts, documents are JSON texts.

CREATE TABLE tenant (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    parent TEXT REFERENCES tenant (id),
    catalog_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE catalog_version (
    tenant TEXT NOT NULL REFERENCES tenant (id),
    version BIGINT NOT NULL CHECK (version > 0),
    digest TEXT NOT NULL,
    document TEXT NOT NULL,
    applied_at BIGINT NOT NULL,
    applied_by TEXT NOT NULL,
    PRIMARY KEY (tenant, version)
);

-- A tariff's (id, version) never changes: a change is a new version.
CREATE TABLE tariff_version (
    tenant TEXT NOT NULL REFERENCES tenant (id),
    id TEXT NOT NULL,
    version BIGINT NOT NULL CHECK (version > 0),
    digest TEXT NOT NULL,
    document TEXT NOT NULL,
    applied_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id, version)
);

CREATE TABLE api_key (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT,
    role TEXT NOT NULL,
    source TEXT,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT,
    CHECK ((role = 'platform') = (tenant IS NULL))
);

CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    source TEXT NOT NULL,
    external_id TEXT NOT NULL,
    revision BIGINT NOT NULL CHECK (revision > 0),
    source_revision BIGINT,
    status TEXT NOT NULL,
    bill_cycle TEXT NOT NULL,
    document TEXT NOT NULL,
    etag TEXT NOT NULL,
    stale_pushes BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    close_at BIGINT,
    closed_at BIGINT,
    wake_at BIGINT,
    UNIQUE (tenant, source, external_id)
);
CREATE INDEX account_of_cycle ON account (tenant, bill_cycle, id);
-- `wake_at`: when something of the account changes by itself (its closing, a hold's edge, a service's first day).
CREATE INDEX account_waking ON account (wake_at) WHERE wake_at IS NOT NULL;

CREATE TABLE service (
    id INTEGER PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    external_id TEXT NOT NULL,
    type TEXT NOT NULL CHECK (type IN ('internet', 'voice', 'email')),
    plan TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    ended_at BIGINT,
    UNIQUE (account_id, external_id)
);

-- What billing needs to know of a service, from each instant on; rating never reads the live document.
CREATE TABLE service_history (
    id INTEGER PRIMARY KEY,
    service_id BIGINT NOT NULL REFERENCES service (id),
    account_id BIGINT NOT NULL REFERENCES account (id),
    from_at BIGINT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX service_history_of_account ON service_history (account_id, service_id, from_at, id);

-- Who holds a MAC, RADIUS username, mailbox address, static address or number, and who held it before.
CREATE TABLE holder (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('mac', 'username', 'mailbox', 'address', 'number')),
    value TEXT NOT NULL,
    account_id BIGINT NOT NULL REFERENCES account (id),
    service_id BIGINT REFERENCES service (id),
    from_at BIGINT NOT NULL,
    until_at BIGINT
);
CREATE UNIQUE INDEX holder_living ON holder (kind, value) WHERE until_at IS NULL;
CREATE INDEX holder_of_value ON holder (kind, value, from_at);
-- RADIUS user names are compared without case when nobody holds the exact one.
CREATE INDEX holder_of_lower ON holder (kind, LOWER(value));
CREATE INDEX holder_of_account ON holder (account_id);

CREATE TABLE operator_hold (
    id INTEGER PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    service TEXT,
    kind TEXT NOT NULL,
    treatment TEXT,
    billing TEXT,
    placed_by TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    until_at BIGINT,
    lifted_at BIGINT
);
CREATE INDEX operator_hold_of_account ON operator_hold (account_id) WHERE lifted_at IS NULL;

-- Recoverable secrets, sealed; `digest` is a keyed hash that tells a change without opening anything.
CREATE TABLE secret (
    account_id BIGINT NOT NULL REFERENCES account (id),
    service TEXT NOT NULL,
    field TEXT NOT NULL,
    sealed BLOB NOT NULL,
    digest TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, service, field)
);

-- What is provisioned: a cable modem, a mailbox, an AAA user. `desired` is the content without secrets,
-- `previous` the desired content before it, `applied` the content last brought there.
CREATE TABLE element (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    account_id BIGINT NOT NULL REFERENCES account (id),
    kind TEXT NOT NULL CHECK (kind IN ('cm', 'mta', 'mailbox', 'aaa')),
    key TEXT NOT NULL,
    services TEXT NOT NULL,
    desired TEXT NOT NULL,
    previous TEXT,
    applied TEXT,
    desired_revision BIGINT NOT NULL CHECK (desired_revision > 0),
    offered_revision BIGINT,
    fetched_revision BIGINT,
    confirmed_revision BIGINT,
    applied_revision BIGINT,
    state TEXT NOT NULL,
    evidence TEXT,
    last_error TEXT,
    last_seen_at BIGINT,
    last_seen_from TEXT,
    updated_at BIGINT NOT NULL,
    UNIQUE (kind, key)
);
CREATE INDEX element_of_account ON element (account_id);
CREATE INDEX element_changed ON element (updated_at);

-- `run_at` is when a job is due next; for a running one, when its lease ends. Lane 0 goes before lane 1 (bulk).
CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    element_id BIGINT NOT NULL REFERENCES element (id),
    tenant TEXT NOT NULL,
    account_id BIGINT NOT NULL REFERENCES account (id),
    kind TEXT NOT NULL,
    lane BIGINT NOT NULL,
    state TEXT NOT NULL,
    attempt BIGINT NOT NULL DEFAULT 0,
    target_revision BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    claimed_by TEXT,
    claimed_until BIGINT,
    last_error TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE UNIQUE INDEX job_active ON job (element_id) WHERE finished_at IS NULL;
CREATE INDEX job_due ON job (kind, lane, run_at) WHERE finished_at IS NULL;
CREATE INDEX job_of_account ON job (account_id, id);

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at BIGINT NOT NULL,
    tenant TEXT,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    account_id BIGINT,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_of_account ON audit (account_id, id);

CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    status BIGINT NOT NULL,
    response TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE exception (
    id INTEGER PRIMARY KEY,
    tenant TEXT,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    occurrences BIGINT NOT NULL DEFAULT 1,
    opened_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    snoozed_until BIGINT,
    released_at BIGINT,
    released_by TEXT
);
CREATE UNIQUE INDEX exception_open ON exception (kind, subject) WHERE released_at IS NULL;

-- A RADIUS session as folded from the journal; `body` is the fold's own state (its bounded tail and pending buckets).
-- Here and in what else the fold writes, no REFERENCES: accounts and services are never deleted, `audit verify` compares
-- every row with the journal, and looking up three rows for each one written is most of what writing it costs.
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    nas TEXT NOT NULL,
    session TEXT NOT NULL,
    incarnation BIGINT NOT NULL,
    user_name TEXT,
    account_id BIGINT,
    service_id BIGINT,
    state TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    last_event_at BIGINT NOT NULL,
    ended_at BIGINT,
    in_octets BIGINT NOT NULL,
    out_octets BIGINT NOT NULL,
    seconds BIGINT NOT NULL,
    framed_ip TEXT,
    framed_prefix TEXT,
    calling_station TEXT,
    terminate_cause BIGINT,
    flags BIGINT NOT NULL DEFAULT 0,
    pending BOOLEAN NOT NULL,
    refold BOOLEAN NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (nas, session, incarnation)
);
CREATE INDEX session_unattributed ON session (LOWER(user_name)) WHERE service_id IS NULL;
CREATE INDEX session_unattributed_address ON session (framed_ip) WHERE service_id IS NULL;
CREATE INDEX session_unattributed_prefix ON session (framed_prefix) WHERE service_id IS NULL;
CREATE INDEX session_unattributed_station ON session (calling_station) WHERE service_id IS NULL;
CREATE INDEX session_impossible ON session (id) WHERE (flags & 32) <> 0;
CREATE INDEX session_refold ON session (id) WHERE refold;
CREATE INDEX session_pending ON session (account_id) WHERE pending;
CREATE INDEX session_of_account ON session (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX session_open ON session (nas, started_at) WHERE ended_at IS NULL;

-- Append-only usage; never updated. Sequences are dense per account.
CREATE TABLE ledger (
    account_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    service_id BIGINT NOT NULL,
    session_id BIGINT NOT NULL,
    from_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    in_octets BIGINT NOT NULL,
    out_octets BIGINT NOT NULL,
    seconds BIGINT NOT NULL,
    sessions BIGINT NOT NULL,
    cause TEXT NOT NULL,
    recorded_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, sequence)
) WITHOUT ROWID;

-- Running totals, in the fold's transaction; they count pending buckets too.
CREATE TABLE usage_total (
    service_id BIGINT NOT NULL,
    period_start_at BIGINT NOT NULL,
    in_octets BIGINT NOT NULL,
    out_octets BIGINT NOT NULL,
    seconds BIGINT NOT NULL,
    sessions BIGINT NOT NULL,
    PRIMARY KEY (service_id, period_start_at)
) WITHOUT ROWID;

CREATE TABLE fold_watermark (
    lane BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Who folds. Every transaction that changes sessions or the ledger moves `epoch`, so that whoever keeps sessions in
-- memory sees that another has written; a holder whose `renewed_at` stands still is replaced.
CREATE TABLE fold_claim (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    owner TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL
);
INSERT INTO fold_claim (id, owner, epoch, renewed_at) VALUES (1, '', 0, 0);

-- What the fold knows of a NAS identity across sessions. `rebooted_at` is its newest Accounting-On or -Off; older
-- sessions are closed in bounded steps until `swept_at` says the same.
CREATE TABLE nas_identity (
    nas TEXT NOT NULL PRIMARY KEY,
    gigawords BOOLEAN NOT NULL,
    rebooted_at BIGINT,
    swept_at BIGINT,
    first_seen_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL
);

-- What is known of a configured client: when it last signed with the secret it is being moved away from.
CREATE TABLE nas_client (
    client TEXT NOT NULL PRIMARY KEY,
    previous_secret_at BIGINT NOT NULL
);

-- Records brought in from elsewhere (`lastmile import`), by what makes them the same event: a file may be imported
-- again. `digest` is 64 bits of SHA-256 over the event; ordered by time, because files are.
CREATE TABLE imported (
    event_at BIGINT NOT NULL,
    digest BIGINT NOT NULL,
    PRIMARY KEY (event_at, digest)
) WITHOUT ROWID;

-- How far a NAS's clock is off, in seconds to add to its Event-Timestamp, for records that arrived from `from_at` on.
-- Append-only: a record that is folded again is dated as it was. `samples`: minutes whose reports agreed.
CREATE TABLE nas_clock (
    nas TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    offset_s BIGINT NOT NULL,
    samples BIGINT NOT NULL,
    PRIMARY KEY (nas, from_at)
);

CREATE TABLE batch (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    cycle TEXT NOT NULL,
    period_start_at BIGINT NOT NULL,
    period_end_at BIGINT NOT NULL,
    timezone TEXT NOT NULL,
    run BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('building', 'closed', 'acknowledged')),
    lines BIGINT NOT NULL DEFAULT 0,
    totals TEXT NOT NULL DEFAULT '[]',
    created_at BIGINT NOT NULL,
    closed_at BIGINT,
    acknowledged_at BIGINT,
    UNIQUE (tenant, cycle, period_start_at, run)
);

CREATE TABLE line (
    id TEXT NOT NULL PRIMARY KEY,
    batch TEXT NOT NULL REFERENCES batch (id),
    tenant TEXT NOT NULL REFERENCES tenant (id),
    account_id BIGINT NOT NULL REFERENCES account (id),
    service TEXT,
    charge TEXT NOT NULL,
    kind TEXT NOT NULL,
    cycle TEXT NOT NULL,
    period_start_at BIGINT NOT NULL,
    period_end_at BIGINT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    corrects TEXT,
    document TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX line_of_account ON line (account_id, period_start_at);
CREATE INDEX line_of_batch ON line (batch, id);
CREATE INDEX line_of_period ON line (tenant, cycle, period_start_at, id);

-- Work that one daemon at a time may do: closing a period, sweeping. Claimed, never assigned.
CREATE TABLE claim (
    name TEXT NOT NULL PRIMARY KEY,
    claimed_by TEXT NOT NULL,
    claimed_until BIGINT NOT NULL
);

-- What the readiness check writes to prove that a commit succeeds.
CREATE TABLE probe (
    id BIGINT NOT NULL PRIMARY KEY,
    filling BLOB NOT NULL
);
