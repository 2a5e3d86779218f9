//! The outermost layer of a configuration file: bytes to a flat list of TLVs and back, in both framings.
//!
//! Comes in: the bytes of a cable modem's or an MTA's file. Goes out: `Item`s whose `write` gives the same bytes again.
//! Never interprets a value: names, types and ranges belong to `schema`.

use thiserror::Error;

/// The two kinds of configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Cable modem: type u8, length u8; type 0 pads, type 255 ends. CM-SP-MULPI Annex D.
    Cm,
    /// MTA: between `fe 01 01` and `fe 01 ff`; type 64 carries a length of two bytes. PKT-SP-PROV1.5.
    Mta,
}

/// One type, length, value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlv {
    pub code: u8,
    pub value: Vec<u8>,
}

/// One TLV where it stands, without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    pub code: u8,
    pub value: &'a [u8],
    /// Type, length and value.
    pub whole: &'a [u8],
}

/// What can stand in a file on its top level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Tlv(Tlv),
    /// A run of type 0 bytes, which have no length.
    Pad(usize),
    /// Type 255, which has no length, and whatever follows it: zero bytes in a proper file.
    End(Vec<u8>),
}

/// Why bytes are no configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlvError {
    #[error("the file is longer than {MAX_FILE_OCTETS} bytes")]
    TooLong,
    #[error("TLV {code} at byte {offset}: {declared} bytes are announced, {left} are left")]
    Truncated { code: u8, offset: usize, declared: usize, left: usize },
    #[error("TLV {code} at byte {offset}: the file ends before its length")]
    NoLength { code: u8, offset: usize },
}

/// The longest file that is read. Real ones are below 20 KiB; TFTP without block number wrap ends at 32 MiB.
pub const MAX_FILE_OCTETS: usize = 256 * 1024;

/// Pads a modem's file. One byte, no length.
pub const PAD: u8 = 0;
/// CM MIC.
pub const CM_MIC: u8 = 6;
/// CMTS MIC.
pub const CMTS_MIC: u8 = 7;
/// Opens and closes an MTA file.
pub const MTA_DELIMITER: u8 = 254;
/// Ends a modem's file. One byte, no length.
pub const END: u8 = 255;
/// In an MTA file the SNMP object with a length of two bytes.
pub const LONG_SNMP_OBJECT: u8 = 64;

impl Tlv {
    pub fn new(code: u8, value: Vec<u8>) -> Self {
        Self { code, value }
    }
}

impl Framing {
    /// Tells the framing from the first bytes: an MTA file opens with `fe 01 01`.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(&[MTA_DELIMITER, 1, 1]) { Self::Mta } else { Self::Cm }
    }

    /// The longest value `code` can carry on the top level.
    pub fn max_value(self, code: u8) -> usize {
        if self.long(code) { usize::from(u16::MAX) } else { usize::from(u8::MAX) }
    }

    fn long(self, code: u8) -> bool {
        self == Self::Mta && code == LONG_SNMP_OBJECT
    }
}

/// Cuts a whole file into items.
///
/// **Errors**: a TLV that reaches beyond the end, named with its type and offset; a file above `MAX_FILE_OCTETS`.
pub fn parse(framing: Framing, bytes: &[u8]) -> Result<Vec<Item>, TlvError> {
    if bytes.len() > MAX_FILE_OCTETS {
        return Err(TlvError::TooLong);
    }
    let mut items = Vec::new();
    let mut offset = 0;
    while let Some(&code) = bytes.get(offset) {
        match code {
            PAD => {
                let zeros = bytes[offset..].iter().take_while(|byte| **byte == PAD).count();
                items.push(Item::Pad(zeros));
                offset += zeros;
            }
            END if framing == Framing::Cm => {
                items.push(Item::End(bytes[offset + 1..].to_vec()));
                break;
            }
            _ => {
                let (tlv, next) = one(framing.long(code), bytes, offset)?;
                items.push(Item::Tlv(tlv));
                offset = next;
            }
        }
    }
    Ok(items)
}

/// The TLVs of a whole file where they stand; padding and the end are passed over.
///
/// **Errors**: as `parse`.
pub fn views(framing: Framing, bytes: &[u8]) -> Result<Vec<View<'_>>, TlvError> {
    if bytes.len() > MAX_FILE_OCTETS {
        return Err(TlvError::TooLong);
    }
    let mut views = Vec::with_capacity(32);
    let mut offset = 0;
    while let Some(&code) = bytes.get(offset) {
        match code {
            PAD => offset += 1,
            END if framing == Framing::Cm => break,
            _ => {
                let (view, next) = view(framing.long(code), bytes, offset)?;
                views.push(view);
                offset = next;
            }
        }
    }
    Ok(views)
}

/// Whether a nested TLV's value is whole TLVs.
pub fn adds_up(bytes: &[u8]) -> Result<(), TlvError> {
    let mut offset = 0;
    while offset < bytes.len() {
        offset = match bytes.get(offset + 1) {
            Some(length) if offset + 2 + usize::from(*length) <= bytes.len() => offset + 2 + usize::from(*length),
            // The fault in its words.
            _ => view(false, bytes, offset)?.1,
        };
    }
    Ok(())
}

/// The TLVs inside a nested one, up to the first that does not add up.
pub fn nested(bytes: &[u8]) -> impl Iterator<Item = Result<View<'_>, TlvError>> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        if offset >= bytes.len() {
            return None;
        }
        match view(false, bytes, offset) {
            Ok((view, next)) => {
                offset = next;
                Some(Ok(view))
            }
            Err(error) => {
                offset = bytes.len();
                Some(Err(error))
            }
        }
    })
}

/// Cuts the value of a nested TLV. Inside there is neither padding nor an end, and every length is one byte.
pub fn parse_nested(bytes: &[u8]) -> Result<Vec<Tlv>, TlvError> {
    let mut tlvs = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let (tlv, next) = one(false, bytes, offset)?;
        tlvs.push(tlv);
        offset = next;
    }
    Ok(tlvs)
}

/// Appends one TLV. The value must fit its length field: `schema` and `text` check this before.
pub fn write(framing: Framing, tlv: &Tlv, out: &mut Vec<u8>) {
    let length = tlv.value.len().min(framing.max_value(tlv.code));
    out.push(tlv.code);
    if framing.long(tlv.code) {
        out.push((length >> 8) as u8);
    }
    out.push((length & 0xff) as u8);
    out.extend_from_slice(&tlv.value[..length]);
}

/// Appends one item.
pub fn write_item(framing: Framing, item: &Item, out: &mut Vec<u8>) {
    match item {
        Item::Tlv(tlv) => write(framing, tlv, out),
        Item::Pad(zeros) => out.resize(out.len() + zeros, PAD),
        Item::End(rest) => {
            out.push(END);
            out.extend_from_slice(rest);
        }
    }
}

/// The bytes of a list of items, in order.
pub fn write_all(framing: Framing, items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        write_item(framing, item, &mut out);
    }
    out
}

fn one(long: bool, bytes: &[u8], offset: usize) -> Result<(Tlv, usize), TlvError> {
    let (view, next) = view(long, bytes, offset)?;
    Ok((Tlv::new(view.code, view.value.to_vec()), next))
}

fn view(long: bool, bytes: &[u8], offset: usize) -> Result<(View<'_>, usize), TlvError> {
    let code = bytes[offset];
    let head = if long { 3 } else { 2 };
    let length = match (long, bytes.get(offset + 1), bytes.get(offset + 2)) {
        (false, Some(length), _) => usize::from(*length),
        (true, Some(high), Some(low)) => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Err(TlvError::NoLength { code, offset }),
    };
    let start = offset + head;
    match bytes.get(start..start + length) {
        Some(value) => Ok((View { code, value, whole: &bytes[offset..start + length] }, start + length)),
        None => Err(TlvError::Truncated { code, offset, declared: length, left: bytes.len() - start }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_beyond_the_end_is_named_with_its_place() {
        let fault = parse(Framing::Cm, &[3, 1, 1, 18, 4, 1]).expect_err("the file is cut");
        assert_eq!(fault, TlvError::Truncated { code: 18, offset: 3, declared: 4, left: 1 });
        assert_eq!(parse(Framing::Cm, &[3]), Err(TlvError::NoLength { code: 3, offset: 0 }));
    }

    #[test]
    fn type_64_has_two_length_bytes_in_an_mta_file_only() {
        let mut file = vec![0xfe, 1, 1, 64, 1, 0];
        file.resize(file.len() + 256, 7);
        file.extend([0xfe, 1, 0xff]);
        let items = parse(Framing::Mta, &file).expect("an MTA file");
        assert_eq!(items[1], Item::Tlv(Tlv::new(64, vec![7; 256])));
        assert_eq!(parse(Framing::Cm, &[64, 1, 9]).expect("a CM file"), vec![Item::Tlv(Tlv::new(64, vec![9]))]);
    }

    proptest! {
        #[test]
        fn what_parses_is_written_back_byte_for_byte(bytes in proptest::collection::vec(any::<u8>(), 0..400), mta: bool) {
            let framing = if mta { Framing::Mta } else { Framing::Cm };
            if let Ok(items) = parse(framing, &bytes) {
                prop_assert_eq!(write_all(framing, &items), &bytes[..]);
            }
            prop_assert_eq!(adds_up(&bytes).err(), nested(&bytes).find_map(Result::err));
        }
    }
}
