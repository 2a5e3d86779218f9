//! Who has which address now, in memory, and what of it the store does not know yet.
//!
//! Comes in: leases of the builtin DHCP server, or of Kea. Goes out: the address of a device, the device of an address,
//! and changes in bounded batches for the store. Answers never wait for a database.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{Notify, watch};

use super::forgetting::Forgetting;
use crate::dhcp::{Lease, Table};
use crate::store::leases::{self, SeenDevice};
use crate::store::{Store, StoreError, elements};
use crate::telemetry::Heartbeat;
use crate::vocabulary::{Clock, MacAddress, Timestamp};

/// The leases of the installation; cheap to clone.
#[derive(Clone, Default)]
pub struct Leases(Arc<Inner>);

#[derive(Default)]
struct Inner {
    table: Mutex<Table>,
    unrecorded: Mutex<Unrecorded>,
    changed: Notify,
    /// How often the journal was asked to be written anew, and which of these it has done; the latter is 0 where there is none.
    rewrites_asked: AtomicU64,
    rewrites_done: AtomicU64,
}

/// What the store does not know yet; a later state of the same replaces the earlier one.
#[derive(Default)]
struct Unrecorded {
    leases: HashMap<(Ipv4Addr, Timestamp), Lease>,
    seen: HashMap<MacAddress, SeenDevice>,
    /// Revision a device was offered, by its element.
    offered: HashMap<i64, i64>,
    /// Stretches that found no room: told once.
    dropped: u64,
}

/// What waits at most for a database that is away; each is some 200 octets. Who had which address before that is lost
/// from the history, never from what DHCP serves.
const MOST_UNRECORDED: usize = 500_000;
/// Rows written in one transaction.
const MOST_ROWS: usize = 500;
/// Changes are gathered this long before they are written: a boot storm is a few transactions.
const GATHER: Duration = Duration::from_millis(200);
const TAKE_OVER_PAGE: i64 = 5000;
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_secs(5);
const PRUNE_EVERY: SignedDuration = SignedDuration::from_hours(1);
const PRUNE_ROWS: i64 = 1000;
/// Devices without an account that are kept.
const MOST_UNKNOWN: i64 = 10_000;

impl Leases {
    /// The lease of a device, the newest that is not over.
    pub fn of(&self, mac: MacAddress, now: Timestamp) -> Option<Lease> {
        self.table().of(mac).filter(|lease| lease.is_held(now)).max_by_key(|lease| lease.seen_at).cloned()
    }

    /// Who has an address now.
    pub fn at(&self, address: IpAddr, now: Timestamp) -> Option<Lease> {
        let IpAddr::V4(address) = address.to_canonical() else { return None };
        self.table().at(address).filter(|lease| lease.is_held(now)).cloned()
    }

    /// How many addresses are known, live or not.
    pub fn count(&self) -> usize {
        self.table().len()
    }

    /// Takes over a lease that another server handed out, however often: the same device at the same place goes on with it.
    pub fn learn(&self, lease: Lease) {
        let mut table = self.table();
        let held = table
            .at(lease.address)
            .filter(|held| held.mac == lease.mac && held.behind == lease.behind && held.expires_at >= lease.seen_at);
        let lease = match held {
            // Nothing that is not known.
            Some(held) if held.seen_at >= lease.seen_at => return,
            Some(held) => Lease { since: held.since, ..lease },
            None => lease,
        };
        table.put(lease.clone());
        drop(table);
        self.note(lease);
    }

    /// The table itself, for the server that decides on it. Held for one message.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0.table)
    }

    /// Notes a lease for the store.
    pub(super) fn note(&self, lease: Lease) {
        let mut unrecorded = lock(&self.0.unrecorded);
        let key = (lease.address, lease.since);
        if unrecorded.leases.len() >= MOST_UNRECORDED && !unrecorded.leases.contains_key(&key) {
            if unrecorded.dropped == 0 {
                tracing::error!(
                    "{MOST_UNRECORDED} leases wait for the database; who has which address from now on is served and not recorded."
                );
            }
            unrecorded.dropped += 1;
            return;
        }
        unrecorded.leases.insert(key, lease);
        drop(unrecorded);
        self.0.changed.notify_one();
    }

    /// Notes what a modem or MTA told of itself.
    pub(super) fn note_seen(&self, device: SeenDevice) {
        let mut unrecorded = lock(&self.0.unrecorded);
        if unrecorded.seen.len() < MOST_UNRECORDED || unrecorded.seen.contains_key(&device.mac) {
            unrecorded.seen.insert(device.mac, device);
            drop(unrecorded);
            self.0.changed.notify_one();
        }
    }

    /// Notes the revision whose file name a device was told.
    pub(super) fn note_offer(&self, element_id: i64, revision: i64) {
        lock(&self.0.unrecorded).offered.insert(element_id, revision);
        self.0.changed.notify_one();
    }

    /// Asks the journal to be written anew. Gives the number of the wish.
    pub(super) fn ask_rewrite(&self) -> u64 {
        self.0.rewrites_asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether the journal was written anew for this wish.
    pub(super) fn is_rewritten(&self, wish: u64) -> bool {
        self.0.rewrites_done.load(Ordering::Acquire) >= wish
    }

    /// The newest wish that the journal be written anew; `None`: all are done.
    pub(super) fn rewrite_asked(&self) -> Option<u64> {
        let asked = self.0.rewrites_asked.load(Ordering::Acquire);
        (asked > self.0.rewrites_done.load(Ordering::Acquire)).then_some(asked)
    }

    /// The journal was written anew for this wish and those before.
    pub(super) fn rewritten(&self, wish: u64) {
        self.0.rewrites_done.fetch_max(wish, Ordering::AcqRel);
    }

    /// Whether the store knows every lease.
    pub(super) fn is_recorded(&self) -> bool {
        lock(&self.0.unrecorded).leases.is_empty()
    }

    fn take(&self) -> Unrecorded {
        std::mem::take(&mut *lock(&self.0.unrecorded))
    }

    /// Puts back what could not be written, unless something newer came meanwhile.
    fn give_back(&self, rest: Unrecorded) {
        let mut unrecorded = lock(&self.0.unrecorded);
        for (key, lease) in rest.leases {
            unrecorded.leases.entry(key).or_insert(lease);
        }
        for (mac, device) in rest.seen {
            unrecorded.seen.entry(mac).or_insert(device);
        }
        for (id, revision) in rest.offered {
            unrecorded.offered.entry(id).or_insert(revision);
        }
    }
}

impl Unrecorded {
    fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.seen.is_empty() && self.offered.is_empty()
    }
}

/// Writes leases, devices seen and revisions offered into the store until `stopping` turns true, then what is left.
/// History is kept for `keep_days`; what an erasure wishes is let go of, out of the journal too where it is `journaled`.
pub async fn record(
    leases: Leases,
    store: Store,
    clock: Clock,
    (keep_days, journaled): (u32, bool),
    beat: Heartbeat,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let mut failing = false;
    let mut pruned: Option<Timestamp> = None;
    let mut forgetting = Forgetting::new(journaled);
    loop {
        beat.beat();
        let stop = *stopping.borrow();
        match write_all(&leases, &store).await {
            Ok(()) if failing => {
                failing = false;
                tracing::info!("The database answers again; leases are recorded.");
            }
            Ok(()) => {}
            Err(error) if !failing => {
                failing = true;
                tracing::warn!("Leases are not recorded: {error}. DHCP goes on; they are kept and written later.");
            }
            Err(_) => {}
        }
        if stop {
            return Ok(());
        }
        let now = clock.now();
        if !failing && pruned.is_none_or(|at| now.duration_since(at) >= PRUNE_EVERY) {
            let before = now.checked_sub(SignedDuration::from_hours(24 * i64::from(keep_days)));
            match prune(&store, before.unwrap_or(Timestamp::MIN)).await {
                // More of it next time round.
                Ok(true) => {}
                Ok(false) => pruned = Some(now),
                Err(error) => {
                    pruned = Some(now);
                    tracing::warn!("Old leases were not removed: {error}. That is tried again in an hour.");
                }
            }
        }
        if !failing && let Err(error) = forgetting.turn(&leases, &store, now).await {
            tracing::warn!("Leases of persons who were forgotten are kept for now: {error}. Trying again.");
        }
        let pause = async {
            if failing {
                tokio::time::sleep(LOOK_EVERY).await;
            } else {
                let _ = tokio::time::timeout(LOOK_EVERY, leases.0.changed.notified()).await;
                tokio::time::sleep(GATHER).await;
            }
        };
        tokio::select! {
            () = pause => {}
            _ = stopping.changed() => {}
        }
    }
}

/// Takes over what the database says is leased, on a machine without a journal of its own: another one served before.
/// Waits for the database only for a while, for on a first start there is nothing to take over.
pub async fn take_over(leases: &Leases, store: &Store, now: Timestamp, beat: &Heartbeat) {
    let reading = async {
        let mut after = 0;
        loop {
            beat.beat();
            let mut tx = store.read().await?;
            let (page, last) = leases::living(&mut tx, now, after, TAKE_OVER_PAGE).await?;
            let mut table = leases.table();
            page.into_iter().for_each(|lease| table.restore(lease, now));
            match last {
                Some(last) => after = last,
                None => return Ok::<_, StoreError>(()),
            }
        }
    };
    let reason = match tokio::time::timeout(TAKE_OVER_LIMIT, reading).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer".to_owned(),
    };
    tracing::warn!(
        "There is no journal of leases here and the database cannot tell them: {reason}. DHCP begins with none; an address that another machine handed out could be given twice."
    );
}

async fn write_all(leases: &Leases, store: &Store) -> Result<(), StoreError> {
    let mut waiting = leases.take();
    while !waiting.is_empty() {
        if let Err(error) = write_some(store, &mut waiting).await {
            leases.give_back(waiting);
            return Err(error);
        }
    }
    Ok(())
}

/// Writes a part and takes it out of `waiting` once it is durable.
async fn write_some(store: &Store, waiting: &mut Unrecorded) -> Result<(), StoreError> {
    let keys: Vec<_> = waiting.leases.keys().copied().take(MOST_ROWS).collect();
    let rows: Vec<Lease> = keys.iter().filter_map(|key| waiting.leases.get(key).cloned()).collect();
    let macs: Vec<MacAddress> = waiting.seen.keys().copied().take(MOST_ROWS).collect();
    let seen: Vec<SeenDevice> = macs.iter().filter_map(|mac| waiting.seen.get(mac).cloned()).collect();
    let offered: Vec<(i64, i64)> =
        waiting.offered.iter().map(|(id, revision)| (*id, *revision)).take(MOST_ROWS).collect();
    let mut tx = store.write().await?;
    leases::record(&mut tx, &rows).await?;
    leases::record_seen(&mut tx, &seen).await?;
    for (id, revision) in &offered {
        elements::record_offered(&mut tx, *id, *revision).await?;
    }
    tx.commit().await?;
    keys.iter().for_each(|key| drop(waiting.leases.remove(key)));
    macs.iter().for_each(|mac| drop(waiting.seen.remove(mac)));
    waiting.offered.retain(|id, revision| !offered.contains(&(*id, *revision)));
    Ok(())
}

async fn prune(store: &Store, before: Timestamp) -> Result<bool, StoreError> {
    let mut tx = store.write().await?;
    let more = leases::prune(&mut tx, before, MOST_UNKNOWN, PRUNE_ROWS).await?;
    tx.commit().await?;
    Ok(more)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every step; a panic elsewhere must not stop modems from booting.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Everything noted is in the store.
    pub async fn recorded(leases: &Leases, store: &Store) {
        write_all(leases, store).await.expect("recorded");
    }
}
