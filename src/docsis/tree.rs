//! One TLV with everything inside it, between bytes and `name = value`.
//!
//! Whatever does not come back byte for byte from its readable form is shown raw: `{ hex = "…" }` under a known name,
//! `Tlv201 = "…"` for an unknown type. So reading what was shown always gives the bytes that were shown.

use toml::{Table, Value as Toml};

use super::path::{Occurrences, Path};
use super::schema::{Field, Kind, VENDOR_ID, by_code, by_name, vendor};
use super::tlv::{Framing, Tlv, nested, parse_nested, write};
use super::value::{read, show, unhex};
use crate::vocabulary::{Faults, hex};

/// Longest value below the top level, where every length is one byte.
const MAX_NESTED: usize = 255;
const RAW: &str = "hex";
const UNNAMED: &str = "Tlv";

/// The name and the readable value of a TLV that stands in `table`.
pub fn show_tlv(table: &'static [Field], tlv: &Tlv) -> (String, Toml) {
    let Some(field) = by_code(table, tlv.code) else {
        return (format!("{UNNAMED}{}", tlv.code), Toml::String(hex(&tlv.value)));
    };
    let readable = match field.kind {
        Kind::Group(inner) => show_list(inner, &tlv.value),
        Kind::Vendor => show_list(vendor_table(&tlv.value), &tlv.value),
        leaf => show(leaf, &tlv.value),
    };
    let faithful = readable.filter(|value| bytes_of(field, value).as_ref() == Some(&tlv.value));
    let raw = || Toml::Table(Table::from_iter([(RAW.to_owned(), Toml::String(hex(&tlv.value)))]));
    (field.name.to_owned(), faithful.unwrap_or_else(raw))
}

/// The TLV of `name = value` in `table`; faults go to `faults` with their path.
pub fn read_tlv(
    table: &'static [Field],
    name: &str,
    value: &Toml,
    place: (&Path, &mut Occurrences),
    faults: &mut Faults,
) -> Option<Tlv> {
    let (parent, occurrences) = place;
    let Some((code, field)) = resolve(table, name) else {
        faults.add(parent.child(0, 1, Some(name)).to_string(), "there is no TLV of this name here");
        return None;
    };
    let path = parent.child(code, occurrences.next(code), field.map(|field| field.name));
    let bytes = match (field, raw(value)) {
        (_, Some(text)) => unhex(text),
        (None, None) => value.as_str().ok_or("should be hexadecimal in quotes".to_owned()).and_then(unhex),
        (Some(field), None) => match field.kind {
            Kind::Group(inner) => return read_list(inner, value, &path, faults).map(|bytes| Tlv::new(code, bytes)),
            Kind::Vendor => {
                let inner = vendor_table_of(value);
                return read_list(inner, value, &path, faults).map(|bytes| Tlv::new(code, bytes));
            }
            leaf => read(leaf, value),
        },
    };
    match bytes {
        Ok(bytes) => Some(Tlv::new(code, bytes)),
        Err(detail) => {
            faults.add(path.to_string(), detail);
            None
        }
    }
}

/// Every `name = value` of a list: a table, or an array of tables, in order.
pub fn entries(value: &Toml) -> Option<Vec<(&String, &Toml)>> {
    match value {
        Toml::Table(table) => Some(table.iter().collect()),
        Toml::Array(items) => {
            items.iter().map(Toml::as_table).collect::<Option<Vec<_>>>().map(|t| t.into_iter().flatten().collect())
        }
        _ => None,
    }
}

/// The table inside a vendor extension, by the OUI it opens with.
pub fn vendor_table(bytes: &[u8]) -> &'static [Field] {
    let oui = nested(bytes).map_while(Result::ok).find(|tlv| tlv.code == VENDOR_ID);
    vendor(oui.map(|tlv| tlv.value).unwrap_or_default())
}

fn vendor_table_of(value: &Toml) -> &'static [Field] {
    let oui = entries(value).into_iter().flatten().find(|(name, _)| name.as_str() == "VendorIdentifier");
    vendor(&oui.and_then(|(_, text)| text.as_str()).and_then(|text| unhex(text).ok()).unwrap_or_default())
}

fn show_list(table: &'static [Field], bytes: &[u8]) -> Option<Toml> {
    let tlvs = parse_nested(bytes).ok()?;
    let item = |tlv: &Tlv| Toml::Table(Table::from_iter([show_tlv(table, tlv)]));
    Some(Toml::Array(tlvs.iter().map(item).collect()))
}

fn read_list(table: &'static [Field], value: &Toml, path: &Path, faults: &mut Faults) -> Option<Vec<u8>> {
    let Some(entries) = entries(value) else {
        faults.add(path.to_string(), "should be a list of TLVs");
        return None;
    };
    let mut occurrences = Occurrences::default();
    let mut bytes = Vec::new();
    let mut whole = true;
    for (name, value) in entries {
        match read_tlv(table, name, value, (path, &mut occurrences), faults) {
            Some(tlv) if tlv.value.len() > MAX_NESTED => {
                faults.add(path.to_string(), format!("{name} is longer than {MAX_NESTED} bytes"));
                whole = false;
            }
            Some(tlv) => write(Framing::Cm, &tlv, &mut bytes),
            None => whole = false,
        }
    }
    whole.then_some(bytes)
}

fn bytes_of(field: &'static Field, value: &Toml) -> Option<Vec<u8>> {
    let mut faults = Faults::new();
    let place = (&Path::default(), &mut Occurrences::default());
    let table = std::slice::from_ref(field);
    read_tlv(table, field.name, value, place, &mut faults).map(|tlv| tlv.value)
}

fn resolve(table: &'static [Field], name: &str) -> Option<(u8, Option<&'static Field>)> {
    if let Some(field) = by_name(table, name) {
        return Some((field.code, Some(field)));
    }
    let code = name.strip_prefix(UNNAMED)?.parse().ok()?;
    Some((code, None))
}

fn raw(value: &Toml) -> Option<&str> {
    let table = value.as_table().filter(|table| table.len() == 1)?;
    table.get(RAW)?.as_str()
}
