//! One foreign record becomes a change of an account, or is put aside with every reason why.
//!
//! In: a profile and a record. Out: the account document of CONTRACT s6, a merge patch, or a deed; checked by the room
//! of accounts. What the record does not know is not touched; what a word means is looked up and never guessed.

use serde_json::{Map, Value};

use super::change::{Body, Change, Refusal, ServiceChange};
use super::check;
use super::function::{Scope as Ground, Trouble, Val};
use super::profile::{Form, Gate, Kind, Operation, Profile, Scope, Section};
use super::template::Template;
use super::tree::Tree;
use crate::account::json::step;
use crate::account::merge;
use crate::vocabulary::{AccountKey, Fault};

/// **Errors**: every fault of the record. `Ok(None)`: it is not meant for us.
pub(super) fn change(profile: &Profile, record: &Tree) -> Result<Option<Change>, Refusal> {
    let mut mapper = Mapper { profile, record, refusal: Refusal::default(), patch: profile.scope != Scope::Full };
    let change = mapper.change();
    match mapper.refusal.faults.is_empty() {
        true => Ok(change),
        false => Err(mapper.refusal),
    }
}

struct Mapper<'p> {
    profile: &'p Profile,
    record: &'p Tree,
    refusal: Refusal,
    /// What is said to be nothing is taken away; else it is left out.
    patch: bool,
}

/// What came of a form.
#[derive(Default)]
struct Made {
    value: Option<Value>,
    /// The record said something there, be it that there is nothing.
    known: bool,
    /// It said something of its own, beyond what the profile's constants say.
    fact: bool,
}

/// Where in the document something stands; made into a pointer only when something is wrong there.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        match self {
            Place::Root => String::new(),
            Place::Key(parent, key) => step(&parent.pointer(), key),
            Place::Index(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

impl<'p> Mapper<'p> {
    fn change(&mut self) -> Option<Change> {
        let ground = self.ground(self.record);
        if !self.all(&self.profile.accept, &ground, &Place::Root)? {
            return None;
        }
        let operation = self.operation(&ground)?;
        if operation == Operation::Ignore {
            return None;
        }
        let account = match &self.profile.id {
            None => None,
            Some(template) => {
                let id = self.text(template, true, &ground, &Place::Key(&Place::Root, "id"))?;
                match id.as_deref().map(AccountKey::parse_external_id) {
                    Some(Err(error)) => {
                        self.fault("/id".to_owned(), error.to_string());
                        return None;
                    }
                    _ => id,
                }
            }
        };
        let mut aliases = Vec::new();
        for (kind, template) in &self.profile.aliases {
            if let Some(text) = self.text(template, true, &ground, &Place::Root)? {
                aliases.push((*kind, text));
            }
        }
        if account.is_none() && aliases.is_empty() {
            self.fault("/id".to_owned(), "the record does not tell whose it is".to_owned());
            return None;
        }
        let body = match (operation, self.profile.scope) {
            (Operation::Upsert, Scope::Full) => self.document(&ground),
            (Operation::Upsert, Scope::Account) => self.account_patch(&ground),
            (_, Scope::Service) => self.services(operation, &ground, !aliases.is_empty())?,
            (_, Scope::Full | Scope::Account) => Body::Whole,
        };
        Some(Change { operation, account, aliases, body })
    }

    fn operation(&mut self, ground: &Ground<'p>) -> Option<Operation> {
        let Some(rule) = &self.profile.operation else { return Some(Operation::Upsert) };
        let word = self.text(&rule.from, false, ground, &Place::Root)?;
        let Some(word) = word else {
            self.fault(String::new(), "the record does not tell what happened".to_owned());
            return None;
        };
        match rule.words.get(word.trim()) {
            Some(operation) => Some(*operation),
            None if rule.others_ignored => Some(Operation::Ignore),
            None => {
                self.trouble(
                    Trouble::Word { vocabulary: "op".to_owned(), word: super::figure::shown(&word) },
                    &Place::Root,
                );
                None
            }
        }
    }

    fn document(&mut self, ground: &Ground<'p>) -> Body {
        let mut document = self.fields(&self.profile.account, ground, &Place::Root).0;
        let devices = self.devices(ground);
        if !devices.is_empty() {
            document.insert("devices".to_owned(), Value::Array(devices));
        }
        let mut services = Vec::new();
        let list = Place::Key(&Place::Root, "services");
        for section in &self.profile.services {
            for ground in self.passed(&section.section.gate, ground, &list) {
                let place = Place::Index(&list, services.len());
                let (fields, _) = self.fields(&section.section.fields, &ground, &place);
                services.push(Value::Object(fields));
            }
        }
        // The list is there even when it is empty: a full state says that there are no services.
        document.insert("services".to_owned(), Value::Array(services));
        let document = Value::Object(document);
        if self.refusal.faults.is_empty() {
            self.refusal.faults = check::document(&document);
        }
        Body::Document(document)
    }

    fn account_patch(&mut self, ground: &Ground<'p>) -> Body {
        let mut patch = self.fields(&self.profile.account, ground, &Place::Root).0;
        let new = constants(&self.profile.account, &mut patch);
        let patch = Value::Object(patch);
        if self.refusal.faults.is_empty() {
            self.refusal.faults = check::account_patch(&merge(&new, &patch));
        }
        Body::Patch { patch, new }
    }

    fn services(&mut self, operation: Operation, ground: &Ground<'p>, aliased: bool) -> Option<Body> {
        let upsert = operation == Operation::Upsert;
        let mut new = match upsert {
            true => self.fields(&self.profile.account, ground, &Place::Root).0,
            false => Map::new(),
        };
        let revision = new.shift_remove("source_revision").and_then(|revision| revision.as_i64());
        // A merge with nothing takes out what is said to be nothing.
        let new = (!new.is_empty()).then(|| merge(&Value::Null, &Value::Object(new)));
        let devices = if upsert { self.devices(ground) } else { Vec::new() };
        let mut services: Vec<ServiceChange> = Vec::new();
        let list = Place::Key(&Place::Root, "services");
        for section in &self.profile.services {
            let (gate, fields) = (&section.section.gate, &section.section.fields);
            let id_form = fields.iter().find(|(name, _)| name == "id");
            for ground in self.grounds(gate, ground) {
                let place = Place::Index(&list, services.len());
                let wanted = self.all(&gate.when, &ground, &list)?;
                let gone = !wanted && upsert && !section.remove_when.is_empty();
                if !(wanted || gone && self.all(&section.remove_when, &ground, &list)?) {
                    continue;
                }
                let id = match id_form {
                    Some((_, Form::Value(template, _))) => {
                        self.text(template, true, &ground, &Place::Key(&place, "id"))?
                    }
                    _ => None,
                };
                if id.is_none() && !aliased {
                    self.fault(Place::Key(&place, "id").pointer(), "the record does not tell which service".to_owned());
                }
                let (mut patch, mut new) = (None, Value::Null);
                if upsert && wanted {
                    let mut fields_made = self.fields(fields, &ground, &place).0;
                    fields_made.shift_remove("id");
                    new = constants(fields, &mut fields_made);
                    patch = Some(Value::Object(fields_made));
                }
                services.push(ServiceChange { id, patch, new });
            }
        }
        if services.is_empty() {
            // No section is about this record.
            return None;
        }
        if let Some(new) = &new
            && self.refusal.faults.is_empty()
        {
            self.refusal.faults = check::account_patch(new);
        }
        if self.refusal.faults.is_empty() {
            for (index, service) in services.iter().enumerate() {
                if let Some(patch) = &service.patch {
                    let place = Place::Index(&list, index).pointer();
                    let patch = merge(&service.new, patch);
                    self.refusal.faults.extend(check::service_patch(&patch, service.id.as_deref(), &devices, &place));
                }
            }
        }
        Some(Body::Services { services, devices, new, revision })
    }

    /// Devices by id; what two sections say of one is put together.
    fn devices(&mut self, ground: &Ground<'p>) -> Vec<Value> {
        let mut devices: Vec<Map<String, Value>> = Vec::new();
        let list = Place::Key(&Place::Root, "devices");
        for section in &self.profile.devices {
            for ground in self.passed(&section.gate, ground, &list) {
                let place = Place::Index(&list, devices.len());
                let Some(device) = self.device(section, &ground, &place) else { continue };
                let known = devices.iter_mut().find(|known| known.get("id") == device.get("id"));
                let Some(known) = known else {
                    devices.push(device);
                    continue;
                };
                for (key, value) in device {
                    match known.get(&key) {
                        Some(other) if *other != value => {
                            let detail = format!("the record gives this device two values: {other} and {value}");
                            self.refusal.faults.push(Fault { pointer: Place::Key(&place, &key).pointer(), detail });
                            break;
                        }
                        Some(_) => {}
                        None => {
                            known.insert(key, value);
                        }
                    }
                }
            }
        }
        devices.into_iter().map(Value::Object).collect()
    }

    /// A device; `None` without an address, by which it is known.
    fn device(&mut self, section: &'p Section, ground: &Ground<'p>, place: &Place<'_>) -> Option<Map<String, Value>> {
        let (mut device, _) = self.fields(&section.fields, ground, place);
        device.retain(|_, value| !value.is_null());
        let mac = device.get("cm_mac")?.clone();
        if !device.contains_key("id") {
            let mut named = Map::new();
            named.insert("id".to_owned(), mac);
            named.append(&mut device);
            return Some(named);
        }
        Some(device)
    }

    fn fields(
        &mut self,
        fields: &'p [(String, Form)],
        ground: &Ground<'p>,
        place: &Place<'_>,
    ) -> (Map<String, Value>, Made) {
        let mut map = Map::with_capacity(fields.len());
        let mut all = Made::default();
        for (name, form) in fields {
            let made = self.made(form, ground, &Place::Key(place, name));
            all.known |= made.known;
            all.fact |= made.fact;
            if let Some(value) = made.value {
                map.insert(name.clone(), value);
            }
        }
        (map, all)
    }

    fn made(&mut self, form: &'p Form, ground: &Ground<'p>, place: &Place<'_>) -> Made {
        match form {
            Form::Value(template, kind) => self.value(template, *kind, ground, place),
            Form::Object(fields) => {
                let constant = fields.iter().all(|(_, form)| is_constant(form));
                let (map, made) = self.fields(fields, ground, place);
                // An address that is nothing but the profile's country is no address.
                let value = (made.fact || constant && !map.is_empty()).then_some(Value::Object(map));
                Made { value, ..made }
            }
            Form::Gated(tests, form) => match self.all(tests, ground, place) {
                Some(true) => self.made(form, ground, place),
                _ => Made::default(),
            },
            Form::List(items) => {
                let mut list = Vec::new();
                let mut all = Made { known: items.is_empty(), ..Made::default() };
                for (gate, form) in items {
                    all.known |= gate.repeat.is_none() && !gate.when.is_empty();
                    for ground in self.passed(gate, ground, place) {
                        self.item(form, &ground, &Place::Index(place, list.len()), &mut list, &mut all);
                    }
                }
                let wanted = if self.patch { all.known } else { !list.is_empty() };
                Made { value: wanted.then_some(Value::Array(list)), ..all }
            }
        }
    }

    fn item(&mut self, form: &'p Form, ground: &Ground<'p>, place: &Place<'_>, list: &mut Vec<Value>, all: &mut Made) {
        // An item that is a list of texts is as many items.
        if let Form::Value(template, Kind::Text) = form {
            match template.value(ground) {
                Ok(Val::List(texts)) => {
                    (all.known, all.fact) = (true, true);
                    list.extend(texts.into_iter().map(|text| Value::String(text.into_owned())));
                    return;
                }
                Ok(Val::Missing) => return,
                Ok(Val::Empty) => {
                    all.known = true;
                    return;
                }
                _ => {}
            }
        }
        let made = self.made(form, ground, place);
        all.known |= made.known;
        all.fact |= made.fact;
        list.extend(made.value);
    }

    fn value(&mut self, template: &'p Template, kind: Kind, ground: &Ground<'p>, place: &Place<'_>) -> Made {
        let value = if kind == Kind::Key { template.key(ground) } else { template.value(ground) };
        let text = match value {
            Ok(Val::Text(text)) => text,
            Ok(Val::Missing) => return Made::default(),
            // A source that hides a password shows it empty.
            Ok(Val::Empty) if self.patch && kind != Kind::Secret => {
                return Made { value: Some(Value::Null), known: true, fact: false };
            }
            Ok(Val::Empty) => return Made { known: true, ..Made::default() },
            Ok(Val::List(_)) => {
                self.trouble(Trouble::Wrong(of(template, "has several values")), place);
                return Made::default();
            }
            Ok(Val::Test(_)) => {
                self.trouble(Trouble::Wrong("a test is no value".to_owned()), place);
                return Made::default();
            }
            Err(trouble) => {
                self.trouble(trouble, place);
                return Made::default();
            }
        };
        let value = match kind {
            Kind::Text | Kind::Key | Kind::Secret => Value::String(text.into_owned()),
            Kind::Whole => match super::figure::whole(&text).map(|text| text.parse::<i64>()) {
                Ok(Ok(number)) => Value::from(number),
                _ => {
                    self.trouble(Trouble::Wrong(of(template, "is no whole number of 64 bits")), place);
                    return Made::default();
                }
            },
            Kind::Flag => match text.trim() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => {
                    self.trouble(Trouble::Wrong(of(template, "is neither true nor false; flag('Y','N')")), place);
                    return Made::default();
                }
            },
        };
        Made { value: Some(value), known: true, fact: !template.is_constant() }
    }

    /// A text, or nothing; `None`: there was trouble, which is noted.
    fn text(
        &mut self,
        template: &'p Template,
        key: bool,
        ground: &Ground<'p>,
        place: &Place<'_>,
    ) -> Option<Option<String>> {
        match if key { template.key(ground) } else { template.value(ground) } {
            Ok(Val::Text(text)) => Some(Some(text.into_owned())),
            Ok(Val::Missing | Val::Empty) => Some(None),
            Ok(_) => {
                self.trouble(Trouble::Wrong(of(template, "has several values")), place);
                None
            }
            Err(trouble) => {
                self.trouble(trouble, place);
                None
            }
        }
    }

    /// The grounds a section counts on: the items of `repeat` for which all of `when` hold.
    fn passed(&mut self, gate: &'p Gate, ground: &Ground<'p>, place: &Place<'_>) -> Vec<Ground<'p>> {
        let grounds = self.grounds(gate, ground);
        let mut passed = Vec::with_capacity(grounds.len());
        for ground in grounds {
            if self.all(&gate.when, &ground, place) == Some(true) {
                passed.push(ground);
            }
        }
        passed
    }

    fn grounds(&self, gate: &'p Gate, ground: &Ground<'p>) -> Vec<Ground<'p>> {
        match &gate.repeat {
            None => vec![*ground],
            Some(path) => {
                path.trees(ground.record, ground.item).into_iter().map(|item| Ground { item, ..*ground }).collect()
            }
        }
    }

    /// Whether every test holds; `None`: there was trouble, which is noted.
    fn all(&mut self, tests: &[Template], ground: &Ground<'p>, place: &Place<'_>) -> Option<bool> {
        for test in tests {
            match test.holds(ground) {
                Ok(true) => {}
                Ok(false) => return Some(false),
                Err(trouble) => {
                    self.trouble(trouble, place);
                    return None;
                }
            }
        }
        Some(true)
    }

    fn ground(&self, item: &'p Tree) -> Ground<'p> {
        Ground { record: self.record, item, customs: &self.profile.customs }
    }

    fn trouble(&mut self, trouble: Trouble, place: &Place<'_>) {
        let detail = match trouble {
            Trouble::Wrong(detail) => detail,
            Trouble::Word { vocabulary, word } => {
                let detail = format!(
                    "[{}] has no meaning for the word {word:?}",
                    match vocabulary.as_str() {
                        "op" => "op.words".to_owned(),
                        name => format!("vocab.{name}"),
                    }
                );
                self.refusal.words.push((vocabulary, word));
                detail
            }
        };
        self.fault(place.pointer(), detail);
    }

    fn fault(&mut self, pointer: String, detail: String) {
        let fault = Fault { pointer, detail };
        if self.refusal.faults.len() < FAULTS_MAX && !self.refusal.faults.contains(&fault) {
            self.refusal.faults.push(fault);
        }
    }
}

fn of(template: &Template, detail: &str) -> String {
    match template.first_path() {
        Some(path) => format!("{path}: {detail}"),
        None => detail.to_owned(),
    }
}

/// Takes out what says the same of every record.
fn constants(fields: &[(String, Form)], made: &mut Map<String, Value>) -> Value {
    let mut new = Map::new();
    for (name, form) in fields {
        if is_constant(form)
            && let Some(value) = made.shift_remove(name)
        {
            new.insert(name.clone(), value);
        }
    }
    Value::Object(new)
}

fn is_constant(form: &Form) -> bool {
    match form {
        Form::Value(template, _) => template.is_constant(),
        Form::Object(fields) => fields.iter().all(|(_, form)| is_constant(form)),
        Form::Gated(..) => false,
        Form::List(items) => items.iter().all(|(_, form)| is_constant(form)),
    }
}

const FAULTS_MAX: usize = 100;
