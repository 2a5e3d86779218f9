-- What a NAS is asked to do with live sessions after the AAA rows of their login changed, and what became of it. Twin of
-- postgres/0005_nas_control.sql. Tables of their own: sessions are written by the fold alone, and often.

-- One change of a login, or one wish of an operator. Contents (`origin`, `previous`, `target`) are JSON: what the login's
-- sessions were authorized with up to `since_at`, between `since_at` and `written_at`, and are after it.
CREATE TABLE nas_request (
    id INTEGER PRIMARY KEY,
    tenant TEXT,
    account_id BIGINT,
    element_id BIGINT,
    session_id BIGINT,
    username TEXT,
    revision BIGINT NOT NULL DEFAULT 0,
    cause TEXT NOT NULL,
    origin TEXT,
    previous TEXT,
    target TEXT,
    lane BIGINT NOT NULL,
    since_at BIGINT NOT NULL,
    written_at BIGINT NOT NULL,
    looks BIGINT NOT NULL DEFAULT 0,
    run_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE UNIQUE INDEX nas_request_active ON nas_request (element_id) WHERE finished_at IS NULL;
CREATE INDEX nas_request_due ON nas_request (run_at) WHERE finished_at IS NULL;
CREATE INDEX nas_request_finished ON nas_request (finished_at) WHERE finished_at IS NOT NULL;

-- What follows for one session: one Disconnect or Change of Authorization. `run_at` is when it is sent next.
CREATE TABLE nas_order (
    id INTEGER PRIMARY KEY,
    request_id BIGINT NOT NULL REFERENCES nas_request (id) ON DELETE CASCADE,
    session_id BIGINT NOT NULL,
    client TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('disconnect', 'coa')),
    attributes TEXT NOT NULL,
    lane BIGINT NOT NULL,
    attempt BIGINT NOT NULL DEFAULT 0,
    run_at BIGINT NOT NULL,
    outcome TEXT,
    error_cause BIGINT,
    detail TEXT,
    sent_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    finished_at BIGINT,
    UNIQUE (request_id, session_id)
);
CREATE INDEX nas_order_due ON nas_order (client, lane, run_at) WHERE finished_at IS NULL;
CREATE INDEX nas_order_of_session ON nas_order (session_id, id);
