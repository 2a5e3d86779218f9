//! What happened, in TM Forum's envelope, for listeners that were registered at a hub; and which of our events a listener wants.

use serde_json::{Value, json};

use super::id::ItemId;
use super::service::{characteristic, reference};
use crate::vocabulary::{SourceId, Timestamp};

/// One of our types of event and what it is called here.
type Told = (&'static str, &'static str);

const TOLD: [Told; 5] = [
    ("service.created", "ServiceCreateEvent"),
    ("service.changed", "ServiceAttributeValueChangeEvent"),
    ("service.failed", "ServiceAttributeValueChangeEvent"),
    ("service.provisioned", "ServiceStateChangeEvent"),
    ("service.closed", "ServiceDeleteEvent"),
];

/// What a listener asked for, made into our types of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listened {
    pub types: Vec<String>,
}

/// Reads the `query` of a registration: nothing, or `eventType=A,B`, in several parts where it is several.
///
/// **Errors**: a sentence.
pub fn listens_to(query: &str) -> Result<Listened, String> {
    let mut wanted: Vec<&str> = Vec::new();
    for part in query.trim_start_matches('?').split(['&', ';']).map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("eventType", names)) => wanted.extend(names.split(',').map(str::trim)),
            _ => return Err("knows eventType=NAME and nothing else".to_owned()),
        }
    }
    let is_known = |name: &str| TOLD.iter().any(|(_, told)| *told == name);
    if let Some(unknown) = wanted.iter().find(|name| !is_known(name)) {
        let mut names: Vec<&str> = TOLD.iter().map(|(_, told)| *told).collect();
        names.dedup();
        let shown: String = unknown.chars().take(60).collect();
        return Err(format!("{shown:?} is no event of ours; there are {}", names.join(", ")));
    }
    let takes = |told: &str| wanted.is_empty() || wanted.contains(&told);
    let types = TOLD.iter().filter(|(_, told)| takes(told)).map(|(ours, _)| (*ours).to_owned());
    Ok(Listened { types: types.collect() })
}

/// An event's body. It is thin, as all our events are: it names the service, which is read then. `None`: no event of theirs.
pub fn envelope(id: &str, kind: &str, at: Timestamp, payload: &Value) -> Option<Value> {
    let (_, name) = TOLD.iter().find(|(ours, _)| *ours == kind)?;
    let text = |member: &str| payload[member].as_str().map(str::to_owned);
    let source = SourceId::parse(&text("source")?).ok()?;
    let of = ItemId { source, account: text("account")?, item: text("service")? };
    let mut service = reference(&of, "Service");
    if kind == "service.failed" {
        let failed = json!({ "state": "failed", "last_error": payload["reason"] });
        service.insert("serviceCharacteristic".to_owned(), json!([characteristic("provisioning", failed)]));
    }
    if kind == "service.closed" {
        service.insert("state".to_owned(), json!("terminated"));
    }
    Some(json!({
        "eventId": id,
        "eventTime": at,
        "eventType": name,
        "domain": "service",
        "title": title(kind),
        "event": { "service": service },
        "@type": name,
    }))
}

fn title(kind: &str) -> &'static str {
    match kind {
        "service.created" => "A service was ordered",
        "service.changed" => "What a service is was changed",
        "service.failed" => "Something a service needs could not be brought about",
        "service.provisioned" => "Everything a service needs is in force as it was ordered",
        _ => "A service has ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_gets_what_it_asked_for() {
        let types = |query| listens_to(query).map(|listened| listened.types.join(" "));
        assert_eq!(
            types("").as_deref(),
            Ok("service.created service.changed service.failed service.provisioned service.closed")
        );
        assert_eq!(types("eventType=ServiceStateChangeEvent").as_deref(), Ok("service.provisioned"));
        assert_eq!(
            types("eventType=ServiceCreateEvent&eventType=ServiceDeleteEvent").as_deref(),
            Ok("service.created service.closed")
        );
        assert!(types("eventType=CustomerBillCreateEvent").expect_err("unknown").contains("CustomerBillCreateEvent"));
        assert!(types("state=active").is_err());
    }

    #[test]
    fn what_is_none_of_theirs_has_no_envelope() {
        let payload = json!({ "account": "1", "source": "default" });
        assert_eq!(envelope("acme.1", "account.created", Timestamp::UNIX_EPOCH, &payload), None);
        assert_eq!(envelope("acme.1", "service.created", Timestamp::UNIX_EPOCH, &json!({ "erased": true })), None);
    }
}
