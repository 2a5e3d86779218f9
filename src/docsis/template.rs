//! What an operator adds to the files that recipes make: a list of TLVs in the readable form, with placeholders.
//!
//! Comes in: the list as the catalog writes it, once; then for each device what its placeholders stand for. Goes out: the
//! TLVs' bytes, or the fault of one entry with its TLV path. An entry with a placeholder that has no value for a device is
//! left out of that device's file. `{{` and `}}` are a brace.

use serde::{Deserialize, Serialize};
use toml::{Table, Value as Toml};

use super::check::field_faults;
use super::path::{Occurrences, Path};
use super::schema::{by_code, by_name, top};
use super::tlv::{CM_MIC, CMTS_MIC, END, Framing, LONG_SNMP_OBJECT, MTA_DELIMITER, PAD, Tlv, View, views, write};
use super::tree::read_tlv;
use super::value::unhex;
use crate::vocabulary::{Faults, hex};

/// A checked list.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    framing: Framing,
    entries: Vec<(String, Toml)>,
    replaced: Vec<u8>,
}

/// Its numbers are whole: readers of TLVs take no others.
impl Eq for Template {}

/// One entry made for one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FilledTlv {
    /// The whole TLV in hexadecimal, in its file's framing.
    Whole(String),
    /// The entry as a TOML line in which a secret's placeholder still stands.
    Open { entry: String },
}

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filling {
    Text(String),
    /// This device has none: the entry is left out.
    Absent,
    /// A secret: it is put in when the file is built, and never before.
    Secret,
    /// Nothing is called so.
    Unknown,
}

/// Types that a recipe writes itself: an entry of one of them needs to be named as replacing it.
const OWNED: [u8; 9] = [3, 4, 14, 18, 19, 20, 24, 25, 29];
/// Types that nothing replaces.
const UNTOUCHABLE: [u8; 5] = [PAD, CM_MIC, CMTS_MIC, MTA_DELIMITER, END];
/// Flows and their references: others than the recipe's own may be added.
const FLOWS: [u8; 2] = [24, 25];
const OWN_REFERENCES: [i64; 2] = [1, 2];

impl Template {
    /// An empty one, to which `add` puts entries.
    pub fn new(framing: Framing) -> Self {
        Self { framing, entries: Vec::new(), replaced: Vec::new() }
    }

    /// Lets the template's TLVs of a name stand in place of the recipe's.
    ///
    /// **Errors**: a sentence; a name that is none, or that nothing may replace.
    pub fn replace(&mut self, name: &str) -> Result<(), String> {
        let code = by_name(top(self.framing), name).map(|field| field.code);
        match code {
            None => Err(format!("there is no TLV `{name}`")),
            Some(code) if UNTOUCHABLE.contains(&code) => Err(format!("{name} is computed and cannot be replaced")),
            Some(code) => {
                self.replaced.push(code);
                Ok(())
            }
        }
    }

    /// Adds an entry. `sample` gives every placeholder that may stand here some value of its kind.
    ///
    /// **Errors**: each fault with the path of its TLV.
    pub fn add(&mut self, name: String, value: Toml, sample: &dyn Fn(&str) -> Filling) -> Result<(), Vec<String>> {
        let tried = filled(&value, &|name| match sample(name) {
            Filling::Absent | Filling::Secret => Filling::Text("sample".to_owned()),
            other => other,
        });
        let value_now = match tried {
            Ok(Some(value)) => value,
            Ok(None) => unreachable!("samples are never absent"),
            Err(placeholder) => return Err(vec![format!("there is no placeholder {{{placeholder}}} here")]),
        };
        let tlv = self.read(&name, &value_now)?;
        if UNTOUCHABLE.contains(&tlv.code) {
            return Err(vec![format!("{name} is computed and cannot be set")]);
        }
        let allowed = self.replaced.contains(&tlv.code) || (FLOWS.contains(&tlv.code) && !is_own_flow(&value_now));
        if self.framing == Framing::Cm && OWNED.contains(&tlv.code) && !allowed {
            let hint = if FLOWS.contains(&tlv.code) { " give the flow another reference than 1 and 2, or" } else { "" };
            return Err(vec![format!("{name} is set by the recipe;{hint} name it in `override`")]);
        }
        let mut whole = Vec::new();
        write(self.framing, &tlv, &mut whole);
        let mut found = Faults::new();
        let view = View { code: tlv.code, value: &tlv.value, whole: &whole };
        field_faults(self.framing, &[view], &mut found);
        let faults: Vec<String> =
            found.into_vec().into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        self.entries.push((name, value));
        Ok(())
    }

    /// Types whose TLVs of the recipe do not stand in the file.
    pub fn replaced(&self) -> &[u8] {
        &self.replaced
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.replaced.is_empty()
    }

    /// The entries for one device.
    ///
    /// **Errors**: a sentence with the path of the TLV that this device's values do not fit.
    pub fn fill(&self, given: &dyn Fn(&str) -> Filling) -> Result<Vec<FilledTlv>, String> {
        let mut made = Vec::new();
        for (name, value) in &self.entries {
            // A secret stays a placeholder, and with it every doubled brace.
            let waits = mentions(value, &|name| given(name) == Filling::Secret);
            let value = match filled_keeping(value, given, waits) {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(placeholder) => return Err(format!("there is no placeholder {{{placeholder}}}")),
            };
            if waits {
                let table = Table::from_iter([(name.clone(), value)]);
                made.push(FilledTlv::Open { entry: table.to_string() });
                continue;
            }
            let tlv = self.read(name, &value).map_err(|faults| faults.join("; "))?;
            let mut whole = Vec::new();
            write(self.framing, &tlv, &mut whole);
            made.push(FilledTlv::Whole(hex(&whole)));
        }
        Ok(made)
    }

    fn read(&self, name: &str, value: &Toml) -> Result<Tlv, Vec<String>> {
        read_entry(self.framing, name, value)
    }
}

impl FilledTlv {
    /// The TLV, its secrets put in.
    ///
    /// **Errors**: a sentence that does not say the secret.
    pub fn tlv(&self, framing: Framing, secret: &dyn Fn(&str) -> Filling) -> Result<Tlv, String> {
        match self {
            FilledTlv::Whole(text) => {
                let bytes = unhex(text)?;
                match views(framing, &bytes).map_err(|error| error.to_string())?.as_slice() {
                    [view] => Ok(Tlv::new(view.code, view.value.to_vec())),
                    _ => Err("a template's entry is not one TLV".to_owned()),
                }
            }
            FilledTlv::Open { entry } => {
                let table: Table = entry.parse().map_err(|_| "a template's entry is no TOML".to_owned())?;
                let Some((name, value)) = table.iter().next() else { return Err("a template's entry is empty".into()) };
                let Ok(Some(value)) = filled(value, secret) else {
                    return Err(format!("{name} needs a secret that is not stored"));
                };
                read_entry(framing, name, &value).map_err(|faults| faults.join("; "))
            }
        }
    }
}

/// The names of placeholders, each with some value: what a sample file is made with.
pub fn sample_of(names: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Filling {
    move |asked| match names.iter().find(|(name, _)| *name == asked) {
        Some((_, value)) => Filling::Text((*value).to_owned()),
        None => Filling::Unknown,
    }
}

fn read_entry(framing: Framing, name: &str, value: &Toml) -> Result<Tlv, Vec<String>> {
    let mut found = Faults::new();
    let root = Path::default();
    let tlv = read_tlv(top(framing), name, value, (&root, &mut Occurrences::default()), &mut found);
    let told = |found: Faults| -> Vec<String> {
        found.into_vec().into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect()
    };
    let Some(mut tlv) = tlv else { return Err(told(found)) };
    // An SNMP object that type 11 cannot carry is of type 64 in an MTA's file.
    if framing == Framing::Mta && tlv.code == SNMP_OBJECT && tlv.value.len() > MOST_OF_SHORT {
        tlv.code = LONG_SNMP_OBJECT;
    }
    if tlv.value.len() > framing.max_value(tlv.code) {
        let field = by_code(top(framing), tlv.code).map(|field| field.name);
        let path = root.child(tlv.code, 1, field);
        return Err(vec![format!("{path}: is {} bytes long, longer than its length field", tlv.value.len())]);
    }
    Ok(tlv)
}

fn is_own_flow(value: &Toml) -> bool {
    let reference =
        super::tree::entries(value).into_iter().flatten().find(|(name, _)| name.ends_with("ServiceFlowRef"));
    reference.is_none_or(|(_, number)| number.as_integer().is_none_or(|number| OWN_REFERENCES.contains(&number)))
}

/// `value` with its placeholders filled in; `None` when one of them is absent, the name of one that is unknown as error.
fn filled(value: &Toml, given: &dyn Fn(&str) -> Filling) -> Result<Option<Toml>, String> {
    filled_keeping(value, given, false)
}

fn filled_keeping(value: &Toml, given: &dyn Fn(&str) -> Filling, keep_braces: bool) -> Result<Option<Toml>, String> {
    Ok(match value {
        Toml::String(text) => filled_text(text, given, keep_braces)?.map(Toml::String),
        Toml::Array(items) => {
            let mut all = Vec::with_capacity(items.len());
            for item in items {
                match filled_keeping(item, given, keep_braces)? {
                    Some(item) => all.push(item),
                    None => return Ok(None),
                }
            }
            Some(Toml::Array(all))
        }
        Toml::Table(table) => {
            let mut all = Table::new();
            for (key, item) in table {
                match filled_keeping(item, given, keep_braces)? {
                    Some(item) => drop(all.insert(key.clone(), item)),
                    None => return Ok(None),
                }
            }
            Some(Toml::Table(all))
        }
        other => Some(other.clone()),
    })
}

fn filled_text(text: &str, given: &dyn Fn(&str) -> Filling, keep_braces: bool) -> Result<Option<String>, String> {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Plain(plain) => out.push_str(plain),
            Piece::Brace(brace) => {
                out.push(brace);
                if keep_braces {
                    out.push(brace);
                }
            }
            Piece::Placeholder(name) => match given(name) {
                Filling::Text(value) if keep_braces => out.push_str(&value.replace('{', "{{").replace('}', "}}")),
                Filling::Text(value) => out.push_str(&value),
                Filling::Absent => return Ok(None),
                Filling::Secret => {
                    out.push('{');
                    out.push_str(name);
                    out.push('}');
                }
                Filling::Unknown => return Err(name.to_owned()),
            },
        }
    }
    Ok(Some(out))
}

fn mentions(value: &Toml, wanted: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Toml::String(text) => {
            pieces(text).iter().any(|piece| matches!(piece, Piece::Placeholder(name) if wanted(name)))
        }
        Toml::Array(items) => items.iter().any(|item| mentions(item, wanted)),
        Toml::Table(table) => table.values().any(|item| mentions(item, wanted)),
        _ => false,
    }
}

enum Piece<'t> {
    Plain(&'t str),
    Brace(char),
    Placeholder(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        if at > 0 {
            pieces.push(Piece::Plain(&rest[..at]));
        }
        let brace = if rest[at..].starts_with('{') { '{' } else { '}' };
        let behind = &rest[at + 1..];
        rest = match (brace, behind.strip_prefix(brace), behind.find('}')) {
            (_, Some(more), _) => {
                pieces.push(Piece::Brace(brace));
                more
            }
            ('{', None, Some(end)) => {
                pieces.push(Piece::Placeholder(&behind[..end]));
                &behind[end + 1..]
            }
            // A brace alone is itself.
            _ => {
                pieces.push(Piece::Plain(&rest[at..=at]));
                behind
            }
        };
    }
    if !rest.is_empty() {
        pieces.push(Piece::Plain(rest));
    }
    pieces
}

const SNMP_OBJECT: u8 = 11;
const MOST_OF_SHORT: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> (String, Toml) {
        let table: Table = text.parse().expect("TOML of the test");
        table.into_iter().next().expect("one entry")
    }

    fn sample(name: &str) -> Filling {
        sample_of(&[("mac", "00:11:22:33:44:55"), ("line", "9"), ("sip_password", "x"), ("name", "Ada")])(name)
    }

    fn template(framing: Framing, entries: &[&str]) -> Template {
        let mut template = Template::new(framing);
        for text in entries {
            let (name, value) = entry(text);
            template.add(name, value, &sample).expect("a sound entry");
        }
        template
    }

    fn refused(framing: Framing, text: &str) -> String {
        let (name, value) = entry(text);
        Template::new(framing).add(name, value, &sample).expect_err("a fault").join("\n")
    }

    #[test]
    fn placeholders_become_what_they_stand_for() {
        let template =
            template(Framing::Mta, &["SnmpMibObject = { oid = '1.3.6.1.4.1.9.{line}', string = 'a {mac} {{b}}' }"]);
        let given = |name: &str| match name {
            "line" => Filling::Text("10".to_owned()),
            "mac" => Filling::Text("m".to_owned()),
            _ => Filling::Unknown,
        };
        let made = template.fill(&given).expect("filled");
        let tlv = made[0].tlv(Framing::Mta, &|_| Filling::Unknown).expect("a TLV");
        let bind = super::super::ber::VarBind::parse(&tlv.value).expect("a VarBind");
        assert_eq!(bind.oid.to_string(), "1.3.6.1.4.1.9.10");
        assert_eq!(bind.value, super::super::ber::Value::Octets(b"a m {b}".to_vec()));
    }

    #[test]
    fn a_secret_waits_until_the_file_is_built() {
        let template =
            template(Framing::Mta, &["SnmpMibObject = { oid = '1.3.6.{line}', string = '{name}{{:{sip_password}' }"]);
        let given = |name: &str| match name {
            "line" => Filling::Text("9".to_owned()),
            "name" => Filling::Text("{sip_password}".to_owned()),
            _ => Filling::Secret,
        };
        let made = template.fill(&given).expect("filled");
        let tlv = made[0].tlv(Framing::Mta, &|_| Filling::Text("pass".to_owned())).expect("a TLV");
        assert!(tlv.value.ends_with(b"{sip_password}{:pass"), "a subscriber's name is no placeholder: {tlv:?}");
        let missing = made[0].tlv(Framing::Mta, &|_| Filling::Absent).expect_err("no secret");
        assert_eq!(missing, "SnmpMibObject needs a secret that is not stored");
        let json = serde_json::to_string(&made).expect("JSON");
        assert_eq!(serde_json::from_str::<Vec<FilledTlv>>(&json).expect("back"), made);
    }

    #[test]
    fn an_entry_without_its_value_is_left_out() {
        let template =
            template(Framing::Cm, &["SnmpMibObject = { oid = '1.3.6.1', string = '{name}' }", "DocsisTwoEnable = 1"]);
        let made = template.fill(&|_| Filling::Absent).expect("filled");
        assert_eq!(made, [FilledTlv::Whole("270101".to_owned())]);
    }

    #[test]
    fn what_the_recipe_owns_is_refused_unless_it_is_replaced() {
        assert_eq!(refused(Framing::Cm, "MaxCPE = 3"), "MaxCPE is set by the recipe; name it in `override`");
        assert!(refused(Framing::Cm, "UsServiceFlow = { UsServiceFlowRef = 1 }").contains("another reference"));
        template(Framing::Cm, &["UsServiceFlow = { UsServiceFlowRef = 3, SchedulingType = 6 }"]);
        let mut template = Template::new(Framing::Cm);
        template.replace("MaxCPE").expect("it may be replaced");
        let (name, value) = entry("MaxCPE = 3");
        template.add(name, value, &sample).expect("replaced");
        assert!(template.replace("CmtsMic").is_err() && template.replace("Nonsense").is_err());
    }

    #[test]
    fn a_fault_names_its_tlv() {
        assert_eq!(
            refused(Framing::Cm, "DsServiceFlow = { DsServiceFlowRef = 7, TrafficPriority = 9 }"),
            "25.7 (DsServiceFlow.TrafficPriority): must be 0 to 7, is 9"
        );
        assert!(refused(Framing::Cm, "DocsisTwoEnable = '{nobody}'").contains("no placeholder {nobody}"));
        assert!(refused(Framing::Cm, "CmMic = '00000000000000000000000000000000'").contains("computed"));
    }
}
