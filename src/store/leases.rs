//! Addresses as DHCP handed them out, now and before, and the modems and MTAs that asked; what answers "who had this
//! address then".

use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;
use sqlx::FromRow;

use super::{StoreError, Tx, on};
use crate::dhcp::{About, ClientKind, Lease, LeaseState};
use crate::vocabulary::{MacAddress, Timestamp, from_micros, to_micros};

/// A modem or MTA as it asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDevice {
    pub mac: MacAddress,
    pub kind: ClientKind,
    pub behind: Option<MacAddress>,
    pub relay: Ipv4Addr,
    pub cmts: String,
    pub about: About,
    pub seen_at: Timestamp,
}

/// A modem or MTA that no account has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnknownDevice {
    pub mac: String,
    pub kind: String,
    /// The modem an MTA sits in.
    pub behind: Option<String>,
    pub cmts: String,
    pub relay: String,
    pub vendor: String,
    pub model: String,
    pub serial: String,
    pub software: String,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
}

/// What a device told of itself, and the address it has or had last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceFacts {
    pub cmts: String,
    pub relay: String,
    pub class: String,
    pub vendor: String,
    pub model: String,
    pub serial: String,
    pub hardware: String,
    pub software: String,
    pub boot_rom: String,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
}

/// Somebody who had an address at an instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// `lease`, `session` or `static`: how we know.
    pub source: &'static str,
    pub tenant: Option<String>,
    /// External id of the account.
    pub account: Option<String>,
    pub account_source: Option<String>,
    #[serde(skip)]
    pub account_id: Option<i64>,
    /// The device that had it.
    pub mac: Option<String>,
    /// `cm`, `mta` or `cpe`.
    pub kind: Option<String>,
    /// The modem behind which the device was.
    pub modem: Option<String>,
    pub cmts: Option<String>,
    pub nas: Option<String>,
    pub session: Option<String>,
    pub username: Option<String>,
    pub since: Timestamp,
    /// `None`: it has it still.
    pub until: Option<Timestamp>,
}

const PUT: &str = "INSERT INTO address_lease
         (address, mac, kind, behind, relay, cmts, since_at, seen_at, until_at, lease_seconds, ended)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     ON CONFLICT (address, since_at) DO UPDATE SET mac = excluded.mac, kind = excluded.kind, behind = excluded.behind,
         relay = excluded.relay, cmts = excluded.cmts, seen_at = excluded.seen_at, until_at = excluded.until_at,
         lease_seconds = excluded.lease_seconds, ended = excluded.ended";
const PUT_SEEN: &str = "INSERT INTO device_seen
         (mac, kind, behind, relay, cmts, class, vendor, model, serial, hardware, software, boot_rom, first_seen_at,
          last_seen_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
     ON CONFLICT (mac) DO UPDATE SET kind = excluded.kind, behind = excluded.behind, relay = excluded.relay,
         cmts = excluded.cmts, class = excluded.class, vendor = excluded.vendor, model = excluded.model,
         serial = excluded.serial, hardware = excluded.hardware, software = excluded.software,
         boot_rom = excluded.boot_rom, last_seen_at = excluded.last_seen_at
     WHERE device_seen.last_seen_at <= excluded.last_seen_at";
const NEWEST_OF_EACH: &str =
    "SELECT id, address, mac, kind, behind, relay, cmts, since_at, seen_at, until_at, lease_seconds, ended
     FROM address_lease
     WHERE until_at > $1 AND NOT ended AND id > $2
       AND NOT EXISTS (SELECT 1 FROM address_lease AS newer
                       WHERE newer.address = address_lease.address AND newer.since_at > address_lease.since_at)
     ORDER BY id LIMIT $3";
const AT: &str = "SELECT id, address, mac, kind, behind, relay, cmts, since_at, seen_at, until_at, lease_seconds, ended
     FROM address_lease WHERE address = $1 AND since_at <= $2 AND until_at > $2
     ORDER BY since_at DESC LIMIT 1";
const SESSIONS_AT: &str = "SELECT session.nas, session.session, session.user_name, session.calling_station,
            session.started_at, session.ended_at, account.tenant, account.external_id, account.source, account.id
     FROM session LEFT JOIN account ON account.id = session.account_id
     WHERE session.framed_ip = $1 AND session.started_at <= $2 AND (session.ended_at IS NULL OR session.ended_at > $2)
     ORDER BY session.started_at DESC, session.id DESC LIMIT 20";
const HELD_AT: &str = "SELECT account.tenant, account.external_id, account.source, account.id, holder.from_at,
            holder.until_at
     FROM holder JOIN account ON account.id = holder.account_id
     WHERE holder.kind = $1 AND holder.value = $2 AND holder.from_at <= $3
       AND (holder.until_at IS NULL OR holder.until_at > $3)
     ORDER BY holder.from_at DESC, holder.id DESC LIMIT 1";
const UNKNOWN: &str = "SELECT mac, kind, behind, cmts, relay, vendor, model, serial, software, first_seen_at, last_seen_at
     FROM device_seen
     WHERE mac > $1
       AND NOT EXISTS (SELECT 1 FROM element
                       WHERE element.kind = device_seen.kind AND element.key = device_seen.mac AND element.state <> 'gone')
     ORDER BY mac LIMIT $2";
const FACTS: &str = "SELECT cmts, relay, class, vendor, model, serial, hardware, software, boot_rom, first_seen_at,
            last_seen_at
     FROM device_seen WHERE mac = $1";
const PRUNE: &str = "DELETE FROM address_lease
     WHERE id IN (SELECT id FROM address_lease WHERE until_at < $1 ORDER BY until_at LIMIT $2)";
const PRUNE_SEEN: &str = "DELETE FROM device_seen
     WHERE mac IN (SELECT mac FROM device_seen WHERE last_seen_at < $1 ORDER BY last_seen_at LIMIT $2)";
const SURPLUS_SEEN: &str = "DELETE FROM device_seen WHERE mac IN (
         SELECT mac FROM device_seen
         WHERE NOT EXISTS (SELECT 1 FROM element
                           WHERE element.kind = device_seen.kind AND element.key = device_seen.mac)
         ORDER BY last_seen_at DESC LIMIT $2 OFFSET $1)";

/// Writes leases as they stand now; a later state of the same stretch replaces the earlier one.
pub async fn record(tx: &mut Tx, leases: &[Lease]) -> Result<(), StoreError> {
    for lease in leases {
        let ended = matches!(lease.state, LeaseState::Released | LeaseState::Declined);
        on!(tx, c => sqlx::query(PUT)
            .bind(lease.address.to_string())
            .bind(lease.mac.to_string())
            .bind(lease.kind.as_str())
            .bind(lease.behind.map(|mac| mac.to_string()))
            .bind(lease.relay.to_string())
            .bind(&*lease.cmts)
            .bind(to_micros(lease.since))
            .bind(to_micros(lease.seen_at))
            .bind(to_micros(lease.expires_at))
            .bind(i64::from(lease.lease_seconds))
            .bind(ended)
            .execute(c)
            .await.map(drop))?;
    }
    Ok(())
}

/// Writes what devices told of themselves.
pub async fn record_seen(tx: &mut Tx, devices: &[SeenDevice]) -> Result<(), StoreError> {
    for device in devices {
        let about = &device.about;
        on!(tx, c => sqlx::query(PUT_SEEN)
            .bind(device.mac.to_string())
            .bind(device.kind.as_str())
            .bind(device.behind.map(|mac| mac.to_string()))
            .bind(device.relay.to_string())
            .bind(&device.cmts)
            .bind(&about.class)
            .bind(&about.vendor)
            .bind(&about.model)
            .bind(&about.serial)
            .bind(&about.hardware)
            .bind(&about.software)
            .bind(&about.boot_rom)
            .bind(to_micros(device.seen_at))
            .execute(c)
            .await.map(drop))?;
    }
    Ok(())
}

/// Leases that end after `since`, the newest of each address, in pages by row; gives the row to go on after.
pub async fn living(
    tx: &mut Tx,
    since: Timestamp,
    after: i64,
    limit: i64,
) -> Result<(Vec<Lease>, Option<i64>), StoreError> {
    let rows: Vec<LeaseRow> = on!(tx, c => sqlx::query_as(NEWEST_OF_EACH)
        .bind(to_micros(since))
        .bind(after)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    let last = rows.last().map(|row| row.id);
    let leases = rows.into_iter().map(LeaseRow::lease).collect::<Result<_, _>>()?;
    Ok((leases, last))
}

/// Everybody who had an address at an instant: by DHCP, by RADIUS, as a static address.
pub async fn holders_at(tx: &mut Tx, address: IpAddr, at: Timestamp) -> Result<Vec<Holder>, StoreError> {
    let (text, micros) = (address.to_string(), to_micros(at));
    let mut found = Vec::new();
    let leased: Option<LeaseRow> = on!(tx, c => sqlx::query_as(AT).bind(&text).bind(micros).fetch_optional(c).await)?;
    if let Some(lease) = leased.map(LeaseRow::lease).transpose()? {
        // A device is known by its own MAC, a CPE by the modem it is behind.
        let known = if lease.kind == ClientKind::Cpe { lease.behind } else { Some(lease.mac) };
        let held = match known {
            Some(mac) => held_at(tx, "mac", &mac.to_string(), micros).await?,
            None => None,
        };
        found.push(Holder {
            source: "lease",
            tenant: held.as_ref().map(|held| held.tenant.clone()),
            account: held.as_ref().map(|held| held.external_id.clone()),
            account_source: held.as_ref().map(|held| held.source.clone()),
            account_id: held.map(|held| held.id),
            mac: Some(lease.mac.to_string()),
            kind: Some(lease.kind.as_str().to_owned()),
            modem: lease.behind.map(|mac| mac.to_string()),
            cmts: Some(lease.cmts.to_string()),
            nas: None,
            session: None,
            username: None,
            since: lease.since,
            until: Some(lease.expires_at),
        });
    }
    let sessions: Vec<SessionRow> =
        on!(tx, c => sqlx::query_as(SESSIONS_AT).bind(&text).bind(micros).fetch_all(c).await)?;
    for row in sessions {
        found.push(Holder {
            source: "session",
            tenant: row.tenant,
            account: row.external_id,
            account_source: row.source,
            account_id: row.id,
            mac: row
                .calling_station
                .as_ref()
                .and_then(|text| text.parse::<MacAddress>().ok())
                .map(|mac| mac.to_string()),
            kind: None,
            modem: None,
            cmts: None,
            nas: Some(row.nas),
            session: Some(row.session),
            username: row.user_name,
            since: instant(row.started_at, "session", "started_at")?,
            until: row.ended_at.map(|at| instant(at, "session", "ended_at")).transpose()?,
        });
    }
    if let Some(held) = held_at(tx, "address", &text, micros).await? {
        found.push(Holder {
            source: "static",
            tenant: Some(held.tenant),
            account: Some(held.external_id),
            account_source: Some(held.source),
            account_id: Some(held.id),
            mac: None,
            kind: None,
            modem: None,
            cmts: None,
            nas: None,
            session: None,
            username: None,
            since: instant(held.from_at, "holder", "from_at")?,
            until: held.until_at.map(|at| instant(at, "holder", "until_at")).transpose()?,
        });
    }
    Ok(found)
}

/// Modems and MTAs that asked and that no account has, by MAC after `after`.
pub async fn unknown(tx: &mut Tx, after: &str, limit: i64) -> Result<Vec<UnknownDevice>, StoreError> {
    let rows: Vec<UnknownRow> = on!(tx, c => sqlx::query_as(UNKNOWN).bind(after).bind(limit).fetch_all(c).await)?;
    let device = |row: UnknownRow| {
        Ok(UnknownDevice {
            first_seen: instant(row.first_seen_at, "device_seen", "first_seen_at")?,
            last_seen: instant(row.last_seen_at, "device_seen", "last_seen_at")?,
            mac: row.mac,
            kind: row.kind,
            behind: row.behind,
            cmts: row.cmts,
            relay: row.relay,
            vendor: row.vendor,
            model: row.model,
            serial: row.serial,
            software: row.software,
        })
    };
    rows.into_iter().map(device).collect()
}

/// What a modem or MTA told of itself when it asked last; `None`: it never asked.
pub async fn facts(tx: &mut Tx, mac: MacAddress) -> Result<Option<DeviceFacts>, StoreError> {
    let row: Option<FactsRow> = on!(tx, c => sqlx::query_as(FACTS).bind(mac.to_string()).fetch_optional(c).await)?;
    let facts = |row: FactsRow| {
        Ok(DeviceFacts {
            first_seen: instant(row.first_seen_at, "device_seen", "first_seen_at")?,
            last_seen: instant(row.last_seen_at, "device_seen", "last_seen_at")?,
            cmts: row.cmts,
            relay: row.relay,
            class: row.class,
            vendor: row.vendor,
            model: row.model,
            serial: row.serial,
            hardware: row.hardware,
            software: row.software,
            boot_rom: row.boot_rom,
        })
    };
    row.map(facts).transpose()
}

/// Drops what is older than `keep`, at most `limit` rows of each kind, and of devices without an account those beyond
/// the `most` seen last. Gives whether more may be left.
pub async fn prune(tx: &mut Tx, before: Timestamp, most: i64, limit: i64) -> Result<bool, StoreError> {
    let before = to_micros(before);
    let mut more = false;
    for statement in [PRUNE, PRUNE_SEEN] {
        let gone = on!(tx, c => sqlx::query(statement).bind(before).bind(limit).execute(c).await
            .map(|done| done.rows_affected()))?;
        more |= gone >= limit as u64;
    }
    on!(tx, c => sqlx::query(SURPLUS_SEEN).bind(most).bind(limit).execute(c).await.map(drop))?;
    Ok(more)
}

async fn held_at(tx: &mut Tx, kind: &str, value: &str, micros: i64) -> Result<Option<HeldRow>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(HELD_AT).bind(kind).bind(value).bind(micros).fetch_optional(c).await)?)
}

fn instant(micros: i64, table: &'static str, column: &'static str) -> Result<Timestamp, StoreError> {
    from_micros(micros).ok_or_else(|| StoreError::Corrupt { table, column, id: micros.to_string() })
}

#[derive(FromRow)]
struct LeaseRow {
    id: i64,
    address: String,
    mac: String,
    kind: String,
    behind: Option<String>,
    relay: String,
    cmts: String,
    since_at: i64,
    seen_at: i64,
    until_at: i64,
    lease_seconds: i64,
    ended: bool,
}

impl LeaseRow {
    fn lease(self) -> Result<Lease, StoreError> {
        let corrupt =
            |column: &'static str| StoreError::Corrupt { table: "address_lease", column, id: self.id.to_string() };
        Ok(Lease {
            address: self.address.parse().map_err(|_| corrupt("address"))?,
            mac: self.mac.parse().map_err(|_| corrupt("mac"))?,
            kind: ClientKind::parse(&self.kind).ok_or_else(|| corrupt("kind"))?,
            behind: self.behind.as_ref().map(|mac| mac.parse()).transpose().map_err(|_| corrupt("behind"))?,
            relay: self.relay.parse().map_err(|_| corrupt("relay"))?,
            cmts: self.cmts.as_str().into(),
            since: from_micros(self.since_at).ok_or_else(|| corrupt("since_at"))?,
            seen_at: from_micros(self.seen_at).ok_or_else(|| corrupt("seen_at"))?,
            expires_at: from_micros(self.until_at).ok_or_else(|| corrupt("until_at"))?,
            lease_seconds: u32::try_from(self.lease_seconds).map_err(|_| corrupt("lease_seconds"))?,
            state: if self.ended { LeaseState::Released } else { LeaseState::Bound },
        })
    }
}

#[derive(FromRow)]
struct SessionRow {
    nas: String,
    session: String,
    user_name: Option<String>,
    calling_station: Option<String>,
    started_at: i64,
    ended_at: Option<i64>,
    tenant: Option<String>,
    external_id: Option<String>,
    source: Option<String>,
    id: Option<i64>,
}

#[derive(FromRow)]
struct HeldRow {
    tenant: String,
    external_id: String,
    source: String,
    id: i64,
    from_at: i64,
    until_at: Option<i64>,
}

#[derive(FromRow)]
struct UnknownRow {
    mac: String,
    kind: String,
    behind: Option<String>,
    cmts: String,
    relay: String,
    vendor: String,
    model: String,
    serial: String,
    software: String,
    first_seen_at: i64,
    last_seen_at: i64,
}

#[derive(FromRow)]
struct FactsRow {
    cmts: String,
    relay: String,
    class: String,
    vendor: String,
    model: String,
    serial: String,
    hardware: String,
    software: String,
    boot_rom: String,
    first_seen_at: i64,
    last_seen_at: i64,
}
