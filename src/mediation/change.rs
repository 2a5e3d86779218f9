//! What a foreign record asks for, and what that makes of the account that is stored.

use serde_json::{Map, Value, json};

use super::profile::{AliasKind, Operation};
use crate::account::merge;
use crate::vocabulary::Fault;

/// What a record asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Never `Ignore`.
    pub operation: Operation,
    /// The account's external id; `None`: one of `aliases` finds it.
    pub account: Option<String>,
    pub aliases: Vec<(AliasKind, String)>,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// The whole account; `services` that are not there are gone.
    Document(Value),
    /// A merge patch (RFC 7396) of the account without its services and devices; under `new` see below.
    Patch { patch: Value, new: Value },
    /// Services of the account; others are not touched. `devices` are added or changed by their `id`. `new` is the
    /// account without services for the case that it is not known yet: a known one keeps what it has.
    Services { services: Vec<ServiceChange>, devices: Vec<Value>, new: Option<Value>, revision: Option<i64> },
    /// The deed is to the account as a whole.
    Whole,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServiceChange {
    /// The service's external id; `None`: one of the aliases finds it.
    pub id: Option<String>,
    /// `None`: the deed is to the service as a whole; with `Upsert` it is taken away.
    pub patch: Option<Value>,
    /// What the profile says of every such service, for one that is not known yet: a constant is no news of a known one,
    /// and "active" must not wake what another event has suspended.
    pub new: Value,
}

/// Why a record was put aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Pointers go into the document that would have become of it; empty: the record itself.
    pub faults: Vec<Fault>,
    /// Words without a meaning: the vocabulary and the word.
    pub words: Vec<(String, String)>,
}

impl Refusal {
    pub fn of(detail: impl Into<String>) -> Self {
        Self { faults: vec![Fault { pointer: String::new(), detail: detail.into() }], words: Vec::new() }
    }
}

impl Change {
    /// Puts the service that an alias found where the record names none; for anything but an upsert also where it names
    /// one that the account does not have. `known`: the ids of the account's services.
    pub fn name_service(&mut self, known: &[&str], found: &str) {
        let Body::Services { services, .. } = &mut self.body else { return };
        // Which of several would be meant nobody knows.
        let [service] = services.as_mut_slice() else { return };
        let unknown = || service.id.as_deref().is_some_and(|id| !known.contains(&id));
        if service.id.is_none() || self.operation != Operation::Upsert && unknown() {
            service.id = Some(found.to_owned());
        }
    }

    /// As JSON, for people and tests. `hide`: without the secrets.
    pub fn shown(&self, hide: bool) -> Value {
        let mut map = Map::new();
        map.insert("operation".to_owned(), json!(self.operation.as_str()));
        if let Some(account) = &self.account {
            map.insert("account".to_owned(), json!(account));
        }
        if !self.aliases.is_empty() {
            let aliases: Map<String, Value> =
                self.aliases.iter().map(|(kind, text)| (kind.as_str().to_owned(), json!(text))).collect();
            map.insert("aliases".to_owned(), Value::Object(aliases));
        }
        match &self.body {
            Body::Document(document) => {
                map.insert("document".to_owned(), document.clone());
            }
            Body::Patch { patch, new } => {
                map.insert("patch".to_owned(), patch.clone());
                map.insert("new_account".to_owned(), new.clone());
            }
            Body::Services { services, devices, new, revision } => {
                if let Some(new) = new {
                    map.insert("new_account".to_owned(), new.clone());
                }
                if let Some(revision) = revision {
                    map.insert("source_revision".to_owned(), json!(revision));
                }
                if !devices.is_empty() {
                    map.insert("devices".to_owned(), json!(devices));
                }
                let service = |service: &ServiceChange| match &service.patch {
                    Some(patch) => json!({ "id": service.id, "patch": patch, "new": service.new }),
                    None if self.operation == Operation::Upsert => json!({ "id": service.id, "remove": true }),
                    None => json!({ "id": service.id }),
                };
                map.insert("services".to_owned(), services.iter().map(service).collect());
            }
            Body::Whole => {}
        }
        let mut value = Value::Object(map);
        if hide {
            hide_secrets(&mut value);
        }
        value
    }
}

fn hide_secrets(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match key.as_str() {
                    "password" if value.is_string() => *value = json!("(secret)"),
                    _ => hide_secrets(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        _ => {}
    }
}

/// The document without what a source cannot know of it, applied to what is stored.
///
/// **Shape**: `stored` is the account document as it was pushed. The result is a whole document for the push path.
/// `Ok(None)`: the account is to be closed.
/// **Errors**: a service or the account that is not there.
pub fn apply(change: &Change, stored: Option<&Value>) -> Result<Option<Value>, String> {
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
        let id = service
            .id
            .as_deref()
            .or_else(|| change.aliases.iter().find(|(kind, _)| *kind == AliasKind::Service).map(|(_, id)| id.as_str()));
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
