-- What an erasure leaves behind: devices whose leases the builtin DHCP server must still let go of, and what a batch's lines
-- were before a description was taken out of one. And suspensions of single services that wait for an operator, beside what
-- waits of their account. Twin of sqlite/0023_erased_and_held.sql.

-- A device of a person who was forgotten, by a keyed hash of its MAC: only whoever has the device can be found by it. The row
-- goes when no lease from before `asked_at` is left and the journal of leases was written anew.
CREATE TABLE forgotten_device (
    mac_hash BYTEA NOT NULL PRIMARY KEY,
    asked_at BIGINT NOT NULL
);

-- `digest` as it was when the batch was closed, where a line has lost its description since; `digest` is of the lines as they
-- are given now.
ALTER TABLE batch ADD COLUMN closed_digest TEXT;

-- `service`: whose suspension waits; '' for a push or a closing, of which an account has one.
ALTER TABLE held_change ADD COLUMN service TEXT NOT NULL DEFAULT '';
ALTER TABLE held_change DROP CONSTRAINT held_change_kind_check;
ALTER TABLE held_change ADD CONSTRAINT held_change_kind_check CHECK (kind IN ('push', 'close', 'suspend'));
ALTER TABLE held_change ADD CONSTRAINT held_change_service_check CHECK ((kind = 'suspend') = (service <> ''));
ALTER TABLE held_change DROP CONSTRAINT held_change_tenant_source_account_key;
ALTER TABLE held_change ADD CONSTRAINT held_change_of_service UNIQUE (tenant, source, account, service);
