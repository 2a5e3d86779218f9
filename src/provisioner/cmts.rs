//! The CMTS of the installation: what each is trusted with, and which one an address belongs to.
//!
//! Comes in: `[[cmts]]` of the configuration. Goes out: the CMTS of a relay (giaddr) or of a modem's address. Knows no
//! database and no socket.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::snmp::Access;
use crate::dhcp::Network;
use crate::docsis::ExtendedMic;
use crate::vocabulary::{Cidr, Secret};

/// `[[cmts]]`: one cable modem termination system.
#[derive(Debug, Clone)]
pub struct Cmts {
    pub name: String,
    /// Where its management answers, for SNMP; its name is not looked up.
    pub address: Option<IpAddr>,
    /// Addresses with which it relays DHCP (giaddr).
    pub relays: Vec<Ipv4Addr>,
    /// Where the addresses of its modems and MTAs are, besides `dhcp_networks`. Over all CMTS the longest prefix wins.
    pub networks: Vec<Cidr>,
    /// What DHCP hands out behind it.
    pub dhcp_networks: Vec<Network>,
    /// `None`: that of `[docsis]`.
    pub shared_secret: Option<Secret>,
    /// What the CMTS accepted before `shared_secret`, while it is being rotated.
    pub previous_shared_secret: Option<Secret>,
    /// `enforce`: a file is served only to the address its modem has leased.
    pub tftp_source_check: bool,
    /// Whether a file names the address it was served to (TLV 20) and when (TLV 19), so that the CMTS refuses it to another
    /// modem. Default: as `tftp_source_check`.
    pub address_in_file: bool,
    /// The extended CMTS MIC of its modems' files, where it checks one.
    pub extended_mic: Option<ExtendedMic>,
    /// As whom the CMTS itself is asked by SNMP.
    pub access: Option<Access>,
    pub reset: ResetDriver,
    /// Modems reset in one minute, at most.
    pub resets_per_minute: u32,
    /// Postal codes it serves.
    pub areas: Vec<AreaPattern>,
}

/// How a CMTS is told to make a modem boot, when the modem itself does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResetDriver {
    #[default]
    None,
    Cisco,
    Casa,
    Arris,
}

/// A postal code, or its beginning followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaPattern {
    text: String,
    open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no area; write a postal code as \"78701\", or the beginning of several as \"787*\"")]
pub struct AreaError(String);

impl AreaPattern {
    /// Whether a postal code belongs to it; letters in either case, blanks and hyphens do not count.
    pub fn holds(&self, postal_code: &str) -> bool {
        let code = plain(postal_code);
        if self.open { code.starts_with(&self.text) } else { code == self.text }
    }
}

impl std::str::FromStr for AreaPattern {
    type Err = AreaError;

    fn from_str(text: &str) -> Result<Self, AreaError> {
        let (code, open) = text.strip_suffix('*').map_or((text, false), |begin| (begin, true));
        let known = |letter: char| letter.is_alphanumeric() || letter == ' ' || letter == '-';
        if !code.chars().all(known) || (plain(code).is_empty() && !open) {
            return Err(AreaError(text.chars().take(60).collect()));
        }
        Ok(Self { text: plain(code), open })
    }
}

fn plain(code: &str) -> String {
    code.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// All CMTS of the installation; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CmtsTable(Arc<[Arc<Cmts>]>);

impl CmtsTable {
    pub fn new(all: Vec<Cmts>) -> Self {
        Self(all.into_iter().map(Arc::new).collect())
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Cmts>> {
        self.0.iter()
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Cmts>> {
        self.0.iter().find(|cmts| cmts.name == name)
    }

    /// Modems that may boot in a minute behind the one that bears least; `None`: there is none.
    pub fn resets_per_minute(&self) -> Option<u32> {
        self.all().map(|cmts| cmts.resets_per_minute).min()
    }

    /// The CMTS that relays with this address: by its list of relays, else by the network the relay stands in.
    pub fn of_relay(&self, relay: Ipv4Addr) -> Option<&Arc<Cmts>> {
        self.0.iter().find(|cmts| cmts.relays.contains(&relay)).or_else(|| self.of_address(relay.into()))
    }

    /// The CMTS behind which an address is: that with the longest matching network; else that whose relay or management
    /// address it is, for a CMTS that fetches files for its modems.
    pub fn of_address(&self, address: IpAddr) -> Option<&Arc<Cmts>> {
        let address = address.to_canonical();
        let longest = |cmts: &Cmts| {
            let said = cmts.networks.iter().filter(|net| net.contains(address)).map(|net| net.prefix());
            let IpAddr::V4(v4) = address else { return said.max() };
            let own = cmts.dhcp_networks.iter().map(|network| network.subnet);
            said.chain(own.filter(|subnet| subnet.contains(v4)).map(|subnet| subnet.prefix())).max()
        };
        let within = self.0.iter().filter_map(|cmts| Some((longest(cmts)?, cmts)));
        // Of equal ones, which the configuration refuses, the first.
        let found = within.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, cmts)| cmts);
        found.or_else(|| self.0.iter().find(|cmts| cmts.is_itself(address)))
    }
}

impl Cmts {
    /// Whether it tells about its modems by SNMP.
    pub fn can_be_asked(&self) -> bool {
        self.address.is_some() && self.access.is_some()
    }

    /// Whether the CMTS itself has this address: then it speaks for a modem and is not one.
    pub fn is_itself(&self, address: IpAddr) -> bool {
        self.address == Some(address) || self.relays.iter().any(|relay| IpAddr::from(*relay) == address)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn cmts(name: &str, relays: &[&str], networks: &[&str]) -> Cmts {
        Cmts {
            name: name.to_owned(),
            address: None,
            relays: relays.iter().map(|text| text.parse().expect("an address")).collect(),
            networks: networks.iter().map(|text| text.parse().expect("a network")).collect(),
            dhcp_networks: Vec::new(),
            shared_secret: None,
            previous_shared_secret: None,
            tftp_source_check: false,
            address_in_file: false,
            extended_mic: None,
            access: None,
            reset: ResetDriver::None,
            resets_per_minute: 60,
            areas: Vec::new(),
        }
    }

    #[test]
    fn the_longest_network_tells_the_cmts_and_a_relay_its_own() {
        let table = CmtsTable::new(vec![
            cmts("wide", &["10.0.0.1"], &["10.0.0.0/8"]),
            cmts("narrow", &["10.1.0.1", "192.0.2.1"], &["10.1.0.0/16"]),
        ]);
        let of = |text: &str| table.of_address(text.parse().expect("an address")).map(|cmts| cmts.name.as_str());
        assert_eq!(of("10.2.0.1"), Some("wide"));
        assert_eq!(of("10.1.255.255"), Some("narrow"));
        assert_eq!(of("::ffff:10.1.0.9"), Some("narrow"));
        assert_eq!(of("192.0.2.1"), Some("narrow"));
        assert_eq!(of("192.0.2.2"), None);
        let relay = |text: &str| table.of_relay(text.parse().expect("an address")).map(|cmts| cmts.name.as_str());
        assert_eq!(relay("192.0.2.1"), Some("narrow"));
        assert_eq!(relay("10.9.9.9"), Some("wide"));
        assert_eq!(relay("172.16.0.1"), None);
    }

    #[test]
    fn an_area_is_a_code_or_a_beginning() {
        let holds = |pattern: &str, code: &str| pattern.parse::<AreaPattern>().expect(pattern).holds(code);
        assert!(holds("78701", "78701") && !holds("78701", "787011") && !holds("78701", "7870"));
        assert!(holds("787*", "78701") && holds("787*", "787") && !holds("787*", "78601"));
        assert!(holds("SW1A 1*", "sw1a1aa") && holds("*", "anything"));
        for text in ["", "78*01", "787?", " - "] {
            assert!(text.parse::<AreaPattern>().is_err(), "{text:?}");
        }
    }
}
