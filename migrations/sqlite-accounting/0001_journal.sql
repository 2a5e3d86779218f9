-- The accounting journal, in a file of its own with its own writer: an acknowledged RADIUS record stands in a row here.

CREATE TABLE lane (
    id INTEGER PRIMARY KEY,
    opened_by TEXT NOT NULL,
    opened_at BIGINT NOT NULL
);

-- A page: the records of one commit, `first_seq` and those that follow it. Clustered by commit order; no other index,
-- for the sake of insert speed. The shape of `body` is told in src/store/journal/page.rs.
CREATE TABLE journal (
    lane BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    records BIGINT NOT NULL CHECK (records > 0),
    arrived_from BIGINT NOT NULL,
    arrived_until BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (lane, first_seq)
) WITHOUT ROWID;

-- What the readiness check writes to prove that a commit succeeds.
CREATE TABLE probe (
    id BIGINT NOT NULL PRIMARY KEY,
    filling BLOB NOT NULL
);
