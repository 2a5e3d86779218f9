//! Whether a file keeps the rules: lengths, ranges, what must be present, what must not stand together.
//!
//! Comes in: the items of a file. Goes out: every fault with the path of its TLV. Never stops at the first.
//! A file with faults can still be shown and kept byte for byte; it is only not made by accident.

use super::ber::{BindView, Oid};
use super::path::{Occurrences, Path};
use super::schema::{Field, Kind, VENDOR_ID, by_code, top};
use super::tlv::{CM_MIC, CMTS_MIC, Framing, Item, View, adds_up, nested};
use super::tree::vendor_table;
use crate::vocabulary::{Faults, MacAddress};

const NETWORK_ACCESS: u8 = 3;
const CLASS_OF_SERVICE: u8 = 4;
const SNMP_OBJECT: u8 = 11;
const CPE_MAC: u8 = 14;
const MAX_CPE: u8 = 18;
const CLASSIFIERS: [u8; 2] = [22, 23];
const DROP_CLASSIFIER: u8 = 60;
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
    let tlvs = items.iter().filter_map(|item| match item {
        Item::Tlv(tlv) => Some(View { code: tlv.code, value: &tlv.value, whole: &[] }),
        _ => None,
    });
    let views: Vec<View> = tlvs.collect();
    faults_of(framing, &views)
}

/// Every fault of a file given as its TLVs.
pub fn faults_of(framing: Framing, tlvs: &[View]) -> Faults {
    let mut faults = Faults::new();
    field_faults(framing, tlvs, &mut faults);
    if framing == Framing::Cm {
        check_presence(tlvs, &mut faults);
        check_flows(tlvs, &mut faults);
        check_snmp_access(tlvs, &mut faults);
    }
    faults
}

/// What is wrong with each TLV by itself, wherever it stands.
pub fn field_faults(framing: Framing, tlvs: &[View], faults: &mut Faults) {
    let root = Path::default();
    let mut occurrences = Occurrences::default();
    for tlv in tlvs {
        let field = by_code(top(framing), tlv.code);
        let path = root.child(tlv.code, occurrences.next(tlv.code), field.map(|field| field.name));
        if let Some(field) = field {
            check_field(field, tlv.value, &path, faults);
        }
    }
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
    let mut occurrences = Occurrences::default();
    if let Err(error) = adds_up(bytes) {
        return faults.add(path.to_string(), format!("inside: {error}"));
    }
    for tlv in nested(bytes).map_while(Result::ok) {
        let field = by_code(table, tlv.code);
        let inner = path.child(tlv.code, occurrences.next(tlv.code), field.map(|field| field.name));
        if let Some(field) = field {
            check_field(field, tlv.value, &inner, faults);
        }
    }
    for needed in needed_inside(group, table) {
        if !nested(bytes).flatten().any(|tlv| tlv.code == *needed) {
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
        Kind::Oid => ber_fault(matches!(Oid::parse(bytes), Ok((_, [])))),
        Kind::VarBind => ber_fault(BindView::parse(bytes).is_ok()),
        Kind::WriteControl => ber_fault(matches!(Oid::parse(bytes), Ok((_, [_])))),
        Kind::Ip4List => (!bytes.len().is_multiple_of(4)).then(|| "must be a multiple of 4 bytes".to_owned()),
        Kind::Ip6List => (!bytes.len().is_multiple_of(16)).then(|| "must be a multiple of 16 bytes".to_owned()),
        Kind::U16List => (!bytes.len().is_multiple_of(2)).then(|| "must be a multiple of 2 bytes".to_owned()),
        Kind::U8List | Kind::Hex(_) | Kind::Group(_) | Kind::Vendor => None,
    }
}

fn ber_fault(sound: bool) -> Option<String> {
    (!sound).then(|| "is not in shortest definite BER".to_owned())
}

fn text_fault(bytes: &[u8], least: usize, most: usize) -> Option<String> {
    let length = bytes.len();
    (!(least..=most).contains(&length)).then(|| format!("must be {least} to {most} bytes long, is {length}"))
}

fn check_presence(tlvs: &[View], faults: &mut Faults) {
    let mut counts = [0usize; 256];
    tlvs.iter().for_each(|tlv| counts[usize::from(tlv.code)] += 1);
    let count = |code: u8| counts[usize::from(code)];
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

/// References are unique over both directions, and a classifier names a flow that is there. So are the references of
/// classifiers, the dropping ones (60) among them.
fn check_flows(tlvs: &[View], faults: &mut Faults) {
    let root = Path::default();
    let place = |code: u8, nth: usize| root.child(code, nth, by_code(top(Framing::Cm), code).map(|field| field.name));
    let mut flows: Vec<(u64, u8, usize)> = Vec::new();
    let mut classifiers: Vec<(u64, u8, usize)> = Vec::new();
    let mut occurrences = Occurrences::default();
    for tlv in tlvs {
        let (kind, holders) = match tlv.code {
            code if FLOWS.contains(&code) => ("flow", &mut flows),
            code if CLASSIFIERS.contains(&code) || code == DROP_CLASSIFIER => ("classifier", &mut classifiers),
            _ => continue,
        };
        let nth = occurrences.next(tlv.code);
        let Some(reference) = sub_number(tlv, 1) else { continue };
        match holders.iter().find(|(of, ..)| *of == reference) {
            Some((_, code, first)) => {
                let detail = format!("{kind} reference {reference} is already used by {}", place(*code, *first));
                faults.add(place(tlv.code, nth).to_string(), detail);
            }
            None => holders.push((reference, tlv.code, nth)),
        }
    }
    let mut occurrences = Occurrences::default();
    for tlv in tlvs.iter().filter(|tlv| CLASSIFIERS.contains(&tlv.code)) {
        let nth = occurrences.next(tlv.code);
        if let Some(reference) = sub_number(tlv, 3)
            && !flows.iter().any(|(of, ..)| *of == reference)
        {
            let detail = format!("names flow reference {reference}, which no 24 or 25 has");
            faults.add(place(tlv.code, nth).to_string(), detail);
        }
    }
}

/// The number a sub-TLV of one or two octets holds.
fn sub_number(tlv: &View, code: u8) -> Option<u64> {
    let sub = nested(tlv.value).flatten().find(|sub| sub.code == code)?;
    match *sub.value {
        [low] => Some(low.into()),
        [high, low] => Some(u16::from_be_bytes([high, low]).into()),
        _ => None,
    }
}

fn check_snmp_access(tlvs: &[View], faults: &mut Faults) {
    if !tlvs.iter().any(|tlv| [COEXISTENCE, ACCESS_VIEW].contains(&tlv.code)) {
        return;
    }
    let older = tlvs
        .iter()
        .filter(|tlv| tlv.code == SNMP_OBJECT)
        .position(|tlv| BindView::parse(tlv.value).is_ok_and(|bind| bind.is_below(&NM_ACCESS_TABLE)));
    if let Some(index) = older {
        let root = Path::default();
        let path = root.child(SNMP_OBJECT, index + 1, Some("SnmpMibObject"));
        faults.add(path.to_string(), "docsDevNmAccessTable must not stand beside coexistence (53, 54)");
    }
}
