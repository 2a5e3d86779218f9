//! Who has which address until when. Bounded by the pools: an address has one row, and a row is taken over only when its
//! lease has ended.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::ClientKind;
use super::network::{Network, Pool};
use crate::vocabulary::{MacAddress, Timestamp};

/// An address and the device that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub mac: MacAddress,
    pub kind: ClientKind,
    /// The modem it is behind, as the relay told; a modem's own is its own.
    pub behind: Option<MacAddress>,
    pub relay: Ipv4Addr,
    pub cmts: Arc<str>,
    /// Since when it has the address behind this modem and relay.
    pub since: Timestamp,
    pub seen_at: Timestamp,
    pub expires_at: Timestamp,
    /// What it was given when it asked last.
    pub lease_seconds: u32,
    pub state: LeaseState,
}

/// How far a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Kept for a client that was offered it; lost in a restart.
    Offered,
    /// Decided, and not known to be on the disk yet: it is not acknowledged.
    Binding,
    /// Acknowledged.
    Bound,
    /// Given back.
    Released,
    /// A client found somebody else using it.
    Declined,
}

/// All leases.
#[derive(Debug, Default)]
pub struct Table {
    by_address: HashMap<Ipv4Addr, Lease, foldhash::fast::RandomState>,
    by_mac: HashMap<MacAddress, Vec<Ipv4Addr>, foldhash::fast::RandomState>,
    by_modem: HashMap<MacAddress, Vec<Ipv4Addr>, foldhash::fast::RandomState>,
    pools: HashMap<(Ipv4Addr, Ipv4Addr), PoolState>,
}

/// Where the search for a free address of a pool goes on.
#[derive(Debug, Default)]
struct PoolState {
    next: u64,
    /// Nothing was free: it is not searched again before.
    full_until: Option<Timestamp>,
}

const FULL_POOL_REST_SECONDS: i64 = 2;

impl Lease {
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at > now
    }

    /// Whether its client may use it now.
    pub fn is_held(&self, now: Timestamp) -> bool {
        matches!(self.state, LeaseState::Bound | LeaseState::Binding) && self.is_live(now)
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    pub fn at(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.by_address.get(&address)
    }

    /// What a device has or had.
    pub fn of(&self, mac: MacAddress) -> impl Iterator<Item = &Lease> {
        self.by_mac.get(&mac).into_iter().flatten().filter_map(|address| self.by_address.get(address))
    }

    pub fn all(&self) -> impl Iterator<Item = &Lease> {
        self.by_address.values()
    }

    /// Live leases of CPEs behind a modem, and addresses they found taken.
    pub fn count_behind(&self, modem: MacAddress, now: Timestamp) -> usize {
        let addresses = self.by_modem.get(&modem).into_iter().flatten();
        addresses.filter_map(|address| self.by_address.get(address)).filter(|lease| lease.is_live(now)).count()
    }

    /// Writes a lease over whatever the address had.
    pub fn put(&mut self, lease: Lease) {
        let address = lease.address;
        if let Some(old) = self.by_address.get(&address) {
            let same = (old.mac, old.behind, old.kind) == (lease.mac, lease.behind, lease.kind);
            if same {
                self.by_address.insert(address, lease);
                return;
            }
            let (mac, behind) = (old.mac, old.behind);
            drop_from(&mut self.by_mac, mac, address);
            if let Some(modem) = behind {
                drop_from(&mut self.by_modem, modem, address);
            }
        }
        self.by_mac.entry(lease.mac).or_default().push(address);
        if let Some(modem) = lease.behind.filter(|_| lease.kind == ClientKind::Cpe) {
            self.by_modem.entry(modem).or_default().push(address);
        }
        self.by_address.insert(address, lease);
    }

    /// Takes over what an earlier process acknowledged. It may have renewed it since without writing that down, but not
    /// for longer than the lease's length: until that has passed nobody else gets the address.
    pub fn restore(&mut self, lease: Lease, now: Timestamp) {
        let ended = matches!(lease.state, LeaseState::Released | LeaseState::Declined);
        let longest = later(now, lease.lease_seconds);
        let expires_at = if ended { lease.expires_at } else { lease.expires_at.max(longest) };
        self.put(Lease { expires_at, ..lease });
    }

    /// The lease is on the disk. `false`: it has changed hands meanwhile.
    pub fn confirm(&mut self, lease: &Lease) -> bool {
        match self.by_address.get_mut(&lease.address) {
            Some(held) if held.mac == lease.mac && held.since == lease.since => {
                if held.state == LeaseState::Binding {
                    held.state = LeaseState::Bound;
                }
                matches!(held.state, LeaseState::Bound)
            }
            _ => false,
        }
    }

    /// Drops what a client was offered and did not take.
    pub fn withdraw_offers(&mut self, mac: MacAddress) {
        let offered: Vec<Ipv4Addr> =
            self.of(mac).filter(|lease| lease.state == LeaseState::Offered).map(|lease| lease.address).collect();
        for address in offered {
            if let Some(lease) = self.by_address.remove(&address) {
                drop_from(&mut self.by_mac, mac, address);
                if let Some(modem) = lease.behind {
                    drop_from(&mut self.by_modem, modem, address);
                }
            }
        }
    }

    /// Forgets a lease that is over; `false`: it is not, or is another one meanwhile.
    pub fn forget(&mut self, lease: &Lease, now: Timestamp) -> bool {
        let same = |held: &&Lease| held.mac == lease.mac && held.since == lease.since && !held.is_live(now);
        if self.by_address.get(&lease.address).filter(same).is_none() {
            return false;
        }
        self.by_address.remove(&lease.address);
        drop_from(&mut self.by_mac, lease.mac, lease.address);
        if let Some(modem) = lease.behind {
            drop_from(&mut self.by_modem, modem, lease.address);
        }
        true
    }

    /// Whether a client may have an address: nobody has it, its lease ended, or it is the client's.
    pub fn is_free_for(&self, address: Ipv4Addr, mac: MacAddress, now: Timestamp) -> bool {
        match self.by_address.get(&address) {
            None => true,
            Some(lease) if !lease.is_live(now) => true,
            Some(lease) => lease.mac == mac && lease.state != LeaseState::Declined,
        }
    }

    /// A free address of a network's pools, the one that rested longest; `reserved` ones belong to somebody.
    pub fn free(
        &mut self,
        network: &Network,
        mac: MacAddress,
        now: Timestamp,
        reserved: &dyn Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        network.pools.iter().find_map(|pool| self.free_of(*pool, network, mac, now, reserved))
    }

    fn free_of(
        &mut self,
        pool: Pool,
        network: &Network,
        mac: MacAddress,
        now: Timestamp,
        reserved: &dyn Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let state = self.pools.get(&(pool.first, pool.last));
        if state.and_then(|state| state.full_until).is_some_and(|until| now < until) {
            return None;
        }
        let (begin, size) = (state.map_or(0, |state| state.next), pool.size());
        for step in 0..size {
            let place = (begin + step) % size;
            // Inside the pool, so inside 32 bits.
            let address = Ipv4Addr::from(u32::from(pool.first) + place as u32);
            if network.subnet.is_host(address)
                && !network.routers.contains(&address)
                && self.is_free_for(address, mac, now)
                && !reserved(address)
            {
                self.pools.insert((pool.first, pool.last), PoolState { next: place + 1, full_until: None });
                return Some(address);
            }
        }
        let rest = now.checked_add(jiff::SignedDuration::from_secs(FULL_POOL_REST_SECONDS)).ok();
        self.pools.insert((pool.first, pool.last), PoolState { next: begin, full_until: rest });
        None
    }
}

/// `seconds` later, at most the end of the calendar.
pub(super) fn later(now: Timestamp, seconds: u32) -> Timestamp {
    now.checked_add(jiff::SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

fn drop_from(
    index: &mut HashMap<MacAddress, Vec<Ipv4Addr>, foldhash::fast::RandomState>,
    mac: MacAddress,
    address: Ipv4Addr,
) {
    if let Some(list) = index.get_mut(&mac) {
        list.retain(|other| *other != address);
        if list.is_empty() {
            index.remove(&mac);
        }
    }
}
