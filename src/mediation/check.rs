//! What became of a record, checked by the room of accounts as far as that goes without the tenant's catalog.
//!
//! Plans, bill cycles and mail domains are believed; all else must be what an account document wants. A patch is checked
//! on the smallest account it could be for. The push itself checks again, with the catalog and the stored account.

use std::collections::BTreeMap;

use serde_json::{Value, json};

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
