-- Who had which address when, as DHCP handed it out, and what modems and MTAs told of themselves when they asked.
-- Twin of postgres/0003_leases.sql.

-- One row for each stretch of time in which a device had an address behind one modem and relay. `until_at` is when the lease
-- runs out as far as is known; it moves with each renewal and back when the device gives the address back.
CREATE TABLE address_lease (
    id INTEGER PRIMARY KEY,
    address TEXT NOT NULL,
    mac TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('cm', 'mta', 'cpe')),
    behind TEXT,
    relay TEXT NOT NULL,
    cmts TEXT NOT NULL,
    since_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    lease_seconds BIGINT NOT NULL,
    ended BOOLEAN NOT NULL,
    UNIQUE (address, since_at)
);
CREATE INDEX address_lease_of_mac ON address_lease (mac, since_at);
CREATE INDEX address_lease_until ON address_lease (until_at);

-- Modems and MTAs as they asked last, whether an account has them or not.
CREATE TABLE device_seen (
    mac TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('cm', 'mta')),
    behind TEXT,
    relay TEXT NOT NULL,
    cmts TEXT NOT NULL,
    class TEXT NOT NULL,
    vendor TEXT NOT NULL,
    model TEXT NOT NULL,
    serial TEXT NOT NULL,
    hardware TEXT NOT NULL,
    software TEXT NOT NULL,
    boot_rom TEXT NOT NULL,
    first_seen_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL
);
CREATE INDEX device_seen_last ON device_seen (last_seen_at);

-- For the question who had an address at an instant.
CREATE INDEX session_of_address ON session (framed_ip, started_at) WHERE framed_ip IS NOT NULL;
