//! A configuration file as readable TOML, and back.
//!
//! Comes in: a file's bytes, or a TOML text; the CMTS' shared secret where it is known. Goes out: the other form and
//! notes for the operator. Decoding and encoding again gives the same bytes for every file that parses at all: what can
//! be computed and verifies is left to be computed, everything else stands literally.
//!
//! ```toml
//! kind = "cm"                      # or "mta", with hash = "na" | "eu" | "ietf" | "none"
//! tlv = [
//!   { NetworkAccess = 1 },
//!   { UsServiceFlow = [ { UsServiceFlowRef = 1 }, { QosParamSetType = 7 } ] },
//!   { Tlv201 = "0102" },           # a type without a name here: its value in hex
//! ]
//! ```
//! `extended_mic = { explicit = true, bitmap = "7fff…" }` adds the setting of an extended CMTS MIC (43.6) to a modem's file;
//! without `bitmap` it covers everything. In a modem's file `CmMic`, `CmtsMic` and the end are appended where the list has none; `finish = "none"` leaves the
//! list as it stands. `accept_faults = true` writes a file that breaks rules, on purpose.

use std::fmt::Write as _;

use thiserror::Error;
use toml::{Table, Value as Toml};

use super::check::faults;
use super::mic::{ExtendedMic, cm_mic, expected_cmts_mic, made_setting, setting_behind};
use super::mta::{HashFamily, unwrap, wrap};
use super::path::{Occurrences, Path};
use super::schema::top;
use super::tlv::{CM_MIC, CMTS_MIC, Framing, Item, PAD, Tlv, TlvError, parse, write_all};
use super::tree::{entries, read_tlv, show_tlv};
use super::value::unhex;
use crate::vocabulary::{Fault, Faults, hex};

/// A file in its readable form.
#[derive(Debug)]
pub struct Decoded {
    pub toml: String,
    /// Rules the file breaks; it is shown all the same.
    pub faults: Vec<Fault>,
}

/// A file's bytes made from a readable form.
#[derive(Debug)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// Rules the file breaks and was allowed to break.
    pub faults: Vec<Fault>,
}

/// Why a file cannot be shown or made.
#[derive(Debug, Error)]
pub enum DocsisError {
    #[error(transparent)]
    Bytes(#[from] TlvError),
    #[error("{0}")]
    Toml(String),
    #[error("the file breaks {} rule(s)", .0.len())]
    Faults(Vec<Fault>),
    #[error("CmtsMic is automatic and no shared secret is known: give --secret-file or set [docsis] shared_secret")]
    NoSecret,
}

/// One entry of the list before a file is finished.
#[derive(Debug, Clone)]
enum Draft {
    Fixed(Item),
    CmMic,
    CmtsMic,
}

const AUTOMATIC: &str = "automatic";
const ALIGNMENT: usize = 4;
const MAX_PAD: usize = 4096;
/// Certificates that go on in the next TLV of their type: 32, 33, 81, 82.
const SPLIT: [u8; 4] = [32, 33, 81, 82];
const MOST_OF_A_PIECE: usize = 254;
/// A bit for each type.
const MOST_BITMAP: usize = 32;

/// Shows a file.
///
/// **Errors**: `Bytes` when the TLVs do not add up; nothing is shown then.
pub fn decode(bytes: &[u8], secret: Option<&[u8]>) -> Result<Decoded, DocsisError> {
    let framing = Framing::of(bytes);
    let items = parse(framing, bytes)?;
    let found = faults(framing, &items).into_vec();
    let mut text = format!("# {} bytes.\nkind = {:?}\n", bytes.len(), kind_word(framing));
    match framing {
        Framing::Cm => show_cm(&items, bytes.len(), secret, &found, &mut text),
        Framing::Mta => show_mta(&items, &found, &mut text),
    }
    Ok(Decoded { toml: text, faults: found })
}

/// Makes a file from its readable form.
///
/// **Errors**: `Toml` with line and column; `Faults` with every fault and its path; `NoSecret`.
pub fn encode(text: &str, secret: Option<&[u8]>) -> Result<Encoded, DocsisError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| DocsisError::Toml(error.to_string()))?;
    let mut found = Faults::new();
    let header = Header::read(&table, &mut found);
    let drafts = read_list(header.framing, table.get("tlv"), &mut found);
    found.settle(()).map_err(DocsisError::Faults)?;
    let items = match (header.framing, header.finish) {
        (Framing::Cm, finish) => finished(drafts, finish, header.extended.as_ref(), secret)?,
        (Framing::Mta, true) => wrap(fixed(drafts), header.hash),
        (Framing::Mta, false) => fixed(drafts),
    };
    let faults = faults(header.framing, &items).into_vec();
    if !faults.is_empty() && !header.accept_faults {
        return Err(DocsisError::Faults(faults));
    }
    Ok(Encoded { bytes: write_all(header.framing, &items), faults })
}

struct Header {
    framing: Framing,
    finish: bool,
    hash: Option<HashFamily>,
    extended: Option<ExtendedMic>,
    accept_faults: bool,
}

impl Header {
    fn read(table: &Table, faults: &mut Faults) -> Self {
        let mut header = Self { framing: Framing::Cm, finish: true, hash: None, extended: None, accept_faults: false };
        let (mut has_kind, mut has_hash) = (false, false);
        for (key, value) in table {
            match (key.as_str(), value.as_str(), value.as_bool()) {
                ("tlv", ..) => {}
                ("kind", Some("cm"), _) => has_kind = true,
                ("kind", Some("mta"), _) => (has_kind, header.framing) = (true, Framing::Mta),
                ("finish", Some(AUTOMATIC), _) => {}
                ("finish", Some("none"), _) => header.finish = false,
                ("accept_faults", _, Some(accept)) => header.accept_faults = accept,
                ("hash", Some(word), _) => {
                    has_hash = true;
                    header.hash = HashFamily::ALL.into_iter().find(|family| family.as_str() == word);
                    if header.hash.is_none() && word != "none" {
                        faults.add("hash", "should be \"na\", \"eu\", \"ietf\" or \"none\"");
                    }
                }
                ("extended_mic", ..) => match read_extended(value) {
                    Ok(mic) => header.extended = Some(mic),
                    Err(detail) => faults.add("extended_mic", detail),
                },
                ("kind", ..) => faults.add("kind", "should be \"cm\" or \"mta\""),
                ("finish", ..) => faults.add("finish", "should be \"automatic\" or \"none\""),
                ("accept_faults", ..) => faults.add("accept_faults", "should be true or false"),
                (other, ..) => faults
                    .add(other, "there is no such key; keys are kind, hash, finish, extended_mic, accept_faults, tlv"),
            }
        }
        if !has_kind {
            faults.add("kind", "is missing: \"cm\" or \"mta\"");
        }
        if header.extended.is_some() && (header.framing == Framing::Mta || !header.finish) {
            faults.add("extended_mic", "belongs to a modem's file that is finished here");
        }
        match (header.framing, has_hash, header.finish) {
            (Framing::Cm, true, _) => faults.add("hash", "belongs to an MTA file"),
            (Framing::Mta, false, true) => {
                faults.add(
                    "hash",
                    "is missing: the MTA's family \"na\", \"eu\" or \"ietf\", or \"none\" in a secure flow",
                );
            }
            _ => {}
        }
        header
    }
}

/// `{ explicit = true, bitmap = "…" }`.
fn read_extended(value: &Toml) -> Result<ExtendedMic, String> {
    let form = || "should be { explicit = true or false, bitmap = \"hexadecimal\" }".to_owned();
    let table = value.as_table().ok_or_else(form)?;
    if table.keys().any(|key| key != "explicit" && key != "bitmap") {
        return Err(form());
    }
    let explicit = table.get("explicit").and_then(Toml::as_bool).ok_or_else(form)?;
    match table.get("bitmap") {
        None => Ok(ExtendedMic::of_all(explicit)),
        Some(text) => {
            let bitmap = unhex(text.as_str().ok_or_else(form)?)?;
            let fits = (1..=MOST_BITMAP).contains(&bitmap.len());
            fits.then_some(ExtendedMic { explicit, bitmap })
                .ok_or_else(|| format!("a bitmap has 1 to {MOST_BITMAP} bytes"))
        }
    }
}

fn read_list(framing: Framing, list: Option<&Toml>, faults: &mut Faults) -> Vec<Draft> {
    let Some(entries) = list.and_then(entries) else {
        faults.add("tlv", "is missing: a list of { Name = value }");
        return Vec::new();
    };
    let mut occurrences = Occurrences::default();
    let mut drafts = Vec::new();
    for (name, value) in entries {
        let draft = match (framing, name.as_str(), value) {
            (Framing::Cm, "CmMic", Toml::String(word)) if word == AUTOMATIC => Some(Draft::CmMic),
            (Framing::Cm, "CmtsMic", Toml::String(word)) if word == AUTOMATIC => Some(Draft::CmtsMic),
            (_, "Pad", value) => read_zeros(name, value, faults).map(|zeros| Draft::Fixed(Item::Pad(zeros.len()))),
            (Framing::Cm, "EndOfData", value) => {
                read_zeros(name, value, faults).map(|rest| Draft::Fixed(Item::End(rest)))
            }
            _ => {
                drafts.extend(read_top(framing, name, value, &mut occurrences, faults));
                None
            }
        };
        drafts.extend(draft);
    }
    drafts
}

fn read_top(
    framing: Framing,
    name: &str,
    value: &Toml,
    occurrences: &mut Occurrences,
    faults: &mut Faults,
) -> Vec<Draft> {
    let Some(tlv) = read_tlv(top(framing), name, value, (&Path::default(), occurrences), faults) else {
        return Vec::new();
    };
    let most = framing.max_value(tlv.code);
    if framing == Framing::Cm && SPLIT.contains(&tlv.code) && tlv.value.len() > MOST_OF_A_PIECE {
        let piece = |bytes: &[u8]| Draft::Fixed(Item::Tlv(Tlv::new(tlv.code, bytes.to_vec())));
        return tlv.value.chunks(MOST_OF_A_PIECE).map(piece).collect();
    }
    if tlv.value.len() > most {
        faults.add(name, format!("is {} bytes long, its length field ends at {most}", tlv.value.len()));
        return Vec::new();
    }
    if tlv.code == PAD || (framing == Framing::Cm && tlv.code == super::tlv::END) {
        faults.add(name, "write { Pad = count } or { EndOfData = count }");
        return Vec::new();
    }
    vec![Draft::Fixed(Item::Tlv(tlv))]
}

/// `N` zero bytes, or the literal bytes behind an end mark.
fn read_zeros(name: &str, value: &Toml, faults: &mut Faults) -> Option<Vec<u8>> {
    let count = value.as_integer().and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= MAX_PAD);
    let literal = || value.as_str().filter(|_| name == "EndOfData").and_then(|text| unhex(text).ok());
    let bytes = count.map(|count| vec![PAD; count]).or_else(literal);
    if bytes.is_none() {
        faults.add(name, format!("should be a count of zero bytes, at most {MAX_PAD}"));
    }
    bytes
}

fn fixed(drafts: Vec<Draft>) -> Vec<Item> {
    drafts.into_iter().filter_map(|draft| if let Draft::Fixed(item) = draft { Some(item) } else { None }).collect()
}

/// Fills in the MICs and, when `finish` says so, what the list lacks of MICs and end.
fn finished(
    mut drafts: Vec<Draft>,
    finish: bool,
    extended: Option<&ExtendedMic>,
    secret: Option<&[u8]>,
) -> Result<Vec<Item>, DocsisError> {
    let is = |draft: &Draft, code: u8| match draft {
        Draft::CmMic => code == CM_MIC,
        Draft::CmtsMic => code == CMTS_MIC,
        Draft::Fixed(Item::Tlv(tlv)) => tlv.code == code,
        Draft::Fixed(_) => false,
    };
    let ended = |drafts: &[Draft]| drafts.iter().position(|draft| matches!(draft, Draft::Fixed(Item::End(_))));
    if finish {
        if !drafts.iter().any(|draft| is(draft, CM_MIC)) {
            let before = drafts.iter().position(|draft| is(draft, CMTS_MIC)).or(ended(&drafts)).unwrap_or(drafts.len());
            drafts.insert(before, Draft::CmMic);
        }
        if !drafts.iter().any(|draft| is(draft, CMTS_MIC)) {
            let before = ended(&drafts).unwrap_or(drafts.len());
            drafts.insert(before, Draft::CmtsMic);
        }
    }
    let add_end = finish && ended(&drafts).is_none();
    let mut items: Vec<Item> = Vec::with_capacity(drafts.len() + 1);
    for draft in &drafts {
        if let Some(mic) = extended.filter(|_| is(draft, CM_MIC)) {
            let secret = secret.ok_or(DocsisError::NoSecret)?;
            items.push(Item::Tlv(setting_behind(&items, mic, secret)));
        }
        items.push(match draft {
            Draft::Fixed(item) => item.clone(),
            Draft::CmMic => Item::Tlv(Tlv::new(CM_MIC, cm_mic(&items).to_vec())),
            Draft::CmtsMic => {
                let secret = secret.ok_or(DocsisError::NoSecret)?;
                Item::Tlv(Tlv::new(CMTS_MIC, expected_cmts_mic(&items, secret).to_vec()))
            }
        });
    }
    if add_end {
        let length = write_all(Framing::Cm, &items).len() + 1;
        items.push(Item::End(vec![PAD; length.next_multiple_of(ALIGNMENT) - length]));
    }
    Ok(items)
}

fn show_cm(items: &[Item], length: usize, secret: Option<&[u8]>, faults: &[Fault], out: &mut String) {
    let drafts: Vec<Draft> = items
        .iter()
        .enumerate()
        .map(|(index, item)| match item {
            Item::Tlv(tlv) if tlv.code == CM_MIC && tlv.value == cm_mic(&items[..index]) => Draft::CmMic,
            Item::Tlv(tlv)
                if tlv.code == CMTS_MIC
                    && secret.is_some_and(|key| tlv.value == expected_cmts_mic(&items[..index], key)) =>
            {
                Draft::CmtsMic
            }
            other => Draft::Fixed(other.clone()),
        })
        .collect();
    let has = |code: u8| items.iter().any(|item| matches!(item, Item::Tlv(tlv) if tlv.code == code));
    let aligned = |rest: &[u8]| {
        rest.len() < ALIGNMENT && length.is_multiple_of(ALIGNMENT) && rest.iter().all(|byte| *byte == PAD)
    };
    let closed = has(CM_MIC) && has(CMTS_MIC) && matches!(items.last(), Some(Item::End(rest)) if aligned(rest));
    let mut shown = if closed { drafts[..drafts.len() - 1].to_vec() } else { drafts };
    // The one setting that stands in front of the one CM MIC is left to be made again.
    let mics: Vec<usize> =
        (0..items.len()).filter(|at| matches!(&items[*at], Item::Tlv(tlv) if tlv.code == CM_MIC)).collect();
    if let (true, [at], Some(key)) = (closed, mics.as_slice(), secret)
        && let Some(mic) = made_setting(&items[..*at], key)
    {
        let _ = writeln!(out, "extended_mic = {{ explicit = {}, bitmap = {:?} }}", mic.explicit, hex(&mic.bitmap));
        shown.remove(at - 1);
    }
    if !closed {
        out.push_str("finish = \"none\" # the list is the whole file\n");
    }
    show_faults(faults, out);
    out.push_str("tlv = [\n");
    for draft in &shown {
        match draft {
            Draft::Fixed(Item::Tlv(tlv)) if tlv.code == CM_MIC => {
                show_entry(Framing::Cm, tlv, " # does not verify: kept as it is", out);
            }
            Draft::Fixed(Item::Tlv(tlv)) if tlv.code == CMTS_MIC => {
                let why = if secret.is_some() {
                    " # does not verify: kept as it is"
                } else {
                    " # not verified: no shared secret given"
                };
                show_entry(Framing::Cm, tlv, why, out);
            }
            Draft::CmMic => out.push_str("  { CmMic = \"automatic\" },\n"),
            Draft::CmtsMic => out.push_str("  { CmtsMic = \"automatic\" },\n"),
            Draft::Fixed(item) => show_item(Framing::Cm, item, out),
        }
    }
    out.push_str("]\n");
}

fn show_mta(items: &[Item], faults: &[Fault], out: &mut String) {
    let inside = match unwrap(items) {
        Some((inside, family)) => {
            let _ = writeln!(out, "hash = {:?}", family.map_or("none", HashFamily::as_str));
            inside
        }
        None => {
            out.push_str("finish = \"none\" # the list is the whole file\n");
            items
        }
    };
    show_faults(faults, out);
    out.push_str("tlv = [\n");
    for item in inside {
        show_item(Framing::Mta, item, out);
    }
    out.push_str("]\n");
}

fn show_faults(faults: &[Fault], out: &mut String) {
    if faults.is_empty() {
        return;
    }
    out.push_str("accept_faults = true # this file breaks rules:\n");
    for fault in faults {
        let _ = writeln!(out, "#   {}: {}", fault.pointer, fault.detail);
    }
}

fn show_item(framing: Framing, item: &Item, out: &mut String) {
    match item {
        Item::Tlv(tlv) => show_entry(framing, tlv, "", out),
        Item::Pad(zeros) => {
            // One entry holds at most what `read_zeros` takes.
            for part in (0..*zeros).step_by(MAX_PAD) {
                let _ = writeln!(out, "  {{ Pad = {} }},", (zeros - part).min(MAX_PAD));
            }
        }
        Item::End(rest) if rest.len() <= MAX_PAD && rest.iter().all(|byte| *byte == PAD) => {
            let _ = writeln!(out, "  {{ EndOfData = {} }},", rest.len());
        }
        Item::End(rest) => {
            let _ = writeln!(out, "  {{ EndOfData = {:?} }},", hex(rest));
        }
    }
}

fn show_entry(framing: Framing, tlv: &Tlv, note: &str, out: &mut String) {
    let (name, value) = show_tlv(top(framing), tlv);
    out.push_str("  { ");
    let _ = write!(out, "{name} = ");
    show_value(&value, 1, out);
    let _ = writeln!(out, " }},{note}");
}

/// Lists of TLVs one a line, everything else on its line. Newlines stand only inside brackets: that is TOML 1.0.
fn show_value(value: &Toml, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth + 1);
    match value {
        Toml::Array(items) if items.iter().any(Toml::is_table) => {
            out.push_str("[\n");
            for item in items.iter().filter_map(Toml::as_table) {
                let _ = write!(out, "{indent}{{ ");
                for (name, inner) in item {
                    let _ = write!(out, "{name} = ");
                    show_value(inner, depth + 1, out);
                }
                out.push_str(" },\n");
            }
            let _ = write!(out, "{}]", "  ".repeat(depth));
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn kind_word(framing: Framing) -> &'static str {
    match framing {
        Framing::Cm => "cm",
        Framing::Mta => "mta",
    }
}
