-- The accounting journal, in a file of its own with its own writer: an acknowledged RADIUS record is a row here.
-- Rows are clustered by (lane, seq), which is commit order; no other index, for the sake of insert speed.

CREATE TABLE lane (
    id INTEGER PRIMARY KEY,
    opened_by TEXT NOT NULL,
    opened_at BIGINT NOT NULL
);

CREATE TABLE journal (
    lane BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    arrived_at BIGINT NOT NULL,
    nas TEXT NOT NULL,
    source TEXT NOT NULL,
    packet BLOB NOT NULL,
    PRIMARY KEY (lane, seq)
) WITHOUT ROWID;

-- What the readiness check writes to prove that a commit succeeds.
CREATE TABLE probe (
    id BIGINT NOT NULL PRIMARY KEY,
    filling BLOB NOT NULL
);
