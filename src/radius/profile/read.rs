//! Reads one profile's file: every name of an attribute becomes its numbers, and every fault is told with its place.

use super::super::dictionary::{Dictionary, Kind, Source};
use super::super::packet::VendorFormat;
use super::Profile;
use super::counters::{CounterGroup, Form, Part, Place, Repeated};
use super::streams::{Condition, StreamRule, TunnelLinks};
use crate::vocabulary::{Fault, Section, TomlFile, Value};

/// The profile of a file; the first of `dictionaries` that knows a name explains it.
///
/// **Errors**: every fault as `file:line:column`.
pub(super) fn profile(source: &Source<'_>, dictionaries: &[&Dictionary]) -> Result<Profile, Vec<Fault>> {
    let file = TomlFile::new(source.file, source.text);
    let reader = Reader { dictionaries };
    let profile = file.read().and_then(|table| {
        let mut root = file.section(&table);
        let profile = reader.profile(&mut root);
        root.finish();
        profile
    });
    match profile {
        Some(profile) if !file.has_faults() => Ok(profile),
        _ => Err(file.into_faults()),
    }
}

struct Reader<'a> {
    dictionaries: &'a [&'a Dictionary],
}

impl Reader<'_> {
    fn profile(&self, root: &mut Section<'_>) -> Option<Profile> {
        let name = root.required("name").and_then(|value| {
            let text = value.text()?;
            let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
            if text.is_empty() || !text.chars().all(plain) {
                value.fault("a profile's name is of lower-case letters, digits and hyphens");
                return None;
            }
            Some(text.to_owned())
        });
        let swapped = root.choice("input", &[("from-user", false), ("to-user", true)]);
        let tunnel_links = root.choice(
            "tunnel_links",
            &[
                ("recorded", TunnelLinks::Recorded),
                ("informative", TunnelLinks::Informative),
                ("billed", TunnelLinks::Billed),
            ],
        );
        let without_realm = root.choice("user_name", &[("whole", false), ("without-realm", true)]);
        let groups: Vec<Option<CounterGroup>> =
            root.sections("counters").into_iter().map(|section| self.group(section)).collect();
        let counters: Option<Vec<CounterGroup>> =
            if groups.is_empty() { Some(vec![standard()]) } else { groups.into_iter().collect() };
        let rules: Vec<Option<StreamRule>> =
            root.sections("informative").into_iter().map(|section| self.rule(section)).collect();
        let informative: Option<Vec<StreamRule>> = rules.into_iter().collect();
        Some(Profile {
            name: name?,
            swapped: swapped.unwrap_or(false),
            counters: counters?,
            informative: informative?,
            tunnel_links: tunnel_links.unwrap_or_default(),
            without_realm: without_realm.unwrap_or(false),
        })
    }

    fn group(&self, mut section: Section<'_>) -> Option<CounterGroup> {
        let interval = section.flag("interval").unwrap_or(false);
        let (input, output) = (self.parts(&mut section, "input"), self.parts(&mut section, "output"));
        section.finish();
        Some(CounterGroup { interval, input: input?, output: output? })
    }

    fn parts(&self, section: &mut Section<'_>, key: &'static str) -> Option<Vec<Part>> {
        let value = section.required(key)?;
        let list = value.list()?;
        if list.is_empty() {
            value.fault("a direction needs at least one counter");
            return None;
        }
        let parts: Vec<Option<Part>> = list.iter().map(|item| self.part(item.section()?)).collect();
        parts.into_iter().collect()
    }

    fn part(&self, mut section: Section<'_>) -> Option<Part> {
        let octets = section.required("octets").and_then(|value| self.place(&value));
        let gigawords = section.value("gigawords").map(|value| self.counter(&value, Form::Integer));
        let unit = section.choice("unit", UNITS).unwrap_or(1);
        let form = section
            .choice("form", &[("integer", Form::Integer), ("integer64", Form::Integer64), ("queue", Form::Queue)]);
        let repeated = section.choice("repeated", &[("same", Repeated::Same), ("sum", Repeated::Sum)]);
        if gigawords.is_some() && matches!(octets, Some((_, kind)) if form.is_none() && kind != Kind::Unsigned(4))
            || gigawords.is_some() && form.is_some_and(|form| form != Form::Integer)
        {
            section.fault("only a counter of 4 octets has gigawords");
        }
        let (octets, kind) = octets?;
        let form = form.or(match kind {
            Kind::Unsigned(4) => Some(Form::Integer),
            Kind::Unsigned(8) => Some(Form::Integer64),
            _ => None,
        });
        if form.is_none() {
            section.fault(format!("{} is no integer in the dictionary; say its `form`", octets.name));
        }
        section.finish();
        let gigawords = match gigawords {
            None => None,
            Some(place) => Some(place?),
        };
        Some(Part { octets, gigawords, unit, form: form?, repeated: repeated.unwrap_or(Repeated::Same) })
    }

    /// An attribute that must be an integer of the form's width.
    fn counter(&self, value: &Value<'_>, form: Form) -> Option<Place> {
        let (place, kind) = self.place(value)?;
        if (form, kind) != (Form::Integer, Kind::Unsigned(4)) {
            value.fault(format!("{} is no integer of 4 octets in the dictionary", place.name));
            return None;
        }
        Some(place)
    }

    fn rule(&self, mut section: Section<'_>) -> Option<StreamRule> {
        let attribute = section.required("attribute").and_then(|value| self.place(&value));
        let is = section
            .choice("is", &[("present", true), ("absent", false)])
            .map(|present| if present { Condition::Present } else { Condition::Absent });
        let like = section.text("like").map(Condition::Like);
        let mut other = |key| section.value(key).and_then(|value| self.place(&value)).map(|(place, _)| place);
        let differs_from = other("differs_from").map(Condition::DiffersFrom);
        let same_as = other("same_as").map(Condition::SameAs);
        let because = section.required_text("because");
        let conditions: Vec<Condition> = [is, like, differs_from, same_as].into_iter().flatten().collect();
        let condition = match <[Condition; 1]>::try_from(conditions) {
            Ok([condition]) => Some(condition),
            Err(_) => {
                section.fault("a rule has one of `is`, `like`, `differs_from` and `same_as`");
                None
            }
        };
        section.finish();
        Some(StreamRule { attribute: attribute?.0, condition: condition?, because: because? })
    }

    /// The numbers of an attribute's name.
    fn place(&self, value: &Value<'_>) -> Option<(Place, Kind)> {
        let name = value.text()?;
        let found = self.dictionaries.iter().find_map(|dictionary| Some((dictionary, dictionary.named(name)?)));
        let Some((dictionary, (vendor, numbers, definition))) = found else {
            if let Some(place) = numbered(name) {
                return Some((place, Kind::Octets));
            }
            value.fault(format!("no dictionary names the attribute {name:?}; [radius] dictionaries adds one"));
            return None;
        };
        if vendor == 0 && numbers.len() > 1 {
            value.fault(format!("{name} stands in an extended space (RFC 6929), where no profile looks"));
            return None;
        }
        let format = dictionary.vendor(vendor).map_or(VendorFormat::default(), |vendor| vendor.format);
        Some((Place { name: definition.name.clone(), vendor, format, numbers: numbers.to_vec() }, definition.kind))
    }
}

/// `Attr-200` or `Attr-26.6527.151`, as `record show` calls what no dictionary names; with inner numbers for a TLV.
fn numbered(name: &str) -> Option<Place> {
    let numbers: Vec<u32> =
        name.strip_prefix("Attr-")?.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (vendor, numbers) = match numbers.as_slice() {
        [26, vendor, numbers @ ..] => (*vendor, numbers),
        numbers => (0, numbers),
    };
    let legal = !numbers.is_empty() && (vendor != 0 || numbers.len() == 1 && numbers[0] < 256);
    let place = || Place { name: name.to_owned(), vendor, format: VendorFormat::default(), numbers: numbers.to_vec() };
    legal.then(place)
}

/// RFC 2866 sections 5.3 and 5.4, RFC 2869 sections 5.1 and 5.2.
fn standard() -> CounterGroup {
    let place = |name: &str, number: u32| Place {
        name: name.to_owned(),
        vendor: 0,
        format: VendorFormat::default(),
        numbers: vec![number],
    };
    let part = |octets: Place, gigawords: Place| Part {
        octets,
        gigawords: Some(gigawords),
        unit: 1,
        form: Form::Integer,
        repeated: Repeated::Same,
    };
    CounterGroup {
        interval: false,
        input: vec![part(place("Acct-Input-Octets", 42), place("Acct-Input-Gigawords", 52))],
        output: vec![part(place("Acct-Output-Octets", 43), place("Acct-Output-Gigawords", 53))],
    }
}

/// Octets of one count; KB is 10^3 and KiB 2^10.
const UNITS: &[(&str, u64)] = &[
    ("octet", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];
