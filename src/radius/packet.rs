//! A checked view over one RADIUS datagram: lengths are proven once in `parse`, reading never fails afterwards.
//!
//! ```text
//!  0               1               2               3
//! +---------------+---------------+-------------------------------+
//! |     Code      |  Identifier   |            Length             |
//! +---------------+---------------+-------------------------------+
//! |                 Authenticator (16 octets)                     |
//! +---------------------------------------------------------------+
//! |  Attributes: Type (1), Length (1, >= 2), Value (Length - 2) …
//! +---------------------------------------------------------------
//! ```
//! Source: RFC 2865 section 3. In: the bytes of a datagram. Out: borrowed slices. It never copies or panics.

use thiserror::Error;

use super::attribute;

/// Longest RADIUS packet. RFC 2865 section 3.
pub const PACKET_MAX: usize = 4096;
pub(super) const HEADER_OCTETS: usize = 20;

/// Why a datagram is no RADIUS packet. It is dropped in silence and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("{0} octets are no RADIUS packet, which has at least 20")]
    Short(usize),
    #[error("the Length field says {0}; 20 to 4096 is legal")]
    Length(u16),
    #[error("the Length field says {said}, only {came} octets came")]
    Truncated { said: u16, came: usize },
    #[error("the attribute at octet {0} has a length below 2 or leaves the packet")]
    Attribute(usize),
}

/// A structurally valid RADIUS packet.
///
/// **Shape**: borrows exactly `Length` octets; octets of the datagram beyond it are padding and not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketView<'a> {
    octets: &'a [u8],
    kinds: Kinds,
}

/// Which types of attributes a packet has: most of what a reader asks for is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kinds([u64; 4]);

impl Kinds {
    fn add(&mut self, kind: u8) {
        self.0[usize::from(kind >> 6)] |= 1 << (kind & 63);
    }

    fn holds(self, kind: u8) -> bool {
        self.0[usize::from(kind >> 6)] & (1 << (kind & 63)) != 0
    }
}

impl<'a> PacketView<'a> {
    /// **Errors**: [`Malformed`] when a length does not hold (RFC 2865 section 3): drop the datagram.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let &[_, _, high, low, ..] = datagram else { return Err(Malformed::Short(datagram.len())) };
        if datagram.len() < HEADER_OCTETS {
            return Err(Malformed::Short(datagram.len()));
        }
        let said = u16::from_be_bytes([high, low]);
        if !(HEADER_OCTETS..=PACKET_MAX).contains(&usize::from(said)) {
            return Err(Malformed::Length(said));
        }
        let octets = datagram.get(..usize::from(said)).ok_or(Malformed::Truncated { said, came: datagram.len() })?;
        let (mut at, mut kinds) = (HEADER_OCTETS, Kinds::default());
        while at < octets.len() {
            let length = octets.get(at + 1).map_or(0, |&length| usize::from(length));
            if length < 2 || at + length > octets.len() {
                return Err(Malformed::Attribute(at));
            }
            kinds.add(octets[at]);
            at += length;
        }
        Ok(Self { octets, kinds })
    }

    /// The packet's own octets, without padding.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    pub fn code(&self) -> u8 {
        self.octets[0]
    }

    pub fn identifier(&self) -> u8 {
        self.octets[1]
    }

    pub fn authenticator(&self) -> [u8; 16] {
        let mut authenticator = [0; 16];
        authenticator.copy_from_slice(&self.octets[4..HEADER_OCTETS]);
        authenticator
    }

    /// Every attribute in the order of the packet.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { packet: self.octets, at: HEADER_OCTETS }
    }

    /// The values of all attributes of one type, in order.
    pub fn all(&self, kind: u8) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let at = if self.kinds.holds(kind) { HEADER_OCTETS } else { self.octets.len() };
        let attributes = Attributes { packet: self.octets, at };
        attributes.filter(move |attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// The value of the first attribute of one type.
    pub fn first(&self, kind: u8) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// The values of one vendor's sub-attributes of one type (the usual one-octet type and length), in order.
    pub fn vendor(&self, vendor: u32, kind: u8) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.all(attribute::VENDOR_SPECIFIC)
            .filter_map(VendorSpecific::parse)
            .filter(move |specific| specific.vendor == vendor)
            .filter_map(|specific| specific.attributes(VendorFormat::default()))
            .flatten()
            .filter(move |inner| inner.kind == u32::from(kind))
            .map(|inner| inner.value)
    }
}

/// One attribute of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    pub kind: u8,
    /// 0 to 253 octets.
    pub value: &'a [u8],
    /// Octet of the packet at which the value begins.
    pub offset: usize,
}

/// Iterates over the attributes of a [`PacketView`].
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let &[kind, length] = self.packet.get(self.at..self.at + 2)? else { return None };
        let value = self.packet.get(self.at + 2..self.at + usize::from(length))?;
        let offset = self.at + 2;
        self.at += usize::from(length);
        Some(Attribute { kind, value, offset })
    }
}

/// The value of a Vendor-Specific attribute: the vendor's enterprise number and what the vendor put behind it.
///
/// **Source**: RFC 2865 section 5.26.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VendorSpecific<'a> {
    pub vendor: u32,
    pub data: &'a [u8],
}

impl<'a> VendorSpecific<'a> {
    /// `None` when four octets of vendor and one of data are not there; the attribute is then opaque.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (vendor, data) = value.split_first_chunk::<4>()?;
        if data.is_empty() {
            return None;
        }
        Some(Self { vendor: u32::from_be_bytes(*vendor), data })
    }

    /// The sub-attributes, or `None` when they do not fill the data exactly: the attribute is then opaque, the packet
    /// stays good. RFC 2865 section 5.26 only recommends this form.
    pub fn attributes(&self, format: VendorFormat) -> Option<Vec<VendorAttribute<'a>>> {
        let mut rest = self.data;
        let mut attributes = Vec::new();
        while !rest.is_empty() {
            let (kind, behind_kind) = number(rest, format.type_octets)?;
            let header =
                usize::from(format.type_octets) + usize::from(format.length_octets) + usize::from(format.continuation);
            let length = match format.length_octets {
                0 => rest.len(),
                octets => usize::try_from(number(behind_kind, octets)?.0).ok()?,
            };
            if length < header {
                return None;
            }
            let value = rest.get(header..length)?;
            attributes.push(VendorAttribute { kind, value });
            rest = &rest[length..];
        }
        Some(attributes)
    }
}

/// One sub-attribute of a vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VendorAttribute<'a> {
    pub kind: u32,
    pub value: &'a [u8],
}

/// How many octets a vendor spends on its sub-attributes' type and length; the dictionary's `format=2,1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VendorFormat {
    /// 1, 2 or 4.
    pub type_octets: u8,
    /// 0 (one sub-attribute fills the data), 1 or 2.
    pub length_octets: u8,
    /// A continuation octet follows the length (WiMAX).
    pub continuation: bool,
}

impl Default for VendorFormat {
    fn default() -> Self {
        Self { type_octets: 1, length_octets: 1, continuation: false }
    }
}

fn number(octets: &[u8], width: u8) -> Option<(u32, &[u8])> {
    let (number, rest) = octets.split_at_checked(usize::from(width))?;
    Some((number.iter().fold(0, |sum, &octet| sum << 8 | u32::from(octet)), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(length: u16, attributes: &[u8]) -> Vec<u8> {
        let mut octets = vec![4, 7];
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(&[0xaa; 16]);
        octets.extend_from_slice(attributes);
        octets
    }

    #[test]
    fn lengths_of_rfc_2865_section_3_hold() {
        let cases: [(Vec<u8>, Result<usize, Malformed>); 9] = [
            (vec![], Err(Malformed::Short(0))),
            (vec![4; 19], Err(Malformed::Short(19))),
            (packet(19, &[]), Err(Malformed::Length(19))),
            (packet(4097, &[0; 4200]), Err(Malformed::Length(4097))),
            (packet(24, &[1, 3]), Err(Malformed::Truncated { said: 24, came: 22 })),
            (packet(22, &[1, 1]), Err(Malformed::Attribute(20))),
            (packet(22, &[1, 0]), Err(Malformed::Attribute(20))),
            (packet(25, &[1, 2, 1, 4, 9]), Err(Malformed::Attribute(22))),
            (packet(22, &[1, 2]), Ok(1)),
        ];
        for (octets, expected) in cases {
            assert_eq!(PacketView::parse(&octets).map(|view| view.attributes().count()), expected);
        }
    }

    #[test]
    fn a_lone_type_octet_at_the_end_is_malformed() {
        assert_eq!(PacketView::parse(&packet(21, &[1])), Err(Malformed::Attribute(20)));
    }

    #[test]
    fn padding_behind_the_packet_is_ignored() {
        let octets = packet(22, &[1, 2, 1, 0, 0xff]);
        let view = PacketView::parse(&octets).expect("padding is legal");
        assert_eq!(view.octets().len(), 22);
        assert_eq!(view.attributes().count(), 1);
    }

    #[test]
    fn a_bad_inner_attribute_leaves_the_vendor_attribute_opaque() {
        let good = VendorSpecific::parse(&[0, 0, 0, 9, 1, 3, b'x', 2, 2]).expect("vendor 9");
        assert_eq!(good.vendor, 9);
        assert_eq!(good.attributes(VendorFormat::default()).map(|inner| inner.len()), Some(2));
        for data in [&[0, 0, 0, 9, 1, 1][..], &[0, 0, 0, 9, 1, 9, 1], &[0, 0, 0, 9, 1], &[0, 0, 0, 9, 1, 0, 0]] {
            let specific = VendorSpecific::parse(data).expect("vendor 9");
            assert_eq!(specific.attributes(VendorFormat::default()), None, "{data:?}");
        }
        assert_eq!(VendorSpecific::parse(&[0, 0, 0, 9]), None);
    }

    #[test]
    fn vendors_with_wide_types_are_walked() {
        let starent = VendorSpecific::parse(&[0, 0, 0x1f, 0xe4, 1, 2, 0, 5, 0x61]).expect("vendor 8164");
        let wide = VendorFormat { type_octets: 2, length_octets: 2, continuation: false };
        assert_eq!(starent.attributes(wide), Some(vec![VendorAttribute { kind: 0x0102, value: b"a" }]));
        let usr = VendorSpecific::parse(&[0, 0, 1, 173, 0, 0, 0x90, 1, 7]).expect("vendor 429");
        let bare = VendorFormat { type_octets: 4, length_octets: 0, continuation: false };
        assert_eq!(usr.attributes(bare), Some(vec![VendorAttribute { kind: 0x9001, value: &[7] }]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_view_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), length in 0u16..210) {
            let mut octets = octets;
            if octets.len() >= 4 {
                octets[2..4].copy_from_slice(&length.to_be_bytes());
            }
            if let Ok(view) = PacketView::parse(&octets) {
                let attribute_octets: usize = view.attributes().map(|attribute| attribute.value.len() + 2).sum();
                prop_assert_eq!(attribute_octets + HEADER_OCTETS, view.octets().len());
                for attribute in view.attributes() {
                    if let Some(specific) = VendorSpecific::parse(attribute.value) {
                        for type_octets in [1, 2, 4] {
                            for length_octets in [0, 1, 2] {
                                specific.attributes(VendorFormat { type_octets, length_octets, continuation: true });
                            }
                        }
                    }
                }
                view.vendor(9, 1).count();
            }
        }
    }
}
