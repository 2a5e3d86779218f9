//! The pushed document becomes an account, or every fault of it with its pointer (CONTRACT s6). Never stops at the first.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::hold::{Hold, HoldBilling};
use super::known::Known;
use super::model::{Account, Address, Device, Pushed, Service, Status, TaxExempt};
use super::parse_service::{self, Surroundings};
use super::text;
use super::walk::{Fields, Node, Sink};
use crate::vocabulary::{AccountKey, Fault};

/// Checks one document against the tenant's catalog.
///
/// **Shape**: `document` is the body of `PUT /accounts/{id}`; `key` names the account of the route, whose source and id
/// the body must not contradict.
/// **Errors**: every fault, at most 500.
pub fn parse(document: &Value, key: &AccountKey, known: &Known) -> Result<Pushed, Vec<Fault>> {
    let sink = Sink::default();
    let pushed = account(&Node::root(document, &sink), key, known);
    let faults = sink.into_faults();
    match pushed {
        Some(pushed) if faults.is_empty() => Ok(pushed),
        _ if faults.is_empty() => {
            Err(vec![Fault { pointer: String::new(), detail: "is no account document".to_owned() }])
        }
        _ => Err(faults),
    }
}

/// What an answer holds besides the document: ignored, so that an answer can be changed and pushed back.
const READ_ONLY: [&str; 6] = ["tenant", "revision", "created_at", "updated_at", "close_at", "operator_holds"];
const FIELDS: [&str; 18] = [
    "source",
    "source_revision",
    "status",
    "kind",
    "name",
    "email",
    "phone",
    "language",
    "tax_exempt",
    "billing_address",
    "parent",
    "tier_label",
    "bill_cycle",
    "holds",
    "devices",
    "services",
    "tags",
    "id",
];
const HOLD_FIELDS: [&str; 5] = ["kind", "treatment", "billing", "from", "until"];
const HOLDS_MAX: usize = 32;
const DEVICES_MAX: usize = 64;
const SERVICES_MAX: usize = 256;
const TAGS_MAX: usize = 64;
const TAXES_MAX: usize = 64;
const TAG_VALUE_MAX: usize = 1024;

fn account(root: &Node, key: &AccountKey, known: &Known) -> Option<Pushed> {
    let allowed: Vec<&str> = FIELDS.iter().chain(&READ_ONLY).copied().collect();
    let fields = root.fields(&allowed)?;
    if let Some(source) = fields.text("source", text::SHORT)
        && source != key.source.as_str()
    {
        fields.fault("source", format!("is {source:?}, but the request is for source {:?}", key.source.as_str()));
    }
    if let Some(id) = fields.text("id", text::NAME)
        && id != key.external_id
    {
        fields.fault("id", format!("is {id:?}, but the request is for account {:?}", key.external_id));
    }
    let source_revision = fields.optional("source_revision").and_then(|node| node.integer(0..=i64::MAX));
    let status: Option<Status> = fields.required("status").and_then(|node| node.parsed());
    let kind = fields.optional("kind").map_or(Some("person".to_owned()), |node| node.checked(text::word));
    let parent = fields.optional("parent").and_then(|node| node.checked(external_id));
    if parent.as_deref() == Some(key.external_id.as_str()) {
        fields.fault("parent", "an account cannot be its own parent");
    }
    let bill_cycle = fields.required("bill_cycle").and_then(|node| {
        let cycle = node.text(text::SHORT)?;
        if !known.bill_cycles.contains(&cycle) {
            node.fault(format!("{cycle:?} is no bill cycle of the catalog"));
        }
        Some(cycle)
    });
    let holds = fields.list("holds", HOLDS_MAX).iter().filter_map(hold).collect();
    let devices = devices(&fields);
    let (services, secrets) = services(&fields, &devices, known);
    let account = Account {
        name: fields.text("name", text::LONG),
        email: fields.optional("email").and_then(|node| node.checked(text::email)),
        phone: fields.optional("phone").and_then(|node| node.checked(text::phone)),
        language: fields.optional("language").and_then(|node| node.checked(text::language)),
        tax_exempt: tax_exempt(&fields),
        billing_address: fields.optional("billing_address").and_then(|node| address(&node)),
        tier_label: fields.text("tier_label", text::NAME),
        tags: tags(&fields),
        status: status?,
        kind: kind?,
        parent,
        bill_cycle: bill_cycle?,
        holds,
        devices,
        services,
    };
    Some(Pushed { source_revision, account, secrets })
}

/// `true`, `false`, or the ids of the taxes the account does not pay.
fn tax_exempt(fields: &Fields) -> TaxExempt {
    match fields.optional("tax_exempt") {
        Some(node) if node.value.is_array() => {
            let ids = node.list(TAXES_MAX).iter().filter_map(|node| node.text(text::SHORT)).collect();
            TaxExempt::Taxes(ids)
        }
        _ => TaxExempt::All(fields.flag("tax_exempt", false)),
    }
}

fn external_id(text: &str) -> Result<String, String> {
    AccountKey::parse_external_id(text).map_err(|error| error.to_string())
}

fn hold(node: &Node) -> Option<Hold> {
    let fields = node.fields(&HOLD_FIELDS)?;
    let kind = fields.required("kind").and_then(|node| node.parsed());
    let treatment = fields.optional("treatment").map(|node| node.parsed());
    let billing = match fields.optional("billing") {
        None => Some(HoldBilling::Full),
        Some(node) => node.checked(|text| match text {
            "full" => Ok(HoldBilling::Full),
            "none" => Ok(HoldBilling::None),
            _ => Err("must be \"full\" or \"none\"".to_owned()),
        }),
    };
    let from = fields.optional("from").and_then(|node| node.instant());
    let until = fields.optional("until").and_then(|node| node.instant());
    if let (Some(from), Some(until)) = (from, until)
        && until <= from
    {
        fields.fault("until", "must be later than `from`");
    }
    Some(Hold { kind: kind?, treatment: treatment.flatten(), billing: billing?, from, until })
}

/// A hold an operator sets through the API, checked like one in a push.
pub fn operator_hold(document: &Value, default: Hold) -> Result<(Hold, Option<String>), Vec<Fault>> {
    let sink = Sink::default();
    let root = Node::root(document, &sink);
    let found = root.fields(&["kind", "treatment", "billing", "from", "until", "reason"]).map(|fields| {
        let reason = fields.text("reason", text::LONG);
        let Some(map) = document.as_object() else { return (None, reason) };
        // What is unknown has just been named; the hold itself is walked without it.
        let mut map = map.clone();
        map.retain(|key, _| HOLD_FIELDS.contains(&key.as_str()));
        if !map.contains_key("kind") {
            map.insert("kind".to_owned(), Value::String(default.kind.as_str().to_owned()));
        }
        (hold(&Node { value: &Value::Object(map), pointer: String::new(), sink: &sink }), reason)
    });
    let faults = sink.into_faults();
    match found {
        Some((Some(hold), reason)) if faults.is_empty() => {
            Ok((Hold { from: hold.from.or(default.from), ..hold }, reason))
        }
        _ => Err(faults),
    }
}

fn devices(fields: &Fields) -> Vec<Device> {
    let (mut ids, mut macs) = (BTreeSet::new(), BTreeSet::new());
    let mut devices = Vec::new();
    for node in fields.list("devices", DEVICES_MAX) {
        let Some(fields) = node.fields(&["id", "cm_mac", "mta_mac", "model", "serial"]) else { continue };
        let id = fields.required("id").and_then(|node| node.text(text::NAME));
        if let Some(id) = &id
            && !ids.insert(id.clone())
        {
            fields.fault("id", format!("device {id:?} is listed twice"));
        }
        let mut mac = |key: &str, node: Option<Node>| {
            let mac = node.and_then(|node| node.parsed())?;
            if !macs.insert(mac) {
                fields.fault(key, format!("{mac} is used twice in this document"));
            }
            Some(mac)
        };
        let cm_mac = mac("cm_mac", fields.required("cm_mac"));
        let mta_mac = mac("mta_mac", fields.optional("mta_mac"));
        let (model, serial) = (fields.text("model", text::NAME), fields.text("serial", text::NAME));
        if let (Some(id), Some(cm_mac)) = (id, cm_mac) {
            devices.push(Device { id, cm_mac, mta_mac, model, serial });
        }
    }
    devices
}

fn services(fields: &Fields, devices: &[Device], known: &Known) -> (Vec<Service>, Vec<super::SecretChange>) {
    let device_ids: BTreeSet<String> = fields
        .list("devices", usize::MAX)
        .iter()
        .filter_map(|node| Some(node.value.get("id")?.as_str()?.to_owned()))
        .collect();
    let mut surroundings = Surroundings::new(known, devices, device_ids);
    let (mut ids, mut services, mut secrets) = (BTreeSet::new(), Vec::new(), Vec::new());
    for node in fields.list("services", SERVICES_MAX) {
        let Some(parsed) = parse_service::service(&node, &mut surroundings) else { continue };
        if !ids.insert(parsed.service.id.clone()) {
            node.fault(format!("service {:?} is listed twice", parsed.service.id));
        }
        services.push(parsed.service);
        secrets.extend(parsed.secrets);
    }
    (services, secrets)
}

pub(crate) fn address(node: &Node) -> Option<Address> {
    let fields = node.fields(&["line1", "line2", "city", "region", "postal_code", "country"])?;
    let line1 = fields.required("line1").and_then(|node| node.text(text::LONG));
    let city = fields.required("city").and_then(|node| node.text(text::NAME));
    let country = fields.required("country").and_then(|node| node.checked(text::country));
    let line2 = fields.text("line2", text::LONG);
    let region = fields.text("region", text::NAME);
    let postal_code = fields.text("postal_code", text::SHORT);
    Some(Address { line1: line1?, line2, city: city?, region, postal_code, country: country? })
}

fn tags(fields: &Fields) -> BTreeMap<String, String> {
    let Some(node) = fields.optional("tags") else { return BTreeMap::new() };
    let mut tags = BTreeMap::new();
    for (key, value) in node.entries(TAGS_MAX) {
        if let Err(detail) = text::plain(key, text::SHORT) {
            node.fault(format!("the name of a tag {detail}"));
            continue;
        }
        // An empty tag is a fact too.
        let text = match value.value.as_str() {
            Some("") => Some(String::new()),
            _ => value.text(TAG_VALUE_MAX),
        };
        if let Some(text) = text {
            tags.insert(key.clone(), text);
        }
    }
    tags
}
