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

    /// The contents octets, without tag and length.
    pub fn contents(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Two arcs share the first subidentifier: 40 × first + second.
        base_128(u64::from(self.0[0]) * 40 + u64::from(self.0[1]), &mut out);
        for arc in &self.0[2..] {
            base_128(u64::from(*arc), &mut out);
        }
        out
    }

    /// Reads contents octets.
    pub fn parse_contents(bytes: &[u8]) -> Result<Self, BerError> {
        let mut subidentifiers = Vec::new();
        let mut current = 0u64;
        let mut open = false;
        for byte in bytes {
            if !open && *byte == 0x80 {
                return Err(BerError::Form);
            }
            current = current << 7 | u64::from(byte & 0x7f);
            if current > u64::from(u32::MAX) + 80 {
                return Err(BerError::Form);
            }
            open = byte & 0x80 != 0;
            if !open {
                subidentifiers.push(current);
                current = 0;
            }
        }
        let (&joined, rest) = subidentifiers.split_first().filter(|_| !open).ok_or(BerError::Form)?;
        let first = (joined / 40).min(2);
        let mut arcs = vec![first as u32, u32::try_from(joined - first * 40).map_err(|_| BerError::Form)?];
        for arc in rest {
            arcs.push(u32::try_from(*arc).map_err(|_| BerError::Form)?);
        }
        if arcs.len() > MAX_ARCS { Err(BerError::Form) } else { Ok(Self(arcs)) }
    }

    /// Tag, length and contents.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        element(OBJECT, &self.contents(), &mut out);
        out
    }

    /// Reads tag, length and contents; gives the rest behind it.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), BerError> {
        match take(bytes)? {
            (OBJECT, contents, rest) => Ok((Self::parse_contents(contents)?, rest)),
            _ => Err(BerError::Form),
        }
    }

    pub fn starts_with(&self, arcs: &[u32]) -> bool {
        self.0.starts_with(arcs)
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
        let mut inside = self.oid.encode();
        let (tag, contents) = match &self.value {
            Value::Integer(number) => (INTEGER, shortest(&number.to_be_bytes())),
            Value::Octets(bytes) => (OCTETS, bytes.clone()),
            Value::Null => (NULL, Vec::new()),
            Value::Object(oid) => (OBJECT, oid.contents()),
            Value::Ip(address) => (IP, address.octets().to_vec()),
            Value::Counter32(number) => (COUNTER32, unsigned(u64::from(*number))),
            Value::Gauge32(number) => (GAUGE32, unsigned(u64::from(*number))),
            Value::TimeTicks(number) => (TIME_TICKS, unsigned(u64::from(*number))),
            Value::Opaque(bytes) => (OPAQUE, bytes.clone()),
            Value::Counter64(number) => (COUNTER64, unsigned(*number)),
        };
        element(tag, &contents, &mut inside);
        let mut out = Vec::new();
        element(SEQUENCE, &inside, &mut out);
        out
    }

    /// Reads a VarBind that fills `bytes`.
    ///
    /// **Errors**: `Form` for anything that `encode` would spell in other bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, BerError> {
        let (SEQUENCE, inside, []) = take(bytes)? else { return Err(BerError::Form) };
        let (oid, rest) = Oid::parse(inside)?;
        let (tag, contents, []) = take(rest)? else { return Err(BerError::Form) };
        let value = match tag {
            INTEGER => Value::Integer(signed(contents)?),
            OCTETS => Value::Octets(contents.to_vec()),
            NULL => Value::Null,
            OBJECT => Value::Object(Oid::parse_contents(contents)?),
            IP => Value::Ip(<[u8; 4]>::try_from(contents).map_err(|_| BerError::Form)?.into()),
            COUNTER32 => Value::Counter32(natural_32(contents)?),
            GAUGE32 => Value::Gauge32(natural_32(contents)?),
            TIME_TICKS => Value::TimeTicks(natural_32(contents)?),
            OPAQUE => Value::Opaque(contents.to_vec()),
            COUNTER64 => Value::Counter64(natural(contents)?),
            _ => return Err(BerError::Form),
        };
        let parsed = Self { oid, value };
        if parsed.encode() == bytes { Ok(parsed) } else { Err(BerError::Form) }
    }
}

fn base_128(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = vec![(number & 0x7f) as u8];
    number >>= 7;
    while number > 0 {
        digits.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.extend(digits.iter().rev());
}

fn element(tag: u8, contents: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    match contents.len() {
        length @ ..0x80 => out.push(length as u8),
        length @ ..0x100 => out.extend([0x81, length as u8]),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(contents);
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

/// Two's complement without needless leading bytes.
fn shortest(bytes: &[u8]) -> Vec<u8> {
    let mut from = 0;
    while let [first, second, ..] = bytes[from..] {
        let needless = (first == 0 && second < 0x80) || (first == 0xff && second >= 0x80);
        if !needless {
            break;
        }
        from += 1;
    }
    bytes[from..].to_vec()
}

fn unsigned(number: u64) -> Vec<u8> {
    shortest(&[[0].as_slice(), &number.to_be_bytes()].concat())
}

fn signed(contents: &[u8]) -> Result<i64, BerError> {
    let (first, 1..=8) = (contents.first().copied().unwrap_or(0), contents.len()) else { return Err(BerError::Form) };
    let start = if first >= 0x80 { -1i64 } else { 0 };
    Ok(contents.iter().fold(start, |number, byte| number << 8 | i64::from(*byte)))
}

fn natural(contents: &[u8]) -> Result<u64, BerError> {
    match contents {
        [first, ..] if *first < 0x80 && contents.len() <= 9 => {
            Ok(contents.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
        }
        _ => Err(BerError::Form),
    }
}

fn natural_32(contents: &[u8]) -> Result<u32, BerError> {
    natural(contents).and_then(|number| u32::try_from(number).map_err(|_| BerError::Form))
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
