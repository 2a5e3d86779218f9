//! What became of a record, checked by the room of accounts as far as that goes without the tenant's catalog.
//!
//! Plans, bill cycles and mail domains are believed; all else must be what an account document wants. A patch is checked
//! on the smallest account it could be for. The push itself checks again, with the catalog and the stored account.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::account::{Known, KnownPlan, ServiceType, merge, parse};
use crate::vocabulary::{AccountKey, Fault, SourceId, TenantId};

/// The faults of a whole account document.
pub(super) fn document(document: &Value) -> Vec<Fault> {
    parse(document, key(), &believed(document)).err().unwrap_or_default()
}

/// The faults of a patch of an account without its services.
pub(super) fn account_patch(patch: &Value) -> Vec<Fault> {
    let smallest = json!({ "status": "active", "bill_cycle": "any" });
    document(&merge(&smallest, patch))
}

/// The faults of one service's patch, their pointers below `place`.
pub(super) fn service_patch(patch: &Value, id: Option<&str>, devices: &[Value], place: &str) -> Vec<Fault> {
    let mut service = merge(&smallest_service(patch), patch);
    let mut devices = devices.to_vec();
    if let Some(map) = service.as_object_mut() {
        map.insert("id".to_owned(), json!(id.unwrap_or("any")));
        // A device that the record only names is the account's already.
        if let Some(named) = map.get("device").and_then(Value::as_str)
            && !devices.iter().any(|device| device["id"] == named)
        {
            let cm_mac = named.parse::<crate::vocabulary::MacAddress>();
            let cm_mac = cm_mac.map_or("02:00:00:00:00:01".to_owned(), |mac| mac.to_string());
            devices.push(json!({ "id": named, "cm_mac": cm_mac, "mta_mac": "02:00:00:00:00:02" }));
        }
    }
    let whole = json!({ "status": "active", "bill_cycle": "any", "devices": devices, "services": [service] });
    let faults = document(&whole).into_iter();
    faults
        .map(|fault| match fault.pointer.strip_prefix("/services/0") {
            Some(rest) => Fault { pointer: format!("{place}{rest}"), ..fault },
            None => fault,
        })
        .collect()
}

/// What a service of the patch's type must have besides.
fn smallest_service(patch: &Value) -> Value {
    let has = |key: &str| patch.get(key).is_some_and(|value| !value.is_null());
    let service_type = match patch.get("type").and_then(Value::as_str) {
        Some(known) => known,
        None if has("lines") => "voice",
        None if has("mailbox") => "email",
        None => "internet",
    };
    match service_type {
        "voice" => json!({
            "type": "voice", "plan": "any", "device": "02:00:00:00:00:01",
            "lines": [{ "port": 1, "number": "+12025550100" }],
        }),
        "email" => json!({ "type": "email", "plan": "any", "mailbox": { "address": "any@example.net" } }),
        _ if has("device") || has("radius") => json!({ "type": "internet", "plan": "any" }),
        _ => json!({ "type": "internet", "plan": "any", "radius": { "username": "any" } }),
    }
}

/// A catalog in which everything is that the document names.
fn believed(document: &Value) -> Known {
    let mut known = Known::default();
    if let Some(cycle) = document.get("bill_cycle").and_then(Value::as_str) {
        known.bill_cycles.insert(cycle.to_owned());
    }
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let services = document.get("services").and_then(Value::as_array);
    for service in services.into_iter().flatten() {
        let service_type: Option<ServiceType> =
            service.get("type").and_then(Value::as_str).and_then(|word| word.parse().ok());
        if let Some(plan) = service.get("plan").and_then(Value::as_str) {
            believe(&mut known.plans, plan, service_type);
        }
        for addon in list(service, "addons") {
            if let Some(plan) = addon.get("plan").and_then(Value::as_str) {
                believe(&mut known.plans, plan, None);
            }
        }
        if let Some(mailbox) = service.get("mailbox") {
            let aliases = list(mailbox, "aliases");
            for address in aliases.iter().chain(mailbox.get("address")).filter_map(Value::as_str) {
                if let Some((_, domain)) = address.rsplit_once('@') {
                    known.mail_domains.insert(domain.to_ascii_lowercase());
                }
            }
        }
    }
    known
}

fn believe(plans: &mut BTreeMap<String, KnownPlan>, plan: &str, service: Option<ServiceType>) {
    if !plans.contains_key(plan) {
        plans.insert(plan.to_owned(), KnownPlan { service, ..KnownPlan::default() });
    }
}

fn key() -> &'static AccountKey {
    static KEY: std::sync::OnceLock<AccountKey> = std::sync::OnceLock::new();
    KEY.get_or_init(|| AccountKey {
        tenant: TenantId::parse("any").expect("a plain word"),
        source: SourceId::default(),
        external_id: "any".to_owned(),
    })
}

/// The document without what a source cannot know of it, applied to what is stored.
///
/// **Shape**: `stored` is the account document as it was pushed. The result is a whole document for the push path.
/// `Ok(None)`: the account is to be closed.
/// **Errors**: a service or the account that is not there.
pub fn apply(change: &super::Change, stored: Option<&Value>) -> Result<Option<Value>, String> {
    use super::{Body, Operation};
    let absent = || "the account is not known here, and the record does not hold all of it".to_owned();
    let mut document = match (&change.body, stored) {
        (Body::Whole, _) if change.operation == Operation::Delete => return Ok(None),
        (Body::Document(document), _) => return Ok(Some(document.clone())),
        (Body::Patch { patch, new }, stored) => return Ok(Some(merge(stored.unwrap_or(new), patch))),
        (Body::Services { .. } | Body::Whole, Some(stored)) => stored.clone(),
        (Body::Services { new: Some(new), .. }, None) => new.clone(),
        (Body::Services { .. } | Body::Whole, None) => return Err(absent()),
    };
    let map = document.as_object_mut().ok_or_else(absent)?;
    let word = match change.operation {
        Operation::Suspend => Some("suspended"),
        Operation::Resume => Some("active"),
        _ => None,
    };
    let Body::Services { services, devices, revision, .. } = &change.body else {
        if let Some(word) = word {
            map.insert("status".to_owned(), json!(word));
        }
        return Ok(Some(document));
    };
    match revision {
        Some(revision) => map.insert("source_revision".to_owned(), json!(revision)),
        None => map.shift_remove("source_revision"),
    };
    for device in devices {
        replace(map, "devices", device["id"].as_str().unwrap_or_default(), |known| Some(merge(known, device)));
    }
    for service in services {
        let id = service.id.as_deref().or_else(|| {
            change.aliases.iter().find(|(kind, _)| *kind == super::AliasKind::Service).map(|(_, id)| id.as_str())
        });
        let id = id.ok_or("the service is not found by what the record knows of it")?;
        let known = map.get("services").and_then(Value::as_array);
        let is_known = known.is_some_and(|known| known.iter().any(|service| service["id"] == id));
        match (change.operation, &service.patch, word) {
            (Operation::Upsert, Some(patch), _) => replace(map, "services", id, |known| {
                let base = if is_known { known } else { &service.new };
                let mut merged = merge(base, patch);
                merged["id"] = json!(id);
                Some(merged)
            }),
            (_, _, Some(word)) if is_known => {
                replace(map, "services", id, |known| Some(merge(known, &json!({ "status": word }))));
            }
            (_, _, Some(_)) => return Err(format!("the account has no service {id:?}")),
            _ => replace(map, "services", id, |_| None),
        }
    }
    Ok(Some(document))
}

/// Changes the item with this id, adds it, or takes it out.
fn replace(map: &mut Map<String, Value>, list: &str, id: &str, change: impl FnOnce(&Value) -> Option<Value>) {
    let items = map.entry(list).or_insert_with(|| json!([]));
    if !items.is_array() {
        *items = json!([]);
    }
    let Some(items) = items.as_array_mut() else { return };
    match items.iter().position(|item| item["id"] == id) {
        Some(index) => match change(&items[index]) {
            Some(changed) => items[index] = changed,
            None => {
                items.remove(index);
            }
        },
        None => items.extend(change(&Value::Object(Map::new()))),
    }
}
