//! One leaf value between its bytes and its readable form.
//!
//! Comes in: a `Kind` with either bytes or a TOML value. Goes out: the other. Lengths and ranges are not judged here but
//! in `check`; a value that has no readable form of its kind gives `None` and is then shown as raw hex.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::{Table, Value as Toml};

use super::ber::{Oid, Value, VarBind};
use super::schema::Kind;
use crate::vocabulary::{MacAddress, hex};

/// The readable form of a leaf, `None` when the bytes do not fit the kind.
pub fn show(kind: Kind, bytes: &[u8]) -> Option<Toml> {
    match kind {
        Kind::U8(..) => fixed::<1>(bytes).map(|[byte]| integer(byte)),
        Kind::U16(..) => fixed(bytes).map(|octets| integer(u16::from_be_bytes(octets))),
        Kind::U32(..) => fixed(bytes).map(|octets| integer(u32::from_be_bytes(octets))),
        Kind::U8List => Some(Toml::Array(bytes.iter().map(|byte| integer(*byte)).collect())),
        Kind::U16List => pieces::<2>(bytes, |octets| integer(u16::from_be_bytes(octets))),
        Kind::Ip4 => fixed::<4>(bytes).map(|octets| text(Ipv4Addr::from(octets))),
        Kind::Ip6 => fixed::<16>(bytes).map(|octets| text(Ipv6Addr::from(octets))),
        Kind::Ip => show(Kind::Ip4, bytes).or_else(|| show(Kind::Ip6, bytes)),
        Kind::Ip4List => pieces::<4>(bytes, |octets| text(Ipv4Addr::from(octets))),
        Kind::Ip6List => pieces::<16>(bytes, |octets| text(Ipv6Addr::from(octets))),
        Kind::Mac => fixed::<6>(bytes).and_then(|octets| MacAddress::from_octets(octets).ok()).map(text),
        Kind::Transport => transport(bytes),
        Kind::Text(..) => printable(bytes).map(text),
        Kind::TextZero(..) => bytes.strip_suffix(&[0]).and_then(printable).map(text),
        Kind::Oid => match Oid::parse(bytes) {
            Ok((oid, [])) => Some(text(oid)),
            _ => None,
        },
        Kind::VarBind => VarBind::parse(bytes).ok().map(|bind| show_bind(&bind)),
        Kind::WriteControl => match Oid::parse(bytes) {
            Ok((oid, [control])) => Some(table([("oid", text(oid)), ("deny", integer(*control))])),
            _ => None,
        },
        Kind::Hex(_) | Kind::Mic => Some(text(hex(bytes))),
        Kind::Group(_) | Kind::Vendor => None,
    }
}

/// The bytes of a readable leaf.
///
/// **Errors**: a sentence that says what the value should have been.
pub fn read(kind: Kind, value: &Toml) -> Result<Vec<u8>, String> {
    match kind {
        Kind::U8(..) => Ok(vec![whole::<u8>(value)?]),
        Kind::U16(..) => Ok(whole::<u16>(value)?.to_be_bytes().to_vec()),
        Kind::U32(..) => Ok(whole::<u32>(value)?.to_be_bytes().to_vec()),
        Kind::U8List => each(value, |item| Ok(vec![whole::<u8>(item)?])),
        Kind::U16List => each(value, |item| Ok(whole::<u16>(item)?.to_be_bytes().to_vec())),
        Kind::Ip4 => Ok(word::<Ipv4Addr>(value, "an IPv4 address")?.octets().to_vec()),
        Kind::Ip6 => Ok(word::<Ipv6Addr>(value, "an IPv6 address")?.octets().to_vec()),
        Kind::Ip => Ok(match word::<IpAddr>(value, "an IP address")? {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }),
        Kind::Ip4List => each(value, |item| read(Kind::Ip4, item)),
        Kind::Ip6List => each(value, |item| read(Kind::Ip6, item)),
        Kind::Mac => Ok(word::<MacAddress>(value, "a MAC address")?.octets().to_vec()),
        Kind::Transport => {
            let address = word::<SocketAddr>(value, "an address with port, like 10.0.0.1:161")?;
            let mut bytes = match address.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            bytes.extend(address.port().to_be_bytes());
            Ok(bytes)
        }
        Kind::Text(..) => Ok(string(value)?.as_bytes().to_vec()),
        Kind::TextZero(..) => Ok([string(value)?.as_bytes(), &[0]].concat()),
        Kind::Oid => Ok(word::<Oid>(value, "an OID in numbers")?.encode()),
        Kind::VarBind => read_bind(value).map(|bind| bind.encode()),
        Kind::WriteControl => {
            let parts = value.as_table().filter(|table| table.len() == 2);
            match parts.and_then(|table| Some((table.get("oid")?, table.get("deny")?))) {
                Some((oid, deny)) => {
                    let mut bytes = word::<Oid>(oid, "an OID in numbers")?.encode();
                    bytes.push(whole::<u8>(deny)?);
                    Ok(bytes)
                }
                None => Err("should be { oid = \"1.3.…\", deny = 0 or 1 }".to_owned()),
            }
        }
        Kind::Hex(_) | Kind::Mic => unhex(string(value)?),
        Kind::Group(_) | Kind::Vendor => Err("should be a list of TLVs".to_owned()),
    }
}

/// Reads hexadecimal; `0x` in front, spaces and colons between are passed over.
pub fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let fail = || "should be hexadecimal, two digits a byte".to_owned();
    let digits = text.strip_prefix("0x").unwrap_or(text).chars().filter(|c| !c.is_whitespace() && *c != ':');
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for digit in digits {
        let digit = digit.to_digit(16).ok_or_else(fail)? as u8;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    if high.is_none() { Ok(bytes) } else { Err(fail()) }
}

fn show_bind(bind: &VarBind) -> Toml {
    let (word, value) = match &bind.value {
        Value::Integer(number) => ("integer", Toml::Integer(*number)),
        Value::Octets(bytes) => match printable(bytes) {
            Some(readable) => ("string", text(readable)),
            None => ("hex", text(hex(bytes))),
        },
        Value::Null => ("null", Toml::Boolean(true)),
        Value::Object(oid) => ("object", text(oid)),
        Value::Ip(address) => ("ip", text(address)),
        Value::Counter32(number) => ("counter32", integer(*number)),
        Value::Gauge32(number) => ("gauge32", integer(*number)),
        Value::TimeTicks(number) => ("timeticks", integer(*number)),
        Value::Opaque(bytes) => ("opaque", text(hex(bytes))),
        // TOML's integers end at 2^63 - 1.
        Value::Counter64(number) => ("counter64", text(number)),
    };
    table([("oid", text(&bind.oid)), (word, value)])
}

fn read_bind(value: &Toml) -> Result<VarBind, String> {
    let form = || {
        "should be { oid = \"1.3.…\", TYPE = value } with TYPE one of integer, string, hex, null, object, ip, \
                   counter32, gauge32, timeticks, counter64, opaque"
    };
    let parts = value.as_table().filter(|table| table.len() == 2).ok_or_else(form)?;
    let oid = word::<Oid>(parts.get("oid").ok_or_else(form)?, "an OID in numbers")?;
    let (word_of_type, value) = parts.iter().find(|(key, _)| *key != "oid").ok_or_else(form)?;
    let value = match word_of_type.as_str() {
        "integer" => Value::Integer(value.as_integer().ok_or("integer: should be a whole number")?),
        "string" => Value::Octets(string(value)?.as_bytes().to_vec()),
        "hex" => Value::Octets(unhex(string(value)?)?),
        "null" => Value::Null,
        "object" => Value::Object(word(value, "an OID in numbers")?),
        "ip" => Value::Ip(word(value, "an IPv4 address")?),
        "counter32" => Value::Counter32(whole(value)?),
        "gauge32" => Value::Gauge32(whole(value)?),
        "timeticks" => Value::TimeTicks(whole(value)?),
        "opaque" => Value::Opaque(unhex(string(value)?)?),
        "counter64" => Value::Counter64(match value {
            Toml::String(_) => word(value, "a number from 0 to 2^64-1")?,
            other => whole(other)?,
        }),
        _ => return Err(form().to_owned()),
    };
    Ok(VarBind::new(oid, value))
}

fn transport(bytes: &[u8]) -> Option<Toml> {
    let (address, port) = bytes.split_last_chunk::<2>()?;
    let ip = match address.len() {
        4 => IpAddr::from(fixed::<4>(address)?),
        16 => IpAddr::from(fixed::<16>(address)?),
        _ => return None,
    };
    Some(text(SocketAddr::new(ip, u16::from_be_bytes(*port))))
}

fn printable(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn pieces<const N: usize>(bytes: &[u8], show_one: impl Fn([u8; N]) -> Toml) -> Option<Toml> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| Toml::Array(chunks.iter().map(|chunk| show_one(*chunk)).collect()))
}

fn integer(number: impl Into<i64>) -> Toml {
    Toml::Integer(number.into())
}

fn text(value: impl ToString) -> Toml {
    Toml::String(value.to_string())
}

fn table<const N: usize>(entries: [(&str, Toml); N]) -> Toml {
    Toml::Table(Table::from_iter(entries.map(|(key, value)| (key.to_owned(), value))))
}

fn string(value: &Toml) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "should be a text in quotes".to_owned())
}

fn word<T: std::str::FromStr>(value: &Toml, what: &str) -> Result<T, String> {
    string(value)?.parse().map_err(|_| format!("should be {what}"))
}

/// A whole number that fits its field; `true` and `false` are 1 and 0.
fn whole<T: TryFrom<i64>>(value: &Toml) -> Result<T, String> {
    let number = match value {
        Toml::Integer(number) => *number,
        Toml::Boolean(flag) => i64::from(*flag),
        // A placeholder of a template leaves a text behind.
        Toml::String(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| format!("{text} is too great"))?
        }
        _ => return Err("should be a whole number".to_owned()),
    };
    let bits = 8 * size_of::<T>();
    T::try_from(number).map_err(|_| format!("{number} does not fit {bits} bits"))
}

fn each(value: &Toml, read_one: impl Fn(&Toml) -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
    let items = value.as_array().ok_or("should be a list in brackets")?;
    items.iter().map(read_one).collect::<Result<Vec<_>, _>>().map(|pieces| pieces.concat())
}
