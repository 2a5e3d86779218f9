//! Kea hands out the addresses: reservations of modems, MTAs and static CPEs go into its tables, its leases come back.
//!
//! Comes in: elements as their jobs are worked off, and Kea's `lease4`. Goes out: rows that Kea reads with the next packet,
//! and leases for `Leases`. Repairs what somebody else changed in a device's rows with the next attempt.
//!
//! | element | rows of `hosts` |
//! |---|---|
//! | `cm` | by MAC, in each `cm` network with a `kea_subnet_id`, else for every subnet: file, 122.1 |
//! | `cm` with static addresses | by flex-id = MAC of the modem, in the network that holds the address |
//! | `mta` | by MAC, in each `mta` network: file, 122.3, 122.6 |

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::backend::{ApplyError, foreign};
use super::cmts::{Cmts, CmtsTable};
use super::leases::Leases;
use crate::dhcp::{ClientKind, Lease, LeaseState, Network, NetworkKind, Options, modem_of, realm_labels};
use crate::provision::{CmAccess, CmContent, Content, DeviceKind, MtaContent};
use crate::store::Sealer;
use crate::store::elements::ElementRow;
use crate::store::foreign::kea::{HostOption, Identifier, KeaDatabase, KeaLease, Reservation};
use crate::store::plant::config_file_name;
use crate::store::{StoreError, foreign};
use crate::telemetry::Heartbeat;
use crate::vocabulary::{MacAddress, Timestamp};

/// Kea as this installation uses it; cheap to clone.
#[derive(Clone)]
pub struct Kea(Arc<Inner>);

struct Inner {
    database: KeaDatabase,
    cmts: CmtsTable,
    options: Options,
}

/// How often Kea's leases are read; a file that is asked for sooner asks Kea itself.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const PAGE: i64 = 2000;
/// What is this young is read again: Kea writes a lease a moment after the instant it notes.
const OVERLAP_SECONDS: i64 = 10;
/// How long a file may wait for Kea to tell whose an address is.
const ASK_LIMIT: Duration = Duration::from_millis(700);
/// RFC 3495.
const CABLELABS: i16 = 122;

impl Kea {
    /// **Errors**: a URL that is not PostgreSQL's.
    pub fn open(url: &str, cmts: CmtsTable, options: Options) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Inner { database: foreign::kea::KeaDatabase::open(url)?, cmts, options })))
    }

    /// Brings a device's reservations to what its newest revision says. Safe to repeat.
    pub async fn apply(&self, sealer: &Sealer, element: &ElementRow) -> Result<(), ApplyError> {
        let (mac, wanted) = self.wanted(sealer, element)?;
        let wrote = self.0.database.put(mac, &wanted).await.map_err(|error| foreign("Kea's database", error))?;
        if wrote {
            tracing::debug!(modem.mac = %mac, "Kea has {} reservations of {mac}.", wanted.len());
        }
        Ok(())
    }

    /// How a device's reservations differ from what they must be, in words; empty: they are right.
    pub async fn check(&self, sealer: &Sealer, element: &ElementRow) -> Result<Vec<String>, ApplyError> {
        let (mac, mut wanted) = self.wanted(sealer, element)?;
        wanted.sort();
        let found = self.0.database.look(mac).await.map_err(|error| foreign("Kea's database", error))?;
        let mut drift = Vec::new();
        for lacking in wanted.iter().filter(|reservation| !found.contains(reservation)) {
            let told = lacking.boot_file.as_deref().unwrap_or("its address");
            drift.push(format!("Kea lacks the reservation of {mac} with {told} in subnet {}", lacking.subnet_id));
        }
        for strange in found.iter().filter(|reservation| !wanted.contains(reservation)) {
            let told = strange.boot_file.as_deref().unwrap_or("another address");
            drift.push(format!("Kea has a reservation of {mac} with {told} in subnet {}", strange.subnet_id));
        }
        Ok(drift)
    }

    /// Whose an address is, from Kea itself when it is not known yet. `Err`: Kea cannot be asked.
    pub async fn lease_at(&self, leases: &Leases, address: IpAddr, now: Timestamp) -> Result<Option<Lease>, String> {
        let IpAddr::V4(v4) = address.to_canonical() else { return Ok(None) };
        match tokio::time::timeout(ASK_LIMIT, self.0.database.lease_at(v4)).await {
            Err(_) => Err("Kea's database does not answer".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(found)) => {
                if let Some(lease) = found.and_then(|found| self.lease(found)) {
                    leases.learn(lease);
                }
                Ok(leases.at(address, now))
            }
        }
    }

    fn wanted(&self, sealer: &Sealer, element: &ElementRow) -> Result<(MacAddress, Vec<Reservation>), ApplyError> {
        let mac: MacAddress =
            element.key.parse().map_err(|_| ApplyError::Fail(format!("{:?} is no MAC address", element.key)))?;
        let name = |kind| config_file_name(sealer, kind, mac, element.desired_revision);
        let wanted = match &element.desired {
            Content::Cm(content) => self.of_modem(content, name(DeviceKind::Cm)),
            Content::Mta(content) => self.of_mta(content, name(DeviceKind::Mta)),
            _ => Vec::new(),
        };
        Ok((mac, wanted))
    }

    fn of_modem(&self, content: &CmContent, file: String) -> Vec<Reservation> {
        let telephones = content.voice && content.mta_mac.is_some() && content.access != CmAccess::Blocked;
        // Where nobody may telephone the MTA is kept silent; where one may, Kea's own class says who serves it unless we do.
        let server = if telephones { self.0.options.voice_server } else { Some(Ipv4Addr::UNSPECIFIED) };
        let options = server.map_or_else(Vec::new, |server| container(vec![(1, server.octets().to_vec())]));
        let row = |subnet_id| Reservation {
            identifier: Identifier::Hardware,
            subnet_id,
            address: None,
            next_server: self.0.options.tftp_server,
            boot_file: Some(file.clone()),
            options: options.clone(),
        };
        let mut rows: Vec<Reservation> = self.subnets(NetworkKind::Cm).into_iter().map(row).collect();
        for address in &content.static_ips {
            let IpAddr::V4(address) = address else { continue };
            let network = self
                .networks()
                .find(|(_, network)| network.kind == NetworkKind::Cpe && network.subnet.is_host(*address));
            let Some(subnet_id) = network.and_then(|(_, network)| network.kea_subnet_id) else { continue };
            let subnet_id = i64::from(subnet_id);
            // A flex-id is one device's: Kea has no second address for it in the same subnet.
            if !rows.iter().any(|row| row.identifier == Identifier::Flexible && row.subnet_id == subnet_id) {
                rows.push(Reservation {
                    identifier: Identifier::Flexible,
                    subnet_id,
                    address: Some(*address),
                    next_server: None,
                    boot_file: None,
                    options: Vec::new(),
                });
            }
        }
        rows
    }

    fn of_mta(&self, content: &MtaContent, file: String) -> Vec<Reservation> {
        let mut told = Vec::new();
        if let Some(provisioning) = &self.0.options.mta_provisioning {
            told.push((3, provisioning.clone()));
        }
        told.extend(realm_labels(content.flow.as_str()).map(|realm| (6, realm)));
        let options = container(told);
        let row = |subnet_id| Reservation {
            identifier: Identifier::Hardware,
            subnet_id,
            address: None,
            next_server: self.0.options.tftp_server,
            boot_file: Some(file.clone()),
            options: options.clone(),
        };
        self.subnets(NetworkKind::Mta).into_iter().map(row).collect()
    }

    /// Kea's ids of the networks of a kind; 0, every subnet, when none is named.
    fn subnets(&self, kind: NetworkKind) -> Vec<i64> {
        let of_kind = self.networks().filter(|(_, network)| network.kind == kind);
        let ids: Vec<i64> = of_kind.filter_map(|(_, network)| network.kea_subnet_id).map(i64::from).collect();
        if ids.is_empty() { vec![0] } else { ids }
    }

    fn networks(&self) -> impl Iterator<Item = (&Arc<Cmts>, &Network)> {
        self.0.cmts.all().flat_map(|cmts| cmts.dhcp_networks.iter().map(move |network| (cmts, network)))
    }

    /// `None`: a lease of a subnet that no `[[cmts.network]]` names.
    fn lease(&self, found: KeaLease) -> Option<Lease> {
        let of_subnet = |network: &Network| network.kea_subnet_id.map(i64::from) == Some(found.subnet_id);
        let (cmts, network) = self.networks().find(|(_, network)| of_subnet(network))?;
        let kind = network.kind.device();
        let behind = match kind {
            ClientKind::Cm => Some(found.mac),
            _ => found.relay_information.as_deref().and_then(modem_of),
        };
        let expires = jiff::SignedDuration::from_secs(i64::from(found.lease_seconds));
        Some(Lease {
            address: found.address,
            mac: found.mac,
            kind,
            behind,
            relay: cmts.relays.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED),
            cmts: cmts.name.as_str().into(),
            since: found.seen_at,
            seen_at: found.seen_at,
            expires_at: found.seen_at.checked_add(expires).ok()?,
            lease_seconds: found.lease_seconds,
            state: LeaseState::Bound,
        })
    }
}

/// Reads Kea's leases into `leases`, then what it heard of since. Ends never.
pub async fn follow(kea: Kea, leases: Leases, beat: Heartbeat) -> Result<(), StoreError> {
    let mut after = (i64::MIN, Ipv4Addr::UNSPECIFIED);
    let mut failing = false;
    loop {
        beat.beat();
        match kea.0.database.leases(after, PAGE).await {
            Ok(page) => {
                if failing {
                    failing = false;
                    tracing::info!("Kea's leases are read again.");
                }
                let full = page.len() as i64 == PAGE;
                let last = page.last().map(|lease| (lease.seen_at.as_second(), lease.address));
                for lease in page.into_iter().filter_map(|found| kea.lease(found)) {
                    leases.learn(lease);
                }
                if let Some(last) = last {
                    // A full page goes on where it ended; at the end what is young is read again.
                    after = if full { last } else { (last.0 - OVERLAP_SECONDS, Ipv4Addr::UNSPECIFIED) };
                }
                if full {
                    continue;
                }
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!("Kea's leases are not read: {error}. What was read before counts until then.");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// 122 with its sub-options inside: Kea 2.2 sends sub-options that stand as rows of their own with an empty 122 (tried).
fn container(told: Vec<(u8, Vec<u8>)>) -> Vec<HostOption> {
    if told.is_empty() {
        return Vec::new();
    }
    let subs = told.iter().flat_map(|(code, value)| [&[*code, value.len() as u8][..], value].concat());
    vec![HostOption { code: CABLELABS, space: "dhcp4".to_owned(), value: subs.collect() }]
}
