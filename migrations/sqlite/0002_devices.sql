-- What is known of a modem or MTA beyond what is desired of it: the file it runs, resets sent, its health; and rollouts,
-- which move many of them with care. Twin of postgres/0002_devices.sql. A table beside `element`, so that a push, which
-- writes elements, stays as cheap as it was.
CREATE TABLE device (
    element_id BIGINT NOT NULL PRIMARY KEY REFERENCES element (id),
    -- The last complete fetch; `running_digest` is the effective digest of the bytes.
    running_revision BIGINT,
    running_digest TEXT,
    fetched_at BIGINT,
    fetches BIGINT NOT NULL DEFAULT 0,
    -- The newest reset sent, how many for its revision, and through whom.
    reset_revision BIGINT,
    reset_at BIGINT,
    resets BIGINT NOT NULL DEFAULT 0,
    reset_by TEXT,
    -- A reset asked for by an operator or a rollout, not sent yet.
    reset_wanted_at BIGINT,
    reset_wanted_by TEXT,
    -- Since when a reset waits for a call to end.
    deferred_at BIGINT,
    -- What the poller read last: JSON; `answered_at` is when it last answered at all.
    polled_at BIGINT,
    answered_at BIGINT,
    health TEXT
);
CREATE INDEX device_polled ON device (polled_at);

-- An account may stay on the catalog version before, until a rollout moves it.
CREATE TABLE catalog_pin (
    account_id BIGINT NOT NULL PRIMARY KEY REFERENCES account (id),
    version BIGINT NOT NULL,
    pinned_at BIGINT NOT NULL
);

CREATE TABLE rollout (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    reason TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('reset', 'next_boot')),
    policy TEXT NOT NULL,
    state TEXT NOT NULL,
    halted_because TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT
);

CREATE TABLE rollout_member (
    rollout_id BIGINT NOT NULL REFERENCES rollout (id),
    element_id BIGINT NOT NULL REFERENCES element (id),
    account_id BIGINT NOT NULL REFERENCES account (id),
    position BIGINT NOT NULL,
    cmts TEXT,
    voice BOOLEAN NOT NULL,
    phase TEXT NOT NULL,
    moved_at BIGINT,
    PRIMARY KEY (rollout_id, element_id)
) WITHOUT ROWID;
CREATE INDEX rollout_member_phase ON rollout_member (rollout_id, phase, position);

-- What was found different from desired outside, and when it was found to be mended again.
CREATE TABLE drift (
    id INTEGER PRIMARY KEY,
    element_id BIGINT NOT NULL REFERENCES element (id),
    detail TEXT NOT NULL,
    found_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    healed_at BIGINT
);
CREATE UNIQUE INDEX drift_open ON drift (element_id) WHERE healed_at IS NULL;
