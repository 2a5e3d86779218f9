//! A packet for people: every attribute as a name and a readable value, unknown ones by number and as raw hex.
//!
//! In: a packet view and a dictionary. Out: a list in the packet's order. Nothing is dropped and nothing fails: what a
//! dictionary does not explain, or explains with another length, is shown as hex. Secrets are never shown.

use serde::Serialize;

use super::dictionary::{AttributeDefinition, Dictionary, Kind};
use super::packet::{PacketView, VendorFormat, VendorSpecific};
use super::value::hex;
use super::{attribute, value};

/// One attribute as a person reads it.
///
/// **Shape**: `name` from the dictionary (`Tunnel-Type:1` with its tag), or `Attr-200`, `Attr-26.9.77`; `value` a name, a
/// number, an address, a text, or `0x` and hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decoded {
    pub name: String,
    pub value: String,
}

/// Every attribute of a packet, sub-attributes of vendors and TLVs in their place.
pub fn decode(view: &PacketView<'_>, dictionary: &Dictionary) -> Vec<Decoded> {
    let mut decoder = Decoder { dictionary, decoded: Vec::new() };
    let mut attributes = view.attributes().peekable();
    while let Some(found) = attributes.next() {
        let number = u32::from(found.kind);
        match dictionary.attribute(found.kind).map(|definition| definition.kind) {
            _ if found.kind == attribute::VENDOR_SPECIFIC => decoder.vendor_specific(found.value),
            Some(Kind::LongExtended) => {
                // RFC 6929 section 2.2: fragments follow one another while the More bit (0x80) is set.
                let mut octets = found.value.to_vec();
                let mut last = found.value;
                while more_follows(last) {
                    let Some(next) = attributes.next_if(|next| {
                        next.kind == found.kind && next.value.first() == found.value.first() && next.value.len() > 2
                    }) else {
                        break;
                    };
                    octets.extend_from_slice(&next.value[2..]);
                    last = next.value;
                }
                decoder.extended(number, &octets, 2);
            }
            Some(Kind::Extended) => decoder.extended(number, found.value, 1),
            _ => decoder.one(0, &[number], found.value),
        }
    }
    decoder.decoded
}

fn more_follows(value: &[u8]) -> bool {
    value.get(1).is_some_and(|flags| flags & 0x80 != 0)
}

struct Decoder<'a> {
    dictionary: &'a Dictionary,
    decoded: Vec<Decoded>,
}

impl Decoder<'_> {
    fn push(&mut self, name: String, value: String) {
        self.decoded.push(Decoded { name, value });
    }

    fn vendor_specific(&mut self, octets: &[u8]) {
        let Some(specific) = VendorSpecific::parse(octets) else {
            self.push("Vendor-Specific".to_owned(), hex(octets));
            return;
        };
        let format = self.dictionary.vendor(specific.vendor).map_or(VendorFormat::default(), |vendor| vendor.format);
        match specific.attributes(format) {
            Some(inner) => inner.iter().for_each(|inner| self.one(specific.vendor, &[inner.kind], inner.value)),
            None => self.push(unknown(specific.vendor, &[]), hex(specific.data)),
        }
    }

    /// RFC 6929: the value begins with the extended type; `header` octets come before the data.
    fn extended(&mut self, number: u32, octets: &[u8], header: usize) {
        let (Some(&inner), Some(data)) = (octets.first(), octets.get(header..)) else {
            self.push(unknown(0, &[number]), hex(octets));
            return;
        };
        let numbers = [number, u32::from(inner)];
        let is_vendor = self.dictionary.at(0, &numbers).is_some_and(|found| found.kind == Kind::ExtendedVendorSpecific);
        match (is_vendor, data.split_first_chunk::<4>()) {
            (true, Some((vendor, [kind, data @ ..]))) => {
                self.one(0, &[number, u32::from(inner), u32::from_be_bytes(*vendor), u32::from(*kind)], data);
            }
            _ => self.one(0, &numbers, data),
        }
    }

    fn one(&mut self, vendor: u32, numbers: &[u32], octets: &[u8]) {
        let Some(definition) = self.dictionary.at(vendor, numbers) else {
            self.push(unknown(vendor, numbers), hex(octets));
            return;
        };
        if definition.hidden || (vendor == 0 && numbers == [u32::from(attribute::CHAP_PASSWORD)]) {
            self.push(definition.name.clone(), "(hidden)".to_owned());
            return;
        }
        if definition.kind == Kind::Tlv {
            if let Some(inner) = (VendorSpecific { vendor, data: octets }).attributes(VendorFormat::default())
                && numbers.len() < TLV_DEPTH_MAX
            {
                inner.iter().for_each(|inner| self.one(vendor, &[numbers, &[inner.kind]].concat(), inner.value));
                return;
            }
            self.push(definition.name.clone(), hex(octets));
            return;
        }
        let (name, octets) = without_tag(definition, octets);
        let width = definition.kind.width();
        let value = match width.filter(|_| definition.array && !octets.is_empty()) {
            Some(width) if octets.len().is_multiple_of(width) => {
                let each: Vec<String> = octets.chunks(width).map(|octets| self.value(definition, octets)).collect();
                each.join(",")
            }
            _ => self.value(definition, octets),
        };
        self.push(name, value);
    }

    fn value(&self, definition: &AttributeDefinition, octets: &[u8]) -> String {
        let number = || octets.iter().fold(0u64, |sum, &octet| sum << 8 | u64::from(octet));
        match definition.kind {
            Kind::Unsigned(width) if octets.len() == usize::from(width) => {
                let name = self.dictionary.value_name(&definition.name, number());
                name.map_or_else(|| number().to_string(), str::to_owned)
            }
            // A tagged integer has three octets left.
            Kind::Unsigned(4) if definition.has_tag && octets.len() == 3 => {
                let name = self.dictionary.value_name(&definition.name, number());
                name.map_or_else(|| number().to_string(), str::to_owned)
            }
            kind => value::readable(kind, octets),
        }
    }
}

/// Splits the tag off (RFC 2868 section 3.1): an integer's first octet always is one, a text's only up to 0x1f.
fn without_tag<'o>(definition: &AttributeDefinition, octets: &'o [u8]) -> (String, &'o [u8]) {
    let plain = (definition.name.clone(), octets);
    match (definition.kind, octets) {
        _ if !definition.has_tag => plain,
        (Kind::Unsigned(4), &[tag, ref rest @ ..]) if rest.len() == 3 => (tagged(definition, tag), rest),
        (Kind::Unsigned(_), _) => plain,
        (_, &[tag @ ..=0x1f, ref rest @ ..]) => (tagged(definition, tag), rest),
        _ => plain,
    }
}

fn tagged(definition: &AttributeDefinition, tag: u8) -> String {
    if tag == 0 { definition.name.clone() } else { format!("{}:{tag}", definition.name) }
}

/// `Attr-200`, `Attr-241.7`, `Attr-26.9.77`.
fn unknown(vendor: u32, numbers: &[u32]) -> String {
    let mut name = if vendor == 0 { "Attr".to_owned() } else { format!("Attr-26.{vendor}") };
    for (index, number) in numbers.iter().enumerate() {
        name.push(if vendor == 0 && index == 0 { '-' } else { '.' });
        name.push_str(&number.to_string());
    }
    name
}

const TLV_DEPTH_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RequestBuilder;
    use super::super::dictionary::Source;
    use super::*;
    use crate::vocabulary::Secret;

    fn dictionary() -> Dictionary {
        let mut dictionary = Dictionary::standard();
        let text = "VENDOR Acme 65000\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-Rate 1 string\nATTRIBUTE Acme-Set 2 tlv\n\
                    BEGIN-TLV Acme-Set\nATTRIBUTE Acme-Set-Octets 1 integer64\nEND-TLV Acme-Set\n\
                    ATTRIBUTE Acme-Servers 3 ipaddr array\nATTRIBUTE Acme-Key 4 string encrypt=2\nEND-VENDOR Acme\n\
                    ATTRIBUTE Long-Text 245.9 string\nATTRIBUTE Short-Number 241.9 integer\n\
                    BEGIN-VENDOR Acme format=Extended-Vendor-Specific-1\nATTRIBUTE Acme-Extended 5 byte\nEND-VENDOR Acme\n";
        dictionary.extend(&[Source { file: "d", text }], &|_| None).expect("no faults");
        dictionary
    }

    fn shown(builder: RequestBuilder) -> Vec<String> {
        let octets = builder.sign(&Secret::new("s")).expect("small");
        let view = PacketView::parse(&octets).expect("well formed");
        decode(&view, &dictionary()).into_iter().map(|found| format!("{} = {}", found.name, found.value)).collect()
    }

    #[test]
    fn names_and_values_are_readable() {
        let packet = RequestBuilder::accounting(1)
            .integer(40, 3)
            .text(1, "ada@acme")
            .octets(8, &[100, 64, 0, 9])
            .integer(55, 1_795_312_800)
            .octets(97, &[0, 56, 0x20, 0x01, 0x0d, 0xb8, 0, 0x12, 0x34])
            .octets(96, &[0, 1, 2, 3, 4, 5, 6, 7])
            .octets(25, &[0xde, 0xad])
            .integer(64, 0x0100_000d)
            .octets(66, b"\x02host")
            .octets(66, b"host");
        assert_eq!(
            shown(packet),
            [
                "Acct-Status-Type = Interim-Update",
                "User-Name = ada@acme",
                "Framed-IP-Address = 100.64.0.9",
                "Event-Timestamp = 2026-11-22T02:00:00Z",
                "Framed-IPv6-Prefix = 2001:db8:12:3400::/56",
                "Framed-Interface-Id = 0001:0203:0405:0607",
                "Class = 0xdead",
                "Tunnel-Type:1 = VLAN",
                "Tunnel-Client-Endpoint:2 = host",
                "Tunnel-Client-Endpoint = host",
            ]
        );
    }

    #[test]
    fn what_no_dictionary_explains_is_hex() {
        let packet = RequestBuilder::accounting(1)
            .octets(200, &[1, 2])
            .octets(42, &[1, 2, 3])
            .vendor(9, 77, &[5])
            .octets(26, &[0, 0, 0, 9, 1, 9, 9])
            .octets(26, &[0, 0])
            .octets(1, &[0xff]);
        assert_eq!(
            shown(packet),
            [
                "Attr-200 = 0x0102",
                "Acct-Input-Octets = 0x010203",
                "Attr-26.9.77 = 0x05",
                "Attr-26.9 = 0x010909",
                "Vendor-Specific = 0x0000",
                "User-Name = 0xff",
            ]
        );
    }

    #[test]
    fn vendors_tlvs_and_extended_spaces_are_walked() {
        let long: Vec<u8> = [&[9, 0x80][..], &[b'a'; 200]].concat();
        let packet = RequestBuilder::accounting(1)
            .vendor(65000, 1, b"100M")
            .vendor(65000, 2, &[1, 10, 0, 0, 0, 1, 0, 0, 0, 0])
            .vendor(65000, 2, &[1, 99])
            .vendor(65000, 3, &[192, 0, 2, 1, 192, 0, 2, 2])
            .octets(241, &[9, 0, 0, 0, 7])
            .octets(241, &[26, 0, 0, 0xfd, 0xe8, 5, 42])
            .octets(245, &long)
            .octets(245, &[9, 0, b'b'])
            .octets(245, &[9]);
        let expected = [
            "Acme-Rate = 100M".to_owned(),
            "Acme-Set-Octets = 4294967296".to_owned(),
            "Acme-Set = 0x0163".to_owned(),
            "Acme-Servers = 192.0.2.1,192.0.2.2".to_owned(),
            "Short-Number = 7".to_owned(),
            "Acme-Extended = 42".to_owned(),
            format!("Long-Text = {}b", "a".repeat(200)),
            "Attr-245 = 0x09".to_owned(),
        ];
        assert_eq!(shown(packet), expected);
    }

    #[test]
    fn secrets_are_hidden() {
        let packet = RequestBuilder::accounting(1).octets(2, &[1; 16]).octets(3, &[1; 17]).vendor(65000, 4, b"k");
        assert_eq!(shown(packet), ["User-Password = (hidden)", "CHAP-Password = (hidden)", "Acme-Key = (hidden)"]);
    }

    proptest! {
        #[test]
        fn every_packet_can_be_shown(attributes in proptest::collection::vec(
            (prop_oneof![Just(26u8), 240u8..=246, any::<u8>()], proptest::collection::vec(any::<u8>(), 0..30)), 0..15,
        )) {
            let count = attributes.len();
            let builder = attributes.iter().fold(RequestBuilder::accounting(1), |builder, (kind, value)| {
                builder.octets(*kind, value)
            });
            let octets = builder.sign(&Secret::new("s")).expect("small");
            let decoded = decode(&PacketView::parse(&octets).expect("well formed"), &dictionary());
            prop_assert!(count == 0 || !decoded.is_empty());
        }
    }
}
