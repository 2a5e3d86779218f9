//! An order of TMF640 into the account document that a push takes: which account, which service, what is asked of it. The
//! body and what is stored in; the document, or every fault with its pointer into the body, out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::id::ItemId;
use super::service::{BILL_CYCLE, CHARACTERISTICS, ELEMENT, ORDERED, PROVISIONING};
use super::state::State;
use crate::account::json::step;
use crate::account::{Account, Known, Service, Status, merge, merge_service};
use crate::vocabulary::{AccountKey, Fault, Faults, MacAddress, TenantId, Timestamp};

/// What is ordered, as far as it can be read without what is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Order {
    /// External id of the account, and its name.
    pub account: Option<(String, Option<String>)>,
    /// The provider, where a caller of many names it.
    pub tenant: Option<TenantId>,
    /// External id of the service, where the sender gives it one.
    pub service: Option<String>,
    state: Option<State>,
    plan: Option<String>,
    starts_at: Option<Timestamp>,
    /// By name, with the place in the list.
    characteristics: BTreeMap<String, (usize, Value)>,
    /// What is kept beside.
    attributes: Map<String, Value>,
}

/// Roles in which a related party is the account.
const ACCOUNT_ROLES: [&str; 4] = ["customer", "user", "subscriber", "account"];
/// Roles in which it is the provider.
const TENANT_ROLES: [&str; 2] = ["tenant", "provider"];
/// Members that are told by us alone; whoever sends them back changes nothing.
const READ_ONLY: [&str; 8] =
    ["href", "@type", "@baseType", "@schemaLocation", "serviceType", "hasStarted", "isServiceEnabled", "serviceDate"];
const TEXT_MAX: usize = 128;
const LIST_MAX: usize = 256;

impl Order {
    /// Reads the body of a POST (`whole`: what a service cannot do without must be there) or of a PATCH.
    ///
    /// **Errors**: every fault.
    pub fn read(body: &Value, whole: bool) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::new();
        let Some(members) = body.as_object() else {
            faults.add("", "must be an object: a service");
            return Err(faults.into_vec());
        };
        let mut order = Self::default();
        for (name, value) in members {
            let pointer = step("", name);
            match name.as_str() {
                known if READ_ONLY.contains(&known) => {}
                "id" => order.service = id(value, &pointer, &mut faults),
                "state" => order.state = state(value, &pointer, &mut faults),
                "startDate" => order.starts_at = instant(value, &pointer, &mut faults),
                "endDate" if value.is_null() => {}
                "endDate" => faults.add(pointer, "cannot be ordered: send state terminated, or DELETE, when it ends"),
                "serviceSpecification" => order.specification(value, &pointer, &mut faults),
                "serviceCharacteristic" => order.characteristics(value, &pointer, &mut faults),
                "relatedParty" => order.parties(value, &pointer, &mut faults),
                "supportingResource" => order.resources(value, &pointer, &mut faults),
                _ => {
                    kept(name, value, &pointer, &mut faults);
                    order.attributes.insert(name.clone(), value.clone());
                }
            }
        }
        if whole {
            for (name, missing) in [
                ("state", !members.contains_key("state")),
                ("serviceSpecification", !members.contains_key("serviceSpecification")),
            ] {
                if missing {
                    faults.add(step("", name), "is required");
                }
            }
            if order.account.is_none() && !members.contains_key("relatedParty") {
                let roles = ACCOUNT_ROLES.join(", ");
                faults.add("/relatedParty", format!("is required: the account, in the role {roles}"));
            }
            if order.state == Some(State::Terminated) {
                faults.add("/state", "a service cannot begin with its end");
            }
        }
        faults.settle(order)
    }

    fn specification(&mut self, value: &Value, pointer: &str, faults: &mut Faults) {
        let Some(members) = value.as_object() else {
            return faults.add(pointer, "must be an object: a reference to a plan of the catalog");
        };
        match members.get("id") {
            None => faults.add(format!("{pointer}/id"), "is required: a plan of the catalog"),
            Some(id) => self.plan = text(id, &format!("{pointer}/id"), faults),
        }
        self.attributes.insert("serviceSpecification".to_owned(), value.clone());
    }

    fn characteristics(&mut self, value: &Value, pointer: &str, faults: &mut Faults) {
        let mut kept = Vec::new();
        for (place, item, pointer) in list(value, pointer, faults) {
            let Some(name) = item.get("name").and_then(Value::as_str) else {
                faults.add(format!("{pointer}/name"), "is required, a text");
                continue;
            };
            let Some(found) = item.get("value") else {
                faults.add(format!("{pointer}/value"), "is required; null takes it away");
                continue;
            };
            match name {
                PROVISIONING => {}
                known if CHARACTERISTICS.contains(&known) || known == BILL_CYCLE => {
                    if self.characteristics.insert(name.to_owned(), (place, found.clone())).is_some() {
                        faults.add(format!("{pointer}/name"), format!("{name} is there twice"));
                    }
                }
                _ => kept.push(item.clone()),
            }
        }
        if !kept.is_empty() {
            self.attributes.insert("serviceCharacteristic".to_owned(), Value::Array(kept));
        }
    }

    fn parties(&mut self, value: &Value, pointer: &str, faults: &mut Faults) {
        let mut kept = Vec::new();
        for (_, party, pointer) in list(value, pointer, faults) {
            let role = party.get("role").and_then(Value::as_str).unwrap_or_default().to_lowercase();
            let (is_account, is_tenant) = (ACCOUNT_ROLES.contains(&&*role), TENANT_ROLES.contains(&&*role));
            let place = format!("{pointer}/id");
            let id = match party.get("id") {
                Some(id) if is_account || is_tenant => text(id, &place, faults),
                None if is_account || is_tenant => {
                    faults.add(&place, "is required");
                    None
                }
                _ => None,
            };
            if is_tenant {
                match id.map(|id| TenantId::parse(&id)) {
                    Some(Ok(tenant)) => self.tenant = Some(tenant),
                    Some(Err(error)) => faults.add(place, error.to_string()),
                    None => {}
                }
                continue;
            }
            kept.push(party.clone());
            let Some(id) = id else { continue };
            if let Err(error) = AccountKey::parse_external_id(&id) {
                faults.add(&place, error.to_string());
            }
            let name = party.get("name").and_then(Value::as_str).map(str::to_owned);
            match &self.account {
                Some((other, _)) if *other != id => faults.add(place, format!("is another account than {other}")),
                Some(_) => {}
                None => self.account = Some((id, name)),
            }
        }
        if self.account.is_none() && faults.is_empty() {
            let roles = ACCOUNT_ROLES.join(", ");
            faults.add(pointer, format!("names no account: a party in the role {roles}"));
        }
        self.attributes.insert("relatedParty".to_owned(), Value::Array(kept));
    }

    fn resources(&mut self, value: &Value, pointer: &str, faults: &mut Faults) {
        let theirs = list(value, pointer, faults).into_iter().filter(|(_, item, _)| item["@type"] != json!(ELEMENT));
        let theirs: Vec<Value> = theirs.map(|(_, item, _)| item.clone()).collect();
        if !theirs.is_empty() {
            self.attributes.insert("supportingResource".to_owned(), Value::Array(theirs));
        }
    }

    /// The account's document with the service as it is ordered, and the service's place in it. `account` is what is stored;
    /// `service` the external id; what is not ordered stays.
    ///
    /// **Errors**: every fault that shows before the document itself is checked.
    pub fn document(
        &self,
        account: Option<&Account>,
        service: &str,
        known: &Known,
        now: Timestamp,
    ) -> Result<(Value, usize), Vec<Fault>> {
        let mut faults = Faults::new();
        let mut document = match account {
            Some(account) => json!(account),
            None => json!({ "status": Status::Active, "devices": [], "services": [] }),
        };
        match (self.characteristics.get(BILL_CYCLE), account, known.bill_cycles.first()) {
            (Some((_, cycle)), _, _) => document["bill_cycle"] = cycle.clone(),
            (None, None, Some(only)) if known.bill_cycles.len() == 1 => document["bill_cycle"] = json!(only),
            (None, None, _) => {
                faults.add("/serviceCharacteristic", format!("needs {BILL_CYCLE}: the account is new"));
            }
            (None, Some(_), _) => {}
        }
        if let (None, Some((_, Some(name)))) = (account, &self.account) {
            document["name"] = json!(name);
        }
        let stored = account.and_then(|account| account.service(service));
        let place = account.and_then(|account| account.services.iter().position(|known| known.id == service));
        let mut patch = self.patch(now);
        match &self.plan {
            Some(plan) => match known.plans.get(plan).map(|plan| plan.service) {
                Some(Some(of)) => {
                    patch.insert("plan".to_owned(), json!(plan));
                    patch.insert("type".to_owned(), json!(of));
                }
                Some(None) => faults.add("/serviceSpecification/id", "is an add-on and no service of its own"),
                None => faults.add("/serviceSpecification/id", format!("{plan:?} is no plan of the catalog")),
            },
            None if stored.is_none() => faults.add("/serviceSpecification/id", "is required: a plan of the catalog"),
            None => {}
        }
        if let Some((place, value)) = self.characteristics.get("device") {
            match device(value, account) {
                Ok(Some((id, entry))) => {
                    if let Some(entry) = entry {
                        put_device(&mut document, &id, entry);
                    }
                    patch.insert("device".to_owned(), json!(id));
                }
                Ok(None) => {
                    patch.insert("device".to_owned(), Value::Null);
                }
                Err(detail) => faults.add(format!("/serviceCharacteristic/{place}/value"), detail),
            }
        }
        let base = stored.map_or_else(|| json!({ "id": service }), |stored| json!(stored));
        let mut merged = merge_service(&base, &Value::Object(patch));
        merged["attributes"] = self.kept(stored);
        let services = document["services"].as_array_mut();
        let place = match (services, place) {
            (Some(services), Some(place)) => {
                services[place] = merged;
                place
            }
            (Some(services), None) => {
                services.push(merged);
                services.len() - 1
            }
            (None, _) => {
                document["services"] = json!([merged]);
                0
            }
        };
        faults.settle((document, place))
    }

    /// The merge patch of the service's own document.
    fn patch(&self, now: Timestamp) -> Map<String, Value> {
        let mut patch = Map::new();
        for (name, (_, value)) in &self.characteristics {
            if name != BILL_CYCLE && name != "device" {
                patch.insert(name.clone(), value.clone());
            }
        }
        // A day that is over changes nothing; one that is to come holds the service back.
        if let Some(starts_at) = self.starts_at.filter(|at| *at > now)
            && !patch.contains_key("network_from")
        {
            patch.insert("network_from".to_owned(), json!(starts_at));
        }
        if let Some(state) = self.state {
            patch.insert("status".to_owned(), json!(state.status()));
        }
        patch
    }

    /// The attributes there are from now on, as a whole.
    fn kept(&self, stored: Option<&Service>) -> Value {
        let before = stored.and_then(|stored| stored.attributes.clone());
        let mut before = before.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        let mut ordered = self.attributes.clone();
        if let Some(specification) = ordered.get("serviceSpecification") {
            // What was told of the plan before is not told of this one.
            before.shift_remove("serviceSpecification");
            if specification.as_object().is_some_and(|members| members.len() == 1) {
                ordered.shift_remove("serviceSpecification");
            }
        }
        if let Some(Value::Array(now)) = ordered.get_mut("serviceCharacteristic") {
            let known = before.get("serviceCharacteristic").and_then(Value::as_array);
            let stays = |one: &&Value| !now.iter().any(|named| named["name"] == one["name"]);
            let mut all: Vec<Value> = known.into_iter().flatten().filter(stays).cloned().collect();
            all.extend(now.drain(..).filter(|one| !one["value"].is_null()));
            *now = all;
        }
        let mut kept = merge(&Value::Object(before), &Value::Object(ordered));
        if let (Some(kept), Some(state)) = (kept.as_object_mut(), self.state) {
            kept.shift_remove(ORDERED);
            if state.status() == Some(Status::Pending) {
                kept.insert(ORDERED.to_owned(), json!(state.as_str()));
            }
        }
        kept
    }

    /// A pointer into the account's document as one into the order; `place` is the service's in the document.
    pub fn pointer(&self, place: usize, pointer: &str) -> String {
        let own = format!("/services/{place}");
        if let Some(rest) = pointer.strip_prefix(&own).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            let (field, inner) = first(rest);
            return match field {
                "" => String::new(),
                "id" => "/id".to_owned(),
                "plan" | "type" => "/serviceSpecification/id".to_owned(),
                "status" => "/state".to_owned(),
                "attributes" => inner.to_owned(),
                field => self.value_at(field, inner),
            };
        }
        match first(pointer) {
            ("devices", inner) => self.value_at("device", first(inner).1),
            ("bill_cycle", _) => self.value_at(BILL_CYCLE, ""),
            ("name", _) => "/relatedParty".to_owned(),
            _ => pointer.to_owned(),
        }
    }

    fn value_at(&self, name: &str, inner: &str) -> String {
        match self.characteristics.get(name) {
            Some((place, _)) => format!("/serviceCharacteristic/{place}/value{inner}"),
            None => "/serviceCharacteristic".to_owned(),
        }
    }
}

/// The first step of a pointer, and the pointer below it.
fn first(pointer: &str) -> (&str, &str) {
    let path = pointer.strip_prefix('/').unwrap_or(pointer);
    path.find('/').map_or((path, ""), |at| path.split_at(at))
}

/// The document without a service, and without the device that nothing else needs.
pub fn without(account: &Account, service: &str) -> Value {
    let device = account.service(service).and_then(|service| service.device.clone());
    let mut left = account.clone();
    left.services.retain(|known| known.id != service);
    let is_needed = |id: &String| left.services.iter().any(|known| known.device.as_ref() == Some(id));
    if let Some(device) = device.filter(|id| !is_needed(id)) {
        left.devices.retain(|known| known.id != device);
    }
    json!(left)
}

/// A device as the value of a characteristic: its name, or itself. Its name then and, where it came, the device.
fn device(value: &Value, account: Option<&Account>) -> Result<Option<(String, Option<Value>)>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(id) => Ok(Some((id.clone(), None))),
        Value::Object(members) => {
            let mac = members.get("cm_mac").and_then(Value::as_str);
            let mac: Option<MacAddress> = mac.and_then(|mac| mac.parse().ok());
            let known = mac.and_then(|mac| account?.devices.iter().find(|device| device.cm_mac == mac));
            let id = members.get("id").and_then(Value::as_str).map(str::to_owned);
            let id = id.or_else(|| known.map(|known| known.id.clone())).or_else(|| mac.map(|mac| mac.to_string()));
            match id {
                Some(id) => Ok(Some((id, Some(value.clone())))),
                None => Err("needs the modem's address, cm_mac".to_owned()),
            }
        }
        _ => Err("must be a device, or the id of one".to_owned()),
    }
}

fn put_device(document: &mut Value, id: &str, mut entry: Value) {
    entry["id"] = json!(id);
    if !document["devices"].is_array() {
        document["devices"] = json!([]);
    }
    let Some(devices) = document["devices"].as_array_mut() else { return };
    match devices.iter_mut().find(|known| known["id"] == json!(id)) {
        Some(known) => *known = entry,
        None => devices.push(entry),
    }
}

/// What is only kept must at least be of the kind that TM Forum gives it.
fn kept(name: &str, value: &Value, pointer: &str, faults: &mut Faults) {
    match name {
        _ if value.is_null() => {}
        known if TEXTS.contains(&known) && !value.is_string() => faults.add(pointer, "must be a text"),
        known if FLAGS.contains(&known) && !value.is_boolean() => faults.add(pointer, "must be true or false"),
        known if LISTS.contains(&known) => drop(list(value, pointer, faults)),
        _ => {}
    }
}

const TEXTS: [&str; 4] = ["name", "description", "category", "startMode"];
const FLAGS: [&str; 2] = ["isBundle", "isStateful"];
const LISTS: [&str; 7] =
    ["feature", "note", "place", "relatedEntity", "serviceOrderItem", "serviceRelationship", "supportingService"];

fn text(value: &Value, pointer: &str, faults: &mut Faults) -> Option<String> {
    let text = value.as_str().filter(|text| (1..=TEXT_MAX).contains(&text.chars().count()));
    if text.is_none() {
        faults.add(pointer, format!("must be a text of 1 to {TEXT_MAX} characters"));
    }
    text.map(str::to_owned)
}

/// The service's own id; sent back as it was shown it names the same.
fn id(value: &Value, pointer: &str, faults: &mut Faults) -> Option<String> {
    let text = text(value, pointer, faults)?;
    Some(text.parse::<ItemId>().map_or(text, |id| id.item))
}

fn state(value: &Value, pointer: &str, faults: &mut Faults) -> Option<State> {
    let state = value.as_str().and_then(|text| text.parse().ok());
    if state.is_none() {
        let known = State::ALL.map(State::as_str).join(", ");
        faults.add(pointer, format!("is no state of a service; states are {known}"));
    }
    state
}

fn instant(value: &Value, pointer: &str, faults: &mut Faults) -> Option<Timestamp> {
    let instant = value.as_str().and_then(|text| text.parse().ok());
    if instant.is_none() && !value.is_null() {
        faults.add(pointer, "must be an instant of RFC 3339");
    }
    instant
}

fn list<'v>(value: &'v Value, pointer: &str, faults: &mut Faults) -> Vec<(usize, &'v Value, String)> {
    let Some(items) = value.as_array() else {
        faults.add(pointer, "must be a list");
        return Vec::new();
    };
    if items.len() > LIST_MAX {
        faults.add(pointer, format!("has more than {LIST_MAX} entries"));
        return Vec::new();
    }
    let mut found = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let pointer = format!("{pointer}/{place}");
        match item.is_object() {
            true => found.push((place, item, pointer)),
            false => faults.add(pointer, "must be an object"),
        }
    }
    found
}
