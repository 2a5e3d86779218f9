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
    -- Effective digest of the newest file on offer.
    offered_digest TEXT,
    -- The newest reset sent, how many for its revision, and through whom.
    reset_revision BIGINT,
    reset_at BIGINT,
    resets BIGINT NOT NULL DEFAULT 0,
    reset_by TEXT,
    -- A reset asked for by an operator or a rollout, not sent yet.
    reset_wanted_at BIGINT,
    reset_wanted_by TEXT,
    -- Whether it boots even if its file is the same.
    reset_forced BOOLEAN NOT NULL DEFAULT FALSE,
    -- Since when a reset waits for a call to end.
    deferred_at BIGINT,
    -- What the poller read last: JSON; `answered_at` is when it last answered at all.
    polled_at BIGINT,
    answered_at BIGINT,
    health TEXT,
    health_before TEXT
);
CREATE INDEX device_polled ON device (polled_at);

-- Accounts that do not simply follow the newest catalog: `held` ones stay on version `from_version` until a rollout
-- moves them; the others are on their way from it, as some of many, and are looked at next.
CREATE TABLE catalog_follow (
    account_id BIGINT NOT NULL PRIMARY KEY REFERENCES account (id),
    from_version BIGINT NOT NULL,
    held BOOLEAN NOT NULL,
    since_at BIGINT NOT NULL
);

-- Many devices moved with care. `policy` and `counts` are JSON; `state`: running, paused, halted, finished, cancelled,
-- rolled_back.
CREATE TABLE rollout (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (id),
    reason TEXT NOT NULL,
    policy TEXT NOT NULL,
    state TEXT NOT NULL,
    note TEXT,
    before_version BIGINT NOT NULL,
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
    cmts TEXT NOT NULL,
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

-- How far the sweep that looks for differences is, for each kind of element.
CREATE TABLE sweep (
    kind TEXT NOT NULL PRIMARY KEY,
    after_id BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT
);
