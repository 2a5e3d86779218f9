-- A wholesale bill says in its manifest, not only in its lines, by which hash the counted tenant's books can be held against
-- ours. Twin of sqlite/0025_batch_handshakes.sql.

-- JSON; NULL: the batch was closed before it was kept.
ALTER TABLE batch ADD COLUMN handshakes TEXT;
