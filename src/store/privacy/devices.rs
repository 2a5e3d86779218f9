//! Devices of persons who were forgotten: the DHCP server keeps leases in memory and in a journal of its own, and lets go of
//! them when it reads of the wish here.

use std::collections::BTreeSet;

use crate::store::{Sealer, StoreError, Tx, on};
use crate::vocabulary::{MacAddress, Timestamp, from_micros, to_micros};

/// That a device's leases from before an instant be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub mac_hash: Vec<u8>,
    pub asked_at: Timestamp,
}

const ASK: &str = "INSERT INTO forgotten_device (mac_hash, asked_at) VALUES ($1, $2)
     ON CONFLICT (mac_hash) DO UPDATE SET asked_at = excluded.asked_at";
const WISHES: &str = "SELECT mac_hash, asked_at FROM forgotten_device ORDER BY asked_at, mac_hash LIMIT 10000";
const DONE: &str = "DELETE FROM forgotten_device WHERE mac_hash = $1 AND asked_at = $2";
const TOO_OLD: &str = "DELETE FROM forgotten_device WHERE asked_at < $1";
const IS_HELD: &str = "SELECT COUNT(*) FROM holder WHERE kind = 'mac' AND value = $1 AND until_at IS NULL";
/// What the server told while the wish stood.
const DROP_LEASES: &str = "DELETE FROM address_lease WHERE (mac = $1 OR behind = $1) AND since_at < $2";
const DROP_SEEN: &str = "DELETE FROM device_seen WHERE mac = $1 AND last_seen_at < $2";

/// Wishes that the leases of a device be forgotten.
pub async fn ask(tx: &mut Tx, sealer: &Sealer, mac: &str, now: Timestamp) -> Result<(), StoreError> {
    let Ok(mac) = mac.parse::<MacAddress>() else { return Ok(()) };
    on!(tx, c => sqlx::query(ASK).bind(hash(sealer, mac)).bind(to_micros(now)).execute(c).await.map(drop))?;
    Ok(())
}

/// The wishes that stand, the oldest first.
pub async fn wishes(tx: &mut Tx) -> Result<Vec<Wish>, StoreError> {
    let rows: Vec<(Vec<u8>, i64)> = on!(tx, c => sqlx::query_as(WISHES).fetch_all(c).await)?;
    let wish = |(mac_hash, at): (Vec<u8>, i64)| {
        let corrupt = || StoreError::Corrupt { table: "forgotten_device", column: "asked_at", id: at.to_string() };
        Ok(Wish { mac_hash, asked_at: from_micros(at).ok_or_else(corrupt)? })
    };
    rows.into_iter().map(wish).collect()
}

/// By what a wish names a device.
pub fn hash(sealer: &Sealer, mac: MacAddress) -> Vec<u8> {
    sealer.keyed_hash("forgotten_device", mac.to_string().as_bytes()).to_vec()
}

/// Those of the devices that a living account has.
pub async fn held(tx: &mut Tx, macs: &BTreeSet<MacAddress>) -> Result<BTreeSet<MacAddress>, StoreError> {
    let mut held = BTreeSet::new();
    for mac in macs {
        let count: i64 = on!(&mut *tx, c => sqlx::query_scalar(IS_HELD).bind(mac.to_string()).fetch_one(c).await)?;
        if count > 0 {
            held.insert(*mac);
        }
    }
    Ok(held)
}

/// A device is out of memory and journal: it goes out of the history too.
pub async fn drop_history(tx: &mut Tx, mac: MacAddress, before: Timestamp) -> Result<(), StoreError> {
    for statement in [DROP_LEASES, DROP_SEEN] {
        on!(&mut *tx, c => sqlx::query(statement)
            .bind(mac.to_string())
            .bind(to_micros(before))
            .execute(c)
            .await
            .map(drop))?;
    }
    Ok(())
}

/// The wish is fulfilled.
pub async fn done(tx: &mut Tx, wish: &Wish) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(DONE)
        .bind(&wish.mac_hash)
        .bind(to_micros(wish.asked_at))
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// Drops wishes that nobody fulfils: where no DHCP server of ours runs, or a device never gives up its address. Its journal has
/// no lease that ended so long ago.
pub async fn forget_wishes(tx: &mut Tx, before: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(TOO_OLD).bind(to_micros(before)).execute(c).await.map(drop))?;
    Ok(())
}
