-- A device may say that it runs a file whose fetch nobody saw, as when the daemon was killed at that moment: what is known
-- of it then is its own word, not a fetch.
-- Twin of sqlite/0007_fetch_seen.sql.

ALTER TABLE device ADD COLUMN fetch_seen BOOLEAN NOT NULL DEFAULT TRUE;
