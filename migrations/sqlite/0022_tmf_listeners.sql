-- A listener that a TM Forum hub registered is a webhook that is told in TM Forum's envelope: `shape` says in which form an
-- outlet's events are written. Twin of postgres/0022_tmf_listeners.sql.
ALTER TABLE outlet ADD COLUMN shape TEXT NOT NULL DEFAULT 'standard' CHECK (shape IN ('standard', 'tmf'));
