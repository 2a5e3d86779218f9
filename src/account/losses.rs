//! What a push would take away from a subscriber, and where two states of an account differ; from the two states alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hold::{Hold, Treatment};
use super::json::step;
use super::known::Known;
use super::model::{Account, Scheduled, Service, Status};

/// Something that a source takes away. A source that takes much at once may be wrong as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Loss {
    /// The account is deleted.
    Deleted,
    /// The account is terminated.
    Terminated,
    ServiceRemoved {
        service: String,
    },
    ServiceTerminated {
        service: String,
    },
    /// A service that was in service is so no more.
    ServiceSuspended {
        service: String,
    },
    /// The source places a hold that restricts.
    Held {
        kind: String,
    },
}

impl Loss {
    /// For a list or a log line.
    pub fn words(&self) -> String {
        match self {
            Loss::Deleted => "the account is deleted".to_owned(),
            Loss::Terminated => "the account is terminated".to_owned(),
            Loss::ServiceRemoved { service } => format!("service {service} is removed"),
            Loss::ServiceTerminated { service } => format!("service {service} is terminated"),
            Loss::ServiceSuspended { service } => format!("service {service} is suspended"),
            Loss::Held { kind } => format!("a hold of kind {kind} is placed"),
        }
    }
}

/// What is lost between what is stored and what is pushed. An account that loses itself names nothing besides.
pub fn losses(before: &Account, after: &Account, known: &Known) -> Vec<Loss> {
    if after.status == Status::Terminated {
        return if before.status == Status::Terminated { Vec::new() } else { vec![Loss::Terminated] };
    }
    let mut losses = Vec::new();
    for service in &before.services {
        let was = before.status_of(service);
        if was == Status::Terminated {
            continue;
        }
        let id = || service.id.clone();
        match after.service(&service.id).map(|service| after.status_of(service)) {
            None => losses.push(Loss::ServiceRemoved { service: id() }),
            Some(Status::Terminated) => losses.push(Loss::ServiceTerminated { service: id() }),
            Some(Status::Suspended | Status::Pending) if was == Status::Active => {
                losses.push(Loss::ServiceSuspended { service: id() });
            }
            Some(_) => losses.extend(arranged(service, after.service(&service.id))),
        }
    }
    for hold in &after.holds {
        if hold.restricts(known) && !before.holds.iter().any(|other| other.kind == hold.kind) {
            losses.push(Loss::Held { kind: hold.kind.to_string() });
        }
    }
    losses
}

impl Hold {
    /// Whether it takes anything away, by itself or by what its kind does in the catalog.
    pub fn restricts(&self, known: &Known) -> bool {
        let usual = || known.treatments.get(&self.kind).cloned().unwrap_or_else(|| self.kind.default_treatment());
        self.treatment.clone().unwrap_or_else(usual) != Treatment::None
    }
}

/// What a push arranges for later counts when it is arranged, for nobody is asked again on its day.
fn arranged(before: &Service, after: Option<&Service>) -> Option<Loss> {
    let known = |change: &Scheduled| before.scheduled.iter().any(|old| old.at == change.at && old.set == change.set);
    let new = after?.scheduled.iter().filter(|change| !known(change));
    let service = || before.id.clone();
    let lost = new.filter_map(|change| match change.set["status"].as_str() {
        Some("terminated") => Some(Loss::ServiceTerminated { service: service() }),
        Some("suspended" | "pending") => Some(Loss::ServiceSuspended { service: service() }),
        _ => None,
    });
    let mut lost: Vec<Loss> = lost.collect();
    lost.sort_by_key(|loss| !matches!(loss, Loss::ServiceTerminated { .. }));
    lost.into_iter().next()
}

/// Pointers to the places at which two documents differ, at most `PLACES_MAX`; items of lists are told apart by `id`.
pub fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut places = Vec::new();
    compare(before, after, "", &mut places);
    places
}

const PLACES_MAX: usize = 50;

fn compare(before: &Value, after: &Value, place: &str, places: &mut Vec<String>) {
    if before == after || places.len() >= PLACES_MAX {
        return;
    }
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                compare(value, after.get(key).unwrap_or(&Value::Null), &step(place, key), places);
            }
            for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
                compare(&Value::Null, value, &step(place, key), places);
            }
        }
        (Value::Array(before), Value::Array(after)) if named(before) && named(after) => {
            let of = |items: &[Value], id: &Value| items.iter().find(|item| item["id"] == *id).cloned();
            for item in before {
                let id = &item["id"];
                let place = step(place, id.as_str().unwrap_or_default());
                compare(item, &of(after, id).unwrap_or(Value::Null), &place, places);
            }
            for item in after.iter().filter(|item| of(before, &item["id"]).is_none()) {
                compare(&Value::Null, item, &step(place, item["id"].as_str().unwrap_or_default()), places);
            }
        }
        _ => places.push(place.to_owned()),
    }
}

fn named(items: &[Value]) -> bool {
    items.iter().all(|item| item["id"].is_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(document: Value) -> Account {
        serde_json::from_value(document).expect("an account")
    }

    fn with(status: &str, services: Value, holds: Value) -> Account {
        account(
            json!({ "status": status, "kind": "person", "bill_cycle": "c15", "services": services, "holds": holds }),
        )
    }

    fn service(id: &str, status: Option<&str>) -> Value {
        json!({ "id": id, "type": "email", "plan": "mail", "status": status, "mailbox": { "address": "a@b.example" } })
    }

    #[test]
    fn only_what_is_taken_away_is_a_loss() {
        let both = || json!([service("1", None), service("2", None)]);
        let before = with("active", both(), json!([]));
        let lost = |after: Account| losses(&before, &after, &Known::default());
        let of = |service: &str| service.to_owned();
        for (after, expected) in [
            (with("active", both(), json!([])), vec![]),
            (with("active", json!([service("2", None)]), json!([])), vec![Loss::ServiceRemoved { service: of("1") }]),
            (
                with(
                    "active",
                    json!([service("1", Some("terminated")), service("2", None), service("3", None)]),
                    json!([]),
                ),
                vec![Loss::ServiceTerminated { service: of("1") }],
            ),
            (
                with("suspended", both(), json!([])),
                vec![Loss::ServiceSuspended { service: of("1") }, Loss::ServiceSuspended { service: of("2") }],
            ),
            (
                with("active", json!([service("1", Some("pending")), service("2", None)]), json!([])),
                vec![Loss::ServiceSuspended { service: of("1") }],
            ),
            (with("terminated", both(), json!([])), vec![Loss::Terminated]),
            (with("active", both(), json!([{ "kind": "nonpay" }])), vec![Loss::Held { kind: of("nonpay") }]),
            (with("active", both(), json!([{ "kind": "nonpay", "treatment": "none" }])), vec![]),
        ] {
            assert_eq!(lost(after.clone()), expected, "{after:?}");
        }
    }

    #[test]
    fn giving_back_and_what_was_lost_before_is_no_loss() {
        let before = with(
            "suspended",
            json!([service("1", None), service("2", Some("terminated"))]),
            json!([{ "kind": "nonpay" }]),
        );
        for (status, services) in [("active", json!([service("1", None)])), ("suspended", json!([service("1", None)]))]
        {
            let after = with(status, services, json!([{ "kind": "nonpay" }]));
            assert_eq!(losses(&before, &after, &Known::default()), []);
        }
        let ended = with("terminated", json!([]), json!([]));
        assert_eq!(losses(&ended, &ended, &Known::default()), []);
    }

    #[test]
    fn differences_are_named_by_place_and_id() {
        let before = json!({ "name": "Ada", "services": [{ "id": "a", "plan": "x" }, { "id": "b", "plan": "x" }] });
        let after = json!({ "email": "e", "name": "Ada", "services": [{ "id": "b", "plan": "y" }, { "id": "c" }] });
        assert_eq!(differences(&before, &after), ["/services/a", "/services/b/plan", "/services/c", "/email"]);
        assert_eq!(differences(&before, &before), Vec::<String>::new());
    }
}
