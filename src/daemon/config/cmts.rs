//! Reads `[[cmts]]`: who each CMTS is, and what no two of them may share.

use std::net::{IpAddr, Ipv4Addr};

use super::dhcp::Subnets;
use super::reader::{Found, Section};
use super::sections::Door;
use crate::docsis::ExtendedMic;
use crate::provisioner::cmts::{Cmts, ResetDriver};
use crate::provisioner::snmp::Access;
use crate::vocabulary::Cidr;

const DEFAULT_RESETS_PER_MINUTE: u32 = 60;

/// What the tables before said, so that no two say the same.
#[derive(Default)]
struct Told {
    names: Vec<(String, String)>,
    relays: Vec<(String, Ipv4Addr)>,
    networks: Vec<(String, Cidr)>,
    subnets: Subnets,
}

impl Door<'_, '_> {
    /// All `[[cmts]]`. `None` where one is unusable; its fault is noted.
    pub(super) fn all_cmts(&self, tables: Vec<Section<'_, '_>>) -> Option<Vec<Cmts>> {
        let mut told = Told::default();
        // Every table is read, so that all faults come at once.
        let read: Vec<Option<Cmts>> = tables.into_iter().map(|table| self.one_cmts(table, &mut told)).collect();
        read.into_iter().collect()
    }

    fn one_cmts(&self, section: Section<'_, '_>, told: &mut Told) -> Option<Cmts> {
        let name = section.required("name");
        if let Some(name) = &name {
            self.once(&mut told.names, name, name.value.to_owned());
        }
        let address = section.parsed::<IpAddr>("address").map(|found| found.value);
        let relays = self.list(&section, "relays", &mut told.relays);
        let networks = self.list(&section, "networks", &mut told.networks);
        let shared_secret = self.secret(&section, "shared_secret", "shared_secret_file");
        let previous = self.secret(&section, "previous_shared_secret", "previous_shared_secret_file");
        let tftp_source_check =
            section.word("tftp_source_check", &[("off", false), ("enforce", true)]).unwrap_or(false);
        let address_in_file = section.flag("address_in_file").unwrap_or(tftp_source_check);
        let extended_mic =
            section.word("extended_mic", &[("off", None), ("implicit", Some(false)), ("explicit", Some(true))]);
        let community = self.secret(&section, "community", "community_file");
        let user = section.table("user").map(|table| self.snmp_user(table));
        if user.is_some() && !matches!(community, Some(None)) {
            section.fault("community and user: say one of them; it is how this CMTS is asked");
        }
        let reset = section.word(
            "reset",
            &[
                ("none", ResetDriver::None),
                ("cisco", ResetDriver::Cisco),
                ("casa", ResetDriver::Casa),
                ("arris", ResetDriver::Arris),
            ],
        );
        let resets_per_minute = section.number("resets_per_minute", 1).unwrap_or(DEFAULT_RESETS_PER_MINUTE);
        let areas = section.strings("areas").unwrap_or_default();
        let areas = areas.iter().filter_map(|found| section.parse(found)).map(|found| found.value).collect();
        let dhcp_networks = self.networks(&section, &mut told.subnets);
        if tftp_source_check
            && networks.is_empty()
            && relays.is_empty()
            && dhcp_networks.as_ref().is_some_and(Vec::is_empty)
        {
            section.fault("tftp_source_check needs networks or relays: they tell which modems are behind this CMTS");
        }
        section.close();
        Some(Cmts {
            name: name?.value.to_owned(),
            address,
            relays,
            networks,
            dhcp_networks: dhcp_networks?,
            shared_secret: shared_secret?,
            previous_shared_secret: previous?,
            tftp_source_check,
            address_in_file,
            extended_mic: extended_mic.flatten().map(ExtendedMic::of_all),
            access: match user {
                Some(user) => Some(Access::User(user?)),
                None => community?.map(Access::Community),
            },
            reset: reset.unwrap_or_default(),
            resets_per_minute,
            areas,
        })
    }

    fn list<T: std::str::FromStr<Err: std::fmt::Display> + PartialEq + Clone>(
        &self,
        section: &Section<'_, '_>,
        name: &'static str,
        told: &mut Vec<(String, T)>,
    ) -> Vec<T> {
        let found = section.strings(name).unwrap_or_default();
        let mut values = Vec::new();
        for text in &found {
            if let Some(read) = section.parse::<T>(text) {
                self.once(told, text, read.value.clone());
                values.push(read.value);
            }
        }
        values
    }

    /// Notes a fault where the same was said before: it could not be told which CMTS is meant.
    fn once<T: PartialEq>(&self, told: &mut Vec<(String, T)>, found: &Found<&str>, value: T) {
        match told.iter().find(|(_, other)| *other == value) {
            Some((key, _)) => {
                let detail = format!("{:?} is said twice, first as {key}", found.value);
                self.reader.fault(found.at, &found.key, detail);
            }
            None => told.push((found.key.clone(), value)),
        }
    }
}
