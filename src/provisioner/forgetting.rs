//! Lets go of the devices of persons who were forgotten: out of the table of leases, out of the journal, out of the history. It
//! reads of them in the store, where an erasure leaves a keyed hash of each; a lease that runs is let go of when it has ended.

use std::collections::{BTreeSet, HashMap};

use jiff::SignedDuration;

use super::leases::Leases;
use crate::dhcp::Lease;
use crate::store::privacy::devices::{self, Wish};
use crate::store::{Store, StoreError};
use crate::vocabulary::{MacAddress, Timestamp};

/// A wish, and the devices it turned out to mean.
type Forgotten = (Wish, BTreeSet<MacAddress>);

/// What became of wishes to forget devices.
#[derive(Default)]
pub(super) struct Forgetting {
    journaled: bool,
    looked: Option<Timestamp>,
    /// Wishes of which memory has nothing left, the devices they were, and the rewriting of the journal they wait for.
    waiting: Option<(u64, Vec<Forgotten>)>,
}

impl Forgetting {
    /// `journaled`: leases stand in a journal of ours too.
    pub fn new(journaled: bool) -> Self {
        Self { journaled, ..Self::default() }
    }

    /// One look: leases that are over go at once, one that runs when it has ended. A device that somebody else has by now is
    /// theirs.
    ///
    /// **Errors**: the database; call again.
    pub async fn turn(&mut self, leases: &Leases, store: &Store, now: Timestamp) -> Result<(), StoreError> {
        if let Some((rewrite, done)) = self.waiting.take() {
            if !leases.is_rewritten(rewrite) {
                self.waiting = Some((rewrite, done));
                return Ok(());
            }
            return forget_history(store, &done).await;
        }
        if self.looked.is_some_and(|at| now.duration_since(at) < FORGET_EVERY) {
            return Ok(());
        }
        self.looked = Some(now);
        let mut tx = store.read().await?;
        let wishes = devices::wishes(&mut tx).await?;
        if wishes.is_empty() {
            return Ok(());
        }
        let mut known: BTreeSet<MacAddress> = BTreeSet::new();
        leases.table().all().for_each(|lease| known.extend([Some(lease.mac), lease.behind].into_iter().flatten()));
        let hashes: HashMap<Vec<u8>, MacAddress> =
            known.into_iter().map(|mac| (devices::hash(store.sealer(), mac), mac)).collect();
        let wished: BTreeSet<MacAddress> =
            wishes.iter().filter_map(|wish| hashes.get(&wish.mac_hash).copied()).collect();
        let held = devices::held(&mut tx, &wished).await?;
        drop(tx);
        let mut done = Vec::new();
        for wish in wishes {
            let mac = hashes.get(&wish.mac_hash).copied().filter(|mac| !held.contains(mac));
            let Some(mac) = mac else {
                done.push((wish, BTreeSet::new()));
                continue;
            };
            let mut table = leases.table();
            let is_old =
                |lease: &&Lease| (lease.mac == mac || lease.behind == Some(mac)) && lease.since < wish.asked_at;
            let old: Vec<_> = table.all().filter(is_old).cloned().collect();
            let gone = old.iter().filter(|lease| table.forget(lease, now)).count();
            drop(table);
            let macs = old.iter().map(|lease| lease.mac).chain([mac]).collect();
            if gone == old.len() {
                done.push((wish, macs));
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        if self.journaled {
            self.waiting = Some((leases.ask_rewrite(), done));
            return Ok(());
        }
        forget_history(store, &done).await
    }
}

async fn forget_history(store: &Store, done: &[(Wish, BTreeSet<MacAddress>)]) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    for (wish, macs) in done {
        for mac in macs {
            devices::drop_history(&mut tx, *mac, wish.asked_at).await?;
        }
        devices::done(&mut tx, wish).await?;
    }
    tx.commit().await
}

/// How often wishes to forget devices are looked for.
const FORGET_EVERY: SignedDuration = SignedDuration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::dhcp::{ClientKind, LeaseState};
    use crate::provisioner::lease_journal;
    use crate::store::StoreConfig;
    use crate::telemetry::Metrics;
    use crate::vocabulary::Clock;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("an instant")
    }

    fn mac(last: u8) -> MacAddress {
        MacAddress::from_octets([0, 1, 2, 3, 4, last]).expect("a MAC")
    }

    fn lease(last: u8, behind: Option<u8>, until: i64) -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 1, 0, last),
            mac: mac(last),
            kind: if behind.is_some() { ClientKind::Cpe } else { ClientKind::Cm },
            behind: behind.map(mac),
            relay: Ipv4Addr::new(10, 1, 0, 1),
            cmts: "cmts1".into(),
            since: at(NOW - 3600),
            seen_at: at(NOW - 3600),
            expires_at: at(until),
            lease_seconds: 60,
            state: LeaseState::Bound,
        }
    }

    async fn store(folder: &Path) -> Store {
        let url = format!("sqlite://{}", folder.join("lastmile.db").display());
        let config = StoreConfig { url, key_file: None, previous_key_file: None, owner: "test".to_owned() };
        let store = Store::open(&config).await.expect("a store");
        store.migrate().await.expect("migrated");
        store
    }

    /// Looks until nothing waits for the journal; bounded.
    async fn looked(leases: &Leases, store: &Store, now: i64) {
        let mut forgetting = Forgetting::new(true);
        for _ in 0..200 {
            forgetting.turn(leases, store, at(now)).await.expect("a look");
            if forgetting.waiting.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the journal was not written anew");
    }

    #[tokio::test]
    async fn a_forgotten_device_leaves_memory_and_journal_once_its_lease_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("leases.journal");
        let leases = Leases::default();
        let opened = lease_journal::open(&path, &leases, at(NOW)).expect("a new file");
        let journal = opened.start(leases.clone(), Metrics::new(), Clock::fixed(at(NOW))).expect("a thread");
        // One that ended, one that runs, a CPE behind the first, and somebody else's.
        for lease in
            [lease(2, None, NOW - 60), lease(3, None, NOW + 60), lease(4, Some(2), NOW - 60), lease(5, None, NOW - 60)]
        {
            leases.table().put(lease.clone());
            let (told, written) = std::sync::mpsc::channel();
            let then = Box::new(move || told.send(()).expect("a reader"));
            assert!(journal.write(lease_journal::Entry { lease, then }));
            written.recv_timeout(Duration::from_secs(20)).expect("it is on the disk");
        }
        let store = store(folder.path()).await;
        crate::provisioner::leases::tests::recorded(&leases, &store).await;
        let mut tx = store.write().await.expect("a transaction");
        for last in [2, 3] {
            devices::ask(&mut tx, store.sealer(), &mac(last).to_string(), at(NOW)).await.expect("asked");
        }
        tx.commit().await.expect("committed");

        looked(&leases, &store, NOW).await;
        let text = std::fs::read_to_string(&path).expect("the journal");
        let named = |last: u8| text.contains(&mac(last).to_string());
        assert_eq!([2, 3, 4, 5].map(named), [false, true, false, true], "{text}");
        let left = devices::wishes(&mut store.read().await.expect("a transaction")).await.expect("wishes");
        assert_eq!(left.len(), 1, "the one that runs");

        looked(&leases, &store, NOW + 61).await;
        let text = std::fs::read_to_string(&path).expect("the journal");
        let named = |last: u8| text.contains(&mac(last).to_string());
        assert_eq!([2, 3, 4, 5].map(named), [false, false, false, true], "{text}");
        let mut tx = store.read().await.expect("a transaction");
        assert_eq!(devices::wishes(&mut tx).await.expect("wishes"), []);
        let (history, _) = crate::store::leases::living(&mut tx, at(NOW - 1800), 0, 100).await.expect("leases");
        assert_eq!(history.iter().map(|lease| lease.mac).collect::<Vec<_>>(), [mac(5)], "and out of the history");
        assert_eq!(leases.count(), 1);
    }
}
