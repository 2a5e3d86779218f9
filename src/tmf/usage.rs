//! An entry of the usage ledger as TMF635's Usage. Counts are texts: they leave what a JSON number holds everywhere.

use serde_json::{Value, json};

use super::id::{ItemId, USAGE};
use super::service::{characteristic, reference};
use super::{customer, resource};
use crate::account::ServiceType;
use crate::vocabulary::Timestamp;

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Used {
    /// Its item is the entry's number.
    pub id: ItemId,
    pub service: ItemId,
    pub service_type: ServiceType,
    pub from: Timestamp,
    pub until: Timestamp,
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
    /// Why it was written: `usage`, `late`, `attached`, `flush`, `refold`, `call`.
    pub cause: String,
    pub recorded_at: Timestamp,
    /// A line of a closed batch has counted it.
    pub billed: bool,
}

/// A usage resource.
pub fn usage(used: &Used) -> Value {
    let (kind, specification) = match used.service_type {
        ServiceType::Voice => ("voice", "calls"),
        ServiceType::Internet | ServiceType::Email => ("data", "octets"),
    };
    let mut shown = resource("Usage", &used.id.to_string(), USAGE, "usage");
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    put("usageDate", json!(used.from));
    put("usageType", json!(kind));
    put("description", json!(format!("Usage of {} until {}", used.service.item, used.until)));
    put("status", json!(if used.billed { "billed" } else { "guided" }));
    let counted = [
        ("inOctets", used.in_octets),
        ("outOctets", used.out_octets),
        ("seconds", used.seconds),
        ("sessions", used.sessions),
    ];
    let mut characteristics: Vec<Value> =
        counted.iter().map(|(name, count)| characteristic(name, json!(count.to_string()))).collect();
    characteristics.push(characteristic("until", json!(used.until)));
    characteristics.push(characteristic("recordedAt", json!(used.recorded_at)));
    characteristics.push(characteristic("cause", json!(used.cause)));
    put("usageCharacteristic", Value::Array(characteristics));
    put("usageSpecification", json!({ "id": specification, "name": specification, "@type": "UsageSpecificationRef" }));
    put("relatedParty", json!([customer(&used.id.account)]));
    let product = reference(&used.service, "ProductRef");
    put("ratedProductUsage", json!([{ "isBilled": used.billed, "productRef": product, "@type": "RatedProductUsage" }]));
    Value::Object(shown)
}
