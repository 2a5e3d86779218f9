//! A service as TMF638 and TMF640 show it. The account's document and what is known of its elements in; the resource out.

use serde_json::{Map, Value, json};

use super::id::ItemId;
use super::state::{Standing, State, state};
use super::{customer, resource};
use crate::account::{Account, Service, ServiceType};
use crate::provision::ElementKind;
use crate::vocabulary::Timestamp;

/// Everything a service's resource follows from.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub id: &'a ItemId,
    pub account: &'a Account,
    pub service: &'a Service,
    /// When it came first; `None`: a moment ago.
    pub created_at: Option<Timestamp>,
    /// The elements it needs, each with its kind and key.
    pub elements: &'a [(ElementKind, &'a str, Standing<'a>)],
    /// How far it is, as the account's own view tells it.
    pub provisioning: &'a Value,
}

/// Fields of a service's document that are characteristics here, under the same names and with the same values.
pub(super) const CHARACTERISTICS: [&str; 15] = [
    "device",
    "max_cpe",
    "static_ips",
    "radius",
    "lines",
    "mailbox",
    "service_address",
    "network_from",
    "billing_from",
    "billing_until",
    "tax_jurisdiction",
    "price_override",
    "addons",
    "promos",
    "scheduled",
];
/// The account's bill cycle, where the account is one that is made by ordering its first service.
pub(super) const BILL_CYCLE: &str = "billCycle";
/// What is only read.
pub(super) const PROVISIONING: &str = "provisioning";
/// Marks the supporting resources that are ours.
pub(super) const ELEMENT: &str = "Element";
/// Where the state that was ordered is kept.
pub(super) const ORDERED: &str = "state";

/// A service; `base` is the API it is shown by.
pub fn service(seen: &Seen<'_>, base: &str) -> Value {
    let Seen { id, account, service, .. } = seen;
    let standings: Vec<Standing<'_>> = seen.elements.iter().map(|(_, _, standing)| *standing).collect();
    let kept = service.attributes.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    let ordered = kept.get(ORDERED).and_then(Value::as_str).and_then(|text| text.parse().ok());
    let state = state(service.service_type, account.status_of(service), ordered, &standings);
    let begun = state == State::Active || standings.iter().any(|standing| standing.applied.is_some());

    let mut shown = resource("Service", &id.to_string(), base, "service");
    let mut put = |key: &str, value: Value| shown.insert(key.to_owned(), value);
    put("category", json!("CFS"));
    put("name", json!(service.id));
    put("description", json!(format!("{} {}", type_words(service.service_type), service.plan)));
    // What was told of it stands before what we know only by default, and behind what we know.
    for (key, value) in &kept {
        if !OURS.contains(&key.as_str()) {
            put(key, value.clone());
        }
    }
    put("serviceType", json!(service.service_type));
    put("state", json!(state.as_str()));
    put("isServiceEnabled", json!(state == State::Active));
    put("hasStarted", json!(begun));
    if let Some(at) = seen.created_at {
        put("serviceDate", json!(at));
        put("startDate", json!(at));
    }
    if let Some(crate::account::Moment::Instant(from)) = service.network_from {
        put("startDate", json!(from));
    }
    put("serviceSpecification", specification(service, kept.get("serviceSpecification")));
    put("serviceCharacteristic", characteristics(seen, kept.get("serviceCharacteristic")));
    put("relatedParty", parties(&id.account, kept.get("relatedParty")));
    put("supportingResource", resources(seen, kept.get("supportingResource")));
    Value::Object(shown)
}

/// Members of the resource that are made here, whatever was told.
const OURS: [&str; 12] = [
    "id",
    "href",
    "@type",
    "@baseType",
    "@schemaLocation",
    "serviceType",
    ORDERED,
    "serviceSpecification",
    "serviceCharacteristic",
    "relatedParty",
    "supportingResource",
    "startDate",
];

fn type_words(of: ServiceType) -> &'static str {
    match of {
        ServiceType::Internet => "Internet access",
        ServiceType::Voice => "Telephone",
        ServiceType::Email => "Mailbox",
    }
}

fn specification(service: &Service, kept: Option<&Value>) -> Value {
    // What was told of another plan is not said of this one.
    let kept = kept.filter(|kept| kept["id"] == json!(service.plan)).and_then(Value::as_object).cloned();
    let mut shown = kept.unwrap_or_default();
    shown.insert("id".to_owned(), json!(service.plan));
    shown.entry("@type").or_insert_with(|| json!("ServiceSpecificationRef"));
    shown.entry("@referredType").or_insert_with(|| json!("ServiceSpecification"));
    Value::Object(shown)
}

fn characteristics(seen: &Seen<'_>, kept: Option<&Value>) -> Value {
    let document = json!(seen.service);
    let mut shown = Vec::new();
    for name in CHARACTERISTICS {
        let value = match (name, &document[name]) {
            (_, Value::Null) => continue,
            ("device", Value::String(id)) => match seen.account.device(id) {
                Some(device) => json!(device),
                None => json!(id),
            },
            (_, value) => value.clone(),
        };
        shown.push(characteristic(name, value));
    }
    shown.push(characteristic(BILL_CYCLE, json!(seen.account.bill_cycle)));
    shown.push(characteristic(PROVISIONING, seen.provisioning.clone()));
    shown.extend(kept.and_then(Value::as_array).into_iter().flatten().cloned());
    Value::Array(shown)
}

pub(super) fn characteristic(name: &str, value: Value) -> Value {
    let kind = match &value {
        Value::Null | Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "boolean",
    };
    json!({ "name": name, "valueType": kind, "value": value, "@type": "Characteristic" })
}

fn parties(account: &str, kept: Option<&Value>) -> Value {
    let kept = kept.and_then(Value::as_array).cloned().unwrap_or_default();
    let named = kept.iter().any(|party| party["id"] == json!(account));
    let own = (!named).then(|| customer(account));
    Value::Array(own.into_iter().chain(kept).collect())
}

fn resources(seen: &Seen<'_>, kept: Option<&Value>) -> Value {
    let own = seen.elements.iter().map(|(kind, key, _)| {
        json!({
            "id": format!("{kind}:{key}"), "name": key, "@type": ELEMENT, "@baseType": "ResourceRef",
            "@referredType": element_words(*kind),
        })
    });
    let kept = kept.and_then(Value::as_array).into_iter().flatten().cloned();
    Value::Array(own.chain(kept).collect())
}

fn element_words(kind: ElementKind) -> &'static str {
    match kind {
        ElementKind::Cm => "CableModem",
        ElementKind::Mta => "TelephoneAdapter",
        ElementKind::Mailbox => "Mailbox",
        ElementKind::Aaa => "Login",
    }
}

/// The reference to a service alone, as events and other resources hold it.
pub(super) fn reference(id: &ItemId, kind: &str) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("id".to_owned(), json!(id.to_string()));
    shown.insert("href".to_owned(), json!(id.href()));
    shown.insert("@type".to_owned(), json!(kind));
    shown
}
