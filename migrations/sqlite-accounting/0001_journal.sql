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

-- A run: consecutive records of one lane and one UTC day that were sealed behind the fold, sorted by session. The row of
-- a dropped run stays and tells what once was.
CREATE TABLE journal_run (
    id INTEGER PRIMARY KEY,
    lane BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    records BIGINT NOT NULL,
    day_on TEXT NOT NULL,
    arrived_from BIGINT NOT NULL,
    arrived_until BIGINT NOT NULL,
    octets BIGINT NOT NULL,
    level BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('making', 'sealed', 'replaced', 'dropped')),
    archive TEXT,
    made_by TEXT NOT NULL,
    made_at BIGINT NOT NULL
);
CREATE INDEX journal_run_place ON journal_run (lane, first_seq);
CREATE INDEX journal_run_state ON journal_run (state, level);

-- The pages of runs. The shape of `body` is told in src/store/journal/sealed.rs.
CREATE TABLE journal_segment (
    run BIGINT NOT NULL,
    key_until BIGINT NOT NULL,
    page BIGINT NOT NULL,
    key_from BIGINT NOT NULL,
    records BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (run, key_until, page)
) WITHOUT ROWID;

-- What the readiness check writes to prove that a commit succeeds.
CREATE TABLE probe (
    id BIGINT NOT NULL PRIMARY KEY,
    filling BLOB NOT NULL
);
