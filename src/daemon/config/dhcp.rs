//! Reads `[dhcp]`, `[tod]` and `[[cmts.network]]`: who hands out addresses, which ones, and what is told with them.

use std::net::Ipv4Addr;

use super::reader::{Found, Section};
use super::sections::Door;
use super::{BuiltinDhcp, Dhcp, DhcpDriver, Tod};
use crate::dhcp::{Network, NetworkKind, Options, Pool, Subnet, realm_labels};
use crate::provisioner::cmts::Cmts;
use crate::vocabulary::Zone;

const DEFAULT_LISTEN: &str = "0.0.0.0:67";
const DEFAULT_TOD: &str = "0.0.0.0:37";
const DEFAULT_LEASE_SECONDS: u32 = 86_400;
const DEFAULT_SHORT_LEASE_SECONDS: u32 = 300;
const LEAST_LEASE_SECONDS: u32 = 60;
const DEFAULT_KEEP_DAYS: u32 = 400;

/// What the networks before said; no two may overlap.
pub(super) type Subnets = Vec<(String, Subnet)>;

impl Door<'_, '_> {
    /// Outer `None`: unusable; inner `None`: the driver is `none`.
    pub(super) fn dhcp(&self, section: Section<'_, '_>) -> Option<Option<Dhcp>> {
        let driver = section
            .word("driver", &[("none", Driver::None), ("kea-sql", Driver::Kea), ("builtin", Driver::Builtin)])
            .unwrap_or(Driver::None);
        let url = if driver == Driver::Kea { section.required("url") } else { section.string("url") };
        let url = url.and_then(|found| self.url(&found));
        let listen = match section.string("listen") {
            Some(found) => self.address(&found).filter(|address| {
                if !address.is_ipv4() {
                    self.reader.fault(found.at, &found.key, "must be an IPv4 address; DHCPv6 is not served");
                }
                address.is_ipv4()
            }),
            None => DEFAULT_LISTEN.parse().ok(),
        };
        let zone = section.string("timezone").and_then(|found| match Zone::get(found.value) {
            Ok(zone) => Some(zone),
            Err(_) => {
                self.reader.fault(
                    found.at,
                    &found.key,
                    format!("{:?} is no time zone; write for example Europe/Berlin", found.value),
                );
                None
            }
        });
        let options = Options {
            tftp_server: section.parsed::<Ipv4Addr>("tftp_server").map(|found| found.value),
            time_servers: addresses(&section, "time_servers"),
            log_servers: addresses(&section, "log_servers"),
            time_offset: None,
            voice_server: section.parsed::<Ipv4Addr>("voice_server").map(|found| found.value),
            mta_provisioning: section.string("mta_provisioning").and_then(|found| self.provisioning(&found)),
            unknown_lease_seconds: seconds(&section, "unknown_lease_seconds", DEFAULT_SHORT_LEASE_SECONDS),
            garden_lease_seconds: seconds(&section, "garden_lease_seconds", DEFAULT_SHORT_LEASE_SECONDS),
        };
        let keep_days = section.number("keep_days", 1).unwrap_or(DEFAULT_KEEP_DAYS);
        section.close();
        let driver = match driver {
            Driver::None => return Some(None),
            Driver::Kea => DhcpDriver::Kea { url: url?, options: Box::new(options) },
            Driver::Builtin => DhcpDriver::Builtin(Box::new(BuiltinDhcp { listen: listen?, options, zone })),
        };
        Some(Some(Dhcp { driver, keep_days }))
    }

    /// What is doubtful in `[dhcp]`, `[tftp]` and `[[cmts]]` together.
    pub(super) fn about_addresses(
        &self,
        root: &Section<'_, '_>,
        cmts: &Option<Vec<Cmts>>,
        tftp: bool,
        dhcp: &Option<Option<Option<Dhcp>>>,
    ) {
        let driver = dhcp.as_ref().and_then(|dhcp| dhcp.as_ref()).and_then(|dhcp| dhcp.as_ref());
        let all = cmts.as_deref().unwrap_or_default();
        if driver.is_none()
            && let Some(strict) = all.iter().find(|cmts| cmts.tftp_source_check)
        {
            let detail = format!(
                "[[cmts]] {}: tftp_source_check needs a driver in [dhcp], which tells who has which address; a file is served to any address that knows its name",
                strict.name
            );
            self.reader.warn(root.at(), "cmts", detail);
        }
        let networks = || all.iter().flat_map(|cmts| &cmts.dhcp_networks);
        match driver.map(|dhcp| &dhcp.driver) {
            Some(DhcpDriver::Builtin(builtin)) => {
                if networks().next().is_none() {
                    self.reader.warn(root.at(), "dhcp", "no [[cmts]] has a [[cmts.network]]: nobody gets an address");
                }
                if !tftp && builtin.options.tftp_server.is_none() {
                    self.reader.warn(
                        root.at(),
                        "dhcp.tftp_server",
                        "is not given and there is no [tftp]: modems are sent to us for a file nobody serves",
                    );
                }
            }
            Some(DhcpDriver::Kea { .. }) if networks().all(|network| network.kea_subnet_id.is_none()) => {
                self.reader.warn(
                    root.at(),
                    "dhcp",
                    "no [[cmts.network]] has a kea_subnet_id: no reservation can be written",
                );
            }
            _ => {}
        }
    }

    pub(super) fn tod(&self, section: Section<'_, '_>) -> Option<Tod> {
        let listen = match section.string("listen") {
            Some(found) => self.address(&found),
            None => DEFAULT_TOD.parse().ok(),
        };
        section.close();
        Some(Tod { listen: listen? })
    }

    /// `[[cmts.network]]` of one CMTS. `None`: one of them is unusable.
    pub(super) fn networks(&self, cmts: &Section<'_, '_>, told: &mut Subnets) -> Option<Vec<Network>> {
        let tables = cmts.tables("network");
        let read: Vec<Option<Network>> = tables.into_iter().map(|table| self.network(table, told)).collect();
        read.into_iter().collect()
    }

    fn network(&self, section: Section<'_, '_>, told: &mut Subnets) -> Option<Network> {
        let kinds = [
            ("cm", NetworkKind::Cm),
            ("mta", NetworkKind::Mta),
            ("cpe", NetworkKind::Cpe),
            ("garden", NetworkKind::Garden),
        ];
        let kind = section.required("kind").and_then(|_| section.word("kind", &kinds));
        let subnet = section.required("subnet").and_then(|found| section.parse::<Subnet>(&found));
        if let Some(subnet) = &subnet {
            match told.iter().find(|(_, other)| other.overlaps(subnet.value)) {
                Some((key, other)) => {
                    let detail = format!("{} overlaps {other} of {key}", subnet.value);
                    self.reader.fault(subnet.at, &subnet.key, detail);
                }
                None => told.push((subnet.key.clone(), subnet.value)),
            }
        }
        let inside = |found: &Found<&str>, address: Ipv4Addr| {
            if let Some(subnet) = &subnet
                && !subnet.value.is_host(address)
            {
                self.reader.fault(
                    found.at,
                    &found.key,
                    format!("{address} is no device's address of {}", subnet.value),
                );
            }
        };
        let mut pools: Vec<Pool> = Vec::new();
        for found in section.strings("pools").unwrap_or_default() {
            let Some(pool) = section.parse::<Pool>(&found).map(|pool| pool.value) else { continue };
            inside(&found, pool.first);
            inside(&found, pool.last);
            if pools.iter().any(|other| other.contains(pool.first) || pool.contains(other.first)) {
                self.reader.fault(found.at, &found.key, format!("{} overlaps another pool", found.value));
            }
            pools.push(pool);
        }
        let mut routers = Vec::new();
        for found in section.one_or_more("router") {
            if let Some(address) = section.parse::<Ipv4Addr>(&found) {
                inside(&found, address.value);
                routers.push(address.value);
            }
        }
        let name_servers = addresses(&section, "dns");
        let domain = section.string("domain").map(|found| found.value.to_owned());
        let lease_seconds = seconds(&section, "lease_seconds", DEFAULT_LEASE_SECONDS);
        let kea_subnet_id = section.number("kea_subnet_id", 1);
        section.close();
        Some(Network {
            kind: kind?,
            subnet: subnet?.value,
            pools,
            routers,
            name_servers,
            domain,
            lease_seconds,
            kea_subnet_id,
        })
    }

    /// Option 122.3: an address or a name. RFC 3495 section 5.1.
    fn provisioning(&self, found: &Found<&str>) -> Option<Vec<u8>> {
        if let Ok(address) = found.value.parse::<Ipv4Addr>() {
            return Some([&[1], &address.octets()[..]].concat());
        }
        let named = realm_labels(found.value).map(|labels| [&[0], &labels[..]].concat());
        if named.is_none() {
            self.reader.fault(
                found.at,
                &found.key,
                format!("{:?} is neither an IPv4 address nor a host name", found.value),
            );
        }
        named
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    None,
    Kea,
    Builtin,
}

fn addresses(section: &Section<'_, '_>, name: &'static str) -> Vec<Ipv4Addr> {
    let list = section.strings(name).unwrap_or_default();
    list.iter().filter_map(|found| section.parse(found)).map(|found| found.value).collect()
}

fn seconds(section: &Section<'_, '_>, name: &'static str, default: u32) -> u32 {
    section.number(name, LEAST_LEASE_SECONDS).unwrap_or(default)
}
