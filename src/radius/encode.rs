//! From a printed attribute back to its octets: the reverse of `decode`, for accounting that another server wrote down.
//!
//! In: a name and a value as FreeRADIUS prints them, a dictionary, a time zone for dates. Out: attributes to put into a
//! packet. Nothing is guessed: a name, value or zone that is not known is an error, and the caller decides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use thiserror::Error;

use super::attribute;
use super::dictionary::{AttributeDefinition, Dictionary, Kind, Path};
use super::packet::VendorFormat;
use crate::vocabulary::{Timestamp, Zone};

/// A value as it was printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Printed {
    /// It stood in quotes; these are its octets with the escapes undone.
    Quoted(Vec<u8>),
    /// It stood bare: a number, an address, a name, or `0x` and hex digits.
    Bare(String),
}

/// An attribute ready for a packet: one or, for long ones of RFC 6929, several (type, value).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded(pub Vec<(u8, Vec<u8>)>);

/// Why a printed attribute cannot be put into a packet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unencodable {
    /// No dictionary names it.
    #[error("no dictionary knows the attribute {0}")]
    Unknown(String),
    /// It exists only inside a server (its number does not fit a packet), or its value is a secret.
    #[error("{0} never stands in a packet that may be kept")]
    Internal(String),
    /// Its value does not fit its type.
    #[error("{name} = {value} does not fit its type")]
    Value { name: String, value: String },
    /// A date in a zone that its abbreviation does not tell.
    #[error("{name} = {value} is in a time zone that is not known; name the zone of the server that wrote it")]
    Zone { name: String, value: String },
    /// More octets than an attribute holds.
    #[error("{0} is longer than an attribute can be")]
    Long(String),
}

/// Encodes `name = value`.
///
/// `Tunnel-Type:1` carries a tag; `Attr-200` and `Attr-26.9.77` are attributes without a name, their values hex.
/// **Errors**: [`Unencodable`].
pub fn encode(
    dictionary: &Dictionary,
    name: &str,
    value: &Printed,
    zone: Option<&Zone>,
) -> Result<Encoded, Unencodable> {
    let (plain, tag) = match name.rsplit_once(':') {
        Some((plain, tag)) => match tag.parse::<u8>() {
            Ok(tag) => (plain, tag),
            Err(_) => return Err(Unencodable::Unknown(name.to_owned())),
        },
        None => (name, 0),
    };
    if let Some(path) = numbered(plain) {
        let octets = hex(value).ok_or_else(|| misfit(name, value))?;
        return wrap(dictionary, name, path.vendor, &path.numbers, octets);
    }
    let (vendor, numbers, definition) = dictionary.named(plain).ok_or_else(|| Unencodable::Unknown(name.to_owned()))?;
    if definition.hidden || vendor == 0 && numbers.first().is_none_or(|number| *number > 255) {
        return Err(Unencodable::Internal(name.to_owned()));
    }
    let octets = octets_of(dictionary, definition, value, zone)?;
    let octets = if definition.has_tag { tagged(definition, name, tag, octets, value)? } else { octets };
    wrap(dictionary, name, vendor, numbers, octets)
}

/// The instant of a date as FreeRADIUS prints it: `Nov 22 2026 07:56:48 UTC`, or seconds since 1970.
///
/// **Errors**: `Value` when it is no date, `Zone` when its zone is neither UTC nor an abbreviation of `zone`.
pub fn parse_date(name: &str, value: &Printed, zone: Option<&Zone>) -> Result<Timestamp, Unencodable> {
    let text = match value {
        Printed::Bare(text) => text.as_str(),
        Printed::Quoted(octets) => std::str::from_utf8(octets).map_err(|_| misfit(name, value))?,
    };
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).map_err(|_| misfit(name, value));
    }
    let (local, abbreviation) = text.rsplit_once(' ').ok_or_else(|| misfit(name, value))?;
    let local = civil(local).ok_or_else(|| misfit(name, value))?;
    if matches!(abbreviation, "UTC" | "GMT" | "Z") {
        return Zone::UTC.to_timestamp(local).map_err(|_| misfit(name, value));
    }
    let unknown = || Unencodable::Zone { name: name.to_owned(), value: text.to_owned() };
    let zone = zone.ok_or_else(unknown)?;
    // An hour that comes twice is told apart by its abbreviation.
    let ambiguous = zone.to_ambiguous_timestamp(local);
    [ambiguous.earlier(), ambiguous.later()]
        .into_iter()
        .flatten()
        .find(|at| zone.to_offset_info(*at).abbreviation() == abbreviation)
        .ok_or_else(unknown)
}

fn civil(text: &str) -> Option<DateTime> {
    BrokenDownTime::parse("%b %d %Y %H:%M:%S", text).ok()?.to_datetime().ok()
}

fn octets_of(
    dictionary: &Dictionary,
    definition: &AttributeDefinition,
    value: &Printed,
    zone: Option<&Zone>,
) -> Result<Vec<u8>, Unencodable> {
    let name = definition.name.as_str();
    let bad = || misfit(name, value);
    let text = match value {
        Printed::Quoted(octets) => match definition.kind {
            Kind::String | Kind::Octets => return Ok(octets.clone()),
            _ => std::str::from_utf8(octets).map_err(|_| bad())?,
        },
        // The server that wrote it may hold this attribute for octets where we hold it for a text.
        Printed::Bare(text) if text.starts_with("0x") => {
            let octets = hex(value).ok_or_else(bad)?;
            let fits = definition.kind.width().is_none_or(|width| octets.len() == width);
            return fits.then_some(octets).ok_or_else(bad);
        }
        Printed::Bare(text) => text.as_str(),
    };
    match definition.kind {
        Kind::String => Ok(text.as_bytes().to_vec()),
        Kind::Unsigned(width) => {
            let number =
                text.parse::<u64>().ok().or_else(|| dictionary.value_number(name, text)).ok_or_else(bad)?.to_be_bytes();
            let (high, low) = number.split_at(8 - usize::from(width));
            high.iter().all(|octet| *octet == 0).then(|| low.to_vec()).ok_or_else(bad)
        }
        Kind::Signed => text.parse::<i32>().map(|number| number.to_be_bytes().to_vec()).map_err(|_| bad()),
        Kind::Ipv4Address => address::<Ipv4Addr>(text).map(|a| a.octets().to_vec()).ok_or_else(bad),
        Kind::Ipv6Address => address::<Ipv6Addr>(text).map(|a| a.octets().to_vec()).ok_or_else(bad),
        Kind::AnyAddress => match address::<IpAddr>(text).ok_or_else(bad)? {
            IpAddr::V4(address) => Ok(address.octets().to_vec()),
            IpAddr::V6(address) => Ok(address.octets().to_vec()),
        },
        Kind::Ipv4Prefix => {
            let (address, length) = prefix::<Ipv4Addr>(text, 32).ok_or_else(bad)?;
            Ok([&[0, length], &address.octets()[..]].concat())
        }
        Kind::Ipv6Prefix => {
            let (address, length) = prefix::<Ipv6Addr>(text, 128).ok_or_else(bad)?;
            let kept = usize::from(length).div_ceil(8);
            Ok([&[0, length], &address.octets()[..kept]].concat())
        }
        Kind::InterfaceId => {
            let groups: Option<Vec<[u8; 2]>> =
                text.split(':').map(|group| u16::from_str_radix(group, 16).ok().map(u16::to_be_bytes)).collect();
            groups.filter(|groups| groups.len() == 4).map(|groups| groups.concat()).ok_or_else(bad)
        }
        Kind::Ethernet => {
            let octets: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
            octets.filter(|octets| octets.len() == 6).ok_or_else(bad)
        }
        Kind::Date => {
            let seconds = parse_date(name, value, zone)?.as_second();
            u32::try_from(seconds).map(|seconds| seconds.to_be_bytes().to_vec()).map_err(|_| bad())
        }
        Kind::Octets
        | Kind::Tlv
        | Kind::VendorSpecific
        | Kind::Extended
        | Kind::LongExtended
        | Kind::ExtendedVendorSpecific => Err(bad()),
    }
}

/// Puts the tag in front (RFC 2868 section 3.1): over an integer's first octet, before a text when it is not zero.
fn tagged(
    definition: &AttributeDefinition,
    name: &str,
    tag: u8,
    mut octets: Vec<u8>,
    value: &Printed,
) -> Result<Vec<u8>, Unencodable> {
    match definition.kind {
        Kind::Unsigned(4) if octets.first() == Some(&0) => octets[0] = tag,
        Kind::Unsigned(_) => return Err(misfit(name, value)),
        _ if tag != 0 => octets.insert(0, tag),
        _ => {}
    }
    Ok(octets)
}

/// Puts the octets where the path says: below a vendor, an extended type, a TLV.
fn wrap(
    dictionary: &Dictionary,
    name: &str,
    vendor: u32,
    numbers: &[u32],
    octets: Vec<u8>,
) -> Result<Encoded, Unencodable> {
    let long = || Unencodable::Long(name.to_owned());
    let unknown = || Unencodable::Unknown(name.to_owned());
    let narrow = |number: &u32| u8::try_from(*number).map_err(|_| unknown());
    let (first, inner) = numbers.split_first().ok_or_else(unknown)?;
    if vendor != 0 {
        let octets = in_tlvs(inner, octets, &narrow).ok_or_else(long)??;
        let format = dictionary.vendor(vendor).map_or(VendorFormat::default(), |vendor| vendor.format);
        let data = sub_attribute(format, *first, &octets).ok_or_else(long)?;
        return Ok(Encoded(vec![(attribute::VENDOR_SPECIFIC, [&vendor.to_be_bytes()[..], &data].concat())]));
    }
    let kind = narrow(first)?;
    match dictionary.attribute(kind).map(|definition| definition.kind) {
        Some(extended @ (Kind::Extended | Kind::LongExtended)) if !inner.is_empty() => {
            let (extension, inner) = (narrow(&inner[0])?, &inner[1..]);
            let is_vendor =
                dictionary.at(0, &numbers[..2]).is_some_and(|found| found.kind == Kind::ExtendedVendorSpecific);
            let data = match (is_vendor, inner) {
                (true, [vendor, number, rest @ ..]) => {
                    let octets = in_tlvs(rest, octets, &narrow).ok_or_else(long)??;
                    [&vendor.to_be_bytes()[..], &[narrow(number)?], &octets].concat()
                }
                _ => in_tlvs(inner, octets, &narrow).ok_or_else(long)??,
            };
            if extended == Kind::Extended {
                return Ok(Encoded(vec![(kind, [&[extension], &data[..]].concat())]));
            }
            let mut pieces = data.chunks(LONG_PIECE).peekable();
            let mut fragments = Vec::new();
            while let Some(piece) = pieces.next() {
                let more = if pieces.peek().is_some() { 0x80 } else { 0 };
                fragments.push((kind, [&[extension, more], piece].concat()));
            }
            Ok(Encoded(fragments))
        }
        _ => Ok(Encoded(vec![(kind, in_tlvs(inner, octets, &narrow).ok_or_else(long)??)])),
    }
}

type Narrow<'a> = &'a dyn Fn(&u32) -> Result<u8, Unencodable>;

/// Nests octets in TLVs of one octet type and one octet length, the outermost first. Outer `None`: too long.
fn in_tlvs(numbers: &[u32], octets: Vec<u8>, narrow: Narrow<'_>) -> Option<Result<Vec<u8>, Unencodable>> {
    let mut octets = octets;
    for number in numbers.iter().rev() {
        let kind = match narrow(number) {
            Ok(kind) => kind,
            Err(unknown) => return Some(Err(unknown)),
        };
        let length = u8::try_from(octets.len() + 2).ok()?;
        octets = [&[kind, length], &octets[..]].concat();
    }
    Some(Ok(octets))
}

fn sub_attribute(format: VendorFormat, number: u32, octets: &[u8]) -> Option<Vec<u8>> {
    let narrowed = |number: u32, width: u8| {
        let bytes = number.to_be_bytes();
        let (high, low) = bytes.split_at(4 - usize::from(width));
        high.iter().all(|octet| *octet == 0).then(|| low.to_vec())
    };
    let header = usize::from(format.type_octets) + usize::from(format.length_octets) + usize::from(format.continuation);
    let mut data = narrowed(number, format.type_octets)?;
    data.extend(narrowed(u32::try_from(header + octets.len()).ok()?, format.length_octets)?);
    if format.continuation {
        data.push(0);
    }
    data.extend_from_slice(octets);
    Some(data)
}

/// `Attr-200`, `Attr-241.7`, `Attr-26.9.77`, and the older `Vendor-9-Attr-77`.
fn numbered(name: &str) -> Option<Path> {
    if let Some(rest) = name.strip_prefix("Vendor-") {
        let (vendor, number) = rest.split_once("-Attr-")?;
        return Some(Path { vendor: vendor.parse().ok()?, numbers: vec![number.parse().ok()?] });
    }
    let numbers: Vec<u32> =
        name.strip_prefix("Attr-")?.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    match numbers.as_slice() {
        [26, vendor, rest @ ..] if !rest.is_empty() => Some(Path { vendor: *vendor, numbers: rest.to_vec() }),
        _ => Some(Path { vendor: 0, numbers }),
    }
}

fn hex(value: &Printed) -> Option<Vec<u8>> {
    let Printed::Bare(text) = value else { return None };
    let digits = text.strip_prefix("0x")?.as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let digit = |octet: u8| char::from(octet).to_digit(16);
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
}

fn address<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn prefix<T: std::str::FromStr>(text: &str, longest: u8) -> Option<(T, u8)> {
    let (address, length) = text.split_once('/').map_or((text, Some(longest)), |(a, length)| (a, length.parse().ok()));
    Some((address.parse().ok()?, length.filter(|length| *length <= longest)?))
}

fn misfit(name: &str, value: &Printed) -> Unencodable {
    let value = match value {
        Printed::Bare(text) => text.clone(),
        Printed::Quoted(octets) => super::value::text(octets),
    };
    Unencodable::Value { name: name.to_owned(), value }
}

/// Octets of data in one fragment of a long attribute: 253 without extended type and flags.
const LONG_PIECE: usize = 251;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::dictionary::Source;
    use super::super::{PacketView, RequestBuilder, decode};
    use super::*;
    use crate::vocabulary::{Secret, parse_instant};

    fn dictionary() -> Dictionary {
        let mut dictionary = Dictionary::standard();
        let text = "VENDOR Acme 65000\nVENDOR Wide 65001 format=2,1\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-Rate 1 string\n\
                    ATTRIBUTE Acme-Set 2 tlv\nBEGIN-TLV Acme-Set\nATTRIBUTE Acme-Set-Octets 1 integer64\n\
                    END-TLV Acme-Set\nATTRIBUTE Acme-Key 4 string encrypt=2\nEND-VENDOR Acme\n\
                    BEGIN-VENDOR Wide\nATTRIBUTE Wide-Number 258 short\nEND-VENDOR Wide\n\
                    ATTRIBUTE Long-Text 245.9 string\nATTRIBUTE Inside 1051 string\n\
                    BEGIN-VENDOR Acme format=Extended-Vendor-Specific-1\nATTRIBUTE Acme-Extended 5 byte\nEND-VENDOR Acme\n";
        dictionary.extend(&[Source { file: "d", text }], &|_| None).expect("no faults");
        dictionary
    }

    fn bare(text: &str) -> Printed {
        Printed::Bare(text.to_owned())
    }

    fn quoted(text: &str) -> Printed {
        Printed::Quoted(text.as_bytes().to_vec())
    }

    /// What a packet with this attribute shows.
    fn shown(name: &str, value: &Printed, zone: Option<&Zone>) -> Result<String, Unencodable> {
        let dictionary = dictionary();
        let Encoded(attributes) = encode(&dictionary, name, value, zone)?;
        let builder = attributes.iter().fold(RequestBuilder::accounting(1), |b, (kind, value)| b.octets(*kind, value));
        let octets = builder.sign(&Secret::new("")).expect("small");
        let decoded = decode(&PacketView::parse(&octets).expect("our own packet"), &dictionary);
        Ok(decoded.into_iter().map(|found| format!("{} = {}", found.name, found.value)).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn every_type_comes_back_as_it_was_printed() {
        for (name, value, expected) in [
            ("User-Name", quoted("ada@acme"), "ada@acme"),
            ("Acct-Status-Type", bare("Interim-Update"), "Interim-Update"),
            ("Acct-Status-Type", bare("77"), "77"),
            ("Acct-Input-Octets", bare("4294967295"), "4294967295"),
            ("Framed-IP-Address", bare("100.64.0.9"), "100.64.0.9"),
            ("Framed-IPv6-Prefix", bare("2001:db8:12:3400::/56"), "2001:db8:12:3400::/56"),
            ("Framed-Interface-Id", bare("1:203:405:607"), "0001:0203:0405:0607"),
            ("Class", bare("0xdead"), "0xdead"),
            ("Event-Timestamp", quoted("Nov 22 2026 02:00:00 UTC"), "2026-11-22T02:00:00Z"),
            ("Tunnel-Type:1", bare("VLAN"), "VLAN"),
            ("Tunnel-Client-Endpoint:2", quoted("host"), "host"),
            ("Acme-Rate", quoted("100M"), "100M"),
            ("Acme-Set-Octets", bare("4294967296"), "4294967296"),
            ("Wide-Number", bare("65535"), "65535"),
            ("Acme-Extended", bare("42"), "42"),
            ("Attr-200", bare("0x0102"), "0x0102"),
            ("Attr-26.9.77", bare("0x05"), "0x05"),
        ] {
            assert_eq!(shown(name, &value, None), Ok(format!("{name} = {expected}")), "{name}");
        }
        let long = "a".repeat(600);
        assert_eq!(shown("Long-Text", &quoted(&long), None), Ok(format!("Long-Text = {long}")));
    }

    #[test]
    fn what_is_not_known_is_refused_by_kind() {
        let value = |name: &str, value: &str| Unencodable::Value { name: name.to_owned(), value: value.to_owned() };
        let cases = [
            ("No-Such-Attribute", bare("1"), Unencodable::Unknown("No-Such-Attribute".to_owned())),
            ("Inside", quoted("x"), Unencodable::Internal("Inside".to_owned())),
            ("Acme-Key", quoted("x"), Unencodable::Internal("Acme-Key".to_owned())),
            ("Acct-Status-Type", bare("Strat"), value("Acct-Status-Type", "Strat")),
            ("Acct-Input-Octets", bare("4294967296"), value("Acct-Input-Octets", "4294967296")),
            ("Acct-Input-Octets", bare("-1"), value("Acct-Input-Octets", "-1")),
            ("Framed-IP-Address", bare("1.2.3"), value("Framed-IP-Address", "1.2.3")),
            ("Event-Timestamp", quoted("yesterday"), value("Event-Timestamp", "yesterday")),
            ("Attr-200", bare("0x012"), value("Attr-200", "0x012")),
        ];
        for (name, printed, expected) in cases {
            assert_eq!(shown(name, &printed, None), Err(expected), "{name}");
        }
    }

    #[test]
    fn a_zone_is_asked_for_and_tells_the_hour_that_comes_twice() {
        let chicago = Zone::get("America/Chicago").expect("a zone");
        let read = |text: &str, zone| parse_date("Event-Timestamp", &quoted(text), zone);
        let at = |text| parse_instant(text).expect("an instant");
        assert_eq!(read("Nov  1 2026 01:30:00 CDT", Some(&chicago)), Ok(at("2026-11-01T06:30:00Z")));
        assert_eq!(read("Nov  1 2026 01:30:00 CST", Some(&chicago)), Ok(at("2026-11-01T07:30:00Z")));
        assert_eq!(read("Nov 22 2026 01:30:00 GMT", None), Ok(at("2026-11-22T01:30:00Z")));
        assert!(matches!(read("Nov 22 2026 01:30:00 CST", None), Err(Unencodable::Zone { .. })));
        assert!(matches!(read("Nov 22 2026 01:30:00 CET", Some(&chicago)), Err(Unencodable::Zone { .. })));
    }

    proptest! {
        #[test]
        fn nothing_printed_makes_encoding_panic(
            name in prop_oneof![
                Just("Attr-26.9.7".to_owned()), Just("Acme-Set-Octets".to_owned()), Just("Event-Timestamp".to_owned()),
                Just("Tunnel-Type:1".to_owned()), "(Attr|Vendor)-[0-9.]{0,12}(-Attr-[0-9]{1,9})?", "[A-Za-z:-]{0,20}"],
            text in prop_oneof!["0x[0-9a-f]{0,20}", "\\PC{0,30}", "[0-9./:]{0,20}"],
            quote in any::<bool>(),
        ) {
            let value = if quote { quoted(&text) } else { bare(&text) };
            let _ = shown(&name, &value, Some(&Zone::UTC));
        }
    }
}
