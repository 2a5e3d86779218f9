//! Reads a source profile's file: every fault of it is told at once, with file, line and column.

mod door;
mod forms;
mod out;
mod source;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::figure::{PhonePlan, north_america};
use super::function::{Customs, Vocabulary};
use super::profile::{
    AliasKind, Answer, Format, Gate, Kind, Operation, OperationRule, Profile, Repeats, Reply, Scope, Section,
    ServiceSection,
};
use super::template::Template;
use super::tree::Path;
use crate::vocabulary::{Fault, Section as Table, TomlFile, Value, Zone};

/// Longest file of a profile, in octets.
pub const PROFILE_MAX: usize = 256 << 10;

pub(super) fn profile(name: &str, text: &str) -> Result<Profile, Vec<Fault>> {
    let file = TomlFile::new(name, text);
    if text.len() > PROFILE_MAX {
        file.fault_of_file(format!("a profile has at most {} KiB", PROFILE_MAX >> 10));
        return Err(file.into_faults());
    }
    let profile = file.read().and_then(|table| {
        let mut root = file.section(&table);
        let vocabularies = vocabularies(&mut root);
        let profile = Reader { vocabularies: &vocabularies }.profile(&mut root);
        root.finish();
        profile
    });
    match profile {
        Some(profile) if !file.has_faults() => Ok(profile),
        Some(_) => Err(file.into_faults()),
        None => {
            if !file.has_faults() {
                file.fault_of_file("is no profile");
            }
            Err(file.into_faults())
        }
    }
}

/// `[vocab.NAME]`: words of the source, `meaning = …` by word.
fn vocabularies(root: &mut Table<'_>) -> Vec<Vocabulary> {
    let Some(table) = root.value("vocab").and_then(|value| value.section()) else { return Vec::new() };
    let mut vocabularies = Vec::new();
    for (name, value) in table.entries() {
        let Some(table) = value.section() else { continue };
        let mut words = HashMap::new();
        for (word, meaning) in table.entries() {
            if word == "*" {
                meaning.fault("a vocabulary has no word for the unknown: its record is put aside");
            }
            let Some(meaning) = meaning.text() else { continue };
            words.insert(word.trim().to_owned(), meaning.to_owned());
        }
        vocabularies.push(Vocabulary { name, words });
    }
    vocabularies
}

struct Reader<'a> {
    vocabularies: &'a [Vocabulary],
}

impl Reader<'_> {
    fn profile(&self, root: &mut Table<'_>) -> Option<Profile> {
        let name = root.required("name").and_then(|value| named(&value));
        let about = root.text("about").unwrap_or_default();
        let format = required_choice(
            root,
            "format",
            &[
                ("json", Format::Json),
                ("xml", Format::Xml),
                ("csv", Format::Csv),
                ("fixed", Format::Fixed),
                ("form", Format::Form),
                ("env", Format::Environment),
            ],
        );
        let repeats = required_choice(root, "mode", &[("event", Repeats::Event), ("snapshot", Repeats::Snapshot)]);
        let scope = required_choice(
            root,
            "scope",
            &[("full", Scope::Full), ("account", Scope::Account), ("service", Scope::Service)],
        );
        let zone = root.value("timezone").and_then(|value| zone(&value)).unwrap_or(Zone::UTC);
        let phone = root.value("phone").and_then(|value| phone(&value)).unwrap_or_else(north_america);
        let nothing = texts(root.value("null")).into_iter().map(|text| text.trim().to_owned()).collect();
        let terms = terms(root);
        let customs = Customs { vocabularies: self.vocabularies.to_vec(), phone, zone, terms, nothing, decimal: '.' };
        let accept = self.tests(root.value("accept"));
        let event_id = root.value("event_id").and_then(|value| self.template(&value));
        let verify = root.value("verify").and_then(|value| self.verify(value.section()?));
        let frame = root.value("frame").and_then(|value| door::frame(value.section()?));
        let ignore = root.value("ignore").map(|value| paths(&value)).unwrap_or_default();
        let reading = match format {
            Some(format) => source::reading(root, format),
            None => {
                root.value("read");
                None
            }
        };
        let operation = root.value("op").and_then(|value| self.operation(value.section()?));
        let aliases = root.value("alias").and_then(|value| Some(self.aliases(value.section()?))).unwrap_or_default();
        let (id, account) = self.account(root, scope, &aliases);
        let devices = self.devices(root);
        let services = self.services(root);
        if scope == Some(Scope::Account) && !(devices.is_empty() && services.is_empty()) {
            root.fault("scope = \"account\" knows no services and no devices");
        }
        if scope == Some(Scope::Service) && services.is_empty() {
            root.fault("scope = \"service\" needs a [[service]]");
        }
        if repeats == Some(Repeats::Snapshot) && scope.is_some_and(|scope| scope != Scope::Full) {
            root.fault("a snapshot has scope = \"full\": absence must mean something");
        }
        let reply = reply(root);
        let outs = out::outs(root, &customs);
        Some(Profile {
            name: name?,
            about,
            format: format?,
            repeats: repeats?,
            scope: scope?,
            verify,
            frame,
            event_id,
            reading: std::sync::Arc::new(reading?),
            customs,
            accept,
            operation,
            id,
            aliases,
            account,
            devices,
            services,
            reply,
            outs,
            ignore,
        })
    }

    fn operation(&self, mut table: Table<'_>) -> Option<OperationRule> {
        let from = table.required("from").and_then(|value| self.template(&value));
        let mut words = BTreeMap::new();
        if let Some(found) = table.required("words").and_then(|value| value.section()) {
            for (word, value) in found.entries() {
                if let Some(operation) = value.choice(&OPERATIONS) {
                    words.insert(word, operation);
                }
            }
        }
        let others = table.choice("others", &[("quarantine", false), ("ignore", true)]);
        table.finish();
        Some(OperationRule { from: from?, words, others_ignored: others.unwrap_or(false) })
    }

    fn aliases(&self, mut table: Table<'_>) -> Vec<(AliasKind, Template)> {
        let mut aliases = Vec::new();
        for (word, kind) in AliasKind::ALL {
            if let Some(template) = table.value(word).and_then(|value| self.template(&value)) {
                aliases.push((kind, template));
            }
        }
        table.finish();
        aliases
    }

    fn account(
        &self,
        root: &mut Table<'_>,
        scope: Option<Scope>,
        aliases: &[(AliasKind, Template)],
    ) -> (Option<Template>, Vec<(String, super::profile::Form)>) {
        let Some(mut table) = root.value("account").and_then(|value| value.section()) else {
            if aliases.is_empty() {
                root.fault("`account` is missing: its `id` tells whose a record is");
            }
            return (None, Vec::new());
        };
        let id = table.value("id").and_then(|value| self.template(&value));
        if id.is_none() && (aliases.is_empty() || scope == Some(Scope::Full)) {
            table.fault("`id` is missing");
        }
        let fields = self.fields(&mut table, forms::ACCOUNT);
        table.finish();
        (id, fields)
    }

    fn devices(&self, root: &mut Table<'_>) -> Vec<Section> {
        let section = |mut table: Table<'_>| {
            let gate = self.gate(&mut table);
            let fields = self.fields(&mut table, forms::DEVICE);
            if !fields.iter().any(|(name, _)| name == "cm_mac") {
                table.fault("`cm_mac` is missing");
            }
            table.finish();
            Section { gate, fields }
        };
        root.sections("device").into_iter().map(section).collect()
    }

    fn services(&self, root: &mut Table<'_>) -> Vec<ServiceSection> {
        let section = |mut table: Table<'_>| {
            let gate = self.gate(&mut table);
            let remove_when = self.tests(table.value("remove_when"));
            let fields = self.fields(&mut table, forms::SERVICE);
            table.finish();
            ServiceSection { section: Section { gate, fields }, remove_when }
        };
        root.sections("service").into_iter().map(section).collect()
    }

    fn gate(&self, table: &mut Table<'_>) -> Gate {
        let when = self.tests(table.value("when"));
        let repeat = table.value("repeat").and_then(|value| path(&value));
        Gate { when, repeat }
    }

    fn template(&self, value: &Value<'_>) -> Option<Template> {
        match Template::parse(value.text()?, self.vocabularies) {
            Ok(template) if template.is_test() => {
                value.fault("a test is no value; it belongs to `when`");
                None
            }
            Ok(template) => Some(template),
            Err(detail) => {
                value.fault(detail);
                None
            }
        }
    }

    /// One test or a list of them.
    fn tests(&self, value: Option<Value<'_>>) -> Vec<Template> {
        let Some(value) = value else { return Vec::new() };
        let values = if value.is_list() { value.list().unwrap_or_default() } else { vec![value] };
        let mut tests = Vec::new();
        for value in values {
            let Some(text) = value.text() else { continue };
            match Template::parse(text, self.vocabularies) {
                Ok(template) if template.is_test() => tests.push(template),
                Ok(_) => value.fault("is no test; it ends for example with |present or |eq('x')"),
                Err(detail) => value.fault(detail),
            }
        }
        tests
    }

    fn fields(
        &self,
        table: &mut Table<'_>,
        shapes: &'static [(&'static str, forms::Shape)],
    ) -> Vec<(String, super::profile::Form)> {
        let mut fields = Vec::new();
        for (key, shape) in shapes {
            if let Some(value) = table.value(key)
                && let Some(form) = self.form(&value, shape)
            {
                fields.push(((*key).to_owned(), form));
            }
        }
        fields
    }
}

fn named(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        value.fault("a profile's name is of lower-case letters, digits and hyphens");
        return None;
    }
    Some(text.to_owned())
}

fn required_choice<T: Copy>(root: &mut Table<'_>, key: &'static str, words: &[(&str, T)]) -> Option<T> {
    root.required(key)?.choice(words)
}

fn zone(value: &Value<'_>) -> Option<Zone> {
    let name = value.text()?;
    match Zone::get(name) {
        Ok(zone) => Some(zone),
        Err(_) => {
            value.fault(format!("{name:?} is no time zone; write for example America/Chicago"));
            None
        }
    }
}

fn phone(value: &Value<'_>) -> Option<PhonePlan> {
    let mut table = value.section()?;
    let digits_of = |table: &mut Table<'_>, key| {
        let value = table.value(key)?;
        let text = value.text()?;
        if text.len() > 5 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            value.fault("is of at most five digits");
        }
        Some(text.to_owned())
    };
    let country_code = digits_of(&mut table, "country_code");
    if country_code.as_deref().is_none_or(str::is_empty) {
        table.fault("`country_code` is missing");
    }
    let trunk = digits_of(&mut table, "trunk").unwrap_or_default();
    let international = digits_of(&mut table, "international").unwrap_or_default();
    let digits = table.required("digits").and_then(|value| {
        let list = value.list()?;
        match list.as_slice() {
            [least, most] => Some((least.integer(2..15)? as usize, most.integer(2..15)? as usize)),
            _ => {
                value.fault("is of two numbers: the least and the most digits of a national number");
                None
            }
        }
    });
    table.finish();
    Some(PhonePlan { country_code: country_code?, trunk, international, digits: digits? })
}

fn terms(root: &mut Table<'_>) -> BTreeMap<String, String> {
    let mut terms = BTreeMap::new();
    let Some(mut table) = root.value("terms").and_then(|value| value.section()) else { return terms };
    for word in TERMS {
        if let Some(text) = table.text(word) {
            terms.insert(word.to_owned(), text);
        }
    }
    for (index, tier) in texts(table.value("tiers")).into_iter().enumerate() {
        terms.insert(format!("tier{}", index + 1), tier);
    }
    table.finish();
    terms
}

fn reply(root: &mut Table<'_>) -> Reply {
    let mut reply = Reply {
        accepted: Answer { status: 200, content_type: "application/json".to_owned(), body: String::new() },
        quarantined: Answer { status: 202, content_type: "application/json".to_owned(), body: String::new() },
    };
    let Some(mut table) = root.value("reply").and_then(|value| value.section()) else { return reply };
    for (key, answer) in [("accepted", &mut reply.accepted), ("quarantined", &mut reply.quarantined)] {
        let Some(mut table) = table.value(key).and_then(|value| value.section()) else { continue };
        if let Some(status) = table.integer("status", 200..600) {
            answer.status = status as u16;
        }
        if let Some(value) = table.value("content_type")
            && let Some(text) = value.text()
        {
            if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
                value.fault("is no content type");
            }
            text.clone_into(&mut answer.content_type);
        }
        if let Some(body) = table.text("body") {
            answer.body = body;
        }
        table.finish();
    }
    table.finish();
    reply
}

fn texts(value: Option<Value<'_>>) -> Vec<String> {
    let list = value.and_then(|value| value.list()).unwrap_or_default();
    list.iter().filter_map(|item| item.text().map(str::to_owned)).collect()
}

fn path(value: &Value<'_>) -> Option<Path> {
    match value.text()?.parse() {
        Ok(path) => Some(path),
        Err(detail) => {
            value.fault(detail);
            None
        }
    }
}

fn paths(value: &Value<'_>) -> Vec<Path> {
    value.list().unwrap_or_default().iter().filter_map(path).collect()
}

/// Names of a list's items are unique?
fn unique(names: impl IntoIterator<Item = String>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(name);
        }
    }
    Ok(())
}

/// What a value of the document is, by what its form must give.
fn kind_of(shape: &forms::Shape) -> Kind {
    match shape {
        forms::Shape::Key => Kind::Key,
        forms::Shape::Whole => Kind::Whole,
        forms::Shape::Flag => Kind::Flag,
        forms::Shape::Secret => Kind::Secret,
        _ => Kind::Text,
    }
}

const OPERATIONS: [(&str, Operation); 5] = [
    ("upsert", Operation::Upsert),
    ("suspend", Operation::Suspend),
    ("resume", Operation::Resume),
    ("delete", Operation::Delete),
    ("ignore", Operation::Ignore),
];

/// Things a source has its own words for: kinds of lines, then everything else.
const TERMS: [&str; 12] = [
    "recurring",
    "usage",
    "count",
    "one_off",
    "adjustment",
    "credit",
    "true_up",
    "deposit",
    "tax",
    "account",
    "service",
    "period",
];
