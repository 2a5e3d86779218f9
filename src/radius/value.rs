//! Attribute values as text that every database and terminal can hold.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::dictionary::Kind;
use crate::vocabulary::{self, Timestamp};

/// UTF-8 without control characters as it is, anything else as `0x` and hex digits: PostgreSQL has no NUL in a text,
/// and a terminal must not be steered by a NAS.
pub(super) fn text(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) if !text.bytes().any(may_be_control) || !text.chars().any(char::is_control) => text.to_owned(),
        _ => hex(octets),
    }
}

/// Whether an octet of UTF-8 is or begins a control character: those below the space, DEL, and U+0080 to U+009F.
fn may_be_control(octet: u8) -> bool {
    octet < b' ' || octet == 0x7f || octet == 0xc2
}

/// `0x` and two lower-case digits an octet.
pub(super) fn hex(octets: &[u8]) -> String {
    format!("0x{}", vocabulary::hex(octets))
}

/// An octet string as the text its type asks for; hex when the length does not fit the type.
pub(super) fn readable(kind: Kind, octets: &[u8]) -> String {
    typed(kind, octets).unwrap_or_else(|| hex(octets))
}

fn typed(kind: Kind, octets: &[u8]) -> Option<String> {
    match kind {
        Kind::String => Some(text(octets)),
        Kind::Signed => octets.try_into().ok().map(|octets| i32::from_be_bytes(octets).to_string()),
        Kind::Ipv4Address => ipv4(octets),
        Kind::Ipv6Address => ipv6(octets),
        Kind::AnyAddress => ipv4(octets).or_else(|| ipv6(octets)),
        Kind::Ipv4Prefix => match octets {
            [_, length @ ..=32, address @ ..] => ipv4(address).map(|address| format!("{address}/{length}")),
            _ => None,
        },
        // RFC 3162 section 2.3: reserved octet, prefix length, then only the octets the prefix needs.
        Kind::Ipv6Prefix => match octets {
            [_, length @ ..=128, prefix @ ..] if prefix.len() <= 16 => {
                let mut address = [0; 16];
                address[..prefix.len()].copy_from_slice(prefix);
                Some(format!("{}/{length}", Ipv6Addr::from(address)))
            }
            _ => None,
        },
        Kind::InterfaceId => {
            let octets: [u8; 8] = octets.try_into().ok()?;
            let groups: Vec<String> = octets.chunks(2).map(vocabulary::hex).collect();
            Some(groups.join(":"))
        }
        Kind::Ethernet => {
            let octets: [u8; 6] = octets.try_into().ok()?;
            Some(octets.map(|octet| format!("{octet:02x}")).join(":"))
        }
        Kind::Date => {
            let seconds = u32::from_be_bytes(octets.try_into().ok()?);
            Timestamp::from_second(i64::from(seconds)).ok().map(|at| at.to_string())
        }
        Kind::Octets
        | Kind::Unsigned(_)
        | Kind::Tlv
        | Kind::VendorSpecific
        | Kind::Extended
        | Kind::LongExtended
        | Kind::ExtendedVendorSpecific => None,
    }
}

fn ipv4(octets: &[u8]) -> Option<String> {
    <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).to_string())
}

fn ipv6(octets: &[u8]) -> Option<String> {
    <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).to_string())
}

impl Kind {
    /// Octets of one value on the wire, where that is fixed.
    pub(super) fn width(self) -> Option<usize> {
        match self {
            Self::Unsigned(width) => Some(usize::from(width)),
            Self::Signed | Self::Ipv4Address | Self::Date => Some(4),
            Self::Ipv6Address => Some(16),
            Self::InterfaceId => Some(8),
            Self::Ethernet => Some(6),
            _ => None,
        }
    }
}
