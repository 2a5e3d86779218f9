//! Kea's PostgreSQL tables (schema 13.0 of Kea 2.2): the reservation of one device goes in, in one transaction, or comes
//! out, and can be looked at; current leases are read.
//!
//! Kea itself makes the tables (`kea-admin db-init pgsql`). A reservation takes effect with the next packet. Ours carry
//! `{"lastmile": …}` in `user_context`; one that somebody else made for the same device is replaced, for two of one device
//! would contradict each other.

use std::net::Ipv4Addr;

use sqlx::{FromRow, PgPool, Postgres, Transaction};

use super::postgres_pool;
use crate::store::StoreError;
use crate::vocabulary::{MacAddress, Timestamp};

/// Kea's database; cheap to clone.
#[derive(Debug, Clone)]
pub struct KeaDatabase(PgPool);

/// How Kea knows a device: `host_identifier_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identifier {
    /// The device's own hardware address.
    Hardware = 0,
    /// The value of Kea's flex_id expression; for CPEs that is `relay4[2].hex`, the MAC of their modem.
    Flexible = 4,
}

/// One row of `hosts` with its `dhcp4_options`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reservation {
    pub identifier: Identifier,
    /// 0: for every subnet (`reservations-global`).
    pub subnet_id: i64,
    pub address: Option<Ipv4Addr>,
    pub next_server: Option<Ipv4Addr>,
    pub boot_file: Option<String>,
    pub options: Vec<HostOption>,
}

/// One row of `dhcp4_options`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostOption {
    pub code: i16,
    /// `dhcp4`, or the space of a container's sub-options.
    pub space: String,
    pub value: Vec<u8>,
}

/// A row of `lease4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeaLease {
    pub address: Ipv4Addr,
    pub mac: MacAddress,
    pub subnet_id: i64,
    /// When Kea heard of the client last.
    pub seen_at: Timestamp,
    pub lease_seconds: u32,
    /// Option 82, where Kea is told to keep it (`store-extended-info`).
    pub relay_information: Option<Vec<u8>>,
}

const HOSTS: &str = "SELECT host_id, dhcp_identifier_type, COALESCE(dhcp4_subnet_id, 0)::BIGINT AS subnet_id,
        COALESCE(ipv4_address, 0)::BIGINT AS ipv4_address, COALESCE(dhcp4_next_server, 0)::BIGINT AS next_server,
        COALESCE(dhcp4_boot_file_name, '') AS boot_file
     FROM hosts WHERE dhcp_identifier = $1 AND dhcp_identifier_type = ANY($2) AND dhcp6_subnet_id IS NULL
     ORDER BY host_id LIMIT 1000";
const OPTIONS: &str = "SELECT code, COALESCE(space, 'dhcp4') AS space, COALESCE(value, ''::BYTEA) AS value
     FROM dhcp4_options WHERE host_id = $1 AND scope_id = 3 ORDER BY space, code, option_id LIMIT 1000";
const DELETE: &str =
    "DELETE FROM hosts WHERE dhcp_identifier = $1 AND dhcp_identifier_type = ANY($2) AND dhcp6_subnet_id IS NULL";
const INSERT: &str = "INSERT INTO hosts (dhcp_identifier, dhcp_identifier_type, dhcp4_subnet_id, ipv4_address,
        dhcp4_next_server, dhcp4_boot_file_name, user_context)
     VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING host_id";
const INSERT_OPTION: &str = "INSERT INTO dhcp4_options (code, value, space, persistent, host_id, scope_id)
     VALUES ($1, $2, $3, TRUE, $4, 3)";
const CONTEXT: &str = "{\"lastmile\": true}";

/// The page of `lease4` after an instant and address; what Kea heard of last comes last.
const LEASES: &str = "SELECT address, hwaddr, subnet_id, lease.seen_at, valid_lifetime, user_context
     FROM (SELECT address, hwaddr, subnet_id, valid_lifetime, user_context, state,
                  (EXTRACT(EPOCH FROM expire)::BIGINT - valid_lifetime) AS seen_at FROM lease4) AS lease
     WHERE state = 0 AND hwaddr IS NOT NULL AND (lease.seen_at, address) > ($1, $2)
     ORDER BY lease.seen_at, address LIMIT $3";
const LEASE_AT: &str = "SELECT address, hwaddr, subnet_id,
        (EXTRACT(EPOCH FROM expire)::BIGINT - valid_lifetime) AS seen_at, valid_lifetime, user_context
     FROM lease4 WHERE address = $1 AND state = 0 AND hwaddr IS NOT NULL";

impl KeaDatabase {
    /// **Errors**: a URL that is not PostgreSQL's.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self(postgres_pool(url)?))
    }

    /// Makes `wanted` the reservations of a device; nothing is written when they stand already. Gives whether it wrote.
    pub async fn put(&self, mac: MacAddress, wanted: &[Reservation]) -> Result<bool, StoreError> {
        let mut tx = self.0.begin().await?;
        let mut sorted = wanted.to_vec();
        sorted.sort();
        if standing(&mut tx, mac).await? == sorted {
            return Ok(false);
        }
        sqlx::query(DELETE).bind(&mac.octets()[..]).bind(&KINDS[..]).execute(&mut *tx).await?;
        for reservation in wanted {
            insert(&mut tx, mac, reservation).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// What stands for a device, sorted.
    pub async fn look(&self, mac: MacAddress) -> Result<Vec<Reservation>, StoreError> {
        let mut tx = self.0.begin().await?;
        standing(&mut tx, mac).await
    }

    /// Live leases that Kea heard of after `after`, oldest first, at most `limit`.
    pub async fn leases(&self, after: (i64, Ipv4Addr), limit: i64) -> Result<Vec<KeaLease>, StoreError> {
        let rows: Vec<LeaseRow> = sqlx::query_as(LEASES)
            .bind(after.0)
            .bind(i64::from(u32::from(after.1)))
            .bind(limit)
            .fetch_all(&self.0)
            .await?;
        Ok(rows.into_iter().filter_map(LeaseRow::lease).collect())
    }

    /// The live lease of an address.
    pub async fn lease_at(&self, address: Ipv4Addr) -> Result<Option<KeaLease>, StoreError> {
        let row: Option<LeaseRow> =
            sqlx::query_as(LEASE_AT).bind(i64::from(u32::from(address))).fetch_optional(&self.0).await?;
        Ok(row.and_then(LeaseRow::lease))
    }
}

const KINDS: [i16; 2] = [Identifier::Hardware as i16, Identifier::Flexible as i16];

async fn standing(tx: &mut Transaction<'static, Postgres>, mac: MacAddress) -> Result<Vec<Reservation>, StoreError> {
    let hosts: Vec<HostRow> =
        sqlx::query_as(HOSTS).bind(&mac.octets()[..]).bind(&KINDS[..]).fetch_all(&mut **tx).await?;
    let mut found = Vec::with_capacity(hosts.len());
    for host in hosts {
        let options: Vec<(i16, String, Vec<u8>)> =
            sqlx::query_as(OPTIONS).bind(host.host_id).fetch_all(&mut **tx).await?;
        let flexible = host.dhcp_identifier_type == Identifier::Flexible as i16;
        found.push(Reservation {
            identifier: if flexible { Identifier::Flexible } else { Identifier::Hardware },
            subnet_id: host.subnet_id,
            address: address(host.ipv4_address),
            next_server: address(host.next_server),
            boot_file: Some(host.boot_file).filter(|name| !name.is_empty()),
            options: options.into_iter().map(|(code, space, value)| HostOption { code, space, value }).collect(),
        });
    }
    found.sort();
    Ok(found)
}

async fn insert(
    tx: &mut Transaction<'static, Postgres>,
    mac: MacAddress,
    reservation: &Reservation,
) -> Result<(), StoreError> {
    let number = |address: Option<Ipv4Addr>| address.map(|address| i64::from(u32::from(address)));
    let host_id: i32 = sqlx::query_scalar(INSERT)
        .bind(&mac.octets()[..])
        .bind(reservation.identifier as i16)
        .bind(reservation.subnet_id)
        .bind(number(reservation.address))
        .bind(number(reservation.next_server))
        .bind(&reservation.boot_file)
        .bind(CONTEXT)
        .fetch_one(&mut **tx)
        .await?;
    for option in &reservation.options {
        sqlx::query(INSERT_OPTION)
            .bind(option.code)
            .bind(&option.value)
            .bind(&option.space)
            .bind(host_id)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

fn address(number: i64) -> Option<Ipv4Addr> {
    u32::try_from(number).ok().filter(|number| *number != 0).map(Ipv4Addr::from)
}

#[derive(FromRow)]
struct HostRow {
    host_id: i32,
    dhcp_identifier_type: i16,
    subnet_id: i64,
    ipv4_address: i64,
    next_server: i64,
    boot_file: String,
}

#[derive(FromRow)]
struct LeaseRow {
    address: i64,
    hwaddr: Vec<u8>,
    subnet_id: i64,
    seen_at: i64,
    valid_lifetime: i64,
    user_context: Option<String>,
}

impl LeaseRow {
    /// `None`: of a device without a MAC address, which is none of ours.
    fn lease(self) -> Option<KeaLease> {
        let context: Option<serde_json::Value> =
            self.user_context.as_deref().and_then(|text| serde_json::from_str(text).ok());
        // Kea 2.2 keeps the option as hex; newer ones keep it one level deeper.
        let kept = context.as_ref().and_then(|context| {
            let told = context.pointer("/ISC/relay-agent-info")?;
            told.as_str().or_else(|| told.pointer("/sub-options")?.as_str()).map(str::to_owned)
        });
        Some(KeaLease {
            address: Ipv4Addr::from(u32::try_from(self.address).ok()?),
            mac: MacAddress::from_octets(<[u8; 6]>::try_from(self.hwaddr).ok()?).ok()?,
            subnet_id: self.subnet_id,
            seen_at: Timestamp::from_second(self.seen_at).ok()?,
            lease_seconds: u32::try_from(self.valid_lifetime).ok()?,
            relay_information: kept.and_then(|text| octets(text.trim_start_matches("0x"))),
        })
    }
}

fn octets(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}
