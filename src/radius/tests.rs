//! The decoder against forms the RFCs draw, and against another decoder: the crate `radius` must read every packet alike.

use proptest::prelude::*;

use ::radius::core::avp::AVP;
use ::radius::core::packet::Packet;
use ::radius::core::{rfc2865, rfc2866, rfc2869, rfc3162, rfc6911};

use super::{Decoded, Dictionary, PacketView, RequestBuilder, Source, decode};
use crate::vocabulary::{Secret, hex};

/// RFC 6929 leaves these numbers to private use, or they are far from assigned.
const EXTENDED: &str = "ATTRIBUTE Short-Text 241.1 string\nATTRIBUTE Short-Set 241.2 tlv\n\
    ATTRIBUTE Short-Set-Number 241.2.1 short\nATTRIBUTE Short-Set-Set 241.2.2 tlv\n\
    ATTRIBUTE Short-Set-Set-Text 241.2.2.3 string\nATTRIBUTE Long-Octets 245.1 octets\n\
    VENDOR Acme 9999\nBEGIN-VENDOR Acme format=Extended-Vendor-Specific-1\nATTRIBUTE Acme-Short 4 string\n\
    ATTRIBUTE Acme-Set 5 tlv\nBEGIN-TLV Acme-Set\nATTRIBUTE Acme-Set-Wide 3 integer64\nEND-TLV Acme-Set\nEND-VENDOR Acme\n\
    BEGIN-VENDOR Acme format=Extended-Vendor-Specific-5\nATTRIBUTE Acme-Long 6 octets\nEND-VENDOR Acme\n";

fn shown(attributes: &[u8]) -> Vec<(String, String)> {
    let mut dictionary = Dictionary::standard();
    dictionary.extend(&[Source { file: "d", text: EXTENDED }], &|_| None).expect("no faults");
    let mut octets = vec![4, 1];
    octets.extend(u16::try_from(20 + attributes.len()).expect("small").to_be_bytes());
    octets.extend([0; 16]);
    octets.extend(attributes);
    let view = PacketView::parse(&octets).expect("well formed");
    decode(&view, &dictionary).into_iter().map(|Decoded { name, value }| (name, value)).collect()
}

fn one(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn extended_types_of_rfc_6929_section_2_1() {
    assert_eq!(shown(b"\xf1\x06\x01bob"), one("Short-Text", "bob"));
    assert_eq!(shown(b"\xf1\x06\x09bob"), one("Attr-241.9", "0x626f62"), "a number nobody gave out stays raw");
    assert_eq!(shown(b"\xf1\x02"), one("Attr-241", "0x"), "too short for a type");
}

#[test]
fn tlvs_of_rfc_6929_section_2_3() {
    assert_eq!(shown(b"\xf1\x07\x02\x01\x04\x23\x45"), one("Short-Set-Number", "9029"));
    let both = [one("Short-Set-Number", "9029"), one("Short-Set-Set-Text", "bob")].concat();
    assert_eq!(shown(b"\xf1\x0e\x02\x01\x04\x23\x45\x02\x07\x03\x05bob"), both);
    let outer = one("Short-Set", "0x010923");
    assert_eq!(shown(b"\xf1\x06\x02\x01\x09\x23"), outer, "a TLV that leaves its attribute makes that opaque");
}

#[test]
fn extended_vendors_of_rfc_6929_section_2_4() {
    assert_eq!(shown(b"\xf1\x0c\x1a\x00\x00\x27\x0f\x04test"), one("Acme-Short", "test"));
    let wide = b"\xf1\x12\x1a\x00\x00\x27\x0f\x05\x03\x0a\x00\x00\x00\x01\x00\x00\x00\x02";
    assert_eq!(shown(wide), one("Acme-Set-Wide", "4294967298"));
    assert_eq!(shown(b"\xf1\x0a\x1a\x00\x00\x27\x10\x04ab"), one("Attr-241.26.10000.4", "0x6162"));
    assert_eq!(shown(b"\xf1\x06\x1a\x00\x00\x27"), one("Extended-Vendor-Specific-1", "0x000027"));
}

#[test]
fn long_extended_types_of_rfc_6929_section_2_2_are_put_together() {
    let fragment = |more: bool, octets: &[u8]| {
        let length = u8::try_from(octets.len() + 4).expect("short");
        [&[0xf5, length, 1, if more { 0x80 } else { 0 }][..], octets].concat()
    };
    let whole = [fragment(true, &[0xaa; 251]), fragment(false, &[0xbb; 3])].concat();
    assert_eq!(shown(&whole), one("Long-Octets", &format!("0x{}{}", "aa".repeat(251), "bb".repeat(3))));
    let two = [fragment(false, &[0xaa]), fragment(false, &[0xbb])].concat();
    assert_eq!(shown(&two), [one("Long-Octets", "0xaa"), one("Long-Octets", "0xbb")].concat(), "two values");
    let broken = [fragment(true, &[0xaa]), b"\x01\x05ada".to_vec(), fragment(false, &[0xbb])].concat();
    let apart = [one("Long-Octets", "0xaa"), one("User-Name", "ada"), one("Long-Octets", "0xbb")].concat();
    assert_eq!(shown(&broken), apart, "fragments follow one another");
    let vendor = [&b"\xf5\x0b\x1a\x80\x00\x00\x27\x0f\x06\x01\x02"[..], b"\xf5\x06\x1a\x00\x03\x04"].concat();
    assert_eq!(shown(&vendor), one("Acme-Long", "0x01020304"));
}

/// What the other decoder reads of an attribute that both give a type; `None` where it finds another length.
fn other(kind: u8, avp: &AVP) -> Option<String> {
    match kind {
        42 | 43 | 46 | 52 | 53 => avp.encode_u32().ok().map(|number| number.to_string()),
        4 | 8 => avp.encode_ipv4().ok().map(|address| address.to_string()),
        95 | 168 => avp.encode_ipv6().ok().map(|address| address.to_string()),
        55 => avp.encode_date().ok().map(|date| date.format("%Y-%m-%dT%H:%M:%SZ").to_string()),
        _ => None,
    }
}

const TYPED: [u8; 10] = [42, 43, 46, 52, 53, 4, 8, 95, 168, 55];

#[test]
fn numbers_of_attributes_agree_with_the_crate_radius() {
    let theirs = [
        ("User-Name", rfc2865::USER_NAME_TYPE),
        ("NAS-Identifier", rfc2865::NAS_IDENTIFIER_TYPE),
        ("Class", rfc2865::CLASS_TYPE),
        ("Acct-Status-Type", rfc2866::ACCT_STATUS_TYPE_TYPE),
        ("Acct-Link-Count", rfc2866::ACCT_LINK_COUNT_TYPE),
        ("Acct-Input-Gigawords", rfc2869::ACCT_INPUT_GIGAWORDS_TYPE),
        ("Event-Timestamp", rfc2869::EVENT_TIMESTAMP_TYPE),
        ("Framed-Interface-Id", rfc3162::FRAMED_INTERFACE_ID_TYPE),
        ("Framed-IPv6-Address", rfc6911::FRAMED_IPV6_ADDRESS_TYPE),
    ];
    let dictionary = Dictionary::standard();
    for (name, number) in theirs {
        assert_eq!(dictionary.number(name), Some((0, u32::from(number))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_octets_are_a_packet_to_both_decoders_or_to_none(
        attributes in proptest::collection::vec(any::<u8>(), 0..120), length in proptest::option::of(0u16..160),
        chopped in 0usize..22,
    ) {
        let mut octets = vec![4, 1, 0, 0];
        octets.extend([7; 16]);
        octets.extend(&attributes);
        let length = length.unwrap_or(u16::try_from(octets.len()).expect("small"));
        octets[2..4].copy_from_slice(&length.to_be_bytes());
        octets.truncate(octets.len() - chopped.min(octets.len()).saturating_sub(19));
        let (ours, theirs) = (PacketView::parse(&octets), Packet::decode(&octets, b"s"));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            for kind in 0..=255u8 {
                let their_values: Vec<Vec<u8>> = theirs.lookup_all(kind).into_iter().map(AVP::encode_bytes).collect();
                prop_assert_eq!(ours.all(kind).collect::<Vec<_>>(), their_values);
            }
        }
    }

    #[test]
    fn values_are_read_as_the_crate_radius_reads_them(
        attributes in proptest::collection::vec(
            (proptest::sample::select(TYPED.to_vec()), prop_oneof![
                proptest::collection::vec(any::<u8>(), 4), proptest::collection::vec(any::<u8>(), 16),
                proptest::collection::vec(any::<u8>(), 0..20),
            ]), 1..12),
    ) {
        let builder = attributes.iter().fold(RequestBuilder::accounting(1), |builder, (kind, value)| {
            builder.octets(*kind, value)
        });
        let octets = builder.sign(&Secret::new("s")).expect("small");
        let ours = decode(&PacketView::parse(&octets).expect("well formed"), &Dictionary::standard());
        let theirs = Packet::decode(&octets, b"s").expect("well formed");
        let mut nth = [0usize; 256];
        for (decoded, (kind, value)) in ours.iter().zip(&attributes) {
            let avps = theirs.lookup_all(*kind);
            let avp = avps[nth[usize::from(*kind)]];
            nth[usize::from(*kind)] += 1;
            let raw = format!("0x{}", hex(value));
            prop_assert_eq!(&decoded.value, &other(*kind, avp).unwrap_or(raw), "{}", decoded.name);
        }
    }
}
