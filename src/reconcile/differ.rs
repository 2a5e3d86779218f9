//! In which fields two documents differ: pointers with both values, lists of things that have an id compared by it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One field that is not the same on both sides.
///
/// **Shape**: `field` is a JSON Pointer (RFC 6901) into the account or the service; things of a list that have an id stand
/// under it. What one side does not have is `null`. A secret is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub field: String,
    pub ours: Value,
    pub theirs: Value,
}

/// The differences of two values.
pub(super) fn differences(ours: &Value, theirs: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", ours, theirs, &mut found);
    found
}

fn compare(at: &str, ours: &Value, theirs: &Value, found: &mut Vec<Difference>) {
    if ours == theirs {
        return;
    }
    match (entries(ours), entries(theirs)) {
        (Some(ours), Some(theirs)) => {
            for (key, value) in &ours {
                compare(&crate::account::json::step(at, key), value, theirs.get(key).unwrap_or(&Value::Null), found);
            }
            for (key, value) in theirs.iter().filter(|(key, _)| !ours.contains_key(*key)) {
                compare(&crate::account::json::step(at, key), &Value::Null, value, found);
            }
        }
        _ => found.push(Difference { field: at.to_owned(), ours: ours.clone(), theirs: theirs.clone() }),
    }
}

/// The members of an object, or of a list whose things all have an id of their own.
fn entries(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members.clone()),
        Value::Array(items) => {
            let mut members = Map::new();
            for item in items {
                let id = IDS.iter().find_map(|id| item.get(id))?;
                let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
                if members.insert(id, item.clone()).is_some() {
                    return None;
                }
            }
            Some(members)
        }
        _ => None,
    }
}

/// By which members the things of our lists are told apart: devices and add-ons, voice lines.
const IDS: [&str; 2] = ["id", "port"];
