//! The little of ASN.1's BER that configuration files use: object identifiers and SNMP VarBinds.
//!
//! Comes in: bytes of TLV 11 or 64. Goes out: a `VarBind` with a typed value; writing gives the shortest definite form.
//! A VarBind that is not in that form is refused here and kept as raw bytes by the caller, so nothing is ever re-spelt.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// An object identifier, for example `1.3.6.1.2.1.69.1.1.3.0`. At least two arcs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Oid(Vec<u32>);

/// One SNMP object and the value it is set to. RFC 3416 §3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VarBind {
    pub oid: Oid,
    pub value: Value,
}

/// A VarBind where it stands, known to be in shortest definite form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindView<'a> {
    oid: &'a [u8],
    tag: u8,
    contents: &'a [u8],
}

/// The value types of RFC 2578 that occur in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Integer(i64),
    Octets(Vec<u8>),
    Null,
    Object(Oid),
    Ip(Ipv4Addr),
    Counter32(u32),
    Gauge32(u32),
    TimeTicks(u32),
    Opaque(Vec<u8>),
    Counter64(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BerError {
    #[error("{0:?} is no object identifier")]
    Oid(String),
    #[error("the bytes are no VarBind in shortest definite form")]
    Form,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT: u8 = 0x06;
const IP: u8 = 0x40;
const COUNTER32: u8 = 0x41;
const GAUGE32: u8 = 0x42;
const TIME_TICKS: u8 = 0x43;
const OPAQUE: u8 = 0x44;
const COUNTER64: u8 = 0x46;
const MAX_ARCS: usize = 128;

impl Oid {
    /// An OID of arcs known to be well-formed: at least two, the first at most 2.
    pub fn of(arcs: &[u32]) -> Self {
        debug_assert!(matches!(arcs, [0..=2, _, ..]) && arcs.len() <= MAX_ARCS);
        Self(arcs.to_vec())
    }

    pub fn arcs(&self) -> &[u32] {
        &self.0
    }

    /// An OID below a known one: `prefix`, then `rest`.
    pub fn below(prefix: &[u32], rest: &[u32]) -> Self {
        let mut arcs = Vec::with_capacity(prefix.len() + rest.len());
        arcs.extend_from_slice(prefix);
        arcs.extend_from_slice(rest);
        debug_assert!(matches!(arcs[..], [0..=2, _, ..]) && arcs.len() <= MAX_ARCS);
        Self(arcs)
    }

    /// The contents octets, without tag and length.
    pub fn contents(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.contents_length());
        self.write_contents(&mut out);
        out
    }

    /// Reads contents octets.
    pub fn parse_contents(bytes: &[u8]) -> Result<Self, BerError> {
        // Each arc has an octet at least, and the first octets have two.
        let mut arcs = Vec::with_capacity(bytes.len() + 1);
        each_arc(bytes, |arc| arcs.push(arc))?;
        Ok(Self(arcs))
    }

    /// Tag, length and contents.
    pub fn encode(&self) -> Vec<u8> {
        let length = self.contents_length();
        let mut out = Vec::with_capacity(element_length(length));
        head(OBJECT, length, &mut out);
        self.write_contents(&mut out);
        out
    }

    /// Reads tag, length and contents; gives the rest behind it.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), BerError> {
        match take(bytes)? {
            (OBJECT, contents, rest) => Ok((Self::parse_contents(contents)?, rest)),
            _ => Err(BerError::Form),
        }
    }

    fn subidentifiers(&self) -> impl Iterator<Item = u64> {
        // Two arcs share the first subidentifier: 40 × first + second.
        let joined = u64::from(self.0[0]) * 40 + u64::from(self.0[1]);
        std::iter::once(joined).chain(self.0[2..].iter().map(|arc| u64::from(*arc)))
    }

    fn contents_length(&self) -> usize {
        self.subidentifiers().map(base_128_length).sum()
    }

    fn write_contents(&self, out: &mut Vec<u8>) {
        self.subidentifiers().for_each(|number| base_128(number, out));
    }
}

impl FromStr for Oid {
    type Err = BerError;

    /// Numbers with points; one leading point is allowed. Names are never looked up: MIB files differ between hosts.
    fn from_str(text: &str) -> Result<Self, BerError> {
        let fail = || BerError::Oid(text.chars().take(60).collect());
        let body = text.strip_prefix('.').unwrap_or(text);
        let digits = |arc: &str| !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit());
        let arcs: Vec<u32> = body
            .split('.')
            .map(|arc| if digits(arc) { arc.parse().map_err(|_| fail()) } else { Err(fail()) })
            .collect::<Result<_, _>>()?;
        let legal = match arcs.as_slice() {
            [0 | 1, second, ..] => *second < 40,
            [2, _, ..] => true,
            _ => false,
        };
        if legal && arcs.len() <= MAX_ARCS { Ok(Self(arcs)) } else { Err(fail()) }
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, arc) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write!(f, "{arc}")?;
        }
        Ok(())
    }
}

impl VarBind {
    pub fn new(oid: Oid, value: Value) -> Self {
        Self { oid, value }
    }

    /// `SEQUENCE { OID, value }`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(USUAL_OCTETS);
        self.write(&mut out);
        out
    }

    /// Appends what `encode` gives.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut room = [0; 9];
        let object;
        let (tag, contents) = match &self.value {
            Value::Integer(number) => (INTEGER, signed(*number, &mut room)),
            Value::Octets(bytes) => (OCTETS, &bytes[..]),
            Value::Null => (NULL, &[][..]),
            Value::Object(oid) => {
                object = oid.contents();
                (OBJECT, &object[..])
            }
            Value::Ip(address) => {
                room[..4].copy_from_slice(&address.octets());
                (IP, &room[..4])
            }
            Value::Counter32(number) => (COUNTER32, unsigned(u64::from(*number), &mut room)),
            Value::Gauge32(number) => (GAUGE32, unsigned(u64::from(*number), &mut room)),
            Value::TimeTicks(number) => (TIME_TICKS, unsigned(u64::from(*number), &mut room)),
            Value::Opaque(bytes) => (OPAQUE, &bytes[..]),
            Value::Counter64(number) => (COUNTER64, unsigned(*number, &mut room)),
        };
        let name = self.oid.contents_length();
        head(SEQUENCE, element_length(name) + element_length(contents.len()), out);
        head(OBJECT, name, out);
        self.oid.write_contents(out);
        head(tag, contents.len(), out);
        out.extend_from_slice(contents);
    }

    /// Reads a VarBind that fills `bytes`.
    ///
    /// **Errors**: `Form` for anything that `encode` would spell in other bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, BerError> {
        BindView::parse(bytes)?.owned()
    }
}

impl<'a> BindView<'a> {
    /// Reads a VarBind that fills `bytes`, as `VarBind::parse` does, without a copy.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BerError> {
        let (SEQUENCE, inside, []) = take_shortest(bytes)? else { return Err(BerError::Form) };
        let (OBJECT, oid, rest) = take_shortest(inside)? else { return Err(BerError::Form) };
        let (tag, contents, []) = take_shortest(rest)? else { return Err(BerError::Form) };
        each_arc(oid, |_| ())?;
        match tag {
            INTEGER => sound(is_shortest(contents) && contents.len() <= 8)?,
            OCTETS | OPAQUE => {}
            NULL => sound(contents.is_empty())?,
            OBJECT => each_arc(contents, |_| ())?,
            IP => sound(contents.len() == 4)?,
            COUNTER32 | GAUGE32 | TIME_TICKS => sound(natural(contents)? <= u64::from(u32::MAX))?,
            COUNTER64 => drop(natural(contents)?),
            _ => return Err(BerError::Form),
        }
        Ok(Self { oid, tag, contents })
    }

    /// Whether the object is `arcs` or stands below it.
    pub fn is_below(&self, arcs: &[u32]) -> bool {
        let mut wanted = arcs.iter();
        let mut same = true;
        let read = each_arc(self.oid, |arc| same = same && wanted.next().is_none_or(|wanted| *wanted == arc));
        read.is_ok() && same && wanted.next().is_none()
    }

    fn owned(&self) -> Result<VarBind, BerError> {
        let natural_32 = || natural(self.contents).and_then(|number| u32::try_from(number).map_err(|_| BerError::Form));
        let value = match self.tag {
            INTEGER => {
                let start = if self.contents.first().is_some_and(|first| *first >= 0x80) { -1i64 } else { 0 };
                Value::Integer(self.contents.iter().fold(start, |number, byte| number << 8 | i64::from(*byte)))
            }
            OCTETS => Value::Octets(self.contents.to_vec()),
            NULL => Value::Null,
            OBJECT => Value::Object(Oid::parse_contents(self.contents)?),
            IP => Value::Ip(<[u8; 4]>::try_from(self.contents).map_err(|_| BerError::Form)?.into()),
            COUNTER32 => Value::Counter32(natural_32()?),
            GAUGE32 => Value::Gauge32(natural_32()?),
            TIME_TICKS => Value::TimeTicks(natural_32()?),
            OPAQUE => Value::Opaque(self.contents.to_vec()),
            COUNTER64 => Value::Counter64(natural(self.contents)?),
            _ => return Err(BerError::Form),
        };
        Ok(VarBind { oid: Oid::parse_contents(self.oid)?, value })
    }
}

/// VarBinds of one subscriber's settings are below this.
const USUAL_OCTETS: usize = 64;

/// Reads the arcs of contents octets one by one: at most `MAX_ARCS`, each in its shortest spelling.
fn each_arc(bytes: &[u8], mut found: impl FnMut(u32)) -> Result<(), BerError> {
    let (mut current, mut open, mut arcs) = (0u64, false, 0usize);
    for byte in bytes {
        sound(open || *byte != 0x80)?;
        current = current << 7 | u64::from(byte & 0x7f);
        sound(current <= u64::from(u32::MAX) + 80)?;
        open = byte & 0x80 != 0;
        if open {
            continue;
        }
        let mut rest = current;
        if arcs == 0 {
            let first = (current / 40).min(2);
            found(first as u32);
            rest -= first * 40;
            arcs += 1;
        }
        found(u32::try_from(rest).map_err(|_| BerError::Form)?);
        arcs += 1;
        current = 0;
    }
    sound(!open && (2..=MAX_ARCS).contains(&arcs))
}

fn sound(holds: bool) -> Result<(), BerError> {
    holds.then_some(()).ok_or(BerError::Form)
}

fn base_128_length(number: u64) -> usize {
    (number | 1).ilog2() as usize / 7 + 1
}

fn base_128(number: u64, out: &mut Vec<u8>) {
    for place in (1..base_128_length(number)).rev() {
        out.push((number >> (7 * place)) as u8 | 0x80);
    }
    out.push((number & 0x7f) as u8);
}

/// Tag and length of an element.
fn head(tag: u8, length: usize, out: &mut Vec<u8>) {
    out.push(tag);
    match length {
        ..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
}

/// Octets of an element with contents of `length` octets.
fn element_length(length: usize) -> usize {
    match length {
        ..0x80 => 2 + length,
        0x80..0x100 => 3 + length,
        _ => 4 + length,
    }
}

/// Tag, contents and what follows of the first element.
fn take(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), BerError> {
    let (tag, length, body) = match bytes {
        [tag, 0x82, high, low, body @ ..] => (*tag, usize::from(u16::from_be_bytes([*high, *low])), body),
        [tag, 0x81, length, body @ ..] => (*tag, usize::from(*length), body),
        [tag, length @ ..=0x7f, body @ ..] => (*tag, usize::from(*length), body),
        _ => return Err(BerError::Form),
    };
    let (contents, rest) = body.split_at_checked(length).ok_or(BerError::Form)?;
    Ok((tag, contents, rest))
}

/// As `take`, where the length is in its shortest spelling.
fn take_shortest(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), BerError> {
    let (tag, contents, rest) = take(bytes)?;
    sound(bytes.len() == element_length(contents.len()) + rest.len())?;
    Ok((tag, contents, rest))
}

/// Two's complement without needless leading bytes.
fn is_shortest(contents: &[u8]) -> bool {
    match contents {
        [] => false,
        [0, second, ..] => *second >= 0x80,
        [0xff, second, ..] => *second < 0x80,
        _ => true,
    }
}

fn shortest(mut bytes: &[u8]) -> &[u8] {
    while !is_shortest(bytes) {
        bytes = &bytes[1..];
    }
    bytes
}

fn signed(number: i64, room: &mut [u8; 9]) -> &[u8] {
    room[1..].copy_from_slice(&number.to_be_bytes());
    shortest(&room[1..])
}

fn unsigned(number: u64, room: &mut [u8; 9]) -> &[u8] {
    room[1..].copy_from_slice(&number.to_be_bytes());
    shortest(&room[..])
}

/// An unsigned number in its shortest spelling; nine octets begin with a zero.
fn natural(contents: &[u8]) -> Result<u64, BerError> {
    let first = contents.first().copied().unwrap_or(0xff);
    sound(is_shortest(contents) && first < 0x80 && (contents.len() <= 8 || (contents.len() == 9 && first == 0)))?;
    Ok(contents.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn oid(text: &str) -> Oid {
        text.parse().expect("an OID of the test")
    }

    #[test]
    fn the_manager_address_is_spelt_as_the_reference_encoder_spells_it() {
        let bind = VarBind::new(oid("1.3.6.1.2.1.69.1.2.1.2.1"), Value::Ip(Ipv4Addr::new(10, 20, 0, 10)));
        let bytes = [0x30, 0x13, 0x06, 0x0b, 0x2b, 6, 1, 2, 1, 0x45, 1, 2, 1, 2, 1, 0x40, 4, 0x0a, 0x14, 0, 0x0a];
        assert_eq!(bind.encode(), bytes);
        assert_eq!(VarBind::parse(&bytes), Ok(bind));
    }

    #[test]
    fn every_type_and_edge_comes_back() {
        let values = [
            Value::Integer(0),
            Value::Integer(127),
            Value::Integer(128),
            Value::Integer(-1),
            Value::Integer(-129),
            Value::Integer(i64::MIN),
            Value::Octets(Vec::new()),
            Value::Octets(vec![9; 300]),
            Value::Null,
            Value::Object(oid("2.999.4294967295")),
            Value::Counter32(u32::MAX),
            Value::Gauge32(128),
            Value::TimeTicks(0),
            Value::Opaque(vec![1]),
            Value::Counter64(u64::MAX),
        ];
        for value in values {
            let bind = VarBind::new(oid("1.3.6.1.4.1.4491.2.2.1.1.2.7.0"), value);
            assert_eq!(VarBind::parse(&bind.encode()), Ok(bind));
        }
    }

    #[test]
    fn a_long_spelling_is_refused_rather_than_respelt() {
        // INTEGER 1 in two bytes, and a length in long form that short form could carry.
        assert_eq!(VarBind::parse(&[0x30, 7, 6, 1, 0x2b, 2, 2, 0, 1]), Err(BerError::Form));
        assert_eq!(VarBind::parse(&[0x30, 0x81, 6, 6, 1, 0x2b, 2, 1, 1]), Err(BerError::Form));
    }

    #[test]
    fn texts_that_are_no_oid_are_refused() {
        for text in ["", "1", "1.", "1..3", "3.1", "1.40", "1.3.-6", "1.3.4294967296", "1.3.6.x", "sysDescr.0"] {
            assert!(text.parse::<Oid>().is_err(), "{text}");
        }
        assert_eq!(oid(".1.3.6.1").to_string(), "1.3.6.1");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(bind) = VarBind::parse(&bytes) {
                prop_assert_eq!(bind.encode(), bytes);
            }
        }
    }
}
