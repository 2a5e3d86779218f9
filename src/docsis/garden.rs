//! The walled garden inside a modem: what of its CPEs' packets passes while everything else is dropped.
//!
//! Comes in: the addresses that may be reached. Goes out: classifiers for modems from DOCSIS 3.0 (a dropping one, type 60,
//! below allowing ones, type 22), or rows of docsDevFilterIpTable for older modems. Names (port 53) and DHCP always pass,
//! so that a browser finds the portal. The telephone is not touched: its interface is left out of the mask.
//!
//! Source: CM-SP-MULPI C.2.1 (priorities: the higher is asked first), CL-SP-CANN (interface mask), RFC 4639.

use std::net::{IpAddr, Ipv4Addr};

use super::ber::{Oid, Value, VarBind};
use super::build::UPSTREAM_REFERENCE;
use super::writer::{Group, Writer};
use crate::vocabulary::Cidr;

/// What a garden lets through, and by which means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GardenFilter {
    /// Destinations: the portal, and whatever else may be reached.
    pub allow: Vec<Cidr>,
    /// Whether the modem knows dropping classifiers; else it gets SNMP filter rows.
    pub in_classifiers: bool,
}

/// Destinations of one garden: the references of its classifiers are octets, and so are its rows' places in a file.
pub const MOST_DESTINATIONS: usize = 32;

const ALLOW: u8 = 22;
const DROP: u8 = 60;
const ALLOW_PRIORITY: u8 = 200;
const DROP_PRIORITY: u8 = 100;
/// The recipe's classifiers count down from here, so that templates can count up.
const LAST_REFERENCE: u8 = 255;
/// Interfaces 1 and 5 to 15, where CPEs are; 16 is the MTA. Bit 0 is the first byte's highest.
const CPE_INTERFACES: [u8; 2] = [0x47, 0xff];
const UDP: u16 = 17;
const TCP: u16 = 6;
/// "Any protocol" of classifiers and of docsDevFilterIpProtocol.
const ANY: u16 = 256;
const DNS: u16 = 53;
/// DHCP client to server, and DHCPv6.
const BOOTPS: u16 = 67;
const DHCPV6_SERVER: u16 = 547;
/// docsDevFilterIpEntry of RFC 4639.
const FILTER_IP: [u32; 11] = [1, 3, 6, 1, 2, 1, 69, 1, 6, 4, 1];
const CPE_INTERFACE: i64 = 1;
const DISCARD: i64 = 1;
const ACCEPT: i64 = 2;
const INBOUND: i64 = 1;
const CREATE_AND_GO: i64 = 4;

/// One thing that passes.
struct Pass {
    destination: Option<Cidr>,
    protocol: u16,
    port: Option<u16>,
    v6: bool,
}

/// Types 22 and 60.
pub fn drop_classifiers(garden: &GardenFilter, file: &mut Writer) {
    let mut reference = LAST_REFERENCE;
    let mut next = || {
        let this = reference;
        reference -= 1;
        this
    };
    for pass in passes(garden) {
        let reference = next();
        file.group(ALLOW, |group| {
            group.add(1, &[reference]);
            group.add(3, &UPSTREAM_REFERENCE.to_be_bytes());
            group.add(5, &[ALLOW_PRIORITY]);
            put_pass(&pass, group);
        });
    }
    for v6 in [false, true] {
        let reference = next();
        file.group(DROP, |group| {
            group.add(1, &[reference]);
            group.add(5, &[DROP_PRIORITY]);
            put_pass(&Pass { destination: None, protocol: ANY, port: None, v6 }, group);
            group.add(13, &CPE_INTERFACES);
        });
    }
}

/// Rows of docsDevFilterIpTable, the first that fits decides. IPv6 is not known to it.
pub fn ip_filters(garden: &GardenFilter) -> impl Iterator<Item = VarBind> {
    let passing = passes(garden).filter(|pass| !pass.v6).map(|pass| (ACCEPT, pass));
    let rest = Pass { destination: None, protocol: ANY, port: None, v6: false };
    (1u32..).zip(passing.chain([(DISCARD, rest)])).flat_map(|(row, (control, pass))| {
        let (address, mask) = pass.destination.map_or((Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED), v4_of);
        let port = pass.port.map(|port| Value::Integer(port.into()));
        let columns = [
            (2, Some(Value::Integer(CREATE_AND_GO))),
            (3, Some(Value::Integer(control))),
            (4, Some(Value::Integer(CPE_INTERFACE))),
            (5, Some(Value::Integer(INBOUND))),
            (9, Some(Value::Ip(address))),
            (10, Some(Value::Ip(mask))),
            (11, Some(Value::Integer(pass.protocol.into()))),
            (14, port.clone()),
            (15, port),
        ];
        let set = move |(column, value)| Some(VarBind::new(Oid::below(&FILTER_IP, &[column, row]), value?));
        columns.into_iter().filter_map(set)
    })
}

fn passes(garden: &GardenFilter) -> impl Iterator<Item = Pass> {
    let port = |protocol, port, v6| Pass { destination: None, protocol, port: Some(port), v6 };
    let always = [
        port(UDP, BOOTPS, false),
        port(UDP, DNS, false),
        port(TCP, DNS, false),
        port(UDP, DHCPV6_SERVER, true),
        port(UDP, DNS, true),
        port(TCP, DNS, true),
    ];
    let allowed = garden.allow.iter().take(MOST_DESTINATIONS).map(|network| {
        let v6 = network.address().is_ipv6();
        Pass { destination: Some(*network), protocol: ANY, port: None, v6 }
    });
    always.into_iter().chain(allowed)
}

fn put_pass(pass: &Pass, group: &mut Group) {
    match pass.v6 {
        true => in_v6(pass, group),
        false => in_v4(pass, group),
    }
}

/// Sub-TLV 9: protocol, destination, ports.
fn in_v4(pass: &Pass, group: &mut Group) {
    group.group(9, |inside| {
        inside.add(2, &pass.protocol.to_be_bytes());
        if let Some((address, mask)) = pass.destination.map(v4_of) {
            inside.add(5, &address.octets());
            inside.add(6, &mask.octets());
        }
        ports(pass, inside);
    });
}

/// Sub-TLV 12: next header and destination; the ports stand in 9 for both.
fn in_v6(pass: &Pass, group: &mut Group) {
    if pass.port.is_some() {
        group.group(9, |inside| ports(pass, inside));
    }
    group.group(12, |inside| {
        inside.add(3, &pass.protocol.to_be_bytes());
        if let Some(network) = pass.destination
            && let IpAddr::V6(address) = network.address()
        {
            inside.add(6, &address.octets());
            inside.add(7, &[network.prefix()]);
        }
    });
}

fn ports(pass: &Pass, group: &mut Group) {
    if let Some(port) = pass.port {
        group.add(9, &port.to_be_bytes());
        group.add(10, &port.to_be_bytes());
    }
}

fn v4_of(network: Cidr) -> (Ipv4Addr, Ipv4Addr) {
    match network.address() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(network.prefix())).unwrap_or(0);
            (address, Ipv4Addr::from(mask))
        }
        IpAddr::V6(_) => (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docsis::tlv::{Tlv, parse_nested};

    fn garden(allow: &[&str]) -> GardenFilter {
        let allow = allow.iter().map(|text| text.parse().expect("a network")).collect();
        GardenFilter { allow, in_classifiers: true }
    }

    fn classifiers(allow: &[&str]) -> Vec<Tlv> {
        let mut file = Writer::new(&[]);
        drop_classifiers(&garden(allow), &mut file);
        parse_nested(&file.bytes()).expect("whole TLVs")
    }

    #[test]
    fn the_dropping_classifiers_come_last_and_spare_the_telephone() {
        let tlvs = classifiers(&["192.0.2.10/32", "2001:db8::/64"]);
        let codes: Vec<u8> = tlvs.iter().map(|tlv| tlv.code).collect();
        assert_eq!(codes, [22, 22, 22, 22, 22, 22, 22, 22, 60, 60]);
        for tlv in &tlvs[8..] {
            assert!(tlv.value.ends_with(&[13, 2, 0x47, 0xff]), "{tlv:?}");
        }
        const { assert!(ALLOW_PRIORITY > DROP_PRIORITY) };
    }

    #[test]
    fn older_modems_get_rows_and_the_last_one_discards() {
        let binds: Vec<VarBind> = ip_filters(&garden(&["192.0.2.0/24", "2001:db8::/64"])).collect();
        let value = |oid: &str| binds.iter().find(|bind| bind.oid.to_string() == oid).map(|bind| bind.value.clone());
        let row = "1.3.6.1.2.1.69.1.6.4.1";
        assert_eq!(value(&format!("{row}.9.4")), Some(Value::Ip(Ipv4Addr::new(192, 0, 2, 0))));
        assert_eq!(value(&format!("{row}.10.4")), Some(Value::Ip(Ipv4Addr::new(255, 255, 255, 0))));
        assert_eq!(value(&format!("{row}.3.5")), Some(Value::Integer(DISCARD)));
        assert_eq!(value(&format!("{row}.3.6")), None, "IPv6 has no row");
    }

    #[test]
    fn the_greatest_garden_has_room_for_its_references() {
        let many: Vec<String> = (0..40).map(|n| format!("192.0.2.{n}/32")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(classifiers(&many).len(), 6 + MOST_DESTINATIONS + 2);
    }
}
