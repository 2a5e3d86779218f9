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
use super::tlv::{Framing, Tlv, write};
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
pub fn drop_classifiers(garden: &GardenFilter) -> Vec<Tlv> {
    let mut reference = LAST_REFERENCE;
    let mut next = || {
        let this = reference;
        reference -= 1;
        this
    };
    let mut tlvs = Vec::new();
    for pass in passes(garden) {
        let mut inside = Vec::new();
        put(1, &[next()], &mut inside);
        put(3, &UPSTREAM_REFERENCE.to_be_bytes(), &mut inside);
        put(5, &[ALLOW_PRIORITY], &mut inside);
        if pass.v6 {
            in_v6(&pass, &mut inside)
        } else {
            in_v4(&pass, &mut inside)
        }
        tlvs.push(Tlv::new(ALLOW, inside));
    }
    for v6 in [false, true] {
        let mut inside = Vec::new();
        put(1, &[next()], &mut inside);
        put(5, &[DROP_PRIORITY], &mut inside);
        let all = Pass { destination: None, protocol: ANY, port: None, v6 };
        if v6 {
            in_v6(&all, &mut inside)
        } else {
            in_v4(&all, &mut inside)
        }
        put(13, &CPE_INTERFACES, &mut inside);
        tlvs.push(Tlv::new(DROP, inside));
    }
    tlvs
}

/// Rows of docsDevFilterIpTable, the first that fits decides. IPv6 is not known to it.
pub fn ip_filters(garden: &GardenFilter) -> Vec<VarBind> {
    let mut binds = Vec::new();
    let passing = passes(garden).into_iter().filter(|pass| !pass.v6).map(|pass| (ACCEPT, pass));
    let rest = Pass { destination: None, protocol: ANY, port: None, v6: false };
    for (row, (control, pass)) in (1u32..).zip(passing.chain([(DISCARD, rest)])) {
        let (address, mask) = pass.destination.map_or((Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED), v4_of);
        let mut set = |column: u32, value: Value| {
            binds.push(VarBind::new(Oid::of(&[&FILTER_IP[..], &[column, row]].concat()), value));
        };
        set(2, Value::Integer(CREATE_AND_GO));
        set(3, Value::Integer(control));
        set(4, Value::Integer(CPE_INTERFACE));
        set(5, Value::Integer(INBOUND));
        set(9, Value::Ip(address));
        set(10, Value::Ip(mask));
        set(11, Value::Integer(pass.protocol.into()));
        if let Some(port) = pass.port {
            set(14, Value::Integer(port.into()));
            set(15, Value::Integer(port.into()));
        }
    }
    binds
}

fn passes(garden: &GardenFilter) -> Vec<Pass> {
    let port = |protocol, port, v6| Pass { destination: None, protocol, port: Some(port), v6 };
    let mut passes = vec![
        port(UDP, BOOTPS, false),
        port(UDP, DNS, false),
        port(TCP, DNS, false),
        port(UDP, DHCPV6_SERVER, true),
        port(UDP, DNS, true),
        port(TCP, DNS, true),
    ];
    for network in garden.allow.iter().take(MOST_DESTINATIONS) {
        let v6 = network.address().is_ipv6();
        passes.push(Pass { destination: Some(*network), protocol: ANY, port: None, v6 });
    }
    passes
}

/// Sub-TLV 9: protocol, destination, ports.
fn in_v4(pass: &Pass, out: &mut Vec<u8>) {
    let mut inside = Vec::new();
    put(2, &pass.protocol.to_be_bytes(), &mut inside);
    if let Some((address, mask)) = pass.destination.map(v4_of) {
        put(5, &address.octets(), &mut inside);
        put(6, &mask.octets(), &mut inside);
    }
    ports(pass, &mut inside);
    put(9, &inside, out);
}

/// Sub-TLV 12: next header and destination; the ports stand in 9 for both.
fn in_v6(pass: &Pass, out: &mut Vec<u8>) {
    let mut inside = Vec::new();
    put(3, &pass.protocol.to_be_bytes(), &mut inside);
    if let Some(network) = pass.destination
        && let IpAddr::V6(address) = network.address()
    {
        put(6, &address.octets(), &mut inside);
        put(7, &[network.prefix()], &mut inside);
    }
    let mut port_ranges = Vec::new();
    ports(pass, &mut port_ranges);
    if !port_ranges.is_empty() {
        put(9, &port_ranges, out);
    }
    put(12, &inside, out);
}

fn ports(pass: &Pass, out: &mut Vec<u8>) {
    if let Some(port) = pass.port {
        put(9, &port.to_be_bytes(), out);
        put(10, &port.to_be_bytes(), out);
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

fn put(code: u8, value: &[u8], out: &mut Vec<u8>) {
    write(Framing::Cm, &Tlv::new(code, value.to_vec()), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn garden(allow: &[&str]) -> GardenFilter {
        let allow = allow.iter().map(|text| text.parse().expect("a network")).collect();
        GardenFilter { allow, in_classifiers: true }
    }

    #[test]
    fn the_dropping_classifiers_come_last_and_spare_the_telephone() {
        let tlvs = drop_classifiers(&garden(&["192.0.2.10/32", "2001:db8::/64"]));
        let codes: Vec<u8> = tlvs.iter().map(|tlv| tlv.code).collect();
        assert_eq!(codes, [22, 22, 22, 22, 22, 22, 22, 22, 60, 60]);
        for tlv in &tlvs[8..] {
            assert!(tlv.value.ends_with(&[13, 2, 0x47, 0xff]), "{tlv:?}");
        }
        const { assert!(ALLOW_PRIORITY > DROP_PRIORITY) };
    }

    #[test]
    fn older_modems_get_rows_and_the_last_one_discards() {
        let binds = ip_filters(&garden(&["192.0.2.0/24", "2001:db8::/64"]));
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
        assert_eq!(drop_classifiers(&garden(&many)).len(), 6 + MOST_DESTINATIONS + 2);
    }
}
