//! Whether a file keeps the rules: lengths, ranges, what must be present, what must not stand together.
//!
//! Comes in: the items of a file. Goes out: every fault with the path of its TLV. Never stops at the first.
//! A file with faults can still be shown and kept byte for byte; it is only not made by accident.

use std::collections::BTreeMap;

use super::ber::{Oid, VarBind};
use super::path::{Occurrences, Path};
use super::schema::{Field, Kind, VENDOR_ID, by_code, top};
use super::tlv::{CM_MIC, CMTS_MIC, Framing, Item, Tlv, parse_nested};
use super::tree::vendor_table;
use super::value::show;
use crate::vocabulary::{Faults, MacAddress};

const NETWORK_ACCESS: u8 = 3;
const CLASS_OF_SERVICE: u8 = 4;
const SNMP_OBJECT: u8 = 11;
const CPE_MAC: u8 = 14;
const MAX_CPE: u8 = 18;
const CLASSIFIERS: [u8; 2] = [22, 23];
const FLOWS: [u8; 2] = [24, 25];
const FILTERS: u8 = 37;
const COEXISTENCE: u8 = 53;
const ACCESS_VIEW: u8 = 54;
const FREQUENCY: u8 = 1;
const FREQUENCY_STEP_HERTZ: u32 = 62_500;
/// Types that a modem's file carries once.
const ONCE: [u8; 12] = [1, 2, 3, 6, 7, 9, 18, 19, 20, 21, 28, 29];
/// docsDevNmAccessTable, the older way to grant SNMP access.
const NM_ACCESS_TABLE: [u32; 9] = [1, 3, 6, 1, 2, 1, 69, 1, 2];

/// Every fault of a file.
pub fn faults(framing: Framing, items: &[Item]) -> Faults {
    let tlvs: Vec<&Tlv> =
        items.iter().filter_map(|item| if let Item::Tlv(tlv) = item { Some(tlv) } else { None }).collect();
    let mut faults = Faults::new();
    let mut occurrences = Occurrences::default();
    for tlv in &tlvs {
        let field = by_code(top(framing), tlv.code);
        let path = Path::default().child(tlv.code, occurrences.next(tlv.code), field.map(|field| field.name));
        if let Some(field) = field {
            check_field(field, &tlv.value, &path, &mut faults);
        }
    }
    if framing == Framing::Cm {
        check_presence(&tlvs, &mut faults);
        check_flows(&tlvs, &mut faults);
        check_snmp_access(&tlvs, &mut faults);
    }
    faults
}

fn check_field(field: &Field, bytes: &[u8], path: &Path, faults: &mut Faults) {
    if let Some(detail) = leaf_fault(field.kind, bytes) {
        faults.add(path.to_string(), detail);
    }
    match field.kind {
        Kind::Group(table) => check_nested(table, field.code, bytes, path, faults),
        Kind::Vendor => {
            if bytes.first() != Some(&VENDOR_ID) {
                faults.add(path.to_string(), "the vendor identifier (sub-TLV 8) must come first");
            }
            check_nested(vendor_table(bytes), field.code, bytes, path, faults);
        }
        _ => {}
    }
    if field.code == FREQUENCY
        && field.name == "DownstreamFrequency"
        && let Ok(octets) = <[u8; 4]>::try_from(bytes)
        && !u32::from_be_bytes(octets).is_multiple_of(FREQUENCY_STEP_HERTZ)
    {
        faults.add(path.to_string(), format!("must be a multiple of {FREQUENCY_STEP_HERTZ} Hz"));
    }
    if field.code == FILTERS && field.name == "SubMgmtFilters" && ![8, 12, 16, 20].contains(&bytes.len()) {
        faults.add(path.to_string(), format!("must be 8, 12, 16 or 20 bytes, is {}", bytes.len()));
    }
}

fn check_nested(table: &'static [Field], group: u8, bytes: &[u8], path: &Path, faults: &mut Faults) {
    let tlvs = match parse_nested(bytes) {
        Ok(tlvs) => tlvs,
        Err(error) => return faults.add(path.to_string(), format!("inside: {error}")),
    };
    let mut occurrences = Occurrences::default();
    for tlv in &tlvs {
        let field = by_code(table, tlv.code);
        let inner = path.child(tlv.code, occurrences.next(tlv.code), field.map(|field| field.name));
        if let Some(field) = field {
            check_field(field, &tlv.value, &inner, faults);
        }
    }
    for needed in needed_inside(group, table) {
        if !tlvs.iter().any(|tlv| tlv.code == *needed) {
            let name = by_code(table, *needed).map(|field| field.name);
            faults.add(path.child(*needed, 1, name).to_string(), "is missing and must be present");
        }
    }
}

/// Sub-TLVs a group cannot do without. The group's code alone is no identity below the top level, its table is.
fn needed_inside(group: u8, table: &'static [Field]) -> &'static [u8] {
    let first = table.first().map_or("", |field| field.name);
    match (group, first) {
        (COEXISTENCE, "SNMPv1v2cCommunityName") => &[1, 2],
        (ACCESS_VIEW, "SNMPv3AccessViewName") => &[1],
        (24, "UsServiceFlowRef") | (25, "DsServiceFlowRef") => &[1],
        _ => &[],
    }
}

/// What is wrong with a leaf's length or range.
fn leaf_fault(kind: Kind, bytes: &[u8]) -> Option<String> {
    let number = || bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let in_range = |octets: usize, least: u64, most: u64| match bytes.len() {
        length if length != octets => Some(format!("must be {octets} bytes long, is {length}")),
        _ if !(least..=most).contains(&number()) => Some(format!("must be {least} to {most}, is {}", number())),
        _ => None,
    };
    match kind {
        Kind::U8(least, most) => in_range(1, least.into(), most.into()),
        Kind::U16(least, most) => in_range(2, least.into(), most.into()),
        Kind::U32(least, most) => in_range(4, least.into(), most.into()),
        Kind::Ip4 => in_range(4, 0, u64::MAX),
        Kind::Ip6 => (bytes.len() != 16).then(|| format!("must be 16 bytes long, is {}", bytes.len())),
        Kind::Ip => {
            (![4, 16].contains(&bytes.len())).then(|| format!("must be 4 or 16 bytes long, is {}", bytes.len()))
        }
        Kind::Transport => {
            (![6, 18].contains(&bytes.len())).then(|| format!("must be 6 or 18 bytes long, is {}", bytes.len()))
        }
        Kind::Mac => match <[u8; 6]>::try_from(bytes) {
            // A static multicast MAC is a group address by intent: only the length is judged here.
            Ok(octets) if octets[0] & 1 == 1 => None,
            Ok(octets) => MacAddress::from_octets(octets).err().map(|error| error.to_string()),
            Err(_) => Some(format!("must be 6 bytes long, is {}", bytes.len())),
        },
        Kind::Text(least, most) => text_fault(bytes, least, most),
        Kind::TextZero(least, most) => match bytes.split_last() {
            Some((0, text)) if !text.contains(&0) => text_fault(bytes, least, most),
            _ => Some("must end with one NUL".to_owned()),
        },
        Kind::Hex(lengths) if !lengths.is_empty() && !lengths.contains(&bytes.len()) => {
            Some(format!("must be {} bytes long, is {}", lengths[0], bytes.len()))
        }
        Kind::Mic => in_range(16, 0, u64::MAX),
        Kind::Oid | Kind::VarBind | Kind::WriteControl => {
            show(kind, bytes).is_none().then(|| "is not in shortest definite BER".to_owned())
        }
        Kind::Ip4List => (!bytes.len().is_multiple_of(4)).then(|| "must be a multiple of 4 bytes".to_owned()),
        Kind::U16List => (!bytes.len().is_multiple_of(2)).then(|| "must be a multiple of 2 bytes".to_owned()),
        Kind::U8List | Kind::Hex(_) | Kind::Group(_) | Kind::Vendor => None,
    }
}

fn text_fault(bytes: &[u8], least: usize, most: usize) -> Option<String> {
    let length = bytes.len();
    (!(least..=most).contains(&length)).then(|| format!("must be {least} to {most} bytes long, is {length}"))
}

fn check_presence(tlvs: &[&Tlv], faults: &mut Faults) {
    let count = |code: u8| tlvs.iter().filter(|tlv| tlv.code == code).count();
    let place = |code: u8, nth: usize| {
        Path::default().child(code, nth, by_code(top(Framing::Cm), code).map(|field| field.name)).to_string()
    };
    if count(NETWORK_ACCESS) == 0 {
        faults.add(place(NETWORK_ACCESS, 1), "is missing and must be present");
    }
    for code in ONCE {
        if count(code) > 1 {
            faults.add(place(code, 2), "may stand once");
        }
    }
    if count(CLASS_OF_SERVICE) > 0 && FLOWS.iter().any(|flow| count(*flow) > 0) {
        faults.add(place(CLASS_OF_SERVICE, 1), "must not stand beside service flows (24, 25)");
    }
    let allowed = tlvs.iter().find(|tlv| tlv.code == MAX_CPE).and_then(|tlv| tlv.value.first());
    if let Some(allowed) = allowed
        && count(CPE_MAC) > usize::from(*allowed)
    {
        let detail = format!("{} CPE addresses (14) are listed, {allowed} are allowed", count(CPE_MAC));
        faults.add(place(MAX_CPE, 1), detail);
    }
    let position = |code: u8| tlvs.iter().position(|tlv| tlv.code == code);
    match (position(CM_MIC), position(CMTS_MIC)) {
        (None, _) => faults.add(place(CM_MIC, 1), "is missing and must be present"),
        (_, None) => faults.add(place(CMTS_MIC, 1), "is missing and must be present"),
        (Some(cm), Some(cmts)) if cm > cmts => faults.add(place(CM_MIC, 1), "must stand before the CMTS MIC (7)"),
        _ => {}
    }
}

/// References are unique over both directions, and a classifier names a flow that is there.
fn check_flows(tlvs: &[&Tlv], faults: &mut Faults) {
    let mut holders: BTreeMap<u16, String> = BTreeMap::new();
    let mut occurrences = Occurrences::default();
    for tlv in tlvs.iter().filter(|tlv| FLOWS.contains(&tlv.code)) {
        let name = by_code(top(Framing::Cm), tlv.code).map(|field| field.name);
        let path = Path::default().child(tlv.code, occurrences.next(tlv.code), name);
        if let Some(reference) = sub_u16(tlv, 1)
            && let Some(holder) = holders.insert(reference, path.to_string())
        {
            faults.add(path.to_string(), format!("flow reference {reference} is already used by {holder}"));
        }
    }
    for tlv in tlvs.iter().filter(|tlv| CLASSIFIERS.contains(&tlv.code)) {
        let name = by_code(top(Framing::Cm), tlv.code).map(|field| field.name);
        let path = Path::default().child(tlv.code, occurrences.next(tlv.code), name);
        if let Some(reference) = sub_u16(tlv, 3)
            && !holders.contains_key(&reference)
        {
            faults.add(path.to_string(), format!("names flow reference {reference}, which no 24 or 25 has"));
        }
    }
}

fn sub_u16(tlv: &Tlv, code: u8) -> Option<u16> {
    let inner = parse_nested(&tlv.value).ok()?;
    let value: [u8; 2] = inner.iter().find(|sub| sub.code == code)?.value.as_slice().try_into().ok()?;
    Some(u16::from_be_bytes(value))
}

fn check_snmp_access(tlvs: &[&Tlv], faults: &mut Faults) {
    let coexistence = tlvs.iter().any(|tlv| [COEXISTENCE, ACCESS_VIEW].contains(&tlv.code));
    let in_table = |oid: &Oid| oid.starts_with(&NM_ACCESS_TABLE);
    let older = tlvs
        .iter()
        .filter(|tlv| tlv.code == SNMP_OBJECT)
        .position(|tlv| VarBind::parse(&tlv.value).is_ok_and(|bind| in_table(&bind.oid)));
    if coexistence && let Some(index) = older {
        let path = Path::default().child(SNMP_OBJECT, index + 1, Some("SnmpMibObject"));
        faults.add(path.to_string(), "docsDevNmAccessTable must not stand beside coexistence (53, 54)");
    }
}
